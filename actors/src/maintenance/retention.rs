//! Removes what ended bots left when it is old enough, a page of bots at a time, each row in a transaction of its own or
//! a bounded number together. Objects go before the row that knows them: what could not be removed is still known.

use super::Retention;
use super::plan::Verdict;
use super::run::{Progress, bounded};
use crate::ids::BotId;
use crate::journal::actor::Journal;
use crate::journal::{Change, Decision};
use crate::ports::{Archive, Artifacts, EndedBot};
use crate::recording::{Recording, RecordingState};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// Bots that are looked at together. Their decisions fit into one transaction of the Journal.
const BOTS_PAGE: u32 = 100;
/// Lines of histories that go in one transaction: a few milliseconds of it.
const EVENTS_PAGE: u32 = 500;
/// For one page of the archive.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// For all objects of one bot: a long meeting has thousands.
const REMOVE_DEADLINE: Duration = Duration::from_secs(600);
/// For one decision: the Journal knows no outcome while its database is away.
const COMMIT_DEADLINE: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Sweeper<'a> {
    pub(super) retention: Retention,
    pub(super) now: DateTime<Utc>,
    pub(super) journal: &'a Journal,
    pub(super) archive: &'a Arc<dyn Archive>,
    pub(super) artifacts: &'a Arc<dyn Artifacts>,
    pub(super) progress: &'a Progress,
}

impl Sweeper<'_> {
    /// Goes through all bots that ended long enough ago. An archive that does not answer ends it until the next run.
    pub(super) async fn sweep(&self) {
        let Some(until) = self.retention.horizon(self.now) else { return };
        let mut after = None;
        loop {
            let read = self.archive.ended_bots(until, after, BOTS_PAGE);
            let page = match bounded(READ_DEADLINE, "the archive", read).await {
                Ok(page) => page,
                Err(why) => return self.progress.failed(why),
            };
            let Some(last) = page.last() else { return };
            after = Some((last.ended_at, last.id));
            let verdicts = page.iter().map(|bot| self.retention.verdict(bot.ended_at, self.now));
            let judged: Vec<(&EndedBot, Verdict)> = page.iter().zip(verdicts).collect();
            if !self.sweep_page(&judged).await {
                return;
            }
        }
    }

    /// False where the rest had better wait for another run.
    async fn sweep_page(&self, judged: &[(&EndedBot, Verdict)]) -> bool {
        let mut kept = Vec::new();
        for (bot, _) in judged.iter().filter(|(_, verdict)| verdict.recording) {
            match &bot.recording {
                Some(recording) if !self.remove_recording(recording).await => kept.push(bot.id),
                Some(_) | None => {}
            }
        }
        let of_events = judged.iter().filter(|(_, verdict)| verdict.events).map(|(bot, _)| bot.id).collect();
        if !self.remove_events(of_events).await {
            return false;
        }
        let gone = judged.iter().filter(|(bot, verdict)| verdict.bot && !kept.contains(&bot.id));
        self.remove_bots(gone.map(|(bot, _)| bot.id)).await;
        true
    }

    /// Whether the bot has no recording any more.
    async fn remove_recording(&self, recording: &Recording) -> bool {
        let bot_id = recording.bot_id;
        // One that is being joined just now is old enough tomorrow too.
        if matches!(recording.state, RecordingState::Open | RecordingState::Joining { .. }) {
            return false;
        }
        let removal = self.artifacts.remove(bot_id);
        let objects = match bounded(REMOVE_DEADLINE, "the object store", removal).await {
            Ok(objects) => objects,
            Err(why) => {
                self.progress.failed(format!("the recording of bot {bot_id} stays: {why}"));
                return false;
            }
        };
        self.progress.did("objects", u64::from(objects));
        let change = Change::DeleteRecording { bot_id, version: recording.version };
        let gone = self.commit(vec![change]).await;
        if gone {
            self.progress.did("recordings", 1);
        }
        gone
    }

    async fn remove_events(&self, bots: Vec<BotId>) -> bool {
        if bots.is_empty() {
            return true;
        }
        loop {
            let read = self.archive.events_of(&bots, EVENTS_PAGE);
            let events = match bounded(READ_DEADLINE, "the archive", read).await {
                Ok(events) => events,
                Err(why) => {
                    self.progress.failed(why);
                    return false;
                }
            };
            let count = events.len() as u64;
            if count == 0 {
                return true;
            }
            if !self.commit(vec![Change::DeleteEvents(events)]).await {
                return false;
            }
            self.progress.did("events", count);
        }
    }

    async fn remove_bots(&self, bots: impl Iterator<Item = BotId>) {
        let commits = bots.map(|bot| self.commit(vec![Change::DeleteBot(bot)]));
        let gone = join_all(commits).await.into_iter().filter(|gone| *gone).count();
        if gone > 0 {
            self.progress.did("bots", gone as u64);
        }
    }

    async fn commit(&self, decision: Decision) -> bool {
        match bounded(COMMIT_DEADLINE, "the database", self.journal.submit(decision)).await {
            Ok(()) => true,
            Err(why) => {
                self.progress.failed(why);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bot::{Bot, BotState};
    use crate::ids::{Generation, SlotName};
    use crate::journal::actor::JournalActor;
    use crate::maintenance::{Before, Run, Step, StepReport, Trigger};
    use crate::pool::PoolSettings;
    use crate::ports::{ArchiveError, ArtifactsError, Clock, EventId, Unmetered};
    use crate::recording::Joined;
    use crate::slot::{BusyStep, Slot, SlotState};
    use crate::supervision::DeathGuard;
    use crate::testing::archive::FakeArchive;
    use crate::testing::sample;
    use crate::testing::store::FakeStore;
    use crate::testing::world::{Faults, Shared, World};
    use actix::{Actor, System};
    use async_trait::async_trait;
    use chrono::TimeDelta;
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};

    /// Objects that cannot be removed.
    const STUCK: BotId = BotId(120);
    /// Still in its slot.
    const HELD: BotId = BotId(200);
    /// Being joined.
    const JOINING: BotId = BotId(50);

    /// The fake archive, with three lines for each bot; what was answered once was removed.
    struct Histories(FakeArchive, Mutex<BTreeMap<BotId, u32>>);

    #[async_trait]
    impl Archive for Histories {
        async fn ended_bots(
            &self,
            until: DateTime<Utc>,
            after: Option<(DateTime<Utc>, BotId)>,
            max: u32,
        ) -> Result<Vec<EndedBot>, ArchiveError> {
            self.0.ended_bots(until, after, max).await
        }

        async fn events_of(&self, bots: &[BotId], max: u32) -> Result<Vec<EventId>, ArchiveError> {
            let mut left = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let mut events = Vec::new();
            for bot in bots {
                let lines = left.entry(*bot).or_insert(3);
                while *lines > 0 && events.len() < max as usize {
                    *lines -= 1;
                    events.push(EventId(bot.0 * 10 + i64::from(*lines)));
                }
            }
            Ok(events)
        }
    }

    struct StuckObjects;

    #[async_trait]
    impl Artifacts for StuckObjects {
        async fn count_segments(&self, _: BotId, _: Generation) -> Result<u32, ArtifactsError> {
            unreachable!("nothing is counted")
        }

        async fn join(&self, _: BotId, _: Generation, _: &str) -> Result<Option<Joined>, ArtifactsError> {
            unreachable!("nothing is joined")
        }

        async fn remove(&self, bot: BotId) -> Result<u32, ArtifactsError> {
            let stuck = ArtifactsError { message: "no answer".to_owned(), retryable: true };
            if bot == STUCK { Err(stuck) } else { Ok(2) }
        }
    }

    /// A world with a bot for each of the last 250 days, numbered by its age, and one that lives.
    fn world() -> World {
        let mut world = World::new(1, Faults::default(), BTreeMap::new(), PoolSettings::default());
        for age in 1..=250 {
            let ended_at = sample::now() - TimeDelta::days(age);
            let ended = Bot { state: BotState::Done, ended_at: Some(ended_at), ..sample::bot(age) };
            let state = match ended.id {
                JOINING => RecordingState::Joining { previous: None },
                _ => RecordingState::Failed { reason: "Nothing was recorded.".to_owned() },
            };
            let recording = Recording { state, ..Recording::open(ended.id) };
            world.tables.recordings.insert(ended.id, recording);
            world.tables.bots.insert(ended.id, ended);
        }
        let state = SlotState::Busy {
            bot: Box::new(world.tables.bots[&HELD].clone()),
            container: None,
            step: BusyStep::Stopping,
        };
        let slot = Slot { state, ..sample::busy_slot(1) };
        world.tables.slots.insert(SlotName("held".to_owned()), slot);
        world
    }

    #[test]
    fn what_is_old_goes_page_by_page_and_what_cannot_go_stays_known() {
        let world = Arc::new(Mutex::new(world()));
        let tables = Arc::clone(&world);
        let runtime = || {
            let built =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            built.expect("a runtime")
        };
        let run = System::with_tokio_rt(runtime).block_on(async move {
            let shared = Shared::enter(&world).through(1);
            shared.lock().takes_lead(1);
            let store = Arc::new(FakeStore(shared.clone()));
            let quiet = DeathGuard::new(|| {});
            let journal = JournalActor::new(store, Arc::new(|| {}), Arc::new(Unmetered), quiet).start();
            let archive: Arc<dyn Archive> =
                Arc::new(Histories(FakeArchive(shared.clone()), Mutex::default()));
            let artifacts: Arc<dyn Artifacts> = Arc::new(StuckObjects);
            let days = |count| Some(TimeDelta::days(count));
            let retention = Retention { recordings: days(30), events: days(10), bots: days(100), logs: None };
            let (progress, seen) = Progress::new(Run {
                trigger: Trigger::Operator,
                attempt: 1,
                began_at: sample::now(),
                ended_at: None,
                steps: vec![StepReport::begin(Step::Retention)],
                before: Before::default(),
            });
            let sweeper = Sweeper {
                retention,
                now: shared.now(),
                journal: &Journal::new(journal),
                archive: &archive,
                artifacts: &artifacts,
                progress: &progress,
            };
            sweeper.sweep().await;
            seen.borrow().clone()
        });
        let world = tables.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |ids: Vec<BotId>| ids.into_iter().map(|id| id.0).collect::<Vec<_>>();
        let bots = left(world.tables.bots.keys().copied().collect());
        let expected: Vec<i64> = (1..100).chain([STUCK.0, HELD.0]).collect();
        assert_eq!(bots, expected);
        let recordings = left(world.tables.recordings.keys().copied().collect());
        let expected: Vec<i64> = (1..30).chain([JOINING.0, STUCK.0, HELD.0]).collect();
        assert_eq!(recordings, expected);
        let report = &run.steps[0];
        // 221 are 30 days old or older; one is stuck, one is being joined, one is held. 151 less two are bots.
        let done: Vec<(&str, u64)> =
            report.done.iter().map(|(what, count)| (what.as_str(), *count)).collect();
        assert_eq!(done, [("bots", 149), ("events", 3 * 240), ("objects", 2 * 218), ("recordings", 218)]);
        assert_eq!(report.failures, 1);
        assert!(report.first_failure.as_ref().is_some_and(|why| why.contains("bot 120 stays: no answer")));
    }
}
