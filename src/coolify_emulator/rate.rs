//! Coolify's limit of requests: a fixed window that begins with its first request. Pure: the time is an argument.

use std::time::Duration;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct RateWindow {
    limit: u32,
    length: Duration,
    begun: Option<Duration>,
    used: u32,
}

/// What a request is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is served; so many are left.
    Admitted { remaining: u32 },
    /// It is refused, and may come back after so many seconds.
    Refused { retry_after_s: u64 },
}

impl RateWindow {
    /// So many requests in a window of this length.
    pub(super) fn new(limit: u32, length: Duration) -> Self {
        Self { limit, length, begun: None, used: 0 }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Counts a request at a time, which only grows.
    pub(super) fn admit(&mut self, now: Duration) -> Admission {
        let begun = match self.begun {
            Some(begun) if now < begun + self.length => begun,
            _ => {
                self.used = 0;
                *self.begun.insert(now)
            }
        };
        if self.used >= self.limit {
            let left = (begun + self.length).saturating_sub(now);
            return Admission::Refused { retry_after_s: left.as_millis().div_ceil(1_000).max(1) as u64 };
        }
        self.used += 1;
        Admission::Admitted { remaining: self.limit - self.used }
    }

    /// Lets nobody in until the window ends, as where another client of the same user took the rest.
    pub(super) fn exhaust(&mut self, now: Duration) {
        self.begun = Some(now);
        self.used = self.limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_with_its_first_request_and_ends_for_all() {
        let second = Duration::from_secs;
        let mut window = RateWindow::new(2, second(60));
        assert_eq!(window.admit(second(10)), Admission::Admitted { remaining: 1 });
        assert_eq!(window.admit(second(50)), Admission::Admitted { remaining: 0 });
        assert_eq!(window.admit(second(60)), Admission::Refused { retry_after_s: 10 });
        assert_eq!(window.admit(second(70)), Admission::Admitted { remaining: 1 });
        window.exhaust(second(71));
        assert_eq!(window.admit(second(130)), Admission::Refused { retry_after_s: 1 });
        assert_eq!(window.admit(second(131)), Admission::Admitted { remaining: 1 });
    }
}
