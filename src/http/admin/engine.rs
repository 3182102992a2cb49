//! The engine for operators: pulls under way, a pull now, what was listed and a listing now; recordings being joined.

use super::note;
use crate::http::caller::Operator;
use crate::http::error::ApiError;
use crate::http::json;
use crate::http::state::AppState;
use crate::http::stats::observe;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use meeboter_actors::ids::HostName;
use meeboter_actors::image_pull::PullKey;
use meeboter_actors::image_pull::actor::{Observe, PullLine, PullSnapshot};
use meeboter_actors::image_pull::anew::{pull_anew, refresh_slots};
use meeboter_actors::image_pull::machine::PullState;
use meeboter_actors::pool;
use meeboter_actors::reconcile;
use meeboter_actors::reconcile::actor::{ReconcileLine, ReconcileNow};
use meeboter_actors::recording;
use meeboter_actors::recording::actor::RecordingSnapshot;
use meeboter_actors::recording::collector::CollectorSnapshot;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The longest reference of an image: registry, repository, tag and digest fit well into it.
const IMAGE_CHARS_MAX: usize = 500;

/// One image on one host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PullView {
    host: String,
    image: String,
    /// `pulling`, `backing_off`, `present` or `unknown`.
    state: &'static str,
    /// When the engine's pull last got on.
    moved_at: Option<DateTime<Utc>>,
    /// When the next try begins, if anybody waits.
    next_try_at: Option<DateTime<Utc>>,
    /// How far the engine's pull is, in its own measure.
    done: Option<u64>,
    /// How far it has to go; 0: not known yet.
    total: Option<u64>,
    waiting: usize,
    /// Tries in a row that failed.
    failures: u32,
}

/// The pulls.
#[derive(Debug, Serialize)]
pub struct PullList {
    /// By host and image.
    data: Vec<PullView>,
    /// Tries begun since this server leads.
    begun: u64,
}

/// GET /api/admin/pulls
pub async fn pulls(_: Operator, state: web::Data<AppState>) -> Result<web::Json<PullList>, ApiError> {
    let PullSnapshot { pulls, begun } = observe(&state.tree()?.pulls, Observe).await?;
    Ok(web::Json(PullList { data: pulls.iter().map(view).collect(), begun }))
}

/// What to pull, and where.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PullRequest {
    host: String,
    image: String,
}

/// POST /api/admin/pulls: has the engine pull, also an image that it has, whose tag may have moved; free slots have what
/// is ready for their next bots made of it anew. 202: it goes on while nobody waits for it.
pub async fn pull(
    request: HttpRequest,
    operator: Operator,
    state: web::Data<AppState>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (PullRequest { host, image }, _) = json::body(&request, payload).await?;
    let is_reference = image.chars().all(|char| char.is_ascii_graphic());
    if image.is_empty() || image.len() > IMAGE_CHARS_MAX || !is_reference {
        let takes = format!("image: it takes an image's reference, 1 to {IMAGE_CHARS_MAX} characters.");
        return Err(ApiError::field("image", takes));
    }
    let _admitted = state.admit()?;
    let tree = state.tree()?;
    let host = HostName(host);
    if !observe(&tree.pool, pool::message::Observe).await?.hosts.contains_key(&host) {
        return Err(ApiError::not_found(format!("host {host}")));
    }
    note(&state, operator, "pull", format_args!("{image} on {host}"));
    let key = PullKey { host, image };
    let pulled = pull_anew(&tree.pulls, &key);
    let (directory, of, log) = (Arc::clone(&tree.directory), key.clone(), state.log.clone());
    // Comes to an end by the pull's own rule: silence, and so many tries.
    actix_web::rt::spawn(async move {
        match pulled.await {
            Ok(Ok(())) => drop(refresh_slots(&directory, &of).await),
            Ok(Err(why)) => {
                slog::warn!(log, "a pull that an operator asked for failed; free slots keep what is ready";
                    "host" => %of.host, "image" => of.image, "reason" => %why)
            }
            // This server ends.
            Err(_) => {}
        }
    });
    let snapshot = observe(&tree.pulls, Observe).await?;
    let line = snapshot.pulls.iter().find(|line| line.key == key).ok_or_else(ApiError::unknown_outcome)?;
    Ok(HttpResponse::build(StatusCode::ACCEPTED).json(view(line)))
}

/// What was seen on a host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReconcileView {
    host: String,
    /// It is being listed.
    listing: bool,
    /// When the last listing that succeeded began.
    listed_at: Option<DateTime<Utc>>,
    containers: usize,
    /// Containers that no slot wants; removed if they are still there at the next listing.
    suspects: usize,
    /// Strays removed since this server leads.
    removed: u64,
    /// Why the last listing failed, where it did.
    failure: Option<String>,
    /// Events that the engine told of by itself, and how often its word was interrupted.
    events: u64,
    gaps: u64,
}

/// The hosts as they were seen.
#[derive(Debug, Serialize)]
pub struct ReconcileList {
    /// By name.
    data: Vec<ReconcileView>,
}

/// GET /api/admin/reconcile
pub async fn reconciled(
    _: Operator,
    state: web::Data<AppState>,
) -> Result<web::Json<ReconcileList>, ApiError> {
    let snapshot = observe(&state.tree()?.reconciler, reconcile::actor::Observe).await?;
    let view = |(host, line): (HostName, ReconcileLine)| ReconcileView {
        host: host.0,
        listing: line.listing,
        listed_at: line.listed_at,
        containers: line.containers,
        suspects: line.suspects,
        removed: line.removed,
        failure: line.failure,
        events: line.events,
        gaps: line.gaps,
    };
    Ok(web::Json(ReconcileList { data: snapshot.hosts.into_iter().map(view).collect() }))
}

/// Recordings of ended bots.
#[derive(Debug, Serialize)]
pub struct RecordingWork {
    /// They may still change.
    tracked: usize,
    /// Looked at or joined now.
    joining: usize,
    waiting: usize,
    /// Their last try failed, and each is tried again.
    failing: usize,
    spools: Spools,
}

/// What bots left behind on their hosts.
#[derive(Debug, Serialize)]
pub struct Spools {
    /// They are being looked for, or one is being collected.
    looking: bool,
    /// How many there were at the last look.
    found: usize,
    /// Those that could not be collected, and are tried again.
    waiting: usize,
}

/// GET /api/admin/recordings
pub async fn recordings(
    _: Operator,
    state: web::Data<AppState>,
) -> Result<web::Json<RecordingWork>, ApiError> {
    let tree = state.tree()?;
    let RecordingSnapshot { tracked, joining, waiting, failing } =
        observe(&tree.recordings, recording::actor::Observe).await?;
    let CollectorSnapshot { looking, found, waiting: held_back } =
        observe(&tree.collector, recording::collector::Observe).await?;
    let spools = Spools { looking, found, waiting: held_back };
    Ok(web::Json(RecordingWork { tracked, joining, waiting, failing, spools }))
}

/// How many hosts are being listed by that.
#[derive(Debug, Serialize)]
pub struct Reconciling {
    hosts: usize,
}

/// POST /api/admin/reconcile: compares now what runs with what should.
pub async fn reconcile_now(operator: Operator, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let _admitted = state.admit()?;
    let reconciler = &state.tree()?.reconciler;
    note(&state, operator, "reconcile", "all hosts");
    let hosts = observe(reconciler, ReconcileNow).await?;
    Ok(HttpResponse::build(StatusCode::ACCEPTED).json(Reconciling { hosts }))
}

fn view(line: &PullLine) -> PullView {
    let (moved_at, next_try_at) = match line.state {
        PullState::Pulling { moved_at } => (Some(moved_at), None),
        PullState::BackingOff { until } => (None, Some(until)),
        PullState::Unknown | PullState::Present => (None, None),
    };
    PullView {
        host: line.key.host.0.clone(),
        image: line.key.image.clone(),
        state: line.state.as_str(),
        moved_at,
        next_try_at,
        done: line.progress.map(|progress| progress.done),
        total: line.progress.map(|progress| progress.total),
        waiting: line.waiting,
        failures: line.failures,
    }
}
