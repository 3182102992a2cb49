//! What the QueueActor is told and asked, and what it answers. Plain data.

use crate::bot::{Bot, EndReason};
use crate::ids::{BotId, Platform};
use crate::journal::{CommitError, IdempotencyKey};
use crate::slot::handle::SlotHandle;
use actix::prelude::*;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Takes in a bot; the queue's commit creates it, or takes it from the Scheduler.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Enqueue {
    /// The bot.
    pub bot: Box<Bot>,
    /// Where it comes from.
    pub source: Newcomer,
    /// Where the outcome goes.
    pub reply: oneshot::Sender<Result<QueuePlace, EnqueueError>>,
}

/// Where a bot comes from that joins the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Newcomer {
    /// Just asked for, with the client's key where it sent one.
    Request(Option<IdempotencyKey>),
    /// Its start time is near.
    Scheduled,
}

/// Where a bot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePlace {
    /// Counted from 1.
    pub position: usize,
    /// A guess from how the line moved on lately.
    pub estimated_wait: Duration,
}

/// Why a bot was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// The bound on waiting bots is reached.
    #[error("{0} bots are waiting already")]
    Full(u32),
    /// The store's word.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Takes in a bot that a slot gave back; the slot's commit has put it into the queue.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TakeBack {
    /// As it is stored.
    pub bot: Bot,
}

/// Offers the first bot in a platform's line to a slot that the supervisor has reserved.
#[derive(Message)]
#[rtype(result = "()")]
pub struct OfferNext {
    /// Whose line.
    pub platform: Platform,
    /// The slot.
    pub slot: Arc<SlotHandle>,
}

/// Takes a bot out of the queue before its turn.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Withdraw {
    /// Which.
    pub bot_id: BotId,
    /// Why, for a bot that has a slot by the time this is applied.
    pub reason: EndReason,
    /// Where the bot as it then is goes.
    pub reply: oneshot::Sender<Result<Bot, WithdrawError>>,
}

/// Why a bot was not withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WithdrawError {
    /// The bot is in no mailbox: it has ended, or never was.
    #[error("the bot is not live")]
    NotLive,
    /// The outcome is not known; ask again.
    #[error("the outcome is not known")]
    Unknown,
}

/// Moves a waiting bot to another priority, behind its user's others there. One that is on offer is moved only if the
/// slot declines it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reprioritise {
    /// Which.
    pub bot_id: BotId,
    /// Lower comes first.
    pub priority: i16,
    /// Where its new place goes, once that is durable.
    pub reply: oneshot::Sender<Result<QueuePlace, ReprioritiseError>>,
}

/// Why a bot was not moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReprioritiseError {
    /// It does not wait: it has a slot, has ended, or never was.
    #[error("the bot does not wait in the queue")]
    NotWaiting,
    /// The outcome is not known; ask again.
    #[error("the outcome is not known")]
    Unknown,
}

/// Asks where a bot stands; `None`: it does not wait.
#[derive(Message)]
#[rtype(result = "Option<QueuePlace>")]
pub struct FindPlace {
    /// Which.
    pub bot_id: BotId,
}

/// The queue as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueSnapshot {
    /// The lines of those platforms that somebody waits for.
    pub lines: BTreeMap<Platform, LineSnapshot>,
}

/// A line as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineSnapshot {
    /// Bots that wait; not 0.
    pub length: usize,
    /// Since when the one waits who waits longest.
    pub oldest_queued_at: Option<DateTime<Utc>>,
    /// The waits so far, added up, in milliseconds.
    pub waited_ms: i64,
    /// How long one more bot at the end of the line may have to wait.
    pub estimated_wait: Duration,
}

/// Asks for a [`QueueSnapshot`].
#[derive(Message)]
#[rtype(result = "QueueSnapshot")]
pub struct Observe;
