//! One image on one host: who waits for it, whether it is being pulled, when the next try begins. Decides, never acts:
//! no I/O, no clock, no randomness.
//!
//! One pulls, the others wait and start from the cache. A try that failed hands over to the next in line after a
//! back-off, so that a registry in trouble sees one probe at a time, however many wait. An image that is pulled anew stays
//! usable meanwhile: nobody but who wants it renewed waits for that.

use super::PullKey;
use crate::backoff::{Backoff, is_over, spread};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::VecDeque;
use std::time::Duration;

/// A pull without progress for so long has failed. A driver gives up a registry that says nothing well before that: its
/// word on what is on the host comes while somebody waits for it.
pub const SILENCE: Duration = Duration::from_secs(20 * 60);

/// The durations and bounds that pulls go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullSettings {
    /// A pull without progress for so long has failed.
    pub silence: Duration,
    /// Waits between two tries.
    pub backoff: Backoff,
    /// Failed tries that one who waits sits through; with the last one it is told.
    pub tries: u32,
    /// Bots that may wait for one image on one host.
    pub waiters_max: u32,
}

impl Default for PullSettings {
    fn default() -> Self {
        Self {
            silence: SILENCE,
            backoff: Backoff { first: Duration::from_secs(2), last: Duration::from_secs(120) },
            tries: 3,
            waiters_max: 100,
        }
    }
}

/// Tells those who wait apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// What somebody wants the image for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A bot waits for it: of these only so many may.
    Bot,
    /// Something that is made ahead of need.
    Ahead,
    /// To have it pulled though it is there, as its tag may have moved.
    Renewal,
}

/// The pull of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Those who wait, the one that pulls first.
    pub line: VecDeque<Waiter>,
    /// How far.
    pub state: PullState,
    /// It is on the host, and is only being renewed: who can do with what is there does not wait.
    pub usable: bool,
    /// Tries in a row that failed.
    pub failures: u32,
}

/// Somebody who waits for the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// Who.
    pub id: WaiterId,
    /// What for.
    pub want: Want,
    /// Failed tries it has sat through.
    pub failures: u32,
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullState {
    /// Nobody asked yet, or what was known is no longer trusted.
    Unknown,
    /// The engine is pulling.
    Pulling {
        /// When it last got on.
        moved_at: DateTime<Utc>,
    },
    /// A try failed; the next begins then, if anybody waits.
    BackingOff {
        /// When.
        until: DateTime<Utc>,
    },
    /// The image is on the host.
    Present,
}

impl PullState {
    /// Its name, for counts and people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Pulling { .. } => "pulling",
            Self::BackingOff { .. } => "backing_off",
            Self::Present => "present",
        }
    }
}

/// What may happen to a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// Somebody wants the image.
    Wanted {
        /// Who.
        id: WaiterId,
        /// What for.
        want: Want,
    },
    /// Somebody wants it no more.
    GivenUp(WaiterId),
    /// The engine got on with it.
    Progressed,
    /// The image is there.
    Succeeded,
    /// It could not be pulled, and is there as it was.
    Kept {
        /// The engine's words.
        reason: String,
    },
    /// The engine's pull failed.
    Failed {
        /// The engine's words.
        reason: String,
        /// Whether another try may help.
        retryable: bool,
    },
    /// A time that the state waits for may have come.
    Woke,
    /// The image may be gone from the host.
    Forgotten,
}

impl PullEvent {
    /// Its name, for counts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Wanted { .. } => "Wanted",
            Self::GivenUp(_) => "GivenUp",
            Self::Progressed => "Progressed",
            Self::Succeeded => "Succeeded",
            Self::Kept { .. } => "Kept",
            Self::Failed { .. } => "Failed",
            Self::Woke => "Woke",
            Self::Forgotten => "Forgotten",
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullCommand {
    /// Have the engine pull.
    Start,
    /// The engine's pull no longer counts.
    Abandon,
    /// Tell one who waited.
    Answer(WaiterId, Result<(), PullFailure>),
}

/// Why an image could not be made present.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PullFailure {
    /// The engine could not.
    #[error("{reason}")]
    Failed {
        /// The engine's words.
        reason: String,
        /// Whether another try may help.
        retryable: bool,
    },
    /// The bound on those who wait is reached.
    #[error("{0} wait for this image on this host already")]
    Crowded(u32),
}

impl Default for Pull {
    fn default() -> Self {
        Self { line: VecDeque::new(), state: PullState::Unknown, usable: false, failures: 0 }
    }
}

impl Pull {
    /// Takes an event, and says what is to be done.
    pub fn take(
        &mut self,
        key: &PullKey,
        event: PullEvent,
        settings: &PullSettings,
        now: DateTime<Utc>,
    ) -> Vec<PullCommand> {
        match event {
            PullEvent::Wanted { id, want } => self.want(id, want, settings, now),
            PullEvent::GivenUp(id) => {
                // The pull itself goes on: the next bot will want the image.
                self.line.retain(|waiter| waiter.id != id);
                vec![]
            }
            PullEvent::Progressed => {
                if let PullState::Pulling { moved_at } = &mut self.state {
                    *moved_at = now;
                }
                vec![]
            }
            PullEvent::Succeeded => self.succeed(),
            PullEvent::Kept { reason } => self.keep(key, reason, settings, now),
            PullEvent::Failed { reason, retryable } => self.fail(key, reason, retryable, settings, now),
            PullEvent::Woke => self.wake(key, settings, now),
            PullEvent::Forgotten => {
                self.usable = false;
                if self.state == PullState::Present {
                    self.state = PullState::Unknown;
                }
                vec![]
            }
        }
    }

    /// When it must be woken; `None`: never.
    pub fn wake_at(&self, settings: &PullSettings) -> Option<DateTime<Utc>> {
        match self.state {
            PullState::Pulling { moved_at } => Some(moved_at + delta(settings.silence)),
            PullState::BackingOff { until } => Some(until),
            PullState::Unknown | PullState::Present => None,
        }
    }

    fn want(
        &mut self,
        id: WaiterId,
        want: Want,
        settings: &PullSettings,
        now: DateTime<Utc>,
    ) -> Vec<PullCommand> {
        let present = self.state == PullState::Present;
        if want != Want::Renewal && (present || self.usable) {
            return vec![PullCommand::Answer(id, Ok(()))];
        }
        let bots = self.line.iter().filter(|waiter| waiter.want == Want::Bot).count();
        if want == Want::Bot && bots >= settings.waiters_max as usize {
            return vec![PullCommand::Answer(id, Err(PullFailure::Crowded(settings.waiters_max)))];
        }
        self.line.push_back(Waiter { id, want, failures: 0 });
        self.usable |= present;
        match self.state {
            PullState::Unknown | PullState::Present => self.start(now),
            PullState::Pulling { .. } | PullState::BackingOff { .. } => vec![],
        }
    }

    fn start(&mut self, now: DateTime<Utc>) -> Vec<PullCommand> {
        self.state = PullState::Pulling { moved_at: now };
        vec![PullCommand::Start]
    }

    fn succeed(&mut self) -> Vec<PullCommand> {
        if !matches!(self.state, PullState::Pulling { .. }) {
            return vec![];
        }
        (self.state, self.usable) = (PullState::Present, false);
        self.failures = 0;
        self.line.drain(..).map(|waiter| PullCommand::Answer(waiter.id, Ok(()))).collect()
    }

    /// Whoever can do with what is there has it; to renew it is tried again.
    fn keep(
        &mut self,
        key: &PullKey,
        reason: String,
        settings: &PullSettings,
        now: DateTime<Utc>,
    ) -> Vec<PullCommand> {
        if !matches!(self.state, PullState::Pulling { .. }) {
            return vec![];
        }
        if self.line.iter().all(|waiter| waiter.want != Want::Renewal) {
            return self.succeed();
        }
        self.usable = true;
        let line = std::mem::take(&mut self.line).into_iter();
        let (renewals, served): (VecDeque<_>, VecDeque<_>) =
            line.partition(|waiter| waiter.want == Want::Renewal);
        self.line = renewals;
        let served = served.into_iter().map(|waiter| PullCommand::Answer(waiter.id, Ok(())));
        let mut commands: Vec<_> = served.collect();
        commands.extend(self.fail(key, reason, true, settings, now));
        commands
    }

    fn fail(
        &mut self,
        key: &PullKey,
        reason: String,
        retryable: bool,
        settings: &PullSettings,
        now: DateTime<Utc>,
    ) -> Vec<PullCommand> {
        if !matches!(self.state, PullState::Pulling { .. }) {
            return vec![];
        }
        self.failures = self.failures.saturating_add(1);
        let name = key.host.0.bytes().chain(key.image.bytes());
        let wait = settings.backoff.wait(self.failures, spread(name, self.failures));
        self.state = PullState::BackingOff { until: now + wait };
        let failure = PullFailure::Failed { reason, retryable };
        let told = |waiter: &Waiter| !retryable || waiter.failures >= settings.tries;
        for waiter in &mut self.line {
            waiter.failures += 1;
        }
        // The next in line has its turn.
        if !self.line.is_empty() {
            self.line.rotate_left(1);
        }
        let (gone, left) = std::mem::take(&mut self.line).into_iter().partition(told);
        self.line = left;
        let gone: VecDeque<Waiter> = gone;
        gone.into_iter().map(|waiter| PullCommand::Answer(waiter.id, Err(failure.clone()))).collect()
    }

    fn wake(&mut self, key: &PullKey, settings: &PullSettings, now: DateTime<Utc>) -> Vec<PullCommand> {
        match self.state {
            PullState::Pulling { moved_at } if now >= moved_at + delta(settings.silence) => {
                let minutes = settings.silence.as_secs() / 60;
                let reason = format!("no progress for {minutes} min");
                let mut commands = vec![PullCommand::Abandon];
                commands.extend(self.fail(key, reason, true, settings, now));
                commands
            }
            // The clock was set back: nobody knows how long the engine has been silent.
            PullState::Pulling { moved_at } if moved_at > now => {
                self.state = PullState::Pulling { moved_at: now };
                vec![]
            }
            PullState::BackingOff { until } if is_over(until, settings.backoff.last, now) => {
                if !self.line.is_empty() {
                    return self.start(now);
                }
                let is_there = std::mem::take(&mut self.usable);
                self.state = if is_there { PullState::Present } else { PullState::Unknown };
                vec![]
            }
            _ => vec![],
        }
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::HostName;
    use crate::testing::sample;

    const SETTINGS: PullSettings = PullSettings {
        silence: Duration::from_secs(1200),
        backoff: Backoff { first: Duration::from_secs(2), last: Duration::from_secs(120) },
        tries: 3,
        waiters_max: 3,
    };

    struct Bench {
        key: PullKey,
        pull: Pull,
        now: DateTime<Utc>,
    }

    impl Bench {
        fn new() -> Self {
            let key = PullKey { host: HostName("a".into()), image: "image:1".into() };
            Self { key, pull: Pull::default(), now: sample::now() }
        }

        fn take(&mut self, event: PullEvent) -> Vec<PullCommand> {
            self.pull.take(&self.key, event, &SETTINGS, self.now)
        }

        fn wait(&mut self, seconds: i64) {
            self.now += TimeDelta::seconds(seconds);
        }

        fn fail(&mut self) -> Vec<PullCommand> {
            self.take(PullEvent::Failed { reason: "registry away".into(), retryable: true })
        }
    }

    fn want(id: u64) -> PullEvent {
        PullEvent::Wanted { id: WaiterId(id), want: Want::Bot }
    }

    fn ok(id: u64) -> PullCommand {
        PullCommand::Answer(WaiterId(id), Ok(()))
    }

    #[test]
    fn one_pulls_and_the_others_start_from_the_cache() {
        let mut bench = Bench::new();
        assert_eq!(bench.take(want(1)), [PullCommand::Start]);
        assert_eq!(bench.take(want(2)), []);
        assert_eq!(bench.take(PullEvent::Succeeded), [ok(1), ok(2)]);
        assert_eq!(bench.take(want(3)), [ok(3)]);
        assert_eq!(bench.take(PullEvent::Forgotten), []);
        assert_eq!(bench.take(want(4)), [PullCommand::Start]);
    }

    #[test]
    fn a_failed_try_hands_over_after_a_back_off_with_one_probe() {
        let mut bench = Bench::new();
        bench.take(want(1));
        bench.take(want(2));
        assert_eq!(bench.fail(), [], "both may sit through it");
        assert_eq!(bench.pull.line[0].id, WaiterId(2));
        assert_eq!(bench.take(PullEvent::Woke), [], "not yet");
        assert_eq!(bench.take(want(3)), [], "nobody probes beside the probe");
        bench.wait(2);
        assert_eq!(bench.take(PullEvent::Woke), [PullCommand::Start]);
        assert_eq!(bench.take(PullEvent::Succeeded).len(), 3);
    }

    #[test]
    fn who_sat_through_its_tries_is_told_and_newcomers_go_on() {
        let mut bench = Bench::new();
        bench.take(want(1));
        for _ in 0..2 {
            assert_eq!(bench.fail(), []);
            bench.wait(120);
            assert_eq!(bench.take(PullEvent::Woke), [PullCommand::Start]);
        }
        bench.take(want(2));
        let told = bench.fail();
        assert!(matches!(&told[..], [PullCommand::Answer(WaiterId(1), Err(_))]), "{told:?}");
        assert_eq!(bench.pull.line.len(), 1);
    }

    #[test]
    fn an_image_that_is_not_there_fails_everybody_at_once() {
        let mut bench = Bench::new();
        bench.take(want(1));
        bench.take(want(2));
        let told = bench.take(PullEvent::Failed { reason: "no such image".into(), retryable: false });
        assert_eq!(told.len(), 2);
        // And the next one waits for the probe's time.
        assert_eq!(bench.take(want(3)), []);
        bench.wait(2);
        assert_eq!(bench.take(PullEvent::Woke), [PullCommand::Start]);
    }

    #[test]
    fn only_silence_ends_a_pull() {
        let mut bench = Bench::new();
        bench.take(want(1));
        for _ in 0..10 {
            bench.wait(1_000);
            assert_eq!(bench.take(PullEvent::Woke), []);
            bench.take(PullEvent::Progressed);
        }
        bench.wait(1_200);
        assert_eq!(bench.take(PullEvent::Woke), [PullCommand::Abandon]);
        assert_eq!(bench.take(PullEvent::Succeeded), [], "abandoned: its word comes too late");
    }

    #[test]
    fn who_waits_through_silence_after_silence_hears_how_long_each_was() {
        let mut bench = Bench::new();
        bench.take(want(1));
        let mut told = vec![];
        for _ in 0..SETTINGS.tries {
            bench.wait(1_200);
            told = bench.take(PullEvent::Woke);
            bench.wait(120);
            bench.take(PullEvent::Woke);
        }
        let failure = PullFailure::Failed { reason: "no progress for 20 min".into(), retryable: true };
        assert_eq!(told, [PullCommand::Abandon, PullCommand::Answer(WaiterId(1), Err(failure))]);
    }

    #[test]
    fn one_more_than_may_wait_is_told_at_once_and_nobody_loses_a_place() {
        let mut bench = Bench::new();
        (1..=3).for_each(|id| drop(bench.take(want(id))));
        let declined = PullCommand::Answer(WaiterId(4), Err(PullFailure::Crowded(3)));
        assert_eq!(bench.take(want(4)), [declined]);
        assert_eq!(
            bench.take(PullEvent::Wanted { id: WaiterId(9), want: Want::Ahead }),
            [],
            "no bot waits for it"
        );
        bench.take(PullEvent::GivenUp(WaiterId(2)));
        assert_eq!(bench.take(want(5)), []);
        assert_eq!(bench.take(PullEvent::Succeeded), [ok(1), ok(3), ok(9), ok(5)]);
        assert_eq!(bench.take(want(6)), [ok(6)], "it is there: nobody waits");
    }

    #[test]
    fn who_gave_up_is_not_told_and_the_pull_goes_on() {
        let mut bench = Bench::new();
        bench.take(want(1));
        assert_eq!(bench.take(PullEvent::GivenUp(WaiterId(1))), []);
        assert_eq!(bench.take(want(2)), []);
        assert_eq!(bench.take(PullEvent::Succeeded), [ok(2)]);
    }

    fn renew(id: u64) -> PullEvent {
        PullEvent::Wanted { id: WaiterId(id), want: Want::Renewal }
    }

    #[test]
    fn an_image_that_is_pulled_anew_is_used_meanwhile_and_afterwards_however_that_ends() {
        let mut bench = Bench::new();
        bench.take(want(1));
        bench.take(PullEvent::Succeeded);
        assert_eq!(bench.take(renew(2)), [PullCommand::Start]);
        assert_eq!(bench.take(want(3)), [ok(3)], "it is there");
        assert_eq!(bench.take(renew(4)), [], "one pulls");
        assert_eq!(bench.take(PullEvent::Succeeded), [ok(2), ok(4)]);

        bench.take(renew(5));
        for _ in 0..SETTINGS.tries - 1 {
            assert_eq!(bench.fail(), []);
            assert_eq!(bench.take(want(6)), [ok(6)], "between two tries too");
            bench.wait(120);
            assert_eq!(bench.take(PullEvent::Woke), [PullCommand::Start]);
        }
        let told = bench.fail();
        assert!(matches!(&told[..], [PullCommand::Answer(WaiterId(5), Err(_))]), "{told:?}");
        bench.wait(120);
        assert_eq!(bench.take(PullEvent::Woke), []);
        assert_eq!(bench.pull.state, PullState::Present, "what was there is there");
        assert_eq!(bench.take(want(7)), [ok(7)]);
    }

    #[test]
    fn an_image_that_vanishes_while_it_is_pulled_anew_is_waited_for() {
        let mut bench = Bench::new();
        bench.take(want(1));
        bench.take(PullEvent::Succeeded);
        bench.take(renew(2));
        bench.take(PullEvent::Forgotten);
        assert_eq!(bench.take(want(3)), []);
        assert_eq!(bench.take(PullEvent::Succeeded), [ok(2), ok(3)]);
    }

    #[test]
    fn what_was_not_pulled_though_it_is_there_serves_bots_and_is_no_renewal() {
        let kept = || PullEvent::Kept { reason: "too many requests".into() };
        let mut bench = Bench::new();
        bench.take(want(1));
        bench.take(renew(2));
        assert_eq!(bench.take(kept()), [ok(1)], "it is tried again for the other");
        assert_eq!(bench.take(want(3)), [ok(3)]);
        for _ in 0..SETTINGS.tries - 2 {
            bench.wait(120);
            assert_eq!(bench.take(PullEvent::Woke), [PullCommand::Start]);
            assert_eq!(bench.take(kept()), []);
        }
        bench.wait(120);
        bench.take(PullEvent::Woke);
        let failure = PullFailure::Failed { reason: "too many requests".into(), retryable: true };
        assert_eq!(bench.take(kept()), [PullCommand::Answer(WaiterId(2), Err(failure))]);
        bench.wait(120);
        bench.take(PullEvent::Woke);
        assert_eq!(bench.pull.state, PullState::Present);

        let mut bench = Bench::new();
        bench.take(want(1));
        assert_eq!(bench.take(kept()), [ok(1)]);
        assert_eq!(bench.pull.state, PullState::Present, "nobody asked for more");
    }
}
