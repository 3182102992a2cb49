//! What every handler shares.

use super::error::ApiError;
use crate::artifacts::S3Artifacts;
use crate::auth::Tokens;
use crate::auth::api_keys::ApiKeys;
use crate::auth::plans::Plans;
use crate::config::Settings;
use crate::store::pool::Pool;
use actix_web::HttpRequest;
use meeboter_actors::ports::Clock;
use meeboter_actors::tree::Tree;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

/// See the module.
pub struct AppState {
    /// The actors.
    pub tree: Tree,
    /// Reads.
    pub pool: Pool,
    /// Links to objects.
    pub artifacts: S3Artifacts,
    /// Tokens.
    pub tokens: Tokens,
    /// Keys.
    pub api_keys: ApiKeys,
    /// Users' plans.
    pub plans: Plans,
    /// Settings.
    pub settings: Settings,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The log.
    pub log: slog::Logger,
    /// Bounds the requests that wait for a decision.
    pub door: Semaphore,
    /// False while shutting down.
    pub ready: AtomicBool,
}

impl AppState {
    /// Lets a request in, or says when to come back.
    pub fn admit(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        let full = || ApiError::unavailable("overloaded", "Too many requests wait for a decision.", 1);
        if !self.ready.load(Ordering::Relaxed) {
            return Err(ApiError::unavailable("shutting_down", "The server is shutting down.", 5));
        }
        self.door.try_acquire().map_err(|_| full())
    }

    /// Waits for an actor's answer. One that comes too late, or whose actor died, leaves the outcome unknown.
    pub async fn decided<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, ApiError> {
        let limit = Duration::from_millis(self.settings.server.decision_timeout_ms);
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(ApiError::unknown_outcome()),
        }
    }

    /// The base of links that this request's sender can follow.
    pub fn public_base(&self, request: &HttpRequest) -> String {
        let server = &self.settings.server;
        let configured = [&self.settings.s3.public_endpoint, &server.public_url, &self.settings.s3.endpoint];
        if let Some(base) = configured.into_iter().find(|base| !base.is_empty()) {
            return base.trim_end_matches('/').to_owned();
        }
        let info = request.connection_info();
        format!("{}://{}", info.scheme(), info.host())
    }
}
