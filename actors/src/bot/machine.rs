//! The bot's life as pure functions: which step follows which, and what rows a step writes.
//! No I/O, no clock, no randomness. Which container runs a bot is the slot machine's business.

use super::{Bot, BotEvent, BotState, End, EndReason, Setback};
use crate::journal::{Change, IdempotencyKey};
use crate::queue::QueueEntry;
use crate::recording::Recording;
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// Something that a bot says of itself, with its number in the bot's own sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Counted from 1 without gaps.
    pub seq: i64,
    /// When it happened, by the clock of the bot's host, which may be wrong by any amount.
    pub at: DateTime<Utc>,
    /// What.
    pub body: ReportBody,
}

/// What a report says.
#[derive(Debug, Clone, PartialEq)]
pub enum ReportBody {
    /// The bot entered a state that is not final.
    Entered(BotState),
    /// The bot ended.
    Ended(End),
    /// Something to keep in the bot's history.
    Happened {
        /// A documented event type.
        event_type: String,
        /// Its data.
        data: Option<serde_json::Value>,
    },
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// It was taken before; nothing changes.
    Repeated,
    /// The bot after it, and the rows to write.
    Advanced(Box<Bot>, Vec<Change>),
}

/// A report ahead of its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The number that must come next.
    pub expected: i64,
}

/// Takes a report in its turn. A step back in life is taken for its number only: it changes no state. What is reported
/// happened between the bot's start and `now`, whatever its host's clock says: what is kept goes by these times.
pub fn take_report(bot: &Bot, report: Report, now: DateTime<Utc>) -> Result<Taken, Gap> {
    if report.seq <= bot.report_seq {
        return Ok(Taken::Repeated);
    }
    if report.seq != bot.report_seq + 1 {
        return Err(Gap { expected: bot.report_seq + 1 });
    }
    let at = report.at.max(bot.deployed_at.unwrap_or(bot.created_at)).min(now);
    let mut next = bot.clone();
    next.report_seq = report.seq;
    let mut events = Vec::new();
    match report.body {
        ReportBody::Entered(state) => {
            if may_follow(bot.state, state) {
                enter(&mut next, state, at);
                events.push(event(&next, state.as_str(), at, None));
            }
        }
        ReportBody::Ended(end) => {
            if !bot.state.is_final() {
                // The server's own reason for telling the bot to leave says more than the bot's "I was told to".
                let end = match (end.reason, bot.leave) {
                    (EndReason::LeftByRequest, Some(asked)) => {
                        End { reason: asked, detail: asked.sentence().to_owned() }
                    }
                    _ => end,
                };
                finish(&mut next, end, at);
                events.push(end_event(&next, at));
            }
        }
        ReportBody::Happened { event_type, data } => {
            events.push(BotEvent { bot_id: bot.id, event_type, at, data });
        }
    }
    next.version += 1;
    let mut changes = vec![Change::WriteBot(Box::new(next.clone()))];
    changes.extend(events.into_iter().map(Change::InsertEvent));
    Ok(Taken::Advanced(Box::new(next), changes))
}

/// Whether a life may go from `from` to `to`: forward, or between IN_CALL and RECORDING.
pub fn may_follow(from: BotState, to: BotState) -> bool {
    !from.is_final() && (to > from || (from, to) == (BotState::Recording, BotState::InCall))
}

/// The bot in a later state that is not final, and the rows to write.
pub fn entered(bot: &Bot, state: BotState, now: DateTime<Utc>) -> (Bot, Vec<Change>) {
    let mut next = bot.clone();
    enter(&mut next, state, now);
    next.version += 1;
    let event = event(&next, state.as_str(), now, None);
    let changes = vec![Change::WriteBot(Box::new(next.clone())), Change::InsertEvent(event)];
    (next, changes)
}

/// The bot at its end, and the rows to write. A bot that has ended stays as it is.
pub fn ended(bot: &Bot, end: End, now: DateTime<Utc>) -> (Bot, Vec<Change>) {
    if bot.state.is_final() {
        return (bot.clone(), Vec::new());
    }
    let mut next = bot.clone();
    finish(&mut next, end, now);
    next.version += 1;
    let event = end_event(&next, now);
    let changes = vec![Change::WriteBot(Box::new(next.clone())), Change::InsertEvent(event)];
    (next, changes)
}

/// A bot that would end before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bot would end before it starts")]
pub struct EndsBeforeStart;

/// Whether a bot's times are in order.
pub fn check_times(
    start_at: Option<DateTime<Utc>>,
    end_at: Option<DateTime<Utc>>,
) -> Result<(), EndsBeforeStart> {
    match (start_at, end_at) {
        (Some(start_at), Some(end_at)) if end_at <= start_at => Err(EndsBeforeStart),
        _ => Ok(()),
    }
}

/// The bot with other times, and the rows to write. A time that is not given stays.
pub fn moved(
    bot: &Bot,
    start_at: Option<DateTime<Utc>>,
    end_at: Option<DateTime<Utc>>,
) -> Result<(Bot, Vec<Change>), EndsBeforeStart> {
    let mut next = bot.clone();
    let spec = Arc::make_mut(&mut next.spec);
    spec.start_at = start_at.or(bot.spec.start_at);
    spec.end_at = end_at.or(bot.spec.end_at);
    check_times(next.spec.start_at, next.spec.end_at)?;
    next.version += 1;
    let changes = vec![Change::WriteBot(Box::new(next.clone()))];
    Ok((next, changes))
}

/// A waiting bot with another priority, and the row to write: what it keeps if a slot takes it and gives it back.
pub fn reprioritised(bot: &Bot, priority: i16) -> (Bot, Vec<Change>) {
    let mut next = bot.clone();
    Arc::make_mut(&mut next.spec).priority = priority;
    next.version += 1;
    let changes = vec![Change::WriteBot(Box::new(next.clone()))];
    (next, changes)
}

/// The bot back in the queue, at the head of its line, after a start that came to nothing; and the rows to write.
/// `failed`: it counts as a failed start.
pub fn returned(bot: &Bot, detail: String, failed: bool, now: DateTime<Utc>) -> (Bot, Vec<Change>) {
    let data = serde_json::json!({ "description": detail });
    let failed_starts = bot.failed_starts() + u32::from(failed);
    let next = Bot {
        state: BotState::Queued,
        seat: None,
        nonce: None,
        deployed_at: None,
        setback: Some(Setback { failed_starts, at: now, detail }),
        version: bot.version + 1,
        ..bot.clone()
    };
    let changes = vec![
        Change::WriteBot(Box::new(next.clone())),
        Change::InsertQueueEntry(QueueEntry::returned(&next)),
        Change::InsertEvent(event(&next, next.state.as_str(), now, Some(data))),
    ];
    (next, changes)
}

/// The end of a bot whose time in the queue is up: where a start of it had failed, that is why it has ended.
pub fn queue_timeout(bot: &Bot) -> End {
    match bot.setback.as_ref().filter(|setback| setback.failed_starts > 0) {
        Some(setback) => End { reason: EndReason::DeployFailed, detail: setback.detail.clone() },
        None => end(EndReason::QueueTimeout),
    }
}

/// What a receiver writes for a bot that left the Scheduler: the bot in its new state. No row but the bot's own says
/// that it was scheduled.
pub fn left_schedule(bot: &mut Bot) -> Vec<Change> {
    bot.version += 1;
    vec![Change::WriteBot(Box::new(bot.clone()))]
}

/// What a request creates beside its place: the bot, its recording, the client's key.
pub fn created(bot: &Bot, idempotency: Option<IdempotencyKey>) -> Vec<Change> {
    let mut changes = vec![Change::WriteBot(Box::new(bot.clone()))];
    if bot.spec.recording_enabled {
        changes.push(Change::WriteRecording(Recording::open(bot.id)));
    }
    changes.extend(idempotency.map(Change::InsertIdempotencyKey));
    changes
}

/// The line in a bot's history that says which state it is in.
pub fn state_event(bot: &Bot, now: DateTime<Utc>) -> BotEvent {
    event(bot, bot.state.as_str(), now, None)
}

/// An end with the reason's own sentence.
pub fn end(reason: EndReason) -> End {
    End { reason, detail: reason.sentence().to_owned() }
}

fn enter(bot: &mut Bot, state: BotState, at: DateTime<Utc>) {
    bot.state = state;
    if matches!(state, BotState::InCall | BotState::Recording) && bot.joined_at.is_none() {
        bot.joined_at = Some(at);
    }
}

fn finish(bot: &mut Bot, end: End, at: DateTime<Utc>) {
    bot.state = end.reason.outcome().state();
    bot.end = Some(end);
    bot.ended_at = Some(at);
}

fn event(bot: &Bot, event_type: &str, at: DateTime<Utc>, data: Option<serde_json::Value>) -> BotEvent {
    BotEvent { bot_id: bot.id, event_type: event_type.to_owned(), at, data }
}

fn end_event(bot: &Bot, at: DateTime<Utc>) -> BotEvent {
    let data = bot
        .end
        .as_ref()
        .map(|end| serde_json::json!({"sub_code": end.reason.as_str(), "description": end.detail}));
    event(bot, bot.state.as_str(), at, data)
}

#[cfg(test)]
#[path = "machine_test.rs"]
mod tests;
