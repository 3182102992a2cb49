//! Those who ask a server: clients, users with keys, and what they are answered.

use meeboter_actors::ids::UserId;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A user with a key and a client of its own.
pub(crate) struct Visitor {
    pub(crate) base: String,
    pub(crate) user: UserId,
    pub(crate) key: String,
    pub(crate) client: Client,
}

impl Visitor {
    /// A request without a key.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// A request with this user's key.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).header("x-api-key", &self.key)
    }

    /// GET; the status and the body.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    /// POST; the status and the body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// What to POST for a bot in a rehearsal.
    pub(crate) fn bot_request(&self, name: &str) -> Value {
        let meeting_url = format!("{}/rehearsal/{name}", self.base);
        json!({ "meetingInfo": { "platform": "rehearsal", "meetingUrl": meeting_url }, "botDisplayName": name })
    }

    /// Sends a bot to a rehearsal and returns its number.
    pub(crate) async fn send_bot(&self, name: &str) -> i64 {
        let (status, bot) = self.post("/api/bots", &self.bot_request(name)).await;
        assert_eq!(status, StatusCode::CREATED, "{bot}");
        bot["id"].as_i64().unwrap()
    }

    /// How many bots this user has.
    pub(crate) async fn total(&self) -> u64 {
        let (status, page) = self.get("/api/bots").await;
        assert_eq!(status, StatusCode::OK, "{page}");
        page["total"].as_u64().unwrap()
    }

    /// Signs in as a browser does; the cookie as it is sent back.
    pub(crate) async fn cookie(&self) -> String {
        let answer = self.sign_in().await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    /// The answer to a sign-in from the server's own page.
    pub(crate) async fn sign_in(&self) -> reqwest::Response {
        let sign_in = self.bare(Method::POST, "/api/session").header("origin", &self.base);
        sign_in.json(&json!({ "apiKey": self.key })).send().await.unwrap()
    }
}

/// A client that waits for no answer without end.
pub(crate) fn client() -> Client {
    // Another test may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(Duration::from_secs(20)).build().unwrap()
}

/// An answer with what clients go by when they are refused.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// In seconds.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Value,
    pub(crate) took: Duration,
}

impl Answer {
    /// Sends a request and waits for what comes of it.
    pub(crate) async fn to(request: RequestBuilder) -> Self {
        let began = Instant::now();
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.map(|seconds| seconds.to_str().unwrap().parse().unwrap());
        let body = answer.json().await.unwrap_or(Value::Null);
        Self { status, retry_after, body, took: began.elapsed() }
    }

    /// Sees that it is a refusal of this kind that says when to come back.
    pub(crate) fn check_later(&self, code: &str) {
        assert_eq!(self.status, StatusCode::SERVICE_UNAVAILABLE, "{self:?}");
        assert_eq!(self.body["error"]["code"], code, "{self:?}");
        assert!(self.retry_after.is_some_and(|seconds| seconds >= 1), "{self:?}");
    }
}

/// The status and the body of an answer; a body that is no JSON is null.
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    (status, answer.json().await.unwrap_or(Value::Null))
}
