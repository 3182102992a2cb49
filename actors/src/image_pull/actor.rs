//! The pulls' shell: asks the engine, watches how it gets on, tells those who wait.

use super::PullKey;
use super::machine::{Pull, PullCommand, PullEvent, PullFailure, PullSettings, PullState, WaiterId, Want};
use crate::ids::HostName;
use crate::ports::{Clock, Driver, DriverError, Machine, Measure, Meter, PullProgress, Pulled, SLEEP_MAX};
use crate::supervision::DeathGuard;
use actix::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Time between two looks at how the engine's pulls get on.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Images known to be present, over all hosts; past that the engine is asked again.
const KEYS_MAX: usize = 4096;

/// Makes an image present; answers when it is, or cannot be.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EnsureImage {
    /// Where.
    pub host: HostName,
    /// The image's reference.
    pub image: String,
    /// What for.
    pub want: Want,
    /// Where the outcome goes.
    pub reply: PullReply,
}

/// Where the outcome of a pull goes.
pub type PullReply = oneshot::Sender<Result<(), PullFailure>>;

/// The image may be gone from the host: the next who wants it asks the engine.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ForgetImage {
    /// Where.
    pub host: HostName,
    /// The image's reference.
    pub image: String,
}

/// One image on one host, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullLine {
    /// Which.
    pub key: PullKey,
    /// How far.
    pub state: PullState,
    /// How far the engine's pull is, where one is under way.
    pub progress: Option<PullProgress>,
    /// Who wait.
    pub waiting: usize,
    /// Tries in a row that failed.
    pub failures: u32,
}

/// The pulls as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PullSnapshot {
    /// By host and image.
    pub pulls: Vec<PullLine>,
    /// Tries begun so far.
    pub begun: u64,
}

/// Asks for a [`PullSnapshot`].
#[derive(Message)]
#[rtype(result = "PullSnapshot")]
pub struct Observe;

#[derive(Default)]
struct Entry {
    pull: Pull,
    replies: BTreeMap<WaiterId, PullReply>,
    attempt: Option<Attempt>,
    timer: Option<SpawnHandle>,
}

/// The engine's pull under way.
struct Attempt {
    call: SpawnHandle,
    progress: watch::Receiver<PullProgress>,
}

/// See the module.
pub struct ImagePullActor {
    driver: Arc<dyn Driver>,
    clock: Arc<dyn Clock>,
    settings: PullSettings,
    meter: Arc<dyn Meter>,
    entries: BTreeMap<PullKey, Entry>,
    waiters: u64,
    begun: u64,
    log: slog::Logger,
    _guard: DeathGuard,
}

impl ImagePullActor {
    /// Pulls through `driver`.
    pub fn new(
        driver: Arc<dyn Driver>,
        clock: Arc<dyn Clock>,
        settings: PullSettings,
        meter: Arc<dyn Meter>,
        log: slog::Logger,
        guard: DeathGuard,
    ) -> Self {
        Self {
            driver,
            clock,
            settings,
            meter,
            entries: BTreeMap::new(),
            waiters: 0,
            begun: 0,
            log,
            _guard: guard,
        }
    }

    fn take(&mut self, key: &PullKey, event: PullEvent, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(key) else { return };
        let (from, event_name) = (entry.pull.state.as_str(), event.name());
        let commands = entry.pull.take(key, event, &self.settings, now);
        let to = entry.pull.state.as_str();
        if from != to || !commands.is_empty() {
            self.meter.record(Measure::Moved { machine: Machine::Pull, from, event: event_name, to });
        }
        if let Some(timer) = entry.timer.take() {
            ctx.cancel_future(timer);
        }
        if let Some(at) = entry.pull.wake_at(&self.settings) {
            // Looks now and then: a machine that slept, or whose clock was set, has another time than its timers.
            let wait = (at - now).to_std().unwrap_or(Duration::ZERO).min(SLEEP_MAX);
            let key = key.clone();
            entry.timer = Some(ctx.run_later(wait, move |act, ctx| {
                if let Some(entry) = act.entries.get_mut(&key) {
                    entry.timer = None;
                }
                act.take(&key, PullEvent::Woke, ctx);
            }));
        }
        for command in commands {
            self.carry_out(key, command, ctx);
        }
    }

    fn carry_out(&mut self, key: &PullKey, command: PullCommand, ctx: &mut Context<Self>) {
        match command {
            PullCommand::Start => self.start(key, ctx),
            PullCommand::Abandon => {
                if let Some(attempt) = self.entries.get_mut(key).and_then(|entry| entry.attempt.take()) {
                    ctx.cancel_future(attempt.call);
                }
            }
            PullCommand::Answer(waiter, outcome) => {
                if let Some(reply) = self.entries.get_mut(key).and_then(|entry| entry.replies.remove(&waiter))
                {
                    // Whoever asked may have moved on.
                    let _ = reply.send(outcome);
                }
            }
        }
    }

    fn start(&mut self, key: &PullKey, ctx: &mut Context<Self>) {
        self.begun += 1;
        slog::info!(self.log, "pulling an image"; "host" => %key.host, "image" => &key.image);
        let (sender, progress) = watch::channel(PullProgress::default());
        let (driver, pulled) = (Arc::clone(&self.driver), key.clone());
        let pull = async move { driver.pull(&pulled.host, &pulled.image, sender).await };
        let of = key.clone();
        let call = ctx.spawn(pull.into_actor(self).map(move |outcome, act, ctx| {
            if let Some(entry) = act.entries.get_mut(&of) {
                entry.attempt = None;
            }
            let event = match outcome {
                Ok(Pulled::Current) => PullEvent::Succeeded,
                Ok(Pulled::Kept { reason }) => PullEvent::Kept { reason },
                Err(DriverError { message, retryable, .. }) => {
                    slog::warn!(act.log, "an image was not pulled";
                        "host" => %of.host, "image" => &of.image, "error" => &message);
                    PullEvent::Failed { reason: message, retryable }
                }
            };
            act.take(&of, event, ctx);
        }));
        if let Some(entry) = self.entries.get_mut(key) {
            entry.attempt = Some(Attempt { call, progress });
        }
    }

    fn look_at_progress(&mut self, ctx: &mut Context<Self>) {
        let moved: Vec<PullKey> = self
            .entries
            .iter_mut()
            .filter_map(|(key, entry)| {
                let progress = &mut entry.attempt.as_mut()?.progress;
                let moved = progress.has_changed().unwrap_or(false);
                progress.mark_unchanged();
                moved.then(|| key.clone())
            })
            .collect();
        for key in moved {
            self.take(&key, PullEvent::Progressed, ctx);
        }
    }

    /// Forgets what is known of images that nobody waits for, where too much is.
    fn make_room(&mut self) {
        if self.entries.len() >= KEYS_MAX {
            self.entries.retain(|_, entry| {
                !matches!(entry.pull.state, PullState::Present | PullState::Unknown)
                    || !entry.pull.line.is_empty()
            });
        }
    }
}

impl Actor for ImagePullActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(PROGRESS_INTERVAL, Self::look_at_progress);
    }
}

impl Handler<EnsureImage> for ImagePullActor {
    type Result = ();

    fn handle(&mut self, EnsureImage { host, image, want, reply }: EnsureImage, ctx: &mut Self::Context) {
        let key = PullKey { host, image };
        self.make_room();
        self.waiters += 1;
        let waiter = WaiterId(self.waiters);
        let entry = self.entries.entry(key.clone()).or_default();
        let gone: Vec<WaiterId> =
            entry.replies.iter().filter(|(_, reply)| reply.is_closed()).map(|(waiter, _)| *waiter).collect();
        entry.replies.insert(waiter, reply);
        for waiter in gone {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.replies.remove(&waiter);
            }
            self.take(&key, PullEvent::GivenUp(waiter), ctx);
        }
        self.take(&key, PullEvent::Wanted { id: waiter, want }, ctx);
    }
}

impl Handler<ForgetImage> for ImagePullActor {
    type Result = ();

    fn handle(&mut self, ForgetImage { host, image }: ForgetImage, ctx: &mut Self::Context) {
        self.take(&PullKey { host, image }, PullEvent::Forgotten, ctx);
    }
}

impl Handler<Observe> for ImagePullActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let pulls = self.entries.iter().map(|(key, entry)| PullLine {
            key: key.clone(),
            state: entry.pull.state,
            progress: entry.attempt.as_ref().map(|attempt| *attempt.progress.borrow()),
            waiting: entry.pull.line.len(),
            failures: entry.pull.failures,
        });
        MessageResult(PullSnapshot { pulls: pulls.collect(), begun: self.begun })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_pull::anew::pull_anew;
    use crate::ports::Unmetered;
    use crate::testing::stub::{Noon, Stub, StubDriver};
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Pulls only, and counts; says nothing any more after so many.
    struct Registry {
        pulls: AtomicU64,
        answers: u64,
    }

    impl Registry {
        fn answering(answers: u64) -> Arc<Self> {
            Arc::new(Self { pulls: AtomicU64::new(0), answers })
        }

        fn actor(self: &Arc<Self>) -> Addr<ImagePullActor> {
            let driver = Arc::new(StubDriver(Arc::clone(self)));
            let log = slog::Logger::root(slog::Discard, slog::o!());
            let guard = DeathGuard::new(|| {});
            let (settings, meter) = (PullSettings::default(), Arc::new(Unmetered));
            ImagePullActor::new(driver, Arc::new(Noon), settings, meter, log, guard).start()
        }
    }

    #[async_trait]
    impl Stub for Registry {
        async fn pull(&self, _: &HostName, _: &str) -> Result<Pulled, DriverError> {
            let before = self.pulls.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            if before >= self.answers {
                std::future::pending::<()>().await;
            }
            Ok(Pulled::Current)
        }
    }

    fn ensure(
        actor: &Addr<ImagePullActor>,
        key: PullKey,
        want: Want,
    ) -> oneshot::Receiver<Result<(), PullFailure>> {
        let (reply, answer) = oneshot::channel();
        let PullKey { host, image } = key;
        crate::supervision::tell(actor, EnsureImage { host, image, want, reply });
        answer
    }

    #[test]
    fn five_hundred_requests_over_sixty_keys_are_sixty_pulls() {
        let registry = Registry::answering(u64::MAX);
        System::new().block_on(async {
            let actor = registry.actor();
            let mut answers = Vec::new();
            for request in 0..500 {
                let host = HostName(format!("host-{}", request % 20));
                let key = PullKey { host, image: format!("image:{}", request % 3) };
                answers.push(ensure(&actor, key, Want::Ahead));
            }
            for answer in answers {
                assert_eq!(answer.await.expect("answered"), Ok(()));
            }
            let snapshot = actor.send(Observe).await.expect("answers");
            assert_eq!((snapshot.begun, snapshot.pulls.len()), (60, 60));
        });
        assert_eq!(registry.pulls.load(Ordering::Relaxed), 60);
    }

    #[test]
    fn an_image_that_is_pulled_anew_keeps_no_bot_waiting() {
        let registry = Registry::answering(1);
        System::new().block_on(async {
            let actor = registry.actor();
            let key = PullKey { host: HostName::local(), image: "image:1".to_owned() };
            assert_eq!(ensure(&actor, key.clone(), Want::Bot).await.expect("answered"), Ok(()));
            let mut renewals = [pull_anew(&actor, &key), pull_anew(&actor, &key)];
            let used = tokio::time::timeout(Duration::from_secs(5), ensure(&actor, key, Want::Bot)).await;
            assert_eq!(used.expect("at once").expect("answered"), Ok(()));
            let snapshot = actor.send(Observe).await.expect("answers");
            assert_eq!((snapshot.begun, snapshot.pulls[0].waiting), (2, 2), "one pull, beside what is there");
            assert!(renewals.iter_mut().all(|renewal| renewal.try_recv().is_err()), "the registry is silent");
        });
    }
}
