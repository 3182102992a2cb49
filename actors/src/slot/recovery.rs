//! How a slot in error comes back: part of the machine. What is left of its container is stopped; known gone, the slot
//! is free again. Tries are quick at first and then seldom; an engine that failed too often is not trusted with it again.

use super::event::SlotEvent;
use super::machine::{Decided, Step};
use super::{RecoveryStep, SlotState, SlotTiming};
use crate::backoff::is_over;
use crate::ids::ContainerId;
use crate::journal::Change;
use std::time::Duration;

/// Quick tries wait longer with every failure that the engine answered, up to so many.
const QUICK_MAX: u32 = 6;

impl SlotTiming {
    /// The longest that a recovery waits for another try.
    fn longest_recovery_wait(&self) -> Duration {
        self.recovery_interval.max(self.recovery_delay * QUICK_MAX)
    }
}

/// How a slot's error ended with this change, if it did: `Some(true)` where the slot was given up. Only the stop brings it
/// to an end: a slot that an operator forgets, which waits for another try, has not recovered.
pub(super) fn recovery(before: &SlotState, after: &SlotState, timing: &SlotTiming) -> Option<bool> {
    let SlotState::Error { attempts, step: RecoveryStep::Stopping, .. } = before else { return None };
    let is_over = matches!(after, SlotState::Idle { .. } | SlotState::Retired);
    // One that drains or is ephemeral goes also when it has recovered.
    is_over.then_some(*attempts >= timing.recovery_attempts)
}

impl Step<'_> {
    pub(super) fn error(&self, at: RecoveryStep, event: SlotEvent) -> Decided {
        match (event, at) {
            (SlotEvent::Woke, RecoveryStep::Waiting { until })
                if is_over(until, self.timing.longest_recovery_wait(), self.now) =>
            {
                self.recover()
            }
            (SlotEvent::Stopped { .. }, RecoveryStep::Stopping) => self.recovered(),
            (SlotEvent::StopFailed { reason, answered, .. }, RecoveryStep::Stopping) => {
                self.recovery_failed(reason, answered)
            }
            (SlotEvent::Commanded(command), _) => self.commanded(command),
            (SlotEvent::Woke | SlotEvent::Observed { .. } | SlotEvent::Exited { .. }, _) => self.unchanged(),
            (SlotEvent::SegmentArrived { .. }, _) => self.stale(),
            (SlotEvent::Started { .. } | SlotEvent::StartFailed { .. }, _) => self.stale(),
            (SlotEvent::Claimed { .. } | SlotEvent::Reported { .. }, _) => self.stale(),
            (SlotEvent::LeaveRequested { .. } | SlotEvent::HeartbeatLost { .. }, _) => self.stale(),
            (SlotEvent::PullSucceeded { .. } | SlotEvent::PullFailed { .. }, _) => self.stale(),
            (SlotEvent::PullDeclined { .. }, _) => self.stale(),
            (SlotEvent::Prepared { .. } | SlotEvent::PrepareFailed { .. }, _) => self.stale(),
            (SlotEvent::Stopped { .. } | SlotEvent::StopFailed { .. }, RecoveryStep::Waiting { .. }) => {
                self.stale()
            }
            (SlotEvent::Assigned { .. }, _) => self.illegal(),
        }
    }

    pub(super) fn fail(
        &self,
        container: Option<ContainerId>,
        reason: String,
        attempts: u32,
        changes: Vec<Change>,
    ) -> Decided {
        let step = RecoveryStep::Waiting { until: self.after(self.timing.recovery_delay) };
        let state = SlotState::Error { reason, attempts, since: self.now, container, step };
        self.write(self.moved(state), changes, vec![])
    }

    pub(super) fn recover(&self) -> Decided {
        let mut next = self.operated(self.slot.state.clone());
        if let SlotState::Error { step, .. } = &mut next.state {
            *step = RecoveryStep::Stopping;
        }
        self.write(next, vec![], vec![])
    }

    fn recovered(&self) -> Decided {
        match &self.slot.state {
            // An engine that failed this often is not trusted with the slot again: the pool grows a new one.
            SlotState::Error { attempts, .. } if *attempts >= self.timing.recovery_attempts => self.retire(),
            _ => self.free(),
        }
    }

    fn recovery_failed(&self, failure: String, answered: bool) -> Decided {
        let mut next = self.moved(self.slot.state.clone());
        if let SlotState::Error { reason, attempts, since, step, .. } = &mut next.state {
            *attempts += u32::from(answered);
            *reason = format!("stop: {failure}");
            let quick = self.timing.recovery_delay * (*attempts).clamp(1, QUICK_MAX);
            let for_long = (self.now - *since).to_std().is_ok_and(|age| age >= self.timing.recovery_interval);
            let wait = if for_long { self.timing.recovery_interval } else { quick };
            *step = RecoveryStep::Waiting { until: self.after(wait) };
        }
        self.write(next, vec![], vec![])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Slot;
    use crate::slot::command::SlotCommand;
    use crate::slot::machine::transition;
    use crate::testing::sample;
    use chrono::{DateTime, TimeDelta, Utc};

    fn recovering(attempts: u32) -> Slot {
        let state = SlotState::Error {
            reason: "no room".into(),
            attempts,
            since: sample::now(),
            container: None,
            step: RecoveryStep::Stopping,
        };
        Slot { state, ..sample::idle_slot(1) }
    }

    fn after(slot: &Slot, event: SlotEvent, now: DateTime<Utc>) -> Slot {
        transition(slot, event, &SlotTiming::default(), now).expect("is taken").next
    }

    fn stop_failed(slot: &Slot, answered: bool, now: DateTime<Utc>) -> Slot {
        let (generation, operation) = (slot.generation, slot.operation);
        after(slot, SlotEvent::StopFailed { generation, operation, reason: "e".into(), answered }, now)
    }

    fn stopped(slot: &Slot) -> Slot {
        let (generation, operation) = (slot.generation, slot.operation);
        after(slot, SlotEvent::Stopped { generation, operation }, sample::now())
    }

    #[test]
    fn an_engine_that_failed_three_times_is_not_trusted_with_the_slot_again() {
        assert!(matches!(stopped(&recovering(2)).state, SlotState::Idle { .. }));
        assert_eq!(stopped(&recovering(3)).state, SlotState::Retired);
    }

    #[test]
    fn only_a_slot_whose_container_is_known_gone_has_recovered() {
        let timing = SlotTiming::default();
        let ended = |before: &Slot, after: &Slot| recovery(&before.state, &after.state, &timing);
        for (attempts, given_up) in [(0, false), (2, false), (3, true)] {
            let slot = recovering(attempts);
            assert_eq!(ended(&slot, &stopped(&slot)), Some(given_up), "after {attempts} attempts");
        }
        let failed = stop_failed(&recovering(1), true, sample::now());
        assert_eq!(ended(&recovering(1), &failed), None, "it is tried again");
        let forgotten = after(&failed, SlotEvent::Commanded(SlotCommand::Forget), sample::now());
        assert_eq!(forgotten.state, SlotState::Retired);
        assert_eq!(ended(&failed, &forgotten), None, "nobody knows what is left of it");
    }

    #[test]
    fn only_what_the_engine_answered_counts() {
        for (answered, expected) in [(true, 2), (false, 1)] {
            let SlotState::Error { attempts, .. } =
                stop_failed(&recovering(1), answered, sample::now()).state
            else {
                panic!("is in error");
            };
            assert_eq!(attempts, expected);
        }
    }

    #[test]
    fn tries_are_quick_at_first_and_then_seldom() {
        let timing = SlotTiming::default();
        let wait = |age: std::time::Duration| {
            let now = sample::now() + TimeDelta::from_std(age).expect("small");
            match stop_failed(&recovering(1), true, now).state {
                SlotState::Error { step: RecoveryStep::Waiting { until }, .. } => until - now,
                state => panic!("waits, not {state:?}"),
            }
        };
        assert_eq!(wait(std::time::Duration::ZERO).to_std(), Ok(timing.recovery_delay * 2));
        assert_eq!(wait(timing.recovery_interval).to_std(), Ok(timing.recovery_interval));
    }
}
