//! How the pool follows the load, for operators: what the Scaler sees and did, and which scheduled bots it expects.

use crate::http::caller::Operator;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::http::stats::observe;
use actix_web::web;
use chrono::{DateTime, TimeDelta, Utc};
use meeboter_actors::scale::actor::{Observe, ScaleSnapshot};
use meeboter_actors::scale::plan::Action;
use meeboter_actors::schedule::message::{Observe as ObserveSchedule, ScheduleSnapshot};
use serde::Serialize;

/// A platform, as the Scaler sees it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PlatformView {
    platform: String,
    /// The mean of its utilisation over `scale.window_ms`, in percent; null until so long is known.
    mean_percent: Option<f64>,
    /// Scheduled bots that are handed over within `scale.look_ahead_ms`.
    coming: usize,
    /// When it was last scaled since this server leads; it is left as it is until the cool-down is over.
    scaled_at: Option<DateTime<Utc>>,
    /// Slots to reach by that; null where it was scaled down.
    up_to: Option<u32>,
}

/// A slot that the Scaler wished made or gone.
#[derive(Debug, Serialize)]
struct ActionView {
    at: DateTime<Utc>,
    /// `grow` or `retire`.
    action: &'static str,
    /// The platform that a slot is made for, or the slot that goes.
    what: String,
}

/// How the pool follows the load.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleView {
    platforms: Vec<PlatformView>,
    /// For which platform a slot is being made.
    growing: Option<String>,
    /// What was wished last, the latest first.
    recent: Vec<ActionView>,
    /// Bots that wait for their start.
    scheduled: usize,
    /// When the next of them is handed over.
    next_due_at: Option<DateTime<Utc>>,
}

/// GET /api/admin/scale
pub async fn read(_: Operator, state: web::Data<AppState>) -> Result<web::Json<ScaleView>, ApiError> {
    let tree = state.tree()?;
    let scale = observe(&tree.scaler, Observe).await?;
    let schedule = observe(&tree.schedule, ObserveSchedule { within: TimeDelta::zero() }).await?;
    Ok(web::Json(view(scale, &schedule)))
}

fn view(scale: ScaleSnapshot, schedule: &ScheduleSnapshot) -> ScaleView {
    let ScaleSnapshot { platforms, coming, growing, recent } = scale;
    let platforms = platforms.into_iter().map(|(platform, line)| PlatformView {
        mean_percent: line.mean.map(|mean| (mean.as_percent() * 10.0).round() / 10.0),
        coming: coming.get(&platform).copied().unwrap_or(0),
        scaled_at: line.scaled.map(|scaled| scaled.at),
        up_to: line.scaled.and_then(|scaled| scaled.up_to),
        platform: platform.0,
    });
    ScaleView {
        platforms: platforms.collect(),
        growing: growing.map(|platform| platform.0),
        recent: recent.into_iter().rev().map(|(at, action)| action_view(at, action)).collect(),
        scheduled: schedule.count,
        next_due_at: schedule.next_due_at,
    }
}

fn action_view(at: DateTime<Utc>, action: Action) -> ActionView {
    let (action, what) = match action {
        Action::Grow { platform } => ("grow", platform.0),
        Action::Retire { slot } => ("retire", slot.0),
    };
    ActionView { at, action, what }
}
