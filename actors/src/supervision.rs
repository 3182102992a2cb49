//! How actors are told things and how their deaths are noticed.
//!
//! actix drops a panicked actor without a word: its address answers `Closed` and nothing restarts it. A
//! [`DeathGuard`] is a field of every actor, so it is dropped with it, and says so to whoever rebuilds.

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};

/// Sends without waiting and without regard to the mailbox's capacity. The one place where that is allowed:
/// actors must never wait for one another, and what may come in is bounded at the door.
#[allow(clippy::disallowed_methods)]
pub fn tell<A, M>(addr: &Addr<A>, message: M)
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    addr.do_send(message);
}

/// Calls back when it is dropped, unless it was disarmed: an actor's field, so that its death has a witness.
pub struct DeathGuard(Option<Box<dyn FnOnce() + Send>>);

impl DeathGuard {
    /// Calls `witness` when dropped.
    pub fn new(witness: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(witness)))
    }

    /// The actor stops on purpose; nobody is called.
    pub fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for DeathGuard {
    fn drop(&mut self) {
        if let Some(witness) = self.0.take() {
            witness();
        }
    }
}
