//! Which generations were stopped, so that an order from before the stop that comes late makes nothing. In memory: an
//! order lives no longer than the process that gave it, and what another one made is fenced by the bot's claim.

use super::error::DockerError;
use crate::driver::lock;
use meeboter_actors::ids::{ContainerKey, Operation};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// No order waits as long as this for its turn.
const KEPT: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Default)]
pub(super) struct Fences(Mutex<HashMap<ContainerKey, (Operation, Instant)>>);

impl Fences {
    /// Refuses an order from before a stop of the generation.
    pub(super) fn check(&self, key: ContainerKey, operation: Operation) -> Result<(), DockerError> {
        match self.all().get(&key) {
            Some((stopped, _)) if operation <= *stopped => {
                Err(DockerError::Fenced { generation: key.generation.0 })
            }
            _ => Ok(()),
        }
    }

    /// Notes a stop.
    pub(super) fn raise(&self, key: ContainerKey, operation: Operation) {
        let mut all = self.all();
        all.retain(|_, (_, raised_at)| raised_at.elapsed() < KEPT);
        let (fence, raised_at) = all.entry(key).or_insert((operation, Instant::now()));
        *fence = operation.max(*fence);
        *raised_at = Instant::now();
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ContainerKey, (Operation, Instant)>> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meeboter_actors::ids::{Generation, SlotId};
    use uuid::Uuid;

    #[test]
    fn only_orders_from_before_the_stop_of_that_generation_are_refused() {
        let fences = Fences::default();
        let key = |generation| ContainerKey {
            slot: SlotId(Uuid::from_u128(1)),
            generation: Generation(generation),
        };
        fences.raise(key(4), Operation(10));
        fences.raise(key(4), Operation(8));
        let passes = |generation, operation| fences.check(key(generation), Operation(operation)).is_ok();
        assert!(!passes(4, 9) && !passes(4, 10));
        // What was prepared was removed; it is made once more.
        assert!(passes(4, 11));
        assert!(passes(5, 1));
    }
}
