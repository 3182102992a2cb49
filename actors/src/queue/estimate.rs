//! How long a bot may have to wait: its position over the rate at which its line moved on lately. Pure.
//!
//! Both the moves and the time in which somebody waited are counted in a window that decays, so that the night's rate
//! does not speak for the morning's. Time in which nobody waited says nothing and is not counted.

use chrono::{DateTime, Utc};
use std::time::Duration;

/// The wait to announce for each place in the line where nothing was observed yet.
pub const PER_PLACE_UNKNOWN: Duration = Duration::from_secs(30);
/// After this long an observation counts e times less.
const WINDOW: Duration = Duration::from_secs(600);
/// The longest wait that is announced: beyond a day it means "not soon".
const WAIT_MAX: Duration = Duration::from_secs(86_400);

/// How a line moved on lately.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// Bots that a slot took, decayed.
    moves: f64,
    /// Time in which somebody waited, decayed, in seconds.
    waited_s: f64,
    /// What is counted up to here; `None`: nobody waits.
    counted_to: Option<DateTime<Utc>>,
}

impl Pace {
    /// Somebody waits from now on, if nobody did.
    pub fn begin(&mut self, now: DateTime<Utc>) {
        self.counted_to = self.counted_to.or(Some(now));
    }

    /// Nobody waits any more.
    pub fn end(&mut self, now: DateTime<Utc>) {
        *self = self.counted(now);
        self.counted_to = None;
    }

    /// A slot took the first bot.
    pub fn move_on(&mut self, now: DateTime<Utc>) {
        if self.moves == 0.0 {
            // What was believed so far counts as one observation: a single quick move says little.
            self.moves = 1.0;
            self.waited_s = PER_PLACE_UNKNOWN.as_secs_f64();
        }
        *self = self.counted(now);
        self.moves += 1.0;
    }

    /// The wait for each place in the line.
    pub fn per_place(&self, now: DateTime<Utc>) -> Duration {
        if self.moves == 0.0 {
            return PER_PLACE_UNKNOWN;
        }
        let counted = self.counted(now);
        seconds(counted.waited_s / counted.moves)
    }

    /// The wait of the bot at this position, counted from 1.
    pub fn wait(&self, position: usize, now: DateTime<Utc>) -> Duration {
        // Positions are far below where an f64 loses whole numbers.
        seconds(self.per_place(now).as_secs_f64() * position as f64)
    }

    /// With the time up to now counted in.
    fn counted(&self, now: DateTime<Utc>) -> Self {
        let Some(since) = self.counted_to else { return *self };
        // A clock that was set back counts nothing.
        let passed_s = (now - since).to_std().unwrap_or_default().as_secs_f64();
        let kept = (-passed_s / WINDOW.as_secs_f64()).exp();
        // The passed time itself decays while it passes.
        let passed_s = WINDOW.as_secs_f64() * (1.0 - kept);
        let moves = self.moves * kept;
        Self { moves, waited_s: self.waited_s * kept + passed_s, counted_to: Some(now.max(since)) }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(WAIT_MAX).min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use chrono::TimeDelta;

    fn at(seconds: i64) -> DateTime<Utc> {
        sample::now() + TimeDelta::seconds(seconds)
    }

    /// A line that moves on `count` times, each `every` seconds after the last.
    fn moving(pace: &mut Pace, from: i64, count: i64, every: i64) -> i64 {
        pace.begin(at(from));
        (1..=count).for_each(|number| pace.move_on(at(from + number * every)));
        from + count * every
    }

    fn near(wait: Duration, expected_s: f64) {
        let wait_s = wait.as_secs_f64();
        assert!((wait_s - expected_s).abs() <= expected_s * 0.05, "{wait_s} s, not {expected_s} s");
    }

    #[test]
    fn half_a_minute_a_place_where_nothing_was_observed() {
        let mut pace = Pace::default();
        pace.begin(at(0));
        assert_eq!(pace.wait(1, at(0)), Duration::from_secs(30));
        assert_eq!(pace.wait(4, at(3_000)), Duration::from_secs(120));
    }

    #[test]
    fn a_steady_line_is_known_whatever_its_rate() {
        for every in [1, 7, 30, 120] {
            let mut pace = Pace::default();
            let end = moving(&mut pace, 0, 5_000 / every, every);
            near(pace.wait(10, at(end + every / 2)), 10.0 * every as f64);
        }
    }

    #[test]
    fn one_quick_move_says_little() {
        let mut pace = Pace::default();
        let end = moving(&mut pace, 0, 1, 1);
        near(pace.per_place(at(end)), 15.5);
    }

    #[test]
    fn time_in_which_nobody_waits_does_not_count() {
        let mut pace = Pace::default();
        let end = moving(&mut pace, 0, 500, 10);
        let before = pace.per_place(at(end));
        pace.end(at(end));
        assert_eq!(pace.per_place(at(end + 40_000)), before);
        pace.begin(at(end + 40_000));
        assert_eq!(pace.per_place(at(end + 40_000)), before);
    }

    #[test]
    fn the_new_rate_replaces_the_old_one() {
        let mut pace = Pace::default();
        let end = moving(&mut pace, 0, 500, 1);
        let end = moving(&mut pace, end, 120, 60);
        near(pace.per_place(at(end + 30)), 60.0);
    }

    #[test]
    fn a_line_that_stands_still_waits_longer_and_longer() {
        let mut pace = Pace::default();
        let end = moving(&mut pace, 0, 500, 1);
        assert!(pace.per_place(at(end + 600)) > pace.per_place(at(end)) * 2);
        assert_eq!(pace.wait(usize::MAX, at(end + 10_000_000)), WAIT_MAX);
    }

    #[test]
    fn a_clock_set_back_does_no_harm() {
        let mut pace = Pace::default();
        let end = moving(&mut pace, 0, 500, 1);
        let before = pace.per_place(at(end));
        assert_eq!(pace.per_place(at(end - 300)), before);
        pace.move_on(at(end - 300));
        assert!(pace.per_place(at(end)) <= before);
    }
}
