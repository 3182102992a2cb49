//! What becomes of a bot whose start comes to nothing: part of the machine. One commit takes it out of the slot and puts
//! it at the head of its line in the queue, so that it is in exactly one of them; or it ends, where it has been elsewhere
//! often enough, or where its program has claimed and is not known gone: it would be in its meeting twice.

use super::DeployStep;
use super::machine::{Decided, Notice, Step, Transition};
use crate::bot::machine as life;
use crate::bot::{Bot, End, EndReason};
use crate::journal::Change;

impl Step<'_> {
    /// The engine could not start it. What it may have left behind is for the recovery.
    pub(super) fn fail_deploy(&self, bot: &Bot, reason: String) -> Decided {
        let goes_elsewhere = bot.nonce.is_none() && bot.failed_starts() < self.timing.start_elsewhere;
        let (changes, notices) = if goes_elsewhere {
            self.returned(bot, reason.clone(), true, false)
        } else {
            let end = End { reason: EndReason::DeployFailed, detail: reason.clone() };
            let (_, changes, notices) = self.ended(bot, Some(end));
            (changes, notices)
        };
        let transition = self.fail(None, reason, 0, changes)?;
        Ok(Transition { notices, ..transition })
    }

    /// The slot is to be empty, and its bot has not started.
    pub(super) fn clear_out(&self, bot: &Bot, at: DeployStep) -> Decided {
        self.give_back(bot, at, "the slot is being emptied".to_owned(), false)
    }

    /// The bot goes elsewhere, through no failure of its own. Where nothing can be there yet the slot is as free as it
    /// was, else what may be there is for the recovery. `crowded`: because too many wait for the image.
    pub(super) fn give_back(&self, bot: &Bot, at: DeployStep, reason: String, crowded: bool) -> Decided {
        if bot.nonce.is_some() {
            return self.stop(bot, None, Some(life::end(EndReason::LeftByRequest)));
        }
        let (changes, notices) = self.returned(bot, reason.clone(), false, crowded);
        if at == DeployStep::Pulling {
            return self.free_with(changes, notices);
        }
        let transition = self.fail(None, reason, 0, changes)?;
        Ok(Transition { notices, ..transition })
    }

    fn returned(&self, bot: &Bot, reason: String, failed: bool, crowded: bool) -> (Vec<Change>, Vec<Notice>) {
        let (bot, changes) = life::returned(bot, reason, failed, self.now);
        (changes, vec![Notice::BotReturned { bot: Box::new(bot), crowded }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bot::{BotSpec, BotState};
    use crate::ids::BotId;
    use crate::queue::QueueEntry;
    use crate::slot::drains::Drains;
    use crate::slot::event::{BotSource, SlotEvent};
    use crate::slot::machine::transition;
    use crate::slot::{Slot, SlotState, SlotStatus, SlotTiming};
    use crate::testing::sample;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    const WORDS: &str = "no such image";

    fn take(slot: &Slot, event: SlotEvent) -> Transition {
        transition(slot, event, &SlotTiming::default(), sample::now()).expect("legal")
    }

    fn given(bot: Bot, number: u32) -> Slot {
        let event = SlotEvent::Assigned { bot: Box::new(bot), source: BotSource::Queue };
        take(&sample::idle_slot(number), event).next
    }

    fn pull_failed(slot: &Slot) -> Transition {
        take(slot, SlotEvent::PullFailed { operation: slot.operation, reason: WORDS.into() })
    }

    fn declined(slot: &Slot) -> Transition {
        take(slot, SlotEvent::PullDeclined { operation: slot.operation, reason: "many wait".into() })
    }

    /// The bot that a commit puts into the queue; the same as in its rows.
    fn back(transition: &Transition) -> Option<Bot> {
        let returned = transition.notices.iter().find_map(|notice| match notice {
            Notice::BotReturned { bot, .. } => Some(bot.as_ref().clone()),
            Notice::BotEnded(_) => None,
        });
        let entries: Vec<&QueueEntry> = transition
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::InsertQueueEntry(entry) => Some(entry),
                _ => None,
            })
            .collect();
        let expected: Vec<QueueEntry> = returned.iter().map(QueueEntry::returned).collect();
        assert_eq!(entries, expected.iter().collect::<Vec<_>>());
        returned
    }

    #[test]
    fn a_failed_start_goes_elsewhere_once_and_then_ends_with_the_engines_words() {
        let first = pull_failed(&given(sample::bot(1), 1));
        assert_eq!((first.next.status(), first.next.bot()), (Some(SlotStatus::Error), None));
        let bot = back(&first).expect("is back in the queue");
        assert_eq!((bot.state, bot.seat.clone(), bot.failed_starts()), (BotState::Queued, None, 1));
        let second = pull_failed(&given(bot, 2));
        assert_eq!(back(&second), None);
        let [Notice::BotEnded(bot)] = &second.notices[..] else { panic!("{:?}", second.notices) };
        let end = bot.end.as_ref().expect("has ended");
        assert_eq!((end.reason, end.detail.as_str()), (EndReason::DeployFailed, WORDS));
    }

    #[test]
    fn a_start_that_could_not_begin_is_no_failure_and_leaves_the_slot_free() {
        let mut bot = sample::bot(1);
        for _ in 0..5 {
            let declined = declined(&given(bot, 1));
            assert_eq!(declined.next.status(), Some(SlotStatus::Idle));
            bot = back(&declined).expect("is back in the queue");
            assert_eq!(bot.failed_starts(), 0);
        }
        assert_eq!(life::queue_timeout(&bot).reason, EndReason::QueueTimeout);
        let failed = back(&pull_failed(&given(bot, 1))).expect("is back in the queue");
        assert_eq!(life::queue_timeout(&failed).detail, WORDS);
        let draining = Slot { drains: Drains::own(None), ..given(sample::bot(2), 2) };
        assert_eq!(declined(&draining).next.state, SlotState::Retired);
    }

    #[test]
    fn a_bot_that_is_cancelled_before_anything_was_started_leaves_the_slot_free() {
        let pulling = given(sample::bot(1), 1);
        let cancel = || SlotEvent::LeaveRequested { bot_id: BotId(1), reason: EndReason::LeftByRequest };
        let cancelled = take(&pulling, cancel());
        assert_eq!((cancelled.next.status(), cancelled.next.bot()), (Some(SlotStatus::Idle), None));
        let [Notice::BotEnded(bot)] = &cancelled.notices[..] else { panic!("{:?}", cancelled.notices) };
        assert_eq!(bot.end.as_ref().map(|end| end.reason), Some(EndReason::Cancelled));
        assert!(cancelled.changes.contains(&Change::WriteBot(bot.clone())), "{:?}", cancelled.changes);
        let starting = take(&pulling, SlotEvent::PullSucceeded { operation: pulling.operation }).next;
        assert_eq!(take(&starting, cancel()).next.step(), "stopping");
    }

    proptest! {
        /// It comes first of its priority, waits as long as it wanted to in all, and at least a minute.
        #[test]
        fn it_keeps_its_deadline(timeout_ms in 0_u32..600_000, created_s in 0_i64..900, start_s in proptest::option::of(0_i64..900)) {
            let mut bot = sample::bot(7);
            bot.created_at = sample::now() - TimeDelta::seconds(created_s);
            let start_at = start_s.map(|start_s| bot.created_at + TimeDelta::seconds(start_s));
            bot.spec = BotSpec { queue_timeout_ms: timeout_ms, start_at, ..sample::spec() }.into();
            let bot = back(&pull_failed(&given(bot, 1))).expect("is back in the queue");
            let entry = QueueEntry::returned(&bot);
            let asked_for = bot.spec.start_at.unwrap_or(bot.created_at);
            let wanted = asked_for + TimeDelta::milliseconds(i64::from(timeout_ms));
            prop_assert_eq!(entry.deadline_at, wanted.max(sample::now() + TimeDelta::seconds(60)));
            prop_assert!(entry.place() < sample::queue_entry(1, 1).place());
            let later = QueueEntry::returned(&Bot { id: BotId(8), ..bot });
            prop_assert!(entry.place() < later.place());
        }
    }
}
