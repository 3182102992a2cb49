//! What the simulation must have reached, or it proves nothing: each kind of fault, each end, each edge of the
//! machines. Counted while it runs, and shown as a table.

use super::edges::{Edge, edges};
use super::world::Shared;
use crate::ids::HostName;
use crate::ports::{Machine, Measure, Meter};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What was reached, and how often.
pub type Counts = BTreeMap<String, u64>;

/// Faults and outcomes that a large set of seeds reaches.
pub const REACHED: &[&str] = &[
    // The store.
    "commit lost",
    "commit torn",
    "commit arrived late",
    "flush lost",
    "store away",
    // The server.
    "crash",
    "slot panics while committing",
    "slot rebuilt",
    "stale event",
    "server slept",
    "clock set ahead",
    "clock set back",
    "leader cut off",
    "leader frozen",
    "standby took over",
    "deposed leader asked",
    "deposed leader refused",
    "deposed leader ended by a refusal",
    "deposed leader ended by its confirmation",
    "engine left alone by a leader in doubt",
    // The engine.
    "pull",
    "pull fails",
    "pull hangs",
    "image kept",
    "start panics",
    "start hangs",
    "start refused",
    "start torn",
    "start denied though done",
    "start answered late",
    "prepare panics",
    "prepare hangs",
    "prepare refused",
    "prepare torn",
    "prepare denied though done",
    "prepare answered late",
    "prepared already",
    "prepared container started",
    "prepared container lost",
    "preparation came too late",
    "preparation lost with its host",
    "stop panics",
    "stop hangs",
    "stop refused",
    "stop torn",
    "stop denied though done",
    "stop answered late",
    "look fails",
    "listing is partial",
    "host died",
    "host cut off",
    "container lost with its host",
    "start lost with its host",
    "call to a host that is away",
    "breaker opens",
    "engine tells",
    "engine's word interrupted",
    // Recordings.
    "segments not listed",
    "join fails",
    // Bots' programs.
    "report doubled",
    "bot crashes",
    "bot falls silent",
    "bot is stubborn",
    // What clients, operators and the dispatcher ask.
    "refused at the door",
    "queue full",
    "leave taken",
    "bot moved",
    "move taken",
    "move too late",
    "move refused",
    "bot reprioritised",
    "scheduled bot cancelled",
    "image changed",
    "host taken out",
    "host gets no more bots",
    "slot drains",
    "slot prewarmed",
    "prewarm without its image",
    "prewarm found no room",
    "recover all",
    "drain begun",
    "drain ended",
    "asked to leave at a drain's deadline",
    "Reset taken",
    "Reset refused",
    "Drain taken",
    "Undrain taken",
    "Retire taken",
    "Retire refused",
    "Forget taken",
    "Forget refused",
    "Restart taken",
    "Restart refused",
    "maintenance began",
    "maintenance ended",
    "tag moved",
    "slot refreshed",
    "End taken",
    "End refused",
    "scaler grows",
    "scaler retires",
    // What becomes of slots and bots.
    "served from the queue",
    "start goes elsewhere",
    "start declined",
    "queue timeout",
    "handed over",
    "grace extended",
    "slot idle",
    "slot deploying",
    "slot busy",
    "slot error",
    "slot retired",
    "bot SCHEDULED",
    "bot QUEUED",
    "bot DEPLOYING",
    "bot JOINING_CALL",
    "bot LEAVING",
    "end meeting_ended",
    "end left_by_request",
    "end cancelled",
    "end queue_timeout",
    "end start_missed",
    "end denied",
    "end end_time",
    "end deploy_failed",
    "end heartbeat_lost",
    "end crashed",
    "end internal",
];

const fn slot(from: &'static str, event: &'static str, to: &'static str) -> Edge {
    Edge { machine: Machine::Slot, from, event, to }
}

/// Edges that no seed need reach, and why.
pub const EXEMPT: &[(Edge, &str)] = &[
    (slot("pulling", "Started", "running"), NOT_STARTED),
    (slot("pulling", "Claimed", "running"), NOT_STARTED),
    (slot("pulling", "Exited", "error"), NOT_STARTED),
    (slot("pulling", "Woke", "error"), PULL_ENDS),
    (slot("idle", "Observed", "removing"), MADE_AS_ASKED),
    (slot("prepared", "Observed", "removing"), MADE_AS_ASKED),
    (slot("resuming", "Started", "running"), NOT_STARTED),
    (slot("resuming", "Claimed", "running"), NOT_STARTED),
    (slot("resuming", "Exited", "error"), NOT_STARTED),
    (slot("resuming", "Woke", "error"), PULL_ENDS),
    (slot("resuming", "ClearOut", "error"), SERVER_STAYS),
    (slot("starting", "Exited", "error"), NOT_WATCHED),
    (slot("retrying", "Exited", "error"), NOT_WATCHED),
    (slot("retrying", "Started", "running"), "a start has one outcome, and it failed"),
    (slot("lingering", "Assigned", "restarting"), NOT_OFFERED),
    (slot("pulling", "ClearOut", "idle"), SERVER_STAYS),
    (slot("starting", "ClearOut", "error"), SERVER_STAYS),
    (slot("retrying", "ClearOut", "error"), SERVER_STAYS),
    (slot("restarting", "ClearOut", "error"), SERVER_STAYS),
    (slot("running", "ClearOut", "leaving"), SERVER_STAYS),
];
const NOT_STARTED: &str = "nothing of a generation runs before its start";
const NOT_OFFERED: &str =
    "nobody is offered such a slot; only an offer on its way as a removal fails finds one";
const PULL_ENDS: &str = "a pull ends by its own rule, long before";
const MADE_AS_ASKED: &str = "an engine that makes and runs only what it is told";
const SERVER_STAYS: &str =
    "only who empties the whole server asks for it, and nobody does here: see `tests/drains.rs`";
const NOT_WATCHED: &str = "a container is watched from its first sign on";

/// Counts what the actors say of themselves.
pub struct EdgeMeter(pub Shared);

impl Meter for EdgeMeter {
    fn record(&self, measure: Measure<'_>) {
        match measure {
            Measure::Moved { machine, from, event, to } => {
                *self.0.lock().edges.entry(Edge { machine, from, event, to }).or_default() += 1;
            }
            Measure::SlotRebuilt => self.0.lock().count("slot rebuilt"),
            Measure::BreakerTurned { host, open } => self.0.breaker_turned(host, open),
            Measure::StaleEvent { .. } => self.0.lock().count("stale event"),
            _ => {}
        }
    }
}

impl Shared {
    /// Notes what no row says. What one that led before makes of the engines is of no matter.
    fn breaker_turned(&self, host: &HostName, open: bool) {
        let mut world = self.lock();
        if !world.leads(self.process) {
            return;
        }
        let now = world.now;
        if open {
            world.count("breaker opens");
            world.breakers_open.insert(host.clone(), now);
        } else {
            world.breakers_open.remove(host);
            // What paused meanwhile goes on from here.
            world.trouble(now);
        }
    }
}

/// What was reached by a set of seeds.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    counts: Counts,
    edges: BTreeMap<Edge, u64>,
}

impl Coverage {
    /// Adds what one seed reached.
    pub fn add(&mut self, counts: &Counts, edges: &BTreeMap<Edge, u64>) {
        for (what, count) in counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
        for (edge, count) in edges {
            *self.edges.entry(*edge).or_default() += count;
        }
    }

    /// Faults and outcomes that were to be reached and were not.
    pub fn missed(&self) -> Vec<String> {
        let missed = REACHED.iter().filter(|what| !self.counts.contains_key(**what));
        missed.map(|what| (*what).to_owned()).collect()
    }

    /// Edges that were to be reached and were not.
    pub fn missed_edges(&self) -> Vec<String> {
        let missed = edges().into_iter().filter(|edge| !self.edges.contains_key(edge));
        let exempt: BTreeSet<Edge> = EXEMPT.iter().map(|(edge, _)| *edge).collect();
        missed.filter(|edge| !exempt.contains(edge)).map(|edge| edge.to_string()).collect()
    }

    /// Two tables: faults and outcomes, and the edges of the machines.
    pub fn table(&self) -> String {
        let mut table = String::from("faults and outcomes reached:\n");
        for what in REACHED {
            let _ = writeln!(table, "{:>10}  {what}", self.counts.get(*what).copied().unwrap_or(0));
        }
        table.push_str("edges of the machines reached:\n");
        for edge in edges() {
            let why = EXEMPT.iter().find(|(exempt, _)| *exempt == edge);
            let why = why.map(|(_, why)| format!("   (exempt: {why})")).unwrap_or_default();
            let count = self.edges.get(&edge).copied().unwrap_or(0);
            let _ = writeln!(table, "{count:>10}  {edge}{why}");
        }
        table
    }
}
