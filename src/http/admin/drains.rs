//! Drains of whole platforms and hosts: begin, end, see how many slots are left.

use super::note;
use crate::http::caller::Operator;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::http::stats::observe;
use actix_web::web;
use chrono::{DateTime, Utc};
use meeboter_actors::ids::{HostName, Platform};
use meeboter_actors::pool::Drain;
use meeboter_actors::pool::breaker::BreakerState;
use meeboter_actors::pool::message::{DrainHost, DrainPlatform, Observe};
use meeboter_actors::supervision::tell;
use serde::Serialize;
use tokio::sync::oneshot;

/// A drain.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainView {
    /// `platform` or `host`.
    kind: &'static str,
    name: String,
    /// `false`: it was just ended.
    draining: bool,
    slots_left: usize,
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
    let drains = snapshot.drains.into_iter().map(|(drain, slots_left)| view(drain, true, slots_left));
    Ok(web::Json(DrainList { drains: drains.collect(), hosts: hosts.collect() }))
}

/// POST /api/admin/drains/{platforms|hosts}/{name}
pub async fn begin(
    operator: Operator,
    state: web::Data<AppState>,
    path: web::Path<(String, String)>,
) -> Result<web::Json<DrainView>, ApiError> {
    set(operator, &state, drain_named(path.into_inner())?, true).await
}

/// DELETE /api/admin/drains/{platforms|hosts}/{name}: slots that were to go stay.
pub async fn end(
    operator: Operator,
    state: web::Data<AppState>,
    path: web::Path<(String, String)>,
) -> Result<web::Json<DrainView>, ApiError> {
    set(operator, &state, drain_named(path.into_inner())?, false).await
}

async fn set(
    operator: Operator,
    state: &AppState,
    drain: Drain,
    draining: bool,
) -> Result<web::Json<DrainView>, ApiError> {
    let _admitted = state.admit()?;
    let pool = &state.tree()?.pool;
    note(state, operator, if draining { "drain" } else { "undrain" }, &drain);
    let (reply, answer) = oneshot::channel();
    match drain.clone() {
        Drain::Platform(platform) => tell(pool, DrainPlatform { platform, draining, reply }),
        Drain::Host(host) => tell(pool, DrainHost { host, draining, reply }),
    }
    let slots_left = state.decided(answer).await??;
    Ok(web::Json(view(drain, draining, slots_left)))
}

fn drain_named((kind, name): (String, String)) -> Result<Drain, ApiError> {
    match kind.as_str() {
        "platforms" => Ok(Drain::Platform(Platform(name))),
        "hosts" => Ok(Drain::Host(HostName(name))),
        _ => Err(ApiError::not_found("such address")),
    }
}

fn view(drain: Drain, draining: bool, slots_left: usize) -> DrainView {
    let (kind, name) = match drain {
        Drain::Platform(platform) => ("platform", platform.0),
        Drain::Host(host) => ("host", host.0),
    };
    DrainView { kind, name, draining, slots_left }
}
