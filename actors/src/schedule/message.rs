//! What the Scheduler is told and asked, and what it answers. Plain data.

use crate::bot::Bot;
use crate::bot::machine::EndsBeforeStart;
use crate::ids::{BotId, Platform};
use crate::journal::{CommitError, IdempotencyKey};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Takes in a new bot whose start is ahead; its commit creates it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Schedule {
    /// The bot, with a start time.
    pub bot: Box<Bot>,
    /// The client's key, where it sent one.
    pub idempotency: Option<IdempotencyKey>,
    /// Where the bot as it is stored goes.
    pub reply: oneshot::Sender<Result<Bot, ScheduleError>>,
}

/// Why a bot was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The bound on scheduled bots is reached.
    #[error("{0} bots are scheduled already")]
    Full(u32),
    /// The store's word.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Moves a scheduled bot to other times.
#[derive(Message)]
#[rtype(result = "()")]
pub struct MoveStart {
    /// Which.
    pub bot_id: BotId,
    /// When it starts; `None`: as before.
    pub start_at: Option<DateTime<Utc>>,
    /// When it leaves; `None`: as before.
    pub end_at: Option<DateTime<Utc>>,
    /// Where the bot as it then is goes.
    pub reply: oneshot::Sender<Result<Bot, MoveError>>,
}

/// Why a bot was not moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// The bot does not wait for its start: it has started or ended, or never waited.
    #[error("the bot does not wait for its start")]
    NotScheduled,
    /// It would end before it starts.
    #[error(transparent)]
    EndsBeforeStart(#[from] EndsBeforeStart),
    /// The outcome is not known; ask again.
    #[error("the outcome is not known")]
    Unknown,
}

/// A bot's container was seen to run.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StartObserved {
    /// Of which platform.
    pub platform: Platform,
    /// From the slot's taking the bot.
    pub took: TimeDelta,
}

/// What waits for its start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScheduleSnapshot {
    /// Bots that wait, those on offer included.
    pub count: usize,
    /// When the next of them is handed over.
    pub next_due_at: Option<DateTime<Utc>>,
    /// Bots of each platform that are handed over within the time asked for.
    pub coming: BTreeMap<Platform, usize>,
}

/// Asks for a [`ScheduleSnapshot`].
#[derive(Message)]
#[rtype(result = "ScheduleSnapshot")]
pub struct Observe {
    /// How far to look ahead.
    pub within: TimeDelta,
}
