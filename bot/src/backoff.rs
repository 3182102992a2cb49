//! Jittered back-off for everything that is tried again.

use std::time::Duration;

/// Grows by doubling up to a longest wait; each wait is a random part of it, at least half.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// A back-off that begins at `first` and never exceeds `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// For requests to the server: 0.25 s up to 15 s.
    pub(crate) fn for_requests() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(15))
    }

    /// The wait before the next try.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = jittered(self.next, fastrand::f64());
        self.next = (self.next * 2).min(self.longest);
        delay
    }

    /// Begin again: something succeeded.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Between half and all of `full`, by a share between 0 and 1.
fn jittered(full: Duration, share: f64) -> Duration {
    full.mul_f64(0.5 + 0.5 * share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_stay_below_the_longest() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for full in [1, 2, 4, 5, 5] {
            let delay = backoff.next_delay();
            assert!(
                delay >= Duration::from_secs(full) / 2 && delay <= Duration::from_secs(full),
                "{delay:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_secs(1));
    }

    #[test]
    fn jitter_takes_between_half_and_all() {
        assert_eq!(jittered(Duration::from_secs(4), 0.0), Duration::from_secs(2));
        assert_eq!(jittered(Duration::from_secs(4), 1.0), Duration::from_secs(4));
    }
}
