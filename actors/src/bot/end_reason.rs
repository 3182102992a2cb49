//! Why bots end: the one table from reason to status and sentence.

use super::BotState;
use serde::{Deserialize, Serialize};

/// Whether an end is a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Ended as it should.
    Done,
    /// Failed.
    Fatal,
}

impl Outcome {
    /// The final state that belongs to it.
    pub fn state(self) -> BotState {
        match self {
            Self::Done => BotState::Done,
            Self::Fatal => BotState::Fatal,
        }
    }
}

macro_rules! end_reasons {
    ($($variant:ident $name:literal $outcome:ident $sentence:literal)*) => {
        /// Why a bot ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum EndReason {
            $(#[doc = $sentence] $variant,)*
        }

        impl EndReason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name as stored and as shown.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether this end is a success.
            pub fn outcome(self) -> Outcome {
                match self { $(Self::$variant => Outcome::$outcome,)* }
            }

            /// What to tell people where nothing more is known.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

end_reasons! {
    MeetingEnded       "meeting_ended"        Done  "The meeting ended."
    EveryoneLeft       "everyone_left"        Done  "Everybody else left the meeting."
    LeftByRequest      "left_by_request"      Done  "The bot was asked to leave."
    WaitingRoomTimeout "waiting_room_timeout" Done  "Nobody let the bot in from the waiting room."
    NobodyJoined       "nobody_joined"        Done  "Nobody else joined the meeting."
    Inactivity         "inactivity"           Done  "The meeting was silent for too long."
    EndTime            "end_time"             Done  "The requested end time was reached."
    MaxDuration        "max_duration"         Done  "The longest allowed meeting time was reached."
    Removed            "removed"              Done  "A host removed the bot from the meeting."
    Cancelled          "cancelled"            Done  "The bot was cancelled before it joined."
    QueueTimeout       "queue_timeout"        Fatal "No slot became free within the queue timeout."
    StartMissed        "start_missed"         Fatal "The start time passed before the bot could be started."
    Denied             "denied"               Fatal "A host did not let the bot in."
    MeetingNotFound    "meeting_not_found"    Fatal "The meeting does not exist."
    SignInRequired     "sign_in_required"     Fatal "The meeting asks for an account."
    Captcha            "captcha"              Fatal "The meeting page asks for a captcha."
    JoinBlocked        "join_blocked"         Fatal "The platform did not let the bot join."
    DeployFailed       "deploy_failed"        Fatal "The bot's container could not be started."
    HeartbeatLost      "heartbeat_lost"       Fatal "The bot stopped reporting."
    Crashed            "crashed"              Fatal "The bot's container ended unexpectedly."
    UploadFailed       "upload_failed"        Fatal "The recording could not be uploaded."
    Internal           "internal"             Fatal "Something broke inside the bot."
}

impl EndReason {
    /// The reason of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }
}
