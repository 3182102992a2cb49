//! What clients are told when something is not done: `{error: {id, code, message, details?}}`, the id also in the log.

use crate::store::pool::QueryError;
use crate::telemetry::chain;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use meeboter_actors::slot::actor::Refused;
use serde_json::{Value, json};
use std::fmt;
use uuid::Uuid;

/// An answer that says no.
#[derive(Debug)]
pub struct ApiError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    id: Uuid,
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Option<Value>,
    retry_after_s: Option<u32>,
    /// The methods that the address takes, where the request's is none of them.
    allow: Option<String>,
    /// For the log alone.
    cause: Option<String>,
}

impl ApiError {
    /// An error of this status; `code` is for programs, `message` for people.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let id = Uuid::new_v4();
        let message = message.into();
        Self(Box::new(Parts {
            id,
            status,
            code,
            message,
            details: None,
            retry_after_s: None,
            allow: None,
            cause: None,
        }))
    }

    /// 401.
    pub fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// 403.
    pub fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404: it is not there, or not the caller's.
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("There is no {what}."))
    }

    /// 405: the address is known, and takes these methods.
    pub fn method_not_allowed(allowed: &str) -> Self {
        let message = format!("This address takes {allowed}.");
        let mut error = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
        error.0.allow = Some(allowed.to_owned());
        error
    }

    /// 422: a field's value is not allowed.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", message);
        error.with_details(json!({ "field": field }))
    }

    /// 409.
    pub fn conflict(code: &'static str, message: &str) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 503: not now; says when to come back.
    pub fn unavailable(code: &'static str, message: &str, retry_after_s: u32) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        error.0.retry_after_s = Some(retry_after_s);
        error
    }

    /// 503: no answer in time; what was asked may or may not have been done.
    pub fn unknown_outcome() -> Self {
        Self::unavailable(
            "outcome_unknown",
            "The decision did not become durable in time; it may still be. Ask again, with an Idempotency-Key if the request creates something.",
            2,
        )
    }

    /// What comes of a write that the database did not do, or not in time: 503 `outcome_unknown` where it may have.
    pub fn unwritten(error: QueryError) -> Self {
        match error {
            QueryError::Unavailable { cause, query } => {
                let message = "The database did not answer in time; what was asked may have been done. Look, then ask again.";
                Self::unavailable("outcome_unknown", message, 2).with_cause(format!("{query}: {cause}"))
            }
            error => error.into(),
        }
    }

    /// 502: the engine did not do what was asked.
    pub fn engine(why: &str) -> Self {
        let message = format!("The engine did not do it: {why}.");
        Self::new(StatusCode::BAD_GATEWAY, "engine_failed", message)
    }

    /// 500.
    pub fn internal(cause: impl fmt::Display) -> Self {
        let message = "Something broke on our side; the log has it under this id.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message).with_cause(cause)
    }

    /// Adds what only the log is told.
    fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// Adds facts for programs.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.0.details = Some(details);
        self
    }

    /// The line for the log: id, code, and what clients are not told.
    pub fn log_line(&self) -> (Uuid, &'static str, &str) {
        (self.0.id, self.0.code, self.0.cause.as_deref().unwrap_or(&self.0.message))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.0.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut error = json!({ "id": self.0.id, "code": self.0.code, "message": self.0.message });
        if let Some(details) = &self.0.details {
            error["details"] = details.clone();
        }
        let mut response = HttpResponse::build(self.0.status);
        if let Some(allow) = &self.0.allow {
            response.insert_header((ALLOW, allow.as_str()));
        }
        if let Some(seconds) = self.0.retry_after_s {
            response.insert_header((RETRY_AFTER, seconds));
        }
        response.json(json!({ "error": error }))
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Unavailable { cause, query } => {
                Self::unavailable("unavailable", "The database does not answer; try again soon.", 2)
                    .with_cause(format!("{query}: {cause}"))
            }
            QueryError::Refused { .. } | QueryError::Failed { .. } | QueryError::Decode(_) => {
                Self::internal(chain(&error))
            }
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        use meeboter_actors::slot::machine::Rejection;
        match refused {
            Refused::Rejected(Rejection::Stale { .. }) => {
                Self::conflict("stale_generation", "This belongs to the past of the slot.")
            }
            Refused::Rejected(Rejection::Fenced) => {
                Self::conflict("claimed", "Another process has claimed this assignment; join nothing.")
            }
            Refused::Rejected(Rejection::Gap { expected }) => {
                Self::conflict("report_gap", "An earlier report is missing.")
                    .with_details(json!({ "nextSeq": expected }))
            }
            Refused::Rejected(illegal @ Rejection::Illegal { .. }) => {
                Self::new(StatusCode::CONFLICT, "not_now", illegal.to_string())
            }
            Refused::Busy => Self::unavailable("busy", "The slot is busy; try again.", 1),
            Refused::Commit(_) => Self::unknown_outcome(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meeboter_actors::slot::machine::Rejection;
    use meeboter_bot::{FENCE_CODES, GAP_CODE, MALFORMED_CODES, TOKEN_CODE};

    #[test]
    fn a_bot_hears_the_words_that_it_goes_by() {
        let code = |rejection| ApiError::from(Refused::Rejected(rejection)).0.code;
        let illegal = Rejection::Illegal { event: "claimed", from: "idle" };
        let fences = [code(Rejection::Fenced), code(Rejection::Stale { event: "claimed" }), code(illegal)];
        assert!(fences.iter().all(|code| FENCE_CODES.contains(code)), "{fences:?}");
        assert_eq!(code(Rejection::Gap { expected: 1 }), GAP_CODE);
        assert_eq!(ApiError::unauthorized("").0.code, TOKEN_CODE);
        assert!(MALFORMED_CODES.contains(&ApiError::field("seq", "").0.code));
    }
}
