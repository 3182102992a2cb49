//! A client of one server's API, for this program's own commands. Every request has a timeout and a bounded answer.

use awc::http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use thiserror::Error;
use tokio::time::timeout;

const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// More than the longest list: 100,000 slots.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A request that did not succeed.
#[derive(Debug, Error)]
pub enum ClientError {
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
}

impl ClientError {
    /// There was no answer, or not all of it.
    pub(crate) fn unanswered(request: &str, detail: impl ToString) -> Self {
        Self::Unanswered { request: request.to_owned(), detail: detail.to_string() }
    }

    /// What an answer that says no says.
    pub(crate) fn refused(request: &str, status: StatusCode, bytes: &[u8]) -> Self {
        let RefusalBody { id, code, message } =
            serde_json::from_slice::<Refusal>(bytes).unwrap_or_default().error;
        Self::Refused { request: request.to_owned(), status: status.as_u16(), code, message, id }
    }

    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unanswered { .. } => true,
            Self::Refused { status, .. } => *status == 503,
            Self::Unreadable { .. } => false,
        }
    }
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

/// What goes with a request.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sent<'a> {
    /// The body.
    pub(crate) body: Option<&'a Value>,
    /// The key under which asking twice is safe.
    pub(crate) idempotency_key: Option<&'a str>,
}

/// See the module.
pub(crate) struct Client {
    http: awc::Client,
    base: String,
    key: String,
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:3000`, with an API key.
    pub(crate) fn new(base: &str, key: &str) -> Self {
        let http = awc::Client::builder().timeout(REQUEST_LIMIT).finish();
        Self { http, base: base.trim_end_matches('/').to_owned(), key: key.to_owned() }
    }

    /// For what is not asked of the API, such as a signed link.
    pub(crate) fn http(&self) -> &awc::Client {
        &self.http
    }

    /// The answer's body as what the API promises.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        sent: Sent<'_>,
    ) -> Result<T, ClientError> {
        let request = format!("{method} {path}");
        let bytes = self.fetch(method, path, sent).await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Unreadable { request, source })
    }

    /// The answer's body as it is.
    pub(crate) async fn fetch(
        &self,
        method: Method,
        path: &str,
        sent: Sent<'_>,
    ) -> Result<Vec<u8>, ClientError> {
        let request = format!("{method} {path}");
        let (status, bytes) = self.exchange(method, path, sent).await?;
        if status.is_success() { Ok(bytes) } else { Err(ClientError::refused(&request, status, &bytes)) }
    }

    /// Status and body, whatever they say.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        path: &str,
        Sent { body, idempotency_key }: Sent<'_>,
    ) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let request = format!("{method} {path}");
        let mut asking = self
            .http
            .request(method, format!("{}{path}", self.base))
            .insert_header(("x-api-key", &*self.key));
        if let Some(key) = idempotency_key {
            asking = asking.insert_header(("idempotency-key", key));
        }
        let exchange = async {
            let sent = match body {
                Some(value) => asking.send_json(value).await,
                None => asking.send().await,
            };
            let mut response = sent.map_err(|error| ClientError::unanswered(&request, error))?;
            let read = response.body().limit(ANSWER_BYTES_MAX).await;
            let bytes = read.map_err(|error| ClientError::unanswered(&request, error))?;
            Ok((response.status(), bytes.to_vec()))
        };
        timeout(REQUEST_LIMIT, exchange)
            .await
            .unwrap_or_else(|_| Err(ClientError::unanswered(&request, "no answer in time")))
    }
}
