//! The way from the world to the embedded store: requests for objects of the bucket go through with path, query and
//! Host as they came, for all three are signed. The store checks the signature; nothing else is let through.
//!
//! Bodies stream both ways. Objects are what bots uploaded: browsers are told to run nothing of them.

use actix_web::body::{BoxBody, SizedStream};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use awc::{Client, ClientRequest, Connector};
use futures_util::{Stream, StreamExt, stream};
use slog::{Logger, warn};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The largest object that may be put: a segment is a few MiB.
const PUT_BYTES_MAX: u64 = 256 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until the store begins to answer a request without a body.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// For a whole upload.
const PUT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long an uploading client may be silent.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections to the store, for each of the server's threads.
const CONNECTIONS_MAX: usize = 128;

/// What of a request goes to the store, beside `x-amz-*`.
const REQUEST_HEADERS: [HeaderName; 8] = [
    header::HOST,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::CONTENT_TYPE,
];
/// What of an answer goes to the client.
const ANSWER_HEADERS: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LANGUAGE,
    header::CACHE_CONTROL,
    header::ETAG,
    header::LAST_MODIFIED,
];

/// See the module.
#[derive(Debug, Clone)]
pub struct ObjectProxy {
    store: SocketAddr,
    bucket: String,
    log: Logger,
}

struct Upstream {
    store: SocketAddr,
    client: Client,
    log: Logger,
}

impl ObjectProxy {
    /// Lets requests for objects of `bucket` through to the store at `store`.
    pub fn new(store: SocketAddr, bucket: String, log: Logger) -> Self {
        Self { store, bucket, log }
    }

    /// Adds `/<bucket>/<key>` to a server: `App::new().configure(|cfg| proxy.configure(cfg))`.
    pub fn configure(&self, cfg: &mut ServiceConfig) {
        let connector = Connector::new().timeout(CONNECT_TIMEOUT).limit(CONNECTIONS_MAX);
        let client = Client::builder().connector(connector).disable_redirects().finish();
        let upstream = Upstream { store: self.store, client, log: self.log.clone() };
        let objects = web::resource(format!("/{}/{{key:.+}}", self.bucket))
            .app_data(web::Data::new(upstream))
            .route(web::get().to(read))
            .route(web::head().to(read))
            .route(web::put().to(put));
        cfg.service(objects);
    }
}

/// GET and HEAD.
async fn read(request: HttpRequest, upstream: web::Data<Upstream>) -> HttpResponse {
    let sent = upstream.request(&request).timeout(ANSWER_TIMEOUT).send().await;
    upstream.answer(&request, sent)
}

/// PUT.
async fn put(request: HttpRequest, body: Payload, upstream: web::Data<Upstream>) -> HttpResponse {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()).and_then(|length| length.parse::<u64>().ok());
    let length = match length {
        None => return refusal(StatusCode::LENGTH_REQUIRED, "An upload needs a Content-Length."),
        Some(length) if length > PUT_BYTES_MAX => {
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, "Objects are at most 256 MiB.");
        }
        Some(length) => length,
    };
    let mut sent = upstream.request(&request).timeout(PUT_TIMEOUT);
    if length > 0 {
        // So that a refusal comes before the body, and is not lost with a connection that is closed on it.
        sent = sent.insert_header((header::EXPECT, "100-continue"));
    }
    let sent = sent.send_body(SizedStream::new(length, lively(body))).await;
    upstream.answer(&request, sent)
}

impl Upstream {
    fn request(&self, request: &HttpRequest) -> ClientRequest {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let url = format!("http://{}{path}", self.store);
        let mut sent = self.client.request(request.method().clone(), url).no_decompress();
        if let Some(authority) = request.uri().authority() {
            // HTTP/2 has no Host; where there is one, it replaces this below.
            sent = sent.insert_header((header::HOST, authority.as_str()));
        }
        for (name, value) in request.headers() {
            if REQUEST_HEADERS.contains(name) || name.as_str().starts_with("x-amz-") {
                sent = sent.insert_header((name.clone(), value.clone()));
            }
        }
        sent
    }

    fn answer<S, E>(&self, request: &HttpRequest, sent: Result<awc::ClientResponse<S>, E>) -> HttpResponse
    where
        S: Stream<Item = Result<Bytes, awc::error::PayloadError>> + Unpin + 'static,
        E: Error,
    {
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                warn!(self.log, "embedded object store does not answer"; "error" => %error);
                return refusal(StatusCode::BAD_GATEWAY, "The object store does not answer.");
            }
        };
        let mut response = HttpResponse::new(answer.status());
        let headers = response.headers_mut();
        for name in ANSWER_HEADERS {
            if let Some(value) = answer.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        if answer.status().is_success() && *request.method() != Method::PUT {
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        contain(headers);
        let length = answer.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()).and_then(|length| length.parse().ok());
        match length {
            Some(length) => response.set_body(BoxBody::new(SizedStream::new(length, answer))),
            None => response.set_body(BoxBody::new(actix_web::body::BodyStream::new(answer))),
        }
    }
}

/// Ends an upload whose client has fallen silent.
fn lively(body: Payload) -> impl Stream<Item = Result<Bytes, Box<dyn Error>>> {
    stream::unfold(Some(body), async |body| {
        let mut body = body?;
        match tokio::time::timeout(CHUNK_TIMEOUT, body.next()).await {
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(body))),
            Ok(Some(Err(error))) => Some((Err(error.into()), None)),
            Ok(None) => None,
            Err(_) => Some((Err(io::Error::from(io::ErrorKind::TimedOut).into()), None)),
        }
    })
}

fn refusal(status: StatusCode, why: &'static str) -> HttpResponse {
    let mut response = HttpResponse::with_body(status, BoxBody::new(why));
    contain(response.headers_mut());
    response
}

/// What a browser gets from here runs no script, loads nothing but itself, and is what it says it is. It keeps its
/// origin: a recording that is opened by its link is a page that fetches itself once more, which no other origin may.
const CONTAINED: &str = "sandbox allow-same-origin; default-src 'none'; media-src 'self'; img-src 'self'; \
    style-src 'unsafe-inline'";

fn contain(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTAINED));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
