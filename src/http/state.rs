//! What every handler shares.

use super::error::ApiError;
use super::rate::TokenBucket;
use super::watchers::Watchers;
use crate::app::reload::Reloader;
use crate::artifacts::S3Artifacts;
use crate::auth::Tokens;
use crate::auth::api_keys::ApiKeys;
use crate::auth::plans::Plans;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::store::pool::Pool;
use actix_web::HttpRequest;
use meeboter_actors::ports::{Clock, Driver, Lead};
use meeboter_actors::tree::Tree;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot, watch};

/// See the module.
pub struct AppState {
    /// What a leader has; empty while this server stands by.
    pub leading: OnceLock<Leading>,
    /// Reads.
    pub pool: Pool,
    /// Links to objects.
    pub artifacts: S3Artifacts,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Tokens.
    pub tokens: Tokens,
    /// Keys.
    pub api_keys: ApiKeys,
    /// Users' plans.
    pub plans: Plans,
    /// Settings as they were at the start: what cannot change while the server runs.
    pub settings: Settings,
    /// Settings that can, and the way to have them read again.
    pub reloader: Reloader,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The log.
    pub log: slog::Logger,
    /// Bounds the requests that wait for a decision.
    pub door: Semaphore,
    /// Bounds the bots that are asked for in a second; `None`: they are not bounded.
    pub rate: Option<Mutex<TokenBucket>>,
    /// Bounds the websockets.
    pub watchers: Arc<Watchers>,
    /// True once the server is shutting down.
    pub stopping: watch::Sender<bool>,
    /// Told when a server that was to be emptied has no bot left.
    pub emptied: Notify,
}

/// What only a leader has.
pub struct Leading {
    /// The actors.
    pub tree: Tree,
    /// Whether it may act now.
    pub lead: Arc<dyn Lead>,
    /// The engine, for looks that change nothing.
    pub driver: Arc<dyn Driver>,
}

impl AppState {
    /// The actors; on a standby, the answer to who asks for them.
    pub fn tree(&self) -> Result<&Tree, ApiError> {
        self.leading().map(|leading| &leading.tree)
    }

    /// What a leader has; on a standby, the answer to who asks for it.
    pub fn leading(&self) -> Result<&Leading, ApiError> {
        let message = "This server stands by while another leads; ask that one, or again soon.";
        self.leading.get().ok_or_else(|| ApiError::unavailable("standby", message, 1))
    }

    /// Lets a request for a bot in as far as the rate goes, or says when to come back.
    pub fn admit_at_rate(&self) -> Result<(), ApiError> {
        let Some(rate) = &self.rate else { return Ok(()) };
        let taken = rate.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        taken.map_err(|wait| {
            let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
            ApiError::unavailable("rate_limited", "More bots are asked for than this server takes.", seconds)
        })
    }

    /// Lets a request in, or says when to come back.
    pub fn admit(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        let full = || ApiError::unavailable("overloaded", "Too many requests wait for a decision.", 1);
        self.check_running()?;
        self.door.try_acquire().map_err(|_| full())
    }

    /// Waits until those who were let in have their answers, but not longer than this.
    pub async fn all_answered(&self, limit: Duration) {
        let places = u32::try_from(self.settings.server.in_flight_max).unwrap_or(u32::MAX);
        // Too late or not, what comes next is the same.
        let _ = tokio::time::timeout(limit, self.door.acquire_many(places)).await;
    }

    /// Refuses while the server is shutting down.
    pub fn check_running(&self) -> Result<(), ApiError> {
        if *self.stopping.borrow() {
            return Err(ApiError::unavailable("shutting_down", "The server is shutting down.", 5));
        }
        Ok(())
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
        if let Some(base) = configured_base(&self.settings) {
            return base.trim_end_matches('/').to_owned();
        }
        let info = request.connection_info();
        format!("{}://{}", info.scheme(), info.host())
    }
}

/// The address that links to objects begin with, where the settings know it: of an object store outside of this server,
/// its own; of the embedded one, this server's, which passes such requests on.
fn configured_base(settings: &Settings) -> Option<&str> {
    let s3 = &settings.s3;
    let own = if s3.endpoint.is_empty() { &settings.server.public_url } else { &s3.endpoint };
    [&s3.public_endpoint, own].into_iter().find(|base| !base.is_empty()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn links_lead_to_the_store_that_holds_the_objects() {
        let base = |environment: &[(&str, &str)]| {
            let keys = [("S3_ACCESS_KEY", "a"), ("S3_SECRET_KEY", "b")];
            let environment = environment.iter().chain(&keys);
            let environment = environment.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let settings = config::load(None, environment).expect("good").settings;
            configured_base(&settings).map(str::to_owned)
        };
        let public = ("NEXT_PUBLIC_APP_ORIGIN_URL", "https://bots.example");
        let store = ("S3_ENDPOINT", "http://minio:9000");
        let outside = ("S3_PUBLIC_ENDPOINT", "https://objects.example");
        for (environment, expected) in [
            (vec![], None),
            (vec![public], Some(public.1)),
            (vec![store], Some(store.1)),
            (vec![public, store], Some(store.1)),
            (vec![public, store, outside], Some(outside.1)),
        ] {
            assert_eq!(base(&environment).as_deref(), expected, "{environment:?}");
        }
    }
}
