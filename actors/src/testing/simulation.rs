//! Runs the real actors through a drawn life: clients come, bots run, things break, the server crashes and starts
//! again; then calm, and everything must settle.

use super::client::{self, Client};
use super::engine::{FakeArtifacts, FakeEngine};
use super::program;
use super::store::FakeStore;
use super::world::{Faults, Happening, Shared, World};
use super::{dispatcher, operator};
use super::{invariants, sample};
use crate::ids::{HostName, Platform, SlotId};
use crate::image_pull::machine::PullSettings;
use crate::pool::{self, HostSettings, PlatformSettings, PoolSettings};
use crate::ports::{Clock, Lead, Measure, Meter, ResourceLimits, SlotIds, Store};
use crate::queue;
use crate::scale::{self, ScaleSettings};
use crate::schedule::{self, ScheduleSettings};
use crate::slot::SlotTiming;
use crate::tree::{Ports, Tree};
use actix::System;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// All chance.
    pub seed: u64,
    /// Requests for bots.
    pub clients: usize,
    /// Further requests that come all within two seconds.
    pub flood: usize,
    /// Over how long the others come.
    pub spread: TimeDelta,
    /// How likely faults are.
    pub faults: Faults,
    /// How many of a hundred clients ask for a start ahead.
    pub scheduled_percent: u8,
    /// Slots of each of two platforms.
    pub slots: [u32; 2],
    /// Slots of each that are made ahead of need; the Scaler leaves a platform with none alone.
    pub prewarm: [u32; 2],
    /// How often the operator does something.
    pub operations: usize,
    /// How often some host's engine answers nobody for a while.
    pub engines_away: usize,
    /// Whether the slots of the second platform are deleted with their bots.
    pub ephemeral: bool,
    /// Boundaries at which the server crashes; `None`: drawn.
    pub crash_at: Option<Vec<u64>>,
}

impl Scenario {
    /// A full one: every fault, some crashes, two platforms.
    pub fn drawn(seed: u64) -> Self {
        Self {
            seed,
            clients: 30,
            flood: if seed.is_multiple_of(4) { 60 } else { 0 },
            spread: TimeDelta::minutes(40),
            faults: Faults::all(),
            scheduled_percent: 33,
            slots: [3, 2],
            prewarm: if seed.is_multiple_of(2) { [0, 1] } else { [1, 0] },
            operations: if seed.is_multiple_of(5) { 0 } else { 30 },
            engines_away: usize::from(seed.is_multiple_of(2)) * 2,
            ephemeral: seed.is_multiple_of(3),
            crash_at: None,
        }
    }

    /// A small quiet one, for crashing at every boundary in turn.
    pub fn quiet(crash_at: Option<u64>) -> Self {
        Self {
            seed: 7,
            clients: 5,
            flood: 0,
            spread: TimeDelta::seconds(20),
            faults: Faults::default(),
            scheduled_percent: 40,
            slots: [2, 1],
            prewarm: [0, 0],
            operations: 0,
            engines_away: 0,
            ephemeral: true,
            crash_at: Some(crash_at.into_iter().collect()),
        }
    }

    /// Nothing breaks, there is room for all, and every bot has a start ahead.
    pub fn on_time(seed: u64) -> Self {
        Self { seed, clients: 60, scheduled_percent: 100, slots: [60, 60], ..Self::quiet(None) }
    }

    /// Hundreds of requests at once against the bound of the queue, where store and engine do as they are told.
    pub fn flooded(seed: u64) -> Self {
        Self {
            seed,
            clients: 20,
            flood: 300,
            spread: TimeDelta::minutes(20),
            slots: [3, 2],
            ..Self::quiet(None)
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// What happened, a line each.
    pub trace: Vec<String>,
    /// What was reached, and how often.
    pub counts: BTreeMap<String, u64>,
    /// Boundaries passed.
    pub boundaries: u64,
}

/// A downtime now and then is longer than starts are made up for.
const DOWN_LONG_MS: (u64, u64) = (600_000, 1_500_000);

/// How long after the last client everything must have settled.
const SETTLE: TimeDelta = TimeDelta::minutes(90);

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario) -> Report {
    let platforms: BTreeMap<Platform, u32> =
        ["google-meet", "zoom"].into_iter().map(|key| Platform(key.to_owned())).zip(scenario.slots).collect();
    let mut settings = settings(&platforms, scenario.ephemeral);
    for (platform, prewarm) in settings.platforms.values_mut().zip(scenario.prewarm) {
        platform.prewarm = prewarm;
    }
    let mut world = World::new(scenario.seed, scenario.faults, platforms, settings);
    draw(&mut world, scenario);
    let world = Arc::new(Mutex::new(world));
    let calm_at = sample::now() + scenario.spread + program::LONGEST;
    let end = calm_at + SETTLE;
    while let Exit::Crashed = incarnation(&world, calm_at, end) {
        let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
        world.settle_in_flight();
        world.crashed = false;
        world.breakers_open.clear();
        world.listeners.clear();
        let is_long = world.rng.u8(0..6) == 0;
        let (from_ms, to_ms) = if is_long { DOWN_LONG_MS } else { (100, 30_000) };
        let down = world.between(from_ms, to_ms);
        let from = world.now;
        world.down.push((from, from + down));
        downtime(&mut world, down);
        world.note("server starts");
    }
    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
    invariants::settled(&mut world);
    Report {
        violations: std::mem::take(&mut world.violations),
        trace: std::mem::take(&mut world.trace),
        counts: std::mem::take(&mut world.counts),
        boundaries: world.boundaries,
    }
}

fn draw(world: &mut World, scenario: &Scenario) {
    world.scheduled_percent = scenario.scheduled_percent;
    let spread_ms = u64::try_from(scenario.spread.num_milliseconds()).unwrap_or(0);
    let flood_at_ms = world.rng.u64(0..spread_ms);
    for number in 0..scenario.clients + scenario.flood {
        let client = Client::new(world, number);
        world.clients.push(client);
        let floods = number >= scenario.clients;
        let (from, to) = if floods { (flood_at_ms, flood_at_ms + 2_000) } else { (0, spread_ms) };
        let after = world.between(from, to);
        world.plan(after, Happening::Client(number));
    }
    world.plan(TimeDelta::seconds(1), Happening::Dispatcher);
    for _ in 0..scenario.engines_away {
        let after = world.between(0, spread_ms);
        let hosts: Vec<HostName> = world.settings.hosts.keys().cloned().collect();
        let host = hosts[world.rng.usize(0..hosts.len())].clone();
        world.plan(after, Happening::EngineAway(host));
    }
    for _ in 0..scenario.operations {
        let after = world.between(0, u64::try_from(scenario.spread.num_milliseconds()).unwrap_or(0));
        world.plan(after, Happening::Operator);
    }
    world.crash_at = match &scenario.crash_at {
        Some(at) => at.iter().copied().collect(),
        None => (0..world.rng.usize(0..6)).map(|_| world.rng.u64(1..1_500)).collect(),
    };
}

/// What happens while no server is up: the engine and the bots go on.
fn downtime(world: &mut World, length: TimeDelta) {
    let until = world.now + length;
    while let Some(entry) = world.calendar.first_entry()
        && entry.key().0 <= until
    {
        let ((at, _), happening) = entry.remove_entry();
        world.now = world.now.max(at);
        match happening {
            Happening::Engine(deed) => world.carry_out(deed),
            // Bots and clients find nobody there; they try again later.
            Happening::Panic(_) | Happening::Operator => {}
            Happening::EngineAway(host) => world.engine_goes_away(host),
            Happening::Program(_) | Happening::Client(_) | Happening::Dispatcher => {
                let later = until - world.now + world.between(100, 3_000);
                world.plan(later, happening);
            }
        }
    }
    world.now = until;
}

enum Exit {
    Crashed,
    Ended,
}

/// One life of the server, from its start to a crash or the end.
fn incarnation(world: &Arc<Mutex<World>>, calm_at: DateTime<Utc>, end: DateTime<Utc>) -> Exit {
    let runner = System::with_tokio_rt(|| {
        let built = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        match built {
            Ok(runtime) => runtime,
            Err(error) => panic!("no runtime: {error}"),
        }
    });
    runner.block_on(live(world, calm_at, end))
}

async fn live(world: &Arc<Mutex<World>>, calm_at: DateTime<Utc>, end: DateTime<Utc>) -> Exit {
    let shared = Shared::enter(world);
    let (crash_bell, calendar_bell) = {
        let world = shared.lock();
        (Arc::clone(&world.crash_bell), Arc::clone(&world.calendar_bell))
    };
    let tree = plant(&shared).await;
    loop {
        let next = shared.lock().calendar.first_key_value().map_or(end, |((at, _), _)| *at);
        tokio::select! {
            biased;
            () = crash_bell.notified() => return Exit::Crashed,
            () = calendar_bell.notified() => continue,
            () = tokio::time::sleep_until(shared.instant(next.min(end))) => {}
        }
        if shared.now() >= end {
            let within = TimeDelta::days(1);
            let left = (
                tree.pool.send(pool::message::Observe).await,
                tree.queue.send(queue::message::Observe).await,
                tree.schedule.send(schedule::actor::Observe { within }).await,
                tree.scaler.send(scale::actor::Observe).await,
            );
            let load = tree.pool.send(pool::message::ObserveLoad { longest_unused: 3 }).await;
            let mut world = shared.lock();
            if let ((Ok(pool), ..), Ok(load)) = (&left, &load) {
                invariants::load_is_that_of_the_slots(&mut world, pool, load);
            }
            match left {
                (Ok(pool), Ok(queue), Ok(schedule), Ok(scaler)) => {
                    invariants::nothing_remembered(&mut world, &pool, &queue, &schedule);
                    invariants::at_rest(&mut world, &pool, &scaler);
                }
                _ => world.violated("the pool, the queue, the Scheduler or the Scaler does not answer"),
            }
            // From here on nothing counts: the actors die with their System.
            world.crashed = true;
            return Exit::Ended;
        }
        let happening = {
            let mut world = shared.lock();
            let now = world.now;
            world.calm = now >= calm_at;
            match world.calendar.first_entry() {
                Some(entry) if entry.key().0 <= now => entry.remove(),
                _ => continue,
            }
        };
        match happening {
            Happening::Engine(deed) => shared.lock().carry_out(deed),
            Happening::Program(key) => program::step(&shared, key, Some(&tree.directory)),
            Happening::Client(number) => client::step(&shared, number, &tree),
            Happening::Operator => operator::step(&shared, &tree),
            Happening::Dispatcher => dispatcher::step(&shared, &tree),
            Happening::EngineAway(host) => shared.lock().engine_goes_away(host),
            Happening::Panic(name) => {
                shared.lock().note(format!("{name}: its actor panics"));
                tree.directory
                    .all()
                    .iter()
                    .filter(|handle| *handle.name() == name)
                    .for_each(|handle| handle.panic());
            }
        }
    }
}

/// Starts the actors of a world on its fakes.
pub async fn plant(shared: &Shared) -> Tree {
    let store = Arc::new(FakeStore::lead(shared.clone()));
    let rows = store.load().await.unwrap_or_default();
    let settings = shared.lock().settings.clone();
    let (schedule, timing) = (ScheduleSettings::default(), SlotTiming::default());
    Tree::start(&ports(shared, store), rows, settings, schedule, small_scale(), timing)
}

/// Steps that fit a pool of a few slots.
fn small_scale() -> ScaleSettings {
    ScaleSettings {
        min_idle: 1,
        up_by: 1,
        down_by: 1,
        cooldown: TimeDelta::minutes(3),
        window: TimeDelta::minutes(1),
        ..ScaleSettings::default()
    }
}

/// What containers of an image may use, here: it follows from the image, so that the engine can tell.
pub fn limits(image: &str) -> ResourceLimits {
    let memory_mib = image.len().try_into().ok();
    ResourceLimits { memory_mib, ..ResourceLimits::default() }
}

/// Two hosts, of which neither has room for everybody.
pub fn settings(platforms: &BTreeMap<Platform, u32>, second_is_ephemeral: bool) -> PoolSettings {
    let all: u32 = platforms.values().sum();
    let platforms = platforms
        .iter()
        .enumerate()
        .map(|(number, (key, max))| {
            let settings = PlatformSettings {
                max_size: *max,
                image: format!("{key}:1"),
                enabled: true,
                prewarm: 0,
                ephemeral: second_is_ephemeral && number == 1,
                limits: limits(&format!("{key}:1")),
            };
            (key.clone(), settings)
        })
        .collect();
    let hosts =
        [(HostName::local(), (all * 4).div_ceil(5)), (HostName("other".to_owned()), (all * 3).div_ceil(5))];
    let hosts = hosts.into_iter().map(|(name, capacity)| (name, HostSettings { capacity })).collect();
    let pulls = PullSettings { waiters_max: 1, ..PullSettings::default() };
    PoolSettings { platforms, hosts, queue_max: 20, pulls, ..PoolSettings::default() }
}

fn ports(shared: &Shared, store: Arc<dyn Store>) -> Ports {
    let fatal = shared.clone();
    Ports {
        store,
        driver: Arc::new(FakeEngine(shared.clone())),
        artifacts: Arc::new(FakeArtifacts(shared.clone())),
        clock: Arc::new(shared.clone()),
        lead: Arc::new(AlwaysLeads),
        meter: Arc::new(Observer(shared.clone())),
        slot_ids: Arc::new(CountedIds(shared.clone())),
        on_fatal: Arc::new(move |why| {
            let mut world = fatal.lock();
            // When a System is torn down its actors die; that is no news.
            if !world.crashed {
                world.violated(format!("fatal: {why}"));
            }
        }),
        log: slog::Logger::root(slog::Discard, slog::o!()),
    }
}

/// Notes what no row says.
struct Observer(Shared);

impl Meter for Observer {
    fn record(&self, measure: Measure<'_>) {
        let Measure::BreakerTurned { host, open } = measure else { return };
        let mut world = self.0.lock();
        let now = world.now;
        if open {
            world.count("breaker opens");
            world.breakers_open.insert(host.clone(), now);
        } else {
            world.breakers_open.remove(host);
        }
    }
}

struct AlwaysLeads;

#[async_trait]
impl Lead for AlwaysLeads {
    fn holds(&self) -> bool {
        true
    }

    async fn proven(&self) {}
}

struct CountedIds(Shared);

impl SlotIds for CountedIds {
    fn next(&self) -> SlotId {
        let mut world = self.0.lock();
        world.count("slot id");
        SlotId(Uuid::from_u128(u128::from(world.counts["slot id"])))
    }
}
