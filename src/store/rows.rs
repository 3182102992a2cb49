//! How the domain's values are rows: for each table one function to columns (for writing) and one from a row.
//!
//! A table's columns are stated once, name and type and value on one line; the SQL of inserts, updates and selects is
//! made from them. PostgreSQL keeps microseconds, so a time read back may be earlier by less than one.

use chrono::{DateTime, Utc};
use meeboter_actors::bot::{Bot, BotEvent, BotSpec, BotState, End, EndReason, Seat, Setback};
use meeboter_actors::ids::{BotId, Generation, HostName, Platform, SlotName, UserId};
use meeboter_actors::journal::IdempotencyKey;
use meeboter_actors::maintenance::{HostImage, MaintenanceRow, Run};
use meeboter_actors::pool::{Drain, DrainOrder};
use meeboter_actors::ports::ImageDigest;
use meeboter_actors::queue::QueueEntry;
use meeboter_actors::recording::{Joined, Recording, RecordingState};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Json, ToSql};

/// One column of some rows.
pub(super) struct Column<'a> {
    pub(super) name: &'static str,
    pub(super) sql_type: &'static str,
    pub(super) values: Box<dyn ToSql + Sync + Send + 'a>,
}

/// A column of `rows`; `get` takes a row's value.
pub(super) fn column<'a, R, T>(
    rows: &[&'a R],
    name: &'static str,
    sql_type: &'static str,
    get: impl Fn(&'a R) -> T,
) -> Column<'a>
where
    T: ToSql + Sync + Send + 'a,
{
    let values: Vec<T> = rows.iter().map(|row| get(row)).collect();
    Column { name, sql_type, values: Box::new(values) }
}

/// The columns but for those of these names.
pub(super) fn without<'a>(mut columns: Vec<Column<'a>>, names: &[&str]) -> Vec<Column<'a>> {
    columns.retain(|column| !names.contains(&column.name));
    columns
}

/// Why a row could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A column is missing or of another type: the schema is not this program's.
    #[error("column {column} cannot be read; does the schema belong to this version of the server?")]
    Column {
        /// Which.
        column: &'static str,
        /// What PostgreSQL's client says.
        source: tokio_postgres::Error,
    },
    /// A value that this program does not know.
    #[error("{row}: {column} is {value:?}, which this version of the server does not know")]
    Unknown {
        /// Whose.
        row: String,
        /// Which column.
        column: &'static str,
        /// What it holds.
        value: String,
    },
    /// A row that refers to one that is not there.
    #[error("{row} refers to bot {bot_id}, which is not stored")]
    NoBot {
        /// Whose.
        row: String,
        /// The missing one.
        bot_id: i64,
    },
}

/// A column's value.
pub(super) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: &'static str) -> Result<T, DecodeError> {
    row.try_get(column).map_err(|source| DecodeError::Column { column, source })
}

/// A count that is stored as `bigint`.
pub(super) fn get_count(row: &Row, of: &str, column: &'static str) -> Result<u32, DecodeError> {
    let value: i64 = get(row, column)?;
    u32::try_from(value).map_err(|_| unknown(of, column, value))
}

pub(super) fn unknown(row: &str, column: &'static str, value: impl ToString) -> DecodeError {
    DecodeError::Unknown { row: row.to_owned(), column, value: value.to_string() }
}

/// Text as PostgreSQL can hold it: the one character that it cannot is replaced.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

fn storable_json(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(storable(text).into_owned()),
        Value::Array(items) => Value::Array(items.iter().map(storable_json).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(k, v)| (storable(k).into_owned(), storable_json(v))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// `bots`.
pub(super) fn bot_columns<'a>(bots: &[&'a Bot]) -> Vec<Column<'a>> {
    vec![
        column(bots, "id", "bigint", |bot| bot.id.0),
        column(bots, "user_id", "bigint", |bot| bot.user_id.0),
        column(bots, "platform", "text", |bot| bot.spec.platform.0.as_str()),
        column(bots, "spec", "jsonb", |bot| Json(&*bot.spec)),
        column(bots, "state", "text", |bot| bot.state.as_str()),
        column(bots, "end_reason", "text", |bot| bot.end.as_ref().map(|end| end.reason.as_str())),
        column(bots, "end_detail", "text", |bot| bot.end.as_ref().map(|end| storable(&end.detail))),
        column(bots, "slot_name", "text", |bot| bot.seat.as_ref().map(|seat| seat.slot.0.as_str())),
        column(bots, "generation", "bigint", |bot| bot.seat.as_ref().map(|seat| seat.generation.0)),
        column(bots, "nonce", "uuid", |bot| bot.nonce),
        column(bots, "report_seq", "bigint", |bot| bot.report_seq),
        column(bots, "leave_reason", "text", |bot| bot.leave.map(EndReason::as_str)),
        column(bots, "failed_starts", "bigint", |bot| i64::from(bot.failed_starts())),
        column(bots, "returned_at", "timestamptz", |bot| bot.setback.as_ref().map(|setback| setback.at)),
        column(bots, "returned_detail", "text", |bot| {
            bot.setback.as_ref().map(|setback| storable(&setback.detail))
        }),
        column(bots, "created_at", "timestamptz", |bot| bot.created_at),
        column(bots, "deployed_at", "timestamptz", |bot| bot.deployed_at),
        column(bots, "joined_at", "timestamptz", |bot| bot.joined_at),
        column(bots, "ended_at", "timestamptz", |bot| bot.ended_at),
        column(bots, "version", "bigint", |bot| bot.version),
    ]
}

/// What changes of `bots` in a bot's life. What was asked is left out: it changes only while the bot is SCHEDULED.
pub(super) fn bot_life_columns<'a>(bots: &[&'a Bot]) -> Vec<Column<'a>> {
    without(bot_columns(bots), &["user_id", "platform", "spec", "created_at"])
}

/// A bot from a row of [`bot_columns`].
pub(super) fn bot_from(row: &Row) -> Result<Bot, DecodeError> {
    let id: i64 = get(row, "id")?;
    let name = format!("bot {id}");
    let state: &str = get(row, "state")?;
    let Json(spec): Json<BotSpec> = get(row, "spec")?;
    let detail: Option<String> = get(row, "end_detail")?;
    let end = end_reason(row, &name, "end_reason")?
        .map(|reason| End { reason, detail: detail.unwrap_or_else(|| reason.sentence().to_owned()) });
    let slot: Option<String> = get(row, "slot_name")?;
    let generation: Option<i64> = get(row, "generation")?;
    Ok(Bot {
        id: BotId(id),
        user_id: UserId(get(row, "user_id")?),
        spec: Arc::new(spec),
        state: BotState::parse(state).ok_or_else(|| unknown(&name, "state", state))?,
        end,
        seat: slot
            .zip(generation)
            .map(|(slot, generation)| Seat { slot: SlotName(slot), generation: Generation(generation) }),
        nonce: get(row, "nonce")?,
        report_seq: get(row, "report_seq")?,
        leave: end_reason(row, &name, "leave_reason")?,
        setback: setback_from(row, &name)?,
        created_at: get(row, "created_at")?,
        deployed_at: get(row, "deployed_at")?,
        joined_at: get(row, "joined_at")?,
        ended_at: get(row, "ended_at")?,
        version: get(row, "version")?,
    })
}

fn setback_from(row: &Row, name: &str) -> Result<Option<Setback>, DecodeError> {
    let at: Option<DateTime<Utc>> = get(row, "returned_at")?;
    let detail: Option<String> = get(row, "returned_detail")?;
    let failed_starts = get_count(row, name, "failed_starts")?;
    Ok(at.zip(detail).map(|(at, detail)| Setback { failed_starts, at, detail }))
}

fn end_reason(row: &Row, bot: &str, column: &'static str) -> Result<Option<EndReason>, DecodeError> {
    let name: Option<&str> = get(row, column)?;
    name.map(|name| EndReason::parse(name).ok_or_else(|| unknown(bot, column, name))).transpose()
}

/// `events`, but for the number that the database gives.
pub(super) fn event_columns<'a>(events: &[&'a BotEvent]) -> Vec<Column<'a>> {
    vec![
        column(events, "bot_id", "bigint", |event| event.bot_id.0),
        column(events, "event_type", "text", |event| storable(&event.event_type)),
        column(events, "event_time", "timestamptz", |event| event.at),
        column(events, "data", "jsonb", |event| event.data.as_ref().map(storable_json)),
    ]
}

/// An event from a row of [`event_columns`].
pub(super) fn event_from(row: &Row) -> Result<BotEvent, DecodeError> {
    Ok(BotEvent {
        bot_id: BotId(get(row, "bot_id")?),
        event_type: get(row, "event_type")?,
        at: get::<DateTime<Utc>>(row, "event_time")?,
        data: get(row, "data")?,
    })
}

/// `bot_pool_queue`.
pub(super) fn queue_columns<'a>(entries: &[&'a QueueEntry]) -> Vec<Column<'a>> {
    vec![
        column(entries, "bot_id", "bigint", |entry| entry.bot_id.0),
        column(entries, "platform", "text", |entry| entry.platform.0.as_str()),
        column(entries, "user_id", "bigint", |entry| entry.user_id.0),
        column(entries, "priority", "smallint", |entry| entry.priority),
        column(entries, "turn", "bigint", |entry| entry.turn),
        column(entries, "arrival", "bigint", |entry| entry.arrival),
        column(entries, "queued_at", "timestamptz", |entry| entry.queued_at),
        column(entries, "deadline_at", "timestamptz", |entry| entry.deadline_at),
    ]
}

/// A place in the queue from a row of [`queue_columns`].
pub(super) fn queue_entry_from(row: &Row) -> Result<QueueEntry, DecodeError> {
    Ok(QueueEntry {
        bot_id: BotId(get(row, "bot_id")?),
        platform: Platform(get(row, "platform")?),
        user_id: UserId(get(row, "user_id")?),
        priority: get(row, "priority")?,
        turn: get(row, "turn")?,
        arrival: get(row, "arrival")?,
        queued_at: get(row, "queued_at")?,
        deadline_at: get(row, "deadline_at")?,
    })
}

fn object(recording: &Recording) -> Option<&Joined> {
    match &recording.state {
        RecordingState::Ready(joined) => Some(joined),
        RecordingState::Joining { previous } => previous.as_ref(),
        RecordingState::Open | RecordingState::Failed { .. } => None,
    }
}

fn failure(recording: &Recording) -> Option<Cow<'_, str>> {
    match &recording.state {
        RecordingState::Failed { reason } => Some(storable(reason)),
        RecordingState::Open | RecordingState::Joining { .. } | RecordingState::Ready(_) => None,
    }
}

/// `recordings`.
pub(super) fn recording_columns<'a>(recordings: &[&'a Recording]) -> Vec<Column<'a>> {
    vec![
        column(recordings, "bot_id", "bigint", |recording| recording.bot_id.0),
        column(recordings, "state", "text", |recording| recording.state.as_str()),
        column(recordings, "key", "text", |recording| object(recording).map(|joined| joined.key.as_str())),
        column(recordings, "duration_ms", "bigint", |recording| {
            object(recording).map(|joined| joined.duration_ms)
        }),
        column(recordings, "bytes", "bigint", |recording| object(recording).map(|joined| joined.bytes)),
        column(recordings, "segments", "bigint", |recording| i64::from(recording.segments)),
        column(recordings, "attempts", "bigint", |recording| i64::from(recording.attempts)),
        column(recordings, "failure", "text", failure),
        column(recordings, "version", "bigint", |recording| recording.version),
    ]
}

/// A recording from a row of [`recording_columns`].
pub(super) fn recording_from(row: &Row) -> Result<Recording, DecodeError> {
    let bot_id: i64 = get(row, "bot_id")?;
    let name = format!("the recording of bot {bot_id}");
    let state: &str = get(row, "state")?;
    let key: Option<String> = get(row, "key")?;
    let object = match key {
        Some(key) => Some(Joined { key, duration_ms: get(row, "duration_ms")?, bytes: get(row, "bytes")? }),
        None => None,
    };
    let state = match (state, object) {
        ("open", _) => RecordingState::Open,
        ("joining", previous) => RecordingState::Joining { previous },
        ("ready", Some(joined)) => RecordingState::Ready(joined),
        ("failed", _) => RecordingState::Failed { reason: get(row, "failure")? },
        (state, _) => return Err(unknown(&name, "state", state)),
    };
    Ok(Recording {
        bot_id: BotId(bot_id),
        state,
        segments: get_count(row, &name, "segments")?,
        attempts: get_count(row, &name, "attempts")?,
        version: get(row, "version")?,
    })
}

/// `pool_drains`, but for the time that the database gives.
pub(super) fn drain_columns<'a>(orders: &[&'a DrainOrder]) -> Vec<Column<'a>> {
    vec![
        column(orders, "subject", "text", |order| order.drain.to_string()),
        column(orders, "deadline_at", "timestamptz", |order| order.by),
    ]
}

/// What finds the row of a drain.
pub(super) fn gone_drain_columns<'a>(drains: &[&'a Drain]) -> Vec<Column<'a>> {
    vec![column(drains, "subject", "text", Drain::to_string)]
}

/// A drain from a row of [`drain_columns`].
pub(super) fn drain_from(row: &Row) -> Result<(Drain, Option<DateTime<Utc>>), DecodeError> {
    let subject: &str = get(row, "subject")?;
    let drain = match subject.split_once(' ') {
        Some(("platform", platform)) => Drain::Platform(Platform(platform.to_owned())),
        Some(("host", host)) => Drain::Host(HostName(host.to_owned())),
        _ => return Err(unknown("a drain", "subject", subject)),
    };
    Ok((drain, get(row, "deadline_at")?))
}

/// `maintenance`: its one row.
pub(super) fn maintenance_columns<'a>(rows: &[&'a MaintenanceRow]) -> Vec<Column<'a>> {
    vec![
        column(rows, "one", "boolean", |_| true),
        column(rows, "due_from", "timestamptz", |row| row.due_from),
        column(rows, "timetable", "text", |row| row.timetable.as_deref()),
        column(rows, "run", "jsonb", |row| row.run.as_ref().map(Json)),
        column(rows, "images", "jsonb", |row| Json(row.images.iter().collect::<Vec<_>>())),
        column(rows, "doubted_from", "timestamptz", |row| row.doubted_from),
    ]
}

/// What is remembered of maintenance from a row of [`maintenance_columns`].
pub(super) fn maintenance_from(row: &Row) -> Result<MaintenanceRow, DecodeError> {
    let run: Option<Json<Run>> = get(row, "run")?;
    let Json(images): Json<Vec<(HostImage, ImageDigest)>> = get(row, "images")?;
    Ok(MaintenanceRow {
        due_from: get(row, "due_from")?,
        timetable: get(row, "timetable")?,
        run: run.map(|Json(run)| run),
        images: images.into_iter().collect(),
        doubted_from: get(row, "doubted_from")?,
    })
}

/// `idempotency_keys`, but for the time that the database gives.
pub(super) fn idempotency_key_columns<'a>(keys: &[&'a IdempotencyKey]) -> Vec<Column<'a>> {
    vec![
        column(keys, "user_id", "bigint", |key| key.user_id.0),
        column(keys, "key", "text", |key| key.key.as_str()),
        column(keys, "fingerprint", "bytea", |key| key.fingerprint.as_slice()),
        column(keys, "bot_id", "bigint", |key| key.bot_id.0),
    ]
}

/// An idempotency key from a row of [`idempotency_key_columns`].
pub(super) fn idempotency_key_from(row: &Row) -> Result<IdempotencyKey, DecodeError> {
    let key: String = get(row, "key")?;
    let fingerprint: &[u8] = get(row, "fingerprint")?;
    Ok(IdempotencyKey {
        user_id: UserId(get(row, "user_id")?),
        fingerprint: fingerprint
            .try_into()
            .map_err(|_| unknown("an idempotency key", "fingerprint", fingerprint.len()))?,
        key,
        bot_id: BotId(get(row, "bot_id")?),
    })
}

/// The columns' names, for a select list.
pub(super) fn names(columns: &[Column<'_>]) -> String {
    columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}
