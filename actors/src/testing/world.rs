//! What outlives a crash of the server: the store's rows, the engine's containers, the bots in them, the clients,
//! and the calendar of what happens next. Plain data behind one lock; all randomness comes from its seed.

use super::client::Client;
use super::engine::Containers;
use super::program::Program;
use super::store::Tables;
use crate::bot::BotState;
use crate::ids::{BotId, ContainerKey, HostName, Platform, SlotName};
use crate::pool::PoolSettings;
use crate::ports::{Clock, EngineEvent};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

/// How likely each fault is, in per mille.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A commit is not applied, and the store says that it does not know.
    pub commit_lost: u32,
    /// A commit is applied, and the store says that it does not know.
    pub commit_torn: u32,
    /// The store is away for a while, counted per commit.
    pub store_away: u32,
    /// The engine refuses a start or a stop.
    pub refuse: u32,
    /// The engine does what it is told and answers that it failed, or does not answer in time.
    pub torn: u32,
    /// The engine never answers.
    pub hang: u32,
    /// A call panics inside the slot's actor.
    pub panic: u32,
    /// A slot's actor panics while its commit is on its way.
    pub panic_committing: u32,
    /// A look or a listing fails.
    pub blind: u32,
    /// A bot's program crashes.
    pub bot_crash: u32,
    /// A bot's program falls silent, and runs on.
    pub bot_silent: u32,
    /// A bot's program does not leave when it is told.
    pub bot_stubborn: u32,
}

impl Faults {
    /// Every fault now and then.
    pub fn all() -> Self {
        Self {
            commit_lost: 10,
            commit_torn: 10,
            store_away: 3,
            refuse: 110,
            torn: 60,
            hang: 15,
            panic: 15,
            panic_committing: 30,
            blind: 100,
            bot_crash: 80,
            bot_silent: 30,
            bot_stubborn: 60,
        }
    }
}

/// Something that happens at its time, whether the server is up or not.
#[derive(Debug, Clone)]
pub enum Happening {
    /// The engine carries out what was asked of it.
    Engine(super::engine::Deed),
    /// A bot's program does its next step.
    Program(ContainerKey),
    /// A client does its next step.
    Client(usize),
    /// The operator does something, if a server is up.
    Operator,
    /// The dispatcher moves a bot in the queue, if a server is up.
    Dispatcher,
    /// A slot's actor panics, if a server is up.
    Panic(SlotName),
    /// A host's engine answers nobody for a while.
    EngineAway(HostName),
}

/// See the module.
pub struct World {
    /// All chance.
    pub rng: fastrand::Rng,
    /// The virtual time, as of the last look at the clock.
    pub now: DateTime<Utc>,
    /// What happens next.
    pub calendar: BTreeMap<(DateTime<Utc>, u64), Happening>,
    entries: u64,
    /// Rows.
    pub tables: Tables,
    /// Containers.
    pub containers: Containers,
    /// Hosts whose engines answer nobody, and until when.
    pub engines_away: BTreeMap<HostName, DateTime<Utc>>,
    /// Who listens to each host's engine.
    pub listeners: Vec<(HostName, mpsc::Sender<EngineEvent>)>,
    /// Hosts whose breakers are open, and since when.
    pub breakers_open: BTreeMap<HostName, DateTime<Utc>>,
    /// Bots' programs.
    pub programs: BTreeMap<ContainerKey, Program>,
    /// Clients.
    pub clients: Vec<Client>,
    /// How likely faults are.
    pub faults: Faults,
    /// No faults from then on, so that everything can settle.
    pub calm: bool,
    /// Boundaries passed so far.
    pub boundaries: u64,
    /// Boundaries at which the server crashes.
    pub crash_at: BTreeSet<u64>,
    /// The server has crashed: nothing it began goes on.
    pub crashed: bool,
    /// When no server was up, from and to.
    pub down: Vec<(DateTime<Utc>, DateTime<Utc>)>,
    /// How many of a hundred clients ask for a start ahead.
    pub scheduled_percent: u8,
    /// Since when each scheduled bot waits for its present start.
    pub scheduled_since: BTreeMap<BotId, DateTime<Utc>>,
    /// The longest that a start took.
    pub longest_start: TimeDelta,
    /// Crashes so far.
    pub crashes: u32,
    /// The platforms, and how many slots each may ever have.
    pub platforms: BTreeMap<Platform, u32>,
    /// The pool's settings, as they are configured now; never more slots than above.
    pub settings: PoolSettings,
    /// What happened, a line each.
    pub trace: Vec<String>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// How often each fault was injected and each state was reached.
    pub counts: BTreeMap<String, u64>,
    /// Since when each bot has stood at its place in the queue.
    pub placed_at: BTreeMap<BotId, DateTime<Utc>>,
    /// How often each bot was asked to be moved in the queue.
    pub moves_asked: BTreeMap<BotId, u32>,
    /// Final states as first seen.
    pub finals: BTreeMap<BotId, BotState>,
    /// Tells the runner of a crash.
    pub crash_bell: Arc<Notify>,
    /// Tells the runner that the calendar has a new entry.
    pub calendar_bell: Arc<Notify>,
}

impl World {
    /// Draws a fault of the given likelihood in per mille.
    pub fn chance(&mut self, name: &str, per_mille: u32) -> bool {
        if self.calm || per_mille == 0 || self.rng.u32(0..1000) >= per_mille {
            return false;
        }
        self.count(name);
        true
    }

    /// Whether the store has answered everything so far, and the server was always up.
    pub fn steady(&self) -> bool {
        let faults = &self.faults;
        let store = faults.commit_lost + faults.commit_torn + faults.store_away + faults.panic_committing;
        store == 0 && self.crashes == 0
    }

    /// Counts something worth knowing that it was reached.
    pub fn count(&mut self, name: &str) {
        *self.counts.entry(name.to_owned()).or_default() += 1;
    }

    /// A duration between the two, in milliseconds.
    pub fn between(&mut self, from_ms: u64, to_ms: u64) -> TimeDelta {
        TimeDelta::milliseconds(i64::try_from(self.rng.u64(from_ms..=to_ms)).unwrap_or(0))
    }

    /// Puts something into the calendar.
    pub fn plan(&mut self, after: TimeDelta, happening: Happening) {
        self.entries += 1;
        self.calendar.insert((self.now + after, self.entries), happening);
        self.calendar_bell.notify_one();
    }

    /// Writes a line of the trace.
    pub fn note(&mut self, line: impl AsRef<str>) {
        let at = (self.now - super::sample::now()).num_milliseconds();
        self.trace.push(format!("{:>9}.{:03} {}", at / 1000, at % 1000, line.as_ref()));
    }

    /// Notes that something happened that must not.
    pub fn violated(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(format!("VIOLATION {what}"));
        self.violations.push(what);
    }
}

/// A handle to the world, with the clock of the present incarnation.
#[derive(Clone)]
pub struct Shared {
    world: Arc<Mutex<World>>,
    anchor: DateTime<Utc>,
    began: tokio::time::Instant,
}

impl Shared {
    /// The world as the incarnation that begins now sees it. Needs a runtime with a paused clock.
    pub fn enter(world: &Arc<Mutex<World>>) -> Self {
        let anchor = world.lock().unwrap_or_else(PoisonError::into_inner).now;
        Self { world: Arc::clone(world), anchor, began: tokio::time::Instant::now() }
    }

    /// The world, with its time set to now.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        // While a System is torn down its clock is gone; the world's time never goes back.
        world.now = world.now.max(self.now());
        world
    }

    /// When a time of the calendar comes, on the runtime's clock.
    pub fn instant(&self, at: DateTime<Utc>) -> tokio::time::Instant {
        self.began + (at - self.anchor).to_std().unwrap_or_default()
    }

    /// Passes a boundary: the server may crash here. After a crash nothing passes any more.
    pub async fn boundary(&self, what: &str) {
        let stops = {
            let mut world = self.lock();
            if world.crashed {
                true
            } else {
                world.boundaries += 1;
                let boundary = world.boundaries;
                let crashes = world.crash_at.contains(&boundary);
                if crashes {
                    world.note(format!("CRASH at boundary {boundary}: {what}"));
                    world.count("crash");
                    world.crashed = true;
                    world.crashes += 1;
                    world.crash_bell.notify_one();
                }
                crashes
            }
        };
        if stops {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for a drawn time.
    pub async fn delay(&self, from_ms: u64, to_ms: u64) {
        let wait = self.lock().between(from_ms, to_ms).to_std().unwrap_or_default();
        tokio::time::sleep(wait).await;
    }
}

impl Clock for Shared {
    fn now(&self) -> DateTime<Utc> {
        self.anchor + TimeDelta::from_std(self.began.elapsed()).unwrap_or_default()
    }
}

impl World {
    /// An empty world at the sample's noon.
    pub fn new(
        seed: u64,
        faults: Faults,
        platforms: BTreeMap<Platform, u32>,
        settings: PoolSettings,
    ) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            now: super::sample::now(),
            calendar: BTreeMap::new(),
            entries: 0,
            tables: Tables::default(),
            containers: Containers::default(),
            engines_away: BTreeMap::new(),
            listeners: Vec::new(),
            breakers_open: BTreeMap::new(),
            programs: BTreeMap::new(),
            clients: Vec::new(),
            faults,
            calm: false,
            boundaries: 0,
            crash_at: BTreeSet::new(),
            crashed: false,
            down: Vec::new(),
            scheduled_percent: 0,
            scheduled_since: BTreeMap::new(),
            longest_start: TimeDelta::zero(),
            crashes: 0,
            platforms,
            settings,
            trace: Vec::new(),
            violations: Vec::new(),
            counts: BTreeMap::new(),
            placed_at: BTreeMap::new(),
            moves_asked: BTreeMap::new(),
            finals: BTreeMap::new(),
            crash_bell: Arc::new(Notify::new()),
            calendar_bell: Arc::new(Notify::new()),
        }
    }
}
