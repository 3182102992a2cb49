//! The dashboard's websocket: a snapshot, then numbered changes, only what the user may see. Both come in parts where
//! they are large; the snapshot ends with the first part that is `complete`. Each message is followed
//! by a ping, and the next one waits for its pong: a client that does not read for a while has one message waiting for
//! it and then gets the latest state, not every step. Where nothing changes a tick says that this is so, as long as this
//! server may lead, and whoever watches may see it.

use super::caller::{Pass, same_origin};
use super::error::ApiError;
use super::state::{AppState, Leading};
use super::views;
use super::watchers::Place;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_ws::{CloseCode, Closed, Message, MessageStream, Session};
use futures_util::StreamExt;
use meeboter_actors::ids::UserId;
use meeboter_actors::live::{Changes, Entry, Topic};
use meeboter_actors::tree::Tree;
use serde_json::{Value, json};
use slog::info;
use std::time::Duration;
use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};

/// Time between two signs of life where nothing changes.
const TICK: Duration = Duration::from_secs(5);
/// Changes are gathered for this long, so that a burst is one message.
const GATHER: Duration = Duration::from_millis(50);
/// A client that does not take a message for this long is gone.
const TAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to take the last word.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Topics in one message: a bot is about 1 kB of JSON.
const TOPICS_MAX: usize = 1_000;
/// When to come back where too many are open, in seconds.
const RETRY_AFTER_S: u32 = 5;
/// Clients send nothing but pongs; a larger frame ends the connection.
const FRAME_BYTES_MAX: usize = 4_096;

/// GET /ws
pub async fn open(
    request: HttpRequest,
    pass: Pass,
    state: web::Data<AppState>,
    body: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    if !same_origin(&request, &state.settings.server.public_url) {
        return Err(ApiError::forbidden("The websocket is for this server's own pages.").into());
    }
    if !state.leading()?.lead.holds() {
        let message = "It is in doubt whether this server still leads; try again soon.";
        return Err(ApiError::unavailable("unavailable", message, 1).into());
    }
    let message = "Too many dashboards are open here, or with this user's keys; try again soon.";
    let full = || ApiError::unavailable("overloaded", message, RETRY_AFTER_S);
    let place = state.watchers.admit(pass.user).ok_or_else(full)?;
    let (response, session, messages) = actix_ws::handle(&request, body)?;
    let messages = messages.max_frame_size(FRAME_BYTES_MAX);
    actix_web::rt::spawn(serve(state, pass, place, session, messages));
    Ok(response)
}

/// How a websocket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client went, or there is nothing to watch.
    Gone,
    /// The server stops: the page comes back to whoever serves it next.
    Stopping,
    /// The session is over, or the key was revoked.
    SignedOut,
    /// The client does not take what it is sent.
    TooSlow,
}

impl End {
    /// What the client is told; `None`: nobody is there to be told.
    fn reason(self) -> Option<(CloseCode, &'static str)> {
        match self {
            Self::Gone => None,
            Self::Stopping => Some((CloseCode::Restart, "the server stops")),
            Self::SignedOut => Some((CloseCode::Policy, "signed out")),
            Self::TooSlow => Some((CloseCode::Policy, "too slow")),
        }
    }
}

async fn serve(
    state: web::Data<AppState>,
    pass: Pass,
    place: Place,
    mut session: Session,
    messages: MessageStream,
) {
    let open = state.metrics.websocket();
    let end = feed(&state, pass, &mut session, messages).await;
    drop((open, place));
    let Some((code, why)) = end.reason() else { return };
    info!(state.log, "websocket closed"; "user" => pass.user.0, "why" => why);
    // One that takes nothing takes no word of goodbye either.
    drop(timeout(CLOSE_TIMEOUT, session.close(Some((code, why).into()))).await);
}

async fn feed(state: &AppState, pass: Pass, session: &mut Session, mut messages: MessageStream) -> End {
    let Ok(Leading { tree, lead, .. }) = state.leading() else { return End::Gone };
    let user = pass.user;
    let live = &tree.live;
    let mut latest = live.subscribe();
    let mut stopping = state.stopping.subscribe();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut part = Part::take(state, tree, user, 0).await;
    let max_size = || state.reloader.settings().pool.max_size;
    let mut told_max_size = max_size();
    part.message["type"] = json!("snapshot");
    part.message["maxSize"] = json!(told_max_size);
    let (mut number, mut complete, mut next) = (part.number, part.complete, Some(part.message));
    // Until when the client may take what was sent; `None`: it has taken everything.
    let mut taken_by = None;
    loop {
        if let Some(message) = next.take() {
            let deadline = Instant::now() + TAKE_TIMEOUT;
            match timeout_at(deadline, send(session, &message)).await {
                Ok(Ok(())) => taken_by = Some(deadline),
                Ok(Err(Closed)) => return End::Gone,
                Err(_) => return End::TooSlow,
            }
        }
        tokio::select! {
            message = messages.next() => match message {
                Some(Ok(Message::Ping(bytes))) => match timeout(TAKE_TIMEOUT, session.pong(&bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(Closed)) => return End::Gone,
                    Err(_) => return End::TooSlow,
                },
                Some(Ok(Message::Pong(_))) => taken_by = None,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Gone,
                Some(Ok(_)) => {}
            },
            _ = stopping.wait_for(|stopping| *stopping) => return End::Stopping,
            () = sleep_until(taken_by.unwrap_or_else(Instant::now)), if taken_by.is_some() => {
                return End::TooSlow;
            }
            changed = news(&mut latest, complete), if taken_by.is_none() => {
                if changed.is_err() {
                    return End::Gone;
                }
                if complete {
                    tokio::time::sleep(GATHER).await;
                }
                latest.mark_unchanged();
                let part = Part::take(state, tree, user, number).await;
                (number, complete, next) = (part.number, part.complete, Some(part.message));
            }
            _ = tick.tick(), if taken_by.is_none() => {
                // Another server may lead by now, and what stands here be old: the page goes by the silence.
                if !lead.holds() {
                    continue;
                }
                // A database that does not answer says nothing about the key.
                if matches!(pass.counts(state).await, Ok(false)) {
                    return End::SignedOut;
                }
                let mut message = json!({ "type": "tick", "number": number, "now": state.clock.now() });
                // Settings that are read again are on no board.
                let size = max_size();
                if size != told_max_size {
                    told_max_size = size;
                    message["type"] = json!("changes");
                    message["maxSize"] = json!(size);
                }
                next = Some(message);
            }
        }
    }
}

/// A message, and the question whether it was taken.
async fn send(session: &mut Session, message: &Value) -> Result<(), Closed> {
    session.text(message.to_string()).await?;
    session.ping(b"").await
}

/// Comes back when there is something to tell: at once where the last part was not all.
async fn news(latest: &mut watch::Receiver<u64>, complete: bool) -> Result<(), RecvError> {
    if complete { latest.changed().await } else { Ok(()) }
}

/// Some of what changed, as a message.
struct Part {
    number: u64,
    complete: bool,
    message: Value,
}

impl Part {
    /// The next that holds something for `user`, or the last one.
    async fn take(state: &AppState, tree: &Tree, user: UserId, mut number: u64) -> Self {
        loop {
            let changes = tree.live.changes_after(number, TOPICS_MAX);
            let (message, holds) = message(state, tree, user, &changes);
            if holds || changes.complete {
                return Self { number: changes.number, complete: changes.complete, message };
            }
            number = changes.number;
            // Others are served on this thread too.
            tokio::task::yield_now().await;
        }
    }
}

/// What `user` may see of the changes, and whether that is anything.
fn message(state: &AppState, tree: &Tree, user: UserId, changes: &Changes) -> (Value, bool) {
    let (mut slots, mut bots, mut queues, mut recordings) = (vec![], vec![], vec![], vec![]);
    let mut removed = vec![];
    let own = |bot| tree.live.owner_of(bot) == Some(user);
    for (topic, entry) in &changes.entries {
        match (topic, entry) {
            (_, Entry::Slot(slot)) => slots.extend(views::slot(slot, user)),
            (_, Entry::Bot(bot)) if bot.user_id == user => {
                let uuid = tree.directory.bot(bot.id).map(|handle| handle.id().to_string());
                let recording = tree.live.recording_of(bot.id);
                bots.push(views::bot(bot, recording.as_deref(), uuid, None, None));
            }
            (Topic::Queue(platform), Entry::Queue(front)) => {
                let places = front.bots.iter().zip(1..).filter(|(bot, _)| own(**bot));
                let (mine, places): (Vec<i64>, Vec<usize>) =
                    places.map(|(bot, place)| (bot.0, place)).unzip();
                queues.push(json!({
                    "platform": platform, "bots": mine, "places": places, "known": front.bots.len(),
                    "length": front.length,
                }));
            }
            (Topic::Recording(bot), Entry::Recording(recording)) if own(*bot) => recordings.push(json!({
                "botId": bot.0,
                "recordingState": recording.state.as_str(),
                "recordingDurationMs": views::joined(recording).map(|joined| joined.duration_ms),
            })),
            (Topic::Slot(name), Entry::Gone) => removed.push(name.0.clone()),
            _ => {}
        }
    }
    let counts = [slots.len(), bots.len(), queues.len(), recordings.len(), removed.len()];
    let holds = counts.iter().any(|count| *count > 0);
    let message = json!({
        "type": "changes", "number": changes.number, "complete": changes.complete, "now": state.clock.now(),
        "slots": slots, "bots": bots, "queues": queues, "recordings": recordings,
        "removed": { "slots": removed },
    });
    (message, holds)
}
