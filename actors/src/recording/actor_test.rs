use super::*;
use crate::bot::{BotState, Seat};
use crate::ids::SlotName;
use crate::journal::actor::JournalActor;
use crate::pool::PoolSettings;
use crate::ports::Unmetered;
use crate::recording::Joined;
use crate::testing::sample;
use crate::testing::store::FakeStore;
use crate::testing::world::{Faults, Shared, World};
use async_trait::async_trait;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A join that began.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Begun {
    at: DateTime<Utc>,
    bot: BotId,
    key: String,
    /// The row then.
    state: RecordingState,
}

/// What each bot's next joins come to, and what was seen of them.
#[derive(Default)]
struct Script {
    segments: BTreeMap<BotId, u32>,
    failures: BTreeMap<BotId, VecDeque<ArtifactsError>>,
    begun: Vec<Begun>,
}

/// Joins take as long as `JOIN`; those that fail take no time.
struct Scripted {
    world: Shared,
    script: Mutex<Script>,
}

const JOIN: Duration = Duration::from_secs(60);
/// How long a test may take, on its own clock.
const DEADLINE: Duration = Duration::from_hours(24);

impl Scripted {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, bot: BotId, times: usize, retryable: bool) {
        let error = ArtifactsError { message: "no luck".to_owned(), retryable };
        self.script().failures.entry(bot).or_default().extend(vec![error; times]);
    }

    fn begun(&self) -> Vec<Begun> {
        self.script().begun.clone()
    }
}

#[async_trait]
impl Artifacts for Scripted {
    async fn count_segments(&self, bot: BotId, _: Generation) -> Result<u32, ArtifactsError> {
        Ok(self.script().segments.get(&bot).copied().unwrap_or(3))
    }

    async fn join(&self, bot: BotId, _: Generation, key: &str) -> Result<Option<Joined>, ArtifactsError> {
        let (at, state) = {
            let world = self.world.lock();
            (world.now, world.tables.recordings[&bot].state.clone())
        };
        let failure = {
            let mut script = self.script();
            script.begun.push(Begun { at, bot, key: key.to_owned(), state });
            script.failures.get_mut(&bot).and_then(VecDeque::pop_front)
        };
        if let Some(failure) = failure {
            return Err(failure);
        }
        tokio::time::sleep(JOIN).await;
        Ok(Some(Joined { key: key.to_owned(), duration_ms: 1, bytes: 1 }))
    }

    async fn remove(&self, _: BotId) -> Result<u32, ArtifactsError> {
        unreachable!("nothing is removed")
    }
}

/// The actor at work on a virtual clock.
struct Bench {
    world: Shared,
    live: Live,
    artifacts: Arc<Scripted>,
    actor: Addr<RecordingActor>,
}

impl Bench {
    fn start(world: &Arc<Mutex<World>>, stored: Vec<(Recording, Bot)>) -> Self {
        let world = Shared::enter(world).through(1);
        world.lock().takes_lead(1);
        for (recording, _) in &stored {
            world.lock().tables.recordings.insert(recording.bot_id, recording.clone());
        }
        let quiet = || DeathGuard::new(|| {});
        let store = Arc::new(FakeStore(world.clone()));
        let journal = JournalActor::new(store, Arc::new(|| {}), Arc::new(Unmetered), quiet());
        let artifacts = Arc::new(Scripted { world: world.clone(), script: Mutex::default() });
        let live = Live::default();
        let actor = RecordingActor::new(
            stored,
            Journal::new(journal.start()),
            Arc::clone(&artifacts) as Arc<dyn Artifacts>,
            live.clone(),
            Arc::new(world.clone()),
            slog::Logger::root(slog::Discard, slog::o!()),
            quiet(),
        );
        Self { world, live, artifacts, actor: actor.start() }
    }

    /// Its bot has ended just now.
    async fn ends(&self, bot: BotId) {
        self.world.lock().tables.recordings.insert(bot, Recording::open(bot));
        let bot = ended(bot);
        self.live.bot(&bot);
        self.actor.send(BotEnded { bot }).await.expect("takes it");
    }

    /// So many segments are there now.
    async fn late(&self, bot: BotId, segments: u32) {
        self.artifacts.script().segments.insert(bot, segments);
        self.actor.send(LateSegment { bot: ended(bot) }).await.expect("takes it");
    }

    /// The recording when it settles the next time.
    async fn settled(&self, bot: BotId) -> Recording {
        let mut changes = self.live.subscribe();
        let before = self.live.recording_of(bot);
        loop {
            match self.live.recording_of(bot) {
                Some(recording) if before.as_ref() != Some(&recording) && recording.state != joining() => {
                    let stored = self.world.lock().tables.recordings[&bot].clone();
                    assert_eq!(*recording, stored, "nothing is told that is not stored");
                    return stored;
                }
                _ => changes.changed().await.expect("the board is there"),
            }
        }
    }

    async fn observed(&self) -> RecordingSnapshot {
        self.actor.send(Observe).await.expect("answers")
    }
}

fn ended(bot: BotId) -> Bot {
    let seat = Seat { slot: SlotName("slot".to_owned()), generation: Generation(1) };
    Bot { state: BotState::Done, ended_at: Some(sample::now()), seat: Some(seat), ..sample::bot(bot.0) }
}

fn run(stored: Vec<(Recording, Bot)>, test: impl AsyncFnOnce(Bench)) {
    let world = World::new(1, Faults::default(), BTreeMap::new(), PoolSettings::default());
    let world = Arc::new(Mutex::new(world));
    let runtime = || {
        let built = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        built.expect("a runtime")
    };
    System::with_tokio_rt(runtime).block_on(async move {
        let test = async { test(Bench::start(&world, stored)).await };
        tokio::time::timeout(DEADLINE, test).await.expect("comes to its end");
    });
}

const ONE: BotId = BotId(1);
const TWO: BotId = BotId(2);
const THREE: BotId = BotId(3);

fn joining() -> RecordingState {
    RecordingState::Joining { previous: None }
}

#[test]
fn what_may_pass_is_tried_less_and_less_often_until_it_is_joined() {
    run(vec![], async |bench| {
        bench.artifacts.fails(ONE, 30, true);
        bench.ends(ONE).await;
        let recording = bench.settled(ONE).await;
        assert_eq!((recording.state.as_str(), recording.segments), ("ready", 3));
        let begun = bench.artifacts.begun();
        assert_eq!(begun.len(), 31);
        assert!(begun.iter().all(|join| join.state == joining()), "{begun:?}");
        let waits: Vec<_> = begun.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
        assert!(waits.windows(2).take(5).all(|pair| pair[0] < pair[1]), "{waits:?}");
        let (first, last) = (waits.first().expect("one"), waits.last().expect("one"));
        assert!(*first <= TimeDelta::seconds(6) && *last > TimeDelta::minutes(5), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait < TimeDelta::minutes(11)), "{waits:?}");
    });
}

#[test]
fn one_that_was_being_joined_goes_on_after_a_restart() {
    let stored = Recording { state: joining(), attempts: 40, version: 41, ..Recording::open(ONE) };
    run(vec![(stored, ended(ONE))], async |bench| {
        bench.artifacts.fails(ONE, 6, true);
        let recording = bench.settled(ONE).await;
        assert_eq!((recording.state.as_str(), recording.segments, recording.attempts), ("ready", 3, 47));
    });
}

#[test]
fn one_that_settles_when_its_bot_is_long_forgotten_is_told_with_its_bot() {
    run(vec![], async |bench| {
        bench.ends(ONE).await;
        for id in 2..400 {
            bench.live.bot(&ended(BotId(id)));
        }
        assert_eq!(bench.live.owner_of(ONE), None, "others have ended since");
        assert_eq!(bench.settled(ONE).await.state.as_str(), "ready");
        assert_eq!(bench.live.owner_of(ONE), Some(sample::bot(1).user_id));
    });
}

#[test]
fn joins_that_succeeded_do_not_count_against_one_that_fails() {
    run(vec![], async |bench| {
        bench.ends(ONE).await;
        bench.settled(ONE).await;
        for segments in 4..10 {
            bench.late(ONE, segments).await;
            assert_eq!(bench.settled(ONE).await.segments, segments);
        }
        bench.artifacts.fails(ONE, 1, true);
        bench.late(ONE, 10).await;
        let recording = bench.settled(ONE).await;
        let RecordingState::Ready(joined) = &recording.state else { panic!("{recording:?}") };
        assert_eq!((joined.key.as_str(), recording.segments), ("bots/1/recordings/09.mp4", 10));
    });
}

#[test]
fn a_later_join_that_cannot_succeed_leaves_what_was_there_as_it_was() {
    run(vec![], async |bench| {
        bench.ends(ONE).await;
        let first = bench.settled(ONE).await;
        bench.artifacts.fails(ONE, 1, false);
        bench.late(ONE, 5).await;
        let kept = bench.settled(ONE).await;
        assert_eq!((&kept.state, kept.segments), (&first.state, 3), "two segments are not in it");
        bench.late(ONE, 5).await;
        let joined = bench.settled(ONE).await;
        assert_eq!((joined.state.as_str(), joined.segments, joined.attempts), ("ready", 5, 3));
    });
}

#[test]
fn those_that_have_not_failed_come_before_one_that_has() {
    run(vec![], async |bench| {
        bench.artifacts.fails(ONE, 1, true);
        bench.ends(ONE).await;
        bench.ends(TWO).await;
        // Until the first has been due for long, and the second is still being joined.
        tokio::time::sleep(JOIN / 2).await;
        bench.ends(THREE).await;
        bench.settled(ONE).await;
        let order: Vec<BotId> = bench.artifacts.begun().iter().map(|join| join.bot).collect();
        assert_eq!(order, [ONE, TWO, THREE, ONE]);
    });
}

#[test]
fn announcements_do_not_hasten_one_that_fails() {
    run(vec![], async |bench| {
        bench.artifacts.fails(ONE, 20, true);
        bench.ends(ONE).await;
        for segments in 4..200 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            bench.late(ONE, segments).await;
        }
        let tries = bench.artifacts.begun().len();
        assert!((4..10).contains(&tries), "{tries} within 392 s");
        let expected = RecordingSnapshot { tracked: 1, joining: 0, waiting: 0, failing: 1 };
        assert_eq!(bench.observed().await, expected);
        assert_eq!(bench.settled(ONE).await.segments, 199);
        assert_eq!(bench.observed().await.failing, 0);
    });
}
