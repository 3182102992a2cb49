//! A bot: what was asked, where it is in its life, how it ended. Plain data; the rules are in [`machine`].

mod end_reason;
pub mod machine;

pub use end_reason::{EndReason, Outcome};

use crate::ids::{BotId, Generation, Platform, SlotName, UserId};
use crate::queue::Plan;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// One bot, as the row in `bots` holds it. A live bot is in exactly one mailbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Bot {
    /// Its number.
    pub id: BotId,
    /// Whose it is.
    pub user_id: UserId,
    /// What was asked. Shared: a bot is copied wherever its state goes, and this is the same all its life.
    pub spec: Arc<BotSpec>,
    /// Where it is in its life.
    pub state: BotState,
    /// Set with DONE and FATAL, and only then.
    pub end: Option<End>,
    /// Where it runs or ran.
    pub seat: Option<Seat>,
    /// The nonce that claimed its generation.
    pub nonce: Option<Uuid>,
    /// The last report taken, 0 before the first.
    pub report_seq: i64,
    /// Why it was told to leave, once it was.
    pub leave: Option<EndReason>,
    /// The start that came to nothing last, after which it was given back to the queue.
    pub setback: Option<Setback>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When a slot took it.
    pub deployed_at: Option<DateTime<Utc>>,
    /// When it was first in the call.
    pub joined_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Counts writes of the row; 1 is its insertion.
    pub version: i64,
}

impl Bot {
    /// Slots in which its start has failed.
    pub fn failed_starts(&self) -> u32 {
        self.setback.as_ref().map_or(0, |setback| setback.failed_starts)
    }
}

/// The slot and generation that a bot runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The slot's name.
    pub slot: SlotName,
    /// The slot's generation when it took the bot.
    pub generation: Generation,
}

/// A slot that had a bot gave it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setback {
    /// Slots in which its start failed so far; one that could not begin does not count.
    pub failed_starts: u32,
    /// When the last gave it back.
    pub at: DateTime<Utc>,
    /// Why, in the engine's words.
    pub detail: String,
}

/// How a bot ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// A sentence for people.
    pub detail: String,
}

/// What a client asked for, validated at the door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotSpec {
    /// Canonical platform key.
    pub platform: Platform,
    /// The meeting's page.
    pub meeting_url: String,
    /// The platform's own number of the meeting, where given.
    pub meeting_id: Option<String>,
    /// The meeting's passcode, where given.
    pub passcode: Option<String>,
    /// Name shown in the call.
    pub display_name: String,
    /// Whether to record.
    pub recording_enabled: bool,
    /// When to leave by itself.
    pub automatic_leave: AutomaticLeave,
    /// The bot should be there then. Absent in rows of before there were such bots.
    pub start_at: Option<DateTime<Utc>>,
    /// The bot leaves then.
    pub end_at: Option<DateTime<Utc>>,
    /// How long it may wait for a slot, in milliseconds; 0: do not queue. Counted from the request, or from the start
    /// time where that is later.
    pub queue_timeout_ms: u32,
    /// Its priority where it has to wait, by its user's plan; lower comes first.
    #[serde(default = "standard_priority")]
    pub priority: i16,
}

/// Limits after which a bot leaves by itself, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutomaticLeave {
    /// In the waiting room.
    pub waiting_room_timeout_ms: u64,
    /// Nobody else ever came.
    pub no_one_joined_timeout_ms: u64,
    /// Everybody else left.
    pub everyone_left_timeout_ms: u64,
    /// Silence.
    pub inactivity_timeout_ms: u64,
}

/// Of bots that were stored before plans were.
fn standard_priority() -> i16 {
    Plan::Standard.priority()
}

/// Where a bot is in its life; the order is that of the life. `DONE` and `FATAL` are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BotState {
    /// Waits for its start time.
    Scheduled,
    /// Waits for a slot.
    Queued,
    /// A slot has it; its container is being started.
    Deploying,
    /// The container runs; the page is being opened.
    JoiningCall,
    /// Asked to join; a host has to let it in.
    InWaitingRoom,
    /// In the call.
    InCall,
    /// In the call, recording.
    Recording,
    /// Leaving: recording and upload are being finished.
    Leaving,
    /// Ended as it should.
    Done,
    /// Failed.
    Fatal,
}

impl BotState {
    /// All states, in the order of the life.
    pub const ALL: [Self; 10] = [
        Self::Scheduled,
        Self::Queued,
        Self::Deploying,
        Self::JoiningCall,
        Self::InWaitingRoom,
        Self::InCall,
        Self::Recording,
        Self::Leaving,
        Self::Done,
        Self::Fatal,
    ];

    /// The name as stored and as shown in `state`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "SCHEDULED",
            Self::Queued => "QUEUED",
            Self::Deploying => "DEPLOYING",
            Self::JoiningCall => "JOINING_CALL",
            Self::InWaitingRoom => "IN_WAITING_ROOM",
            Self::InCall => "IN_CALL",
            Self::Recording => "RECORDING",
            Self::Leaving => "LEAVING",
            Self::Done => "DONE",
            Self::Fatal => "FATAL",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// True for DONE and FATAL.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Fatal)
    }
}

/// A line of a bot's history, as the row in `events` holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct BotEvent {
    /// Whose.
    pub bot_id: BotId,
    /// A state's name, or one of the documented event types.
    pub event_type: String,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// `{description, sub_code}`, `{participantId}`, `{message}` or nothing.
    pub data: Option<serde_json::Value>,
}
