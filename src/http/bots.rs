//! Bots for their users: create, list, read, move, leave, cancel, history, recording.

use super::caller::Caller;
use super::create::{
    CreateBotRequest, IDEMPOTENCY_KEY_CHARS_MAX, MoveBotRequest, Times, ends_before_start, fingerprint,
};
use super::error::ApiError;
use super::json;
use super::meeting::Offered;
use super::state::AppState;
use super::views::{self, BotView, EventView, PageView};
use crate::config::Settings;
use crate::store::queries::{Page, StoredBot};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use meeboter_actors::bot::{BotSpec, BotState, EndReason};
use meeboter_actors::ids::{BotId, Platform, UserId};
use meeboter_actors::pool::message::{CreateBot, CreateError, Created, LeaveBot};
use meeboter_actors::queue::estimate::PER_PLACE_UNKNOWN;
use meeboter_actors::queue::message::{FindPlace, QueuePlace, WithdrawError};
use meeboter_actors::schedule::message::{MoveError, MoveStart};
use meeboter_actors::supervision::tell;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a link to a recording is good for, as documented.
const RECORDING_LINK: Duration = Duration::from_secs(3600);
/// How long the queue may take to say where a bot stands; after that the bot is told without it.
const PLACE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client is told to stay away: not at all is no answer, and after five minutes much may have changed.
const RETRY_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
const PAGE_MAX: u32 = 1_000_000;
const PAGE_SIZE_MAX: u32 = 100;

/// A bot that was asked for, and whether it has to wait.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CreatedView {
    #[serde(flatten)]
    bot: BotView,
    queued: bool,
}

/// POST /api/bots
pub async fn create(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<AppState>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    state.admit_at_rate()?;
    let (body, bytes) = json::body::<CreateBotRequest>(&request, payload).await?;
    let key = idempotency_key(&request)?.map(|key| (key, fingerprint(&bytes)));
    // Before the times are looked at: what was right when it was first asked may have passed since.
    if let Some((key, print)) = &key
        && let Some(known) = known_key(&state, caller.0, key, print).await?
    {
        return Ok(HttpResponse::Ok().json(known));
    }
    let plan = state.plans.of(&state.pool, caller.0).await?;
    let running = state.reloader.settings();
    let offered = offered(&request, &state, &running);
    let spec = body.into_spec(&running, &offered, plan, state.clock.now())?;
    let _admitted = state.admit()?;
    let created = ask(&state, caller.0, spec, key.clone()).await;
    match created {
        Ok(created) => Ok(HttpResponse::Created().json(created_view(&state, &created))),
        // The same key won in another request meanwhile; the constraint was the last line.
        Err(CreateFailed::Conflict(why)) => match &key {
            Some((key, print)) => match known_key(&state, caller.0, key, print).await? {
                Some(known) => Ok(HttpResponse::Ok().json(known)),
                None => Err(ApiError::internal(why)),
            },
            None => Err(ApiError::internal(why)),
        },
        Err(CreateFailed::Answer(error)) => Err(error),
    }
}

enum CreateFailed {
    Conflict(String),
    Answer(ApiError),
}

async fn ask(
    state: &AppState,
    user_id: UserId,
    spec: BotSpec,
    idempotency: Option<(String, [u8; 32])>,
) -> Result<Created, CreateFailed> {
    let (reply, answer) = oneshot::channel();
    let tree = state.tree().map_err(CreateFailed::Answer)?;
    let platform = spec.platform.clone();
    tell(&tree.pool, CreateBot { spec, user_id, idempotency, reply });
    let refused = match state.decided(answer).await.map_err(CreateFailed::Answer)? {
        Ok(created) => return Ok(created),
        Err(refused) => refused,
    };
    let answer = match refused {
        CreateError::Conflict(why) => return Err(CreateFailed::Conflict(why)),
        CreateError::PlatformNotServed(platform) => {
            let message = format!("This server has no pool for {platform}.");
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "platform_not_available", message)
        }
        CreateError::PlatformDisabled(platform) => {
            let message = format!("{platform} takes no new bots: it is switched off, or being drained.");
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "platform_disabled", message)
        }
        CreateError::Closing => {
            ApiError::unavailable("draining", "This server is being emptied and takes no new bots.", 60)
        }
        CreateError::PoolFull => ApiError::unavailable(
            "pool_full",
            "All slots are taken, and the request does not wait.",
            retry_after_s(state, &platform, |length| length + 1),
        ),
        CreateError::QueueFull(bound) => ApiError::unavailable(
            "queue_full",
            &format!("All slots are taken and {bound} bots wait already."),
            retry_after_s(state, &platform, |_| 1),
        ),
        CreateError::ScheduleFull(bound) => {
            ApiError::unavailable("schedule_full", &format!("{bound} bots are scheduled already."), 300)
        }
        CreateError::KeyInFlight => ApiError::conflict(
            "idempotency_key_in_flight",
            "A request with this Idempotency-Key is under way.",
        ),
        CreateError::Unavailable => {
            ApiError::unavailable("unavailable", "No bot can be created right now.", 2)
        }
        CreateError::OutcomeUnknown => ApiError::unknown_outcome(),
    };
    Err(CreateFailed::Answer(answer))
}

/// In how many seconds as many of the line as `places` says of its length will have moved on, as was last published.
fn retry_after_s(state: &AppState, platform: &Platform, places: impl Fn(usize) -> usize) -> u32 {
    let front = state.tree().ok().and_then(|tree| tree.live.front_of(platform));
    let per_place = front.as_ref().map_or(PER_PLACE_UNKNOWN, |front| front.wait_per_place);
    let places = u32::try_from(places(front.map_or(0, |front| front.length))).unwrap_or(u32::MAX);
    let wait = per_place.saturating_mul(places).clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end());
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

fn created_view(state: &AppState, created: &Created) -> CreatedView {
    let stored = StoredBot { bot: created.bot.clone(), recording: None };
    CreatedView { bot: view(state, &stored, created.queued), queued: created.queued.is_some() }
}

/// The bot that a key has made already.
async fn known_key(
    state: &AppState,
    user: UserId,
    key: &str,
    print: &[u8; 32],
) -> Result<Option<BotView>, ApiError> {
    let Some(known) = state.pool.find_idempotency_key(user, key).await? else { return Ok(None) };
    if known.fingerprint != *print {
        let message = "This Idempotency-Key was used for another request.";
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message));
    }
    let stored = stored(state, user, known.bot_id).await?;
    settled(state).await?;
    Ok(Some(placed_view(state, &stored).await))
}

fn idempotency_key(request: &HttpRequest) -> Result<Option<String>, ApiError> {
    let Some(key) = request.headers().get("idempotency-key") else { return Ok(None) };
    match key.to_str() {
        Ok(key) if (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(ApiError::field(
            "Idempotency-Key",
            "Idempotency-Key: it takes 1 to 200 printable characters.",
        )),
    }
}

/// What the door knows of this server's own addresses and platforms.
fn offered<'a>(request: &'a HttpRequest, state: &'a AppState, running: &'a Settings) -> Offered<'a> {
    let authority = |url: &'a str| url.split_once("://").map_or(url, |(_, rest)| rest.trim_end_matches('/'));
    let server = &state.settings.server;
    let mut own_hosts = vec![authority(&server.public_url), authority(&state.settings.driver.server_url)];
    own_hosts.extend(request.headers().get("host").and_then(|host| host.to_str().ok()));
    own_hosts.retain(|host| !host.is_empty());
    let further = running.further_platforms().collect();
    Offered { rehearsal: state.settings.rehearsal.enabled, own_hosts, further }
}

/// `?page=1&pageSize=10`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageQuery {
    page: Option<String>,
    page_size: Option<String>,
}

impl PageQuery {
    /// The page that is asked for; the first ten where nothing is said.
    pub(super) fn checked(&self) -> Result<Page, ApiError> {
        let number = bounded("page", self.page.as_deref(), 1, PAGE_MAX)?;
        let size = bounded("pageSize", self.page_size.as_deref(), 10, PAGE_SIZE_MAX)?;
        Ok(Page { number, size })
    }
}

/// A number of a query, from 1 to `max`.
fn bounded(name: &str, text: Option<&str>, default: u32, max: u32) -> Result<u32, ApiError> {
    let number = text.map_or(Some(default), |text| text.parse().ok());
    let number = number.filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| ApiError::field(name, format!("{name}: it takes 1 to {max}.")))
}

/// GET /api/bots
pub async fn list(
    caller: Caller,
    state: web::Data<AppState>,
    query: web::Query<PageQuery>,
) -> Result<web::Json<PageView<BotView>>, ApiError> {
    let page = query.checked()?;
    let listed = state.pool.list_bots(caller.0, page).await?;
    Ok(web::Json(views::page(page, listed, |stored| view(&state, &stored, None))))
}

/// GET /api/bots/{id}
pub async fn read(
    caller: Caller,
    state: web::Data<AppState>,
    id: web::Path<i64>,
) -> Result<web::Json<BotView>, ApiError> {
    let stored = stored(&state, caller.0, BotId(*id)).await?;
    Ok(web::Json(placed_view(&state, &stored).await))
}

/// PATCH /api/bots/{id}: moves a scheduled bot to other times.
pub async fn change(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<AppState>,
    id: web::Path<i64>,
    payload: web::Payload,
) -> Result<web::Json<BotView>, ApiError> {
    let bot_id = BotId(*id);
    let (body, _) = json::body::<MoveBotRequest>(&request, payload).await?;
    let before = stored(&state, caller.0, bot_id).await?;
    let Times { start_at, end_at } = body.into_times(&state.settings, state.clock.now())?;
    let _admitted = state.admit()?;
    let (reply, answer) = oneshot::channel();
    tell(&state.tree()?.schedule, MoveStart { bot_id, start_at, end_at, reply });
    match state.decided(answer).await? {
        Ok(bot) => Ok(web::Json(view(&state, &StoredBot { bot, recording: before.recording }, None))),
        Err(MoveError::NotScheduled) => {
            let message = "The bot does not wait for its start any more; it can leave, but not be moved.";
            Err(ApiError::conflict("already_started", message))
        }
        Err(MoveError::EndsBeforeStart(refused)) => Err(ends_before_start(refused)),
        Err(MoveError::Unknown) => Err(ApiError::unknown_outcome()),
    }
}

/// POST /api/bots/{id}/remove-from-call and …/cancel: lets a bot leave, wherever it is; one that has ended is answered
/// as it is.
pub async fn leave(
    caller: Caller,
    state: web::Data<AppState>,
    id: web::Path<i64>,
) -> Result<web::Json<BotView>, ApiError> {
    let bot_id = BotId(*id);
    let before = stored(&state, caller.0, bot_id).await?;
    if before.bot.state.is_final() {
        settled(&state).await?;
        return Ok(web::Json(view(&state, &before, None)));
    }
    let _admitted = state.admit()?;
    let (reply, answer) = oneshot::channel();
    tell(&state.tree()?.pool, LeaveBot { bot_id, reason: EndReason::LeftByRequest, reply });
    match state.decided(answer).await? {
        Ok(bot) => Ok(web::Json(view(&state, &StoredBot { bot, recording: before.recording }, None))),
        Err(WithdrawError::NotLive) => {
            let after = stored(&state, caller.0, bot_id).await?;
            if after.bot.state.is_final() {
                settled(&state).await?;
                Ok(web::Json(view(&state, &after, None)))
            } else {
                Err(ApiError::unknown_outcome())
            }
        }
        Err(WithdrawError::Unknown) => Err(ApiError::unknown_outcome()),
    }
}

/// GET /api/bots/{id}/events
pub async fn events(
    caller: Caller,
    state: web::Data<AppState>,
    id: web::Path<i64>,
    query: web::Query<PageQuery>,
) -> Result<web::Json<PageView<EventView>>, ApiError> {
    let page = query.checked()?;
    let owned = stored(&state, caller.0, BotId(*id)).await?;
    let listed = state.pool.list_events(owned.bot.id, page).await?;
    Ok(web::Json(views::page(page, listed, EventView::from)))
}

/// A signed link.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordingLink {
    recording_url: String,
}

/// GET /api/bots/{id}/recording
pub async fn recording(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<AppState>,
    id: web::Path<i64>,
) -> Result<web::Json<RecordingLink>, ApiError> {
    let owned = stored(&state, caller.0, BotId(*id)).await?;
    let Some(joined) = owned.recording.as_ref().and_then(views::joined) else {
        let how_far = owned.recording.as_ref().map_or("not made", |recording| recording.state.as_str());
        let message = format!("There is no recording to play: it is {how_far}.");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "recording_not_ready", message));
    };
    let base = state.public_base(&request);
    let link = state.artifacts.presign_get(&joined.key, RECORDING_LINK, &base, None).await;
    Ok(web::Json(RecordingLink { recording_url: link.map_err(ApiError::internal)? }))
}

/// Before what was read is the answer to a wish: whoever first had it may not have been told yet, as it may still be lost.
pub(super) async fn settled(state: &AppState) -> Result<(), ApiError> {
    state.pool.flush().await.map_err(ApiError::unwritten)
}

/// A bot of this user; another's does not exist for it.
async fn stored(state: &AppState, user: UserId, id: BotId) -> Result<StoredBot, ApiError> {
    state.pool.get_bot(user, id).await?.ok_or_else(|| ApiError::not_found(format!("bot {id}")))
}

/// The bot, with its slot's uuid while it is in one.
pub(super) fn view(state: &AppState, stored: &StoredBot, place: Option<QueuePlace>) -> BotView {
    let tree = state.tree().ok();
    let slot = tree.and_then(|tree| tree.directory.bot(stored.bot.id)).map(|handle| handle.id().to_string());
    // Lists hold many that are long past it.
    let leading = state.leading.get().filter(|_| stored.bot.state == BotState::Deploying);
    let start_wait = leading.and_then(|leading| leading.driver.start_wait(stored.bot.id));
    views::bot(&stored.bot, stored.recording.as_ref(), slot, place, start_wait)
}

/// With the bot's place, where it waits.
pub(super) async fn placed_view(state: &AppState, stored: &StoredBot) -> BotView {
    let mut place = None;
    if stored.bot.state == BotState::Queued
        && let Ok(tree) = state.tree()
    {
        let found = tree.queue.send(FindPlace { bot_id: stored.bot.id }).timeout(PLACE_TIMEOUT).await;
        place = found.ok().flatten();
    }
    view(state, stored, place)
}
