//! Runs the real actors through a drawn life: clients come, bots run, things break, the server crashes and starts
//! again, another takes its place; then calm, and everything must settle.

use super::client::{self, Client};
use super::coverage::Counts;
use super::disaster::Disaster;
use super::edges::Edge;
use super::scenario::Scenario;
use super::server::{Server, Servers};
use super::world::{Happening, Shared, World};
use super::{dispatcher, operator, program};
use super::{invariants, sample};
use crate::pool;
use crate::queue;
use crate::scale;
use crate::schedule;
use actix::System;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// What happened, a line each; empty where it was not to be traced.
    pub trace: Vec<String>,
    /// What was reached, and how often.
    pub counts: Counts,
    /// How often each edge of each machine was taken.
    pub edges: BTreeMap<Edge, u64>,
    /// Boundaries passed.
    pub boundaries: u64,
}

/// A downtime now and then is longer than starts are made up for.
const DOWN_LONG_MS: (u64, u64) = (600_000, 1_500_000);

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario) -> Report {
    let mut world = World::new(scenario.seed, scenario.faults, scenario.platforms(), scenario.settings());
    draw(&mut world, scenario);
    let world = Arc::new(Mutex::new(world));
    let (calm, end) = scenario.ends();
    let (calm_at, end_at) = (sample::now() + calm, sample::now() + end);
    while let Exit::Crashed = incarnation(&world, calm_at, end_at) {
        let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
        world.settle_in_flight();
        world.listeners.clear();
        let is_long = world.rng.u8(0..6) == 0;
        let (from_ms, to_ms) = if is_long { DOWN_LONG_MS } else { (100, 30_000) };
        let length = world.between(from_ms, to_ms);
        let from = world.utc();
        world.down.push((from, from + length));
        downtime(&mut world, length);
    }
    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
    invariants::settled(&mut world);
    Report {
        violations: std::mem::take(&mut world.violations),
        trace: std::mem::take(&mut world.trace),
        counts: std::mem::take(&mut world.counts),
        edges: std::mem::take(&mut world.edges),
        boundaries: world.boundaries,
    }
}

fn draw(world: &mut World, scenario: &Scenario) {
    world.traced = scenario.traced;
    world.scheduled_percent = scenario.scheduled_percent;
    world.engine_prepares = scenario.prepares;
    let spread_ms = u64::try_from(scenario.spread.num_milliseconds()).unwrap_or(0);
    let flood_at_ms = world.rng.u64(0..spread_ms);
    for number in 0..scenario.clients + scenario.flood {
        let floods = number >= scenario.clients;
        let (from, to) = if floods { (flood_at_ms, flood_at_ms + 2_000) } else { (0, spread_ms) };
        let after = world.between(from, to);
        let client = Client::new(world, number);
        world.clients.push(client);
        world.plan(after, Happening::Client(number));
    }
    world.plan(TimeDelta::seconds(1), Happening::Dispatcher);
    for _ in 0..scenario.operations {
        let after = world.between(0, spread_ms);
        world.plan(after, Happening::Operator);
    }
    for _ in 0..scenario.disasters {
        let after = world.between(0, spread_ms);
        world.plan(after, Happening::Disaster(Disaster::Begins));
    }
    // About so many boundaries pass for each bot.
    let boundaries = 25 * (scenario.clients + scenario.flood) as u64;
    world.crash_at = match &scenario.crash_at {
        Some(at) => at.iter().copied().collect(),
        None => (0..world.rng.usize(0..6)).map(|_| world.rng.u64(1..boundaries)).collect(),
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
            Happening::Disaster(disaster) => {
                world.suffer(disaster, None);
            }
            // Bots and clients find nobody there; they try again later.
            Happening::Panic(_) | Happening::Operator => {}
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
fn incarnation(world: &Arc<Mutex<World>>, calm_at: DateTime<Utc>, end_at: DateTime<Utc>) -> Exit {
    let runner = System::with_tokio_rt(|| {
        let built = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        match built {
            Ok(runtime) => runtime,
            Err(error) => panic!("no runtime: {error}"),
        }
    });
    runner.block_on(live(world, calm_at, end_at))
}

async fn live(world: &Arc<Mutex<World>>, calm_at: DateTime<Utc>, end_at: DateTime<Utc>) -> Exit {
    let shared = Shared::enter(world);
    let (crash_bell, calendar_bell) = {
        let world = shared.lock();
        (Arc::clone(&world.crash_bell), Arc::clone(&world.calendar_bell))
    };
    let mut servers = Servers::default();
    servers.push(Server::start(&shared).await);
    loop {
        let next = shared.lock().calendar.first_key_value().map_or(end_at, |((at, _), _)| *at);
        tokio::select! {
            biased;
            () = crash_bell.notified() => return Exit::Crashed,
            () = calendar_bell.notified() => {
                servers.bury(&shared);
                continue;
            }
            () = tokio::time::sleep_until(shared.instant(next.min(end_at))) => {}
            () = servers.go_on(&shared) => {}
        }
        if shared.lock().now >= end_at {
            if let Some(leader) = servers.leader() {
                leader.run_until(look_at_what_is_left(leader)).await;
            }
            // From here on nothing counts: the actors die with their System.
            shared.lock().processes.clear();
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
        if let Happening::Disaster(disaster) = happening {
            let leader = servers.leader().map(|leader| leader.shared.process);
            let takes_over = shared.lock().suffer(disaster, leader);
            if takes_over {
                shared.lock().count("standby took over");
                servers.push(Server::start(&shared).await);
            }
            servers.bury(&shared);
        } else {
            happen(happening, &servers, &shared);
        }
    }
}

fn happen(happening: Happening, servers: &Servers, shared: &Shared) {
    if let Happening::Engine(deed) = happening {
        return shared.lock().carry_out(deed);
    }
    let reached = servers.reached(&mut shared.lock());
    match (happening, reached) {
        (Happening::Program(key), server) => {
            let server = server.map(|server| (&server.shared, server.tree.directory.as_ref()));
            program::step(server.map_or(shared, |(shared, _)| shared), key, server.map(|(_, slots)| slots));
        }
        (Happening::Client(number), Some(server)) => client::step(&server.shared, number, &server.tree),
        (happening @ Happening::Client(_), None) => {
            let mut world = shared.lock();
            let later = world.between(1_000, 5_000);
            world.plan(later, happening);
        }
        (Happening::Operator, _) => servers.to_leader(|server| operator::step(&server.shared, &server.tree)),
        (Happening::Dispatcher, _) => dispatcher::step(shared, servers.leader()),
        (Happening::Panic(name), _) => servers.to_leader(|server| {
            {
                let mut world = shared.lock();
                let now = world.now;
                world.note(format!("{name}: its actor panics"));
                world.trouble(now);
            }
            let handles = server.tree.directory.all();
            handles.iter().filter(|handle| *handle.name() == name).for_each(|handle| handle.panic());
        }),
        (Happening::Engine(_) | Happening::Disaster(_), _) => {}
    }
}

/// The end: the mailboxes remember nothing, and everybody is at rest.
async fn look_at_what_is_left(leader: &Server) {
    let (tree, within) = (&leader.tree, TimeDelta::days(1));
    let left = (
        tree.pool.send(pool::message::Observe).await,
        tree.pool.send(pool::message::ListSlots).await,
        tree.queue.send(queue::message::Observe).await,
        tree.schedule.send(schedule::message::Observe { within }).await,
        tree.scaler.send(scale::actor::Observe).await,
    );
    let load = tree.pool.send(pool::message::ObserveLoad { longest_unused: 3 }).await;
    let mut world = leader.shared.lock();
    if let ((_, Ok(slots), ..), Ok(load)) = (&left, &load) {
        invariants::load_is_that_of_the_slots(&mut world, slots, load);
    }
    match left {
        (Ok(pool), Ok(slots), Ok(queue), Ok(schedule), Ok(scaler)) => {
            invariants::nothing_remembered(&mut world, &pool, &queue, &schedule);
            invariants::the_pool_knows_the_rows(&mut world, &pool, &slots);
            invariants::at_rest(&mut world, &pool, &slots, &scaler);
        }
        _ => world.violated("the pool, the queue, the Scheduler or the Scaler does not answer"),
    }
}
