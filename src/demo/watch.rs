//! The bots of a demonstration, followed from their sending to their recording.

use super::api::{Api, ApiError, Bot, Event, RecordingState};
use super::folder::Folder;
use super::progress::Display;
use super::table::{Row, seconds};
use super::{DemoError, logs, recording};
use chrono::{DateTime, Utc};
use meeboter_actors::bot::BotState;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

const POLL: Duration = Duration::from_millis(500);
/// Rounds in a row in which every question failed, after which nobody is asked any more.
const FAILED_ROUNDS_MAX: u32 = 20;
/// How long a recording may take after the bot's end.
const RECORDING_LIMIT: Duration = Duration::from_secs(60);

/// A bot, the last that was heard of it, and what is wrong with it.
pub(super) struct Watched {
    bot: Bot,
    ended_at: Option<Instant>,
    recording: Option<PathBuf>,
    recorded_seconds: Option<f64>,
    problems: Vec<String>,
    is_checked: bool,
}

impl Watched {
    pub(super) fn new(bot: Bot) -> Self {
        Self {
            bot,
            ended_at: None,
            recording: None,
            recorded_seconds: None,
            problems: Vec::new(),
            is_checked: false,
        }
    }

    pub(super) fn id(&self) -> i64 {
        self.bot.id
    }

    pub(super) fn state(&self) -> BotState {
        self.bot.state
    }

    pub(super) fn has_ended(&self) -> bool {
        self.bot.state.is_final()
    }

    /// Whether nothing more is to be waited for.
    pub(super) fn is_settled(&self) -> bool {
        match self.bot.state {
            BotState::Fatal => true,
            BotState::Done => {
                matches!(self.bot.recording_state, Some(RecordingState::Ready | RecordingState::Failed))
                    || self.ended_at.is_some_and(|at| at.elapsed() > RECORDING_LIMIT)
            }
            _ => false,
        }
    }

    /// Done, and the recording is as it should be.
    pub(super) fn is_fine(&self) -> bool {
        self.is_checked && self.problems.is_empty()
    }

    /// Where it is, in a few words.
    pub(super) fn words(&self) -> String {
        let slot = self.bot.slot_name.as_deref().map(|name| format!(" · {name}")).unwrap_or_default();
        let state = self.bot.state.as_str();
        match (self.bot.state, self.bot.recording_state) {
            (BotState::Done, Some(RecordingState::Ready)) => format!("{state}{slot} · recording ready"),
            (BotState::Done, Some(RecordingState::Failed)) => format!("{state}{slot} · recording failed"),
            (BotState::Done, _) => format!("{state}{slot} · recording is prepared"),
            (BotState::Fatal, _) => format!("{state}{slot} · {}", self.reason()),
            _ => format!("{state}{slot}"),
        }
    }

    pub(super) fn row(&self) -> Row {
        let since_created = |at: Option<DateTime<Utc>>| at.map(|at| seconds_between(self.bot.created_at, at));
        Row {
            bot: self.bot.id.to_string(),
            slot: self.bot.slot_name.clone().unwrap_or_else(|| "–".to_owned()),
            waited: seconds(since_created(self.bot.deployed_at)),
            joined: seconds(since_created(self.bot.joined_at)),
            recorded: seconds(self.recorded_seconds),
            ended: if self.has_ended() { self.reason() } else { self.bot.state.as_str().to_owned() },
            recording: self
                .recording
                .as_ref()
                .map_or_else(|| "–".to_owned(), |path| path.display().to_string()),
        }
    }

    /// Fetches the recording and looks into it; whatever is wrong becomes a problem.
    pub(super) async fn check(&mut self, api: &Api, folder: &Folder) {
        self.is_checked = true;
        if self.bot.state != BotState::Done {
            self.problems.push(format!("ended as {}", self.bot.state.as_str()));
            return;
        }
        match self.bot.recording_state {
            Some(RecordingState::Ready) => {}
            Some(RecordingState::Failed) => {
                return self.problems.push("its recording could not be made".to_owned());
            }
            Some(RecordingState::Open | RecordingState::Joining) | None => {
                let words = format!("its recording was not ready within {} s", RECORDING_LIMIT.as_secs());
                return self.problems.push(words);
            }
        }
        let path = folder.recording(self.bot.id);
        let events = match fetch(api, self.bot.id, &path).await {
            Ok(events) => events,
            Err(error) => return self.problems.push(error.to_string()),
        };
        match recording::look_into(&path).await {
            Ok(found) => {
                self.recorded_seconds = found.seconds;
                self.problems.extend(found.problems(recorded_span_s(&events)));
            }
            Err(error) => self.problems.push(error.to_string()),
        }
        self.recording = Some(path);
    }

    /// For a demonstration that was cut short.
    pub(super) fn note_unfinished(&mut self) {
        if !self.has_ended() {
            self.problems.push(format!("was still {}", self.bot.state.as_str()));
        }
    }

    /// What is wrong and where to read on; nothing for a bot that is fine.
    pub(super) fn complaint(&self, folder: &Folder) -> Vec<String> {
        if self.problems.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![format!("\nbot {}: {}", self.bot.id, self.problems.join("; "))];
        if self.bot.end_reason.is_some() {
            lines.push(format!("  reason: {}", self.reason()));
        }
        for detail in [&self.bot.end_detail, &self.bot.deployment_error].into_iter().flatten() {
            lines.push(format!("  detail: {detail}"));
        }
        match self.bot.slot_id.as_deref().and_then(|slot| logs::of_slot(folder, slot)) {
            Some(log) => {
                lines.push(format!("  the last lines of {}, the newest log of its slot:", log.display()));
                lines.push(logs::tail(&log));
            }
            None => lines.push("  its own log is not there any more".to_owned()),
        }
        lines.push(format!("  the server's log: {}", folder.server_log().display()));
        lines
    }

    fn reason(&self) -> String {
        self.bot.end_reason.clone().unwrap_or_else(|| "–".to_owned())
    }

    fn hear(&mut self, bot: Bot) {
        self.bot = bot;
        if self.has_ended() && self.ended_at.is_none() {
            self.ended_at = Some(Instant::now());
        }
    }
}

/// Asks after every bot twice a second until all are settled.
pub(super) async fn until_settled(
    api: &Api,
    bots: &mut [Watched],
    display: &mut Display,
) -> Result<(), DemoError> {
    let mut rounds = interval(POLL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed_rounds = 0;
    while bots.iter().any(|bot| !bot.is_settled()) {
        rounds.tick().await;
        let failure = ask_all(api, bots, display).await;
        failed_rounds = if failure.is_some() { failed_rounds + 1 } else { 0 };
        if let Some(error) = failure.filter(|_| failed_rounds >= FAILED_ROUNDS_MAX) {
            return Err(error.into());
        }
    }
    Ok(())
}

/// One round; an error only where no question was answered.
async fn ask_all(api: &Api, bots: &mut [Watched], display: &mut Display) -> Option<ApiError> {
    let mut failure = None;
    let mut was_answered = false;
    for bot in bots.iter_mut().filter(|bot| !bot.is_settled()) {
        match api.bot(bot.id()).await {
            Ok(latest) => {
                bot.hear(latest);
                was_answered = true;
            }
            Err(error) => failure = Some(error),
        }
        display.bot(bot);
    }
    failure.filter(|_| !was_answered)
}

async fn fetch(api: &Api, id: i64, path: &std::path::Path) -> Result<Vec<Event>, ApiError> {
    api.save_recording(id, path).await?;
    api.events(id).await
}

/// From the first RECORDING to the LEAVING after it (or DONE, where a bot skipped that).
fn recorded_span_s(events: &[Event]) -> Option<f64> {
    let first = |name: &str, after: Option<DateTime<Utc>>| {
        let named = events.iter().filter(|event| event.event_type == name);
        named.map(|event| event.event_time).filter(|at| after.is_none_or(|after| *at >= after)).min()
    };
    let begin = first("RECORDING", None)?;
    let end = first("LEAVING", Some(begin)).or_else(|| first("DONE", Some(begin)))?;
    Some(seconds_between(begin, end))
}

fn seconds_between(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).num_milliseconds() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event_type: &str, at_ms: i64) -> Event {
        let event_time = DateTime::from_timestamp_millis(1_700_000_000_000 + at_ms).expect("a time");
        Event { event_type: event_type.to_owned(), event_time }
    }

    #[test]
    fn a_recording_spans_from_recording_to_leaving() {
        let mut events = vec![event("DONE", 21_000), event("RECORDING", 3_000), event("LEAVING", 19_500)];
        assert_eq!(recorded_span_s(&events), Some(16.5));
        events.pop();
        assert_eq!(recorded_span_s(&events), Some(18.0));
        events.pop();
        assert_eq!(recorded_span_s(&events), None);
    }

    #[test]
    fn a_bot_is_settled_with_its_recording() {
        let text = r#"{"id": 4, "state": "DONE", "slotName": "pool-rehearsal-001", "coolifyServiceUuid": null,
            "recordingState": "joining", "endReason": "meeting_ended", "endDetail": null, "deploymentError": null,
            "createdAt": "2026-01-01T10:00:00Z", "deployedAt": "2026-01-01T10:00:01.5Z", "joinedAt": null}"#;
        let mut bot = Watched::new(serde_json::from_str(text).expect("a bot"));
        assert!(bot.has_ended() && !bot.is_settled());
        assert_eq!(bot.row().waited, "1.5 s");
        bot.bot.recording_state = Some(RecordingState::Ready);
        assert!(bot.is_settled() && !bot.is_fine());
        assert_eq!(bot.words(), "DONE · pool-rehearsal-001 · recording ready");
    }
}
