//! What decisions write: rows as data, and the decision that makes several of them one. The actor that commits them
//! is in [`actor`]; how a batch is carried through faults is in [`settle`].

pub mod actor;
pub mod settle;

use crate::bot::{Bot, BotEvent};
use crate::ids::{BotId, SlotName, UserId};
use crate::maintenance::MaintenanceRow;
use crate::pool::{Drain, DrainOrder};
use crate::ports::EventId;
use crate::queue::QueueEntry;
use crate::recording::Recording;
use crate::slot::Slot;

/// One row to write. A versioned row with version 1 is inserted; a later version replaces the one before it, and
/// where the row is not at that version the whole decision is a conflict.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// `bots`, versioned.
    WriteBot(Box<Bot>),
    /// `bot_pool_slots`, versioned.
    WriteSlot(Box<Slot>),
    /// `bot_pool_slots`: the slot is gone, and its number is free again.
    DeleteSlot {
        /// Which.
        name: SlotName,
        /// The version it is at.
        version: i64,
    },
    /// `events`.
    InsertEvent(BotEvent),
    /// `bot_pool_queue`.
    InsertQueueEntry(QueueEntry),
    /// `bot_pool_queue`: another place. It has no version: its only writer is the queue, which does one thing at a time
    /// to a bot.
    UpdateQueueEntry(QueueEntry),
    /// `bot_pool_queue`: the bot no longer waits.
    DeleteQueueEntry(BotId),
    /// `recordings`, versioned.
    WriteRecording(Recording),
    /// `pool_drains`.
    InsertDrain(DrainOrder),
    /// `pool_drains`: it has another deadline.
    UpdateDrain(DrainOrder),
    /// `pool_drains`: it is over.
    DeleteDrain(Drain),
    /// `idempotency_keys`.
    InsertIdempotencyKey(IdempotencyKey),
    /// `maintenance`, its one row. It has no version: its only writer is the Maintainer, which does one thing at a time.
    WriteMaintenance(Box<MaintenanceRow>),
    /// `recordings`: its objects are gone, and nobody serves it any more.
    DeleteRecording {
        /// Whose.
        bot_id: BotId,
        /// The version it is at.
        version: i64,
    },
    /// `events`: old ones.
    DeleteEvents(Vec<EventId>),
    /// `bots`: one that has ended, and its idempotency key.
    DeleteBot(BotId),
}

/// A client's key for a request that may be repeated, bound to the bot that it made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Whose.
    pub user_id: UserId,
    /// The key, as sent.
    pub key: String,
    /// SHA-256 of the request, so that a key is not used for two requests.
    pub fingerprint: [u8; 32],
    /// The bot that was made.
    pub bot_id: BotId,
}

/// Identifies a row within a batch; a batch holds no row twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// A row of `bots`.
    Bot(BotId),
    /// A row of `bot_pool_slots`.
    Slot(SlotName),
    /// A row of `bot_pool_queue`.
    Queue(BotId),
    /// A row of `recordings`.
    Recording(BotId),
    /// A row of `pool_drains`.
    Drain(Drain),
    /// A row of `idempotency_keys`.
    Idempotency(UserId, String),
    /// The row of `maintenance`.
    Maintenance,
}

impl Change {
    /// The row it touches; `None` for the lines of bots' histories, which nobody writes twice.
    pub fn row(&self) -> Option<RowKey> {
        match self {
            Self::WriteBot(bot) => Some(RowKey::Bot(bot.id)),
            Self::WriteSlot(slot) => Some(RowKey::Slot(slot.name.clone())),
            Self::DeleteSlot { name, .. } => Some(RowKey::Slot(name.clone())),
            Self::InsertEvent(_) | Self::DeleteEvents(_) => None,
            Self::InsertQueueEntry(entry) | Self::UpdateQueueEntry(entry) => {
                Some(RowKey::Queue(entry.bot_id))
            }
            Self::DeleteQueueEntry(bot_id) => Some(RowKey::Queue(*bot_id)),
            Self::WriteRecording(recording) => Some(RowKey::Recording(recording.bot_id)),
            Self::InsertDrain(order) | Self::UpdateDrain(order) => Some(RowKey::Drain(order.drain.clone())),
            Self::DeleteDrain(drain) => Some(RowKey::Drain(drain.clone())),
            Self::InsertIdempotencyKey(key) => Some(RowKey::Idempotency(key.user_id, key.key.clone())),
            Self::WriteMaintenance(_) => Some(RowKey::Maintenance),
            Self::DeleteRecording { bot_id, .. } => Some(RowKey::Recording(*bot_id)),
            Self::DeleteBot(bot_id) => Some(RowKey::Bot(*bot_id)),
        }
    }
}

/// Rows that are written together or not at all.
pub type Decision = Vec<Change>;

/// Why a decision was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A row was not at the expected version, or a constraint refused it. Nothing of the decision was written; its
    /// actor reloads.
    #[error("the decision conflicts with what is stored: {0}")]
    Conflict(String),
    /// This process no longer leads; what became of the decision is for the new leader to see.
    #[error("this server no longer leads")]
    Deposed,
}
