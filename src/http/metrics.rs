//! GET /metrics, for Prometheus.

use super::error::ApiError;
use super::state::{AppState, Leading};
use super::stats::observe;
use crate::metrics::{CONTENT_TYPE, PlatformLine, SlotCounts, Snapshot, Waiting};
use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use actix_web::http::header::CONTENT_TYPE as CONTENT_TYPE_HEADER;
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use meeboter_actors::ids::Platform;
use meeboter_actors::maintenance::actor::MaintenanceSnapshot;
use meeboter_actors::pool::message::PoolSnapshot;
use meeboter_actors::ports::{Measure, Meter};
use meeboter_actors::queue::message::QueueSnapshot;
use meeboter_actors::slot::SlotStatus;
use meeboter_actors::tree::Tree;
use meeboter_actors::{journal, maintenance, pool, queue};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What was counted, whether this server leads, and the pool and the queue as they are: the gauges of an actor that does not
/// say in time are left out. Needs no key: there is nothing of anybody's in it.
pub async fn scrape(state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let snapshot = match state.leading.get() {
        Some(leading) => snapshot(look(&state, leading).await, state.clock.now()),
        None => Snapshot::default(),
    };
    let page = state.metrics.text(&snapshot).map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE_HEADER, CONTENT_TYPE)).body(page))
}

/// What a leader was seen to have; `None`: the actor has not said in time.
struct Seen {
    leads: bool,
    pool: Option<PoolSnapshot>,
    queue: Option<QueueSnapshot>,
    /// For how long the bot that is being deployed longest has had its slot, by platform.
    deploying: BTreeMap<Platform, Duration>,
    maintenance: Option<MaintenanceSnapshot>,
}

async fn look(state: &AppState, leading: &Leading) -> Seen {
    let (tree, meter) = (&leading.tree, &*state.metrics);
    let (pool, queue, maintenance, _) = tokio::join!(
        sampled(meter, "pool", &tree.pool, pool::message::Observe),
        sampled(meter, "queue", &tree.queue, queue::message::Observe),
        sampled(meter, "maintainer", &tree.maintainer, maintenance::actor::Observe),
        sampled(meter, "journal", &tree.journal, journal::actor::Observe),
    );
    let deploying = oldest_deployments(tree, state.clock.now());
    Seen { leads: leading.lead.holds(), pool, queue, deploying, maintenance }
}

/// Asks an actor, and counts how long the question waited; one that is given up, with the wait until then.
async fn sampled<A, M>(
    meter: &dyn Meter,
    actor: &'static str,
    addr: &Addr<A>,
    message: M,
) -> Option<M::Result>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    let asked = Instant::now();
    let answer = observe(addr, message).await;
    meter.record(Measure::MailboxWaited { actor, wait: asked.elapsed() });
    answer.ok()
}

/// Of platforms only a leader tells: what another remembers of them may be long over, and would count twice.
fn snapshot(seen: Seen, now: DateTime<Utc>) -> Snapshot {
    let Seen { leads, pool, queue, deploying, maintenance } = seen;
    let platforms =
        if leads { platforms(pool.as_ref(), queue.as_ref(), &deploying, now) } else { Vec::new() };
    let hosts = pool.into_iter().flat_map(|pool| pool.hosts);
    let (ended_at, due_at) = maintenance.as_ref().map_or((None, None), |seen| (seen.ended_at, seen.due_at));
    Snapshot {
        platforms,
        breakers: hosts.map(|(host, line)| (host.0, !line.answers())).collect(),
        disks: maintenance.into_iter().flat_map(|seen| seen.disks).map(|line| line.disk).collect(),
        maintained_at: ended_at.map(|at| at.timestamp()),
        maintenance_due_at: due_at.map(|at| at.timestamp()),
        leads,
    }
}

fn platforms(
    pool: Option<&PoolSnapshot>,
    queue: Option<&QueueSnapshot>,
    deploying: &BTreeMap<Platform, Duration>,
    now: DateTime<Utc>,
) -> Vec<PlatformLine> {
    let named = |platform: &Platform| PlatformLine {
        platform: platform.0.clone(),
        slots: pool.map(|_| SlotCounts::default()),
        waiting: queue.map(|_| Waiting::default()),
        longest_deployment: Duration::ZERO,
    };
    let served = pool.iter().flat_map(|pool| pool.platforms.keys());
    let mut lines: BTreeMap<&Platform, PlatformLine> =
        served.map(|platform| (platform, named(platform))).collect();
    for ((platform, status), count) in pool.iter().flat_map(|pool| &pool.slots) {
        let line = lines.entry(platform).or_insert_with(|| named(platform));
        line.slots.get_or_insert_default().0.push((*status, *count));
    }
    for (platform, waiting) in queue.iter().flat_map(|queue| &queue.lines) {
        let oldest = waiting.oldest_queued_at.and_then(|since| (now - since).to_std().ok());
        let line = lines.entry(platform).or_insert_with(|| named(platform));
        line.waiting = Some(Waiting { bots: waiting.length, longest: oldest.unwrap_or_default() });
    }
    for (platform, age) in deploying {
        lines.entry(platform).or_insert_with(|| named(platform)).longest_deployment = *age;
    }
    lines.into_values().collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use actix::{AsyncContext, Context};
    use chrono::TimeDelta;
    use meeboter_actors::pool::message::PlatformLine as PoolLine;
    use meeboter_actors::queue::message::LineSnapshot;
    use meeboter_actors::testing::sample;

    struct Late;

    impl Actor for Late {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Ask;

    impl Handler<Ask> for Late {
        type Result = ();

        fn handle(&mut self, _: Ask, _: &mut Self::Context) {}
    }

    fn zoom() -> Platform {
        Platform("zoom".to_owned())
    }

    fn seen(leads: bool) -> Seen {
        let line = LineSnapshot {
            length: 3,
            oldest_queued_at: Some(sample::now() - TimeDelta::seconds(90)),
            waited_ms: 0,
            estimated_wait: Duration::ZERO,
        };
        Seen {
            leads,
            pool: Some(PoolSnapshot {
                slots: [((zoom(), SlotStatus::Busy), 2)].into(),
                platforms: [(zoom(), PoolLine { max_size: 2, prewarm: 0, open: true })].into(),
                ..PoolSnapshot::default()
            }),
            queue: Some(QueueSnapshot { lines: [(zoom(), line)].into() }),
            deploying: [(zoom(), Duration::from_secs(70))].into(),
            maintenance: None,
        }
    }

    fn page(seen: Seen) -> String {
        let metrics = Metrics::new().expect("names differ");
        metrics.serve(["zoom"]);
        metrics.text(&snapshot(seen, sample::now())).expect("written")
    }

    fn check(page: &str, there: &[&str], absent: &[&str]) {
        for line in there {
            assert!(page.contains(line), "{line:?} is not in\n{page}");
        }
        for name in absent {
            assert!(!page.contains(name), "{name:?} is in\n{page}");
        }
    }

    const COUNTED: &str = "meeboter_bot_completions_total{platform=\"zoom\",status=\"done\"} 0\n";
    const DEPLOYING: &str = "meeboter_deployment_oldest_seconds{platform=\"zoom\"} 70\n";
    const OF_POOL: [&str; 2] = ["meeboter_pool_slots_total{", "meeboter_pool_utilization{"];
    const OF_QUEUE: [&str; 2] = ["meeboter_queue_depth{", "meeboter_queue_oldest_seconds{"];

    #[test]
    fn an_actor_that_is_late_takes_its_own_gauges_with_it_and_nothing_else() {
        let always = ["meeboter_leads 1\n", COUNTED, DEPLOYING];
        let slots = "meeboter_pool_slots_total{platform=\"zoom\",status=\"busy\"} 2\n";
        let oldest = "meeboter_queue_oldest_seconds{platform=\"zoom\"} 90\n";
        check(&page(seen(true)), &[&always[..], &[slots, oldest]].concat(), &[]);
        let without = page(Seen { pool: None, ..seen(true) });
        check(&without, &[&always[..], &[oldest]].concat(), &OF_POOL);
        let without = page(Seen { queue: None, ..seen(true) });
        check(&without, &[&always[..], &[slots]].concat(), &OF_QUEUE);
        let without = page(Seen { pool: None, queue: None, ..seen(true) });
        check(&without, &always, &[OF_POOL, OF_QUEUE].concat());
    }

    #[test]
    fn who_does_not_lead_says_nothing_of_platforms() {
        let of_platforms = [&OF_POOL[..], &OF_QUEUE, &["meeboter_deployment_oldest_seconds{"]].concat();
        check(&page(seen(false)), &["meeboter_leads 0\n", COUNTED], &of_platforms);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_is_counted() {
        let metrics = Metrics::new().expect("names differ");
        // It is not run: whoever asks is not answered.
        let late = Context::<Late>::new();
        assert_eq!(sampled(&metrics, "pool", &late.address(), Ask).await, None);
        let page = metrics.text(&Snapshot::default()).expect("written");
        let series = "meeboter_mailbox_wait_seconds_bucket{actor=\"pool\",le=";
        let [short, long] = [format!("{series}\"1\"}} 0\n"), format!("{series}\"5\"}} 1\n")];
        check(&page, &[&short, &long], &[]);
    }
}
