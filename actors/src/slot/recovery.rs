//! How a slot in error comes back: part of the machine. What is left of its container is stopped; known gone, the slot
//! is free again. Tries are quick at first and then seldom; an engine that failed too often is not trusted with it again.

use super::event::SlotEvent;
use super::machine::{Decided, Step};
use super::{RecoveryStep, SlotState};
use crate::ids::ContainerId;
use crate::journal::Change;

impl Step<'_> {
    pub(super) fn error(&self, at: RecoveryStep, event: SlotEvent) -> Decided {
        match (event, at) {
            (SlotEvent::Woke, RecoveryStep::Waiting { until }) if self.now >= until => self.recover(),
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
            let quick = self.timing.recovery_delay * (*attempts).clamp(1, 6);
            let for_long = (self.now - *since).to_std().is_ok_and(|age| age >= self.timing.recovery_interval);
            let wait = if for_long { self.timing.recovery_interval } else { quick };
            *step = RecoveryStep::Waiting { until: self.after(wait) };
        }
        self.write(next, vec![], vec![])
    }
}
