//! Whether the clock is trusted, where what is decided by it cannot be taken back. Pure: what the clock says is an
//! argument, and so is how long it has been by one that nobody sets.
//!
//! By a clock that is set ahead everything is old and every start has passed, and what is removed or given up then is
//! gone for good. So a clock that went much further between two looks than time did is not trusted for a while, in which
//! somebody may put it right. Of the time before the first look nothing is known, and the clock is trusted.

use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

/// A look at both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// What the clock says.
    pub(crate) now: DateTime<Utc>,
    /// How long it has been since any moment, the same for all looks, by a clock that nobody sets.
    pub(crate) passed: Duration,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    leap: TimeDelta,
    doubt: Duration,
    last: Option<Look>,
    doubted_until: Option<Duration>,
}

impl Trust {
    /// A clock that goes ahead by more than `leap` at a time is not trusted for as long as `doubt`.
    pub(crate) fn new(leap: TimeDelta, doubt: Duration) -> Self {
        Self { leap, doubt, last: None, doubted_until: None }
    }

    /// Takes a look; answers by how much the clock was set since the one before, where that is more than a leap:
    /// negative where it was set back.
    pub(crate) fn look(&mut self, look: Look) -> Option<TimeDelta> {
        let before = self.last.replace(look)?;
        let passed = look.passed.saturating_sub(before.passed);
        let set = look.now - before.now - TimeDelta::from_std(passed).unwrap_or(TimeDelta::MAX);
        if set > self.leap {
            self.doubt_from(look);
        }
        (set.abs() > self.leap).then_some(set)
    }

    /// Does not trust the clock from this look on: it leapt before, and somebody else saw it.
    pub(crate) fn doubt_from(&mut self, look: Look) {
        self.last = Some(look);
        self.doubted_until = Some(look.passed + self.doubt);
    }

    /// Whether the clock was trusted at the last look.
    pub(crate) fn holds(&self) -> bool {
        let passed = self.last.map(|look| look.passed);
        self.doubted_until.is_none_or(|until| passed.is_some_and(|passed| passed >= until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn trust() -> Trust {
        Trust::new(TimeDelta::hours(1), DAY)
    }

    /// A look after so many seconds, at a clock that is so many seconds ahead.
    fn look(passed_s: u64, ahead_s: i64) -> Look {
        let passed = Duration::from_secs(passed_s);
        Look { now: sample::now() + passed + TimeDelta::seconds(ahead_s), passed }
    }

    #[test]
    fn a_clock_is_trusted_from_the_start_wherever_it_stands() {
        let mut trust = trust();
        assert!(trust.holds());
        assert_eq!(trust.look(look(0, 7_776_000)), None);
        assert!(trust.holds());
    }

    #[test]
    fn a_leap_of_more_than_an_hour_is_doubted_for_a_day_of_time_that_passes() {
        let mut trust = trust();
        assert_eq!(trust.look(look(0, 0)), None);
        assert_eq!(trust.look(look(30, 3_600)), None, "an hour");
        assert!(trust.holds());
        assert_eq!(trust.look(look(60, 7_201)), Some(TimeDelta::seconds(3_601)));
        // It is put right.
        assert_eq!(trust.look(look(90, 0)), Some(TimeDelta::seconds(-7_201)));
        assert!(!trust.holds());
        assert_eq!(trust.look(look(86_459, 0)), None);
        assert!(!trust.holds(), "a second is missing");
        assert_eq!(trust.look(look(86_460, 0)), None);
        assert!(trust.holds());
    }

    #[test]
    fn a_leap_that_somebody_else_saw_is_doubted_for_a_day_too() {
        let mut trust = trust();
        trust.doubt_from(look(0, 7_776_000));
        assert!(!trust.holds());
        assert_eq!(trust.look(look(86_399, 7_776_000)), None);
        assert!(!trust.holds(), "a second is missing");
        assert_eq!(trust.look(look(86_400, 7_776_000)), None);
        assert!(trust.holds());
    }

    #[test]
    fn a_long_time_between_two_looks_is_no_leap() {
        let mut trust = trust();
        assert_eq!(trust.look(look(0, 0)), None);
        assert_eq!(trust.look(look(100_000, 0)), None);
        assert!(trust.holds());
    }

    proptest! {
        /// Beside a plain list of leaps: trusted is a clock that did not leap within the last day.
        #[test]
        fn it_is_trusted_that_did_not_leap_for_a_day(
            looks in proptest::collection::vec((0_u64..30_000, prop_oneof![4 => Just(0), 1 => -9_000_i64..9_000]), 1..60)
        ) {
            let (mut trust, mut passed_s, mut ahead_s, mut leapt_s) = (trust(), 0, 0, None);
            for (number, (wait_s, set_s)) in looks.into_iter().enumerate() {
                (passed_s, ahead_s) = (passed_s + wait_s, ahead_s + set_s);
                let is_set = number > 0 && set_s.abs() > 3_600;
                prop_assert_eq!(trust.look(look(passed_s, ahead_s)), is_set.then(|| TimeDelta::seconds(set_s)));
                leapt_s = if is_set && set_s > 0 { Some(passed_s) } else { leapt_s };
                prop_assert_eq!(trust.holds(), leapt_s.is_none_or(|at| passed_s - at >= 86_400));
            }
        }
    }
}
