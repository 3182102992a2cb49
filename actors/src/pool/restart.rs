//! How soon a slot whose actor died is built again. Pure: time is an argument.
//!
//! A few deaths in a row are mended at once. Past that, something about the slot kills its actor again and again: each
//! further death waits twice as long as the one before, so that a broken slot costs little. Its row stays as it is: a
//! bot that runs is none the worse for a server that does not look, and its heartbeats are noted meanwhile.

use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

/// Deaths within [`WINDOW`] that are mended at once.
const AT_ONCE: u32 = 5;
/// A slot that lives this long beyond its last wait starts with a clean sheet.
const WINDOW: Duration = Duration::from_secs(60);
/// The first wait; it doubles with every further death.
const FIRST_WAIT: Duration = Duration::from_secs(60);
/// Doublings of the wait: 16 minutes at the most.
const DOUBLINGS: u32 = 4;

/// What is remembered of a slot's deaths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestartBudget {
    /// Deaths since the sheet was clean.
    deaths: u32,
    /// When the sheet is clean again.
    clean_at: Option<DateTime<Utc>>,
}

impl RestartBudget {
    /// Notes a death, and says how long to wait before the slot is built again.
    pub fn died(&mut self, now: DateTime<Utc>) -> Duration {
        if self.clean_at.is_none_or(|at| now >= at) {
            self.deaths = 0;
        }
        self.deaths += 1;
        let wait = match self.deaths.checked_sub(AT_ONCE + 1) {
            None => Duration::ZERO,
            Some(beyond) => FIRST_WAIT * 2_u32.pow(beyond.min(DOUBLINGS)),
        };
        self.clean_at =
            TimeDelta::from_std(wait + WINDOW).ok().and_then(|after| now.checked_add_signed(after));
        wait
    }

    /// Deaths since the sheet was clean.
    pub fn deaths(&self) -> u32 {
        self.deaths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use proptest::prelude::*;

    #[test]
    fn a_few_deaths_are_mended_at_once_and_then_the_wait_doubles() {
        let mut budget = RestartBudget::default();
        let mut now = sample::now();
        let waits: Vec<u64> = (0..12)
            .map(|_| {
                now += TimeDelta::seconds(1);
                let wait = budget.died(now);
                now += TimeDelta::from_std(wait).expect("short");
                wait.as_secs() / 60
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 16, 16]);
    }

    #[test]
    fn a_life_of_a_minute_cleans_the_sheet() {
        let mut budget = RestartBudget::default();
        for second in 0..6 {
            budget.died(sample::now() + TimeDelta::seconds(second));
        }
        assert_eq!(budget.deaths(), 6);
        let waited = sample::now() + TimeDelta::seconds(5 + 60 + 60);
        assert_eq!((budget.died(waited), budget.deaths()), (Duration::ZERO, 1));
    }

    proptest! {
        /// Beside a plain list of deaths: those since the last long life count, and each beyond the fifth waits.
        #[test]
        fn the_sheet_is_what_a_list_of_deaths_says(lives in proptest::collection::vec(0_i64..200, 0..40)) {
            let (mut budget, mut now, mut deaths) = (RestartBudget::default(), sample::now(), Vec::new());
            for life_s in lives {
                now += TimeDelta::seconds(life_s);
                if life_s >= 60 {
                    deaths.clear();
                }
                deaths.push(now);
                let wait = budget.died(now);
                let minutes = match deaths.len() {
                    ..=5 => 0,
                    many => 1 << (many - 6).min(4),
                };
                prop_assert_eq!((wait.as_secs(), budget.deaths() as usize), (minutes * 60, deaths.len()));
                // It is built again when it has waited.
                now += TimeDelta::from_std(wait).expect("short");
            }
        }
    }
}
