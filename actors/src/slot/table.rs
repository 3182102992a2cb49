//! Writes the whole state × event table to `docs/slot-machine.md`, and fails where the committed page differs, so
//! that the page cannot drift from the machine.

use super::command::SlotCommand;
use super::event::{BotSource, SlotEvent};
use super::machine::{Notice, Rejection, transition};
use super::{BusyStep, DeployStep, RecoveryStep, Slot, SlotState, SlotTiming};
use crate::bot::machine::{Report, ReportBody, end};
use crate::bot::{BotState, EndReason, Setback};
use crate::ids::{ContainerId, Generation, Operation};
use crate::ports::Presence;
use crate::slot::effects::effects_of;
use crate::testing::sample;
use chrono::TimeDelta;
use std::fmt::Write;
use std::time::Duration;
use uuid::Uuid;

fn states() -> Vec<(&'static str, Slot)> {
    let busy = sample::busy_slot(1);
    let past = sample::now() - TimeDelta::seconds(1);
    let bot = busy.bot().cloned().map(Box::new).unwrap_or_else(|| Box::new(sample::bot(1)));
    let fresh = {
        let mut fresh = bot.clone();
        (fresh.state, fresh.nonce, fresh.report_seq) = (BotState::Deploying, None, 0);
        fresh
    };
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
    let deploying = |step| SlotState::Deploying { bot: fresh.clone(), step, attempts: 0, deadline: past };
    let container = Some(ContainerId("c".into()));
    let error = |step| SlotState::Error {
        reason: "no room".into(),
        attempts: 0,
        since: sample::now(),
        container: container.clone(),
        step,
    };
    let running = |bot, container, step| SlotState::Busy { bot, container, step };
    vec![
        ("idle", sample::idle_slot(1)),
        ("deploying, pulling", with(deploying(DeployStep::Pulling))),
        ("deploying, starting", with(deploying(DeployStep::Starting))),
        ("deploying, retrying", with(deploying(DeployStep::Retrying { at: past }))),
        (
            "deploying, pulling; the second slot",
            with(SlotState::Deploying { bot: again, step: DeployStep::Pulling, attempts: 0, deadline: past }),
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
            Slot { draining: true, ..with(running(gone, container.clone(), BusyStep::Stopping)) },
        ),
        ("error, waiting", with(error(RecoveryStep::Waiting { until: past }))),
        ("error, stopping", with(error(RecoveryStep::Stopping))),
        ("error, stopping; ephemeral", Slot { ephemeral: true, ..with(error(RecoveryStep::Stopping)) }),
        ("retired", with(SlotState::Retired)),
    ]
}

fn events(slot: &Slot) -> Vec<(&'static str, SlotEvent)> {
    let (generation, operation) = (slot.generation, slot.operation);
    let bot_id = slot.bot().map_or(crate::ids::BotId(1), |bot| bot.id);
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
        ("Drain", SlotEvent::Commanded(SlotCommand::Drain { by: None })),
        ("Undrain", SlotEvent::Commanded(SlotCommand::Undrain)),
        ("Reset", SlotEvent::Commanded(SlotCommand::Reset)),
        ("Retire", SlotEvent::Commanded(SlotCommand::Retire)),
        ("ClearOut", SlotEvent::Commanded(SlotCommand::ClearOut)),
        ("End", SlotEvent::Commanded(SlotCommand::End { detail: "e".into() })),
        (
            "of an older generation",
            SlotEvent::Exited { generation: Generation(generation.0 - 1), note: "e".into() },
        ),
        ("of an older operation", SlotEvent::Stopped { generation, operation: Operation(operation.0 - 1) }),
    ]
}

fn label(slot: &Slot) -> &'static str {
    match &slot.state {
        SlotState::Idle { .. } => "idle",
        SlotState::Deploying { step: DeployStep::Pulling, .. } => "pulling",
        SlotState::Deploying { step: DeployStep::Starting, .. } => "starting",
        SlotState::Deploying { step: DeployStep::Retrying { .. }, .. } => "retrying",
        SlotState::Busy { step: BusyStep::Running { .. }, .. } => "running",
        SlotState::Busy { step: BusyStep::Leaving { .. }, .. } => "leaving",
        SlotState::Busy { step: BusyStep::Stopping, .. } => "stopping",
        SlotState::Error { step: RecoveryStep::Waiting { .. }, .. } => "error",
        SlotState::Error { step: RecoveryStep::Stopping, .. } => "recovering",
        SlotState::Retired => "retired",
    }
}

fn cell(slot: &Slot, event: SlotEvent) -> String {
    match transition(slot, event, &SlotTiming::default(), sample::now()) {
        Err(Rejection::Stale { .. }) => "stale".to_owned(),
        Err(Rejection::Illegal { .. }) => "–".to_owned(),
        Err(Rejection::Fenced) => "fenced".to_owned(),
        Err(Rejection::Gap { .. }) => "gap".to_owned(),
        Ok(transition) if transition.changes.is_empty() => "·".to_owned(),
        Ok(transition) => {
            let ended = transition.notices.iter().find_map(|notice| match notice {
                Notice::BotEnded(bot) => bot.end.as_ref().map(|end| format!(" ({})", end.reason.as_str())),
                Notice::BotReturned { .. } => Some(" (back to the queue)".to_owned()),
            });
            format!("**{}**{}", label(&transition.next), ended.unwrap_or_default())
        }
    }
}

fn page() -> String {
    let mut page = String::from(
        "# The slot machine\n\n\
         Written by a test from `actors/src/slot/machine.rs`; do not edit. `./dev test` says when it is out of date,\n\
         and `UPDATE_DOCS=1 ./dev test` writes it anew.\n\n\
         Each cell says what an event leads to: a **state** (with the reason where a bot ends), `·` taken and nothing\n\
         changes, `stale` or `fenced` refused because it belongs to the past or to another process, `–` cannot happen.\n\
         All deadlines of the states shown here have passed, and outcomes carry the present generation and operation,\n\
         unless the line says otherwise.\n",
    );
    let states = states();
    for group in states.chunks(4) {
        let _ = write!(page, "\n| event |");
        for (name, _) in group {
            let _ = write!(page, " {name} |");
        }
        let _ = write!(page, "\n|---|{}\n", "---|".repeat(group.len()));
        let names: Vec<&str> = events(&group[0].1).into_iter().map(|(name, _)| name).collect();
        for (row, name) in names.iter().enumerate() {
            let _ = write!(page, "| {name} |");
            for (_, slot) in group {
                let event = events(slot).swap_remove(row).1;
                let _ = write!(page, " {} |", cell(slot, event));
            }
            page.push('\n');
        }
    }
    page.push_str("\n## What is under way in each state\n\n| state | effects |\n|---|---|\n");
    for (name, slot) in &states {
        let effects: Vec<String> = effects_of(slot)
            .iter()
            .map(|effect| format!("{effect:?}").chars().take_while(|c| c.is_alphanumeric()).collect())
            .collect();
        let _ = writeln!(
            page,
            "| {name} | {} |",
            if effects.is_empty() { "none".into() } else { effects.join(", ") }
        );
    }
    page
}

#[test]
fn the_page_is_what_the_machine_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/slot-machine.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).expect("docs/slot-machine.md can be written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/slot-machine.md is out of date: UPDATE_DOCS=1 ./dev test writes it anew"
    );
}

#[test]
fn every_transition_keeps_the_rules() {
    for (name, slot) in states() {
        for (event_name, event) in events(&slot) {
            let Ok(transition) = transition(&slot, event, &SlotTiming::default(), sample::now()) else {
                continue;
            };
            let (before, after) = (&slot, &transition.next);
            let context = format!("{name} + {event_name}");
            let grew = after.generation.0 - before.generation.0;
            assert_eq!(
                grew,
                i64::from(event_name == "Assigned"),
                "{context}: generation grows at assignments only"
            );
            assert!(after.operation >= before.operation, "{context}: operations are counted up");
            let new_operation = effects_of(after).iter().any(|effect| {
                !effects_of(before).contains(effect) && format!("{effect:?}").contains("operation")
            });
            assert!(
                !new_operation || after.operation > before.operation,
                "{context}: a new effect has a new number"
            );
            if label(after) == "idle" && label(before) != "idle" {
                // Of a generation that waits for its image there never was a container.
                let is_known_gone = event_name == "Stopped" || label(before) == "pulling";
                assert!(is_known_gone, "{context}: idle only when the container is known gone");
            }
            if matches!(after.state, SlotState::Error { .. })
                && before.bot().is_some_and(|bot| !bot.state.is_final())
            {
                assert!(
                    !transition.notices.is_empty(),
                    "{context}: the commit that enters error ends the bot or gives it back"
                );
            }
        }
    }
}
