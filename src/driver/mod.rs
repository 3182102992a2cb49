//! Engines that run bots.

pub mod coolify;
pub mod docker;
mod folders;
pub mod metered;
pub mod process;
pub mod spools;
mod tasks;
mod turns;

use meeboter_actors::ids::{Generation, SlotId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Gives the token of a slot's generation.
pub type TokenSource = Arc<dyn Fn(SlotId, Generation) -> String + Send + Sync>;

/// What a mutex guards is whole at any time: nothing that may panic happens in between.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
