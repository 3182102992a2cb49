//! The slot machine against its plain reference, [`super::machine_model`]: random sequences of events are taken by both,
//! and after each the two must be in the same place.

use super::command::SlotCommand;
use super::effects::{Effect, effects_of};
use super::event::{BotSource, SlotEvent};
use super::machine::{Notice, Rejection, Transition, transition};
use super::machine_model::{
    Back, Given, Model, Said, drain_by, image, memory_mib, new_bot, nonce, seconds, seen,
};
use super::machine_words::TABLE;
use super::{Slot, SlotState, SlotTiming};
use crate::bot::machine::{Report, ReportBody, end};
use crate::bot::{BotState, EndReason, Setback};
use crate::ids::{BotId, ContainerId, Generation, Operation};
use crate::journal::Change;
use crate::ports::{Presence, ResourceLimits};
use crate::testing::sample;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use std::time::Duration;

/// The event that is meant, addressed to the slot as it is.
fn event(given: &Given, slot: &Slot, now: DateTime<Utc>) -> SlotEvent {
    let generation = Generation(slot.container_generation().0 - i64::from(given.old_generation));
    let operation = Operation(slot.operation.0 - i64::from(given.old_operation));
    let bot_id = slot.bot().map_or(BotId(-1), |bot| bot.id);
    let reason = String::from("e");
    let leave = |bot_id| SlotEvent::LeaveRequested { bot_id, reason: EndReason::LeftByRequest };
    // An even choice: the look began no later than the last change.
    let began_at = slot.changed_at + TimeDelta::milliseconds(i64::from(given.choice % 2));
    let seen = |presence| SlotEvent::Observed { generation, presence, began_at };
    match given.name {
        "assigned" => assigned(given, now),
        "pull succeeded" => SlotEvent::PullSucceeded { operation },
        "pull failed" => SlotEvent::PullFailed { operation, reason },
        "pull declined" => SlotEvent::PullDeclined { operation, reason },
        "prepared" => SlotEvent::Prepared { generation, operation, container: ContainerId("c".into()) },
        "prepare failed" => SlotEvent::PrepareFailed { generation, operation },
        "started" => SlotEvent::Started { generation, operation, container: ContainerId("c".into()) },
        "start failed" => SlotEvent::StartFailed { generation, operation, reason, retryable: true },
        "start failed for good" => SlotEvent::StartFailed { generation, operation, reason, retryable: false },
        "claimed" => SlotEvent::Claimed { generation, nonce: nonce(given) },
        "reported" => SlotEvent::Reported { generation, report: report(given, slot, now) },
        "leave requested" => leave(bot_id),
        "leave requested of another" => leave(BotId(-2)),
        "seen running" => seen(Presence::Running),
        "seen prepared" => seen(Presence::Prepared),
        "seen gone" => seen(Presence::Gone),
        "exited" => SlotEvent::Exited { generation, note: reason },
        "heartbeat lost" => SlotEvent::HeartbeatLost { generation, silent: Duration::from_secs(300) },
        "stopped" => SlotEvent::Stopped { generation, operation },
        "stop failed" => {
            SlotEvent::StopFailed { generation, operation, reason, answered: given.choice % 2 == 1 }
        }
        "woke" => SlotEvent::Woke,
        "segment arrived" => SlotEvent::SegmentArrived { generation, at: now },
        "store" => SlotEvent::Commanded(SlotCommand::Store),
        "change image" => SlotEvent::Commanded(SlotCommand::ChangeImage { image: image(given) }),
        "refresh" => SlotEvent::Commanded(SlotCommand::Refresh),
        "prepare" => {
            let limits = ResourceLimits { memory_mib: Some(memory_mib(given)), ..ResourceLimits::default() };
            SlotEvent::Commanded(SlotCommand::Prepare { limits })
        }
        "unprepare" => SlotEvent::Commanded(SlotCommand::Unprepare),
        "restart" => SlotEvent::Commanded(SlotCommand::Restart),
        "drain" => SlotEvent::Commanded(SlotCommand::Drain { by: drain_by(given) }),
        "undrain" => SlotEvent::Commanded(SlotCommand::Undrain),
        "follow a drain" => SlotEvent::Commanded(SlotCommand::FollowDrain { wider: Some(drain_by(given)) }),
        "follow no drain" => SlotEvent::Commanded(SlotCommand::FollowDrain { wider: None }),
        "reset" => SlotEvent::Commanded(SlotCommand::Reset),
        "retire" => SlotEvent::Commanded(SlotCommand::Retire),
        "forget" => SlotEvent::Commanded(SlotCommand::Forget),
        "clear out" => SlotEvent::Commanded(SlotCommand::ClearOut),
        "end" => {
            let bot = Some(bot_id).filter(|id| id.0 > 0 && given.choice.is_multiple_of(2));
            SlotEvent::Commanded(SlotCommand::End { bot, detail: reason })
        }
        "end of another" => SlotEvent::Commanded(SlotCommand::End { bot: Some(BotId(-2)), detail: reason }),
        name => panic!("no event {name}"),
    }
}

fn assigned(given: &Given, now: DateTime<Utc>) -> SlotEvent {
    let mut bot = sample::bot(i64::from(given.choice));
    let meant = new_bot(given, now);
    std::sync::Arc::make_mut(&mut bot.spec).end_at = meant.ends_at;
    let setback = Setback { failed_starts: meant.failed_starts, at: now, detail: "e".into() };
    bot.setback = Some(setback).filter(|setback| setback.failed_starts > 0);
    let source = match given.choice % 3 {
        0 => BotSource::Request { idempotency: None },
        1 => BotSource::Queue,
        _ => BotSource::Schedule,
    };
    SlotEvent::Assigned { bot: Box::new(bot), source }
}

fn report(given: &Given, slot: &Slot, at: DateTime<Utc>) -> Report {
    let taken = slot.bot().map_or(0, |bot| bot.report_seq);
    let seq = taken
        + match given.choice {
            0 => 0,
            1 => 2,
            _ => 1,
        };
    let body = match given.choice % 6 {
        0 => ReportBody::Entered(BotState::InWaitingRoom),
        1 => ReportBody::Entered(BotState::InCall),
        2 => ReportBody::Entered(BotState::Recording),
        3 => ReportBody::Entered(BotState::Leaving),
        4 => ReportBody::Ended(end(EndReason::LeftByRequest)),
        _ => ReportBody::Happened { event_type: "PARTICIPANT_JOIN".into(), data: None },
    };
    Report { seq, at, body }
}

/// What must be under way in a step, in words; each effect must carry the slot's present numbers.
fn effects_expected(step: &str) -> &'static [&'static str] {
    match step {
        "preparing" => &["prepare"],
        "pulling" | "resuming" => &["pull", "wake"],
        "starting" => &["start", "wake"],
        "retrying" | "error" | "unprepared" | "lingering" => &["wake"],
        "running" | "leaving" => &["watch", "wake"],
        "restarting" => &["stop", "wake"],
        "stopping" | "recovering" | "removing" => &["stop"],
        _ => &[],
    }
}

fn effect_seen(effect: &Effect, slot: &Slot) -> &'static str {
    let present = (slot.container_generation(), slot.operation);
    match effect {
        Effect::PullImage { operation, image } if (slot.generation, *operation) == present => {
            if *image == slot.image { "pull" } else { "pull of another image" }
        }
        Effect::PrepareContainer { generation, operation, .. } if (*generation, *operation) == present => {
            "prepare"
        }
        Effect::StartContainer { generation, operation, .. } if (*generation, *operation) == present => {
            "start"
        }
        Effect::StopContainer { generation, operation, .. } if (*generation, *operation) == present => "stop",
        Effect::WatchContainer { generation } if *generation == slot.generation => "watch",
        Effect::WakeAt(_) => "wake",
        _ => "of the past",
    }
}

/// What holds of every step that is taken, whatever the reference says.
fn keeps_the_rules(
    before: &Slot,
    name: &str,
    taken: &Transition,
    now: DateTime<Utc>,
) -> Result<(), TestCaseError> {
    let after = &taken.next;
    if after.step() != before.step() && after.step() != "retired" {
        prop_assert_eq!(after.changed_at, now);
    }
    let is_assigned = name == "assigned" || (before.step(), name) == ("restarting", "stopped");
    prop_assert_eq!(after.generation.0 - before.generation.0, i64::from(is_assigned));
    prop_assert!(after.operation >= before.operation);
    let known = effects_of(before);
    for effect in effects_of(after).iter().filter(|effect| !known.contains(effect)) {
        let operates = matches!(
            effect,
            Effect::PullImage { .. }
                | Effect::PrepareContainer { .. }
                | Effect::StartContainer { .. }
                | Effect::StopContainer { .. }
        );
        // Learning the container's name changes no operation: the stop that is under way is told nothing new.
        prop_assert!(!operates || after.operation > before.operation, "{:?}", effect);
    }
    if after.step() == "idle" && before.step() != "idle" {
        // Of a generation that waits for its image there never was a container.
        prop_assert!(name == "stopped" || before.step() == "pulling", "{}", name);
    }
    let (was, is) = (before.bot(), after.bot());
    if let (Some(was), Some(is)) = (was, is)
        && was.state.is_final()
    {
        prop_assert_eq!(was, is, "a bot that has ended stays as it is");
    }
    let concerned = |notice: &Notice| match notice {
        Notice::BotEnded(bot) | Notice::BotReturned { bot, .. } => bot.id,
    };
    let told: Vec<BotId> = taken.notices.iter().map(concerned).collect();
    let was_live = was.filter(|bot| !bot.state.is_final());
    let lives = is.filter(|bot| !bot.state.is_final());
    let ended: Vec<BotId> = was_live.filter(|_| lives.is_none()).map(|bot| bot.id).into_iter().collect();
    prop_assert_eq!(told, ended, "who ends, or is given back, is told of, once");
    if matches!(after.state, SlotState::Error { .. }) {
        prop_assert!(is.is_none());
    }
    writes_what_changed(before, taken)
}

/// Rows: a slot that changed is written with the next version, or deleted at the one it has; a bot likewise.
fn writes_what_changed(before: &Slot, taken: &Transition) -> Result<(), TestCaseError> {
    let after = &taken.next;
    let mut slot_is_written = false;
    for change in &taken.changes {
        match change {
            Change::WriteSlot(row) => {
                slot_is_written = true;
                prop_assert_eq!(&**row, after);
                prop_assert_eq!(after.version, before.version + 1);
            }
            Change::DeleteSlot { version, .. } => {
                slot_is_written = true;
                prop_assert_eq!((*version, after.step()), (before.version, "retired"));
            }
            Change::WriteBot(row) => {
                let known = before.bot().map_or(row.version, |bot| bot.version + 1);
                prop_assert_eq!(row.version, known);
                prop_assert!(after.bot().is_none_or(|bot| *bot == **row));
            }
            _ => {}
        }
    }
    let without_bot = |slot: &Slot| {
        let mut model = seen(slot);
        model.bot = None;
        model
    };
    if !slot_is_written {
        prop_assert_eq!(without_bot(before), without_bot(after));
        prop_assert_eq!((before.version, before.changed_at), (after.version, after.changed_at));
    }
    let bot_is_written = taken.changes.iter().any(|change| matches!(change, Change::WriteBot(_)));
    if !bot_is_written && after.bot().is_some() {
        prop_assert_eq!(before.bot(), after.bot());
    }
    if taken.changes.is_empty() {
        prop_assert_eq!(before, after);
    }
    Ok(())
}

/// The slot as the reference has it, and the bot that was given back: the commit puts it into the queue.
fn seen_after(taken: &Transition) -> Model {
    let given_back = taken.notices.iter().find_map(|notice| match notice {
        Notice::BotReturned { bot, crowded } => Some((bot, *crowded)),
        Notice::BotEnded(_) => None,
    });
    let queued = taken.changes.iter().find_map(|change| match change {
        Change::InsertQueueEntry(entry) => Some(entry.bot_id.0),
        _ => None,
    });
    let back = given_back.zip(queued).map(|((bot, crowded), id)| Back {
        id,
        failed_starts: bot.failed_starts(),
        crowded,
    });
    Model { back, ..seen(&taken.next) }
}

/// What leads far into a slot's life happens more often than what cuts it short.
fn row() -> impl Strategy<Value = usize> {
    let often = ["assigned", "pull succeeded", "start failed", "woke"];
    let weight = |name| if often.contains(&name) { 5 } else { 1 };
    let rows = TABLE.iter().enumerate().flat_map(|(row, (name, ..))| std::iter::repeat_n(row, weight(*name)));
    prop::sample::select(rows.collect::<Vec<_>>())
}

fn given() -> impl Strategy<Value = (Given, i64)> {
    // The clock is set back now and then, by less and by more than anybody waits for another try.
    let waits =
        prop::sample::select(vec![0, 0, 1, 1, 2, 9, 31, 121, 301, 700, 8_000, 15_000, -1, -200, -9_000]);
    (row(), 0..12_u8, any::<u8>(), waits).prop_map(|(row, age, choice, wait_s)| {
        let (name, carries, words) = TABLE[row];
        let (old_generation, old_operation) = (age == 0, age == 1);
        (Given { name, carries, words, old_generation, old_operation, choice: choice % 12 }, wait_s)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens in whatever order, the machine and the table are in the same place.
    #[test]
    fn the_machine_does_what_the_table_says(
        happenings in prop::collection::vec(given(), 1..250),
        ephemeral in any::<bool>(),
    ) {
        let timing = SlotTiming::default();
        let mut now = sample::now();
        let fresh = Slot { ephemeral, ..sample::vacant_slot(1) };
        let mut slot = fresh.clone();
        for (given, wait_s) in happenings {
            // Few lives are as short as that of a slot that is not used.
            let cuts_short = matches!(slot.state, SlotState::Idle { .. }) && matches!(given.name, "retire" | "drain");
            if cuts_short && given.choice > 0 {
                continue;
            }
            now += seconds(wait_s);
            let expected = seen(&slot).say(&given, now);
            let decided = transition(&slot, event(&given, &slot, now), &timing, now);
            let said = match &decided {
                Err(Rejection::Stale { .. }) => Said::Stale,
                Err(Rejection::Illegal { .. }) => Said::Illegal,
                Err(Rejection::Fenced) => Said::Fenced,
                Err(Rejection::Gap { .. }) => Said::Gap,
                Ok(taken) if taken.changes.is_empty() => Said::Unchanged,
                Ok(taken) => Said::Changed(Box::new(seen_after(taken))),
            };
            let place = format!("{} + {given:?}", slot.step());
            match (&said, &expected) {
                // Of a slot that is gone nothing else matters.
                (Said::Changed(is), Said::Changed(should)) if should.step == "retired" => {
                    prop_assert_eq!((is.step, is.back), (should.step, should.back), "{}", place);
                }
                _ => prop_assert_eq!(&said, &expected, "{}", place),
            }
            let Ok(taken) = decided else { continue };
            keeps_the_rules(&slot, given.name, &taken, now)?;
            let looks_at = effects_of(&taken.next).into_iter().find_map(|effect| match effect {
                Effect::WakeAt(at) => Some(at),
                _ => None,
            });
            prop_assert_eq!(looks_at, seen(&taken.next).looks_at(), "{}", place);
            let under_way: Vec<_> =
                effects_of(&taken.next).iter().map(|effect| effect_seen(effect, &taken.next)).collect();
            prop_assert_eq!(&under_way[..], effects_expected(taken.next.step()), "{}", place);
            slot = if taken.next.step() == "retired" { fresh.clone() } else { taken.next };
        }
    }
}

/// What comes of an event so many seconds after noon.
fn take(slot: &Slot, event: SlotEvent, after_s: i64) -> Transition {
    let now = sample::now() + TimeDelta::seconds(after_s);
    transition(slot, event, &SlotTiming::default(), now).expect("legal")
}

/// A slot that waits for its image, and one whose container starts.
fn deploying() -> [Slot; 2] {
    let assigned = SlotEvent::Assigned { bot: Box::new(sample::bot(1)), source: BotSource::Queue };
    let pulling = take(&sample::idle_slot(1), assigned, 0).next;
    let starting = take(&pulling, SlotEvent::PullSucceeded { operation: pulling.operation }, 0).next;
    [pulling, starting]
}

#[test]
fn a_start_is_tried_three_times_with_a_wait_between() {
    let fail = |slot: &Slot| SlotEvent::StartFailed {
        generation: slot.generation,
        operation: slot.operation,
        reason: "e".into(),
        retryable: true,
    };
    let [pulling, mut slot] = deploying();
    assert_eq!(pulling.bot().map(|bot| bot.version), Some(2));
    for after_s in [0, 2] {
        slot = take(&slot, fail(&slot), after_s).next;
        assert_eq!(slot.step(), "retrying");
        assert_eq!(take(&slot, SlotEvent::Woke, after_s + 1).next, slot, "not yet");
        slot = take(&slot, SlotEvent::Woke, after_s + 2).next;
        assert_eq!(slot.step(), "starting");
    }
    let given_up = take(&slot, fail(&slot), 4);
    assert!(matches!(&given_up.notices[..], [Notice::BotReturned { .. }]), "{:?}", given_up.notices);
}

#[test]
fn a_bot_that_does_not_start_in_time_is_told_what_it_waited_for() {
    let words = deploying().map(|slot| {
        let overdue = take(&slot, SlotEvent::Woke, 100_000);
        let [Notice::BotReturned { bot, .. }] = &overdue.notices[..] else { panic!("{:?}", overdue.notices) };
        bot.setback.as_ref().map(|setback| setback.detail.clone()).unwrap_or_default()
    });
    let image = sample::idle_slot(1).image;
    assert_eq!(
        words,
        [format!("image {image} was not there in time"), "the container did not start in time".into()]
    );
}

#[test]
fn a_bot_leaves_at_its_end_or_after_the_longest_stay() {
    const LONG: i64 = 4 * 3_600;
    for (end_s, reason) in [(LONG, EndReason::EndTime), (LONG + 1, EndReason::MaxDuration)] {
        let mut slot = sample::busy_slot(1);
        let SlotState::Busy { bot, .. } = &mut slot.state else { panic!("busy") };
        std::sync::Arc::make_mut(&mut bot.spec).end_at = Some(sample::now() + TimeDelta::seconds(end_s));
        let leaving = take(&slot, SlotEvent::Woke, LONG).next;
        assert_eq!(leaving.bot().and_then(|bot| bot.leave), Some(reason));
    }
}

#[test]
fn a_bot_that_says_again_that_it_leaves_is_waited_for_no_longer() {
    let busy = sample::busy_slot(1);
    let leave = SlotEvent::LeaveRequested { bot_id: BotId(1), reason: EndReason::LeftByRequest };
    let leaving = take(&busy, leave, 0).next;
    let body = ReportBody::Entered(BotState::Leaving);
    let report = Report { seq: 4, at: sample::now(), body };
    let said = take(&leaving, SlotEvent::Reported { generation: leaving.generation, report }, 60).next;
    let until = |slot: &Slot| effects_of(slot).into_iter().find(|effect| matches!(effect, Effect::WakeAt(_)));
    assert_eq!(until(&said), until(&leaving));
}
