//! How long to wait after failures in a row: doubling up to a limit, less a share that differs from one to another, so
//! that those who failed together do not come back together. Pure: what spreads them is an argument.

use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

/// The waits between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure; doubles with each further one.
    pub first: Duration,
    /// The longest.
    pub last: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row, less up to a quarter by `spread`, which is any number.
    pub fn wait(&self, failures: u32, spread: u64) -> TimeDelta {
        let doublings = failures.saturating_sub(1).min(16);
        let full = self.first.saturating_mul(1 << doublings).min(self.last);
        let share = u32::try_from(spread % 250).unwrap_or(0);
        TimeDelta::from_std(full - full * share / 1_000).unwrap_or(TimeDelta::MAX)
    }
}

/// Whether a wait until then is over that is never longer than `longest`. One of which more than that is left was begun
/// before the clock was set back: nobody knows what is left of it, and the try is not put off by as much.
pub fn is_over(until: DateTime<Utc>, longest: Duration, now: DateTime<Utc>) -> bool {
    now >= until || (until - now).to_std().is_ok_and(|left| left > longest)
}

/// A number that differs from name to name, and with every failure: the same in every process. FNV-1a, which is small.
pub fn spread(name: impl IntoIterator<Item = u8>, failures: u32) -> u64 {
    name.into_iter()
        .chain(failures.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use std::collections::BTreeSet;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), last: Duration::from_secs(120) };

    #[test]
    fn it_grows_up_to_its_limit() {
        let waits: Vec<_> = (1..=40).map(|failures| BACKOFF.wait(failures, 249)).collect();
        assert!(waits.windows(2).take(5).all(|pair| pair[0] < pair[1]), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= TimeDelta::seconds(120)), "{waits:?}");
    }

    #[test]
    fn a_wait_is_over_at_its_end_and_where_more_is_left_than_there_ever_was() {
        let until = sample::now();
        let is_over = |left_ms| is_over(until, BACKOFF.last, until - TimeDelta::milliseconds(left_ms));
        assert_eq!([-1, 0, 1, 120_000, 120_001].map(is_over), [true, true, false, false, true]);
    }

    #[test]
    fn it_differs_from_name_to_name() {
        let waits: BTreeSet<_> = (0..20_u8).map(|name| BACKOFF.wait(5, spread([name], 5))).collect();
        assert!(waits.len() > 10, "{waits:?}");
        assert_ne!(spread(*b"a", 1), spread(*b"a", 2));
    }
}
