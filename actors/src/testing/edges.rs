//! Every state of a slot and everything that may happen to it, as samples: what the machine's table is written from;
//! and which edges of it, of pulls and of breakers the simulation must reach.

use super::sample;
use crate::bot::machine::{Report, ReportBody, end};
use crate::bot::{BotState, EndReason, Setback};
use crate::ids::{BotId, ContainerId, Generation, HostName, Operation};
use crate::image_pull::PullKey;
use crate::image_pull::machine::{Pull, PullEvent, PullSettings, PullState, Waiter, WaiterId, Want};
use crate::pool::breaker::{Breaker, BreakerEvent, BreakerSettings};
use crate::ports::{Machine, Presence, ResourceLimits};
use crate::slot::command::SlotCommand;
use crate::slot::drains::Drains;
use crate::slot::event::{BotSource, SlotEvent};
use crate::slot::machine::transition;
use crate::slot::preparation::Preparation;
use crate::slot::{BusyStep, DeployStep, RecoveryStep, Slot, SlotState, SlotTiming};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

/// What leads from one step of a machine to another, or changes something within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// Whose step.
    pub machine: Machine,
    /// The step before.
    pub from: &'static str,
    /// What happened.
    pub event: &'static str,
    /// The step after.
    pub to: &'static str,
}

impl std::fmt::Display for Edge {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.machine {
            Machine::Slot => {}
            Machine::Pull => out.write_str("pull ")?,
            Machine::Breaker => out.write_str("breaker ")?,
        }
        write!(out, "{} + {} → {}", self.from, self.event, self.to)
    }
}

/// Every edge of every machine, as they are.
pub fn edges() -> BTreeSet<Edge> {
    let mut edges = slot_edges();
    edges.extend(pull_edges());
    edges.extend(breaker_edges());
    edges
}

fn pull_edges() -> BTreeSet<Edge> {
    let (settings, now) = (PullSettings { waiters_max: 1, ..PullSettings::default() }, sample::now());
    let key = PullKey { host: HostName::local(), image: "image:1".to_owned() };
    let long_ago = now - TimeDelta::days(1);
    let (pulling, backing_off) =
        (PullState::Pulling { moved_at: long_ago }, PullState::BackingOff { until: long_ago });
    // Nobody waits for what is there, nor for what nobody asked for; for what is renewed, nobody else does.
    let waits = [
        (PullState::Unknown, false, None),
        (PullState::Present, false, None),
        (pulling, false, None),
        (pulling, false, Some(Want::Bot)),
        (pulling, true, None),
        (pulling, true, Some(Want::Renewal)),
        (backing_off, false, None),
        (backing_off, false, Some(Want::Bot)),
        (backing_off, true, None),
        (backing_off, true, Some(Want::Renewal)),
    ];
    let waiter = |want| Waiter { id: WaiterId(1), want, failures: settings.tries };
    let mut edges = BTreeSet::new();
    for (state, usable, waits) in waits {
        let events = [
            PullEvent::Wanted { id: WaiterId(2), want: Want::Bot },
            PullEvent::Wanted { id: WaiterId(2), want: Want::Renewal },
            PullEvent::GivenUp(WaiterId(1)),
            PullEvent::Progressed,
            PullEvent::Succeeded,
            PullEvent::Kept { reason: "e".into() },
            PullEvent::Failed { reason: "e".into(), retryable: true },
            PullEvent::Woke,
            PullEvent::Forgotten,
        ];
        for event in events {
            let mut pull = Pull { line: waits.map(waiter).into_iter().collect(), state, usable, failures: 0 };
            let (from, name) = (state.as_str(), event.name());
            let commands = pull.take(&key, event, &settings, now);
            let to = pull.state.as_str();
            if from != to || !commands.is_empty() {
                edges.insert(Edge { machine: Machine::Pull, from, event: name, to });
            }
        }
    }
    edges
}

fn breaker_edges() -> BTreeSet<Edge> {
    let (settings, now) = (BreakerSettings { failures: 1, ..BreakerSettings::default() }, sample::now());
    let later = now + TimeDelta::days(1);
    let unanswered = |began_at| BreakerEvent::Unanswered { began_at };
    // The way to each state.
    let ways: [&[(BreakerEvent, DateTime<Utc>)]; 3] =
        [&[], &[(unanswered(now), now)], &[(unanswered(now), now), (BreakerEvent::Woke, later)]];
    let mut edges = BTreeSet::new();
    for way in ways {
        let mut breaker = Breaker::default();
        for (event, at) in way {
            breaker.take(*event, &settings, 0, *at);
        }
        for event in [BreakerEvent::Answered, unanswered(later), BreakerEvent::Woke] {
            for at in [now, later] {
                let mut after = breaker.clone();
                if after.take(event, &settings, 0, at).is_some() {
                    let (from, to) = (breaker.state().as_str(), after.state().as_str());
                    edges.insert(Edge { machine: Machine::Breaker, from, event: event.name(), to });
                }
            }
        }
    }
    edges
}

fn slot_edges() -> BTreeSet<Edge> {
    let mut edges = BTreeSet::new();
    for ahead in [TimeDelta::seconds(-1), TimeDelta::minutes(1)] {
        for (_, slot) in states(sample::now() + ahead) {
            for (_, event) in events(&slot) {
                let (from, name) = (slot.step(), event.name());
                let decided = transition(&slot, event, &SlotTiming::default(), sample::now());
                let changed = decided.ok().filter(|transition| !transition.changes.is_empty());
                edges.extend(changed.map(|to| Edge {
                    machine: Machine::Slot,
                    from,
                    event: name,
                    to: to.next.step(),
                }));
            }
        }
    }
    edges
}

/// A slot in each state, by name; deadlines of a deploying bot are at `deadline`, all others have passed.
pub fn states(deadline: DateTime<Utc>) -> Vec<(&'static str, Slot)> {
    let busy = sample::busy_slot(1);
    let bot = busy.bot().cloned().map(Box::new).unwrap_or_else(|| Box::new(sample::bot(1)));
    let fresh = {
        let mut fresh = bot.clone();
        (fresh.state, fresh.nonce, fresh.report_seq) = (BotState::Deploying, None, 0);
        fresh
    };
    let past = sample::now() - TimeDelta::seconds(1);
    let again = {
        let mut again = fresh.clone();
        again.setback = Some(Setback { failed_starts: 1, at: past, detail: "e".into() });
        again
    };
    let done = {
        let mut done = bot.clone();
        (done.state, done.end) = (BotState::Done, Some(end(EndReason::MeetingEnded)));
        done
    };
    let gone = done.clone();
    let with = |state| Slot { state, ..busy.clone() };
    let deploying = |step| SlotState::Deploying { bot: fresh.clone(), step, attempts: 0, deadline };
    let container = Some(ContainerId("c".into()));
    let error = |step| SlotState::Error {
        reason: "no room".into(),
        attempts: 0,
        since: sample::now(),
        container: container.clone(),
        step,
    };
    let limits = ResourceLimits::default();
    let ahead =
        |ahead| Slot { state: SlotState::Idle { last_used_at: Some(past), ahead }, ..sample::idle_slot(1) };
    let running = |bot, container, step| SlotState::Busy { bot, container, step };
    vec![
        ("not stored yet", sample::vacant_slot(1)),
        ("idle", sample::idle_slot(1)),
        ("idle, preparing", ahead(Preparation::Preparing { limits, failures: 0 })),
        ("idle, prepared", ahead(Preparation::Prepared { limits, container: ContainerId("c".into()) })),
        ("idle, unprepared", ahead(Preparation::Retrying { limits, failures: 1, at: past })),
        ("idle, removing", ahead(Preparation::Removing { container: None, failures: 0 })),
        (
            "idle, removing; draining",
            Slot {
                drains: Drains::own(None),
                ..ahead(Preparation::Removing { container: None, failures: 0 })
            },
        ),
        ("idle, lingering", ahead(Preparation::Lingering { container: None, failures: 1, at: past })),
        ("deploying, pulling", with(deploying(DeployStep::Pulling))),
        ("deploying, resuming", with(deploying(DeployStep::Resuming))),
        ("deploying, starting", with(deploying(DeployStep::Starting))),
        ("deploying, retrying", with(deploying(DeployStep::Retrying { at: past }))),
        ("deploying, restarting", with(deploying(DeployStep::Restarting))),
        (
            "deploying, pulling; the second slot",
            with(SlotState::Deploying { bot: again, step: DeployStep::Pulling, attempts: 0, deadline }),
        ),
        ("busy, unclaimed", with(running(fresh.clone(), None, BusyStep::Running { leave_at: past }))),
        (
            "busy, running",
            with(running(bot.clone(), container.clone(), BusyStep::Running { leave_at: past })),
        ),
        (
            "busy, leaving",
            with(running(bot, container.clone(), BusyStep::Leaving { until: past, latest: past })),
        ),
        ("busy, stopping", with(running(done, container.clone(), BusyStep::Stopping))),
        (
            "busy, stopping; draining",
            Slot { drains: Drains::own(None), ..with(running(gone, container.clone(), BusyStep::Stopping)) },
        ),
        ("error, waiting", with(error(RecoveryStep::Waiting { until: past }))),
        ("error, stopping", with(error(RecoveryStep::Stopping))),
        ("error, stopping; ephemeral", Slot { ephemeral: true, ..with(error(RecoveryStep::Stopping)) }),
        ("retired", with(SlotState::Retired)),
    ]
}

fn small() -> ResourceLimits {
    ResourceLimits { memory_mib: Some(64), ..ResourceLimits::default() }
}

/// Everything that may happen to a slot, by name; outcomes carry its generation and operation.
pub fn events(slot: &Slot) -> Vec<(&'static str, SlotEvent)> {
    let (generation, operation) = (slot.container_generation(), slot.operation);
    let bot_id = slot.bot().map_or(BotId(1), |bot| bot.id);
    let seq = slot.bot().map_or(1, |bot| bot.report_seq + 1);
    let report = |body| SlotEvent::Reported { generation, report: Report { seq, at: sample::now(), body } };
    let observed = |presence| SlotEvent::Observed {
        generation,
        presence,
        began_at: sample::now() + TimeDelta::seconds(1),
    };
    let start_failed =
        |retryable| SlotEvent::StartFailed { generation, operation, reason: "e".into(), retryable };
    vec![
        ("Assigned", SlotEvent::Assigned { bot: Box::new(sample::bot(9)), source: BotSource::Queue }),
        ("PullSucceeded", SlotEvent::PullSucceeded { operation }),
        ("PullFailed", SlotEvent::PullFailed { operation, reason: "e".into() }),
        ("PullDeclined", SlotEvent::PullDeclined { operation, reason: "e".into() }),
        ("Prepared", SlotEvent::Prepared { generation, operation, container: ContainerId("c".into()) }),
        ("PrepareFailed", SlotEvent::PrepareFailed { generation, operation }),
        ("Started", SlotEvent::Started { generation, operation, container: ContainerId("c".into()) }),
        ("StartFailed, try again", start_failed(true)),
        ("StartFailed, for good", start_failed(false)),
        ("Claimed, first", SlotEvent::Claimed { generation, nonce: Uuid::from_u128(7) }),
        ("Claimed, another", SlotEvent::Claimed { generation, nonce: Uuid::from_u128(8) }),
        ("Reported, in a call", report(ReportBody::Entered(BotState::Recording))),
        ("Reported, leaving", report(ReportBody::Entered(BotState::Leaving))),
        ("Reported, ended", report(ReportBody::Ended(end(EndReason::MeetingEnded)))),
        ("LeaveRequested", SlotEvent::LeaveRequested { bot_id, reason: EndReason::LeftByRequest }),
        ("Observed running", observed(Presence::Running)),
        ("Observed prepared", observed(Presence::Prepared)),
        ("Observed gone", observed(Presence::Gone)),
        (
            "Observed gone, before the last change",
            SlotEvent::Observed { generation, presence: Presence::Gone, began_at: slot.changed_at },
        ),
        ("Exited", SlotEvent::Exited { generation, note: "e".into() }),
        ("HeartbeatLost", SlotEvent::HeartbeatLost { generation, silent: Duration::from_secs(300) }),
        ("Stopped", SlotEvent::Stopped { generation, operation }),
        ("StopFailed", SlotEvent::StopFailed { generation, operation, reason: "e".into(), answered: true }),
        ("Woke, time is up", SlotEvent::Woke),
        ("SegmentArrived", SlotEvent::SegmentArrived { generation, at: sample::now() }),
        ("Store", SlotEvent::Commanded(SlotCommand::Store)),
        ("ChangeImage", SlotEvent::Commanded(SlotCommand::ChangeImage { image: "image:2".into() })),
        ("Refresh", SlotEvent::Commanded(SlotCommand::Refresh)),
        ("Prepare", SlotEvent::Commanded(SlotCommand::Prepare { limits: ResourceLimits::default() })),
        ("Prepare, with other limits", SlotEvent::Commanded(SlotCommand::Prepare { limits: small() })),
        ("Unprepare", SlotEvent::Commanded(SlotCommand::Unprepare)),
        ("Drain", SlotEvent::Commanded(SlotCommand::Drain { by: None })),
        ("Undrain", SlotEvent::Commanded(SlotCommand::Undrain)),
        ("FollowDrain, begun", SlotEvent::Commanded(SlotCommand::FollowDrain { wider: Some(None) })),
        ("FollowDrain, ended", SlotEvent::Commanded(SlotCommand::FollowDrain { wider: None })),
        ("Reset", SlotEvent::Commanded(SlotCommand::Reset)),
        ("Retire", SlotEvent::Commanded(SlotCommand::Retire)),
        ("Forget", SlotEvent::Commanded(SlotCommand::Forget)),
        ("Restart", SlotEvent::Commanded(SlotCommand::Restart)),
        ("ClearOut", SlotEvent::Commanded(SlotCommand::ClearOut)),
        ("End", SlotEvent::Commanded(SlotCommand::End { bot: None, detail: "e".into() })),
        (
            "of an older generation",
            SlotEvent::Exited { generation: Generation(generation.0 - 1), note: "e".into() },
        ),
        ("of an older operation", SlotEvent::Stopped { generation, operation: Operation(operation.0 - 1) }),
    ]
}
