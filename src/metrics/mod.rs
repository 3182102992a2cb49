//! What Prometheus scrapes at `/metrics`: what happened, counted as it happens, and what is, read when it is asked for.
//! The names are those of the documentation; `config/grafana` and `config/prometheus` show and watch them.

mod text;
pub mod timers;

use meeboter_actors::bot::Outcome;
use meeboter_actors::ports::{Disk, Machine, Measure, Meter};
use meeboter_actors::slot::SlotStatus;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use std::time::Duration;
use text::Family;

pub use text::CONTENT_TYPE;

/// Waits in the queue, as documented.
const QUEUE_WAIT_BUCKETS_S: [f64; 6] = [10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Deployments, as documented.
const DEPLOYMENT_BUCKETS_S: [f64; 7] = [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// One fsync to a database in trouble.
const BATCH_BUCKETS_S: [f64; 9] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];
/// Up to what a batch may hold.
const BATCH_DECISIONS_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// An engine that answers at once, to one that stops a container with its grace.
const DRIVER_BUCKETS_S: [f64; 8] = [0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0];
/// A mailbox that is idle, to one that is flooded.
const MAILBOX_BUCKETS_S: [f64; 7] = [0.0005, 0.002, 0.01, 0.05, 0.25, 1.0, 5.0];

/// A timer on a thread that idles, to one on a thread that is flooded.
const TIMER_BUCKETS_S: [f64; 8] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0];

/// See the module. Cheap to record to from any thread.
pub struct Metrics {
    registry: Registry,
    queue_wait: HistogramVec,
    deployment: HistogramVec,
    completions: IntCounterVec,
    recoveries: IntCounterVec,
    rebuilds: IntCounter,
    slot_moves: IntCounterVec,
    breakers_opened: IntCounterVec,
    stale_events: IntCounterVec,
    batch_seconds: prometheus::Histogram,
    batch_decisions: prometheus::Histogram,
    driver_calls: IntCounterVec,
    driver_seconds: HistogramVec,
    mailbox_wait: HistogramVec,
    timer_late: prometheus::Histogram,
    websocket_clients: IntGauge,
}

/// What is, for the gauges; those of what is not known are left out.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Each platform's slots by status, and its waiting bots.
    pub platforms: Vec<PlatformLine>,
    /// The disks, as they were last looked at.
    pub disks: Vec<Disk>,
    /// When maintenance last ended, in seconds since 1970.
    pub maintained_at: Option<i64>,
    /// When what maintenance has not done to its end was due first, or will be, in seconds since 1970.
    pub maintenance_due_at: Option<i64>,
    /// Each host, and whether its breaker is open.
    pub breakers: Vec<(String, bool)>,
    /// Whether this server leads.
    pub leads: bool,
}

/// One platform, as it is.
#[derive(Debug, Clone, Default)]
pub struct PlatformLine {
    /// Its key.
    pub platform: String,
    /// Its slots; `None`: the pool has not said.
    pub slots: Option<SlotCounts>,
    /// Its waiting bots; `None`: the queue has not said.
    pub waiting: Option<Waiting>,
    /// For how long the bot that is being deployed longest has had its slot; 0 where none is.
    pub longest_deployment: Duration,
}

/// Slots by status; what is not there is 0.
#[derive(Debug, Clone, Default)]
pub struct SlotCounts(pub Vec<(SlotStatus, u32)>);

impl SlotCounts {
    fn count(&self, status: SlotStatus) -> u32 {
        self.0.iter().filter(|(of, _)| *of == status).map(|(_, count)| count).sum()
    }

    /// Slots that have a bot or are getting one, in percent of all; 0 where there are none.
    fn utilization(&self) -> f64 {
        let total: u32 = self.0.iter().map(|(_, count)| count).sum();
        if total == 0 {
            return 0.0;
        }
        let used = self.count(SlotStatus::Busy) + self.count(SlotStatus::Deploying);
        100.0 * f64::from(used) / f64::from(total)
    }
}

/// A line of waiting bots.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waiting {
    /// How many.
    pub bots: usize,
    /// How long the one that waits longest has waited; 0 where nobody waits.
    pub longest: Duration,
}

impl Metrics {
    /// Metrics with nothing counted yet.
    ///
    /// # Errors
    /// Where two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let make = Maker(Registry::new());
        Ok(Self {
            queue_wait: make.histograms(
                "meeboter_queue_wait_seconds",
                "From joining the queue to getting a slot.",
                &QUEUE_WAIT_BUCKETS_S,
                &["platform"],
            )?,
            deployment: make.histograms(
                "meeboter_bot_deployment_seconds",
                "From getting a slot to the first sign that the container runs, by whether the slot was new.",
                &DEPLOYMENT_BUCKETS_S,
                &["platform", "slot_type"],
            )?,
            completions: make.counters(
                "meeboter_bot_completions_total",
                "Bots that ended.",
                &["platform", "status"],
            )?,
            recoveries: make.counters(
                "meeboter_slot_recoveries_total",
                "Slots in error that were freed again, or given up.",
                &["platform", "outcome"],
            )?,
            breakers_opened: make.counters(
                "meeboter_host_breaker_opened_total",
                "How often a host's engine stopped answering, so that the host was left alone.",
                &["host"],
            )?,
            rebuilds: make
                .counter("meeboter_slot_rebuilds_total", "Slots' actors that died and were built again.")?,
            slot_moves: make.counters(
                "meeboter_slot_moves_total",
                "Changes of slots, by the step before and after and what happened.",
                &["from", "event", "to"],
            )?,
            stale_events: make.counters(
                "meeboter_stale_events_total",
                "Events that belonged to the past of their slot.",
                &["event"],
            )?,
            batch_seconds: make.histogram(
                "meeboter_journal_batch_seconds",
                "How long a transaction of the Journal took.",
                &BATCH_BUCKETS_S,
            )?,
            batch_decisions: make.histogram(
                "meeboter_journal_batch_decisions",
                "Decisions in a transaction of the Journal.",
                &BATCH_DECISIONS_BUCKETS,
            )?,
            driver_calls: make.counters(
                "meeboter_driver_calls_total",
                "Calls to the engine, by what came of them.",
                &["call", "outcome"],
            )?,
            driver_seconds: make.histograms(
                "meeboter_driver_call_seconds",
                "How long calls to the engine took.",
                &DRIVER_BUCKETS_S,
                &["call"],
            )?,
            mailbox_wait: make.histograms(
                "meeboter_mailbox_wait_seconds",
                "How long a message waited in an actor's mailbox, sampled; up to the 2 s after which it is given up.",
                &MAILBOX_BUCKETS_S,
                &["actor"],
            )?,
            timer_late: make.histogram(
                "meeboter_timer_late_seconds",
                "How late a timer on the actors' thread was, sampled.",
                &TIMER_BUCKETS_S,
            )?,
            websocket_clients: make.gauge("meeboter_websocket_clients", "Open websockets.")?,
            registry: make.0,
        })
    }

    /// These platforms may have bots from now on. What is counted of them is there as 0 before it first happens: of a
    /// series that begins with 1 nobody sees the increase, and of one that is not there no rate.
    pub fn serve<'a>(&self, platforms: impl IntoIterator<Item = &'a str>) {
        for platform in platforms {
            self.queue_wait.with_label_values(&[platform]);
            for slot_is_new in [false, true] {
                self.deployment.with_label_values(&[platform, slot_type(slot_is_new)]);
            }
            for outcome in [Outcome::Done, Outcome::Fatal] {
                self.completions.with_label_values(&[platform, status(outcome)]);
            }
            for given_up in [false, true] {
                self.recoveries.with_label_values(&[platform, recovery(given_up)]);
            }
        }
    }

    /// A websocket is open as long as what this returns lives.
    #[must_use]
    pub fn websocket(&self) -> OpenWebsocket {
        self.websocket_clients.inc();
        OpenWebsocket(self.websocket_clients.clone())
    }

    /// A timer on the actors' thread came so late.
    pub fn timer_fired(&self, late: Duration) {
        self.timer_late.observe(late.as_secs_f64());
    }

    /// Everything, in the text format of Prometheus.
    ///
    /// # Errors
    /// Where a metric cannot be written down.
    pub fn text(&self, snapshot: &Snapshot) -> Result<String, prometheus::Error> {
        let mut page = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        for family in families(snapshot) {
            page.push_str(&family.to_string());
        }
        Ok(page)
    }
}

/// What is read when it is asked for.
fn families(snapshot: &Snapshot) -> [Family; 10] {
    // The documented name ends like a counter's; "untyped" claims nothing that is not so.
    let mut slots = Family::new("meeboter_pool_slots_total", "untyped", "Slots, by status.");
    let mut used = Family::new(
        "meeboter_pool_utilization",
        "gauge",
        "Slots that are busy or deploying, in percent of all (0 to 100).",
    );
    let mut depth = Family::new("meeboter_queue_depth", "gauge", "Bots that wait for a slot.");
    let mut oldest = Family::new(
        "meeboter_queue_oldest_seconds",
        "gauge",
        "How long the bot that waits longest has waited; 0 where nobody waits.",
    );
    let mut deploying = Family::new(
        "meeboter_deployment_oldest_seconds",
        "gauge",
        "For how long the bot that is being deployed longest has had its slot; 0 where none is.",
    );
    let mut leads =
        Family::new("meeboter_leads", "gauge", "1 where this server leads, 0 where it may decide nothing.");
    for line in &snapshot.platforms {
        let platform = ("platform", line.platform.as_str());
        if let Some(counts) = &line.slots {
            for status in [SlotStatus::Idle, SlotStatus::Deploying, SlotStatus::Busy, SlotStatus::Error] {
                slots.add(&[platform, ("status", status.as_str())], f64::from(counts.count(status)));
            }
            used.add(&[platform], counts.utilization());
        }
        if let Some(waiting) = line.waiting {
            depth.add(&[platform], f64::from(u32::try_from(waiting.bots).unwrap_or(u32::MAX)));
            oldest.add(&[platform], waiting.longest.as_secs_f64());
        }
        deploying.add(&[platform], line.longest_deployment.as_secs_f64());
    }
    leads.add(&[], f64::from(u8::from(snapshot.leads)));
    let mut free = Family::new(
        "meeboter_disk_free_percent",
        "gauge",
        "How much of the disk is free, in percent, by what it is used for.",
    );
    for disk in &snapshot.disks {
        free.add(&[("disk", disk.name.as_str())], disk.free_percent());
    }
    let mut maintained = Family::new(
        "meeboter_maintenance_end_timestamp_seconds",
        "gauge",
        "When maintenance last ended, in seconds since 1970; absent where it never did.",
    );
    if let Some(at) = snapshot.maintained_at {
        maintained.add(&[], at as f64);
    }
    let mut due = Family::new(
        "meeboter_maintenance_due_timestamp_seconds",
        "gauge",
        "When what maintenance has not done to its end was due first, or will be, in seconds since 1970; absent where it is only done when somebody asks.",
    );
    if let Some(at) = snapshot.maintenance_due_at {
        due.add(&[], at as f64);
    }
    let mut breakers = Family::new(
        "meeboter_host_breaker_open",
        "gauge",
        "1 where the host's engine does not answer and the host is left alone, else 0.",
    );
    for (host, is_open) in &snapshot.breakers {
        breakers.add(&[("host", host.as_str())], f64::from(u8::from(*is_open)));
    }
    [slots, used, depth, oldest, deploying, leads, breakers, free, maintained, due]
}

fn status(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Fatal => "fatal",
    }
}

fn slot_type(slot_is_new: bool) -> &'static str {
    if slot_is_new { "new" } else { "existing" }
}

fn recovery(given_up: bool) -> &'static str {
    if given_up { "given_up" } else { "freed" }
}

/// Counts a websocket as open until it is dropped.
pub struct OpenWebsocket(IntGauge);

impl Drop for OpenWebsocket {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Meter for Metrics {
    fn record(&self, measure: Measure<'_>) {
        match measure {
            Measure::QueueWaited { platform, wait } => {
                self.queue_wait.with_label_values(&[platform.0.as_str()]).observe(wait.as_secs_f64());
            }
            Measure::Deployed { platform, slot_is_new, took } => {
                self.deployment
                    .with_label_values(&[platform.0.as_str(), slot_type(slot_is_new)])
                    .observe(took.as_secs_f64());
            }
            Measure::BotEnded { platform, outcome } => {
                self.completions.with_label_values(&[platform.0.as_str(), status(outcome)]).inc();
            }
            Measure::SlotRecovered { platform, given_up } => {
                self.recoveries.with_label_values(&[platform.0.as_str(), recovery(given_up)]).inc();
            }
            Measure::SlotRebuilt => self.rebuilds.inc(),
            Measure::Moved { machine: Machine::Slot, from, event, to } => {
                self.slot_moves.with_label_values(&[from, event, to]).inc();
            }
            // Progress, waiters and breakers have measures of their own.
            Measure::Moved { machine: Machine::Pull | Machine::Breaker, .. } => {}
            Measure::BreakerTurned { host, open: true } => {
                self.breakers_opened.with_label_values(&[host.0.as_str()]).inc();
            }
            Measure::BreakerTurned { open: false, .. } => {}
            Measure::StaleEvent { event } => self.stale_events.with_label_values(&[event]).inc(),
            Measure::BatchCommitted { decisions, took } => {
                self.batch_seconds.observe(took.as_secs_f64());
                self.batch_decisions.observe(f64::from(u32::try_from(decisions).unwrap_or(u32::MAX)));
            }
            Measure::DriverCalled { call, outcome, took } => {
                self.driver_calls.with_label_values(&[call, outcome.as_str()]).inc();
                self.driver_seconds.with_label_values(&[call]).observe(took.as_secs_f64());
            }
            Measure::MailboxWaited { actor, wait } => {
                self.mailbox_wait.with_label_values(&[actor]).observe(wait.as_secs_f64());
            }
        }
    }
}

/// Makes metrics that its registry knows.
struct Maker(Registry);

impl Maker {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.known(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.known(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.known(IntGauge::new(name, help)?)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<prometheus::Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.known(prometheus::Histogram::with_opts(options)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.known(HistogramVec::new(options, labels)?)
    }

    fn known<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        metric: C,
    ) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meeboter_actors::ids::Platform;

    fn page(snapshot: &Snapshot) -> String {
        let metrics = Metrics::new().expect("names differ");
        let zoom = Platform("zoom".into());
        metrics.record(Measure::QueueWaited { platform: &zoom, wait: Duration::from_secs(31) });
        metrics.record(Measure::Deployed {
            platform: &zoom,
            slot_is_new: true,
            took: Duration::from_secs(4),
        });
        metrics.record(Measure::BotEnded { platform: &zoom, outcome: Outcome::Fatal });
        metrics.text(snapshot).expect("written")
    }

    #[test]
    fn the_documented_names_and_buckets_are_there() {
        let line = PlatformLine {
            platform: "zoom".into(),
            slots: Some(SlotCounts(vec![
                (SlotStatus::Busy, 2),
                (SlotStatus::Deploying, 1),
                (SlotStatus::Idle, 1),
            ])),
            waiting: Some(Waiting { bots: 7, longest: Duration::from_secs(90) }),
            longest_deployment: Duration::from_secs(70),
        };
        let page = page(&Snapshot {
            platforms: vec![line],
            disks: vec![Disk { name: "data".into(), free_bytes: 1, total_bytes: 8 }],
            maintained_at: Some(1_700_000_000),
            maintenance_due_at: Some(1_700_086_400),
            breakers: vec![("one".into(), true), ("two".into(), false)],
            leads: true,
        });
        for wanted in [
            "meeboter_pool_slots_total{platform=\"zoom\",status=\"busy\"} 2\n",
            "meeboter_pool_slots_total{platform=\"zoom\",status=\"error\"} 0\n",
            "meeboter_pool_utilization{platform=\"zoom\"} 75\n",
            "meeboter_queue_depth{platform=\"zoom\"} 7\n",
            "meeboter_queue_oldest_seconds{platform=\"zoom\"} 90\n",
            "meeboter_deployment_oldest_seconds{platform=\"zoom\"} 70\n",
            "meeboter_queue_wait_seconds_bucket{platform=\"zoom\",le=\"30\"} 0\n",
            "meeboter_queue_wait_seconds_bucket{platform=\"zoom\",le=\"60\"} 1\n",
            "meeboter_queue_wait_seconds_bucket{platform=\"zoom\",le=\"600\"} 1\n",
            "meeboter_bot_deployment_seconds_bucket{platform=\"zoom\",slot_type=\"new\",le=\"5\"} 1\n",
            "meeboter_bot_completions_total{platform=\"zoom\",status=\"fatal\"} 1\n",
            "meeboter_leads 1\n",
            "meeboter_disk_free_percent{disk=\"data\"} 12.5\n",
            "meeboter_maintenance_end_timestamp_seconds 1700000000\n",
            "meeboter_maintenance_due_timestamp_seconds 1700086400\n",
            "meeboter_host_breaker_open{host=\"one\"} 1\n",
            "meeboter_host_breaker_open{host=\"two\"} 0\n",
        ] {
            assert!(page.contains(wanted), "{wanted:?} is not in\n{page}");
        }
    }

    #[test]
    fn what_may_happen_to_bots_of_a_platform_is_0_until_it_does() {
        let metrics = Metrics::new().expect("names differ");
        let page = || metrics.text(&Snapshot::default()).expect("written");
        metrics.serve(["zoom", "my-video"]);
        for platform in ["zoom", "my-video"] {
            for series in [
                "meeboter_bot_completions_total{platform=\"?\",status=\"done\"}",
                "meeboter_bot_completions_total{platform=\"?\",status=\"fatal\"}",
                "meeboter_slot_recoveries_total{outcome=\"freed\",platform=\"?\"}",
                "meeboter_slot_recoveries_total{outcome=\"given_up\",platform=\"?\"}",
                "meeboter_bot_deployment_seconds_count{platform=\"?\",slot_type=\"new\"}",
                "meeboter_bot_deployment_seconds_count{platform=\"?\",slot_type=\"existing\"}",
                "meeboter_queue_wait_seconds_count{platform=\"?\"}",
            ] {
                let line = format!("{} 0\n", series.replace('?', platform));
                assert!(page().contains(&line), "{line:?} is not in\n{}", page());
            }
        }
        metrics.record(Measure::BotEnded { platform: &Platform("zoom".into()), outcome: Outcome::Fatal });
        metrics.serve(["zoom"]);
        let line = "meeboter_bot_completions_total{platform=\"zoom\",status=\"fatal\"} 1\n";
        assert!(page().contains(line), "what was counted stays\n{}", page());
    }

    #[test]
    fn an_empty_pool_is_not_used() {
        let slots = Some(SlotCounts::default());
        let line = PlatformLine { platform: "zoom".into(), slots, ..PlatformLine::default() };
        let page = page(&Snapshot { platforms: vec![line], ..Snapshot::default() });
        assert!(page.contains("meeboter_pool_utilization{platform=\"zoom\"} 0\n"), "{page}");
    }
}
