//! Waiting bots. Plain data; who comes first is in [`order`].

pub mod actor;
pub mod order;

use crate::ids::{BotId, Platform, UserId};
use chrono::{DateTime, Utc};

/// The priority of a request without one; lower comes first.
pub const PRIORITY_STANDARD: i16 = 100;

/// A bot's place in the queue, as the row in `bot_pool_queue` holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueEntry {
    /// Whose place.
    pub bot_id: BotId,
    /// The platform it waits for.
    pub platform: Platform,
    /// Whose bot.
    pub user_id: UserId,
    /// Lower comes first.
    pub priority: i16,
    /// The round of the round-robin between users that it belongs to.
    pub turn: i64,
    /// Age: counted up over all entries.
    pub arrival: i64,
    /// Since when.
    pub queued_at: DateTime<Utc>,
    /// When it gives up.
    pub deadline_at: DateTime<Utc>,
}
