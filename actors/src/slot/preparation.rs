//! A free slot, and the container that is made for its next bot ahead of need: part of the machine. It belongs to the
//! next generation, which the next assignment takes. Where it is of no use any more it is known gone before anything
//! else is made under its number, and before the slot goes.
//!
//! A preparation that fails is no error of the slot: it is tried again, and a bot that comes meanwhile is served. Only of
//! a slot that is [`Absent`](Preparation::Absent) it is known that nothing is there; all else may have left something.

use super::command::SlotCommand;
use super::drains::Drains;
use super::event::{BotSource, SlotEvent};
use super::machine::{Decided, Step};
use super::{DeployStep, Slot, SlotState};
use crate::backoff::{is_over, spread};
use crate::bot::Bot;
use crate::ids::ContainerId;
use crate::ports::{Presence, ResourceLimits};
use chrono::{DateTime, Utc};

/// How far the container for the next bot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preparation {
    /// There is none, and none is made.
    Absent,
    /// It is being made, when its image is there.
    Preparing {
        /// What it may use.
        limits: ResourceLimits,
        /// Tries in a row that failed before.
        failures: u32,
    },
    /// It is there.
    Prepared {
        /// What it may use.
        limits: ResourceLimits,
        /// The engine's name for it.
        container: ContainerId,
    },
    /// It could not be made; the next try begins then.
    Retrying {
        /// What it may use.
        limits: ResourceLimits,
        /// Tries in a row that failed.
        failures: u32,
        /// When.
        at: DateTime<Utc>,
    },
    /// It is of no use any more, and is being removed.
    Removing {
        /// The engine's name for it, where it was learnt.
        container: Option<ContainerId>,
        /// Tries in a row that failed before.
        failures: u32,
    },
    /// It could not be removed; the next try begins then.
    Lingering {
        /// The engine's name for it, where it was learnt.
        container: Option<ContainerId>,
        /// Tries in a row that failed.
        failures: u32,
        /// When.
        at: DateTime<Utc>,
    },
}

impl Preparation {
    /// A word for rows, logs and counts.
    pub fn step(&self) -> &'static str {
        match self {
            Self::Absent => "idle",
            Self::Preparing { .. } => "preparing",
            Self::Prepared { .. } => "prepared",
            Self::Retrying { .. } => "unprepared",
            Self::Removing { .. } => "removing",
            Self::Lingering { .. } => "lingering",
        }
    }

    /// What it is, or will be, made with; `None`: it is not wanted.
    pub fn limits(&self) -> Option<ResourceLimits> {
        match self {
            Self::Preparing { limits, .. }
            | Self::Prepared { limits, .. }
            | Self::Retrying { limits, .. } => Some(*limits),
            Self::Absent | Self::Removing { .. } | Self::Lingering { .. } => None,
        }
    }

    /// Whether it could not be removed when that was tried last: what may be there is in the way of the next bot.
    pub fn is_stuck(&self) -> bool {
        matches!(self, Self::Lingering { .. } | Self::Removing { failures: 1.., .. })
    }

    /// Its removal; `None`: nothing is there, or it is being removed already.
    fn removal(&self) -> Option<Self> {
        let container = match self {
            Self::Absent | Self::Removing { .. } | Self::Lingering { .. } => return None,
            Self::Preparing { .. } | Self::Retrying { .. } => None,
            Self::Prepared { container, .. } => Some(container.clone()),
        };
        Some(Self::Removing { container, failures: 0 })
    }
}

impl Step<'_> {
    pub(super) fn idle(&self, ahead: &Preparation, event: SlotEvent) -> Decided {
        match event {
            SlotEvent::Assigned { bot, source } => self.assign_idle(*bot, source, ahead),
            SlotEvent::Commanded(command) => self.commanded(command),
            SlotEvent::Prepared { container, .. } => self.prepared(ahead, container),
            SlotEvent::PrepareFailed { .. } => self.prepare_failed(ahead),
            SlotEvent::Stopped { .. } => self.removed(ahead),
            SlotEvent::StopFailed { .. } => self.removal_failed(ahead),
            SlotEvent::Woke => self.try_again(ahead),
            // Of one that was never stored nothing can be there.
            SlotEvent::Observed { presence, began_at, .. }
                if began_at > self.slot.changed_at && self.slot.version > 0 =>
            {
                self.observed_ahead(ahead, presence)
            }
            SlotEvent::Observed { .. } | SlotEvent::Exited { .. } => self.unchanged(),
            SlotEvent::Claimed { .. } | SlotEvent::Reported { .. } | SlotEvent::HeartbeatLost { .. } => {
                self.stale()
            }
            SlotEvent::SegmentArrived { .. } => self.stale(),
            SlotEvent::LeaveRequested { .. } | SlotEvent::Started { .. } => self.stale(),
            SlotEvent::PullSucceeded { .. } => self.illegal(),
            SlotEvent::PullFailed { .. } | SlotEvent::PullDeclined { .. } => self.illegal(),
            SlotEvent::StartFailed { .. } => self.illegal(),
        }
    }

    /// The bot takes the next generation, and with it what was made for it ahead of need.
    fn assign_idle(&self, bot: Bot, source: BotSource, ahead: &Preparation) -> Decided {
        if self.slot.drains.any() {
            return self.illegal();
        }
        let (step, patience) = match ahead {
            Preparation::Absent => (DeployStep::Pulling, self.timing.pull),
            Preparation::Prepared { .. } => (DeployStep::Starting, self.timing.deploy),
            Preparation::Preparing { .. } | Preparation::Retrying { .. } => {
                (DeployStep::Resuming, self.timing.pull)
            }
            // What is there is not for this bot: it gets another generation when that is known gone.
            Preparation::Removing { .. } | Preparation::Lingering { .. } => {
                (DeployStep::Restarting, self.timing.deploy)
            }
        };
        self.assign(bot, source, step, self.after(patience))
    }

    pub(super) fn commanded_idle(&self, command: SlotCommand, ahead: &Preparation) -> Decided {
        match command {
            SlotCommand::ChangeImage { image } if image == self.slot.image => self.unchanged(),
            SlotCommand::ChangeImage { image } => self.emptied(ahead, Slot { image, ..self.slot.clone() }),
            // It is idle anew when what is there is known gone.
            SlotCommand::Refresh => match ahead {
                Preparation::Removing { .. } | Preparation::Lingering { .. } => self.unchanged(),
                _ => self.emptied(ahead, self.slot.clone()),
            },
            SlotCommand::Drain { by } => self.go(ahead, self.drains_with_own(Some(by))),
            SlotCommand::Retire => self.go(ahead, self.drains_with_own(Some(self.slot.drains.own.flatten()))),
            SlotCommand::Undrain => self.drained(self.drains_with_own(None)),
            SlotCommand::FollowDrain { wider: None } => self.drained(self.drains_with_wider(None)),
            SlotCommand::FollowDrain { wider } => self.go(ahead, self.drains_with_wider(wider)),
            SlotCommand::Prepare { limits } => match ahead {
                _ if self.slot.drains.any() => self.unchanged(),
                Preparation::Absent => self.operate(Preparation::Preparing { limits, failures: 0 }),
                _ if ahead.limits().is_some_and(|made_with| made_with != limits) => {
                    self.emptied(ahead, self.slot.clone())
                }
                _ => self.unchanged(),
            },
            SlotCommand::Unprepare => match ahead.removal() {
                Some(_) => self.emptied(ahead, self.slot.clone()),
                None => self.unchanged(),
            },
            SlotCommand::Store | SlotCommand::Reset | SlotCommand::ClearOut => self.unchanged(),
            SlotCommand::Forget if matches!(ahead, Preparation::Lingering { .. }) => self.retire(),
            SlotCommand::Forget | SlotCommand::Restart | SlotCommand::End { .. } => self.illegal(),
        }
    }

    /// The slot is deleted, once nothing is there.
    fn go(&self, ahead: &Preparation, drains: Drains) -> Decided {
        let next = Slot { drains, ..self.slot.clone() };
        match ahead {
            Preparation::Absent => self.retire(),
            Preparation::Removing { .. } | Preparation::Lingering { .. } => self.drained(drains),
            _ => self.emptied(ahead, next),
        }
    }

    /// The slot as `next`, for which what there may be is of no use.
    fn emptied(&self, ahead: &Preparation, next: Slot) -> Decided {
        match ahead.removal() {
            None => self.rewritten(next),
            Some(removal) => {
                let operated = self.operated(self.with_ahead(removal));
                let Slot { state, operation, .. } = operated;
                self.rewritten(Slot { state, operation, ..next })
            }
        }
    }

    fn prepared(&self, ahead: &Preparation, container: ContainerId) -> Decided {
        let Preparation::Preparing { limits, .. } = ahead else { return self.stale() };
        self.move_on(Preparation::Prepared { limits: *limits, container })
    }

    fn prepare_failed(&self, ahead: &Preparation) -> Decided {
        let Preparation::Preparing { limits, failures } = ahead else { return self.stale() };
        let failures = failures.saturating_add(1);
        self.move_on(Preparation::Retrying { limits: *limits, failures, at: self.next_try(failures) })
    }

    fn removed(&self, ahead: &Preparation) -> Decided {
        match ahead {
            Preparation::Removing { .. } if self.slot.drains.any() => self.retire(),
            Preparation::Removing { .. } => self.move_on(Preparation::Absent),
            _ => self.stale(),
        }
    }

    fn removal_failed(&self, ahead: &Preparation) -> Decided {
        let Preparation::Removing { container, failures } = ahead else { return self.stale() };
        let failures = failures.saturating_add(1);
        let at = self.next_try(failures);
        self.move_on(Preparation::Lingering { container: container.clone(), failures, at })
    }

    fn try_again(&self, ahead: &Preparation) -> Decided {
        let is_over = |at: &DateTime<Utc>| is_over(*at, self.timing.prepare_retry.last, self.now);
        match ahead {
            Preparation::Retrying { limits, failures, at } if is_over(at) => {
                self.operate(Preparation::Preparing { limits: *limits, failures: *failures })
            }
            Preparation::Lingering { container, failures, at } if is_over(at) => {
                self.operate(Preparation::Removing { container: container.clone(), failures: *failures })
            }
            _ => self.unchanged(),
        }
    }

    /// Somebody looked, since the slot last changed.
    fn observed_ahead(&self, ahead: &Preparation, presence: Presence) -> Decided {
        match (ahead, presence) {
            // A listing may have left it out: it is asked for again, which makes no second one.
            (Preparation::Prepared { limits, .. }, Presence::Gone) => {
                self.operate(Preparation::Preparing { limits: *limits, failures: 0 })
            }
            // Nobody knows what that is: nothing is made under its number before it is gone.
            (Preparation::Prepared { .. }, Presence::Running)
            | (Preparation::Absent, Presence::Running | Presence::Prepared) => {
                self.operate(Preparation::Removing { container: None, failures: 0 })
            }
            _ => self.unchanged(),
        }
    }

    // --- parts of edges ----------------------------------------------------------------------------------------

    fn next_try(&self, failures: u32) -> DateTime<Utc> {
        let spread = spread(self.slot.name.0.bytes(), failures);
        self.after(self.timing.prepare_retry.wait(failures, spread).to_std().unwrap_or_default())
    }

    fn move_on(&self, ahead: Preparation) -> Decided {
        self.write(self.moved(self.with_ahead(ahead)), vec![], vec![])
    }

    fn operate(&self, ahead: Preparation) -> Decided {
        self.write(self.operated(self.with_ahead(ahead)), vec![], vec![])
    }

    /// As free as it is, with another container ahead.
    fn with_ahead(&self, ahead: Preparation) -> SlotState {
        let last_used_at = match self.slot.state {
            SlotState::Idle { last_used_at, .. } => last_used_at,
            _ => None,
        };
        SlotState::Idle { last_used_at, ahead }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Operation;
    use crate::slot::effects::{Effect, effects_of};
    use crate::slot::machine::{Rejection, transition};
    use crate::slot::{SlotStatus, SlotTiming};
    use crate::testing::sample;
    use chrono::TimeDelta;

    const LIMITS: ResourceLimits = ResourceLimits { cpu_millis: None, memory_mib: Some(512), shm_mib: None };
    const OTHERS: ResourceLimits = ResourceLimits { memory_mib: Some(1024), ..LIMITS };

    fn at(seconds: i64) -> DateTime<Utc> {
        sample::now() + TimeDelta::seconds(seconds)
    }

    fn decided(slot: &Slot, event: SlotEvent, seconds: i64) -> Decided {
        transition(slot, event, &SlotTiming::default(), at(seconds))
    }

    fn next(slot: &Slot, event: SlotEvent) -> Slot {
        decided(slot, event, 1).expect("is taken").next
    }

    fn command(slot: &Slot, command: SlotCommand) -> Slot {
        next(slot, SlotEvent::Commanded(command))
    }

    fn preparing() -> Slot {
        command(&sample::idle_slot(1), SlotCommand::Prepare { limits: LIMITS })
    }

    fn made(slot: &Slot) -> SlotEvent {
        let (generation, operation) = (slot.container_generation(), slot.operation);
        SlotEvent::Prepared { generation, operation, container: ContainerId("c".into()) }
    }

    fn prepared() -> Slot {
        next(&preparing(), made(&preparing()))
    }

    fn unprepared() -> Slot {
        let (generation, operation) = (preparing().container_generation(), preparing().operation);
        next(&preparing(), SlotEvent::PrepareFailed { generation, operation })
    }

    fn stopped(slot: &Slot) -> SlotEvent {
        SlotEvent::Stopped { generation: slot.container_generation(), operation: slot.operation }
    }

    fn assigned(slot: &Slot) -> Slot {
        next(slot, SlotEvent::Assigned { bot: Box::new(sample::bot(1)), source: BotSource::Queue })
    }

    #[test]
    fn the_next_bot_starts_in_what_was_made_for_it_and_waits_for_no_image() {
        let ready = prepared();
        assert_eq!((ready.status(), effects_of(&ready)), (Some(SlotStatus::Idle), vec![]));
        let starting = assigned(&ready);
        assert_eq!(starting.step(), "starting");
        assert_eq!(starting.container_key(), ready.container_key(), "the same container");
        assert_eq!(starting.generation, ready.generation.next());
    }

    #[test]
    fn a_slot_on_its_way_out_is_given_nothing_and_keeps_its_deadline() {
        let by = Some(sample::now());
        let going = command(&prepared(), SlotCommand::Drain { by });
        assert_eq!(going.drains, Drains::own(by));
        let draining = Slot { drains: Drains::own(None), ..sample::idle_slot(1) };
        assert_eq!(command(&draining, SlotCommand::Prepare { limits: LIMITS }), draining);
    }

    #[test]
    fn making_a_container_ahead_is_no_use_of_the_slot() {
        let used = Some(sample::now());
        let idle = |ahead| SlotState::Idle { last_used_at: used, ahead };
        let slot = Slot { state: idle(Preparation::Absent), ..sample::idle_slot(1) };
        let preparing = command(&slot, SlotCommand::Prepare { limits: LIMITS });
        assert_eq!(preparing.state, idle(Preparation::Preparing { limits: LIMITS, failures: 0 }));
    }

    #[test]
    fn who_comes_before_it_is_ready_is_served_and_gets_no_second_one() {
        for slot in [preparing(), unprepared()] {
            let resuming = assigned(&slot);
            assert_eq!((resuming.step(), resuming.container_key()), ("resuming", slot.container_key()));
            assert!(matches!(effects_of(&resuming)[..], [Effect::PullImage { .. }, Effect::WakeAt(_)]));
            assert!(matches!(decided(&resuming, made(&slot), 1), Err(Rejection::Stale { .. })));
            // What may have been made is known gone before the slot is free.
            let (bot_id, reason) = (crate::ids::BotId(1), crate::bot::EndReason::LeftByRequest);
            let cancelled = next(&resuming, SlotEvent::LeaveRequested { bot_id, reason });
            assert_eq!(cancelled.step(), "stopping");
        }
    }

    #[test]
    fn what_is_of_no_use_is_known_gone_before_another_is_made_or_the_slot_goes() {
        let commands = [
            (SlotCommand::ChangeImage { image: "image:2".into() }, "idle"),
            (SlotCommand::Refresh, "idle"),
            (SlotCommand::Prepare { limits: OTHERS }, "idle"),
            (SlotCommand::Unprepare, "idle"),
            (SlotCommand::Drain { by: None }, "retired"),
            (SlotCommand::Retire, "retired"),
        ];
        for slot in [preparing(), prepared(), unprepared()] {
            for (given, afterwards) in commands.clone() {
                let removing = command(&slot, given.clone());
                let [Effect::StopContainer { generation, operation, .. }] = effects_of(&removing)[..] else {
                    panic!("{given:?}: {removing:?}")
                };
                assert_eq!((generation, operation), (slot.container_generation(), slot.operation.next()));
                assert_eq!(command(&removing, SlotCommand::Prepare { limits: LIMITS }), removing);
                assert_eq!(next(&removing, stopped(&removing)).step(), afterwards, "{given:?}");
            }
        }
    }

    #[test]
    fn a_bot_that_comes_while_it_is_removed_gets_a_number_of_its_own_when_that_is_known_gone() {
        let removing = command(&prepared(), SlotCommand::Refresh);
        let waiting = assigned(&removing);
        assert_eq!((waiting.step(), waiting.container_key()), ("restarting", removing.container_key()));
        let anew = next(&waiting, stopped(&waiting));
        assert_eq!((anew.step(), anew.generation), ("pulling", removing.generation.next().next()));
        let going = command(&removing, SlotCommand::Retire);
        let late = SlotEvent::Assigned { bot: Box::new(sample::bot(1)), source: BotSource::Queue };
        assert!(matches!(decided(&going, late, 1), Err(Rejection::Illegal { .. })));
        assert_eq!(assigned(&command(&going, SlotCommand::Undrain)).step(), "restarting");
    }

    #[test]
    fn failures_are_no_error_of_the_slot_and_are_tried_again_less_and_less_often() {
        let removing = command(&prepared(), SlotCommand::Unprepare);
        for (slot, failed, again) in
            [(preparing(), "unprepared", "preparing"), (removing, "lingering", "removing")]
        {
            let (mut slot, mut now_s, mut waits_s) = (slot, 1, Vec::new());
            for _ in 0..12 {
                let (generation, operation) = (slot.container_generation(), slot.operation);
                let event = match again {
                    "preparing" => SlotEvent::PrepareFailed { generation, operation },
                    _ => SlotEvent::StopFailed { generation, operation, reason: "e".into(), answered: true },
                };
                let waiting = decided(&slot, event, now_s).expect("is taken").next;
                assert_eq!((waiting.step(), waiting.status()), (failed, Some(SlotStatus::Idle)));
                let [Effect::WakeAt(at)] = effects_of(&waiting)[..] else { panic!("{waiting:?}") };
                let wait_s = (at - sample::now()).num_seconds() + 1 - now_s;
                assert_eq!(decided(&waiting, SlotEvent::Woke, now_s).expect("is taken").next, waiting);
                waits_s.push(wait_s);
                now_s += wait_s;
                slot = decided(&waiting, SlotEvent::Woke, now_s).expect("is taken").next;
                assert_eq!((slot.step(), slot.operation), (again, Operation(operation.0 + 1)));
            }
            assert!(waits_s[0] < 12 && waits_s[2] > waits_s[0], "{waits_s:?}");
            assert!(waits_s.iter().all(|wait_s| *wait_s <= 301) && waits_s[11] > 200, "{waits_s:?}");
        }
    }

    #[test]
    fn one_that_is_gone_is_made_again_and_one_that_nobody_asked_for_is_removed() {
        let seen = |slot: &Slot, presence, after_s| {
            let (generation, began_at) =
                (slot.container_generation(), slot.changed_at + TimeDelta::seconds(after_s));
            next(slot, SlotEvent::Observed { generation, presence, began_at })
        };
        let ready = prepared();
        assert_eq!(seen(&ready, Presence::Gone, 0), ready, "the look was before");
        let again = seen(&ready, Presence::Gone, 1);
        assert_eq!((again.step(), again.container_key()), ("preparing", ready.container_key()));
        assert_eq!(seen(&ready, Presence::Prepared, 1), ready);
        assert_eq!(seen(&ready, Presence::Running, 1).step(), "removing");
        assert_eq!(seen(&sample::idle_slot(1), Presence::Prepared, 1).step(), "removing");
        assert_eq!(seen(&sample::vacant_slot(1), Presence::Prepared, 1).step(), "idle");
    }
}
