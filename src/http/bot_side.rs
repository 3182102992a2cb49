//! What bots' programs ask: their assignment, taking their reports and heartbeats, where to upload segments.

use super::caller::bot_token;
use super::error::ApiError;
use super::json;
use super::state::AppState;
use crate::auth::TokenError;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, TimeDelta, Utc};
use meeboter_actors::bot::machine::{Report, ReportBody};
use meeboter_actors::bot::{Bot, BotState, End, EndReason, Outcome};
use meeboter_actors::ids::{BotId, Generation, SlotId};
use meeboter_actors::recording::actor::LateSegment;
use meeboter_actors::recording::plan::LATE_SEGMENTS;
use meeboter_actors::slot::actor::Refused;
use meeboter_actors::slot::event::SlotEvent;
use meeboter_actors::slot::handle::{Pulse, SlotHandle};
use meeboter_actors::slot::machine::Rejection;
use meeboter_actors::slot::{BusyStep, Slot, SlotState};
use meeboter_actors::supervision::tell;
use meeboter_bot::{
    Assignment, AutomaticLeave, ClaimRequest, Commands, EventReport, HeartbeatRequest, ReportReply,
    SegmentReply, SegmentRequest, StatusReport, WireEndReason, WireState, segment_key,
};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long an upload's link is good for.
const UPLOAD_LINK: Duration = Duration::from_secs(900);
/// Longest sentence that a bot may give for its end, in characters.
const DETAIL_CHARS_MAX: usize = 500;

/// POST /api/slots/{uuid}/assignment
pub async fn assignment(
    request: HttpRequest,
    state: web::Data<AppState>,
    slot: web::Path<Uuid>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (claim, _) = json::body::<ClaimRequest>(&request, payload).await?;
    let slot_id = SlotId(*slot);
    let generation = state
        .tokens
        .check_slot(slot_id, bot_token(&request)?)
        .map_err(|_| ApiError::unauthorized("The token does not belong to this slot."))?;
    let over =
        || ApiError::conflict("stale_generation", "This generation of the slot is over; join nothing.");
    let handle = state.tree()?.directory.slot(slot_id).ok_or_else(|| refused(&state, over()))?;
    let answer = handle.send(SlotEvent::Claimed { generation, nonce: claim.nonce });
    match state.decided(answer).await? {
        Ok(outcome) => {
            let bot = outcome.slot.bot().ok_or_else(over)?;
            Ok(HttpResponse::Ok().json(assigned(&state, bot, generation, state.clock.now())))
        }
        Err(Refused::Rejected(Rejection::Illegal { .. })) => {
            Ok(HttpResponse::NoContent().insert_header((RETRY_AFTER, 1)).finish())
        }
        Err(refusal) => Err(refused(&state, refusal.into())),
    }
}

fn assigned(state: &AppState, bot: &Bot, generation: Generation, now: DateTime<Utc>) -> Assignment {
    let leave = &bot.spec.automatic_leave;
    let starts_in = bot.spec.start_at.map_or(TimeDelta::zero(), |start_at| start_at - now);
    Assignment {
        bot_id: bot.id.0,
        generation: generation.0,
        token: state.tokens.bot(bot.id, generation),
        platform: bot.spec.platform.0.clone(),
        meeting_url: bot.spec.meeting_url.clone(),
        meeting_id: bot.spec.meeting_id.clone(),
        passcode: bot.spec.passcode.clone(),
        display_name: bot.spec.display_name.clone(),
        recording_enabled: bot.spec.recording_enabled,
        automatic_leave: AutomaticLeave {
            waiting_room_timeout: leave.waiting_room_timeout_ms,
            no_one_joined_timeout: leave.no_one_joined_timeout_ms,
            everyone_left_timeout: leave.everyone_left_timeout_ms,
            inactivity_timeout: leave.inactivity_timeout_ms,
        },
        starts_in_ms: u64::try_from(starts_in.num_milliseconds()).unwrap_or(0),
        heartbeat_interval_ms: state.settings.bots.heartbeat_interval_ms,
        segment_ms: state.settings.bots.segment_ms,
        next_report_seq: bot.report_seq + 1,
    }
}

/// PATCH /api/bots/{id}/status
pub async fn status(
    request: HttpRequest,
    state: web::Data<AppState>,
    id: web::Path<i64>,
    payload: web::Payload,
) -> Result<web::Json<ReportReply>, ApiError> {
    let (report, _) = json::body::<StatusReport>(&request, payload).await?;
    let body = report_body(&report)?;
    take(&request, &state, BotId(*id), report.generation, Report { seq: report.seq, at: report.at, body })
        .await
}

/// POST /api/bots/{id}/events
pub async fn event(
    request: HttpRequest,
    state: web::Data<AppState>,
    id: web::Path<i64>,
    payload: web::Payload,
) -> Result<web::Json<ReportReply>, ApiError> {
    let (report, _) = json::body::<EventReport>(&request, payload).await?;
    let event_type = match serde_json::to_value(report.event_type) {
        Ok(serde_json::Value::String(name)) => name,
        _ => return Err(ApiError::internal("an event type has no name")),
    };
    let body = ReportBody::Happened { event_type, data: report.data };
    take(&request, &state, BotId(*id), report.generation, Report { seq: report.seq, at: report.at, body })
        .await
}

async fn take(
    request: &HttpRequest,
    state: &AppState,
    bot_id: BotId,
    generation: i64,
    report: Report,
) -> Result<web::Json<ReportReply>, ApiError> {
    let generation = authorized(request, state, bot_id, generation)?;
    let handle = holder(state, bot_id, generation).map_err(|error| refused(state, error))?;
    let seq = report.seq;
    let answer = handle.send(SlotEvent::Reported { generation, report });
    let slot = state.decided(answer).await?.map_err(|refusal| refused(state, refusal.into()))?.slot;
    let taken = slot.bot().filter(|bot| bot.id == bot_id).map_or(seq, |bot| bot.report_seq);
    Ok(web::Json(ReportReply { next_seq: taken.max(seq) + 1, commands: commands(&slot) }))
}

/// POST /api/bots/{id}/heartbeat
pub async fn heartbeat(
    request: HttpRequest,
    state: web::Data<AppState>,
    id: web::Path<i64>,
    payload: web::Payload,
) -> Result<web::Json<Commands>, ApiError> {
    let (heartbeat, _) = json::body::<HeartbeatRequest>(&request, payload).await?;
    let bot_id = BotId(*id);
    let generation = authorized(&request, &state, bot_id, heartbeat.generation)?;
    let pulse = holder(&state, bot_id, generation)
        .map(|handle| handle.heartbeat(bot_id, generation, state.clock.now()));
    // Whoever may not lead any more knows of no end.
    if !state.leading()?.lead.holds() {
        return Ok(web::Json(Commands::default()));
    }
    match pulse? {
        Pulse::CarryOn => Ok(web::Json(Commands::default())),
        Pulse::Leave => Ok(web::Json(Commands { should_leave: true, log_level: None })),
        Pulse::Stale => Err(over()),
    }
}

/// POST /api/bots/{id}/segments: also for a while after the bot's end, whatever ended it.
pub async fn segment(
    request: HttpRequest,
    state: web::Data<AppState>,
    id: web::Path<i64>,
    payload: web::Payload,
) -> Result<web::Json<SegmentReply>, ApiError> {
    let (asked, _) = json::body::<SegmentRequest>(&request, payload).await?;
    let bot_id = BotId(*id);
    let generation = authorized(&request, &state, bot_id, asked.generation)?;
    let commands = match holder(&state, bot_id, generation) {
        Ok(handle) if handle.snapshot().bot().is_some_and(|bot| !bot.state.is_final()) => {
            handle.segment_arrives(state.clock.now());
            commands(&handle.snapshot())
        }
        Ok(_) | Err(_) => {
            late(&state, bot_id, generation).await.map_err(|error| refused(&state, error))?;
            Commands { should_leave: true, log_level: None }
        }
    };
    let key = segment_key(bot_id.0, generation.0, asked.run, asked.part);
    let base = state.public_base(&request);
    let url = state
        .artifacts
        .presign_put(&key, "video/mp4", UPLOAD_LINK, &base)
        .await
        .map_err(ApiError::internal)?;
    Ok(web::Json(SegmentReply { url, expires_in_ms: 900_000, commands }))
}

/// A segment of a bot that has ended counts for a while; its recording is then joined again.
async fn late(state: &AppState, bot_id: BotId, generation: Generation) -> Result<(), ApiError> {
    let bot = state.pool.find_bot(bot_id).await?.ok_or_else(over)?;
    let seated = bot.seat.as_ref().is_some_and(|seat| seat.generation == generation);
    let recent = bot
        .ended_at
        .is_some_and(|ended| (state.clock.now() - ended).to_std().unwrap_or_default() < LATE_SEGMENTS);
    if !seated || !recent {
        return Err(over());
    }
    tell(&state.tree()?.recordings, LateSegment { bot });
    Ok(())
}

/// The generation that the token is good for: it must be this bot's, and the body must say the same.
fn authorized(
    request: &HttpRequest,
    state: &AppState,
    bot_id: BotId,
    said: i64,
) -> Result<Generation, ApiError> {
    let generation = state.tokens.check_bot(bot_id, bot_token(request)?).map_err(|why| match why {
        TokenError::Malformed => ApiError::unauthorized("This is not a bot's token."),
        TokenError::Foreign | TokenError::Expired => ApiError::forbidden("The token belongs to another bot."),
    })?;
    if generation.0 == said { Ok(generation) } else { Err(over()) }
}

/// The slot that holds the bot in this generation.
fn holder(state: &AppState, bot_id: BotId, generation: Generation) -> Result<Arc<SlotHandle>, ApiError> {
    let handle = state.tree()?.directory.bot(bot_id).ok_or_else(over)?;
    if handle.snapshot().generation == generation { Ok(handle) } else { Err(over()) }
}

/// A refusal as a bot hears it. From a server that may not lead any more it says nothing: another may have the slot, and
/// know better.
fn refused(state: &AppState, refusal: ApiError) -> ApiError {
    let leads = state.leading().is_ok_and(|leading| leading.lead.holds());
    if leads { refusal } else { ApiError::unknown_outcome() }
}

fn over() -> ApiError {
    ApiError::conflict(
        "stale_generation",
        "This bot's time in its slot is over; join nothing, report nothing more.",
    )
}

fn commands(slot: &Slot) -> Commands {
    let goes_on = matches!(
        slot.state,
        SlotState::Busy { step: BusyStep::Running { .. }, .. } | SlotState::Deploying { .. }
    );
    Commands { should_leave: !goes_on, log_level: None }
}

fn report_body(report: &StatusReport) -> Result<ReportBody, ApiError> {
    let state = match report.status {
        WireState::JoiningCall => BotState::JoiningCall,
        WireState::InWaitingRoom => BotState::InWaitingRoom,
        WireState::InCall => BotState::InCall,
        WireState::Recording => BotState::Recording,
        WireState::Leaving => BotState::Leaving,
        WireState::Done | WireState::Fatal => return ending(report),
    };
    if report.reason.is_some() {
        return Err(ApiError::field("reason", "reason: it goes with DONE and FATAL only."));
    }
    Ok(ReportBody::Entered(state))
}

fn ending(report: &StatusReport) -> Result<ReportBody, ApiError> {
    let Some(reason) = report.reason.map(end_reason) else {
        return Err(ApiError::field("reason", "reason: DONE and FATAL need one."));
    };
    let outcome = if report.status == WireState::Done { Outcome::Done } else { Outcome::Fatal };
    if reason.outcome() != outcome {
        let message = format!("reason: {} does not go with {:?}.", reason.as_str(), report.status);
        return Err(ApiError::field("reason", message));
    }
    let detail = report.detail.as_deref().filter(|detail| !detail.is_empty()).unwrap_or(reason.sentence());
    Ok(ReportBody::Ended(End { reason, detail: detail.chars().take(DETAIL_CHARS_MAX).collect() }))
}

fn end_reason(reason: WireEndReason) -> EndReason {
    match reason {
        WireEndReason::MeetingEnded => EndReason::MeetingEnded,
        WireEndReason::EveryoneLeft => EndReason::EveryoneLeft,
        WireEndReason::LeftByRequest => EndReason::LeftByRequest,
        WireEndReason::WaitingRoomTimeout => EndReason::WaitingRoomTimeout,
        WireEndReason::NobodyJoined => EndReason::NobodyJoined,
        WireEndReason::Inactivity => EndReason::Inactivity,
        WireEndReason::Removed => EndReason::Removed,
        WireEndReason::Denied => EndReason::Denied,
        WireEndReason::MeetingNotFound => EndReason::MeetingNotFound,
        WireEndReason::SignInRequired => EndReason::SignInRequired,
        WireEndReason::Captcha => EndReason::Captcha,
        WireEndReason::JoinBlocked => EndReason::JoinBlocked,
        WireEndReason::UploadFailed => EndReason::UploadFailed,
        WireEndReason::Internal => EndReason::Internal,
    }
}
