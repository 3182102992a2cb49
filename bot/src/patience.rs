//! How long a server is waited for after the meeting: as long as it is away, nearly. What is only here is lost when this
//! program gives up, and nobody else needs its container meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a server that answers may go on without taking what there is.
const ANSWERING_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long one is waited for that does not answer.
const AWAY_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Since when the server answers. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    since: Arc<Mutex<Option<Instant>>>,
}

impl Reach {
    /// Notes that the server answered just now, or that it did not.
    pub(crate) fn note(&self, answered: bool, now: Instant) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = answered.then(|| since.unwrap_or(now));
    }

    /// Since when it answers every call; `None`: it did not answer the last one.
    pub(crate) fn since(&self) -> Option<Instant> {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wait at the end, counted from its beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    began: Instant,
}

impl Patience {
    /// It begins now.
    pub(crate) fn from(now: Instant) -> Self {
        Self { began: now }
    }

    /// How long it has been.
    pub(crate) fn spent(self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// Whether it is at its end at `now`, where the server answers since `since`.
    pub(crate) fn is_over(self, now: Instant, since: Option<Instant>) -> bool {
        let answering = since.map(|since| now.saturating_duration_since(since.max(self.began)));
        answering.is_some_and(|spent| spent >= ANSWERING_LIMIT) || self.spent(now) >= AWAY_LIMIT
    }

    /// Longer than any lasts.
    pub(crate) const LONGEST: Duration = AWAY_LIMIT;
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_server_that_is_away_is_waited_for_and_has_its_whole_time_when_it_is_back() {
        let end = Instant::now();
        let patience = Patience::from(end);
        let reach = Reach::default();
        assert!(!patience.is_over(end + 20 * MINUTE, reach.since()));
        reach.note(true, end + 600 * MINUTE);
        reach.note(true, end + 614 * MINUTE);
        assert!(!patience.is_over(end + 614 * MINUTE, reach.since()));
        assert!(patience.is_over(end + 615 * MINUTE, reach.since()));
        reach.note(false, end + 614 * MINUTE);
        assert!(!patience.is_over(end + 615 * MINUTE, reach.since()), "away again");
        assert!(patience.is_over(end + 24 * 60 * MINUTE, reach.since()));
    }

    #[test]
    fn one_that_answered_all_the_time_has_its_time_from_the_end_of_the_meeting() {
        let began = Instant::now();
        let reach = Reach::default();
        reach.note(true, began);
        let patience = Patience::from(began + 120 * MINUTE);
        assert!(!patience.is_over(began + 134 * MINUTE, reach.since()));
        assert!(patience.is_over(began + 135 * MINUTE, reach.since()));
    }
}
