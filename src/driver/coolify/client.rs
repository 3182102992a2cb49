//! The way to Coolify's API. Its HTTP client (awc) stays on one thread, so it has one of its own; everybody else sends
//! requests through a channel. Here the budget is kept: requests wait for their turn by priority, and a 429 of the rate
//! limit is nobody's failure but waited out.

use super::api::Request;
use super::budget::{Budget, Priority};
use super::error::{ApiError, is_queue_full};
use crate::config::Secret;
use awc::Connector;
use awc::http::header::{HeaderMap, RETRY_AFTER};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use slog::{Logger, info};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, timeout};

/// Requests that may wait for their turn; whoever comes then waits to be let in.
const WAITING_MAX: usize = 256;
/// Requests that are under way at a time.
const IN_FLIGHT_MAX: usize = 16;
/// Longest answer that is read: the rows of some thousands of applications.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a 429 without Retry-After asks for.
const PAUSE_USUAL: Duration = Duration::from_secs(5);
/// Longest pause that is believed.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// Tries of a request that may be repeated, and the wait before the second; it doubles.
const TRIES: u32 = 3;
const RETRY_FIRST: Duration = Duration::from_millis(250);

/// How Coolify is reached.
#[derive(Clone)]
pub(super) struct Access {
    /// The address, without `/api/v1`.
    pub(super) url: String,
    pub(super) token: Secret,
    pub(super) requests_per_window: u32,
    pub(super) rate_window: Duration,
    /// How long an answer may take.
    pub(super) answer_limit: Duration,
}

/// On whose behalf requests are sent, and until when they may wait for their turn, all of them together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) priority: Priority,
    until: Instant,
}

impl Claim {
    pub(super) fn within(priority: Priority, patience: Duration) -> Self {
        Self { priority, until: Instant::now() + patience }
    }

    /// The same, for no longer than that.
    pub(super) fn at_most(self, patience: Duration) -> Self {
        Self { until: self.until.min(Instant::now() + patience), ..self }
    }

    /// What is left of its time.
    pub(super) fn patience(self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// A request on its way.
struct Call {
    request: Request,
    priority: Priority,
    since: Instant,
    /// It is not sent after that.
    until: Instant,
    reply: oneshot::Sender<Result<Vec<u8>, ApiError>>,
}

/// See the module. Clones share the thread.
#[derive(Clone)]
pub(super) struct Client {
    calls: mpsc::Sender<Call>,
}

impl Client {
    /// Starts the thread; it ends with the last clone.
    pub(super) fn start(access: Access, log: Logger) -> io::Result<Self> {
        let (calls, received) = mpsc::channel(WAITING_MAX);
        let tls = if access.url.starts_with("https:") { Some(trusted()?) } else { None };
        std::thread::Builder::new().name("coolify-client".to_owned()).spawn(move || {
            actix_rt::System::new().block_on(Exchange::new(access, tls, log).run(received));
        })?;
        Ok(Self { calls })
    }

    /// Sends a request once, as soon as the budget allows within `patience`, and reads the answer.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        priority: Priority,
        patience: Duration,
        request: Request,
    ) -> Result<T, ApiError> {
        let name = request.name();
        let bytes = self.exchange(priority, patience, request).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::Unreadable { request: name, detail: error.to_string() })
    }

    /// As `send`, for what may be asked twice: tried again where Coolify failed or did not answer.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        priority: Priority,
        patience: Duration,
        request: Request,
    ) -> Result<T, ApiError> {
        let mut wait = RETRY_FIRST;
        for _ in 1..TRIES {
            match self.send(priority, patience, request.clone()).await {
                Err(error) if error.may_have_acted() => tokio::time::sleep(wait).await,
                outcome => return outcome,
            }
            wait *= 2;
        }
        self.send(priority, patience, request).await
    }

    /// The body of the answer.
    pub(super) async fn exchange(
        &self,
        priority: Priority,
        patience: Duration,
        request: Request,
    ) -> Result<Vec<u8>, ApiError> {
        let name = request.name();
        let gone =
            |_| ApiError::Unanswered { request: name.clone(), detail: "the client has ended".to_owned() };
        let (reply, answer) = oneshot::channel();
        let since = Instant::now();
        let call = Call { request, priority, since, until: since + patience, reply };
        self.calls.send(call).await.map_err(|_| ()).map_err(gone)?;
        answer.await.map_err(|_| ()).map_err(gone)?
    }
}

/// What an answer says of the limit: how many requests are left, of how many.
#[derive(Default)]
struct Heard {
    left: Option<u32>,
    of: Option<u32>,
}

/// What came of one exchange.
struct Came {
    at: (Priority, u64),
    call: Call,
    outcome: Result<Vec<u8>, ApiError>,
    heard: Heard,
}

/// The thread's side.
struct Exchange {
    http: awc::Client,
    access: Access,
    budget: Budget,
    /// By priority, then by arrival.
    waiting: BTreeMap<(Priority, u64), Call>,
    arrivals: u64,
    log: Logger,
}

impl Exchange {
    fn new(access: Access, tls: Option<ClientConfig>, log: Logger) -> Self {
        let mut connector = Connector::new().timeout(access.answer_limit);
        if let Some(tls) = tls {
            connector = connector.rustls_0_23(Arc::new(tls));
        }
        let http = awc::Client::builder()
            .timeout(access.answer_limit)
            .connector(connector)
            // A POST that is sent elsewhere would arrive as a GET.
            .disable_redirects()
            .bearer_auth(access.token.expose())
            .add_default_header(("accept", "application/json"))
            .finish();
        let budget = Budget::new(access.requests_per_window, access.rate_window);
        Self { http, access, budget, waiting: BTreeMap::new(), arrivals: 0, log }
    }

    async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        let mut under_way = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            // What nobody waits for any more costs nothing.
            self.waiting.retain(|_, call| !call.reply.is_closed());
            let again = loop {
                let Some(first) = self.waiting.first_entry().filter(|_| under_way.len() < IN_FLIGHT_MAX)
                else {
                    break None;
                };
                match self.budget.spend(first.key().0, now) {
                    Ok(()) => {
                        let (at, call) = first.remove_entry();
                        under_way.push(exchange(self.http.clone(), self.access.clone(), at, call));
                    }
                    Err(again) => break Some(again),
                }
            };
            self.expire(now);
            let expiry = self.waiting.values().map(|call| call.until).min();
            let wake = [again, expiry].into_iter().flatten().min();
            tokio::select! {
                Some(came) = under_way.next() => self.take(came),
                call = calls.recv(), if self.waiting.len() < WAITING_MAX => match call {
                    Some(call) => {
                        self.waiting.insert((call.priority, self.arrivals), call);
                        self.arrivals += 1;
                    }
                    // Nobody is left who could want anything.
                    None => return,
                },
                () = wake_at(wake) => {}
            }
        }
    }

    /// Gives up what did not get its turn in time.
    fn expire(&mut self, now: Instant) {
        let late: Vec<_> =
            self.waiting.iter().filter(|(_, call)| call.until < now).map(|(at, _)| *at).collect();
        for at in late {
            if let Some(call) = self.waiting.remove(&at) {
                let error =
                    ApiError::Unsent { request: call.request.name(), waited: now.duration_since(call.since) };
                drop(call.reply.send(Err(error)));
            }
        }
    }

    fn take(&mut self, came: Came) {
        let now = Instant::now();
        if let Heard { left: Some(left), of: Some(of) } = came.heard {
            self.budget.hear(left, of, now);
        }
        match &came.outcome {
            Err(ApiError::Refused { status: 429, words, retry_after, .. }) if !is_queue_full(words) => {
                let pause = retry_after.unwrap_or(PAUSE_USUAL).min(PAUSE_MAX);
                info!(self.log, "Coolify wants fewer requests"; "pause_ms" => pause.as_millis() as u64);
                self.budget.pause(now + pause);
                // Nothing was done: it keeps its place.
                self.waiting.insert(came.at, came.call);
            }
            _ => drop(came.call.reply.send(came.outcome)),
        }
    }
}

async fn wake_at(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn exchange(http: awc::Client, access: Access, at: (Priority, u64), call: Call) -> Came {
    let mut heard = Heard::default();
    let limit = access.answer_limit;
    let outcome = match timeout(limit, speak(&http, &access.url, &call.request, &mut heard)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ApiError::Unanswered {
            request: call.request.name(),
            detail: format!("no answer within {} ms", limit.as_millis()),
        }),
    };
    Came { at, call, outcome, heard }
}

async fn speak(
    http: &awc::Client,
    url: &str,
    request: &Request,
    heard: &mut Heard,
) -> Result<Vec<u8>, ApiError> {
    let name = request.name();
    let unanswered = |detail: String| ApiError::Unanswered { request: name.clone(), detail };
    let asking = http
        .request(request.method.clone(), format!("{url}/api/v1{}", request.path))
        .query(&request.query)
        .map_err(|error| unanswered(error.to_string()))?;
    let sent = match &request.body {
        Some(body) => asking.send_json(body).await,
        None => asking.insert_header(("content-type", "application/json")).send().await,
    };
    let mut response = sent.map_err(|error| unanswered(error.to_string()))?;
    let count = |name| number(response.headers(), name).and_then(|count| u32::try_from(count).ok());
    *heard = Heard { left: count("x-ratelimit-remaining"), of: count("x-ratelimit-limit") };
    let retry_after = number(response.headers(), RETRY_AFTER.as_str()).map(Duration::from_secs);
    let body = response.body().limit(ANSWER_BYTES_MAX).await;
    let body = body.map_err(|error| unanswered(error.to_string()))?;
    let status = response.status();
    if status.is_success() {
        return Ok(body.to_vec());
    }
    Err(ApiError::of_answer(name, status.as_u16(), &body, retry_after))
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// TLS with the certificates that this machine trusts; `SSL_CERT_FILE` names others.
fn trusted() -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let why = "no trusted certificates on this machine (install ca-certificates, or set SSL_CERT_FILE)";
        return Err(io::Error::other(why));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
