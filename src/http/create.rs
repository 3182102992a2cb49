//! From a createBot request to what the actors are asked for: every field checked at the door, nothing stored where
//! one is wrong.

use super::error::ApiError;
use super::json::Object;
use super::meeting::{self, Offered};
use crate::config::{Bots, Schedule, Settings};
use chrono::{DateTime, Utc};
use meeboter_actors::bot::machine::{EndsBeforeStart, check_times as times_in_order};
use meeboter_actors::bot::{AutomaticLeave, BotSpec};
use meeboter_actors::queue::Plan;
use meeboter_actors::schedule::START_AHEAD_MAX;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Longest name that is shown in a call, in characters.
const NAME_CHARS_MAX: usize = 100;
/// Longest automatic-leave limit: a day.
const LEAVE_MS_MAX: u64 = 86_400_000;
/// The documented bound of `queueTimeoutMs`.
const QUEUE_TIMEOUT_MS_MAX: u32 = 600_000;
/// Longest Idempotency-Key, in characters.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 200;
/// The name of bots that were not given one.
const DEFAULT_NAME: &str = "Meeboter";

/// The documented fields of createBot, with the newer names as aliases.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateBotRequest {
    #[serde(alias = "meeting")]
    meeting_info: Object<MeetingInfo>,
    #[serde(alias = "displayName")]
    bot_display_name: Option<String>,
    start_time: Option<DateTime<Utc>>,
    end_time: Option<DateTime<Utc>>,
    recording_enabled: Option<bool>,
    queue_timeout_ms: Option<u32>,
    automatic_leave: Option<Object<AutomaticLeaveRequest>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MeetingInfo {
    platform: String,
    meeting_url: String,
    meeting_id: Option<String>,
    #[serde(alias = "meetingPassword")]
    password: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AutomaticLeaveRequest {
    waiting_room_timeout: Option<u64>,
    no_one_joined_timeout: Option<u64>,
    everyone_left_timeout: Option<u64>,
    inactivity_timeout: Option<u64>,
}

impl CreateBotRequest {
    /// What the actors are asked for, on behalf of a user with this plan.
    pub fn into_spec(
        self,
        settings: &Settings,
        offered: &Offered<'_>,
        plan: Plan,
        now: DateTime<Utc>,
    ) -> Result<BotSpec, ApiError> {
        let Object(meeting) = self.meeting_info;
        let Object(leave) = self.automatic_leave.unwrap_or_default();
        let platform = meeting::platform(&meeting.platform, offered)?;
        let meeting_url = meeting::meeting_url(&platform, &meeting.meeting_url, offered)?;
        check_times(self.start_time, self.end_time, &settings.schedule, now)?;
        times_in_order(self.start_time, self.end_time).map_err(ends_before_start)?;
        let queue_timeout_ms = self.queue_timeout_ms.unwrap_or(settings.queue.default_timeout_ms);
        if queue_timeout_ms > QUEUE_TIMEOUT_MS_MAX {
            return Err(ApiError::field("queueTimeoutMs", "queueTimeoutMs: it takes 0 to 600000."));
        }
        Ok(BotSpec {
            platform,
            meeting_url,
            meeting_id: short("meetingInfo.meetingId", meeting.meeting_id)?,
            passcode: short("meetingInfo.password", meeting.password)?,
            display_name: display_name(self.bot_display_name)?,
            recording_enabled: self.recording_enabled.unwrap_or(true),
            automatic_leave: automatic_leave(leave, &settings.bots)?,
            start_at: self.start_time,
            end_at: self.end_time,
            queue_timeout_ms,
            priority: plan.priority(),
        })
    }
}

/// The documented fields of a change of a scheduled bot; what is not given stays.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MoveBotRequest {
    start_time: Option<DateTime<Utc>>,
    end_time: Option<DateTime<Utc>>,
}

/// A bot's times, each where it is given.
pub struct Times {
    /// When it starts.
    pub start_at: Option<DateTime<Utc>>,
    /// When it leaves.
    pub end_at: Option<DateTime<Utc>>,
}

impl MoveBotRequest {
    /// What the actors are asked for. Whether the times are in order is for the bot's owner to say, who knows both.
    pub fn into_times(self, settings: &Settings, now: DateTime<Utc>) -> Result<Times, ApiError> {
        if self.start_time.is_none() && self.end_time.is_none() {
            return Err(ApiError::field("startTime", "startTime: it is missing, and so is endTime."));
        }
        check_times(self.start_time, self.end_time, &settings.schedule, now)?;
        Ok(Times { start_at: self.start_time, end_at: self.end_time })
    }
}

/// Each time by itself.
fn check_times(
    start: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
    schedule: &Schedule,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    let days = START_AHEAD_MAX.num_days();
    match start {
        Some(start) if start < now - schedule.lateness() => {
            let message = format!("startTime: it passed more than {} ms ago.", schedule.lateness_ms);
            return Err(ApiError::field("startTime", message));
        }
        Some(start) if start > now + START_AHEAD_MAX => {
            return Err(ApiError::field(
                "startTime",
                format!("startTime: it is more than {days} days ahead."),
            ));
        }
        _ => {}
    }
    if end.is_some_and(|end| end <= now) {
        return Err(ApiError::field("endTime", "endTime: it has passed already."));
    }
    Ok(())
}

/// 422 for a bot that would end before it starts.
pub fn ends_before_start(_: EndsBeforeStart) -> ApiError {
    ApiError::field("endTime", "endTime: it must be after startTime.")
}

fn display_name(name: Option<String>) -> Result<String, ApiError> {
    let name = name.map_or_else(|| DEFAULT_NAME.to_owned(), |name| name.trim().to_owned());
    let length = name.chars().count();
    if length == 0 || length > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(ApiError::field(
            "botDisplayName",
            "botDisplayName: it takes 1 to 100 printable characters.",
        ));
    }
    Ok(name)
}

fn short(field: &str, text: Option<String>) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.chars().count() > 200 || text.chars().any(char::is_control) => {
            Err(ApiError::field(field, format!("{field}: it takes at most 200 printable characters.")))
        }
        text => Ok(text),
    }
}

fn automatic_leave(asked: AutomaticLeaveRequest, defaults: &Bots) -> Result<AutomaticLeave, ApiError> {
    let limit = |field: &str, asked: Option<u64>, default: u64| match asked {
        Some(ms) if !(1_000..=LEAVE_MS_MAX).contains(&ms) => {
            let field = format!("automaticLeave.{field}");
            Err(ApiError::field(&field, format!("{field}: it takes 1000 to {LEAVE_MS_MAX} milliseconds.")))
        }
        asked => Ok(asked.unwrap_or(default)),
    };
    Ok(AutomaticLeave {
        waiting_room_timeout_ms: limit(
            "waitingRoomTimeout",
            asked.waiting_room_timeout,
            defaults.waiting_room_timeout_ms,
        )?,
        no_one_joined_timeout_ms: limit(
            "noOneJoinedTimeout",
            asked.no_one_joined_timeout,
            defaults.no_one_joined_timeout_ms,
        )?,
        everyone_left_timeout_ms: limit(
            "everyoneLeftTimeout",
            asked.everyone_left_timeout,
            defaults.everyone_left_timeout_ms,
        )?,
        inactivity_timeout_ms: limit(
            "inactivityTimeout",
            asked.inactivity_timeout,
            defaults.inactivity_timeout_ms,
        )?,
    })
}

/// Tells one request from another that uses the same key.
pub fn fingerprint(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}
