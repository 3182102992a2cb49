//! How much of a platform was in use lately. Pure: time is an argument.

use chrono::{DateTime, TimeDelta, Utc};
use std::collections::VecDeque;

/// A longer silence between two samples says that nobody knows what was meanwhile: the machine slept, or the pool did
/// not answer for several rounds.
const SILENCE_MAX: TimeDelta = TimeDelta::minutes(1);
const WHOLE: u32 = 1_000_000;

/// The part of a platform's slots that is in use, in millionths: whole numbers, so that four of five are exactly 80 %
/// also on the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Utilisation(u32);

impl Utilisation {
    /// So many of so many; none where there are none.
    pub fn of(in_use: u32, total: u32) -> Self {
        let parts = (u64::from(in_use) * u64::from(WHOLE)).checked_div(u64::from(total)).unwrap_or(0);
        Self(u32::try_from(parts).unwrap_or(u32::MAX))
    }

    /// So many of a hundred.
    pub fn percent(percent: u32) -> Self {
        Self::of(percent, 100)
    }

    /// Of a hundred.
    pub fn as_percent(self) -> f64 {
        f64::from(self.0) * 100.0 / f64::from(WHOLE)
    }
}

/// A platform's utilisation over a window that ends now.
#[derive(Debug, Clone, Default)]
pub struct History(VecDeque<(DateTime<Utc>, Utilisation)>);

impl History {
    /// Notes what is now, and forgets what is not in the window any more.
    pub fn observe(&mut self, now: DateTime<Utc>, utilisation: Utilisation, window: TimeDelta) {
        // A clock that was set back is as bad as a silence.
        let gap = self.0.back().map(|(at, _)| now - *at);
        if gap.is_some_and(|gap| gap < TimeDelta::zero() || gap > SILENCE_MAX) {
            self.0.clear();
        }
        self.0.push_back((now, utilisation));
        while self.0.get(1).is_some_and(|(at, _)| *at <= now - window) {
            self.0.pop_front();
        }
    }

    /// The mean over the window that ends now, each sample weighted by the time until the next. `None` until the whole
    /// window is known.
    pub fn mean(&self, now: DateTime<Utc>, window: TimeDelta) -> Option<Utilisation> {
        let from = now - window;
        self.0.front().filter(|(at, _)| *at <= from)?;
        let ends = self.0.iter().skip(1).map(|(at, _)| *at).chain([now]);
        let weighted = self.0.iter().zip(ends).map(|((at, utilisation), end)| {
            let held = end.min(now) - (*at).max(from);
            i128::from(held.num_milliseconds().max(0)) * i128::from(utilisation.0)
        });
        let mean = weighted.sum::<i128>().checked_div(i128::from(window.num_milliseconds()))?;
        u32::try_from(mean).ok().map(Utilisation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use proptest::prelude::*;

    const WINDOW: TimeDelta = TimeDelta::minutes(5);

    fn at(seconds: i64) -> DateTime<Utc> {
        sample::now() + TimeDelta::seconds(seconds)
    }

    #[test]
    fn none_of_none_is_no_use() {
        assert_eq!(Utilisation::of(0, 0), Utilisation::percent(0));
        assert_eq!(Utilisation::of(4, 5), Utilisation::percent(80));
        assert_eq!(Utilisation::of(4, 5).as_percent(), 80.0);
    }

    #[test]
    fn a_peak_counts_as_long_as_it_lasted() {
        let mut history = History::default();
        for second in (0..=300).step_by(10) {
            let percent = if (100..130).contains(&second) { 100 } else { 0 };
            history.observe(at(second), Utilisation::percent(percent), WINDOW);
        }
        assert_eq!(history.mean(at(300), WINDOW), Some(Utilisation::percent(10)));
    }

    #[test]
    fn nothing_is_concluded_before_a_window_or_after_a_silence_or_a_step_back() {
        let mut history = History::default();
        for second in (0..300).step_by(30) {
            assert_eq!(history.mean(at(second), WINDOW), None, "after {second} s");
            history.observe(at(second), Utilisation::percent(90), WINDOW);
        }
        assert_eq!(history.mean(at(300), WINDOW), Some(Utilisation::percent(90)));
        for next in [at(400), at(200)] {
            let mut history = history.clone();
            history.observe(next, Utilisation::percent(90), WINDOW);
            assert_eq!(history.mean(next, WINDOW), None);
        }
    }

    #[test]
    fn a_minute_without_a_sample_is_no_silence_and_two_at_once_no_step_back() {
        let mut history = History::default();
        for minute in 0..=10 {
            history.observe(at(60 * minute), Utilisation::percent(90), WINDOW);
        }
        for (next, known) in [(at(660), true), (at(600), true), (at(661), false), (at(599), false)] {
            let mut history = history.clone();
            history.observe(next, Utilisation::percent(90), WINDOW);
            assert_eq!(history.mean(next, WINDOW).is_some(), known, "{next}");
        }
    }

    proptest! {
        /// The mean is that of the value at every single second.
        #[test]
        fn the_mean_is_that_of_every_second(steps in proptest::collection::vec((1_i64..=60, 0_u32..=100), 1..80)) {
            let (mut history, mut second) = (History::default(), 0);
            let mut by_second: Vec<u64> = Vec::new();
            let mut held = 0;
            for (wait, percent) in steps {
                by_second.extend((0..wait).map(|_| u64::from(held)));
                second += wait;
                held = percent;
                history.observe(at(second), Utilisation::percent(percent), WINDOW);
                // The first sample came after the first wait.
                let known = history.0.front().is_some_and(|(first, _)| *first <= at(second) - WINDOW);
                let mean = history.mean(at(second), WINDOW);
                prop_assert_eq!(mean.is_some(), known);
                if let Some(mean) = mean {
                    let sum: u64 = by_second.iter().rev().take(300).sum();
                    prop_assert_eq!(u64::from(mean.0), sum * 10_000 / 300);
                }
                prop_assert!(history.0.len() <= 302);
            }
        }
    }
}
