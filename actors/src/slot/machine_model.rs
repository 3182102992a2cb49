//! A plain reference of the slot machine: what each word of its table means, [`super::machine_words`].

use super::machine_words::STEPS;
use super::preparation::Preparation;
use super::{BusyStep, DeployStep, RecoveryStep, Slot, SlotState, SlotTiming};
use crate::backoff::spread;
use crate::bot::{Bot, BotState, EndReason};
use crate::testing::sample;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// What a slot comes down to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Model {
    pub(super) step: &'static str,
    pub(super) generation: i64,
    pub(super) operation: i64,
    pub(super) stored: bool,
    /// Its own drain, and that of what it is part of, each with the time when a bot that is still there is asked to leave.
    pub(super) own_drain: Option<Option<DateTime<Utc>>>,
    pub(super) wider_drain: Option<Option<DateTime<Utc>>>,
    pub(super) ephemeral: bool,
    pub(super) image: String,
    pub(super) bot: Option<ModelBot>,
    pub(super) container: Option<String>,
    /// Memory of the container that is made ahead of need; `None`: none is wanted.
    pub(super) ahead_mib: Option<u32>,
    /// Failed starts, preparations or removals, or failed recoveries that were answered.
    pub(super) attempts: u32,
    /// Deadline of a start.
    pub(super) deadline: Option<DateTime<Utc>>,
    /// When the step looks again, drained or not.
    pub(super) wake_at: Option<DateTime<Utc>>,
    /// When patience with a leaving bot ends whatever arrives.
    pub(super) latest: Option<DateTime<Utc>>,
    /// Since when the slot is in error.
    pub(super) since: Option<DateTime<Utc>>,
    /// The bot that this step gave back to the queue.
    pub(super) back: Option<Back>,
}

/// A bot that is in the queue again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Back {
    pub(super) id: i64,
    pub(super) failed_starts: u32,
    /// Because too many wait for the image.
    pub(super) crowded: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ModelBot {
    pub(super) id: i64,
    pub(super) state: BotState,
    pub(super) ends_at: Option<DateTime<Utc>>,
    pub(super) end: Option<EndReason>,
    pub(super) nonce: Option<Uuid>,
    pub(super) seq: i64,
    pub(super) leave: Option<EndReason>,
    pub(super) failed_starts: u32,
}

/// What of an event matters.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) name: &'static str,
    pub(super) carries: &'static str,
    pub(super) words: &'static str,
    pub(super) old_generation: bool,
    pub(super) old_operation: bool,
    /// A free choice, with a meaning of its own in each event.
    pub(super) choice: u8,
}

/// What the reference says.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    Stale,
    Illegal,
    Fenced,
    Gap,
    Unchanged,
    Changed(Box<Model>),
}

pub(super) fn seconds(count: i64) -> TimeDelta {
    TimeDelta::seconds(count)
}

impl Model {
    pub(super) fn say(&self, given: &Given, now: DateTime<Utc>) -> Said {
        let is_old = given.carries.contains('g') && given.old_generation
            || given.carries.contains('o') && given.old_operation;
        let column = STEPS.iter().position(|step| *step == self.step).expect("a step");
        let word = given.words.split(' ').filter(|word| *word != "|").nth(column).expect("a word");
        match word {
            _ if is_old => Said::Stale,
            _ if given.carries == "c" && self.step == "idle" && !self.stored && given.name != "store" => {
                Said::Illegal
            }
            "~" => Said::Stale,
            "-" => Said::Illegal,
            "." => Said::Unchanged,
            "store" if self.stored => Said::Unchanged,
            "stray" if !self.stored => Said::Unchanged,
            word => self.clone().act(word, given, now),
        }
    }

    fn act(mut self, word: &str, given: &Given, now: DateTime<Utc>) -> Said {
        self.stored = true;
        match word {
            "instead" if self.drains() => Said::Illegal,
            "assign" => self.gets_bot("pulling", 7_200, given, now),
            "resume" => self.gets_bot("resuming", 7_200, given, now),
            "fetch" => self.gets_bot("starting", 600, given, now),
            "instead" => self.gets_bot("restarting", 600, given, now),
            "made" | "unmade" | "stray" | "vanish" | "removed" | "linger" => {
                self.looks_ahead(word, given, now)
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
            "halt" if self.step == "running" && self.bot().state != BotState::JoiningCall => Said::Illegal,
            "halt" => {
                (self.attempts, self.container) = (0, None);
                (self.deadline, self.wake_at) = (Some(now + seconds(600)), Some(now + seconds(600)));
                self.operates("restarting")
            }
            "anew" => {
                self.generation += 1;
                self.bot().nonce = None;
                (self.attempts, self.deadline) = (0, Some(now + seconds(7_200)));
                self.wake_at = self.deadline;
                self.operates("pulling")
            }
            "stuck" if self.attempts + 1 < 3 => {
                self.attempts += 1;
                self.operates("restarting")
            }
            "retry" | "failed" | "stuck" => self.fails_to_deploy(now),
            "run" => self.runs(given, now),
            "learn" if self.container.is_some() => Said::Unchanged,
            "learn" => {
                self.container = Some("c".into());
                self.goes_on()
            }
            "claim" => self.claims(given),
            "report" | "repeat" => self.reports(word, given, now),
            "decline" => self.goes_elsewhere(true, now),
            "clear" => self.goes_elsewhere(false, now),
            "quit" => self.frees(),
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
                let longer = (now + seconds(150)).min(self.latest.expect("leaves"));
                if longer > self.wake_at.expect("leaves") {
                    self.wake_at = Some(longer);
                    self.goes("leaving")
                } else {
                    self.wakes(now)
                }
            }
            "store" | "image" | "refresh" | "drain" | "undrain" | "follow" | "part" | "retire" | "forget"
            | "go" | "prepare" | "other" | "remove" => self.obeys(word, given),
            word => panic!("no word {word}"),
        }
    }

    fn gets_bot(mut self, step: &'static str, patience_s: i64, given: &Given, now: DateTime<Utc>) -> Said {
        self.generation += 1;
        self.bot = Some(new_bot(given, now));
        (self.attempts, self.ahead_mib, self.container) = (0, None, None);
        self.deadline = Some(now + seconds(patience_s));
        self.wake_at = self.deadline;
        self.operates(step)
    }

    /// What becomes of the container for the next bot.
    fn looks_ahead(mut self, word: &str, given: &Given, now: DateTime<Utc>) -> Said {
        match word {
            "made" => {
                (self.container, self.attempts) = (Some("c".into()), 0);
                self.goes("prepared")
            }
            "unmade" | "linger" => {
                self.attempts += 1;
                let spread = spread(sample::idle_slot(1).name.0.bytes(), self.attempts);
                self.wake_at = Some(now + SlotTiming::default().prepare_retry.wait(self.attempts, spread));
                self.goes(if word == "unmade" { "unprepared" } else { "lingering" })
            }
            "stray" | "vanish" if given.choice.is_multiple_of(2) => Said::Unchanged,
            "vanish" => {
                self.container = None;
                self.operates("preparing")
            }
            "removed" => {
                (self.container, self.attempts) = (None, 0);
                let step = if self.drains() { "retired" } else { "idle" };
                self.goes(step)
            }
            _ => {
                (self.container, self.ahead_mib) = (None, None);
                self.operates("removing")
            }
        }
    }

    /// What is there goes, if something may be and nobody removes it yet.
    fn empties(mut self) -> Said {
        match self.step {
            "preparing" | "prepared" | "unprepared" => {
                (self.ahead_mib, self.attempts, self.wake_at) = (None, 0, None);
                self.operates("removing")
            }
            step => self.goes(step),
        }
    }

    fn obeys(mut self, word: &str, given: &Given) -> Said {
        let step = self.step;
        match word {
            "prepare" if self.drains() => Said::Unchanged,
            "prepare" => {
                self.ahead_mib = Some(memory_mib(given));
                self.operates("preparing")
            }
            "other" if self.drains() || self.ahead_mib == Some(memory_mib(given)) => Said::Unchanged,
            "other" | "remove" | "refresh" => self.empties(),
            "image" if self.image == image(given) => Said::Unchanged,
            "image" => {
                self.image = image(given);
                self.empties()
            }
            "go" if self.own_drain.is_some() => Said::Unchanged,
            "go" => {
                self.own_drain = Some(None);
                self.empties()
            }
            "drain" if self.own_drain == Some(drain_by(given)) => Said::Unchanged,
            "drain" => {
                self.own_drain = Some(drain_by(given));
                self.empties()
            }
            "undrain" if self.own_drain.is_none() => Said::Unchanged,
            "undrain" => {
                self.own_drain = None;
                self.goes(step)
            }
            "follow" if self.wider_drain == Some(drain_by(given)) => Said::Unchanged,
            "follow" => {
                self.wider_drain = Some(drain_by(given));
                self.empties()
            }
            "part" if self.wider_drain.is_none() => Said::Unchanged,
            "part" => {
                self.wider_drain = None;
                self.goes(step)
            }
            "retire" | "forget" => self.goes("retired"),
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
        let step = if self.drains() || self.ephemeral { "retired" } else { "idle" };
        self.goes(step)
    }

    fn gives_back(&mut self, failed: bool, crowded: bool) {
        let bot = self.bot();
        let failed_starts = bot.failed_starts + u32::from(failed);
        self.back = Some(Back { id: bot.id, failed_starts, crowded });
    }

    /// Only of one that simply waits for its image it is known that nothing is there.
    fn goes_elsewhere(mut self, crowded: bool, now: DateTime<Utc>) -> Said {
        // It may be in its meeting still.
        if self.bot().nonce.is_some() {
            return self.stops(Some(EndReason::LeftByRequest));
        }
        self.gives_back(false, crowded);
        if self.step == "pulling" { self.frees() } else { self.breaks(now) }
    }

    /// The first slot gives the bot back; in the second it ends.
    fn fails_to_deploy(mut self, now: DateTime<Utc>) -> Said {
        if self.bot().failed_starts == 0 && self.bot().nonce.is_none() {
            self.gives_back(true, false);
        }
        self.breaks(now)
    }

    fn breaks(mut self, now: DateTime<Utc>) -> Said {
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

    /// When a shell is to look again.
    pub(super) fn looks_at(&self) -> Option<DateTime<Utc>> {
        let is_cut_short =
            ["pulling", "resuming", "starting", "retrying", "restarting", "running"].contains(&self.step);
        self.wake_at.map(|at| self.asked_to_leave_at().filter(|_| is_cut_short).map_or(at, |by| by.min(at)))
    }

    fn drains(&self) -> bool {
        self.own_drain.is_some() || self.wider_drain.is_some()
    }

    fn asked_to_leave_at(&self) -> Option<DateTime<Utc>> {
        match (self.own_drain.flatten(), self.wider_drain.flatten()) {
            (Some(own), Some(wider)) => Some(own.min(wider)),
            (own, wider) => own.or(wider),
        }
    }

    fn wakes(mut self, now: DateTime<Utc>) -> Said {
        let is_drained = self.asked_to_leave_at().is_some_and(|by| now >= by);
        let is_over = self.deadline.is_some_and(|at| now >= at);
        let is_awake = self.wake_at.is_some_and(|at| now >= at);
        // No wait for another try is longer than that: one of which more is left was begun by another clock.
        let longest = seconds(if self.step == "retrying" { 2 } else { 300 });
        let has_waited = is_awake || self.wake_at.is_some_and(|at| at - now > longest);
        match self.step {
            "pulling" | "resuming" | "starting" | "retrying" | "restarting" if is_over => {
                self.fails_to_deploy(now)
            }
            "pulling" | "resuming" | "starting" | "retrying" | "restarting" if is_drained => {
                self.goes_elsewhere(false, now)
            }
            "retrying" if has_waited => {
                self.wake_at = self.deadline;
                self.operates("starting")
            }
            "running" if is_awake => {
                let is_end = self.bot().ends_at.is_some_and(|at| now >= at);
                self.leaves(if is_end { EndReason::EndTime } else { EndReason::MaxDuration }, now)
            }
            "running" if is_drained => self.leaves(EndReason::LeftByRequest, now),
            "leaving" if is_awake => {
                let reason = self.bot().leave.unwrap_or(EndReason::LeftByRequest);
                self.stops(Some(reason))
            }
            "unprepared" | "lingering" if has_waited => {
                self.wake_at = None;
                let step = if self.step == "unprepared" { "preparing" } else { "removing" };
                self.operates(step)
            }
            "error" if has_waited => {
                self.wake_at = None;
                self.operates("recovering")
            }
            _ => Said::Unchanged,
        }
    }
}

pub(super) fn new_bot(given: &Given, now: DateTime<Utc>) -> ModelBot {
    ModelBot {
        id: i64::from(given.choice),
        state: BotState::Deploying,
        ends_at: given.choice.is_multiple_of(3).then(|| now + seconds(900)),
        end: None,
        nonce: None,
        seq: 0,
        leave: None,
        failed_starts: u32::from(given.choice % 4 == 3),
    }
}

/// Noon is the sample's: every drain that has a deadline has one of four.
pub(super) fn drain_by(given: &Given) -> Option<DateTime<Utc>> {
    let after_s = i64::from(given.choice) * 1_800;
    (!given.choice.is_multiple_of(3)).then(|| sample::now() + seconds(after_s))
}

pub(super) fn nonce(given: &Given) -> Uuid {
    Uuid::from_u128(u128::from(given.choice % 2))
}

pub(super) fn memory_mib(given: &Given) -> u32 {
    u32::from(given.choice % 2)
}

pub(super) fn image(given: &Given) -> String {
    format!("image:{}", given.choice % 3)
}

/// The slot as the reference has it.
pub(super) fn seen(slot: &Slot) -> Model {
    let mut model = Model {
        step: slot.step(),
        generation: slot.generation.0,
        operation: slot.operation.0,
        stored: slot.version > 0,
        own_drain: slot.drains.own,
        wider_drain: slot.drains.wider,
        ephemeral: slot.ephemeral,
        image: slot.image.clone(),
        bot: slot.bot().map(seen_bot),
        container: None,
        ahead_mib: None,
        attempts: 0,
        deadline: None,
        wake_at: None,
        latest: None,
        since: None,
        back: None,
    };
    match &slot.state {
        SlotState::Deploying { attempts, deadline, step, .. } => {
            (model.attempts, model.deadline) = (*attempts, Some(*deadline));
            model.wake_at = model.deadline;
            if let DeployStep::Retrying { at } = step {
                model.wake_at = Some(*at);
            }
        }
        SlotState::Busy { container, step, .. } => {
            model.container = container.clone().map(|container| container.0);
            (model.wake_at, model.latest) = match step {
                BusyStep::Running { leave_at } => (Some(*leave_at), None),
                BusyStep::Leaving { until, latest } => (Some(*until), Some(*latest)),
                BusyStep::Stopping => (None, None),
            };
        }
        SlotState::Error { attempts, since, container, step, .. } => {
            model.container = container.clone().map(|container| container.0);
            (model.attempts, model.since) = (*attempts, Some(*since));
            if let RecoveryStep::Waiting { until } = step {
                model.wake_at = Some(*until);
            }
        }
        SlotState::Idle { ahead, .. } => seen_ahead(&mut model, ahead),
        SlotState::Retired => {}
    }
    model
}

fn seen_ahead(model: &mut Model, ahead: &Preparation) {
    model.ahead_mib = ahead.limits().and_then(|limits| limits.memory_mib);
    match ahead {
        Preparation::Absent => {}
        Preparation::Preparing { failures, .. } => model.attempts = *failures,
        Preparation::Prepared { container, .. } => model.container = Some(container.0.clone()),
        Preparation::Retrying { failures, at, .. } => {
            (model.attempts, model.wake_at) = (*failures, Some(*at));
        }
        Preparation::Removing { container, failures } => {
            (model.container, model.attempts) = (container.clone().map(|id| id.0), *failures);
        }
        Preparation::Lingering { container, failures, at } => {
            (model.container, model.attempts) = (container.clone().map(|id| id.0), *failures);
            model.wake_at = Some(*at);
        }
    }
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
        failed_starts: bot.failed_starts(),
    }
}
