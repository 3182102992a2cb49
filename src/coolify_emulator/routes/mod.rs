//! Which request means what. Everything below `/api/v1` goes through the same door as in Coolify: token, rate, ability,
//! body. What each route does is in the files beside this one.

mod applications;
mod deployments;
mod servers;
mod switches;
mod variables;

use super::access::{Ability, Token};
use super::answer::{Answer, Body};
use super::faults::Trouble;
use super::rate::Admission;
use super::world::trimmed;
use super::{RecordedRequest, SILENCE_MAX, Shared, lock};
use actix_web::body::BodyStream;
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use serde_json::{Map, Value};
use std::io;
use std::sync::Arc;
use url::form_urlencoded;

const BASE: &str = "/api/v1/";

/// A request taken apart.
struct Asked {
    method: Method,
    /// The path below `/api/v1`, by its parts.
    parts: Vec<String>,
    query: Vec<(String, String)>,
    is_json: bool,
    body: web::Bytes,
    reads_secrets: bool,
}

impl Asked {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), Some("true" | "1"))
    }

    fn number(&self, name: &str, otherwise: usize) -> usize {
        self.parameter(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    }

    /// The body as every route gets it, where it is an object; null: there is none.
    fn sent(&self) -> Value {
        serde_json::from_slice(&self.body).map(trimmed).unwrap_or_default()
    }

    /// The body of a route that insists on JSON.
    fn json(&self) -> Result<Map<String, Value>, Answer> {
        let refused = |error: &str| {
            let body = serde_json::json!({ "message": "Invalid request.", "error": error });
            Err(Answer::json(400, body))
        };
        if !self.is_json {
            return refused("Content-Type must be application/json.");
        }
        match serde_json::from_slice(&self.body).map(trimmed) {
            Ok(Value::Object(fields)) if !fields.is_empty() => Ok(fields),
            Ok(_) => refused("Empty JSON."),
            Err(_) => refused("Invalid JSON."),
        }
    }
}

/// Every request.
pub(super) async fn handle(
    request: HttpRequest,
    body: web::Bytes,
    shared: web::Data<Shared>,
) -> HttpResponse {
    let shared = shared.into_inner();
    let path = request.path().to_owned();
    if let Some(switch) = path.strip_prefix("/emulator/") {
        return sent(switches::handle(&shared, request.method(), switch, &body));
    }
    if path == "/api/health" || path == "/api/v1/health" {
        return sent(Answer::text("OK"));
    }
    let Some(path) = path.strip_prefix(BASE).map(str::to_owned) else { return sent(Answer::no_route()) };
    let query: Vec<_> = form_urlencoded::parse(request.query_string().as_bytes()).into_owned().collect();
    let mut record = RecordedRequest {
        method: request.method().to_string(),
        path: format!("/{path}"),
        query: query.clone(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        status: 0,
        at: shared.began.elapsed(),
    };
    let trouble = lock(&shared.faults).befall(request.method().as_str(), request.path());
    let answer = match trouble {
        None | Some(Trouble::CutAfter | Trouble::ServerErrorAfter) => {
            Some(admitted(&shared, &request, path, query, body).await)
        }
        Some(Trouble::ServerError) => Some(Answer::server_error()),
        Some(Trouble::TooManyRequests) => Some(too_many(&shared, 1)),
        Some(Trouble::IgnoredSilently) => Some(Answer::message(200, "Request queued.")),
        Some(Trouble::NotRunning) => Some(applications::not_running()),
        Some(Trouble::EmptyList) => Some(Answer::ok(Value::Array(Vec::new()))),
        Some(Trouble::CutBefore | Trouble::Silence | Trouble::ProxyPage | Trouble::ProxyNotFound) => None,
    };
    match trouble {
        Some(Trouble::CutBefore | Trouble::CutAfter) => {
            shared.record(record);
            cut()
        }
        Some(Trouble::Silence) => {
            shared.record(record);
            tokio::time::sleep(SILENCE_MAX).await;
            cut()
        }
        Some(Trouble::ProxyPage) => {
            shared.record(record);
            HttpResponse::BadGateway().content_type("text/html").body("<html><h1>502 Bad Gateway</h1></html>")
        }
        Some(Trouble::ProxyNotFound) => {
            shared.record(record);
            HttpResponse::NotFound().content_type("text/plain; charset=utf-8").body("404 page not found\n")
        }
        Some(Trouble::ServerErrorAfter) => {
            shared.record(record);
            sent(Answer::server_error())
        }
        _ => {
            let answer = answer.unwrap_or_else(Answer::server_error);
            record.status = answer.status;
            shared.record(record);
            sent(answer)
        }
    }
}

/// Token, then rate, then the route.
async fn admitted(
    shared: &Arc<Shared>,
    request: &HttpRequest,
    path: String,
    query: Vec<(String, String)>,
    body: web::Bytes,
) -> Answer {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let presented = header(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let token = presented.and_then(|text| shared.settings.tokens.iter().find(|token| token.text == text));
    let Some(token) = token else { return Answer::message(401, "Unauthenticated.") };
    let admission = {
        let mut rate = lock(&shared.rate);
        (rate.admit(shared.began.elapsed()), rate.limit())
    };
    let remaining = match admission.0 {
        Admission::Admitted { remaining } => remaining,
        Admission::Refused { retry_after_s } => return too_many(shared, retry_after_s),
    };
    let asked = Asked {
        method: request.method().clone(),
        parts: path.split('/').map(str::to_owned).collect(),
        query,
        is_json: header(CONTENT_TYPE).is_some_and(|kind| kind.contains("json")),
        body,
        reads_secrets: token.may(Ability::ReadSensitive),
    };
    route(shared, token, &asked)
        .await
        .with("x-ratelimit-limit", admission.1)
        .with("x-ratelimit-remaining", remaining)
}

async fn route(shared: &Arc<Shared>, token: &Token, asked: &Asked) -> Answer {
    let parts: Vec<&str> = asked.parts.iter().map(String::as_str).collect();
    let method = asked.method.as_str();
    let needed = match (method, parts.as_slice()) {
        ("GET", ["deploy"] | ["applications", _, "start" | "stop" | "restart"]) => {
            return Answer::only_post();
        }
        ("POST", ["deploy"] | ["deployments", _, "cancel"]) => Ability::Deploy,
        ("POST", ["applications", _, "start" | "stop" | "restart"]) => Ability::Deploy,
        ("GET", _) => Ability::Read,
        _ => Ability::Write,
    };
    if !token.may(needed) {
        return Answer::message(403, &format!("Missing required permissions: {}", needed.as_str()));
    }
    match (method, parts.as_slice()) {
        ("GET", ["version"]) => Answer::text("4.3.11"),
        ("GET", ["projects"]) => servers::projects(shared),
        ("GET", ["projects", project]) => servers::project(shared, project),
        ("GET", ["projects", project, name]) => servers::environment(shared, project, name),
        ("GET", ["servers"]) => servers::list(shared),
        ("GET", ["servers", uuid]) => servers::show(shared, uuid),
        ("PATCH", ["servers", uuid]) => servers::change(shared, uuid, asked),
        ("GET", ["servers", uuid, "resources"]) => servers::resources(shared, uuid),
        ("GET", ["servers", uuid, "destinations"]) => servers::destinations(shared, uuid),
        ("GET", ["applications"]) => applications::list(shared, asked),
        ("POST", ["applications", "dockerimage"]) => applications::create(shared, asked),
        ("GET", ["applications", uuid]) => applications::show(shared, uuid, asked),
        ("PATCH", ["applications", uuid]) => applications::change(shared, uuid, asked),
        ("DELETE", ["applications", uuid]) => applications::delete(shared, uuid),
        ("GET", ["applications", uuid, "logs"]) => applications::logs(shared, uuid, asked).await,
        ("POST", ["applications", uuid, "stop"]) => applications::stop(shared, uuid),
        ("POST", ["applications", uuid, "start"]) => deployments::start(shared, uuid, asked, "Deployment"),
        ("POST", ["applications", uuid, "restart"]) => deployments::start(shared, uuid, asked, "Restart"),
        ("GET", ["applications", uuid, "envs"]) => variables::list(shared, uuid, asked),
        ("POST", ["applications", uuid, "envs"]) => variables::create(shared, uuid, asked),
        ("PATCH", ["applications", uuid, "envs"]) => variables::change(shared, uuid, asked),
        ("PATCH", ["applications", uuid, "envs", "bulk"]) => variables::change_all(shared, uuid, asked),
        ("DELETE", ["applications", uuid, "envs", variable]) => variables::delete(shared, uuid, variable),
        ("POST", ["deploy"]) => deployments::deploy(shared, asked),
        ("GET", ["deployments"]) => deployments::list(shared, asked),
        ("GET", ["deployments", "applications", uuid]) => deployments::of(shared, uuid, asked),
        ("GET", ["deployments", uuid]) => deployments::show(shared, uuid, asked),
        ("POST", ["deployments", uuid, "cancel"]) => deployments::cancel(shared, uuid),
        _ => Answer::no_route(),
    }
}

fn too_many(shared: &Shared, retry_after_s: u64) -> Answer {
    let reset = chrono::Utc::now().timestamp().unsigned_abs() + retry_after_s;
    Answer::message(429, "Too Many Attempts.")
        .with("x-ratelimit-limit", shared.settings.rate_limit)
        .with("x-ratelimit-remaining", 0)
        .with("retry-after", retry_after_s)
        .with("x-ratelimit-reset", reset)
}

fn sent(answer: Answer) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    for (name, value) in answer.headers {
        response.insert_header((name, value));
    }
    match answer.body {
        Body::Json(body) => response.json(body),
        Body::Text(text) => response.content_type("text/html").body(text),
    }
}

/// An answer that ends before it has begun.
fn cut() -> HttpResponse {
    let broken =
        stream::once(async { Err::<web::Bytes, _>(io::Error::from(io::ErrorKind::ConnectionReset)) });
    HttpResponse::Ok().body(BodyStream::new(broken))
}
