//! The server as its clients see it.

use awc::http::{Method, StatusCode};
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use meeboter_actors::bot::BotState;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

const REQUEST_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(60);
const DOWNLOAD_BYTES_MAX: u64 = 512 * 1024 * 1024;
const SEND_TRIES: u32 = 5;
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// A request that did not succeed.
#[derive(Debug, Error)]
pub enum ApiError {
    /// No answer.
    #[error("{request}: {detail}")]
    Unanswered {
        /// Method and path.
        request: String,
        /// What the HTTP client said. (Its errors do not travel between threads, so only their words are kept.)
        detail: String,
    },
    /// An answer that says no.
    #[error("{request}: {status} {code}: {message} (error {id})")]
    Refused {
        /// Method and path.
        request: String,
        /// The status.
        status: u16,
        /// The code of the error.
        code: String,
        /// The sentence.
        message: String,
        /// The id that the server's log has too.
        id: String,
    },
    /// An answer of another shape.
    #[error("{request}: the answer is not what the API promises")]
    Unreadable {
        /// Method and path.
        request: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The recording cannot be written.
    #[error("{} cannot be written", path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ApiError {
    /// Whether the same request may succeed a moment later.
    fn is_passing(&self) -> bool {
        match self {
            Self::Unanswered { .. } => true,
            Self::Refused { status, .. } => *status == 503,
            Self::Unreadable { .. } | Self::Save { .. } => false,
        }
    }
}

/// A bot, as far as the demonstration looks at it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bot {
    pub(super) id: i64,
    pub(super) state: BotState,
    pub(super) slot_name: Option<String>,
    /// The slot's uuid; the name is older than the other drivers.
    #[serde(rename = "coolifyServiceUuid")]
    pub(super) slot_id: Option<String>,
    pub(super) recording_state: Option<RecordingState>,
    pub(super) end_reason: Option<String>,
    pub(super) end_detail: Option<String>,
    pub(super) deployment_error: Option<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) deployed_at: Option<DateTime<Utc>>,
    pub(super) joined_at: Option<DateTime<Utc>>,
}

/// How far a recording is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RecordingState {
    /// Segments may still come.
    Open,
    /// Being made into one file.
    Joining,
    /// There it is.
    Ready,
    /// There is none.
    Failed,
}

/// Something that happened to a bot.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub(super) event_type: String,
    pub(super) event_time: DateTime<Utc>,
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordingLink {
    recording_url: String,
}

#[derive(Deserialize)]
struct PoolStats {
    deploying: u32,
    busy: u32,
}

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: RefusalBody,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RefusalBody {
    id: String,
    code: String,
    message: String,
}

/// A client of one server.
pub(super) struct Api {
    http: awc::Client,
    base: String,
    key: String,
}

impl Api {
    pub(super) fn new(base: &str, key: &str) -> Self {
        let http = awc::Client::builder().timeout(REQUEST_LIMIT).finish();
        Self { http, base: base.to_owned(), key: key.to_owned() }
    }

    /// Whether the server says that it is ready; anything else, silence included, is no.
    pub(super) async fn is_ready(&self) -> bool {
        matches!(self.exchange(Method::GET, "/readyz", None).await, Ok((status, _)) if status.is_success())
    }

    /// Sends a bot. A lost answer is asked for again under the same key, so that one wish is one bot.
    pub(super) async fn send_bot(
        &self,
        name: &str,
        url: &str,
        queue_limit: Duration,
    ) -> Result<Bot, ApiError> {
        let wish = json!({
            "meetingInfo": { "platform": "rehearsal", "meetingUrl": url },
            "botDisplayName": name,
            "recordingEnabled": true,
            "queueTimeoutMs": u64::try_from(queue_limit.as_millis()).unwrap_or(u64::MAX),
        });
        let key = Uuid::new_v4().to_string();
        let mut tries = 1;
        loop {
            match self.call(Method::POST, "/api/bots", Some((&wish, &key))).await {
                Err(error) if error.is_passing() && tries < SEND_TRIES => {
                    tries += 1;
                    sleep(RETRY_DELAY).await;
                }
                outcome => return outcome,
            }
        }
    }

    pub(super) async fn bot(&self, id: i64) -> Result<Bot, ApiError> {
        self.call(Method::GET, &format!("/api/bots/{id}"), None).await
    }

    /// The first hundred events; a short rehearsal has far fewer.
    pub(super) async fn events(&self, id: i64) -> Result<Vec<Event>, ApiError> {
        let path = format!("/api/bots/{id}/events?page=1&pageSize=100");
        Ok(self.call::<Page<Event>>(Method::GET, &path, None).await?.data)
    }

    /// Ends a bot wherever it is in its life.
    pub(super) async fn dismiss(&self, id: i64, state: BotState) -> Result<(), ApiError> {
        let how = match state {
            BotState::Scheduled | BotState::Queued | BotState::Deploying => "cancel",
            BotState::JoiningCall | BotState::InWaitingRoom | BotState::InCall | BotState::Recording => {
                "remove-from-call"
            }
            BotState::Leaving | BotState::Done | BotState::Fatal => return Ok(()),
        };
        let _bot: Value = self.call(Method::POST, &format!("/api/bots/{id}/{how}"), None).await?;
        Ok(())
    }

    /// Whether no slot has anything under way.
    pub(super) async fn pool_is_quiet(&self) -> Result<bool, ApiError> {
        let stats: PoolStats = self.call(Method::GET, "/api/bots/pool/stats", None).await?;
        Ok(stats.deploying == 0 && stats.busy == 0)
    }

    /// Fetches the recording through its signed link, as a browser would: without the key.
    pub(super) async fn save_recording(&self, id: i64, path: &Path) -> Result<(), ApiError> {
        let link: RecordingLink = self.call(Method::GET, &format!("/api/bots/{id}/recording"), None).await?;
        let request = format!("GET the recording of bot {id}");
        match timeout(DOWNLOAD_LIMIT, self.download(&request, &link.recording_url, path)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(unanswered(&request, "not finished in time")),
        }
    }

    async fn download(&self, request: &str, url: &str, path: &Path) -> Result<(), ApiError> {
        let save = |source| ApiError::Save { path: path.to_owned(), source };
        let mut response = self.http.get(url).send().await.map_err(|error| unanswered(request, error))?;
        if !response.status().is_success() {
            return Err(refused(request, response.status(), &[]));
        }
        let mut file = File::create(path).await.map_err(save)?;
        let mut length = 0_u64;
        while let Some(chunk) = response.next().await {
            let chunk = chunk.map_err(|error| unanswered(request, error))?;
            length += chunk.len() as u64;
            if length > DOWNLOAD_BYTES_MAX {
                return Err(unanswered(request, "far longer than such a meeting can be"));
            }
            file.write_all(&chunk).await.map_err(save)?;
        }
        file.flush().await.map_err(save)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<(&Value, &str)>,
    ) -> Result<T, ApiError> {
        let request = format!("{method} {path}");
        let (status, bytes) = self.exchange(method, path, body).await?;
        if !status.is_success() {
            return Err(refused(&request, status, &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|source| ApiError::Unreadable { request, source })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&Value, &str)>,
    ) -> Result<(StatusCode, Vec<u8>), ApiError> {
        let request = format!("{method} {path}");
        let asking = self
            .http
            .request(method, format!("{}{path}", self.base))
            .insert_header(("x-api-key", &*self.key));
        let exchange = async {
            let sent = match body {
                Some((value, key)) => asking.insert_header(("idempotency-key", key)).send_json(value).await,
                None => asking.send().await,
            };
            let mut response = sent.map_err(|error| unanswered(&request, error))?;
            let bytes =
                response.body().limit(ANSWER_BYTES_MAX).await.map_err(|error| unanswered(&request, error))?;
            Ok((response.status(), bytes.to_vec()))
        };
        timeout(REQUEST_LIMIT, exchange)
            .await
            .unwrap_or_else(|_| Err(unanswered(&request, "no answer in time")))
    }
}

fn unanswered(request: &str, detail: impl ToString) -> ApiError {
    ApiError::Unanswered { request: request.to_owned(), detail: detail.to_string() }
}

fn refused(request: &str, status: StatusCode, bytes: &[u8]) -> ApiError {
    let RefusalBody { id, code, message } =
        serde_json::from_slice::<Refusal>(bytes).unwrap_or_default().error;
    ApiError::Refused { request: request.to_owned(), status: status.as_u16(), code, message, id }
}
