//! The recordings' shell: joins segments when a bot has ended, and again when late ones arrive. A bot's end does not
//! wait for it; what a crash cuts off is resumed at start. What fails and may succeed yet is tried until it does, behind
//! those that have not failed.

use super::plan::{LATE_SEGMENTS, Step, joined, patience, step};
use super::{Recording, RecordingState};
use crate::bot::Bot;
use crate::ids::{BotId, Generation};
use crate::journal::actor::Journal;
use crate::journal::{Change, CommitError};
use crate::live::Live;
use crate::ports::{Artifacts, ArtifactsError, Clock};
use crate::supervision::DeathGuard;
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Joins under way at a time: ffmpeg and the disk are shared with the bots.
const JOINS_MAX: usize = 1;
/// How long after a late segment's announcement to look for it: most are there soon, and none takes longer than an upload
/// may.
const LATE_SETTLES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(150)];

/// A bot ended; its recording can be joined.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BotEnded {
    /// As it ended.
    pub bot: Bot,
}

/// A segment of an ended bot is being uploaded.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LateSegment {
    /// Whose, as it ended.
    pub bot: Bot,
}

/// The recordings as they are worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordingSnapshot {
    /// Recordings of ended bots that may still change.
    pub tracked: usize,
    /// Those that are looked at or joined now.
    pub joining: usize,
    /// Those that wait for that.
    pub waiting: usize,
    /// Those whose last try failed; each is tried again.
    pub failing: usize,
}

/// Asks for a [`RecordingSnapshot`].
#[derive(Message)]
#[rtype(result = "RecordingSnapshot")]
pub struct Observe;

struct Tracked {
    /// As it ended.
    bot: Bot,
    /// `None`: to be read.
    recording: Option<Recording>,
    generation: Generation,
    ended_at: DateTime<Utc>,
    /// In a line, looked at, or left alone until another try.
    busy: bool,
    /// Look again when the present work is done.
    again: bool,
    /// Tries in a row that failed.
    failures: u32,
}

/// See the module.
pub struct RecordingActor {
    tracked: BTreeMap<BotId, Tracked>,
    stored: Vec<(Recording, Bot)>,
    line: VecDeque<BotId>,
    /// Those whose last try failed: they come after all others, so that whoever fails again and again is in nobody's way.
    behind: VecDeque<BotId>,
    joining: usize,
    journal: Journal,
    artifacts: Arc<dyn Artifacts>,
    live: Live,
    clock: Arc<dyn Clock>,
    log: slog::Logger,
    _guard: DeathGuard,
}

impl RecordingActor {
    /// Takes up the stored recordings that are neither ready nor failed.
    pub fn new(
        stored: Vec<(Recording, Bot)>,
        journal: Journal,
        artifacts: Arc<dyn Artifacts>,
        live: Live,
        clock: Arc<dyn Clock>,
        log: slog::Logger,
        guard: DeathGuard,
    ) -> Self {
        Self {
            tracked: BTreeMap::new(),
            stored,
            line: VecDeque::new(),
            behind: VecDeque::new(),
            joining: 0,
            journal,
            artifacts,
            live,
            clock,
            log,
            _guard: guard,
        }
    }

    fn track(&mut self, recording: Option<Recording>, bot: &Bot, ctx: &mut Context<Self>) {
        let Some(ended_at) = bot.ended_at.filter(|_| bot.spec.recording_enabled) else { return };
        // A bot that never had a slot has nothing in any; its recording settles as empty.
        let generation = bot.seat.as_ref().map_or(Generation(0), |seat| seat.generation);
        self.forget_old();
        self.tracked.entry(bot.id).or_insert_with(|| Tracked {
            bot: bot.clone(),
            recording,
            generation,
            ended_at,
            busy: false,
            again: false,
            failures: 0,
        });
        self.look(bot.id, ctx);
    }

    /// Recordings whose late segments are no longer accepted need no more attention.
    fn forget_old(&mut self) {
        let now = self.clock.now();
        let late = TimeDelta::from_std(LATE_SEGMENTS).unwrap_or_default();
        self.tracked.retain(|_, tracked| {
            let state = tracked.recording.as_ref().map(|recording| &recording.state);
            let settled = matches!(state, Some(RecordingState::Ready(_) | RecordingState::Failed { .. }));
            tracked.busy || !settled || now - tracked.ended_at < late
        });
    }

    fn look(&mut self, bot_id: BotId, ctx: &mut Context<Self>) {
        let Some(tracked) = self.tracked.get_mut(&bot_id) else { return };
        if tracked.busy {
            tracked.again = true;
            return;
        }
        tracked.busy = true;
        self.line_up(bot_id, ctx);
    }

    fn line_up(&mut self, bot_id: BotId, ctx: &mut Context<Self>) {
        let failed = self.tracked.get(&bot_id).is_some_and(|tracked| tracked.failures > 0);
        let line = if failed { &mut self.behind } else { &mut self.line };
        line.push_back(bot_id);
        self.work(ctx);
    }

    fn work(&mut self, ctx: &mut Context<Self>) {
        while self.joining < JOINS_MAX
            && let Some(bot_id) = self.line.pop_front().or_else(|| self.behind.pop_front())
        {
            let Some(tracked) = self.tracked.get(&bot_id) else { continue };
            self.joining += 1;
            let job = Job {
                bot_id,
                recording: tracked.recording.clone(),
                generation: tracked.generation,
                artifacts: Arc::clone(&self.artifacts),
                journal: self.journal.clone(),
            };
            ctx.spawn(job.run().into_actor(self).map(move |outcome, act, ctx| {
                act.joining -= 1;
                act.finished(bot_id, outcome, ctx);
                act.work(ctx);
            }));
        }
    }

    fn finished(&mut self, bot_id: BotId, outcome: Outcome, ctx: &mut Context<Self>) {
        let Some(tracked) = self.tracked.get_mut(&bot_id) else { return };
        match outcome {
            Outcome::Settled(recording) => {
                slog::info!(self.log, "recording settled";
                    "bot" => bot_id.0, "state" => recording.state.as_str(), "segments" => recording.segments);
                // So many may have ended since that its bot is forgotten there.
                self.live.bot(&tracked.bot);
                self.live.recording(&recording);
                tracked.recording = Some(recording);
                (tracked.busy, tracked.failures) = (false, 0);
                if std::mem::take(&mut tracked.again) {
                    self.look(bot_id, ctx);
                }
            }
            Outcome::Again(recording, error) => {
                tracked.recording = Some(recording);
                // The next try sees what was announced meanwhile.
                tracked.again = false;
                tracked.failures = tracked.failures.saturating_add(1);
                let wait = patience(bot_id, tracked.failures);
                slog::warn!(self.log, "recording: trying again"; "bot" => bot_id.0, "failures" => tracked.failures,
                    "wait_s" => wait.as_secs(), "error" => %error);
                ctx.run_later(wait, move |act, ctx| act.line_up(bot_id, ctx));
            }
            Outcome::Lost(error) => {
                slog::error!(self.log, "recording given up until restart"; "bot" => bot_id.0, "error" => %error);
                self.tracked.remove(&bot_id);
            }
        }
    }
}

enum Outcome {
    Settled(Recording),
    Again(Recording, ArtifactsError),
    Lost(CommitError),
}

/// One look at one recording: list, decide, commit, join, commit.
struct Job {
    bot_id: BotId,
    recording: Option<Recording>,
    generation: Generation,
    artifacts: Arc<dyn Artifacts>,
    journal: Journal,
}

impl Job {
    async fn run(self) -> Outcome {
        let bot = self.bot_id;
        let recording = match &self.recording {
            Some(known) => known.clone(),
            None => match self.journal.read_recording(bot).await {
                Ok(Some(read)) => read,
                Ok(None) => return Outcome::Lost(CommitError::Conflict("there is no recording".to_owned())),
                Err(error) => return Outcome::Lost(error),
            },
        };
        let segments = match self.artifacts.count_segments(bot, self.generation).await {
            Ok(segments) => segments,
            Err(error) => return Outcome::Again(recording, error),
        };
        let (next, key) = match step(&recording, segments) {
            Step::Rest => return Outcome::Settled(recording),
            Step::Settle(next) => return self.settle(next).await,
            Step::Join { next, key } => (next, key),
        };
        if let Err(error) = self.write(&next).await {
            return Outcome::Lost(error);
        }
        match self.artifacts.join(bot, self.generation, &key).await {
            Ok(object) => self.settle(joined(&next, segments, Ok(object))).await,
            Err(error) if error.retryable => Outcome::Again(next, error),
            Err(error) => self.settle(joined(&next, segments, Err(error.message))).await,
        }
    }

    async fn settle(&self, next: Recording) -> Outcome {
        match self.write(&next).await {
            Ok(()) => Outcome::Settled(next),
            Err(error) => Outcome::Lost(error),
        }
    }

    async fn write(&self, next: &Recording) -> Result<(), CommitError> {
        self.journal.submit(vec![Change::WriteRecording(next.clone())]).await
    }
}

impl Actor for RecordingActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for (recording, bot) in std::mem::take(&mut self.stored) {
            // Nobody else publishes a bot that ended before this start.
            if bot.state.is_final() {
                self.live.bot(&bot);
                self.live.recording(&recording);
            }
            self.track(Some(recording), &bot, ctx);
        }
    }
}

impl Handler<BotEnded> for RecordingActor {
    type Result = ();

    fn handle(&mut self, BotEnded { bot }: BotEnded, ctx: &mut Self::Context) {
        // Said again by a rebuilt slot or a restarted server: the row says how far it is.
        self.track(None, &bot, ctx);
    }
}

impl Handler<Observe> for RecordingActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let failing = self.tracked.values().filter(|tracked| tracked.failures > 0).count();
        let (tracked, waiting) = (self.tracked.len(), self.line.len() + self.behind.len());
        MessageResult(RecordingSnapshot { tracked, joining: self.joining, waiting, failing })
    }
}

impl Handler<LateSegment> for RecordingActor {
    type Result = ();

    fn handle(&mut self, LateSegment { bot }: LateSegment, ctx: &mut Self::Context) {
        for settle in LATE_SETTLES {
            let bot = bot.clone();
            ctx.run_later(settle, move |act, ctx| act.track(None, &bot, ctx));
        }
    }
}

#[cfg(test)]
#[path = "actor_test.rs"]
mod tests;
