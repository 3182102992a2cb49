//! The server as its clients see it.

use crate::client::{Client, ClientError, Sent};
use awc::http::Method;
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

const DOWNLOAD_LIMIT: Duration = Duration::from_secs(60);
const DOWNLOAD_BYTES_MAX: u64 = 512 * 1024 * 1024;
const SEND_TRIES: u32 = 5;
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// A request that did not succeed, or a recording that cannot be kept.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The server's answer, or none.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The recording cannot be written.
    #[error("{} cannot be written", path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
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

/// The server, as the demonstration asks it.
pub(super) struct Api {
    client: Client,
}

impl Api {
    pub(super) fn new(base: &str, key: &str) -> Self {
        Self { client: Client::new(base, key) }
    }

    /// Whether the server says that it is ready; anything else, silence included, is no.
    pub(super) async fn is_ready(&self) -> bool {
        self.client.fetch(Method::GET, "/readyz", Sent::default()).await.is_ok()
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
            let sent = Sent { body: Some(&wish), idempotency_key: Some(&key) };
            match self.client.call(Method::POST, "/api/bots", sent).await {
                Err(error) if error.is_passing() && tries < SEND_TRIES => {
                    tries += 1;
                    sleep(RETRY_DELAY).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    pub(super) async fn bot(&self, id: i64) -> Result<Bot, ApiError> {
        self.call(Method::GET, &format!("/api/bots/{id}")).await
    }

    /// The first hundred events; a short rehearsal has far fewer.
    pub(super) async fn events(&self, id: i64) -> Result<Vec<Event>, ApiError> {
        let path = format!("/api/bots/{id}/events?page=1&pageSize=100");
        Ok(self.call::<Page<Event>>(Method::GET, &path).await?.data)
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
        let _bot: Value = self.call(Method::POST, &format!("/api/bots/{id}/{how}")).await?;
        Ok(())
    }

    /// Whether no slot has anything under way.
    pub(super) async fn pool_is_quiet(&self) -> Result<bool, ApiError> {
        let stats: PoolStats = self.call(Method::GET, "/api/bots/pool/stats").await?;
        Ok(stats.deploying == 0 && stats.busy == 0)
    }

    /// Fetches the recording through its signed link, as a browser would: without the key.
    pub(super) async fn save_recording(&self, id: i64, path: &Path) -> Result<(), ApiError> {
        let link: RecordingLink = self.call(Method::GET, &format!("/api/bots/{id}/recording")).await?;
        let request = format!("GET the recording of bot {id}");
        match timeout(DOWNLOAD_LIMIT, self.download(&request, &link.recording_url, path)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientError::unanswered(&request, "not finished in time").into()),
        }
    }

    async fn download(&self, request: &str, url: &str, path: &Path) -> Result<(), ApiError> {
        let save = |source| ApiError::Save { path: path.to_owned(), source };
        let asked = self.client.http().get(url).send().await;
        let mut response = asked.map_err(|error| ClientError::unanswered(request, error))?;
        if !response.status().is_success() {
            return Err(ClientError::refused(request, response.status(), &[]).into());
        }
        let mut file = File::create(path).await.map_err(save)?;
        let mut length = 0_u64;
        while let Some(chunk) = response.next().await {
            let chunk = chunk.map_err(|error| ClientError::unanswered(request, error))?;
            length += chunk.len() as u64;
            if length > DOWNLOAD_BYTES_MAX {
                return Err(ClientError::unanswered(request, "far longer than such a meeting can be").into());
            }
            file.write_all(&chunk).await.map_err(save)?;
        }
        file.flush().await.map_err(save)
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ApiError> {
        Ok(self.client.call(method, path, Sent::default()).await?)
    }
}
