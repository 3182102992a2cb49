//! What the pool and operators may command a slot to do, and what that leads to in each state. Part of the machine:
//! no I/O, no clock, no randomness.

use super::drains::{Deadline, Drains};
use super::machine::{Decided, Step, Transition};
use super::{BusyStep, RecoveryStep, Slot, SlotState};
use crate::bot::{End, EndReason};
use crate::ids::BotId;
use crate::journal::Change;
use crate::ports::ResourceLimits;

/// What the pool and operators may command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotCommand {
    /// Be stored, though no bot has come yet: the slot was made ahead of need, and its image is there.
    Store,
    /// Use another image from the next bot on.
    ChangeImage {
        /// Its reference.
        image: String,
    },
    /// Its image was made present anew: whoever counts how long it is idle begins again.
    Refresh,
    /// Have the container for the next bot ready.
    Prepare {
        /// What it may use; one that was made with other limits is removed first.
        limits: ResourceLimits,
    },
    /// Have no container ready.
    Unprepare,
    /// Take no new bot, and be deleted when there is none.
    Drain {
        /// When a bot that is still there is asked to leave; `None`: it stays for as long as it likes.
        by: Deadline,
    },
    /// Take bots again, where nothing else is being emptied.
    Undrain,
    /// Go by the drains of its platform and its host as they are now.
    FollowDrain {
        /// The earliest deadline of them; `None`: it is in none.
        wider: Option<Deadline>,
    },
    /// Recover from an error now.
    Reset,
    /// Be deleted now; only an idle slot can.
    Retire,
    /// Be deleted though its container is not known gone: its host is lost for good. Only where what may be there could not
    /// be removed, and is not being removed just now.
    Forget,
    /// Stop the container and start another for the same bot; only while the bot is not in its meeting.
    Restart,
    /// Ask a bot that runs to leave, and give one that has not started back to the queue.
    ClearOut,
    /// End the bot, whatever it does.
    End {
        /// Only this one: it may have left the slot, and must not hit the next. `None`: whichever is there.
        bot: Option<BotId>,
        /// The sentence for people.
        detail: String,
    },
}

impl SlotCommand {
    /// Its name, for logs and refusals.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Store => "Store",
            Self::ChangeImage { .. } => "ChangeImage",
            Self::Refresh => "Refresh",
            Self::Prepare { .. } => "Prepare",
            Self::Unprepare => "Unprepare",
            Self::Drain { .. } => "Drain",
            Self::Undrain => "Undrain",
            Self::FollowDrain { .. } => "FollowDrain",
            Self::Reset => "Reset",
            Self::Retire => "Retire",
            Self::Forget => "Forget",
            Self::Restart => "Restart",
            Self::ClearOut => "ClearOut",
            Self::End { .. } => "End",
        }
    }
}

impl Step<'_> {
    pub(super) fn commanded(&self, command: SlotCommand) -> Decided {
        let vacant = self.slot.version == 0;
        match (command, &self.slot.state) {
            (SlotCommand::Store, SlotState::Idle { .. }) if vacant => self.rewritten(self.slot.clone()),
            (_, SlotState::Idle { .. }) if vacant => self.illegal(),
            (SlotCommand::End { bot: Some(meant), .. }, _)
                if self.slot.bot().is_none_or(|bot| bot.id != meant) =>
            {
                self.stale()
            }
            (command, SlotState::Idle { ahead, .. }) => self.commanded_idle(command, ahead),
            (SlotCommand::Store, _) => self.unchanged(),
            (SlotCommand::ChangeImage { .. } | SlotCommand::Refresh, _) => self.illegal(),
            (SlotCommand::Prepare { .. } | SlotCommand::Unprepare, _) => self.illegal(),
            (SlotCommand::Drain { by }, _) => self.drained(self.drains_with_own(Some(by))),
            (SlotCommand::Undrain, _) => self.drained(self.drains_with_own(None)),
            (SlotCommand::FollowDrain { wider }, _) => self.drained(self.drains_with_wider(wider)),
            (SlotCommand::Reset, SlotState::Error { step: RecoveryStep::Waiting { .. }, .. }) => {
                self.recover()
            }
            (SlotCommand::Reset, SlotState::Error { .. }) => self.unchanged(),
            (SlotCommand::Forget, SlotState::Error { step: RecoveryStep::Waiting { .. }, .. }) => {
                self.retire()
            }
            (SlotCommand::Restart, _) => self.restart(),
            (SlotCommand::ClearOut, SlotState::Deploying { bot, step, .. }) => self.clear_out(bot, *step),
            (SlotCommand::ClearOut, SlotState::Busy { bot, container, step: BusyStep::Running { .. } }) => {
                self.leave(bot, container, EndReason::LeftByRequest)
            }
            (SlotCommand::ClearOut, _) => self.unchanged(),
            (SlotCommand::End { detail, .. }, SlotState::Deploying { bot, .. }) => {
                self.stop(bot, None, Some(by_operator(detail)))
            }
            (SlotCommand::End { .. }, SlotState::Busy { step: BusyStep::Stopping, .. }) => self.unchanged(),
            (SlotCommand::End { detail, .. }, SlotState::Busy { bot, container, .. }) => {
                self.stop(bot, container.clone(), Some(by_operator(detail)))
            }
            (SlotCommand::Reset | SlotCommand::Retire | SlotCommand::Forget | SlotCommand::End { .. }, _) => {
                self.illegal()
            }
        }
    }

    /// The same slot in these drains.
    pub(super) fn drained(&self, drains: Drains) -> Decided {
        if self.slot.drains == drains {
            return self.unchanged();
        }
        self.rewritten(Slot { drains, ..self.slot.clone() })
    }

    pub(super) fn drains_with_own(&self, own: Option<Deadline>) -> Drains {
        Drains { own, ..self.slot.drains }
    }

    pub(super) fn drains_with_wider(&self, wider: Option<Deadline>) -> Drains {
        Drains { wider, ..self.slot.drains }
    }

    /// The slot is gone from the pool, and its number is free again.
    pub(super) fn retire(&self) -> Decided {
        let next = Slot { state: SlotState::Retired, ..self.slot.clone() };
        let delete = Change::DeleteSlot { name: next.name.clone(), version: next.version };
        Ok(Transition { next, changes: vec![delete], notices: vec![] })
    }

    /// The same state with another of its facts changed.
    pub(super) fn rewritten(&self, next: Slot) -> Decided {
        self.write(Slot { changed_at: self.now, ..next }, vec![], vec![])
    }
}

fn by_operator(detail: String) -> End {
    End { reason: EndReason::Internal, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bot::{Bot, BotState};
    use crate::ids::Operation;
    use crate::slot::effects::{Effect, effects_of};
    use crate::slot::event::SlotEvent;
    use crate::slot::machine::{Notice, Rejection, transition};
    use crate::slot::{SlotStatus, SlotTiming};
    use crate::testing::sample;
    use chrono::{DateTime, TimeDelta, Utc};
    use proptest::prelude::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        sample::now() + TimeDelta::seconds(seconds)
    }

    fn next(slot: &Slot, event: SlotEvent, seconds: i64) -> Slot {
        transition(slot, event, &SlotTiming::default(), at(seconds)).expect("legal").next
    }

    fn refused(slot: &Slot, command: SlotCommand) -> bool {
        let decided = transition(slot, SlotEvent::Commanded(command), &SlotTiming::default(), at(1));
        matches!(decided, Err(Rejection::Illegal { .. }))
    }

    fn drain(by_s: Option<i64>) -> SlotEvent {
        SlotEvent::Commanded(SlotCommand::Drain { by: by_s.map(at) })
    }

    fn stopped(slot: &Slot, seconds: i64) -> Slot {
        let event = SlotEvent::Stopped { generation: slot.generation, operation: slot.operation };
        next(slot, event, seconds)
    }

    fn leave(slot: &Slot) -> Slot {
        let bot_id = slot.bot().expect("busy").id;
        next(slot, SlotEvent::LeaveRequested { bot_id, reason: EndReason::LeftByRequest }, 0)
    }

    #[test]
    fn a_refusal_names_the_command() {
        let end = SlotEvent::Commanded(SlotCommand::End { bot: None, detail: String::new() });
        let decided = transition(&sample::idle_slot(1), end, &SlotTiming::default(), at(1));
        assert_eq!(
            decided.map_err(|rejection| rejection.to_string()),
            Err("End cannot happen while the slot is idle".to_owned())
        );
    }

    #[test]
    fn nothing_that_runs_is_touched_by_a_reset_or_a_retirement() {
        let busy = sample::busy_slot(1);
        assert!(refused(&busy, SlotCommand::Reset) && refused(&busy, SlotCommand::Retire));
        assert!(refused(&sample::idle_slot(1), SlotCommand::End { bot: None, detail: String::new() }));
    }

    #[test]
    fn an_ended_bot_frees_its_slot() {
        let end = SlotEvent::Commanded(SlotCommand::End { bot: None, detail: "By hand.".into() });
        let ended = next(&sample::busy_slot(1), end, 1);
        let bot = ended.bot().expect("still there");
        assert_eq!(
            (bot.state, bot.end.as_ref().map(|end| end.reason)),
            (BotState::Fatal, Some(EndReason::Internal))
        );
        assert_eq!(stopped(&ended, 2).status(), Some(SlotStatus::Idle));
    }

    #[test]
    fn slots_that_go_go_when_their_container_is_gone() {
        let drained = next(&sample::busy_slot(1), drain(None), 0);
        assert_eq!((drained.status(), drained.changed_at), (Some(SlotStatus::Busy), at(0)));
        assert_eq!(next(&drained, drain(Some(60)), 5).changed_at, at(5));
        let ephemeral = Slot { ephemeral: true, ..sample::busy_slot(1) };
        for slot in [drained, ephemeral] {
            let ended = next(&slot, SlotEvent::Exited { generation: slot.generation, note: "e".into() }, 1);
            assert_eq!(stopped(&ended, 2).state, SlotState::Retired);
        }
        let kept =
            next(&next(&sample::busy_slot(1), drain(None), 0), SlotEvent::Commanded(SlotCommand::Undrain), 0);
        assert!(!kept.drains.any());
    }

    #[test]
    fn at_the_deadline_of_a_drain_the_bot_is_asked_to_leave_and_has_its_grace() {
        let slot = next(&sample::busy_slot(1), drain(Some(60)), 0);
        assert!(effects_of(&slot).contains(&Effect::WakeAt(at(60))));
        assert_eq!(next(&slot, SlotEvent::Woke, 59), slot);
        let leaving = next(&slot, SlotEvent::Woke, 60);
        let bot = leaving.bot().expect("still there");
        assert_eq!((bot.leave, bot.state.is_final()), (Some(EndReason::LeftByRequest), false));
        assert_eq!(next(&leaving, SlotEvent::Woke, 179), leaving, "two minutes for the upload");
        let ended = next(&leaving, SlotEvent::Woke, 180);
        assert_eq!(stopped(&ended, 181).state, SlotState::Retired);
    }

    #[test]
    fn a_drain_that_ends_or_gets_another_deadline_asks_nobody_to_leave_before() {
        let slot = next(&sample::busy_slot(1), drain(Some(60)), 0);
        for (event, after_s) in
            [(SlotEvent::Commanded(SlotCommand::Undrain), 60), (drain(Some(90)), 89), (drain(None), 600)]
        {
            let slot = next(&slot, event, 1);
            assert_eq!(next(&slot, SlotEvent::Woke, after_s), slot);
        }
    }

    #[test]
    fn a_bot_that_deploys_at_the_deadline_goes_elsewhere() {
        let assigned = SlotEvent::Assigned {
            bot: Box::new(sample::bot(1)),
            source: crate::slot::event::BotSource::Queue,
        };
        let pulling = next(&next(&sample::idle_slot(1), assigned, 0), drain(Some(60)), 0);
        let started = SlotEvent::PullSucceeded { operation: pulling.operation };
        let starting = next(&pulling, started, 1);
        for (slot, state) in [(pulling, None), (starting, Some(SlotStatus::Error))] {
            let woken = transition(&slot, SlotEvent::Woke, &SlotTiming::default(), at(60)).expect("legal");
            assert_eq!(woken.next.status(), state);
            let [Notice::BotReturned { bot, crowded: false }] = &woken.notices[..] else {
                panic!("{:?}", woken.notices)
            };
            assert_eq!((bot.state, bot.failed_starts()), (BotState::Queued, 0));
        }
    }

    #[test]
    fn a_slot_in_error_recovers_at_once_on_command() {
        let slot = sample::busy_slot(1);
        let ended = next(&slot, SlotEvent::Exited { generation: slot.generation, note: "e".into() }, 1);
        let failed = SlotEvent::StopFailed {
            generation: ended.generation,
            operation: ended.operation,
            reason: "e".into(),
            answered: true,
        };
        let error = next(&ended, failed, 2);
        let recovering = next(&error, SlotEvent::Commanded(SlotCommand::Reset), 3);
        assert_eq!(recovering.operation, Operation(error.operation.0 + 1));
        assert_eq!(stopped(&recovering, 4).status(), Some(SlotStatus::Idle));
    }

    proptest! {
        /// However segments arrive, patience never shrinks, never passes the limit, and ends.
        #[test]
        fn segments_lengthen_the_grace_up_to_the_limit(arrivals in proptest::collection::vec(1_i64..200, 0..80)) {
            let timing = SlotTiming::default();
            let mut slot = leave(&sample::busy_slot(1));
            let (mut now_s, mut until_s) = (0, 120);
            for wait_s in arrivals {
                now_s += wait_s;
                let event = SlotEvent::SegmentArrived { generation: slot.generation, at: at(now_s) };
                slot = next(&slot, event, now_s);
                until_s = until_s.max((now_s + 150).min(900));
                match &slot.state {
                    SlotState::Busy { step: BusyStep::Leaving { until, latest }, .. } => {
                        prop_assert_eq!((*until, *latest), (at(until_s), at(900)));
                    }
                    SlotState::Busy { bot, step: BusyStep::Stopping, .. } => {
                        prop_assert!(now_s >= until_s && bot.state.is_final());
                        return Ok(());
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            let ended = transition(&slot, SlotEvent::Woke, &timing, at(900)).expect("legal").next;
            prop_assert!(ended.bot().is_some_and(|bot: &Bot| bot.state == BotState::Done));
        }
    }
}
