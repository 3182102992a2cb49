//! Pool and queue in numbers, in the documented shapes.

use super::caller::Caller;
use super::error::ApiError;
use super::state::AppState;
use super::views::milliseconds;
use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use actix_web::web;
use chrono::{DateTime, Utc};
use meeboter_actors::ids::Platform;
use meeboter_actors::queue::message::LineSnapshot;
use meeboter_actors::slot::SlotStatus;
use meeboter_actors::{pool, queue};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

const OBSERVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Slots by state.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotCounts {
    total: u32,
    idle: u32,
    deploying: u32,
    busy: u32,
    error: u32,
    max_size: u32,
}

/// GET /api/bots/pool/stats
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStats {
    #[serde(flatten)]
    all: SlotCounts,
    platforms: BTreeMap<Platform, SlotCounts>,
}

/// Slots in numbers.
pub async fn pool(_: Caller, state: web::Data<AppState>) -> Result<web::Json<PoolStats>, ApiError> {
    let snapshot = observe(&state.tree()?.pool, pool::message::Observe).await?;
    let mut stats = PoolStats::default();
    for (platform, line) in snapshot.platforms {
        let counts = SlotCounts { max_size: line.max_size, ..SlotCounts::default() };
        stats.platforms.insert(platform, counts);
    }
    for ((platform, status), count) in snapshot.slots {
        stats.platforms.entry(platform).or_default().add(status, count);
        stats.all.add(status, count);
    }
    stats.all.max_size = snapshot.max_size;
    Ok(web::Json(stats))
}

impl SlotCounts {
    fn add(&mut self, status: SlotStatus, count: u32) {
        self.total += count;
        match status {
            SlotStatus::Idle => self.idle += count,
            SlotStatus::Deploying => self.deploying += count,
            SlotStatus::Busy => self.busy += count,
            SlotStatus::Error => self.error += count,
        }
    }
}

/// Waiting bots in numbers. Where nobody waits: 0, null, 0.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LineStats {
    length: usize,
    oldest_queued_at: Option<DateTime<Utc>>,
    /// Mean of the waits so far of those who wait.
    avg_wait_ms: i64,
}

/// A platform's line in numbers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlatformLineStats {
    #[serde(flatten)]
    line: LineStats,
    /// How long one more bot may have to wait.
    estimated_wait_ms: u64,
}

/// GET /api/bots/queue/stats
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStats {
    #[serde(flatten)]
    all: LineStats,
    platforms: BTreeMap<Platform, PlatformLineStats>,
}

/// The queue in numbers.
pub async fn queue(_: Caller, state: web::Data<AppState>) -> Result<web::Json<QueueStats>, ApiError> {
    let snapshot = observe(&state.tree()?.queue, queue::message::Observe).await?;
    let platforms = snapshot.lines.iter().map(|(platform, snapshot)| {
        let estimated_wait_ms = milliseconds(snapshot.estimated_wait);
        (platform.clone(), PlatformLineStats { line: line([snapshot]), estimated_wait_ms })
    });
    Ok(web::Json(QueueStats { all: line(snapshot.lines.values()), platforms: platforms.collect() }))
}

fn line<'a>(lines: impl IntoIterator<Item = &'a LineSnapshot> + Clone) -> LineStats {
    let each = || lines.clone().into_iter();
    let length = each().map(|line| line.length).sum();
    let waited_ms: i64 = each().map(|line| line.waited_ms).sum();
    let length_or_one = i64::try_from(length).unwrap_or(i64::MAX).max(1);
    let oldest_queued_at = each().filter_map(|line| line.oldest_queued_at).min();
    LineStats { length, oldest_queued_at, avg_wait_ms: waited_ms / length_or_one }
}

/// Asks an actor for its snapshot.
pub(super) async fn observe<A, M>(addr: &Addr<A>, message: M) -> Result<M::Result, ApiError>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    let answer = addr.send(message).timeout(OBSERVE_TIMEOUT).await;
    answer.map_err(|_| ApiError::unavailable("busy", "The pool is busy; try again.", 1))
}
