//! What may happen to a slot: commands of its owners, outcomes of effects, words of its bot. Plain data; what they lead
//! to is in [`super::machine`].

use super::command::SlotCommand;
use crate::bot::machine::Report;
use crate::bot::{Bot, EndReason};
use crate::ids::{BotId, ContainerId, Generation, Operation};
use crate::journal::IdempotencyKey;
use crate::ports::Presence;
use chrono::{DateTime, Utc};
use std::time::Duration;
use uuid::Uuid;

/// What may happen to a slot.
#[derive(Debug, Clone, PartialEq)]
pub enum SlotEvent {
    /// It was given a bot.
    Assigned {
        /// The bot, not yet in any slot.
        bot: Box<Bot>,
        /// Where it comes from.
        source: BotSource,
    },
    /// The image is present.
    PullSucceeded {
        /// Which pull.
        operation: Operation,
    },
    /// The image could not be made present.
    PullFailed {
        /// Which pull.
        operation: Operation,
        /// The engine's words.
        reason: String,
    },
    /// Too many wait for the image on the host already.
    PullDeclined {
        /// Which pull.
        operation: Operation,
        /// How many that are.
        reason: String,
    },
    /// The container for the next bot is there.
    Prepared {
        /// Whose.
        generation: Generation,
        /// Which preparation.
        operation: Operation,
        /// Its id.
        container: ContainerId,
    },
    /// The container for the next bot could not be made.
    PrepareFailed {
        /// Whose.
        generation: Generation,
        /// Which preparation.
        operation: Operation,
    },
    /// The engine says that the container runs.
    Started {
        /// Whose.
        generation: Generation,
        /// Which start.
        operation: Operation,
        /// Its id.
        container: ContainerId,
    },
    /// The engine says that it could not start the container.
    StartFailed {
        /// Whose.
        generation: Generation,
        /// Which start.
        operation: Operation,
        /// The engine's words.
        reason: String,
        /// Whether another try may help.
        retryable: bool,
    },
    /// The bot's program asked for its assignment.
    Claimed {
        /// Whose.
        generation: Generation,
        /// Made at process start: tells one process from another.
        nonce: Uuid,
    },
    /// The bot reported.
    Reported {
        /// Whose.
        generation: Generation,
        /// What.
        report: Report,
    },
    /// Somebody, or an end time, wants the bot to leave.
    LeaveRequested {
        /// Which bot: a request for one that is gone must not hit the next.
        bot_id: BotId,
        /// Why.
        reason: EndReason,
    },
    /// The container ended by itself.
    Exited {
        /// Whose.
        generation: Generation,
        /// What is known of why.
        note: String,
    },
    /// Somebody looked at the container.
    Observed {
        /// Whose.
        generation: Generation,
        /// What was seen.
        presence: Presence,
        /// When the look began: what changed since is newer.
        began_at: DateTime<Utc>,
    },
    /// The bot was silent past the hard limit.
    HeartbeatLost {
        /// Whose.
        generation: Generation,
        /// For how long.
        silent: Duration,
    },
    /// The container is known to be gone.
    Stopped {
        /// Whose.
        generation: Generation,
        /// Which stop.
        operation: Operation,
    },
    /// The engine could not stop the container.
    StopFailed {
        /// Whose.
        generation: Generation,
        /// Which stop.
        operation: Operation,
        /// The engine's words.
        reason: String,
        /// Whether the engine answered; where it did not, the attempt does not count.
        answered: bool,
    },
    /// A time that the state waits for may have come.
    Woke,
    /// The same, and the bot has uploaded since.
    SegmentArrived {
        /// Whose.
        generation: Generation,
        /// When the last one began to arrive.
        at: DateTime<Utc>,
    },
    /// The pool or an operator commands it.
    Commanded(SlotCommand),
}

/// Where an assigned bot comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BotSource {
    /// Just asked for; the slot's commit creates it.
    Request {
        /// The client's key, where it sent one.
        idempotency: Option<IdempotencyKey>,
    },
    /// From the queue; the slot's commit takes it off.
    Queue,
    /// From the Scheduler; its state in the receiver's commit takes it off.
    Schedule,
}

impl SlotEvent {
    /// Its name, for logs and refusals.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Assigned { .. } => "Assigned",
            Self::PullSucceeded { .. } => "PullSucceeded",
            Self::PullFailed { .. } => "PullFailed",
            Self::PullDeclined { .. } => "PullDeclined",
            Self::Prepared { .. } => "Prepared",
            Self::PrepareFailed { .. } => "PrepareFailed",
            Self::Started { .. } => "Started",
            Self::StartFailed { .. } => "StartFailed",
            Self::Claimed { .. } => "Claimed",
            Self::Reported { .. } => "Reported",
            Self::LeaveRequested { .. } => "LeaveRequested",
            Self::Exited { .. } => "Exited",
            Self::Observed { .. } => "Observed",
            Self::HeartbeatLost { .. } => "HeartbeatLost",
            Self::Stopped { .. } => "Stopped",
            Self::StopFailed { .. } => "StopFailed",
            Self::Woke => "Woke",
            Self::SegmentArrived { .. } => "SegmentArrived",
            Self::Commanded(command) => command.name(),
        }
    }

    /// The generation of the container that it is about, where it is about one.
    pub(super) fn generation(&self) -> Option<Generation> {
        match self {
            Self::Prepared { generation, .. }
            | Self::PrepareFailed { generation, .. }
            | Self::Started { generation, .. }
            | Self::StartFailed { generation, .. }
            | Self::Claimed { generation, .. }
            | Self::Reported { generation, .. }
            | Self::Exited { generation, .. }
            | Self::Observed { generation, .. }
            | Self::HeartbeatLost { generation, .. }
            | Self::Stopped { generation, .. }
            | Self::StopFailed { generation, .. }
            | Self::SegmentArrived { generation, .. } => Some(*generation),
            Self::Assigned { .. }
            | Self::PullSucceeded { .. }
            | Self::PullFailed { .. }
            | Self::PullDeclined { .. }
            | Self::LeaveRequested { .. }
            | Self::Commanded(_)
            | Self::Woke => None,
        }
    }

    /// The operation whose outcome it is, where it is one.
    pub(super) fn operation(&self) -> Option<Operation> {
        match self {
            Self::PullSucceeded { operation }
            | Self::PullFailed { operation, .. }
            | Self::PullDeclined { operation, .. }
            | Self::Prepared { operation, .. }
            | Self::PrepareFailed { operation, .. }
            | Self::StartFailed { operation, .. }
            | Self::Stopped { operation, .. }
            | Self::StopFailed { operation, .. } => Some(*operation),
            // A late "it runs" of an earlier operation is still evidence about this generation's container.
            Self::Started { .. }
            | Self::Assigned { .. }
            | Self::Claimed { .. }
            | Self::Reported { .. }
            | Self::LeaveRequested { .. }
            | Self::Exited { .. }
            | Self::Observed { .. }
            | Self::HeartbeatLost { .. }
            | Self::SegmentArrived { .. }
            | Self::Commanded(_)
            | Self::Woke => None,
        }
    }
}
