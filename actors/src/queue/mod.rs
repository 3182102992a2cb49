//! Waiting bots. Plain data; who comes first is in [`order`], how long it may take in [`estimate`].

pub mod actor;
pub mod estimate;
pub mod message;
pub mod order;
#[cfg(test)]
mod order_tests;
mod ranks;
mod rotation;
mod wish;

use crate::bot::Bot;
use crate::ids::{BotId, Platform, UserId};
use chrono::{DateTime, TimeDelta, Utc};

/// What a user's contract says of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Plan {
    /// First.
    Enterprise,
    /// Second.
    Professional,
    /// Who has nothing else agreed.
    #[default]
    Standard,
    /// Last.
    Free,
}

impl Plan {
    /// All plans, first served to last.
    pub const ALL: [Self; 4] = [Self::Enterprise, Self::Professional, Self::Standard, Self::Free];

    /// The name that `users.plan` holds.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enterprise => "enterprise",
            Self::Professional => "professional",
            Self::Standard => "standard",
            Self::Free => "free",
        }
    }

    /// The plan of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plan| plan.as_str() == name)
    }

    /// The priority of its bots in the queue; lower comes first.
    pub fn priority(self) -> i16 {
        match self {
            Self::Enterprise => 10,
            Self::Professional => 50,
            Self::Standard => 100,
            Self::Free => 200,
        }
    }
}

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

/// The turn of bots that a slot gave back: before every turn of those that never had one.
const RETURNED: i64 = -1;
/// How long a bot that a slot gave back waits for another at least, also one that did not mean to queue.
const RETURNED_PATIENCE: TimeDelta = TimeDelta::seconds(60);

impl QueueEntry {
    /// The place of a bot that a slot gave back: it had its turn, so it is the next of its priority, and of several
    /// the oldest. It goes on waiting for as long as it wanted to in all. Follows from the bot's row alone.
    pub fn returned(bot: &Bot) -> Self {
        let queued_at = bot.setback.as_ref().map_or(bot.created_at, |setback| setback.at);
        let asked_for = bot.spec.start_at.map_or(bot.created_at, |start_at| start_at.max(bot.created_at));
        let timeout = TimeDelta::milliseconds(i64::from(bot.spec.queue_timeout_ms));
        Self {
            bot_id: bot.id,
            platform: bot.spec.platform.clone(),
            user_id: bot.user_id,
            priority: bot.spec.priority,
            turn: RETURNED,
            // Before every counted one, also where it is moved to another priority.
            arrival: bot.id.0 - i64::MAX,
            queued_at,
            deadline_at: (asked_for + timeout).max(queued_at + RETURNED_PATIENCE),
        }
    }

    /// Whether a slot gave the bot back.
    pub fn is_returned(&self) -> bool {
        self.turn == RETURNED
    }
}
