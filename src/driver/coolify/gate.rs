//! One start or stop of a slot at a time, and the fence that a stop leaves: a start of the same generation that was asked
//! for before it makes nothing any more.

use meeboter_actors::ids::{ContainerKey, Generation, Operation};
use meeboter_actors::ports::DriverError;
use tokio::sync::{Mutex, watch};

/// The gate of one slot.
pub(super) struct Gate {
    /// Whoever changes the slot's application holds it.
    pub(super) turn: Mutex<()>,
    /// The latest stop.
    stopped: watch::Sender<Option<(Generation, Operation)>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { turn: Mutex::default(), stopped: watch::Sender::new(None) }
    }
}

impl Gate {
    /// Lets nothing of a generation through that was asked for before this operation, nor of older generations.
    pub(super) fn close(&self, generation: Generation, operation: Operation) {
        self.stopped.send_modify(|stopped| {
            let later = (generation, operation);
            *stopped = Some(stopped.map_or(later, |known| known.max(later)));
        });
    }

    /// Whether somebody changes the slot's application at this moment.
    pub(super) fn is_in_use(&self) -> bool {
        self.turn.try_lock().is_err()
    }

    /// Whether a start may go on.
    pub(super) fn check(&self, key: ContainerKey, operation: Operation) -> Result<(), DriverError> {
        if is_fenced(*self.stopped.borrow(), key.generation, operation) { Err(fenced(key)) } else { Ok(()) }
    }

    /// Comes back when a start may not go on.
    pub(super) async fn closed(&self, key: ContainerKey, operation: Operation) -> DriverError {
        let mut stopped = self.stopped.subscribe();
        // The sender lives as long as this gate.
        drop(stopped.wait_for(|stopped| is_fenced(*stopped, key.generation, operation)).await);
        fenced(key)
    }
}

fn is_fenced(stopped: Option<(Generation, Operation)>, generation: Generation, operation: Operation) -> bool {
    stopped.is_some_and(|stopped| (generation, operation) < stopped)
}

fn fenced(key: ContainerKey) -> DriverError {
    let message = format!("generation {} of this slot was stopped", key.generation);
    DriverError { message, answered: true, retryable: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meeboter_actors::ids::SlotId;
    use uuid::Uuid;

    #[test]
    fn a_stop_holds_against_what_was_asked_for_before_it() {
        let gate = Gate::default();
        let passes = |generation, operation| {
            let key = ContainerKey { slot: SlotId(Uuid::nil()), generation: Generation(generation) };
            gate.check(key, Operation(operation)).is_ok()
        };
        assert!(passes(3, 1));
        gate.close(Generation(3), Operation(5));
        gate.close(Generation(2), Operation(9));
        assert!(!passes(3, 4) && !passes(2, 20), "older generations end with it");
        assert!(passes(3, 6) && passes(4, 1));
    }
}
