//! Why a request to Coolify, or what it was for, came to nothing. Nothing here holds the token or a value of an
//! environment.

use meeboter_actors::ports::DriverError;
use serde_json::Value;
use std::time::Duration;
use thiserror::Error;

/// Characters of Coolify's words that are kept.
const WORDS_MAX: usize = 300;

/// A request that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum ApiError {
    /// It was never sent: the limit of requests left no room for it in time.
    #[error("{request}: not sent, as Coolify's limit of requests left no room within {} s", waited.as_secs())]
    Unsent {
        /// Method and path.
        request: String,
        /// How long it waited.
        waited: Duration,
    },
    /// No answer, or not all of it; what was asked may or may not have been done.
    #[error("{request}: {detail}")]
    Unanswered {
        /// Method and path.
        request: String,
        /// What the HTTP client said.
        detail: String,
    },
    /// An answer that says no.
    #[error("{request}: {status} {words}")]
    Refused {
        /// Method and path.
        request: String,
        /// The status.
        status: u16,
        /// What Coolify said.
        words: String,
        /// When to come back, where it said so.
        retry_after: Option<Duration>,
    },
    /// An answer of another shape.
    #[error("{request}: the answer is none of Coolify's ({detail})")]
    Unreadable {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl ApiError {
    /// The status of a refusal.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether what was asked may have been done in spite of it.
    pub(super) fn may_have_acted(&self) -> bool {
        match self {
            Self::Unsent { .. } => false,
            Self::Unanswered { .. } | Self::Unreadable { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
        }
    }

    /// How long a full queue asks to be left alone.
    pub(super) fn queue_full(&self) -> Option<Duration> {
        match self {
            Self::Refused { status: 429, words, retry_after, .. } if is_queue_full(words) => {
                Some(retry_after.unwrap_or(Duration::from_secs(60)))
            }
            _ => None,
        }
    }
}

/// The one 429 that is not about the number of requests.
pub(super) fn is_queue_full(words: &str) -> bool {
    words.to_ascii_lowercase().contains("queue is full")
}

impl From<ApiError> for DriverError {
    fn from(error: ApiError) -> Self {
        let (answered, retryable) = match &error {
            ApiError::Unsent { .. } | ApiError::Unreadable { .. } => (true, true),
            ApiError::Unanswered { .. } => (false, true),
            // A token, a name or a field that is wrong stays wrong.
            ApiError::Refused { status, .. } => (true, !matches!(status, 400..=428)),
        };
        Self { message: format!("Coolify: {error}"), answered, retryable }
    }
}

/// What a refusal says: the message, and of each field what is wrong, as a list or as plain text.
pub(super) fn words(body: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        // A page of a proxy in front: nothing for people.
        return "(no words)".to_owned();
    };
    let mut parts: Vec<String> = Vec::new();
    let texts = ["message", "error"].iter().filter_map(|field| body.get(*field).and_then(Value::as_str));
    parts.extend(texts.map(str::to_owned));
    for (field, wrong) in body.get("errors").and_then(Value::as_object).into_iter().flatten() {
        let wrong = match wrong {
            Value::Array(sentences) => {
                sentences.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            }
            Value::String(sentence) => sentence.clone(),
            _ => continue,
        };
        parts.push(format!("{field}: {wrong}"));
    }
    parts.join(" ").chars().take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_of_a_refusal_are_read() {
        let listed = br#"{"message":"Validation failed.","errors":{"name":["Too long."],"ports":"Bad."}}"#;
        assert_eq!(words(listed), "Validation failed. name: Too long. ports: Bad.");
        assert_eq!(
            words(br#"{"message":"Invalid request.","error":"Empty JSON."}"#),
            "Invalid request. Empty JSON."
        );
        assert_eq!(words(b"<html>502</html>"), "(no words)");
    }

    #[test]
    fn a_full_queue_is_no_spent_budget() {
        let refused = |words: &str, retry_after| ApiError::Refused {
            request: "POST /deploy".into(),
            status: 429,
            words: words.into(),
            retry_after,
        };
        let full = "Deployment queue is full. Please wait for existing deployments to complete.";
        assert_eq!(refused(full, None).queue_full(), Some(Duration::from_secs(60)));
        assert_eq!(refused("Too Many Attempts.", None).queue_full(), None);
    }

    #[test]
    fn what_stays_wrong_is_not_tried_again() {
        let driver = |status| {
            let (request, words, retry_after) = ("GET /x".to_owned(), String::new(), None);
            DriverError::from(ApiError::Refused { request, status, words, retry_after })
        };
        assert!(!driver(422).retryable && !driver(401).retryable && !driver(404).retryable);
        assert!(driver(429).retryable && driver(500).retryable && driver(500).answered);
    }
}
