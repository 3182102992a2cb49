//! Whether a host's engine is there. A breaker opens after failures in a row that the engine did not answer; while it is
//! open the host gets no bots, no slots and no recoveries, and nothing that is on it changes. One probe at a time asks
//! whether the engine is back. Decides, never acts: no I/O, no clock, no randomness; jitter is an argument.
//!
//! An engine that refuses is there: what it says of one image or one container is no evidence against the host.

use crate::backoff::{Backoff, is_over};
use chrono::{DateTime, Utc};
use std::time::Duration;

/// What breakers go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Calls in a row without an answer that open it.
    pub failures: u32,
    /// From its opening to the probe, and from one probe to the next.
    pub probe: Backoff,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        let probe = Backoff { first: Duration::from_secs(5), last: Duration::from_secs(120) };
        Self { failures: 3, probe }
    }
}

/// The breaker of one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Breaker {
    state: BreakerState,
    /// Calls in a row without an answer.
    failures: u32,
    /// Probes in a row that failed, and one for the opening.
    tries: u32,
    /// When the engine last answered: a call that began before that proves nothing against it.
    answered_at: Option<DateTime<Utc>>,
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BreakerState {
    /// The engine answers, as far as is known.
    #[default]
    Closed,
    /// It does not.
    Open {
        /// Since when.
        since: DateTime<Utc>,
        /// When it is asked again.
        probe_at: DateTime<Utc>,
    },
    /// It is being asked.
    HalfOpen {
        /// Since when the breaker is not closed.
        since: DateTime<Utc>,
        /// When the probe began.
        asked_at: DateTime<Utc>,
    },
}

/// What may happen to a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerEvent {
    /// The engine answered a call, whatever it said.
    Answered,
    /// It did not answer a call that began then.
    Unanswered {
        /// When.
        began_at: DateTime<Utc>,
    },
    /// The time of the probe may have come.
    Woke,
}

/// What a breaker wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerAction {
    /// It opened: keep everything from the host, and wake it then.
    Open(DateTime<Utc>),
    /// It stays open: wake it then.
    WaitUntil(DateTime<Utc>),
    /// Ask the engine something that changes nothing.
    Probe,
    /// It closed: the host is as any other again.
    Close,
}

impl Breaker {
    /// Takes an event, and says what is to be done. `jitter` is any number; it spreads the probes of several hosts.
    pub fn take(
        &mut self,
        event: BreakerEvent,
        settings: &BreakerSettings,
        jitter: u64,
        now: DateTime<Utc>,
    ) -> Option<BreakerAction> {
        match (event, self.state) {
            (BreakerEvent::Answered, state) => {
                *self = Self { answered_at: Some(now), ..Self::default() };
                (state != BreakerState::Closed).then_some(BreakerAction::Close)
            }
            (BreakerEvent::Unanswered { began_at }, _)
                // An answer from the future is one from before the clock was set back: it says nothing any more.
                if self.answered_at.is_some_and(|at| began_at < at && at <= now) =>
            {
                None
            }
            (BreakerEvent::Unanswered { .. }, BreakerState::Closed) => {
                self.failures += 1;
                (self.failures >= settings.failures)
                    .then(|| BreakerAction::Open(self.open(now, settings, jitter, now)))
            }
            // What began before the probe fails late, and is no answer to it.
            (BreakerEvent::Unanswered { began_at }, BreakerState::HalfOpen { since, asked_at })
                if began_at >= asked_at =>
            {
                Some(BreakerAction::WaitUntil(self.open(since, settings, jitter, now)))
            }
            (BreakerEvent::Woke, BreakerState::Open { since, probe_at })
                if is_over(probe_at, settings.probe.last, now) =>
            {
                self.state = BreakerState::HalfOpen { since, asked_at: now };
                Some(BreakerAction::Probe)
            }
            // Too early: the clock was set back a little meanwhile, or the sleep was one of several.
            (BreakerEvent::Woke, BreakerState::Open { probe_at, .. }) => Some(BreakerAction::WaitUntil(probe_at)),
            (BreakerEvent::Unanswered { .. } | BreakerEvent::Woke, _) => None,
        }
    }

    fn open(
        &mut self,
        since: DateTime<Utc>,
        settings: &BreakerSettings,
        jitter: u64,
        now: DateTime<Utc>,
    ) -> DateTime<Utc> {
        self.tries += 1;
        let probe_at = now + settings.probe.wait(self.tries, jitter);
        self.state = BreakerState::Open { since, probe_at };
        probe_at
    }

    /// How it stands.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// How often the engine was asked in vain since it opened, and once for the opening: differs from try to try.
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

impl BreakerEvent {
    /// Its name, for counts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Answered => "Answered",
            Self::Unanswered { .. } => "Unanswered",
            Self::Woke => "Woke",
        }
    }
}

impl BreakerState {
    /// Its name, for counts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half-open",
        }
    }

    /// Since when the host's engine is away; `None`: it is there.
    pub fn away_since(self) -> Option<DateTime<Utc>> {
        match self {
            Self::Closed => None,
            Self::Open { since, .. } | Self::HalfOpen { since, .. } => Some(since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        failures: 3,
        probe: Backoff { first: Duration::from_secs(4), last: Duration::from_secs(60) },
    };

    fn at(seconds: i64) -> DateTime<Utc> {
        sample::now() + TimeDelta::seconds(seconds)
    }

    fn take(breaker: &mut Breaker, event: BreakerEvent, seconds: i64) -> Option<BreakerAction> {
        breaker.take(event, &SETTINGS, 0, at(seconds))
    }

    fn unanswered(began_s: i64) -> BreakerEvent {
        BreakerEvent::Unanswered { began_at: at(began_s) }
    }

    fn opened(breaker: &mut Breaker) {
        let actions = [0, 1, 2].map(|_| take(breaker, unanswered(0), 0));
        assert_eq!(actions, [None, None, Some(BreakerAction::Open(at(4)))]);
    }

    #[test]
    fn it_opens_at_the_third_silence_in_a_row() {
        let mut breaker = Breaker::default();
        for event in [unanswered(0), unanswered(0), BreakerEvent::Answered, unanswered(0), unanswered(1)] {
            assert_eq!(take(&mut breaker, event, 1), None);
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "the engine answered in between");
        assert_eq!(take(&mut breaker, unanswered(2), 2), None);
        assert_eq!(take(&mut breaker, unanswered(2), 2), Some(BreakerAction::Open(at(6))));
    }

    #[test]
    fn one_probe_asks_and_its_answer_closes() {
        let mut breaker = Breaker::default();
        opened(&mut breaker);
        assert_eq!(breaker.tries(), 1);
        let not_yet = Some(BreakerAction::WaitUntil(at(4)));
        assert_eq!(take(&mut breaker, BreakerEvent::Woke, 3), not_yet, "it is woken again");
        assert_eq!(take(&mut breaker, BreakerEvent::Woke, 4), Some(BreakerAction::Probe));
        assert_eq!(take(&mut breaker, BreakerEvent::Woke, 5), None, "one at a time");
        assert_eq!(take(&mut breaker, unanswered(3), 6), None, "it began before the probe");
        assert_eq!(take(&mut breaker, unanswered(4), 6), Some(BreakerAction::WaitUntil(at(14))), "8 s now");
        assert_eq!(breaker.tries(), 2);
        assert_eq!(take(&mut breaker, BreakerEvent::Woke, 14), Some(BreakerAction::Probe));
        assert_eq!(breaker.state().away_since(), Some(at(0)));
        assert_eq!(take(&mut breaker, BreakerEvent::Answered, 15), Some(BreakerAction::Close));
        assert_eq!((breaker.state().away_since(), breaker.tries()), (None, 0));
    }

    #[test]
    fn any_answer_closes_it_and_what_began_before_is_no_evidence() {
        let mut breaker = Breaker::default();
        opened(&mut breaker);
        assert_eq!(take(&mut breaker, BreakerEvent::Answered, 1), Some(BreakerAction::Close));
        for _ in 0..5 {
            assert_eq!(take(&mut breaker, unanswered(0), 2), None);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn an_answer_from_before_the_clock_was_set_back_silences_nothing() {
        let mut breaker = Breaker::default();
        assert_eq!(take(&mut breaker, BreakerEvent::Answered, 3_600), None);
        opened(&mut breaker);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_put_the_probe_off() {
        let mut breaker = Breaker::default();
        opened(&mut breaker);
        let soon = Some(BreakerAction::WaitUntil(at(4)));
        assert_eq!(take(&mut breaker, BreakerEvent::Woke, 4 - 60), soon, "no wait is longer than a minute");
        assert_eq!(take(&mut breaker, BreakerEvent::Woke, 4 - 61), Some(BreakerAction::Probe));
    }

    const LONGEST: TimeDelta = TimeDelta::seconds(60);

    /// Seconds; the clock is set back now and then, by less and by more than anybody waits.
    fn wait() -> impl Strategy<Value = i64> {
        prop_oneof![18 => 0_i64..20, 1 => -20_i64..0, 1 => Just(-3_600)]
    }

    proptest! {
        /// Beside a plain count: open from the third fresh silence until the next answer, a probe never beside
        /// another, and never without the next one's time.
        #[test]
        fn it_is_open_while_the_engine_is_silent(
            steps in proptest::collection::vec((0_u8..4, wait(), 0_i64..30), 0..80)
        ) {
            let (mut breaker, mut now_s, mut silences, mut answered_s) = (Breaker::default(), 0, 0, i64::MIN);
            let (mut probing, mut wake_at) = (false, None);
            for (kind, wait_s, ago_s) in steps {
                now_s += wait_s;
                let event = match kind {
                    0 => BreakerEvent::Answered,
                    1 => BreakerEvent::Woke,
                    _ => unanswered(now_s - ago_s),
                };
                match event {
                    BreakerEvent::Answered => (silences, answered_s) = (0, now_s),
                    BreakerEvent::Unanswered { .. } => {
                        silences += i32::from(now_s - ago_s >= answered_s || answered_s > now_s);
                    }
                    BreakerEvent::Woke => {}
                }
                match take(&mut breaker, event, now_s) {
                    Some(BreakerAction::Open(at) | BreakerAction::WaitUntil(at)) => {
                        let wait = at - (sample::now() + TimeDelta::seconds(now_s));
                        prop_assert!(wait > TimeDelta::zero() && wait <= LONGEST, "{wait}");
                        (probing, wake_at) = (false, Some(at));
                    }
                    Some(BreakerAction::Probe) => {
                        let is_over = |at: DateTime<Utc>| at <= self::at(now_s) || at - self::at(now_s) > LONGEST;
                        prop_assert!(!probing && wake_at.is_some_and(is_over));
                        (probing, wake_at) = (true, None);
                    }
                    Some(BreakerAction::Close) => (probing, wake_at) = (false, None),
                    None => {}
                }
                let is_open = breaker.state().away_since().is_some();
                prop_assert_eq!(is_open, silences >= 3);
                prop_assert_eq!(is_open, probing || wake_at.is_some());
            }
        }
    }
}
