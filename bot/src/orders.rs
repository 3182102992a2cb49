//! What the bot is told from outside: leave (server), stop (signal), or that it no longer owns its slot (fence).
//!
//! Orders are only ever added, so that whoever looks later sees them too.

use std::sync::Arc;

use tokio::sync::watch;

/// Everything ordered so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Orders {
    /// The server wants the bot out of the meeting.
    pub(crate) leave: bool,
    /// The process is to end; each signal counts, the second one is impatient.
    pub(crate) stops: u32,
    /// The server gave the slot to somebody else, or took it back.
    pub(crate) fenced: bool,
}

impl Orders {
    /// True where the bot has to be out of its meeting.
    pub(crate) fn must_leave(&self) -> bool {
        self.leave || self.stops > 0 || self.fenced
    }
}

/// The place where orders are put; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct OrderBook {
    sender: Arc<watch::Sender<Orders>>,
}

impl OrderBook {
    /// An empty book.
    pub(crate) fn new() -> Self {
        Self { sender: Arc::new(watch::Sender::new(Orders::default())) }
    }

    /// The server asks the bot to leave.
    pub(crate) fn leave(&self) {
        self.change(|orders| orders.leave = true);
    }

    /// A signal asks the process to end.
    pub(crate) fn stop(&self) {
        self.change(|orders| orders.stops = orders.stops.saturating_add(1));
    }

    /// The server refuses this generation.
    pub(crate) fn fence(&self) {
        self.change(|orders| orders.fenced = true);
    }

    /// As it stands.
    pub(crate) fn now(&self) -> Orders {
        *self.sender.borrow()
    }

    /// Resolves as soon as `condition` holds.
    pub(crate) async fn until(&self, condition: impl Fn(&Orders) -> bool) {
        // The sender lives as long as `self`, so that the channel cannot close meanwhile.
        let _ = self.sender.subscribe().wait_for(|orders| condition(orders)).await;
    }

    fn change(&self, change: impl FnOnce(&mut Orders)) {
        self.sender.send_if_modified(|orders| {
            let before = *orders;
            change(orders);
            before != *orders
        });
    }
}
