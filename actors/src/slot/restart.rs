//! How a bot's container is started again: part of the machine. A generation has one container, so a restart is two
//! steps: the container is stopped, and when it is known gone the same bot is assigned to the slot anew, in the next
//! generation. What the old program still says is of the past.
//!
//! It is safe only while the bot is not in its meeting: what it recorded belongs to its generation, and a life does not
//! go back. A container that does not stop is told again a few times. Where the restart comes to nothing the bot goes
//! elsewhere only if its program never claimed: one that did may be in its meeting still. See [`super::setback`].

use super::event::SlotEvent;
use super::machine::{Decided, Step};
use super::{BusyStep, DeployStep, Slot, SlotState};
use crate::bot::machine as life;
use crate::bot::{Bot, BotState, EndReason, Seat};
use crate::journal::Change;
use chrono::{DateTime, Utc};

impl Step<'_> {
    /// The command itself, in whatever state.
    pub(super) fn restart(&self) -> Decided {
        match &self.slot.state {
            SlotState::Deploying { step: DeployStep::Restarting, .. } => self.unchanged(),
            SlotState::Deploying { bot, .. } => self.stop_to_restart(bot),
            SlotState::Busy { bot, step: BusyStep::Running { .. }, .. }
                if bot.state == BotState::JoiningCall =>
            {
                self.stop_to_restart(bot)
            }
            _ => self.illegal(),
        }
    }

    pub(super) fn restarting(
        &self,
        bot: &Bot,
        attempts: u32,
        deadline: DateTime<Utc>,
        event: SlotEvent,
    ) -> Decided {
        match event {
            SlotEvent::Stopped { .. } => self.assign_anew(bot),
            SlotEvent::StopFailed { .. } if attempts + 1 < self.timing.start_attempts => {
                self.await_stop(bot, attempts + 1, deadline)
            }
            SlotEvent::StopFailed { reason, .. } => self.fail_deploy(bot, format!("stop: {reason}")),
            SlotEvent::LeaveRequested { bot_id, .. } if bot_id == bot.id => {
                self.stop(bot, None, Some(life::end(EndReason::Cancelled)))
            }
            SlotEvent::Woke if self.now >= deadline => {
                self.fail_deploy(bot, self.overdue(DeployStep::Restarting))
            }
            SlotEvent::Woke if self.drain_is_due() => self.clear_out(bot, DeployStep::Restarting),
            SlotEvent::Commanded(command) => self.commanded(command),
            SlotEvent::Woke | SlotEvent::Exited { .. } | SlotEvent::Observed { .. } => self.unchanged(),
            SlotEvent::SegmentArrived { .. } => self.unchanged(),
            SlotEvent::Started { .. } | SlotEvent::StartFailed { .. } => self.stale(),
            SlotEvent::Claimed { .. } | SlotEvent::Reported { .. } | SlotEvent::HeartbeatLost { .. } => {
                self.stale()
            }
            SlotEvent::PullSucceeded { .. } | SlotEvent::PullFailed { .. } => self.stale(),
            SlotEvent::PullDeclined { .. } | SlotEvent::LeaveRequested { .. } => self.stale(),
            SlotEvent::Prepared { .. } | SlotEvent::PrepareFailed { .. } => self.stale(),
            SlotEvent::Assigned { .. } => self.illegal(),
        }
    }

    fn stop_to_restart(&self, bot: &Bot) -> Decided {
        self.await_stop(bot, 0, self.after(self.timing.deploy))
    }

    /// The container is stopped once more; `attempts` that failed.
    fn await_stop(&self, bot: &Bot, attempts: u32, deadline: DateTime<Utc>) -> Decided {
        let step = DeployStep::Restarting;
        let state = SlotState::Deploying { bot: Box::new(bot.clone()), step, attempts, deadline };
        self.write(self.operated(state), vec![], vec![])
    }

    /// The container is known gone: the same bot in the next generation. Its state stays, as does the number of its last
    /// report: its next program goes on behind it.
    fn assign_anew(&self, bot: &Bot) -> Decided {
        let generation = self.slot.generation.next();
        let mut bot = bot.clone();
        bot.deployed_at = Some(self.now);
        bot.seat = Some(Seat { slot: self.slot.name.clone(), generation });
        bot.nonce = None;
        bot.version += 1;
        let changes = vec![Change::WriteBot(Box::new(bot.clone()))];
        let state = SlotState::Deploying {
            bot: Box::new(bot),
            step: DeployStep::Pulling,
            attempts: 0,
            deadline: self.after(self.timing.pull),
        };
        self.write(Slot { generation, ..self.operated(state) }, changes, vec![])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bot::End;
    use crate::ids::{ContainerId, Generation};
    use crate::slot::command::SlotCommand;
    use crate::slot::drains::Drains;
    use crate::slot::effects::{Effect, effects_of};
    use crate::slot::machine::{Notice, Rejection, Transition, transition};
    use crate::slot::{SlotStatus, SlotTiming};
    use crate::testing::sample;
    use uuid::Uuid;

    fn in_state(state: BotState) -> Slot {
        let mut slot = sample::busy_slot(1);
        if let SlotState::Busy { bot, .. } = &mut slot.state {
            bot.state = state;
        }
        slot
    }

    fn decided(slot: &Slot, event: SlotEvent) -> Decided {
        transition(slot, event, &SlotTiming::default(), sample::now())
    }

    fn restart(slot: &Slot) -> Decided {
        decided(slot, SlotEvent::Commanded(SlotCommand::Restart))
    }

    fn stopped(slot: &Slot) -> SlotEvent {
        SlotEvent::Stopped { generation: slot.generation, operation: slot.operation }
    }

    #[test]
    fn a_bot_is_started_again_in_the_next_generation_when_its_container_is_gone() {
        let before = in_state(BotState::JoiningCall);
        let stopping = restart(&before).expect("legal").next;
        assert_eq!(
            (stopping.generation, stopping.status()),
            (before.generation, Some(SlotStatus::Deploying))
        );
        let stops =
            effects_of(&stopping).into_iter().filter(|effect| matches!(effect, Effect::StopContainer { .. }));
        assert_eq!(stops.count(), 1);
        let anew = decided(&stopping, stopped(&stopping)).expect("legal").next;
        let bot = anew.bot().expect("the same").clone();
        assert_eq!(anew.generation, before.generation.next());
        assert_eq!(bot.seat.map(|seat| seat.generation), Some(anew.generation));
        assert_eq!(
            (bot.id, bot.state, bot.nonce, bot.report_seq),
            (crate::ids::BotId(1), BotState::JoiningCall, None, 3)
        );
        assert!(effects_of(&anew).iter().any(|effect| matches!(effect, Effect::PullImage { .. })));
    }

    #[test]
    fn what_is_in_its_meeting_is_not_restarted() {
        for state in [BotState::InWaitingRoom, BotState::InCall, BotState::Recording, BotState::Leaving] {
            assert!(
                matches!(restart(&in_state(state)), Err(Rejection::Illegal { .. })),
                "{}",
                state.as_str()
            );
        }
        assert!(restart(&sample::idle_slot(1)).is_err());
    }

    #[test]
    fn what_the_old_program_still_says_is_of_the_past() {
        let stopping = restart(&in_state(BotState::JoiningCall)).expect("legal").next;
        let generation = stopping.generation;
        let report = crate::bot::machine::Report {
            seq: 4,
            at: sample::now(),
            body: crate::bot::machine::ReportBody::Ended(End {
                reason: EndReason::Removed,
                detail: String::new(),
            }),
        };
        for late in [
            SlotEvent::Reported { generation, report },
            SlotEvent::Claimed { generation, nonce: Uuid::from_u128(7) },
            SlotEvent::Started {
                generation,
                operation: stopping.operation,
                container: ContainerId("c".into()),
            },
        ] {
            assert!(matches!(decided(&stopping, late), Err(Rejection::Stale { .. })));
        }
        let anew = decided(&stopping, stopped(&stopping)).expect("legal").next;
        let old = Generation(anew.generation.0 - 1);
        let claim = SlotEvent::Claimed { generation: old, nonce: Uuid::from_u128(7) };
        assert!(matches!(decided(&anew, claim), Err(Rejection::Stale { .. })));
    }

    fn stop_failed(slot: &Slot) -> Decided {
        let (generation, operation) = (slot.generation, slot.operation);
        let event =
            SlotEvent::StopFailed { generation, operation, reason: "no answer".into(), answered: false };
        decided(slot, event)
    }

    /// The outcome of a restart whose container does not stop however often it is told.
    fn stuck(slot: &Slot) -> Transition {
        let mut stopping = restart(slot).expect("legal").next;
        for _ in 1..SlotTiming::default().start_attempts {
            let again = stop_failed(&stopping).expect("legal").next;
            assert_eq!((again.step(), again.operation), ("restarting", stopping.operation.next()));
            assert!(!effects_of(&stopping).contains(&effects_of(&again)[0]), "it is told again");
            stopping = again;
        }
        stop_failed(&stopping).expect("legal")
    }

    #[test]
    fn a_bot_whose_container_does_not_stop_is_not_started_elsewhere_beside_itself() {
        let failed = stuck(&in_state(BotState::JoiningCall));
        assert_eq!(failed.next.status(), Some(SlotStatus::Error), "which stops it until it is gone");
        let [Notice::BotEnded(bot)] = &failed.notices[..] else { panic!("{:?}", failed.notices) };
        assert_eq!(bot.end.as_ref().map(|end| end.reason), Some(EndReason::DeployFailed));
    }

    #[test]
    fn a_drain_that_is_due_does_not_send_it_elsewhere_either() {
        let stopping = restart(&in_state(BotState::JoiningCall)).expect("legal").next;
        let due = Slot { drains: Drains::own(Some(sample::now())), ..stopping };
        let left = decided(&due, SlotEvent::Woke).expect("legal");
        let [Notice::BotEnded(bot)] = &left.notices[..] else { panic!("{:?}", left.notices) };
        assert_eq!(bot.end.as_ref().map(|end| end.reason), Some(EndReason::LeftByRequest));
        assert_eq!(left.next.step(), "stopping");
    }

    #[test]
    fn a_bot_whose_program_never_claimed_goes_elsewhere() {
        let mut unclaimed = in_state(BotState::JoiningCall);
        if let SlotState::Busy { bot, .. } = &mut unclaimed.state {
            bot.nonce = None;
        }
        let failed = stuck(&unclaimed);
        let [Notice::BotReturned { bot, crowded: false }] = &failed.notices[..] else {
            panic!("{:?}", failed.notices)
        };
        assert_eq!((bot.state, bot.failed_starts()), (BotState::Queued, 1));
    }

    #[test]
    fn a_wish_to_leave_is_granted_meanwhile() {
        let stopping = restart(&in_state(BotState::JoiningCall)).expect("legal").next;
        let wish =
            SlotEvent::LeaveRequested { bot_id: crate::ids::BotId(1), reason: EndReason::LeftByRequest };
        let left = decided(&stopping, wish).expect("legal");
        assert!(matches!(left.next.state, SlotState::Busy { step: BusyStep::Stopping, .. }));
        assert_eq!(left.notices.len(), 1);
    }
}
