//! How many requests are let in: a token bucket. A second's worth may come at once, so that whoever asks in bursts gets
//! the rate too. Pure: time is an argument.

use std::time::{Duration, Instant};

/// See the module. One token lets one request in.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: u32,
    /// When the bucket is full again if nothing is taken: each token taken moves it on by a token's time.
    full_at: Instant,
}

impl TokenBucket {
    /// A full one; a rate of 0 counts as 1.
    pub fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second: per_second.max(1), full_at: now }
    }

    /// Takes a token; where there is none, says how long until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let (holds, token) = (Duration::from_secs(1), Duration::from_secs(1) / self.per_second);
        let full_at = self.full_at.max(now) + token;
        match (full_at - now).checked_sub(holds) {
            Some(missing) if !missing.is_zero() => Err(missing),
            _ => {
                self.full_at = full_at;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_seconds_worth_comes_at_once_and_then_one_at_a_time() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(4, start);
        assert_eq!(
            (0..6).map(|_| bucket.take(start).is_ok()).collect::<Vec<_>>(),
            [true, true, true, true, false, false]
        );
        let quarter = Duration::from_millis(250);
        assert_eq!(bucket.take(start), Err(quarter));
        assert_eq!(bucket.take(start + quarter / 2), Err(quarter / 2), "it says when to come back");
        assert_eq!(bucket.take(start + quarter), Ok(()));
        assert_eq!(bucket.take(start + quarter), Err(quarter), "one token came, and is taken");
        let later = start + Duration::from_secs(60);
        assert_eq!((0..6).filter(|_| bucket.take(later).is_ok()).count(), 4, "no more than a second's worth");
    }

    proptest! {
        /// Whenever it is asked: as many tokens as a bucket gives that is filled in small steps.
        #[test]
        fn it_gives_as_many_as_the_rate_allows(
            per_second in prop::sample::select(vec![1_u32, 2, 4, 5, 10, 50, 100]),
            waits_ms in prop::collection::vec(0_u64..400, 1..200),
        ) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(per_second, start);
            // In thousandths of a token, one for each millisecond and each token a second.
            let full = u64::from(per_second) * 1_000;
            let (mut level, mut now) = (full, start);
            for wait in waits_ms {
                now += Duration::from_millis(wait);
                level = full.min(level + wait * u64::from(per_second));
                let wanted = if level >= 1_000 {
                    level -= 1_000;
                    Ok(())
                } else {
                    Err(Duration::from_nanos((1_000 - level) * 1_000_000 / u64::from(per_second)))
                };
                prop_assert_eq!(bucket.take(now), wanted);
            }
        }
    }
}
