//! A fake server: the endpoints for bots, an object store for the segments, and the rehearsal pages.
//!
//! It keeps the protocol strictly (tokens, generation, numbering) and remembers all that came.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use meeboter_bot::{
    Assignment, AutomaticLeave, ClaimRequest, EventReport, HeartbeatRequest, SegmentRequest, StatusReport,
    TOKEN_HEADER, WireEndReason, WireEventType, WireState, segment_key,
};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) const SLOT_TOKEN: &str = "slot-token";
const BOT_TOKEN: &str = "bot-token";
const BOT_ID: i64 = 7;
const GENERATION: i64 = 3;

/// A report that was taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Report {
    Status(WireState, Option<WireEndReason>),
    Event(WireEventType, Value),
}

/// All that the server knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) assignment: Assignment,
    /// Answers 503 to everything of a bot's.
    pub(crate) is_ill: bool,
    /// Whatever stands before the server answers everything of a bot's with this status, in words of its own.
    pub(crate) proxy_says: Option<u16>,
    pub(crate) proxy_answers: u32,
    /// Tells the bot to leave.
    pub(crate) should_leave: bool,
    /// Refuses the generation.
    pub(crate) is_over: bool,
    /// Answers that many claims with "nothing yet".
    pub(crate) empty_claims: u32,
    /// Reports of these types are refused as malformed.
    pub(crate) refuses: Option<WireEventType>,
    pub(crate) nonce: Option<Uuid>,
    pub(crate) reports: Vec<Report>,
    pub(crate) next_seq: i64,
    pub(crate) heartbeats: u32,
    pub(crate) ill_answers: u32,
    /// Keys in the order of their arrival.
    pub(crate) keys: Vec<String>,
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
}

impl State {
    /// The states reported so far.
    pub(crate) fn states(&self) -> Vec<WireState> {
        let states = self.reports.iter().filter_map(|report| match report {
            Report::Status(state, _) => Some(*state),
            Report::Event(..) => None,
        });
        states.collect()
    }

    /// The final state and its reason, once reported.
    pub(crate) fn end(&self) -> Option<(WireState, WireEndReason)> {
        self.reports.iter().find_map(|report| match report {
            Report::Status(state, Some(reason)) => Some((*state, *reason)),
            _ => None,
        })
    }
}

type Shared = web::Data<Mutex<State>>;

/// The running fake server; it ends when dropped.
pub(crate) struct FakeServer {
    state: Shared,
    pub(crate) port: u16,
    running: Option<(ServerHandle, JoinHandle<()>)>,
}

impl FakeServer {
    /// One whose slot has a bot for a rehearsal with these options.
    pub(crate) fn start(rehearsal: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let assignment = Assignment {
            bot_id: BOT_ID,
            generation: GENERATION,
            token: BOT_TOKEN.to_owned(),
            platform: "rehearsal".to_owned(),
            meeting_url: format!("http://127.0.0.1:{port}/rehearsal/test-room?{rehearsal}"),
            meeting_id: None,
            passcode: None,
            display_name: "Bot Zoë".to_owned(),
            recording_enabled: true,
            automatic_leave: AutomaticLeave {
                waiting_room_timeout: 60_000,
                no_one_joined_timeout: 60_000,
                everyone_left_timeout: 60_000,
                inactivity_timeout: 60_000,
            },
            starts_in_ms: 0,
            heartbeat_interval_ms: 500,
            segment_ms: 2_000,
            next_report_seq: 1,
        };
        let state = State {
            assignment,
            is_ill: false,
            proxy_says: None,
            proxy_answers: 0,
            should_leave: false,
            is_over: false,
            empty_claims: 0,
            refuses: None,
            nonce: None,
            reports: Vec::new(),
            next_seq: 1,
            heartbeats: 0,
            ill_answers: 0,
            keys: Vec::new(),
            objects: BTreeMap::new(),
        };
        let mut server = Self { state: web::Data::new(Mutex::new(state)), port, running: None };
        server.listen(listener);
        server
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }

    /// Closes the port: connections are refused.
    pub(crate) fn vanish(&mut self) {
        if let Some((handle, thread)) = self.running.take() {
            // The stop happens at once; the future only tells when it is done, which the thread's end tells as well.
            drop(handle.stop(false));
            thread.join().expect("the server's thread");
        }
    }

    /// Opens the same port again.
    pub(crate) fn come_back(&mut self) {
        let address = ("127.0.0.1", self.port);
        let listener = super::wait_for("the port", std::time::Duration::from_secs(10), || {
            TcpListener::bind(address).ok()
        });
        self.listen(listener);
    }

    fn listen(&mut self, listener: TcpListener) {
        let state = self.state.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let system = actix_web::rt::System::new();
            system.block_on(async move {
                let app = move || App::new().app_data(state.clone()).configure(routes);
                let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(1);
                let server = server.listen(listener).expect("listening").run();
                sender.send(server.handle()).expect("the test waits");
                server.await.expect("serving");
            });
        });
        self.running = Some((receiver.recv().expect("the server starts"), thread));
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.vanish();
    }
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(64 * 1024 * 1024))
        .route("/api/slots/{slot}/assignment", web::post().to(claim))
        .route("/api/bots/{bot}/status", web::patch().to(status))
        .route("/api/bots/{bot}/events", web::post().to(event))
        .route("/api/bots/{bot}/heartbeat", web::post().to(heartbeat))
        .route("/api/bots/{bot}/segments", web::post().to(segment))
        .route("/objects/{key:.*}", web::put().to(put_object))
        .route("/rehearsal/{file}", web::get().to(page));
}

fn refusal(status: u16, code: &str, details: Value) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status).expect("a status");
    let error =
        json!({ "id": "e1", "code": code, "message": "refused by the fake server", "details": details });
    HttpResponse::build(status).json(json!({ "error": error }))
}

/// The refusal of what does not come from the one bot, or comes while the server is ill.
fn objection(state: &mut State, request: &HttpRequest, generation: i64) -> Option<HttpResponse> {
    if let Some(said) = foreign(state) {
        return Some(said);
    }
    if state.is_ill {
        state.ill_answers += 1;
        return Some(refusal(503, "unavailable", Value::Null));
    }
    let token = request.headers().get(TOKEN_HEADER).and_then(|token| token.to_str().ok());
    if token != Some(BOT_TOKEN) || request.match_info().get("bot") != Some(&BOT_ID.to_string()) {
        return Some(refusal(401, "unauthorized", Value::Null));
    }
    if generation != GENERATION || state.is_over {
        return Some(refusal(409, "stale_generation", Value::Null));
    }
    None
}

/// What a proxy says in the server's place.
fn foreign(state: &mut State) -> Option<HttpResponse> {
    let status = actix_web::http::StatusCode::from_u16(state.proxy_says?).expect("a status");
    state.proxy_answers += 1;
    Some(HttpResponse::build(status).content_type("text/plain").body("404 page not found"))
}

async fn claim(state: Shared, request: HttpRequest, body: web::Json<ClaimRequest>) -> HttpResponse {
    let mut state = state.lock().expect("state");
    if let Some(said) = foreign(&mut state) {
        return said;
    }
    if state.is_ill {
        state.ill_answers += 1;
        return refusal(503, "unavailable", Value::Null);
    }
    if request.headers().get(TOKEN_HEADER).and_then(|token| token.to_str().ok()) != Some(SLOT_TOKEN) {
        return refusal(401, "unauthorized", Value::Null);
    }
    if state.empty_claims > 0 {
        state.empty_claims -= 1;
        return HttpResponse::NoContent().insert_header(("retry-after", "0")).finish();
    }
    if *state.nonce.get_or_insert(body.nonce) != body.nonce {
        return refusal(409, "claimed", Value::Null);
    }
    HttpResponse::Ok().json(&state.assignment)
}

fn take(state: &mut State, seq: i64, report: Report) -> HttpResponse {
    if seq > state.next_seq {
        return refusal(409, "report_gap", json!({ "nextSeq": state.next_seq }));
    }
    if seq == state.next_seq {
        state.reports.push(report);
        state.next_seq += 1;
    }
    HttpResponse::Ok().json(json!({ "nextSeq": state.next_seq, "shouldLeave": state.should_leave }))
}

async fn status(state: Shared, request: HttpRequest, body: web::Json<StatusReport>) -> HttpResponse {
    let mut state = state.lock().expect("state");
    match objection(&mut state, &request, body.generation) {
        None => take(&mut state, body.seq, Report::Status(body.status, body.reason)),
        Some(refused) => refused,
    }
}

async fn event(state: Shared, request: HttpRequest, body: web::Json<EventReport>) -> HttpResponse {
    let mut state = state.lock().expect("state");
    if let Some(refused) = objection(&mut state, &request, body.generation) {
        return refused;
    }
    if state.refuses == Some(body.event_type) {
        return refusal(422, "invalid_field", Value::Null);
    }
    let body = body.into_inner();
    take(&mut state, body.seq, Report::Event(body.event_type, body.data.unwrap_or_default()))
}

async fn heartbeat(state: Shared, request: HttpRequest, body: web::Json<HeartbeatRequest>) -> HttpResponse {
    let mut state = state.lock().expect("state");
    if let Some(refused) = objection(&mut state, &request, body.generation) {
        return refused;
    }
    state.heartbeats += 1;
    HttpResponse::Ok().json(json!({ "shouldLeave": state.should_leave }))
}

async fn segment(state: Shared, request: HttpRequest, body: web::Json<SegmentRequest>) -> HttpResponse {
    let mut state = state.lock().expect("state");
    if let Some(refused) = objection(&mut state, &request, body.generation) {
        return refused;
    }
    let key = segment_key(BOT_ID, GENERATION, body.run, body.part);
    let host = request.connection_info().host().to_owned();
    let url = format!("http://{host}/objects/{key}?signature=abc");
    HttpResponse::Ok().json(json!({ "url": url, "expiresInMs": 60_000, "shouldLeave": state.should_leave }))
}

async fn put_object(
    state: Shared,
    request: HttpRequest,
    key: web::Path<String>,
    body: web::Bytes,
) -> HttpResponse {
    let mut state = state.lock().expect("state");
    if let Some(said) = foreign(&mut state) {
        return said;
    }
    if state.is_ill {
        return HttpResponse::ServiceUnavailable().finish();
    }
    // What a presigned URL would be broken by.
    let content_type = request.headers().get("content-type").and_then(|value| value.to_str().ok());
    if content_type != Some("video/mp4") || request.headers().contains_key(TOKEN_HEADER) {
        return HttpResponse::Forbidden().finish();
    }
    let key = key.into_inner();
    state.keys.push(key.clone());
    state.objects.insert(key, body.to_vec());
    HttpResponse::Ok().finish()
}

async fn page(file: web::Path<String>) -> HttpResponse {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../src/rehearsal");
    let name = file.into_inner();
    // A code has no dot, a file has.
    let name = if name.contains('.') { name } else { "meeting.html".to_owned() };
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "image/svg+xml",
    };
    match std::fs::read(folder.join(name)) {
        Ok(bytes) => HttpResponse::Ok()
            .insert_header(("content-type", kind))
            .insert_header((
                "content-security-policy",
                "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
            ))
            .body(bytes),
        Err(_) => HttpResponse::NotFound().finish(),
    }
}
