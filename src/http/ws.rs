//! The dashboard's websocket: a snapshot, then numbered changes, only what the user may see. What a slow client has
//! not read yet is not kept for it: it gets the latest state when it is ready for more.

use super::caller::{Caller, same_origin};
use super::error::ApiError;
use super::state::AppState;
use super::views;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_ws::{Message, MessageStream, Session};
use futures_util::StreamExt;
use meeboter_actors::ids::UserId;
use meeboter_actors::live::{Changes, Entry, Topic};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Time between two signs of life where nothing changes.
const TICK: Duration = Duration::from_secs(5);
/// Changes are gathered for this long, so that a burst is one message.
const GATHER: Duration = Duration::from_millis(50);
/// A client that does not take a message for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Clients send nothing but pongs; a larger frame ends the connection.
const FRAME_BYTES_MAX: usize = 4_096;

/// GET /ws
pub async fn open(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<AppState>,
    body: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    if !same_origin(&request, &state.settings.server.public_url) {
        return Err(ApiError::forbidden("The websocket is for this server's own pages.").into());
    }
    let (response, session, messages) = actix_ws::handle(&request, body)?;
    let messages = messages.max_frame_size(FRAME_BYTES_MAX);
    actix_web::rt::spawn(feed(state, caller.0, session, messages));
    Ok(response)
}

async fn feed(state: web::Data<AppState>, user: UserId, mut session: Session, mut messages: MessageStream) {
    let live = &state.tree.live;
    let mut latest = live.subscribe();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let changes = live.changes_after(0);
    let mut number = changes.number;
    let mut next = Some(snapshot(&state, user, &changes));
    loop {
        if let Some(message) = next.take() {
            let sent = timeout(SEND_TIMEOUT, session.text(message.to_string())).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
        tokio::select! {
            message = messages.next() => match message {
                Some(Ok(Message::Ping(bytes))) => drop(session.pong(&bytes).await),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            changed = latest.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(GATHER).await;
                latest.mark_unchanged();
                let changes = live.changes_after(number);
                number = changes.number;
                next = Some(message(&state, "changes", user, &changes));
            }
            _ = tick.tick() => {
                next = Some(json!({ "type": "tick", "number": number, "now": state.clock.now() }));
            }
        }
    }
}

fn snapshot(state: &AppState, user: UserId, changes: &Changes) -> Value {
    let mut snapshot = message(state, "snapshot", user, changes);
    snapshot["maxSize"] = json!(state.settings.pool.max_size);
    snapshot
}

/// What `user` may see of the changes.
fn message(state: &AppState, kind: &str, user: UserId, changes: &Changes) -> Value {
    let (mut slots, mut bots, mut queues, mut recordings) = (vec![], vec![], vec![], vec![]);
    let mut removed = vec![];
    let own = |bot| state.tree.live.owner_of(bot) == Some(user);
    for (topic, entry) in &changes.entries {
        match (topic, entry) {
            (_, Entry::Slot(slot)) => slots.extend(views::slot(slot, user)),
            (_, Entry::Bot(bot)) if bot.user_id == user => {
                let uuid = state.tree.directory.bot(bot.id).map(|handle| handle.id().to_string());
                bots.push(views::bot(bot, None, uuid));
            }
            (Topic::Queue(platform), Entry::Queue(line)) => {
                let waiting: Vec<i64> = line.iter().map(|bot| bot.0).collect();
                let mine: Vec<i64> = line.iter().filter(|bot| own(**bot)).map(|bot| bot.0).collect();
                queues.push(json!({ "platform": platform, "bots": mine, "length": waiting.len() }));
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
    json!({
        "type": kind, "number": changes.number, "now": state.clock.now(), "slots": slots, "bots": bots,
        "queues": queues, "recordings": recordings, "removed": { "slots": removed },
    })
}
