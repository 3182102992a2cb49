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
    /// No answer of Coolify's own, or not all of it; what was asked may or may not have been done.
    #[error("{request}: {detail}")]
    Unanswered {
        /// Method and path.
        request: String,
        /// What the HTTP client said, or what came instead.
        detail: String,
    },
    /// An answer of Coolify's that says no.
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

/// What Coolify may say that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    /// An application.
    Application,
    /// A deployment.
    Deployment,
}

impl ApiError {
    /// What an answer means that is no success. Only what is in Coolify's own shape is its word: a proxy in front answers
    /// for a Coolify that is away, and knows nothing of what was asked for.
    pub(super) fn of_answer(
        request: String,
        status: u16,
        body: &[u8],
        retry_after: Option<Duration>,
    ) -> Self {
        match words(body).filter(|_| !is_of_a_gateway(status)) {
            Some(words) => Self::Refused { request, status, words, retry_after },
            None => {
                Self::Unanswered { request, detail: format!("{status} of something in front of Coolify") }
            }
        }
    }

    /// The status of a refusal.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether Coolify says that there is no such thing. A 404 in other words is about something else, such as the route.
    pub(super) fn knows_no(&self, thing: Thing) -> bool {
        let said = match thing {
            Thing::Application => "Application not found",
            Thing::Deployment => "Deployment not found",
        };
        // Several routes leave the full stop out.
        matches!(self, Self::Refused { status: 404, words, .. } if words.trim_end_matches('.') == said)
    }

    /// Whether Coolify says that an application's container does not run.
    pub(super) fn says_not_running(&self) -> bool {
        matches!(self, Self::Refused { status: 400, words, .. } if words.starts_with("Application is not running"))
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

/// Statuses by which a gateway, Cloudflare's among them, says that it got no answer itself.
fn is_of_a_gateway(status: u16) -> bool {
    matches!(status, 502..=504 | 520..=530)
}

/// What a refusal says: the message, and of each field what is wrong, as a list or as plain text. `None`: it has no message,
/// and is none of Coolify's.
fn words(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let mut parts = vec![body.get("message")?.as_str()?.to_owned()];
    parts.extend(body.get("error").and_then(Value::as_str).map(str::to_owned));
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
    Some(parts.join(" ").chars().take(WORDS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_of_a_refusal_are_read() {
        let listed = br#"{"message":"Validation failed.","errors":{"name":["Too long."],"ports":"Bad."}}"#;
        assert_eq!(words(listed).as_deref(), Some("Validation failed. name: Too long. ports: Bad."));
        let plain = br#"{"message":"Invalid request.","error":"Empty JSON."}"#;
        assert_eq!(words(plain).as_deref(), Some("Invalid request. Empty JSON."));
    }

    #[test]
    fn only_coolifys_own_words_are_an_answer() {
        let (page, own) = ("<html>Bad Gateway</html>", r#"{"message":"Server Error"}"#);
        for (status, body, is_own) in [
            (500, own, true),
            (404, r#"{"message":"Application not found."}"#, true),
            (403, r#"{"success":true,"message":"API is disabled."}"#, true),
            (500, page, false),
            (404, "404 page not found", false),
            (301, "", false),
            (401, "Unauthorized", false),
            (429, "Too Many Requests", false),
            (400, r#"["message"]"#, false),
            (403, r#"{"error":"denied"}"#, false),
            // `php artisan down` says it in JSON too.
            (503, r#"{"message":"Service Unavailable"}"#, false),
            (502, own, false),
            (504, own, false),
            (520, own, false),
            (530, own, false),
        ] {
            let error = ApiError::of_answer("POST /deploy".to_owned(), status, body.as_bytes(), None);
            assert_eq!(error.status(), is_own.then_some(status), "{status} {body}");
            assert_eq!(error.may_have_acted(), !is_own || status >= 500, "{status} {body}");
            assert_eq!(DriverError::from(error).answered, is_own, "{status} {body}");
        }
    }

    #[test]
    fn something_is_gone_only_where_coolify_says_so_of_it() {
        for (body, application, deployment) in [
            (r#"{"message":"Application not found."}"#, true, false),
            (r#"{"message":"Application not found"}"#, true, false),
            (r#"{"message":"Deployment not found."}"#, false, true),
            (r#"{"message":"Not found.","docs":"https://coolify.io/docs"}"#, false, false),
            (r#"{"message":"Server not found."}"#, false, false),
            (r#"{"message":"no Route matched with those values"}"#, false, false),
            ("404 page not found", false, false),
        ] {
            let error = ApiError::of_answer("GET /x".to_owned(), 404, body.as_bytes(), None);
            let knows_no = (error.knows_no(Thing::Application), error.knows_no(Thing::Deployment));
            assert_eq!(knows_no, (application, deployment), "{body}");
        }
        let said = |status, body: &str| {
            ApiError::of_answer("GET /x/logs".to_owned(), status, body.as_bytes(), None).says_not_running()
        };
        assert!(said(400, r#"{"message":"Application is not running."}"#));
        assert!(!said(400, r#"{"message":"Invalid token."}"#) && !said(400, "Bad Request"));
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
