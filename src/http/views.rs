//! How things look from outside: the documented shapes, camelCase.

use crate::store::queries::{Listed, Page, StoredEvent};
use chrono::{DateTime, Utc};
use meeboter_actors::bot::{Bot, BotState, EndReason};
use meeboter_actors::queue::message::QueuePlace;
use meeboter_actors::recording::{Recording, RecordingState};
use meeboter_actors::slot::preparation::Preparation;
use meeboter_actors::slot::{BusyStep, DeployStep, RecoveryStep, Slot, SlotState, SlotStatus};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// A bot.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct BotView {
    pub id: i64,
    pub user_id: i64,
    /// One of the seven documented values.
    pub status: &'static str,
    /// Where it really is.
    pub state: &'static str,
    pub meeting_info: MeetingView,
    pub bot_display_name: String,
    pub slot_name: Option<String>,
    /// Where it stands in its platform's line, counted from 1, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<usize>,
    /// A guess of how long it has to wait yet: for a slot, or for an engine that starts only so many at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_wait_ms: Option<u64>,
    /// The slot's uuid while the bot is in it.
    pub coolify_service_uuid: Option<String>,
    pub recording_enabled: bool,
    /// The key of the joined recording.
    pub recording: Option<String>,
    pub recording_state: Option<&'static str>,
    pub recording_duration_ms: Option<i64>,
    pub end_reason: Option<&'static str>,
    pub end_detail: Option<String>,
    pub deployment_error: Option<String>,
    pub start_time: Option<DateTime<Utc>>,
    pub end_time: Option<DateTime<Utc>>,
    pub automatic_leave: AutomaticLeaveView,
    pub created_at: DateTime<Utc>,
    pub deployed_at: Option<DateTime<Utc>>,
    pub joined_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
}

/// A bot's meeting.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct MeetingView {
    pub platform: String,
    pub meeting_url: String,
    pub meeting_id: Option<String>,
    pub password: Option<String>,
}

/// When a bot leaves by itself, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct AutomaticLeaveView {
    pub waiting_room_timeout: u64,
    pub no_one_joined_timeout: u64,
    pub everyone_left_timeout: u64,
    pub inactivity_timeout: u64,
}

/// A bot with its recording; `slot_uuid` where it is in a slot, `place` where it waits for one, `start_wait` where its engine
/// lets it wait.
pub fn bot(
    bot: &Bot,
    recording: Option<&Recording>,
    slot_uuid: Option<String>,
    place: Option<QueuePlace>,
    start_wait: Option<Duration>,
) -> BotView {
    let leave = &bot.spec.automatic_leave;
    let joined = recording.and_then(joined);
    BotView {
        id: bot.id.0,
        user_id: bot.user_id.0,
        status: documented_status(bot),
        state: bot.state.as_str(),
        meeting_info: MeetingView {
            platform: bot.spec.platform.0.clone(),
            meeting_url: bot.spec.meeting_url.clone(),
            meeting_id: bot.spec.meeting_id.clone(),
            password: bot.spec.passcode.clone(),
        },
        bot_display_name: bot.spec.display_name.clone(),
        slot_name: bot.seat.as_ref().map(|seat| seat.slot.0.clone()),
        queue_position: place.map(|place| place.position),
        estimated_wait_ms: place.map(|place| place.estimated_wait).or(start_wait).map(milliseconds),
        coolify_service_uuid: slot_uuid,
        recording_enabled: bot.spec.recording_enabled,
        recording: joined.map(|joined| joined.key.clone()),
        recording_state: recording.map(|recording| recording.state.as_str()),
        recording_duration_ms: joined.map(|joined| joined.duration_ms),
        end_reason: bot.end.as_ref().map(|end| end.reason.as_str()),
        end_detail: bot.end.as_ref().map(|end| end.detail.clone()),
        deployment_error: bot
            .end
            .as_ref()
            .filter(|end| end.reason == EndReason::DeployFailed)
            .map(|end| end.detail.clone()),
        start_time: bot.spec.start_at,
        end_time: bot.spec.end_at,
        automatic_leave: AutomaticLeaveView {
            waiting_room_timeout: leave.waiting_room_timeout_ms,
            no_one_joined_timeout: leave.no_one_joined_timeout_ms,
            everyone_left_timeout: leave.everyone_left_timeout_ms,
            inactivity_timeout: leave.inactivity_timeout_ms,
        },
        created_at: bot.created_at,
        deployed_at: bot.deployed_at,
        joined_at: bot.joined_at,
        ended_at: bot.ended_at,
    }
}

/// A wait as clients are told it.
pub fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// The joined recording that can be played now, also while late segments are joined again.
pub fn joined(recording: &Recording) -> Option<&meeboter_actors::recording::Joined> {
    match &recording.state {
        RecordingState::Ready(joined) => Some(joined),
        RecordingState::Joining { previous } => previous.as_ref(),
        RecordingState::Open | RecordingState::Failed { .. } => None,
    }
}

/// The state in the seven documented values, so that existing clients never meet an unknown one.
fn documented_status(bot: &Bot) -> &'static str {
    match bot.state {
        BotState::Scheduled | BotState::Queued => BotState::Deploying.as_str(),
        BotState::Leaving if bot.joined_at.is_none() => BotState::JoiningCall.as_str(),
        BotState::Leaving if bot.spec.recording_enabled => BotState::Recording.as_str(),
        BotState::Leaving => BotState::InCall.as_str(),
        state => state.as_str(),
    }
}

/// A slot, as one of its users or somebody else sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct SlotView {
    pub name: String,
    pub id: String,
    pub platform: String,
    pub status: SlotStatus,
    pub step: Option<&'static str>,
    pub generation: i64,
    pub bot_id: Option<i64>,
    /// A bot of somebody else is in it.
    pub others_bot: bool,
    pub changed_at: DateTime<Utc>,
    pub last_used_at: Option<DateTime<Utc>>,
    pub error_message: Option<String>,
}

/// A slot as `user` may see it; a retired one has no view.
pub fn slot(slot: &Slot, user: meeboter_actors::ids::UserId) -> Option<SlotView> {
    let bot = slot.bot();
    let own = bot.filter(|bot| bot.user_id == user);
    Some(SlotView {
        name: slot.name.0.clone(),
        id: slot.id.to_string(),
        platform: slot.platform.0.clone(),
        status: slot.status()?,
        step: step(slot),
        generation: slot.generation.0,
        bot_id: own.map(|bot| bot.id.0),
        others_bot: bot.is_some() && own.is_none(),
        changed_at: slot.changed_at,
        last_used_at: last_used_at(slot),
        error_message: error_message(slot),
    })
}

/// When the last bot of an idle slot left.
pub(super) fn last_used_at(slot: &Slot) -> Option<DateTime<Utc>> {
    match slot.state {
        SlotState::Idle { last_used_at, .. } => last_used_at,
        _ => None,
    }
}

/// What failed, where the slot is in error.
pub(super) fn error_message(slot: &Slot) -> Option<String> {
    match &slot.state {
        SlotState::Error { reason, .. } => Some(reason.clone()),
        _ => None,
    }
}

/// How far a slot is in its state, where that has steps.
pub(super) fn step(slot: &Slot) -> Option<&'static str> {
    match &slot.state {
        SlotState::Idle { ahead: Preparation::Absent, .. } | SlotState::Retired => None,
        SlotState::Idle { ahead, .. } => Some(ahead.step()),
        SlotState::Deploying { step: DeployStep::Pulling, .. } => Some("pulling"),
        SlotState::Deploying { step: DeployStep::Resuming, .. } => Some("resuming"),
        SlotState::Deploying { step: DeployStep::Starting, .. } => Some("starting"),
        SlotState::Deploying { step: DeployStep::Retrying { .. }, .. } => Some("retrying"),
        SlotState::Deploying { step: DeployStep::Restarting, .. } => Some("restarting"),
        SlotState::Busy { step: BusyStep::Running { .. }, .. } => Some("running"),
        SlotState::Busy { step: BusyStep::Leaving { .. }, .. } => Some("leaving"),
        SlotState::Busy { step: BusyStep::Stopping, .. } => Some("stopping"),
        SlotState::Error { step: RecoveryStep::Waiting { .. }, .. } => Some("waiting"),
        SlotState::Error { step: RecoveryStep::Stopping, .. } => Some("stopping"),
    }
}

/// A line of a bot's history.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct EventView {
    pub id: i64,
    pub bot_id: i64,
    pub event_type: String,
    pub event_time: DateTime<Utc>,
    pub data: Option<Value>,
}

impl From<StoredEvent> for EventView {
    fn from(StoredEvent { id, event }: StoredEvent) -> Self {
        let (bot_id, event_time) = (event.bot_id.0, event.at);
        Self { id, bot_id, event_type: event.event_type, event_time, data: event.data }
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct PageView<T> {
    pub data: Vec<T>,
    pub total: u64,
    pub page_count: u64,
    pub has_next_page: bool,
    pub has_previous_page: bool,
    /// The next page's number, where there is one.
    pub next_cursor: Option<u32>,
}

/// A page with its neighbours.
pub fn page<T, V>(page: Page, listed: Listed<T>, view: impl FnMut(T) -> V) -> PageView<V> {
    let page_count = listed.total.div_ceil(u64::from(page.size.max(1)));
    let has_next_page = u64::from(page.number) < page_count;
    PageView {
        data: listed.rows.into_iter().map(view).collect(),
        total: listed.total,
        page_count,
        has_next_page,
        has_previous_page: page.number > 1,
        next_cursor: has_next_page.then(|| page.number + 1),
    }
}
