//! The slot machine against a plain reference: a table of words, one for each step and event, and what each word means.
//! Random sequences of events are taken by both, and after each the two must be in the same place.

use super::command::SlotCommand;
use super::effects::{Effect, effects_of};
use super::event::{BotSource, SlotEvent};
use super::machine::{Notice, Rejection, Transition, transition};
use super::{BusyStep, Slot, SlotState, SlotTiming};
use crate::bot::machine::{Report, ReportBody, end};
use crate::bot::{Bot, BotState, EndReason};
use crate::ids::{BotId, ContainerId, Generation, Operation};
use crate::journal::Change;
use crate::ports::Presence;
use crate::testing::sample;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use std::time::Duration;
use uuid::Uuid;

/// The columns of the table.
const STEPS: [&str; 10] = [
    "idle",
    "pulling",
    "starting",
    "retrying",
    "running",
    "leaving",
    "stopping",
    "error",
    "recovering",
    "retired",
];

/// `~` stale, `-` cannot happen, `.` changes nothing, else a word of [`Model::act`]. `g` and `o` say that the event
/// carries a generation and an operation.
const TABLE: &[(&str, &str, &str)] = &[
    ("assigned", "", "assign - - - - - - - - -"),
    ("pull succeeded", "o", "- start ~ ~ - - - ~ ~ -"),
    ("pull failed", "o", "- failed ~ ~ - - - ~ ~ -"),
    ("started", "g", "~ run run run learn learn ~ ~ ~ -"),
    ("start failed", "go", "- ~ retry ~ ~ ~ - ~ ~ -"),
    ("start failed for good", "go", "- ~ failed ~ ~ ~ - ~ ~ -"),
    ("claimed", "g", "~ run run run claim claim ~ ~ ~ -"),
    ("reported", "g", "~ - - - report report repeat ~ ~ -"),
    ("leave requested", "", "~ cancel cancel cancel leave note . ~ ~ -"),
    ("leave requested of another", "", "~ ~ ~ ~ ~ ~ ~ ~ ~ -"),
    ("seen running", "g", ". . run run . . . . . -"),
    ("seen gone", "g", ". . . . gone gone . . . -"),
    ("exited", "g", ". failed failed failed crash crash . . . -"),
    ("heartbeat lost", "g", "~ - - - lost lost ~ ~ ~ -"),
    ("stopped", "go", ". - - - - - free ~ recovered -"),
    ("stop failed", "go", "- - - - - - unstoppable ~ again -"),
    ("woke", "", ". due due due due due . due . -"),
    ("segment arrived", "g", "~ . . . . segment . ~ ~ -"),
    ("store", "c", "store . . . . . . . . -"),
    ("change image", "c", "image - - - - - - - - -"),
    ("drain", "c", "retire drain drain drain drain drain drain drain drain -"),
    ("undrain", "c", "undrain undrain undrain undrain undrain undrain undrain undrain undrain -"),
    ("reset", "c", ". - - - - - - recover . -"),
    ("retire", "c", "retire - - - - - - - - -"),
    ("end", "c", "- end end end end end . - - -"),
];

/// What a slot comes down to.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    step: &'static str,
    generation: i64,
    operation: i64,
    stored: bool,
    draining: bool,
    ephemeral: bool,
    image: String,
    bot: Option<ModelBot>,
    container: Option<String>,
    /// Failed starts, or failed recoveries that were answered.
    attempts: u32,
    /// Deadline of a start.
    deadline: Option<DateTime<Utc>>,
    /// When the step looks again.
    wake_at: Option<DateTime<Utc>>,
    /// When patience with a leaving bot ends whatever arrives.
    latest: Option<DateTime<Utc>>,
    /// Since when the slot is in error.
    since: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq)]
struct ModelBot {
    id: i64,
    state: BotState,
    ends_at: Option<DateTime<Utc>>,
    end: Option<EndReason>,
    nonce: Option<Uuid>,
    seq: i64,
    leave: Option<EndReason>,
}

/// What of an event matters.
#[derive(Debug, Clone)]
struct Given {
    name: &'static str,
    carries: &'static str,
    words: &'static str,
    old_generation: bool,
    old_operation: bool,
    /// A free choice, with a meaning of its own in each event.
    choice: u8,
}

/// What the reference says.
#[derive(Debug, PartialEq)]
enum Said {
    Stale,
    Illegal,
    Fenced,
    Gap,
    Unchanged,
    Changed(Box<Model>),
}

fn seconds(count: i64) -> TimeDelta {
    TimeDelta::seconds(count)
}

impl Model {
    fn say(&self, given: &Given, now: DateTime<Utc>) -> Said {
        let is_old = given.carries.contains('g') && given.old_generation
            || given.carries.contains('o') && given.old_operation;
        let column = STEPS.iter().position(|step| *step == self.step).expect("a step");
        let word = given.words.split(' ').nth(column).expect("a word");
        match word {
            _ if is_old => Said::Stale,
            _ if given.carries == "c" && self.step == "idle" && !self.stored && given.name != "store" => {
                Said::Illegal
            }
            "~" => Said::Stale,
            "-" => Said::Illegal,
            "." => Said::Unchanged,
            "store" if self.stored => Said::Unchanged,
            word => self.clone().act(word, given, now),
        }
    }

    fn act(mut self, word: &str, given: &Given, now: DateTime<Utc>) -> Said {
        self.stored = true;
        match word {
            "assign" => {
                self.generation += 1;
                self.bot = Some(new_bot(given, now));
                (self.attempts, self.deadline) = (0, Some(now + seconds(7_200)));
                self.wake_at = self.deadline;
                self.operates("pulling")
            }
            "start" => {
                self.deadline = Some(now + seconds(600));
                self.wake_at = self.deadline;
                self.operates("starting")
            }
            "retry" if self.attempts + 1 < 3 => {
                (self.attempts, self.wake_at) = (self.attempts + 1, Some(now + seconds(2)));
                self.goes("retrying")
            }
            "retry" | "failed" => self.fails_to_deploy(now),
            "run" => self.runs(given, now),
            "learn" if self.container.is_some() => Said::Unchanged,
            "learn" => {
                self.container = Some("c".into());
                self.goes_on()
            }
            "claim" => self.claims(given),
            "report" | "repeat" => self.reports(word, given, now),
            "cancel" => self.stops(Some(EndReason::Cancelled)),
            "end" => self.stops(Some(EndReason::Internal)),
            "leave" => self.leaves(EndReason::LeftByRequest, now),
            "note" if self.bot().leave.is_some() => Said::Unchanged,
            "note" => {
                self.bot().leave = Some(EndReason::LeftByRequest);
                self.goes_on()
            }
            "gone" if given.choice.is_multiple_of(2) => Said::Unchanged,
            "gone" | "crash" => {
                let reason = self.bot().leave.unwrap_or(EndReason::Crashed);
                self.stops(Some(reason))
            }
            "lost" => self.stops(Some(EndReason::HeartbeatLost)),
            "free" => self.frees(),
            "recovered" if self.attempts >= 3 => self.goes("retired"),
            "recovered" => self.frees(),
            "unstoppable" => {
                self.bot = None;
                (self.attempts, self.since) = (u32::from(given.choice % 2), Some(now));
                (self.wake_at, self.deadline, self.latest) = (Some(now + seconds(10)), None, None);
                self.goes("error")
            }
            "again" => {
                self.attempts += u32::from(given.choice % 2);
                let is_long = self.since.is_some_and(|since| now - since >= seconds(300));
                let wait = if is_long { 300 } else { 10 * i64::from(self.attempts.clamp(1, 6)) };
                self.wake_at = Some(now + seconds(wait));
                self.goes("error")
            }
            "recover" => {
                self.wake_at = None;
                self.operates("recovering")
            }
            "due" => self.wakes(now),
            "segment" => {
                let longer = (now + seconds(30)).min(self.latest.expect("leaves"));
                if longer > self.wake_at.expect("leaves") {
                    self.wake_at = Some(longer);
                    self.goes("leaving")
                } else {
                    self.wakes(now)
                }
            }
            "store" | "image" | "drain" | "undrain" | "retire" => self.obeys(word, given),
            word => panic!("no word {word}"),
        }
    }

    fn obeys(mut self, word: &str, given: &Given) -> Said {
        let step = self.step;
        match word {
            "image" if self.image == image(given) => Said::Unchanged,
            "image" => {
                self.image = image(given);
                self.goes(step)
            }
            "drain" | "undrain" if self.draining == (word == "drain") => Said::Unchanged,
            "drain" | "undrain" => {
                self.draining = word == "drain";
                self.goes(step)
            }
            "retire" => self.goes("retired"),
            _ => self.goes(step),
        }
    }

    fn bot(&mut self) -> &mut ModelBot {
        self.bot.as_mut().expect("holds a bot")
    }

    fn goes(mut self, step: &'static str) -> Said {
        self.step = step;
        Said::Changed(Box::new(self))
    }

    fn operates(mut self, step: &'static str) -> Said {
        self.operation += 1;
        self.goes(step)
    }

    fn goes_on(self) -> Said {
        Said::Changed(Box::new(self))
    }

    fn ends(&mut self, reason: Option<EndReason>) {
        let bot = self.bot();
        if let Some(reason) = reason.filter(|_| !bot.state.is_final()) {
            (bot.state, bot.end) = (reason.outcome().state(), Some(reason));
        }
    }

    fn stops(mut self, reason: Option<EndReason>) -> Said {
        self.ends(reason);
        (self.attempts, self.deadline, self.wake_at, self.latest) = (0, None, None, None);
        self.operates("stopping")
    }

    fn frees(mut self) -> Said {
        (self.bot, self.container, self.attempts) = (None, None, 0);
        (self.deadline, self.wake_at, self.latest, self.since) = (None, None, None, None);
        let step = if self.draining || self.ephemeral { "retired" } else { "idle" };
        self.goes(step)
    }

    fn fails_to_deploy(mut self, now: DateTime<Utc>) -> Said {
        (self.bot, self.attempts, self.deadline) = (None, 0, None);
        (self.since, self.wake_at) = (Some(now), Some(now + seconds(10)));
        self.goes("error")
    }

    fn runs(mut self, given: &Given, now: DateTime<Utc>) -> Said {
        let longest = now + seconds(4 * 3_600);
        self.bot().state = BotState::JoiningCall;
        self.wake_at = Some(self.bot().ends_at.map_or(longest, |at| at.min(longest)));
        (self.deadline, self.attempts) = (None, 0);
        match given.name {
            "claimed" => self.bot().nonce = Some(nonce(given)),
            "started" => self.container = Some("c".into()),
            _ => {}
        }
        self.goes("running")
    }

    fn claims(mut self, given: &Given) -> Said {
        match self.bot().nonce {
            Some(known) if known == nonce(given) => Said::Unchanged,
            Some(_) => Said::Fenced,
            None => {
                self.bot().nonce = Some(nonce(given));
                self.goes_on()
            }
        }
    }

    /// A report that is due, or one that was taken (choice 0), or one too far ahead (choice 1).
    fn reports(mut self, word: &str, given: &Given, now: DateTime<Utc>) -> Said {
        match (word, given.choice) {
            ("repeat", 0) => return Said::Unchanged,
            ("repeat", _) => return Said::Stale,
            _ if self.bot().nonce.is_none() => return Said::Illegal,
            (_, 0) => return Said::Unchanged,
            (_, 1) => return Said::Gap,
            _ => self.bot().seq += 1,
        }
        let ranks = [BotState::JoiningCall, BotState::InWaitingRoom, BotState::InCall, BotState::Recording];
        let rank = |state| ranks.iter().position(|other| *other == state).unwrap_or(ranks.len());
        let was = self.bot().state;
        match given.choice % 6 {
            0..=2 => {
                let to = ranks[usize::from(given.choice % 6) + 1];
                if rank(to) > rank(was) || (was, to) == (BotState::Recording, BotState::InCall) {
                    self.bot().state = to;
                }
                self.goes_on()
            }
            3 => {
                self.bot().state = BotState::Leaving;
                if self.step == "running" { self.waits(now) } else { self.goes_on() }
            }
            4 => {
                let asked = self.bot().leave;
                let reason = asked.unwrap_or(EndReason::LeftByRequest);
                self.stops(Some(reason))
            }
            _ => self.goes_on(),
        }
    }

    fn waits(mut self, now: DateTime<Utc>) -> Said {
        (self.wake_at, self.latest) = (Some(now + seconds(120)), Some(now + seconds(900)));
        self.goes("leaving")
    }

    fn leaves(mut self, reason: EndReason, now: DateTime<Utc>) -> Said {
        self.bot().leave.get_or_insert(reason);
        self.waits(now)
    }

    fn wakes(mut self, now: DateTime<Utc>) -> Said {
        let is_over = self.deadline.is_some_and(|at| now >= at);
        let is_awake = self.wake_at.is_some_and(|at| now >= at);
        match self.step {
            "pulling" | "starting" | "retrying" if is_over => self.fails_to_deploy(now),
            "retrying" if is_awake => {
                self.wake_at = self.deadline;
                self.operates("starting")
            }
            "running" if is_awake => {
                let is_end = self.bot().ends_at.is_some_and(|at| now >= at);
                self.leaves(if is_end { EndReason::EndTime } else { EndReason::MaxDuration }, now)
            }
            "leaving" if is_awake => {
                let reason = self.bot().leave.unwrap_or(EndReason::LeftByRequest);
                self.stops(Some(reason))
            }
            "error" if is_awake => {
                self.wake_at = None;
                self.operates("recovering")
            }
            _ => Said::Unchanged,
        }
    }
}

fn new_bot(given: &Given, now: DateTime<Utc>) -> ModelBot {
    ModelBot {
        id: i64::from(given.choice),
        state: BotState::Deploying,
        ends_at: given.choice.is_multiple_of(3).then(|| now + seconds(900)),
        end: None,
        nonce: None,
        seq: 0,
        leave: None,
    }
}

fn nonce(given: &Given) -> Uuid {
    Uuid::from_u128(u128::from(given.choice % 2))
}

fn image(given: &Given) -> String {
    format!("image:{}", given.choice % 3)
}

/// The event that is meant, addressed to the slot as it is.
fn event(given: &Given, slot: &Slot, now: DateTime<Utc>) -> SlotEvent {
    let generation = Generation(slot.generation.0 - i64::from(given.old_generation));
    let operation = Operation(slot.operation.0 - i64::from(given.old_operation));
    let bot_id = slot.bot().map_or(BotId(-1), |bot| bot.id);
    let reason = String::from("e");
    let leave = |bot_id| SlotEvent::LeaveRequested { bot_id, reason: EndReason::LeftByRequest };
    let seen = |presence, began_at| SlotEvent::Observed { generation, presence, began_at };
    match given.name {
        "assigned" => assigned(given, now),
        "pull succeeded" => SlotEvent::PullSucceeded { operation },
        "pull failed" => SlotEvent::PullFailed { operation, reason },
        "started" => SlotEvent::Started { generation, operation, container: ContainerId("c".into()) },
        "start failed" => SlotEvent::StartFailed { generation, operation, reason, retryable: true },
        "start failed for good" => SlotEvent::StartFailed { generation, operation, reason, retryable: false },
        "claimed" => SlotEvent::Claimed { generation, nonce: nonce(given) },
        "reported" => SlotEvent::Reported { generation, report: report(given, slot, now) },
        "leave requested" => leave(bot_id),
        "leave requested of another" => leave(BotId(-2)),
        "seen running" => seen(Presence::Running, now),
        // An even choice: the look began no later than the last change.
        "seen gone" => {
            let later = i64::from(given.choice % 2);
            seen(Presence::Gone, slot.changed_at + TimeDelta::milliseconds(later))
        }
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
        "drain" => SlotEvent::Commanded(SlotCommand::Drain),
        "undrain" => SlotEvent::Commanded(SlotCommand::Undrain),
        "reset" => SlotEvent::Commanded(SlotCommand::Reset),
        "retire" => SlotEvent::Commanded(SlotCommand::Retire),
        "end" => SlotEvent::Commanded(SlotCommand::End { detail: reason }),
        name => panic!("no event {name}"),
    }
}

fn assigned(given: &Given, now: DateTime<Utc>) -> SlotEvent {
    let mut bot = sample::bot(i64::from(given.choice));
    bot.spec.end_at = new_bot(given, now).ends_at;
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

/// The slot as the reference has it.
fn seen(slot: &Slot) -> Model {
    let effects = effects_of(slot);
    let wake_at = effects.iter().find_map(|effect| match effect {
        Effect::WakeAt(at) => Some(*at),
        _ => None,
    });
    let mut model = Model {
        step: slot.step(),
        generation: slot.generation.0,
        operation: slot.operation.0,
        stored: slot.version > 0,
        draining: slot.draining,
        ephemeral: slot.ephemeral,
        image: slot.image.clone(),
        bot: slot.bot().map(seen_bot),
        container: None,
        attempts: 0,
        deadline: None,
        wake_at,
        latest: None,
        since: None,
    };
    match &slot.state {
        SlotState::Deploying { attempts, deadline, .. } => {
            (model.attempts, model.deadline) = (*attempts, Some(*deadline));
        }
        SlotState::Busy { container, step, .. } => {
            model.container = container.clone().map(|container| container.0);
            if let BusyStep::Leaving { latest, .. } = step {
                model.latest = Some(*latest);
            }
        }
        SlotState::Error { attempts, since, container, .. } => {
            model.container = container.clone().map(|container| container.0);
            (model.attempts, model.since) = (*attempts, Some(*since));
        }
        SlotState::Idle { .. } | SlotState::Retired => {}
    }
    model
}

fn seen_bot(bot: &Bot) -> ModelBot {
    ModelBot {
        id: bot.id.0,
        state: bot.state,
        ends_at: bot.spec.end_at,
        end: bot.end.as_ref().map(|end| end.reason),
        nonce: bot.nonce,
        seq: bot.report_seq,
        leave: bot.leave,
    }
}

/// What must be under way in a step, in words; each effect must carry the slot's present numbers.
fn effects_expected(step: &str) -> &'static [&'static str] {
    match step {
        "pulling" => &["pull", "wake"],
        "starting" => &["start", "wake"],
        "retrying" | "error" => &["wake"],
        "running" | "leaving" => &["watch", "wake"],
        "stopping" | "recovering" => &["stop"],
        _ => &[],
    }
}

fn effect_seen(effect: &Effect, slot: &Slot) -> &'static str {
    let present = (slot.generation, slot.operation);
    match effect {
        Effect::PullImage { operation, image } if (slot.generation, *operation) == present => {
            if *image == slot.image { "pull" } else { "pull of another image" }
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
fn keeps_the_rules(before: &Slot, name: &str, taken: &Transition) -> Result<(), TestCaseError> {
    let after = &taken.next;
    prop_assert_eq!(after.generation.0 - before.generation.0, i64::from(name == "assigned"));
    prop_assert!(after.operation >= before.operation);
    let known = effects_of(before);
    for effect in effects_of(after).iter().filter(|effect| !known.contains(effect)) {
        let operates = matches!(
            effect,
            Effect::PullImage { .. } | Effect::StartContainer { .. } | Effect::StopContainer { .. }
        );
        // Learning the container's name changes no operation: the stop that is under way is told nothing new.
        prop_assert!(!operates || after.operation > before.operation, "{:?}", effect);
    }
    if after.step() == "idle" && before.step() != "idle" {
        prop_assert_eq!(name, "stopped");
    }
    let (was, is) = (before.bot(), after.bot());
    if let (Some(was), Some(is)) = (was, is)
        && was.state.is_final()
    {
        prop_assert_eq!(was, is, "a bot that has ended stays as it is");
    }
    let told: Vec<BotId> = taken.notices.iter().map(|Notice::BotEnded(bot)| bot.id).collect();
    let was_live = was.filter(|bot| !bot.state.is_final());
    let lives = is.filter(|bot| !bot.state.is_final());
    let ended: Vec<BotId> = was_live.filter(|_| lives.is_none()).map(|bot| bot.id).into_iter().collect();
    prop_assert_eq!(told, ended, "who ends is told of, once");
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

fn given() -> impl Strategy<Value = (Given, i64)> {
    let waits = prop::sample::select(vec![0, 0, 1, 1, 2, 9, 31, 121, 301, 700, 8_000, 15_000]);
    (0..TABLE.len(), 0..12_u8, any::<u8>(), waits).prop_map(|(row, age, choice, wait_s)| {
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
            let cuts_short = slot.step() == "idle" && matches!(given.name, "retire" | "drain");
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
                Ok(taken) => Said::Changed(Box::new(seen(&taken.next))),
            };
            let place = format!("{} + {given:?}", slot.step());
            match (&said, &expected) {
                // Of a slot that is gone nothing else matters.
                (Said::Changed(is), Said::Changed(should)) if should.step == "retired" => {
                    prop_assert_eq!(is.step, should.step, "{}", place);
                }
                _ => prop_assert_eq!(&said, &expected, "{}", place),
            }
            let Ok(taken) = decided else { continue };
            keeps_the_rules(&slot, given.name, &taken)?;
            let under_way: Vec<_> =
                effects_of(&taken.next).iter().map(|effect| effect_seen(effect, &taken.next)).collect();
            prop_assert_eq!(&under_way[..], effects_expected(taken.next.step()), "{}", place);
            slot = if taken.next.step() == "retired" { fresh.clone() } else { taken.next };
        }
    }
}
