//! What outlives a crash of the server: the store's rows, the engine's containers, the bots in them, the clients,
//! and the calendar of what happens next. Plain data behind one lock; all randomness comes from its seed.

use super::client::Client;
use super::disaster::Disaster;
use super::edges::Edge;
use super::engine::Containers;
use super::process::Process;
use super::program::Program;
use super::store::Tables;
use crate::bot::BotState;
use crate::ids::{BotId, ContainerKey, HostName, Platform, SlotName};
use crate::pool::PoolSettings;
use crate::ports::{Clock, EngineEvent};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
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
    /// The engine does what it is told and answers, of its own, that it did not.
    pub lie: u32,
    /// The engine answers long after it has done what it was told.
    pub late: u32,
    /// A listing leaves containers out, and does not say so.
    pub partial: u32,
    /// A host dies when it is to make or start a container.
    pub host_dies: u32,
    /// Somebody removes a container that was prepared.
    pub lose_prepared: u32,
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
    /// The clock is set when a bot's program falls silent.
    pub clock_set: u32,
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
            lie: 30,
            late: 20,
            partial: 50,
            host_dies: 3,
            lose_prepared: 150,
            panic: 15,
            panic_committing: 30,
            blind: 100,
            bot_crash: 80,
            bot_silent: 30,
            clock_set: 100,
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
    /// Something large goes wrong, or is over.
    Disaster(Disaster),
}

/// How late the actors may notice that the clock was set ahead.
const CLOCK_SLACK: TimeDelta = TimeDelta::minutes(1);

/// A clock that is set ahead by more is not trusted for a while with starts that were missed.
const LEAP_SEEN: TimeDelta = TimeDelta::minutes(1);
/// How long after the clock was set another leap is seen by itself, whatever servers slept.
const LEAP_APART: TimeDelta = TimeDelta::minutes(20);

/// See the module.
pub struct World {
    /// All chance.
    pub rng: fastrand::Rng,
    /// The virtual time, as of the last look at the clock; never set, unlike what the servers' clocks say.
    pub now: DateTime<Utc>,
    /// How far the servers' clocks are ahead of that.
    set_ahead_ms: Arc<AtomicI64>,
    /// Until when something kept the leader from its work: it began, slept, did not reach the store, or part of it died.
    pub troubled_until: DateTime<Utc>,
    /// When the clocks were set last.
    pub clock_set_at: Option<DateTime<Utc>>,
    /// When the clocks last leapt ahead by so much that every server that is up notices, and what they said just before.
    pub clock_leapt: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// What happens next.
    pub calendar: BTreeMap<(DateTime<Utc>, u64), Happening>,
    entries: u64,
    /// Rows.
    pub tables: Tables,
    /// Containers.
    pub containers: Containers,
    /// Hosts that cannot be reached; true: it is dead.
    pub hosts_away: BTreeMap<HostName, bool>,
    /// Who listens to each host's engine.
    pub listeners: Vec<(HostName, mpsc::Sender<EngineEvent>)>,
    /// Hosts whose breakers the leader has open, and since when.
    pub breakers_open: BTreeMap<HostName, DateTime<Utc>>,
    /// Slots that an operator wished to be forgotten, and has no answer yet.
    pub forgotten: BTreeSet<SlotName>,
    /// Bots' programs.
    pub programs: BTreeMap<ContainerKey, Program>,
    /// Clients.
    pub clients: Vec<Client>,
    /// How likely faults are.
    pub faults: Faults,
    /// Whether the engine makes containers ahead of need.
    pub engine_prepares: bool,
    /// No faults from then on, so that everything can settle.
    pub calm: bool,
    /// Boundaries passed so far.
    pub boundaries: u64,
    /// Boundaries at which the server crashes.
    pub crash_at: BTreeSet<u64>,
    /// The server processes that live, by number; nothing that a dead one began goes on.
    pub processes: BTreeMap<u32, Process>,
    /// When no server was up, from and to, by the servers' clocks; a clock set ahead counts.
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
    /// Whether the trace is kept.
    pub traced: bool,
    /// What happened, a line each.
    pub trace: Vec<String>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// How often each fault was injected and each state was reached.
    pub counts: BTreeMap<String, u64>,
    /// Since when the bot of each slot runs.
    pub running_since: BTreeMap<SlotName, DateTime<Utc>>,
    /// How often each edge of each machine was taken.
    pub edges: BTreeMap<Edge, u64>,
    /// Since when each bot has stood at its place in the queue.
    pub placed_at: BTreeMap<BotId, DateTime<Utc>>,
    /// How often each bot was asked to be moved in the queue.
    pub moves_asked: BTreeMap<BotId, u32>,
    /// Since when each bot's declined starts are counted together, and how many there were.
    pub declined: BTreeMap<BotId, (DateTime<Utc>, u32)>,
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
        store == 0 && self.crashes == 0 && self.clock_set_at.is_none() && self.down.is_empty()
    }

    /// Counts something worth knowing that it was reached.
    pub fn count(&mut self, name: &str) {
        *self.counts.entry(name.to_owned()).or_default() += 1;
    }

    /// The time by the servers' clocks.
    pub fn utc(&self) -> DateTime<Utc> {
        self.now + TimeDelta::milliseconds(self.set_ahead_ms.load(Ordering::Relaxed))
    }

    /// Sets the servers' clocks ahead, or back.
    pub fn set_clock(&mut self, ahead: TimeDelta) {
        let before = self.utc();
        self.set_ahead_ms.fetch_add(ahead.num_milliseconds(), Ordering::Relaxed);
        // Of what was set back shortly before, or while a server slept, it may see nothing.
        if ahead > LEAP_SEEN && self.clock_steady_for(LEAP_APART) {
            self.clock_leapt = Some((self.now, before));
        }
        self.clock_set_at = Some(self.now);
        if ahead > TimeDelta::zero() {
            match self.down.last_mut() {
                Some((_, to)) if *to >= before => *to += ahead + CLOCK_SLACK,
                _ => self.down.push((before, before + ahead + CLOCK_SLACK)),
            }
        }
    }

    /// Something keeps the leader from its work, until then at least.
    pub fn trouble(&mut self, until: DateTime<Utc>) {
        self.troubled_until = self.troubled_until.max(until);
    }

    /// Whether the servers' clocks went as they should for as long as this.
    pub fn clock_steady_for(&self, span: TimeDelta) -> bool {
        self.clock_set_at.is_none_or(|at| self.now - at > span)
    }

    /// What the clock said before it leapt ahead, less long ago than this, where the leader was up then.
    pub fn before_leap(&self, span: TimeDelta) -> Option<DateTime<Utc>> {
        let leader = self.processes.values().find(|process| process.epoch == self.tables.epoch)?;
        let (at, before) = self.clock_leapt?;
        (leader.began_at < at && self.now - at < span).then_some(before)
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
        if !self.traced {
            return;
        }
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
    set_ahead_ms: Arc<AtomicI64>,
    /// Through which server process it sees the world.
    pub process: u32,
}

impl Shared {
    /// The world as the incarnation that begins now sees it. Needs a runtime with a paused clock.
    pub fn enter(world: &Arc<Mutex<World>>) -> Self {
        let (anchor, set_ahead_ms) = {
            let world = world.lock().unwrap_or_else(PoisonError::into_inner);
            (world.now, Arc::clone(&world.set_ahead_ms))
        };
        Self {
            world: Arc::clone(world),
            anchor,
            began: tokio::time::Instant::now(),
            set_ahead_ms,
            process: 0,
        }
    }

    /// The same world through a server process of its own.
    pub fn through(&self, process: u32) -> Self {
        Self { process, ..self.clone() }
    }

    /// The world, with its time set to now.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        // While a System is torn down its clock is gone; the world's time never goes back.
        world.now = world.now.max(self.elapsed());
        world
    }

    /// Whether the process through which it sees the world is dead.
    pub fn is_dead(&self, world: &World) -> bool {
        !world.processes.contains_key(&self.process)
    }

    /// When a time of the calendar comes, on the runtime's clock.
    pub fn instant(&self, at: DateTime<Utc>) -> tokio::time::Instant {
        self.began + (at - self.anchor).to_std().unwrap_or_default()
    }

    /// Passes a boundary: the leader may crash here. Nothing of a dead process passes any more.
    pub async fn boundary(&self, what: &str) {
        if self.crashes_at_boundary(what) {
            std::future::pending::<()>().await;
        }
    }

    fn crashes_at_boundary(&self, what: &str) -> bool {
        let mut world = self.lock();
        if self.is_dead(&world) {
            return true;
        }
        if !world.leads(self.process) {
            return false;
        }
        world.boundaries += 1;
        let boundary = world.boundaries;
        let crashes = world.crash_at.contains(&boundary);
        if crashes {
            world.note(format!("CRASH at boundary {boundary}: {what}"));
            world.count("crash");
            world.processes.clear();
            world.crashes += 1;
            world.crash_bell.notify_one();
        }
        crashes
    }

    /// Waits for a drawn time.
    pub async fn delay(&self, from_ms: u64, to_ms: u64) {
        let wait = self.lock().between(from_ms, to_ms).to_std().unwrap_or_default();
        tokio::time::sleep(wait).await;
    }

    fn elapsed(&self) -> DateTime<Utc> {
        self.anchor + TimeDelta::from_std(self.began.elapsed()).unwrap_or_default()
    }
}

impl Clock for Shared {
    fn now(&self) -> DateTime<Utc> {
        self.elapsed() + TimeDelta::milliseconds(self.set_ahead_ms.load(Ordering::Relaxed))
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
            set_ahead_ms: Arc::new(AtomicI64::new(0)),
            troubled_until: super::sample::now(),
            clock_set_at: None,
            clock_leapt: None,
            calendar: BTreeMap::new(),
            entries: 0,
            tables: Tables::default(),
            containers: Containers::default(),
            hosts_away: BTreeMap::new(),
            listeners: Vec::new(),
            breakers_open: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            programs: BTreeMap::new(),
            clients: Vec::new(),
            faults,
            engine_prepares: false,
            calm: false,
            boundaries: 0,
            crash_at: BTreeSet::new(),
            processes: BTreeMap::new(),
            down: Vec::new(),
            scheduled_percent: 0,
            scheduled_since: BTreeMap::new(),
            longest_start: TimeDelta::zero(),
            crashes: 0,
            platforms,
            settings,
            traced: true,
            trace: Vec::new(),
            violations: Vec::new(),
            counts: BTreeMap::new(),
            running_since: BTreeMap::new(),
            edges: BTreeMap::new(),
            placed_at: BTreeMap::new(),
            moves_asked: BTreeMap::new(),
            declined: BTreeMap::new(),
            finals: BTreeMap::new(),
            crash_bell: Arc::new(Notify::new()),
            calendar_bell: Arc::new(Notify::new()),
        }
    }
}
