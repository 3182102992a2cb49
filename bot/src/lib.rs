//! The wire protocol between the server and the program inside a slot.
//!
//! Only shapes, names and paths live here (serde, chrono, uuid): no I/O, nothing of either side's behaviour. JSON is
//! camelCase. Every request of a bot carries a token in the header [`TOKEN_HEADER`]: the slot's for the
//! assignment, the bot's (from the assignment) for all else. Both are bound to one generation of the slot.
//!
//! The order of a bot's life: claim ([`ClaimRequest`] → [`Assignment`]), then [`StatusReport`]s and
//! [`EventReport`]s numbered from [`Assignment::next_report_seq`] without gaps, a [`HeartbeatRequest`] every
//! [`Assignment::heartbeat_interval_ms`], and one [`SegmentRequest`] for each segment of the recording, which answers
//! where to PUT its bytes. Answers carry [`Commands`].

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Header that carries the slot's or the bot's token.
pub const TOKEN_HEADER: &str = "x-milo-token";
/// Environment: the uuid of the slot this program runs in.
pub const ENV_SLOT: &str = "POOL_SLOT_UUID";
/// Environment: base URL of the server, without a trailing slash.
pub const ENV_SERVER: &str = "MILO_URL";
/// Environment: the slot's token for this generation.
pub const ENV_TOKEN: &str = "MILO_AUTH_TOKEN";
/// Environment: a folder of this generation's own, for the spool, the log and the exit note. Where it is unset the
/// program makes a temporary one.
pub const ENV_WORK_DIR: &str = "MEEBOTER_WORK_DIR";
/// Environment: what to do when finished without being stopped: `exit` or `idle` (default; Coolify restarts what
/// exits).
pub const ENV_WHEN_DONE: &str = "MEEBOTER_WHEN_DONE";
/// `error.code` of a refusal with 409 by which the server says that a process no longer owns its slot: it joins nothing,
/// or leaves. Only the server's own word counts: a proxy and an object store answer 409 as well.
pub const FENCE_CODES: [&str; 3] = ["stale_generation", "claimed", "not_now"];
/// `error.code` of a refusal with 409 of a report for its number.
pub const GAP_CODE: &str = "report_gap";
/// `error.code` of a refusal for what a request says: another try would be refused as well.
pub const MALFORMED_CODES: [&str; 3] = ["invalid_json", "invalid_field", "body_too_large"];
/// `error.code` of a refusal of a token with 401.
pub const TOKEN_CODE: &str = "unauthorized";
/// File name, in the work folder, of the [`ExitNote`].
pub const EXIT_NOTE_FILE: &str = "exit.json";
/// File name, in the work folder, of the bot's number, which says whose the spool is.
pub const BOT_FILE: &str = "bot";
/// Folder name, in the work folder, of the spool: `<run>/<piece>`, what is recorded and not uploaded yet.
pub const SPOOL_DIR: &str = "spool";

/// Path of the claim: POST [`ClaimRequest`] → 200 [`Assignment`], 204 + Retry-After (nothing assigned yet), 409 (this
/// generation belongs to another process, or is over: join nothing).
pub fn assignment_path(slot: Uuid) -> String {
    format!("/api/slots/{slot}/assignment")
}

/// Path of status reports: PATCH [`StatusReport`] → [`ReportReply`].
pub fn status_path(bot_id: i64) -> String {
    format!("/api/bots/{bot_id}/status")
}

/// Path of events: POST [`EventReport`] → [`ReportReply`].
pub fn events_path(bot_id: i64) -> String {
    format!("/api/bots/{bot_id}/events")
}

/// Path of heartbeats: POST [`HeartbeatRequest`] → [`Commands`].
pub fn heartbeat_path(bot_id: i64) -> String {
    format!("/api/bots/{bot_id}/heartbeat")
}

/// Path of segment uploads: POST [`SegmentRequest`] → [`SegmentReply`].
pub fn segments_path(bot_id: i64) -> String {
    format!("/api/bots/{bot_id}/segments")
}

/// Asks for the slot's assignment. The same nonce gets the same answer; another nonce gets 409.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimRequest {
    /// Made once at process start.
    pub nonce: Uuid,
}

/// Everything that a bot needs to know for its one meeting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The bot this slot now runs.
    pub bot_id: i64,
    /// The slot's generation; requests of another generation are refused.
    pub generation: i64,
    /// The bot's token, for every later request.
    pub token: String,
    /// Canonical platform key: `google-meet`, `microsoft-teams`, `zoom`, `rehearsal`.
    pub platform: String,
    /// The page to open.
    pub meeting_url: String,
    /// Platform's own meeting number, where the client gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meeting_id: Option<String>,
    /// Passcode, where the client gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passcode: Option<String>,
    /// The name shown to the other participants.
    pub display_name: String,
    /// False: no recorder runs and the bot never enters RECORDING.
    pub recording_enabled: bool,
    /// When to leave by itself.
    pub automatic_leave: AutomaticLeave,
    /// Milliseconds until the meeting is to begin, 0 where it has or no time is known: until then being alone, silence
    /// and the waiting room are what is expected, and no limit of `automatic_leave` runs.
    #[serde(default)]
    pub starts_in_ms: u64,
    /// Time between two heartbeats.
    pub heartbeat_interval_ms: u64,
    /// Length of one recording segment.
    pub segment_ms: u64,
    /// The number the next report must carry; 1 on a first claim.
    pub next_report_seq: i64,
}

/// Limits after which a bot leaves by itself, in milliseconds; each restarts when its condition ends, and none runs before
/// the meeting is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AutomaticLeave {
    /// Longest stay in the waiting room → `waiting_room_timeout`.
    pub waiting_room_timeout: u64,
    /// Nobody else was ever seen in the call → `nobody_joined`.
    pub no_one_joined_timeout: u64,
    /// Everybody else has left → `everyone_left`.
    pub everyone_left_timeout: u64,
    /// Silence in the call → `inactivity`.
    pub inactivity_timeout: u64,
}

/// A state that a bot reports of itself. Forward jumps are fine, going back is not (but `IN_CALL` ⇄ `RECORDING`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WireState {
    /// Opening the page, filling in the name, asking to join.
    JoiningCall,
    /// Asked; a host has to let the bot in.
    InWaitingRoom,
    /// In the call.
    InCall,
    /// In the call, and the recorder runs.
    Recording,
    /// Leaving: finishing the recording and its upload.
    Leaving,
    /// Ended as it should; needs a `reason`.
    Done,
    /// Failed; needs a `reason`.
    Fatal,
}

/// Why a bot ended, as far as a bot can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WireEndReason {
    /// The host ended the meeting.
    MeetingEnded,
    /// Everybody else left and the limit passed.
    EveryoneLeft,
    /// The server told the bot to leave (its own reason wins there).
    LeftByRequest,
    /// Not let in within the limit.
    WaitingRoomTimeout,
    /// Nobody else came within the limit.
    NobodyJoined,
    /// Silence longer than the limit.
    Inactivity,
    /// A host removed the bot.
    Removed,
    /// A host refused the bot.
    Denied,
    /// The page says that there is no such meeting.
    MeetingNotFound,
    /// The meeting wants an account.
    SignInRequired,
    /// A captcha stands in the way.
    Captcha,
    /// The platform does not let this client join.
    JoinBlocked,
    /// Segments could not be uploaded.
    UploadFailed,
    /// Something broke inside the bot; `detail` says what.
    Internal,
}

/// A change of the bot's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusReport {
    /// The slot's generation.
    pub generation: i64,
    /// This report's number; one sequence for status reports and events together.
    pub seq: i64,
    /// When it happened, by the bot's clock.
    pub at: DateTime<Utc>,
    /// The state entered.
    pub status: WireState,
    /// Set with `DONE` and `FATAL` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<WireEndReason>,
    /// A sentence for people, at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Something that happened, without a change of state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventReport {
    /// The slot's generation.
    pub generation: i64,
    /// This report's number; one sequence for status reports and events together.
    pub seq: i64,
    /// When it happened, by the bot's clock.
    pub at: DateTime<Utc>,
    /// What happened.
    pub event_type: WireEventType,
    /// `{participantId}` for participants, `{message}` for `LOG`, `{sub_code?, description?}` else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

/// The documented event types that are not states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WireEventType {
    /// Somebody came in; `{participantId}`.
    ParticipantJoin,
    /// Somebody went; `{participantId}`.
    ParticipantLeave,
    /// A line worth keeping; `{message}`.
    Log,
}

/// Answer to a status report or an event. A report that was taken before answers the same.
/// A number ahead of the expected one is refused with 409 `report_gap` and the expected number in
/// `details.nextSeq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportReply {
    /// The number expected next.
    pub next_seq: i64,
    /// What the server wants.
    #[serde(flatten)]
    pub commands: Commands,
}

/// Tells that the bot is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeartbeatRequest {
    /// The slot's generation.
    pub generation: i64,
}

/// What the server wants of a bot; every answer carries it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Commands {
    /// Leave the meeting, finish the recording, report `DONE`.
    pub should_leave: bool,
    /// `trace`, `debug`, `info`, `warn` or `error`; absent: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
}

/// Which piece of the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum SegmentPart {
    /// The fMP4 initialisation section of a run; comes first.
    Init,
    /// A media segment; counted from 1 within its run.
    Media {
        /// Its number.
        index: u32,
    },
}

/// Asks where to upload a piece of the recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SegmentRequest {
    /// The slot's generation.
    pub generation: i64,
    /// The recorder's run within this bot, counted from 1; a recorder that had to be restarted begins a new one.
    pub run: u32,
    /// Which piece.
    pub part: SegmentPart,
}

/// Where to PUT a piece: `PUT url` with the bytes as body and `content-type: video/mp4`. Uploading twice is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentReply {
    /// Presigned URL.
    pub url: String,
    /// How long it is good for.
    pub expires_in_ms: u64,
    /// What the server wants.
    #[serde(flatten)]
    pub commands: Commands,
}

/// How the program ended, for a driver that cannot see an exit status; written to [`EXIT_NOTE_FILE`] just before
/// exit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitNote {
    /// Exit code: 0 when the bot reported its end.
    pub code: i32,
    /// A sentence for people.
    pub reason: String,
    /// When, by the bot's clock.
    pub at: DateTime<Utc>,
}

/// Object key of a piece of a recording, under the prefix of its bot and generation; keys sort in playing order
/// within a run, and `init` comes before them.
pub fn segment_key(bot_id: i64, generation: i64, run: u32, part: SegmentPart) -> String {
    let name = match part {
        SegmentPart::Init => "000000-init.mp4".to_owned(),
        SegmentPart::Media { index } => format!("{index:06}.m4s"),
    };
    format!("{}{run:03}/{name}", segment_prefix(bot_id, generation))
}

/// Prefix of all pieces of one bot's recording in one generation.
pub fn segment_prefix(bot_id: i64, generation: i64) -> String {
    format!("{}{generation}/", recording_prefix(bot_id))
}

/// The prefix of every segment of a bot.
pub fn recording_prefix(bot_id: i64) -> String {
    format!("recordings/{bot_id}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_in_playing_order() {
        let init = segment_key(7, 2, 1, SegmentPart::Init);
        let first = segment_key(7, 2, 1, SegmentPart::Media { index: 1 });
        let tenth = segment_key(7, 2, 1, SegmentPart::Media { index: 10 });
        let next_run = segment_key(7, 2, 2, SegmentPart::Init);
        assert!(init < first && first < tenth && tenth < next_run);
        assert_eq!(first, "recordings/7/2/001/000001.m4s");
    }

    #[test]
    fn answers_are_flat_camel_case() {
        let reply = ReportReply { next_seq: 4, commands: Commands { should_leave: true, log_level: None } };
        assert_eq!(
            serde_json::to_value(reply).expect("plain data"),
            serde_json::json!({"nextSeq": 4, "shouldLeave": true})
        );
        let part = serde_json::to_value(SegmentPart::Media { index: 3 }).expect("plain data");
        assert_eq!(part, serde_json::json!({"kind": "media", "index": 3}));
    }
}
