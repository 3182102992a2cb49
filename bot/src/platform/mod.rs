//! What differs between platforms: how to open, join, look at and leave a meeting.
//!
//! The rules that all of them keep:
//! - A look never fails and never guesses: an error while looking is [`Observation::Unknown`].
//! - A look asks in this order: an explicit end, then the waiting room, then the call, then nothing (platforms whose
//!   waiting room hides behind the call's own elements may turn the middle two around).
//! - Presence in the document counts, not visibility: toolbars hide by themselves.
//! - The texts of an end count only inside a dialog or an end screen, never in the whole page: chat may hold them.
//! - Absence is not an end. How long something may be absent is decided in `meeting.rs`, not here.
//! - Pressing and typing goes through [`Page::press`] and [`Page::type_text`], which are real input.

mod rehearsal;

use async_trait::async_trait;
use meeboter_bot::Assignment;

use crate::browser::{BrowserError, Page};
use crate::meeting::Observation;

/// A step that could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlatformError {
    /// This program has no such platform.
    #[error("this program cannot join meetings of the platform {platform:?}")]
    Unsupported {
        /// The key from the assignment.
        platform: String,
    },
    /// The address is not one of the platform's.
    #[error("the meeting address {url:?} is not one of {wanted}")]
    Address {
        /// The address, without its query.
        url: String,
        /// What is wanted.
        wanted: &'static str,
    },
    /// The browser did not do it.
    #[error("cannot {step}")]
    Browser {
        /// What was to be done.
        step: &'static str,
        /// Why.
        #[source]
        source: BrowserError,
    },
}

/// One meeting on one platform.
#[async_trait]
pub(crate) trait Platform: Send + Sync {
    /// Flags that the browser needs besides the common ones.
    fn browser_flags(&self) -> &'static [&'static str] {
        &[]
    }

    /// Opens the meeting's page.
    async fn open(&mut self, page: &Page) -> Result<(), PlatformError>;

    /// Gives the name, switches microphone and camera off and asks to join. Returns early, without an error, where
    /// the page shows an end or the call already: the next look will say so.
    async fn join(&mut self, page: &Page, display_name: &str) -> Result<(), PlatformError>;

    /// Looks at the page once.
    async fn observe(&mut self, page: &Page) -> Observation;

    /// Leaves the meeting or its waiting room.
    async fn leave(&mut self, page: &Page) -> Result<(), PlatformError>;
}

/// The platform of an assignment, with its address checked.
pub(crate) fn platform_of(assignment: &Assignment) -> Result<Box<dyn Platform>, PlatformError> {
    match assignment.platform.as_str() {
        "rehearsal" => Ok(Box::new(rehearsal::Rehearsal::new(&assignment.meeting_url)?)),
        other => Err(PlatformError::Unsupported { platform: other.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(platform: &str) -> Assignment {
        let json = serde_json::json!({
            "botId": 1, "generation": 1, "token": "t", "platform": platform, "displayName": "Bot",
            "meetingUrl": "http://127.0.0.1/rehearsal/abc", "recordingEnabled": false, "heartbeatIntervalMs": 10_000,
            "automaticLeave": { "waitingRoomTimeout": 1, "noOneJoinedTimeout": 1, "everyoneLeftTimeout": 1,
                "inactivityTimeout": 1 },
            "segmentMs": 4_000, "nextReportSeq": 1,
        });
        serde_json::from_value(json).expect("an assignment")
    }

    #[test]
    fn an_unknown_platform_is_named() {
        assert!(platform_of(&assignment("rehearsal")).is_ok());
        let error = platform_of(&assignment("carrier-pigeon")).err().expect("no such platform");
        assert!(error.to_string().contains("carrier-pigeon"), "{error}");
    }
}
