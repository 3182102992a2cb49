//! The server's endpoints for bots over HTTP: one call, one try, one answer.
//!
//! Every call is bounded in time and every answer in size. Trying again is up to the callers; what an answer's
//! commands ask for is passed on here, in one place, to the [`OrderBook`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use meeboter_bot::{
    Assignment, ClaimRequest, Commands, EventReport, FENCE_CODES, GAP_CODE, HeartbeatRequest,
    MALFORMED_CODES, ReportReply, SegmentPart, SegmentReply, SegmentRequest, StatusReport, TOKEN_CODE,
    TOKEN_HEADER, assignment_path, events_path, heartbeat_path, segments_path, status_path,
};
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use slog::{Logger, info, warn};
use uuid::Uuid;

use crate::orders::OrderBook;
use crate::patience::Reach;
use crate::telemetry::LevelSwitch;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest answer that is read.
const ANSWER_MAX_BYTES: usize = 256 * 1024;
/// Longest `Retry-After` that is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A call that did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The HTTP client could not be made.
    #[error("cannot set up HTTP")]
    Setup(#[source] reqwest::Error),
    /// No answer.
    #[error("no answer to {call}")]
    Unreachable {
        /// The call.
        call: &'static str,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// An answer other than success.
    #[error("{call} was refused with {status} {code}: {message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// HTTP status.
        status: u16,
        /// `error.code`, or empty.
        code: String,
        /// `error.message`, or empty.
        message: String,
        /// `error.details.nextSeq`.
        next_seq: Option<i64>,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Success, but the body is not what it should be.
    #[error("the answer to {call} cannot be read: {problem}")]
    Unreadable {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl ClientError {
    /// The number the server wants next, where it refused a report for its number.
    pub(crate) fn gap(&self) -> Option<i64> {
        match self {
            Self::Refused { status: 409, code, next_seq, .. } if code == GAP_CODE => *next_seq,
            _ => None,
        }
    }

    /// True where this process no longer owns the slot. Only the server can say that: a proxy before a server that
    /// restarts answers 404, 405 and 409 too, and a live meeting must not end for it.
    pub(crate) fn is_fence(&self) -> bool {
        matches!(self, Self::Refused { status: 409, code, .. } if FENCE_CODES.contains(&code.as_str()))
    }

    /// True where the server does not know the token.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self, Self::Refused { status: 401, code, .. } if code == TOKEN_CODE)
    }

    /// True where the server says that the request itself is wrong, so that another try would be refused as well. 401
    /// and 403 are not among these: a server that lost its secret must not cost a report.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { status: 400..500, code, .. } if MALFORMED_CODES.contains(&code.as_str()))
    }

    /// True where the server itself has decided so, and not whatever stands before it, or is wrong with it.
    fn is_the_servers(&self) -> bool {
        self.is_fence() || self.is_final() || matches!(self, Self::Refused { code, .. } if code == GAP_CODE)
    }

    /// How long the server asks to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Setup(_) | Self::Unreachable { .. } | Self::Unreadable { .. } => None,
        }
    }
}

/// The server, before anything is claimed.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
}

/// What a claim came to.
#[derive(Debug)]
pub(crate) enum ClaimReply {
    /// Claimed.
    Granted(Box<Assignment>),
    /// Nothing assigned yet; ask again after this long.
    NotYet(Duration),
}

impl Client {
    /// A client of the server at `base` (no trailing slash).
    pub(crate) fn new(base: &str, log: &Logger) -> Result<Self, ClientError> {
        // The error says that a provider is there already, which is all that is wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(REQUEST_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .user_agent(concat!("meeboter-bot/", env!("CARGO_PKG_VERSION")))
        };
        let http = match builder().build() {
            Ok(http) => http,
            Err(error) => {
                warn!(log, "no root certificates; https will not work, install ca-certificates";
                    "error" => crate::telemetry::chain(&error));
                builder().tls_certs_only([]).build().map_err(ClientError::Setup)?
            }
        };
        Ok(Self { http, base: base.to_owned() })
    }

    /// Asks for the slot's assignment.
    pub(crate) async fn claim(
        &self,
        slot: Uuid,
        token: &str,
        nonce: Uuid,
    ) -> Result<ClaimReply, ClientError> {
        const CALL: &str = "the claim of the slot's assignment";
        let path = assignment_path(slot);
        let response = self.send(CALL, Method::POST, &path, token, &ClaimRequest { nonce }).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(ClaimReply::NotYet(retry_after(&response).unwrap_or(Duration::from_secs(2))));
        }
        Ok(ClaimReply::Granted(Box::new(read_json(CALL, response).await?)))
    }

    async fn send<B: Serialize + Sync>(
        &self,
        call: &'static str,
        method: Method,
        path: &str,
        token: &str,
        body: &B,
    ) -> Result<Response, ClientError> {
        let request =
            self.http.request(method, format!("{}{path}", self.base)).header(TOKEN_HEADER, token).json(body);
        let response = request.send().await.map_err(|source| ClientError::Unreachable { call, source })?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(call, response).await) }
    }

    async fn put(&self, url: &str, bytes: Vec<u8>) -> Result<(), ClientError> {
        const CALL: &str = "the upload of a segment";
        let request =
            self.http.put(url).timeout(UPLOAD_TIMEOUT).header("content-type", "video/mp4").body(bytes);
        // The URL is a credential: it must not reach a log.
        let response = request
            .send()
            .await
            .map_err(|source| ClientError::Unreachable { call: CALL, source: source.without_url() })?;
        if response.status().is_success() { Ok(()) } else { Err(refusal(CALL, response).await) }
    }
}

/// The server, for one claimed bot. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct BotClient {
    client: Client,
    token: Arc<str>,
    bot_id: i64,
    generation: i64,
    orders: OrderBook,
    reach: Reach,
    level: LevelSwitch,
    log: Logger,
}

impl BotClient {
    /// For the bot of `assignment`; commands go to `orders` and `level`.
    pub(crate) fn new(
        client: Client,
        assignment: &Assignment,
        orders: OrderBook,
        level: LevelSwitch,
        log: Logger,
    ) -> Self {
        Self {
            client,
            token: assignment.token.as_str().into(),
            bot_id: assignment.bot_id,
            generation: assignment.generation,
            orders,
            reach: Reach::default(),
            level,
            log,
        }
    }

    /// Since when the server answers.
    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The generation that every request has to carry.
    pub(crate) fn generation(&self) -> i64 {
        self.generation
    }

    /// Reports a state.
    pub(crate) async fn status(&self, report: &StatusReport) -> Result<ReportReply, ClientError> {
        let path = status_path(self.bot_id);
        let reply: ReportReply = self.call("the status report", Method::PATCH, &path, report).await?;
        self.obey(&reply.commands);
        Ok(reply)
    }

    /// Reports an event.
    pub(crate) async fn event(&self, report: &EventReport) -> Result<ReportReply, ClientError> {
        let path = events_path(self.bot_id);
        let reply: ReportReply = self.call("the event report", Method::POST, &path, report).await?;
        self.obey(&reply.commands);
        Ok(reply)
    }

    /// Tells that the bot is alive.
    pub(crate) async fn heartbeat(&self) -> Result<(), ClientError> {
        let beat = HeartbeatRequest { generation: self.generation };
        let commands: Commands =
            self.call("the heartbeat", Method::POST, &heartbeat_path(self.bot_id), &beat).await?;
        self.obey(&commands);
        Ok(())
    }

    /// Uploads one piece of the recording.
    pub(crate) async fn upload(
        &self,
        run: u32,
        part: SegmentPart,
        bytes: Vec<u8>,
    ) -> Result<(), ClientError> {
        let request = SegmentRequest { generation: self.generation, run, part };
        let path = segments_path(self.bot_id);
        let reply: SegmentReply =
            self.call("the request for an upload address", Method::POST, &path, &request).await?;
        self.obey(&reply.commands);
        self.client.put(&reply.url, bytes).await
    }

    async fn call<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        call: &'static str,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let answer = match self.client.send(call, method, path, &self.token, body).await {
            Ok(response) => read_json(call, response).await,
            Err(error) => Err(error),
        };
        self.reach.note(answer.as_ref().err().is_none_or(ClientError::is_the_servers), Instant::now());
        answer
    }

    fn obey(&self, commands: &Commands) {
        if commands.should_leave && !self.orders.now().leave {
            info!(self.log, "the server asks the bot to leave");
            self.orders.leave();
        }
        if let Some(word) = &commands.log_level
            && !self.level.set(word)
        {
            warn!(self.log, "unknown log level from the server"; "level" => word.as_str());
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    error: ErrorFields,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorFields {
    code: String,
    message: String,
    details: Option<serde_json::Value>,
}

async fn refusal(call: &'static str, response: Response) -> ClientError {
    let status = response.status().as_u16();
    let retry_after = retry_after(&response);
    let body = read_bounded(call, response).await.unwrap_or_default();
    let ErrorBody { error } = serde_json::from_slice(&body).unwrap_or_default();
    let next_seq =
        error.details.as_ref().and_then(|details| details.get("nextSeq")).and_then(|seq| seq.as_i64());
    let message = error.message.chars().take(300).collect();
    ClientError::Refused { call, status, code: error.code, message, next_seq, retry_after }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u64 = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

async fn read_json<T: DeserializeOwned>(call: &'static str, response: Response) -> Result<T, ClientError> {
    let body = read_bounded(call, response).await?;
    serde_json::from_slice(&body)
        .map_err(|error| ClientError::Unreadable { call, problem: error.to_string() })
}

async fn read_bounded(call: &'static str, mut response: Response) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|source| ClientError::Unreachable { call, source: source.without_url() })?
    {
        if body.len() + chunk.len() > ANSWER_MAX_BYTES {
            let problem = format!("longer than {ANSWER_MAX_BYTES} bytes");
            return Err(ClientError::Unreadable { call, problem });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
