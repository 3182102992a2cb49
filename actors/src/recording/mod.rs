//! Recordings: open while the bot runs, joined from segments when it has ended. Plain data; the rules are in
//! [`plan`]; what bots left behind on their hosts is found a way by [`collect`].

pub mod actor;
pub mod collect;
pub mod collector;
pub mod plan;

use crate::ids::BotId;
use serde::{Deserialize, Serialize};

/// The recording of one bot, as the row in `recordings` holds it. Made with the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Whose.
    pub bot_id: BotId,
    /// How far.
    pub state: RecordingState,
    /// Segments that were joined, or that cannot be; a later listing that shows more joins again.
    pub segments: u32,
    /// Joins begun; only numbers the keys, so that a join never overwrites what a link points to.
    pub attempts: u32,
    /// Counts writes of the row; 1 is its insertion.
    pub version: i64,
}

/// How far a recording is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordingState {
    /// Segments may arrive.
    Open,
    /// The bot has ended; segments are being joined. A recording that was ready keeps serving its old object.
    Joining {
        /// What was joined before, if anything.
        previous: Option<Joined>,
    },
    /// One playable object.
    Ready(Joined),
    /// There is none.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

impl RecordingState {
    /// The name as stored and shown.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Joining { .. } => "joining",
            Self::Ready(_) => "ready",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A joined recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its object key.
    pub key: String,
    /// Its length.
    pub duration_ms: i64,
    /// Its size.
    pub bytes: i64,
}

impl Recording {
    /// A recording that may receive segments.
    pub fn open(bot_id: BotId) -> Self {
        Self { bot_id, state: RecordingState::Open, segments: 0, attempts: 0, version: 1 }
    }
}
