//! Answers in the shapes that Coolify gives them. Data only.

use serde_json::{Map, Value, json};

/// An answer before it is sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    /// Headers beyond those that every answer has.
    pub(super) headers: Vec<(&'static str, String)>,
    /// The body.
    pub(super) body: Body,
}

/// What an answer carries.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    /// JSON.
    Json(Value),
    /// Bare text, as of `/version`.
    Text(String),
}

impl Answer {
    pub(super) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Body::Json(body) }
    }

    pub(super) fn ok(body: Value) -> Self {
        Self::json(200, body)
    }

    pub(super) fn text(text: &str) -> Self {
        Self { status: 200, headers: Vec::new(), body: Body::Text(text.to_owned()) }
    }

    /// A status with a sentence.
    pub(super) fn message(status: u16, message: &str) -> Self {
        Self::json(status, json!({ "message": message }))
    }

    pub(super) fn with(mut self, header: &'static str, value: impl ToString) -> Self {
        self.headers.push((header, value.to_string()));
        self
    }

    /// No such route.
    pub(super) fn no_route() -> Self {
        Self::json(404, json!({ "message": "Not found.", "docs": "https://coolify.io/docs" }))
    }

    /// An uncaught exception.
    pub(super) fn server_error() -> Self {
        Self::message(500, "Server Error")
    }

    /// What is wrong with which field: lists from the validator, plain strings from checks written by hand.
    pub(super) fn invalid(errors: Map<String, Value>) -> Self {
        Self::json(422, json!({ "message": "Validation failed.", "errors": errors }))
    }

    /// One field that a check written by hand refused.
    pub(super) fn invalid_by_hand(field: &str, why: &str) -> Self {
        Self::json(422, json!({ "message": "Validation failed.", "errors": { field: why } }))
    }

    /// GET where only POST is left.
    pub(super) fn only_post() -> Self {
        Self::message(405, "This endpoint has changed to a POST request.").with("allow", "POST")
    }
}
