//! The server processes of one incarnation: the leader, and those that led before and do not know yet that they do
//! not any more. Each has its actors in a task set of its own, so that one can be frozen, or die, alone.

use super::archive::{FakeArchive, NoSpools, RoomyDisks};
use super::coverage::EdgeMeter;
use super::engine::{FakeArtifacts, FakeEngine};
use super::process::FakeLead;
use super::store::FakeStore;
use super::world::{Shared, World};
use crate::ids::SlotId;
use crate::lead::LeadingDriver;
use crate::maintenance::MaintenanceSettings;
use crate::maintenance::timetable::Timetable;
use crate::ports::{Clock, Lead, SlotIds, Store};
use crate::scale::ScaleSettings;
use crate::schedule::ScheduleSettings;
use crate::slot::SlotTiming;
use crate::tree::{Ports, Tree};
use actix::System;
use chrono::TimeDelta;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::LocalSet;
use uuid::Uuid;

/// One server process.
pub struct Server {
    /// The world through this process.
    pub shared: Shared,
    /// Its actors.
    pub tree: Tree,
    tasks: LocalSet,
}

impl Server {
    /// Takes the lead, reads the rows and starts the actors.
    pub async fn start(shared: &Shared) -> Self {
        let number = {
            let mut world = shared.lock();
            world.count("server started");
            let number = u32::try_from(world.counts["server started"]).unwrap_or(u32::MAX);
            world.takes_lead(number);
            world.note(format!("server {number} leads"));
            number
        };
        let (shared, tasks) = (shared.through(number), LocalSet::new());
        let tree = tasks.run_until(plant(&shared)).await;
        Self { shared, tree, tasks }
    }

    /// Waits for something of this server, which goes on meanwhile.
    pub async fn run_until<T>(&self, what: impl Future<Output = T>) -> T {
        self.tasks.run_until(what).await
    }
}

/// All of them, the leader last.
#[derive(Default)]
pub struct Servers(Vec<Server>);

impl Servers {
    /// A new leader.
    pub fn push(&mut self, leader: Server) {
        self.0.push(leader);
    }

    /// The one that began last.
    pub fn leader(&self) -> Option<&Server> {
        self.0.last()
    }

    /// The one that a request reaches, if it reaches one: mostly the leader, now and then one that led before.
    pub fn reached(&self, world: &mut World) -> Option<&Server> {
        let awake = |server: &&Server| {
            world.processes.get(&server.shared.process).is_some_and(|process| !process.frozen)
        };
        let awake: Vec<&Server> = self.0.iter().filter(awake).collect();
        let (leader, others) = awake.split_last()?;
        let is_led = world.leads(leader.shared.process);
        if !others.is_empty() && (!is_led || world.rng.u8(0..4) == 0) {
            world.count("deposed leader asked");
            return others.first().copied();
        }
        Some(leader)
    }

    /// Does something to the leader, unless it is frozen.
    pub fn to_leader(&self, what: impl FnOnce(&Server)) {
        let Some(leader) = self.leader() else { return };
        let is_awake = {
            let world = leader.shared.lock();
            world.processes.get(&leader.shared.process).is_some_and(|process| !process.frozen)
        };
        if is_awake {
            what(leader);
        }
    }

    /// Drops the actors of processes that are dead.
    pub fn bury(&mut self, shared: &Shared) {
        let is_dead = |server: &Server| server.shared.is_dead(&shared.lock());
        let (dead, alive) = std::mem::take(&mut self.0).into_iter().partition(is_dead);
        self.0 = alive;
        let dead: Vec<Server> = dead;
        drop(dead);
    }

    /// Lets all go on that are not frozen; never comes back.
    pub fn go_on(&mut self, shared: &Shared) -> impl Future<Output = ()> {
        std::future::poll_fn(move |context: &mut Context<'_>| {
            for server in &mut self.0 {
                let process = server.shared.process;
                let is_frozen = shared.lock().processes.get(&process).is_none_or(|process| process.frozen);
                if !is_frozen {
                    let _ = Pin::new(&mut server.tasks).poll(context);
                }
            }
            Poll::Pending
        })
    }
}

/// Starts the actors of a world on its fakes.
pub async fn plant(shared: &Shared) -> Tree {
    plant_on(shared, Arc::new(FakeStore(shared.clone()))).await
}

/// Starts the actors of a world on its fakes, but for the store.
pub async fn plant_on(shared: &Shared, store: Arc<dyn Store>) -> Tree {
    let rows = store.load().await.unwrap_or_default();
    let settings = shared.lock().settings.clone();
    let (schedule, timing) = (ScheduleSettings::default(), SlotTiming::default());
    Tree::start(&ports(shared, store), rows, settings, schedule, small_scale(), half_hourly(), timing)
}

/// Runs a test as the leader of this world, in virtual time; nothing may be violated in the end.
pub fn run_in<F: Future>(mut world: World, test: impl FnOnce(Shared) -> F) -> F::Output {
    let runner = System::with_tokio_rt(|| {
        let built = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        built.expect("a runtime")
    });
    world.takes_lead(1);
    let world = Arc::new(Mutex::new(world));
    let outcome = runner.block_on(async { test(Shared::enter(&world).through(1)).await });
    let mut world = world.lock().expect("nobody panicked with it");
    // The actors die with their System; that is no news.
    world.processes.clear();
    assert_eq!(world.violations, Vec::<String>::new());
    outcome
}

/// Comes back when it is so, in virtual time.
pub async fn until(shared: &Shared, what: impl Fn(&Shared) -> bool) {
    let patience = tokio::time::timeout(Duration::from_secs(3600), async {
        while !what(shared) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            shared.now();
        }
    });
    patience.await.expect("within an hour");
}

/// Slots need not be idle for long, and nothing of a bot is removed: the world remembers what was.
fn half_hourly() -> MaintenanceSettings {
    MaintenanceSettings {
        timetable: Timetable::parse("*/30 * * * *", "UTC").ok(),
        refresh_idle: Some(TimeDelta::minutes(20)),
        ..MaintenanceSettings::default()
    }
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

fn ports(shared: &Shared, store: Arc<dyn Store>) -> Ports {
    let lead: Arc<dyn Lead> = Arc::new(FakeLead(shared.clone()));
    let engine = Arc::new(FakeEngine(shared.clone()));
    let fatal = shared.clone();
    Ports {
        store,
        driver: Arc::new(LeadingDriver::new(engine, Arc::clone(&lead))),
        artifacts: Arc::new(FakeArtifacts(shared.clone())),
        archive: Arc::new(FakeArchive(shared.clone())),
        spools: Arc::new(NoSpools),
        disks: Arc::new(RoomyDisks),
        clock: Arc::new(shared.clone()),
        lead,
        meter: Arc::new(EdgeMeter(shared.clone())),
        slot_ids: Arc::new(CountedIds(shared.clone())),
        on_fatal: Arc::new(move |why| ends(&fatal, why)),
        log: slog::Logger::root(slog::Discard, slog::o!()),
    }
}

/// A process says that it cannot go on: right for one that another has replaced, wrong for the leader. One that is dead
/// already says so because its actors are dropped.
fn ends(shared: &Shared, why: &str) {
    let mut world = shared.lock();
    let number = shared.process;
    if world.leads(number) {
        world.violated(format!("fatal: {why}"));
    } else if world.processes.remove(&number).is_some() {
        world.note(format!("server {number} ends: {why}"));
        world.count("deposed leader ended by a refusal");
        world.calendar_bell.notify_one();
    }
}

struct CountedIds(Shared);

impl SlotIds for CountedIds {
    fn next(&self) -> SlotId {
        let mut world = self.0.lock();
        world.count("slot id");
        SlotId(Uuid::from_u128(u128::from(world.counts["slot id"])))
    }
}
