//! Drains of whole platforms and hosts, and of the server: begin, end, see how far they are.

use super::{DrainQuery, note};
use crate::http::caller::Operator;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::http::stats::observe;
use actix_web::web;
use chrono::{DateTime, TimeDelta, Utc};
use meeboter_actors::ids::{HostName, Platform};
use meeboter_actors::pool::breaker::BreakerState;
use meeboter_actors::pool::message::{DrainHost, DrainPlatform, DrainServer, Observe, ServerDrain};
use meeboter_actors::pool::{Drain, DrainLine};
use meeboter_actors::supervision::tell;
use serde::Serialize;
use tokio::sync::oneshot;

/// A drain.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainView {
    /// `platform`, `host` or `server`.
    kind: &'static str,
    name: String,
    /// `false`: it was just ended.
    draining: bool,
    slots_left: usize,
    /// Of these slots those that have a bot.
    bots_left: usize,
    /// When they are asked to leave; absent: they stay for as long as they like.
    deadline_at: Option<DateTime<Utc>>,
}

/// What a host holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostView {
    name: String,
    slots: u32,
    /// Slots that it has room for.
    capacity: u32,
    draining: bool,
    /// Since when its engine does not answer: it is left alone until it does.
    away_since: Option<DateTime<Utc>>,
    /// When it is asked again; absent while it is being asked.
    asked_again_at: Option<DateTime<Utc>>,
}

/// What is being emptied, and the hosts.
#[derive(Debug, Serialize)]
pub struct DrainList {
    drains: Vec<DrainView>,
    hosts: Vec<HostView>,
}

/// GET /api/admin/drains
pub async fn list(_: Operator, state: web::Data<AppState>) -> Result<web::Json<DrainList>, ApiError> {
    let snapshot = observe(&state.tree()?.pool, Observe).await?;
    let hosts = snapshot.hosts.into_iter().map(|(name, host)| HostView {
        name: name.0,
        slots: host.slots,
        capacity: host.capacity,
        draining: host.draining,
        away_since: host.engine.away_since(),
        asked_again_at: match host.engine {
            BreakerState::Open { probe_at, .. } => Some(probe_at),
            BreakerState::Closed | BreakerState::HalfOpen { .. } => None,
        },
    });
    let closing = snapshot.closing.map(|line| server_view(true, line));
    let drains = snapshot.drains.into_iter().map(|(drain, line)| view(drain, true, line)).chain(closing);
    Ok(web::Json(DrainList { drains: drains.collect(), hosts: hosts.collect() }))
}

/// POST /api/admin/drains/{platforms|hosts}/{name}; one that is under way gets this deadline.
pub async fn begin(
    operator: Operator,
    state: web::Data<AppState>,
    path: web::Path<(String, String)>,
    query: web::Query<DrainQuery>,
) -> Result<web::Json<DrainView>, ApiError> {
    set(operator, &state, drain_named(path.into_inner())?, true, query.within()?).await
}

/// DELETE /api/admin/drains/{platforms|hosts}/{name}: slots that were to go stay.
pub async fn end(
    operator: Operator,
    state: web::Data<AppState>,
    path: web::Path<(String, String)>,
) -> Result<web::Json<DrainView>, ApiError> {
    set(operator, &state, drain_named(path.into_inner())?, false, None).await
}

/// POST /api/admin/drains/server: new bots are refused and none gets a slot; when no bot is left the server stops.
pub async fn begin_server(
    operator: Operator,
    state: web::Data<AppState>,
    query: web::Query<DrainQuery>,
) -> Result<web::Json<DrainView>, ApiError> {
    let (emptied, gone) = oneshot::channel();
    let order = ServerDrain { within: query.within()?, emptied };
    let stops = state.clone();
    // Before the order: also one whose answer is lost is carried out.
    actix_web::rt::spawn(async move {
        // Dropped where it was refused, is ended, or replaced by another.
        if gone.await.is_ok() {
            stops.emptied.notify_one();
        }
    });
    set_server(operator, &state, Some(order)).await
}

/// DELETE /api/admin/drains/server: it serves again.
pub async fn end_server(
    operator: Operator,
    state: web::Data<AppState>,
) -> Result<web::Json<DrainView>, ApiError> {
    set_server(operator, &state, None).await
}

async fn set_server(
    operator: Operator,
    state: &AppState,
    order: Option<ServerDrain>,
) -> Result<web::Json<DrainView>, ApiError> {
    let _admitted = state.admit()?;
    let (pool, draining) = (&state.tree()?.pool, order.is_some());
    note(state, operator, if draining { "drain" } else { "undrain" }, "the server");
    let (reply, answer) = oneshot::channel();
    tell(pool, DrainServer { order, reply });
    Ok(web::Json(server_view(draining, state.decided(answer).await?)))
}

async fn set(
    operator: Operator,
    state: &AppState,
    drain: Drain,
    draining: bool,
    within: Option<TimeDelta>,
) -> Result<web::Json<DrainView>, ApiError> {
    let _admitted = state.admit()?;
    let pool = &state.tree()?.pool;
    note(state, operator, if draining { "drain" } else { "undrain" }, &drain);
    let (reply, answer) = oneshot::channel();
    match drain.clone() {
        Drain::Platform(platform) => tell(pool, DrainPlatform { platform, draining, within, reply }),
        Drain::Host(host) => tell(pool, DrainHost { host, draining, within, reply }),
    }
    let line = state.decided(answer).await??;
    Ok(web::Json(view(drain, draining, line)))
}

fn drain_named((kind, name): (String, String)) -> Result<Drain, ApiError> {
    match kind.as_str() {
        "platforms" => Ok(Drain::Platform(Platform(name))),
        "hosts" => Ok(Drain::Host(HostName(name))),
        _ => Err(ApiError::not_found("such address")),
    }
}

fn view(drain: Drain, draining: bool, line: DrainLine) -> DrainView {
    let (kind, name) = match drain {
        Drain::Platform(platform) => ("platform", platform.0),
        Drain::Host(host) => ("host", host.0),
    };
    let DrainLine { slots_left, bots_left, by } = line;
    DrainView { kind, name, draining, slots_left, bots_left, deadline_at: by }
}

fn server_view(draining: bool, DrainLine { slots_left, bots_left, by }: DrainLine) -> DrainView {
    DrainView { kind: "server", name: "this".to_owned(), draining, slots_left, bots_left, deadline_at: by }
}
