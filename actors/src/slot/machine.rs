//! The slot machine: which event leads where, and what rows that writes. Decides, never acts: no I/O, no clock, no
//! randomness. `docs/slot-machine.md` is written from it.
//!
//! Outcomes carry the generation and operation that they belong to; what belongs to an older one is stale and
//! changes nothing. A slot is idle again only when its container is known to be gone.

use super::event::{BotSource, SlotEvent};
use super::preparation::Preparation;
use super::{BusyStep, DeployStep, Slot, SlotState, SlotStatus, SlotTiming};
use crate::backoff::is_over;
use crate::bot::machine::{self as life, Report, ReportBody, Taken};
use crate::bot::{Bot, BotState, End, EndReason, Seat};
use crate::ids::ContainerId;
use crate::journal::Change;
use crate::ports::Presence;
use chrono::{DateTime, Utc};
use std::time::Duration;
use uuid::Uuid;

/// What an event leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The slot afterwards.
    pub next: Slot,
    /// Rows to write, together; empty: nothing changed.
    pub changes: Vec<Change>,
    /// What others must hear, once it is written.
    pub notices: Vec<Notice>,
}

/// What others must hear.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A bot ended.
    BotEnded(Box<Bot>),
    /// A bot was given back: the commit has put it into the queue.
    BotReturned {
        /// As it is stored.
        bot: Box<Bot>,
        /// Too many wait for the image on the slot's host already.
        crowded: bool,
    },
}

/// Why an event changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It belongs to an older generation or operation.
    #[error("{event} belongs to the past of this slot")]
    Stale {
        /// The event.
        event: &'static str,
    },
    /// It cannot happen in this state.
    #[error("{event} cannot happen while the slot is {from}")]
    Illegal {
        /// The state.
        from: &'static str,
        /// The event.
        event: &'static str,
    },
    /// Another process has claimed this generation.
    #[error("another process has claimed this generation")]
    Fenced,
    /// A report ahead of its turn.
    #[error("report {expected} must come first")]
    Gap {
        /// The number that must come next.
        expected: i64,
    },
}

pub(super) type Decided = Result<Transition, Rejection>;

/// Decides what an event leads to.
pub fn transition(slot: &Slot, event: SlotEvent, timing: &SlotTiming, now: DateTime<Utc>) -> Decided {
    let name = event.name();
    if event.generation().is_some_and(|generation| generation != slot.container_generation())
        || event.operation().is_some_and(|operation| operation != slot.operation)
    {
        return Err(Rejection::Stale { event: name });
    }
    let step = Step { slot, timing, now, event: name };
    match &slot.state {
        SlotState::Idle { ahead, .. } => step.idle(ahead, event),
        SlotState::Deploying { bot, step: DeployStep::Restarting, attempts, deadline } => {
            step.restarting(bot, *attempts, *deadline, event)
        }
        SlotState::Deploying { bot, step: at, attempts, deadline } => {
            step.deploying(bot, *at, *attempts, *deadline, event)
        }
        SlotState::Busy { bot, container, step: BusyStep::Running { leave_at } } => {
            step.running(bot, container, *leave_at, event)
        }
        SlotState::Busy { bot, container, step: BusyStep::Leaving { until, latest } } => {
            step.leaving(bot, container, (*until, *latest), event)
        }
        SlotState::Busy { bot, container, step: BusyStep::Stopping } => step.stopping(bot, container, event),
        SlotState::Error { step: at, .. } => step.error(*at, event),
        SlotState::Retired => step.illegal(),
    }
}

/// One event in one state: what every edge needs at hand.
pub(super) struct Step<'a> {
    pub(super) slot: &'a Slot,
    pub(super) timing: &'a SlotTiming,
    pub(super) now: DateTime<Utc>,
    event: &'static str,
}

impl Step<'_> {
    fn deploying(
        &self,
        bot: &Bot,
        at: DeployStep,
        attempts: u32,
        deadline: DateTime<Utc>,
        event: SlotEvent,
    ) -> Decided {
        let pulling = matches!(at, DeployStep::Pulling | DeployStep::Resuming);
        match event {
            SlotEvent::PullSucceeded { .. } if pulling => {
                self.start(bot, attempts, self.after(self.timing.deploy))
            }
            SlotEvent::PullFailed { reason, .. } if pulling => self.fail_deploy(bot, reason),
            SlotEvent::PullDeclined { reason, .. } if pulling => self.give_back(bot, at, reason, true),
            SlotEvent::Started { container, .. } => self.run(bot, Some(container), None),
            SlotEvent::Claimed { nonce, .. } => self.run(bot, None, Some(nonce)),
            SlotEvent::Observed { presence: Presence::Running, .. } if !pulling => self.run(bot, None, None),
            SlotEvent::StartFailed { reason, retryable, .. } if matches!(at, DeployStep::Starting) => {
                if retryable && attempts + 1 < self.timing.start_attempts {
                    let at = self.after(self.timing.start_retry);
                    self.deploy(bot, DeployStep::Retrying { at }, attempts + 1, deadline)
                } else {
                    self.fail_deploy(bot, reason)
                }
            }
            SlotEvent::Exited { note, .. } => self.fail_deploy(bot, note),
            SlotEvent::LeaveRequested { bot_id, .. } if bot_id == bot.id && at == DeployStep::Pulling => {
                self.cancel(bot)
            }
            SlotEvent::LeaveRequested { bot_id, .. } if bot_id == bot.id => {
                self.stop(bot, None, Some(life::end(EndReason::Cancelled)))
            }
            SlotEvent::Woke if self.now >= deadline => self.fail_deploy(bot, self.overdue(at)),
            SlotEvent::Woke if self.drain_is_due() => self.clear_out(bot, at),
            SlotEvent::Woke => match at {
                DeployStep::Retrying { at } if is_over(at, self.timing.start_retry, self.now) => {
                    self.start(bot, attempts, deadline)
                }
                _ => self.unchanged(),
            },
            SlotEvent::Commanded(command) => self.commanded(command),
            // "Not there yet" is what a container in the making looks like.
            SlotEvent::Observed { .. } | SlotEvent::SegmentArrived { .. } => self.unchanged(),
            SlotEvent::LeaveRequested { .. } | SlotEvent::StartFailed { .. } => self.stale(),
            SlotEvent::PullSucceeded { .. } => self.stale(),
            SlotEvent::PullFailed { .. } | SlotEvent::PullDeclined { .. } => self.stale(),
            SlotEvent::Prepared { .. } | SlotEvent::PrepareFailed { .. } => self.stale(),
            SlotEvent::Assigned { .. } | SlotEvent::Reported { .. } | SlotEvent::HeartbeatLost { .. } => {
                self.illegal()
            }
            SlotEvent::Stopped { .. } | SlotEvent::StopFailed { .. } => self.illegal(),
        }
    }

    fn running(
        &self,
        bot: &Bot,
        container: &Option<ContainerId>,
        leave_at: DateTime<Utc>,
        event: SlotEvent,
    ) -> Decided {
        match event {
            SlotEvent::Started { container: named, .. } => self.learn_container(bot, container, named),
            SlotEvent::Claimed { nonce, .. } => self.claim(bot, nonce),
            SlotEvent::Reported { report, .. } => self.report(bot, container, report),
            SlotEvent::LeaveRequested { bot_id, reason } if bot_id == bot.id => {
                self.leave(bot, container, reason)
            }
            SlotEvent::Woke if self.now >= leave_at => self.leave(bot, container, self.time_limit(bot)),
            SlotEvent::Woke if self.drain_is_due() => self.leave(bot, container, EndReason::LeftByRequest),
            SlotEvent::Woke => self.unchanged(),
            SlotEvent::Exited { note, .. } => self.stop(bot, container.clone(), Some(crash(bot, note))),
            SlotEvent::Observed { presence: Presence::Gone, began_at, .. }
                if began_at > self.slot.changed_at =>
            {
                self.stop(bot, container.clone(), Some(crash(bot, "the engine no longer has it".to_owned())))
            }
            SlotEvent::HeartbeatLost { silent, .. } => self.stop(bot, container.clone(), Some(lost(silent))),
            SlotEvent::Commanded(command) => self.commanded(command),
            SlotEvent::Observed { .. } | SlotEvent::SegmentArrived { .. } => self.unchanged(),
            SlotEvent::StartFailed { .. } | SlotEvent::LeaveRequested { .. } => self.stale(),
            SlotEvent::PullSucceeded { .. } => self.illegal(),
            SlotEvent::PullFailed { .. } | SlotEvent::PullDeclined { .. } => self.illegal(),
            SlotEvent::Prepared { .. } | SlotEvent::PrepareFailed { .. } => self.illegal(),
            SlotEvent::Assigned { .. } | SlotEvent::Stopped { .. } | SlotEvent::StopFailed { .. } => {
                self.illegal()
            }
        }
    }

    fn leaving(
        &self,
        bot: &Bot,
        container: &Option<ContainerId>,
        (until, latest): (DateTime<Utc>, DateTime<Utc>),
        event: SlotEvent,
    ) -> Decided {
        match event {
            SlotEvent::Started { container: named, .. } => self.learn_container(bot, container, named),
            SlotEvent::Claimed { nonce, .. } => self.claim(bot, nonce),
            SlotEvent::Reported { report, .. } => self.report(bot, container, report),
            SlotEvent::LeaveRequested { bot_id, reason } if bot_id == bot.id => self.note_leave(bot, reason),
            SlotEvent::SegmentArrived { at, .. } if self.longer(at, latest) > until => {
                let step = BusyStep::Leaving { until: self.longer(at, latest), latest };
                self.busy(bot.clone(), container, step)
            }
            SlotEvent::Woke | SlotEvent::SegmentArrived { .. } if self.now >= until => {
                self.stop(bot, container.clone(), Some(left(bot)))
            }
            SlotEvent::Commanded(command) => self.commanded(command),
            SlotEvent::Exited { note, .. } => self.stop(bot, container.clone(), Some(crash(bot, note))),
            SlotEvent::Observed { presence: Presence::Gone, began_at, .. }
                if began_at > self.slot.changed_at =>
            {
                self.stop(bot, container.clone(), Some(crash(bot, "the engine no longer has it".to_owned())))
            }
            SlotEvent::HeartbeatLost { silent, .. } => self.stop(bot, container.clone(), Some(lost(silent))),
            SlotEvent::Woke | SlotEvent::SegmentArrived { .. } | SlotEvent::Observed { .. } => {
                self.unchanged()
            }
            SlotEvent::StartFailed { .. } | SlotEvent::LeaveRequested { .. } => self.stale(),
            SlotEvent::PullSucceeded { .. } => self.illegal(),
            SlotEvent::PullFailed { .. } | SlotEvent::PullDeclined { .. } => self.illegal(),
            SlotEvent::Prepared { .. } | SlotEvent::PrepareFailed { .. } => self.illegal(),
            SlotEvent::Assigned { .. } | SlotEvent::Stopped { .. } | SlotEvent::StopFailed { .. } => {
                self.illegal()
            }
        }
    }

    fn stopping(&self, bot: &Bot, container: &Option<ContainerId>, event: SlotEvent) -> Decided {
        match event {
            SlotEvent::Stopped { .. } => self.free(),
            SlotEvent::StopFailed { reason, answered, .. } => {
                self.fail(container.clone(), format!("stop: {reason}"), u32::from(answered), vec![])
            }
            // The bot may not have heard that its last report was taken.
            SlotEvent::Reported { report, .. } if report.seq <= bot.report_seq => self.unchanged(),
            SlotEvent::LeaveRequested { bot_id, .. } if bot_id == bot.id => self.unchanged(),
            SlotEvent::Exited { .. } | SlotEvent::Observed { .. } | SlotEvent::Woke => self.unchanged(),
            SlotEvent::SegmentArrived { .. } => self.unchanged(),
            SlotEvent::Commanded(command) => self.commanded(command),
            SlotEvent::Started { .. } | SlotEvent::HeartbeatLost { .. } => self.stale(),
            SlotEvent::Claimed { .. } | SlotEvent::Reported { .. } | SlotEvent::LeaveRequested { .. } => {
                self.stale()
            }
            SlotEvent::PullSucceeded { .. } => self.illegal(),
            SlotEvent::PullFailed { .. } | SlotEvent::PullDeclined { .. } => self.illegal(),
            SlotEvent::Prepared { .. } | SlotEvent::PrepareFailed { .. } => self.illegal(),
            SlotEvent::Assigned { .. } | SlotEvent::StartFailed { .. } => self.illegal(),
        }
    }

    // --- edges -------------------------------------------------------------------------------------------------

    pub(super) fn assign(
        &self,
        bot: Bot,
        source: BotSource,
        step: DeployStep,
        deadline: DateTime<Utc>,
    ) -> Decided {
        let generation = self.slot.generation.next();
        let mut bot = bot;
        bot.state = BotState::Deploying;
        bot.deployed_at = Some(self.now);
        bot.seat = Some(Seat { slot: self.slot.name.clone(), generation });
        let mut changes = match source {
            BotSource::Request { idempotency } => life::created(&bot, idempotency),
            BotSource::Queue => {
                bot.version += 1;
                vec![Change::WriteBot(Box::new(bot.clone())), Change::DeleteQueueEntry(bot.id)]
            }
            BotSource::Schedule => life::left_schedule(&mut bot),
        };
        changes.push(Change::InsertEvent(life::state_event(&bot, self.now)));
        let state = SlotState::Deploying { bot: Box::new(bot), step, attempts: 0, deadline };
        let mut next = self.operated(state);
        next.generation = generation;
        self.write(next, changes, vec![])
    }

    fn start(&self, bot: &Bot, attempts: u32, deadline: DateTime<Utc>) -> Decided {
        let state = SlotState::Deploying {
            bot: Box::new(bot.clone()),
            step: DeployStep::Starting,
            attempts,
            deadline,
        };
        self.write(self.operated(state), vec![], vec![])
    }

    fn deploy(&self, bot: &Bot, step: DeployStep, attempts: u32, deadline: DateTime<Utc>) -> Decided {
        let state = SlotState::Deploying { bot: Box::new(bot.clone()), step, attempts, deadline };
        self.write(self.moved(state), vec![], vec![])
    }

    /// The first evidence that the container runs.
    fn run(&self, bot: &Bot, container: Option<ContainerId>, nonce: Option<Uuid>) -> Decided {
        let (mut bot, mut changes) = life::entered(bot, BotState::JoiningCall, self.now);
        if nonce.is_some() {
            bot.nonce = nonce;
            changes = rewrite(&bot, changes);
        }
        let longest = self.after(self.timing.max_duration);
        let leave_at = bot.spec.end_at.map_or(longest, |end_at| end_at.min(longest));
        let state = SlotState::Busy { bot: Box::new(bot), container, step: BusyStep::Running { leave_at } };
        self.write(self.moved(state), changes, vec![])
    }

    fn learn_container(&self, bot: &Bot, known: &Option<ContainerId>, named: ContainerId) -> Decided {
        if known.is_some() {
            return self.unchanged();
        }
        self.with_bot(bot.clone(), Some(named), vec![])
    }

    fn claim(&self, bot: &Bot, nonce: Uuid) -> Decided {
        match bot.nonce {
            Some(known) if known == nonce => self.unchanged(),
            Some(_) => Err(Rejection::Fenced),
            None => {
                let mut bot = bot.clone();
                bot.nonce = Some(nonce);
                self.only_bot(bot)
            }
        }
    }

    fn report(&self, bot: &Bot, container: &Option<ContainerId>, report: Report) -> Decided {
        // A program that nobody claimed for has no business reporting.
        if bot.nonce.is_none() {
            return self.illegal();
        }
        let leaves = matches!(report.body, ReportBody::Entered(BotState::Leaving));
        match life::take_report(bot, report, self.now)
            .map_err(|gap| Rejection::Gap { expected: gap.expected })?
        {
            Taken::Repeated => self.unchanged(),
            Taken::Advanced(next, changes) if next.state.is_final() => {
                let ended = Notice::BotEnded(next.clone());
                let state =
                    SlotState::Busy { bot: next, container: container.clone(), step: BusyStep::Stopping };
                self.write(self.operated(state), changes, vec![ended])
            }
            Taken::Advanced(next, changes) if leaves && self.is_running() => {
                let state =
                    SlotState::Busy { bot: next, container: container.clone(), step: self.patience() };
                self.write(self.moved(state), changes, vec![])
            }
            Taken::Advanced(next, changes) => {
                let slot = replaced_bot(self.slot, *next);
                Ok(Transition { next: slot, changes, notices: vec![] })
            }
        }
    }

    pub(super) fn leave(&self, bot: &Bot, container: &Option<ContainerId>, reason: EndReason) -> Decided {
        let mut bot = bot.clone();
        bot.leave.get_or_insert(reason);
        bot.version += 1;
        let changes = vec![Change::WriteBot(Box::new(bot.clone()))];
        let state =
            SlotState::Busy { bot: Box::new(bot), container: container.clone(), step: self.patience() };
        self.write(self.moved(state), changes, vec![])
    }

    fn busy(&self, bot: Bot, container: &Option<ContainerId>, step: BusyStep) -> Decided {
        let state = SlotState::Busy { bot: Box::new(bot), container: container.clone(), step };
        self.write(self.moved(state), vec![], vec![])
    }

    /// A wish to leave for a bot that is leaving already: kept, if it is the first.
    fn note_leave(&self, bot: &Bot, reason: EndReason) -> Decided {
        if bot.leave.is_some() {
            return self.unchanged();
        }
        let mut bot = bot.clone();
        bot.leave = Some(reason);
        self.only_bot(bot)
    }

    pub(super) fn stop(&self, bot: &Bot, container: Option<ContainerId>, end: Option<End>) -> Decided {
        let (bot, changes, notices) = self.ended(bot, end);
        let state = SlotState::Busy { bot: Box::new(bot), container, step: BusyStep::Stopping };
        self.write(self.operated(state), changes, notices)
    }

    /// Nothing was started: the bot ends, and the slot is free with it.
    fn cancel(&self, bot: &Bot) -> Decided {
        let (_, changes, notices) = self.ended(bot, Some(life::end(EndReason::Cancelled)));
        self.free_with(changes, notices)
    }

    /// Free in the commit that moves or ends its bot.
    pub(super) fn free_with(&self, mut changes: Vec<Change>, notices: Vec<Notice>) -> Decided {
        let freed = self.free()?;
        changes.extend(freed.changes);
        Ok(Transition { next: freed.next, changes, notices })
    }

    /// The container is known gone, and with it the bot.
    pub(super) fn free(&self) -> Decided {
        if self.slot.drains.any() || self.slot.ephemeral {
            return self.retire();
        }
        let state = SlotState::Idle { last_used_at: Some(self.now), ahead: Preparation::Absent };
        self.write(self.moved(state), vec![], vec![])
    }

    // --- parts of edges ----------------------------------------------------------------------------------------

    pub(super) fn ended(&self, bot: &Bot, end: Option<End>) -> (Bot, Vec<Change>, Vec<Notice>) {
        let Some(end) = end.filter(|_| !bot.state.is_final()) else { return (bot.clone(), vec![], vec![]) };
        let (bot, changes) = life::ended(bot, end, self.now);
        let notice = Notice::BotEnded(Box::new(bot.clone()));
        (bot, changes, vec![notice])
    }

    /// The slot in another state.
    pub(super) fn moved(&self, state: SlotState) -> Slot {
        Slot { state, changed_at: self.now, ..self.slot.clone() }
    }

    /// The slot in another state that has an operation of its own under way.
    pub(super) fn operated(&self, state: SlotState) -> Slot {
        Slot { operation: self.slot.operation.next(), ..self.moved(state) }
    }

    pub(super) fn write(&self, mut next: Slot, mut changes: Vec<Change>, notices: Vec<Notice>) -> Decided {
        next.version += 1;
        changes.push(Change::WriteSlot(Box::new(next.clone())));
        Ok(Transition { next, changes, notices })
    }

    /// The same state with a bot that changed; the bot's row alone is written.
    fn only_bot(&self, mut bot: Bot) -> Decided {
        bot.version += 1;
        let changes = vec![Change::WriteBot(Box::new(bot.clone()))];
        Ok(Transition { next: replaced_bot(self.slot, bot), changes, notices: vec![] })
    }

    fn with_bot(&self, bot: Bot, named: Option<ContainerId>, changes: Vec<Change>) -> Decided {
        let mut next = replaced_bot(self.slot, bot);
        if let SlotState::Busy { container, .. } = &mut next.state {
            *container = named;
        }
        self.write(next, changes, vec![])
    }

    pub(super) fn drain_is_due(&self) -> bool {
        self.slot.drains.by().is_some_and(|by| self.now >= by)
    }

    fn is_running(&self) -> bool {
        matches!(self.slot.state, SlotState::Busy { step: BusyStep::Running { .. }, .. })
    }

    /// How long a bot that leaves from now on is waited for.
    fn patience(&self) -> BusyStep {
        let (grace, limit) = (self.timing.leave_grace, self.timing.leave_limit);
        BusyStep::Leaving { until: self.after(grace), latest: self.after(limit.max(grace)) }
    }

    /// How long a bot that leaves is waited for after a segment.
    fn longer(&self, segment_at: DateTime<Utc>, latest: DateTime<Utc>) -> DateTime<Utc> {
        later(segment_at, self.timing.segment_grace).min(latest)
    }

    fn time_limit(&self, bot: &Bot) -> EndReason {
        match bot.spec.end_at {
            Some(end_at) if self.now >= end_at => EndReason::EndTime,
            _ => EndReason::MaxDuration,
        }
    }

    pub(super) fn overdue(&self, at: DeployStep) -> String {
        match at {
            DeployStep::Pulling | DeployStep::Resuming => {
                format!("image {} was not there in time", self.slot.image)
            }
            DeployStep::Starting | DeployStep::Retrying { .. } => {
                "the container did not start in time".to_owned()
            }
            DeployStep::Restarting => "the container did not stop in time".to_owned(),
        }
    }

    pub(super) fn after(&self, duration: Duration) -> DateTime<Utc> {
        later(self.now, duration)
    }

    pub(super) fn unchanged(&self) -> Decided {
        Ok(Transition { next: self.slot.clone(), changes: vec![], notices: vec![] })
    }

    pub(super) fn stale(&self) -> Decided {
        Err(Rejection::Stale { event: self.event })
    }

    pub(super) fn illegal(&self) -> Decided {
        let from = self.slot.status().map_or("retired", SlotStatus::as_str);
        Err(Rejection::Illegal { from, event: self.event })
    }
}

fn later(at: DateTime<Utc>, duration: Duration) -> DateTime<Utc> {
    let later = chrono::TimeDelta::from_std(duration).ok().and_then(|delta| at.checked_add_signed(delta));
    later.unwrap_or(DateTime::<Utc>::MAX_UTC)
}

fn replaced_bot(slot: &Slot, bot: Bot) -> Slot {
    let mut next = slot.clone();
    if let SlotState::Busy { bot: held, .. } | SlotState::Deploying { bot: held, .. } = &mut next.state {
        **held = bot;
    }
    next
}

/// The bot's row in `changes` replaced by this bot.
fn rewrite(bot: &Bot, changes: Vec<Change>) -> Vec<Change> {
    changes
        .into_iter()
        .map(|change| match change {
            Change::WriteBot(_) => Change::WriteBot(Box::new(bot.clone())),
            other => other,
        })
        .collect()
}

/// The end of a bot whose container ended by itself: what was asked for if it was asked to leave, else a crash.
fn crash(bot: &Bot, note: String) -> End {
    match bot.leave {
        Some(reason) => life::end(reason),
        None => End { reason: EndReason::Crashed, detail: format!("The bot's container ended: {note}.") },
    }
}

/// The end of a bot that did not finish leaving within its grace.
fn left(bot: &Bot) -> End {
    life::end(bot.leave.unwrap_or(EndReason::LeftByRequest))
}

fn lost(silent: Duration) -> End {
    let detail = format!("No heartbeat for {} s.", silent.as_secs());
    End { reason: EndReason::HeartbeatLost, detail }
}
