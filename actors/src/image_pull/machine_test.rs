//! One image on one host against what must hold of it, however pulls fail and whoever waits or gives up.

use super::PullKey;
use super::machine::{Pull, PullCommand, PullEvent, PullSettings, PullState, WaiterId, Want};
use crate::ids::HostName;
use crate::testing::sample;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

/// What a plain observer remembers.
#[derive(Default)]
struct Observer {
    /// Who waits, in line, what for, and how many failed tries each has seen.
    line: Vec<(u64, Want, u32)>,
    /// The engine pulls, and last got on then.
    pulling_since: Option<DateTime<Utc>>,
    /// Failures in a row, and when the last one was.
    failures: u32,
    failed_at: Option<DateTime<Utc>>,
    /// It is on the host, also while it is pulled anew.
    present: bool,
    /// Somebody has had that done, and it has neither succeeded nor been given up.
    renewing: bool,
}

/// Bots that may wait for an image here.
const BOTS_MAX: u32 = 4;

/// The longest back-off of all.
const LONGEST: TimeDelta = TimeDelta::minutes(2);

/// The longest wait after so many failures in a row, in milliseconds; at least three quarters of it are kept.
fn backoff_ms(failures: u32) -> i64 {
    (2_000 * 2_i64.pow(failures.clamp(1, 12) - 1)).min(120_000)
}

impl Observer {
    /// The outcome of a try ends it: all are served, or each has seen one more failure.
    fn ended(&mut self, failure: Option<bool>, now: DateTime<Utc>) -> Vec<(u64, bool)> {
        self.pulling_since = None;
        let Some(retryable) = failure else {
            (self.present, self.renewing, self.failures, self.failed_at) = (true, false, 0, None);
            return self.line.drain(..).map(|(id, ..)| (id, true)).collect();
        };
        (self.failures, self.failed_at) = (self.failures + 1, Some(now));
        self.line.iter_mut().for_each(|(.., seen)| *seen += 1);
        if !self.line.is_empty() {
            let first = self.line.remove(0);
            self.line.push(first);
        }
        let told = |seen: u32| !retryable || seen >= 3;
        let answers =
            self.line.iter().filter(|(.., seen)| told(*seen)).map(|(id, ..)| (*id, false)).collect();
        self.line.retain(|(.., seen)| !told(*seen));
        answers
    }

    /// A probe comes no sooner than its back-off, unless the clock was set back so far that more than the longest seems to
    /// be left of it.
    fn may_probe(&self, now: DateTime<Utc>) -> bool {
        let Some(failed_at) = self.failed_at else { return true };
        let (longest, waited) = (backoff_ms(self.failures), (now - failed_at).num_milliseconds());
        waited * 4 >= longest * 3 || longest - waited > LONGEST.num_milliseconds()
    }

    fn bots(&self) -> usize {
        self.line.iter().filter(|(_, want, _)| *want == Want::Bot).count()
    }

    fn takes(&mut self, event: &PullEvent, now: DateTime<Utc>) -> Vec<(u64, bool)> {
        match event {
            PullEvent::Wanted { id, want: Want::Renewal } => {
                self.renewing |= self.present;
                self.line.push((id.0, Want::Renewal, 0));
                vec![]
            }
            PullEvent::Wanted { id, .. } if self.present => vec![(id.0, true)],
            PullEvent::Wanted { id, want: Want::Bot } if self.bots() >= BOTS_MAX as usize => {
                vec![(id.0, false)]
            }
            PullEvent::Wanted { id, want } => {
                self.line.push((id.0, *want, 0));
                vec![]
            }
            PullEvent::GivenUp(id) => {
                self.line.retain(|(waiting, ..)| *waiting != id.0);
                vec![]
            }
            PullEvent::Progressed => {
                self.pulling_since = self.pulling_since.map(|_| now);
                vec![]
            }
            PullEvent::Kept { .. } if self.pulling_since.is_some() => {
                let renewals: Vec<_> =
                    self.line.extract_if(.., |(_, want, _)| *want == Want::Renewal).collect();
                let failures = self.failures;
                let mut answers = self.ended(None, now);
                if !renewals.is_empty() {
                    (self.line, self.renewing, self.failures) = (renewals, true, failures);
                    answers.extend(self.ended(Some(true), now));
                }
                answers
            }
            PullEvent::Succeeded if self.pulling_since.is_some() => self.ended(None, now),
            PullEvent::Failed { retryable, .. } if self.pulling_since.is_some() => {
                self.ended(Some(*retryable), now)
            }
            PullEvent::Woke if self.pulling_since.is_some_and(|at| now - at >= TimeDelta::minutes(20)) => {
                self.ended(Some(true), now)
            }
            // Where the clock was set back the silence counts from now.
            PullEvent::Woke => {
                self.pulling_since = self.pulling_since.map(|at| at.min(now));
                vec![]
            }
            PullEvent::Forgotten => {
                (self.present, self.renewing) = (false, false);
                vec![]
            }
            PullEvent::Succeeded | PullEvent::Kept { .. } | PullEvent::Failed { .. } => vec![],
        }
    }
}

fn events() -> impl Strategy<Value = Vec<(PullEvent, i64)>> {
    let event = prop_oneof![
        4 => prop_oneof![6 => Just(Want::Bot), 1 => Just(Want::Ahead), 1 => Just(Want::Renewal)]
            .prop_map(|want| PullEvent::Wanted { id: WaiterId(0), want }),
        1 => (0..8_u64).prop_map(|id| PullEvent::GivenUp(WaiterId(id))),
        1 => Just(PullEvent::Progressed),
        1 => Just(PullEvent::Succeeded),
        2 => Just(PullEvent::Kept { reason: "e".into() }),
        4 => prop::bool::weighted(0.8)
            .prop_map(|retryable| PullEvent::Failed { reason: "e".into(), retryable }),
        5 => Just(PullEvent::Woke),
        1 => Just(PullEvent::Forgotten),
    ];
    // The clock is set back now and then.
    let wait_ms = prop::sample::select(vec![
        0, 1, 900, 1_600, 2_000, 15_000, 61_000, 120_000, 1_200_000, -1_000, -7_200_000,
    ]);
    prop::collection::vec((event, wait_ms), 1..200)
}

proptest! {
    #[test]
    fn one_pulls_and_everybody_is_answered_once(events in events()) {
        let settings = PullSettings { waiters_max: BOTS_MAX, ..PullSettings::default() };
        let key = PullKey { host: HostName("a".into()), image: "image:1".into() };
        let (mut pull, mut observer, mut now) = (Pull::default(), Observer::default(), sample::now());
        for (number, (event, wait_ms)) in (0_u64..).zip(events) {
            // Whoever comes is somebody new; whoever gives up is one of the last.
            let event = match event {
                PullEvent::Wanted { want, .. } => PullEvent::Wanted { id: WaiterId(number), want },
                PullEvent::GivenUp(back) => PullEvent::GivenUp(WaiterId(number.saturating_sub(back.0))),
                event => event,
            };
            now += TimeDelta::milliseconds(wait_ms);
            let was_silent = observer.pulling_since.is_some_and(|at| now - at >= TimeDelta::minutes(20));
            let was_pulling = observer.pulling_since.is_some();
            let woke = event == PullEvent::Woke;
            let mut expected = observer.takes(&event, now);
            let commands = pull.take(&key, event, &settings, now);
            let mut answers = Vec::new();
            for command in commands {
                match command {
                    PullCommand::Start => {
                        prop_assert!(!was_pulling && !observer.line.is_empty());
                        prop_assert!(!observer.present || observer.renewing);
                        prop_assert!(observer.may_probe(now), "too soon");
                        observer.pulling_since = Some(now);
                    }
                    PullCommand::Abandon => prop_assert!(woke && was_silent),
                    PullCommand::Answer(id, outcome) => answers.push((id.0, outcome.is_ok())),
                }
            }
            if woke && matches!(pull.state, PullState::Unknown | PullState::Present) {
                // It was over while nobody waited: whoever comes next does not wait for it, whatever the clock says then.
                prop_assert!(observer.may_probe(now) && observer.line.is_empty());
                (observer.failed_at, observer.renewing) = (None, false);
            }
            answers.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(answers, expected);
            let line: Vec<_> = pull.line.iter().map(|waiter| (waiter.id.0, waiter.want, waiter.failures)).collect();
            prop_assert_eq!(&line, &observer.line);
            prop_assert_eq!(matches!(pull.state, PullState::Pulling { .. }), observer.pulling_since.is_some());
            prop_assert_eq!(pull.state == PullState::Present, observer.present && !observer.renewing);
            prop_assert_eq!(pull.usable, observer.renewing);
            // Whoever can do with what is there does not wait.
            prop_assert!(!observer.present || observer.line.iter().all(|(_, want, _)| *want == Want::Renewal));
            // Nobody waits for nothing, and nobody waits longer than the back-off.
            let wake_at = pull.wake_at(&settings);
            prop_assert!(observer.line.is_empty() || wake_at.is_some());
            if let (PullState::BackingOff { until }, Some(failed_at)) = (pull.state, observer.failed_at) {
                prop_assert!((until - failed_at).num_milliseconds() <= backoff_ms(observer.failures));
                prop_assert_eq!(wake_at, Some(until));
                let is_left = (until - now).num_milliseconds();
                prop_assert!(!woke || observer.line.is_empty() || (1..=LONGEST.num_milliseconds()).contains(&is_left), "{}", is_left);
            }
            if let Some(since) = observer.pulling_since {
                prop_assert_eq!(wake_at, Some(since + TimeDelta::minutes(20)));
            }
        }
    }
}
