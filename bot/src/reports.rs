//! The ordered outbox: status reports and events go out one after the other, in the order they happened, numbered
//! without gaps, each sent again until the server has taken it.
//!
//! Numbers are given at sending, so that what had to be dropped from a full outbox leaves no gap.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use meeboter_bot::{EventReport, StatusReport, WireEndReason, WireEventType, WireState};
use serde_json::{Value, json};
use slog::{Logger, crit, debug, info, warn};
use tokio::sync::Notify;

use crate::backoff::Backoff;
use crate::client::{BotClient, ClientError};
use crate::orders::OrderBook;
use crate::patience::{Patience, Reach};
use crate::telemetry::chain;

/// Most reports that wait for a server.
const QUEUE_MAX: usize = 1_000;
/// Longest text of a detail or a log line, in characters.
const TEXT_MAX_CHARS: usize = 500;

#[derive(Debug, Clone, PartialEq)]
enum Body {
    Status { status: WireState, reason: Option<WireEndReason>, detail: Option<String> },
    Event { event_type: WireEventType, data: Value },
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    at: DateTime<Utc>,
    body: Body,
}

/// The queue alone, without the sending.
#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    dropped: u64,
}

impl Queue {
    /// Adds an entry; a full queue loses its oldest log line, else its oldest participant event, never a status.
    /// The first entry stays: it may be on its way under its number.
    fn push(&mut self, entry: Entry) {
        if self.entries.len() >= QUEUE_MAX {
            let is_log =
                |entry: &Entry| matches!(entry.body, Body::Event { event_type: WireEventType::Log, .. });
            let is_event = |entry: &Entry| matches!(entry.body, Body::Event { .. });
            let victim = (1..self.entries.len())
                .find(|&index| is_log(&self.entries[index]))
                .or_else(|| (1..self.entries.len()).find(|&index| is_event(&self.entries[index])));
            match victim {
                Some(index) => {
                    self.entries.remove(index);
                    self.dropped += 1;
                }
                None if is_event(&entry) => {
                    self.dropped += 1;
                    return;
                }
                // Statuses alone: a life has a handful of them, so this grows by no more than that.
                None => {}
            }
        }
        self.entries.push_back(entry);
    }
}

/// Where reports are put. Clones share the queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox {
    queue: Arc<Mutex<Queue>>,
    changed: Arc<Notify>,
}

impl Outbox {
    /// Reports a state.
    pub(crate) fn status(&self, status: WireState) {
        self.push(Body::Status { status, reason: None, detail: None });
    }

    /// Reports the end.
    pub(crate) fn end(&self, status: WireState, reason: WireEndReason, detail: &str) {
        self.push(Body::Status { status, reason: Some(reason), detail: Some(shortened(detail)) });
    }

    /// Reports that a participant came or went.
    pub(crate) fn participant(&self, event_type: WireEventType, participant_id: &str) {
        self.push(Body::Event { event_type, data: json!({ "participantId": shortened(participant_id) }) });
    }

    /// Reports a line worth keeping.
    pub(crate) fn log(&self, message: &str) {
        let data = json!({ "message": shortened(message) });
        self.push(Body::Event { event_type: WireEventType::Log, data });
    }

    /// How many reports the server has not taken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().entries.len()
    }

    fn push(&self, body: Body) {
        self.lock().push(Entry { at: Utc::now(), body });
        self.changed.notify_one();
    }

    fn front(&self) -> Option<Entry> {
        self.lock().entries.front().cloned()
    }

    fn pop(&self) {
        self.lock().entries.pop_front();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_MAX_CHARS).collect()
}

/// What to do after one try.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Taken: go on with this number.
    Taken(i64),
    /// Send the same report under this number.
    Renumber(i64),
    /// The server will never take it: drop it, go on with this number.
    Skip(i64),
    /// Try again later.
    Later,
    /// Somebody else owns the slot.
    Fenced,
}

fn verdict(seq: i64, result: &Result<i64, ClientError>) -> Verdict {
    match result {
        Ok(next_seq) => Verdict::Taken((*next_seq).max(seq + 1)),
        Err(error) => match error.gap() {
            Some(next_seq) if next_seq != seq => Verdict::Renumber(next_seq),
            Some(_) => Verdict::Later,
            None if error.is_fence() => Verdict::Fenced,
            // Counted on: were the number taken after all, the next report would count as its repetition and be
            // lost; a gap, in contrast, is answered with the right number.
            None if error.is_final() => Verdict::Skip(seq + 1),
            None => Verdict::Later,
        },
    }
}

/// Sends the outbox for ever; ends only when the bot is fenced. Run it as a task, and drop it when done.
pub(crate) async fn send_all(
    outbox: Outbox,
    client: BotClient,
    orders: OrderBook,
    first_seq: i64,
    log: Logger,
) {
    let mut seq = first_seq;
    let mut backoff = Backoff::for_requests();
    loop {
        let Some(entry) = outbox.front() else {
            outbox.changed.notified().await;
            continue;
        };
        let result = send_one(&client, seq, &entry).await;
        match verdict(seq, &result) {
            Verdict::Taken(next_seq) => {
                debug!(log, "report taken"; "seq" => seq);
                outbox.pop();
                seq = next_seq;
                backoff.reset();
            }
            Verdict::Renumber(next_seq) => {
                info!(log, "the server expects another report number"; "seq" => seq, "next_seq" => next_seq);
                seq = next_seq;
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Verdict::Skip(next_seq) => {
                let error = result.err().map(|error| chain(&error)).unwrap_or_default();
                match entry.body {
                    Body::Status { status, .. } => {
                        crit!(log, "a status report was refused for good and is lost";
                            "seq" => seq, "status" => ?status, "error" => error);
                    }
                    Body::Event { .. } => {
                        warn!(log, "an event was refused for good and is dropped"; "seq" => seq, "error" => error);
                    }
                }
                outbox.pop();
                seq = next_seq;
            }
            Verdict::Later => {
                let asked = result.as_ref().err().and_then(ClientError::retry_after);
                let delay = asked.unwrap_or_default().max(backoff.next_delay());
                let error = result.err().map(|error| chain(&error)).unwrap_or_default();
                warn!(log, "report not taken, trying again"; "seq" => seq,
                    "delay_ms" => delay.as_millis() as u64, "waiting" => outbox.waiting(), "error" => error);
                tokio::time::sleep(delay).await;
            }
            Verdict::Fenced => {
                let error = result.err().map(|error| chain(&error)).unwrap_or_default();
                warn!(log, "fenced: the server refuses this generation"; "seq" => seq, "error" => error);
                orders.fence();
                return;
            }
        }
    }
}

async fn send_one(client: &BotClient, seq: i64, entry: &Entry) -> Result<i64, ClientError> {
    let generation = client.generation();
    let at = entry.at;
    let reply = match entry.body.clone() {
        Body::Status { status, reason, detail } => {
            client.status(&StatusReport { generation, seq, at, status, reason, detail }).await?
        }
        Body::Event { event_type, data } => {
            client.event(&EventReport { generation, seq, at, event_type, data: Some(data) }).await?
        }
    };
    Ok(reply.next_seq)
}

/// Waits until everything is taken; false where the bot is fenced, or the patience with the server is at its end.
pub(crate) async fn drained(outbox: &Outbox, orders: &OrderBook, reach: &Reach) -> bool {
    let patience = Patience::from(Instant::now());
    while outbox.waiting() > 0 {
        if orders.now().fenced || patience.is_over(Instant::now(), reach.since()) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}

#[cfg(test)]
#[path = "reports_tests.rs"]
mod tests;
