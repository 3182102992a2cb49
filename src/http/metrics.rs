//! GET /metrics, for Prometheus.

use super::error::ApiError;
use super::state::AppState;
use super::stats::observe;
use crate::metrics::{CONTENT_TYPE, PlatformLine, Snapshot};
use actix_web::http::header::CONTENT_TYPE as CONTENT_TYPE_HEADER;
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use meeboter_actors::ids::Platform;
use meeboter_actors::ports::{Measure, Meter};
use meeboter_actors::slot::SlotStatus;
use meeboter_actors::tree::Tree;
use meeboter_actors::{maintenance, pool, queue};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What was counted, and the pool and the queue as they are. Needs no key: there is nothing of anybody's in it.
pub async fn scrape(state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let snapshot = match state.tree() {
        Ok(tree) => snapshot(&state, tree).await?,
        Err(_) => Snapshot::default(),
    };
    let page = state.metrics.text(&snapshot).map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE_HEADER, CONTENT_TYPE)).body(page))
}

async fn snapshot(state: &AppState, tree: &Tree) -> Result<Snapshot, ApiError> {
    let asked = Instant::now();
    let pool = observe(&tree.pool, pool::message::Observe).await?;
    state.metrics.record(Measure::MailboxWaited { actor: "pool", wait: asked.elapsed() });
    let asked = Instant::now();
    let lines = observe(&tree.queue, queue::message::Observe).await?;
    state.metrics.record(Measure::MailboxWaited { actor: "queue", wait: asked.elapsed() });
    let named = |key: &String| PlatformLine { platform: key.clone(), ..PlatformLine::default() };
    let mut platforms: BTreeMap<Platform, PlatformLine> =
        pool.platforms.keys().map(|platform| (platform.clone(), named(&platform.0))).collect();
    for ((platform, status), count) in pool.slots {
        let line = platforms.entry(platform.clone()).or_insert_with(|| named(&platform.0));
        line.slots.push((status, count));
    }
    for (platform, snapshot) in lines.lines {
        let line = platforms.entry(platform.clone()).or_insert_with(|| named(&platform.0));
        line.waiting = snapshot.length;
        let oldest = snapshot.oldest_queued_at.map(|since| state.clock.now() - since);
        line.longest_wait = oldest.and_then(|wait| wait.to_std().ok()).unwrap_or_default();
    }
    for (platform, age) in oldest_deployments(tree, state.clock.now()) {
        let line = platforms.entry(platform.clone()).or_insert_with(|| named(&platform.0));
        line.longest_deployment = age;
    }
    let breakers = pool.hosts.into_iter().map(|(host, line)| (host.0, !line.answers()));
    let maintenance = observe(&tree.maintainer, maintenance::actor::Observe).await?;
    Ok(Snapshot {
        platforms: platforms.into_values().collect(),
        breakers: breakers.collect(),
        disks: maintenance.disks.into_iter().map(|line| line.disk).collect(),
        maintained_at: maintenance.ended_at.map(|at| at.timestamp()),
        maintenance_due_at: maintenance.due_at.map(|at| at.timestamp()),
        leads: state.leading()?.lead.holds(),
    })
}

/// For how long the bot that is being deployed longest has had its slot, by platform. Read from the slots' handles: no actor
/// is asked.
fn oldest_deployments(tree: &Tree, now: DateTime<Utc>) -> BTreeMap<Platform, Duration> {
    let mut oldest: BTreeMap<Platform, Duration> = BTreeMap::new();
    for handle in tree.directory.all() {
        let slot = handle.snapshot();
        let deploying = slot.bot().filter(|_| slot.status() == Some(SlotStatus::Deploying));
        if let Some(since) = deploying.and_then(|bot| bot.deployed_at) {
            let age = (now - since).to_std().unwrap_or_default();
            let known = oldest.entry(slot.platform.clone()).or_default();
            *known = age.max(*known);
        }
    }
    oldest
}
