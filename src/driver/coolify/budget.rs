//! How many requests may be sent, and whose turn it is: the limit belongs to the token's user and is shared with
//! whatever else he runs. Pure: the time is an argument.
//!
//! Coolify counts in a window that begins with its first request; when that is, nobody is told. Whoever never sends more
//! than the limit within any stretch of that length keeps to it wherever the window begins.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a request is for; the first comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// Ends something: a bot that should not be there, a slot that others wait for.
    Stop,
    /// Brings a bot to its meeting.
    Start,
    /// Looks how things are.
    Look,
    /// Tells people something; may be left out.
    Notice,
}

impl Priority {
    /// The part of the limit, in hundredths, that a request leaves to those before it.
    fn left_percent(self) -> u32 {
        match self {
            Self::Stop => 0,
            Self::Start => 10,
            Self::Look => 30,
            Self::Notice => 50,
        }
    }
}

/// What Coolify said.
#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    left: u32,
    of: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u32,
    /// The length of Coolify's window.
    window: Duration,
    /// When the requests of the last window were sent, the oldest first.
    sent: VecDeque<Instant>,
    /// Nothing is sent before.
    paused_until: Option<Instant>,
    /// What Coolify said is left, and of how many, and when; others spend too.
    heard: Option<Heard>,
}

impl Budget {
    /// So many requests in a window.
    pub(super) fn new(limit: u32, window: Duration) -> Self {
        Self { limit: limit.max(1), window, sent: VecDeque::new(), paused_until: None, heard: None }
    }

    /// Spends one request, or says when to ask again.
    pub(super) fn spend(&mut self, priority: Priority, now: Instant) -> Result<(), Instant> {
        let window = self.window;
        while self.sent.front().is_some_and(|at| now.duration_since(*at) >= window) {
            self.sent.pop_front();
        }
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(until);
        }
        self.heard = self.heard.filter(|heard| now.duration_since(heard.at) < window);
        let own = self.limit.saturating_sub(u32::try_from(self.sent.len()).unwrap_or(u32::MAX));
        if own <= kept(self.limit, priority) {
            return Err(self.sent.front().map_or(now, |at| *at) + window);
        }
        // A stop asks in any case: an answer with Retry-After is the most exact word there is.
        if let Some(heard) = self.heard.filter(|_| priority != Priority::Stop)
            && heard.left <= kept(heard.of, priority)
        {
            return Err(heard.at + window);
        }
        self.sent.push_back(now);
        if let Some(heard) = &mut self.heard {
            heard.left = heard.left.saturating_sub(1);
        }
        Ok(())
    }

    /// Coolify says how many requests are left of its window.
    pub(super) fn hear(&mut self, left: u32, of: u32, now: Instant) {
        self.heard = Some(Heard { at: now, left, of });
    }

    /// Coolify says to come back later.
    pub(super) fn pause(&mut self, until: Instant) {
        self.paused_until = Some(self.paused_until.map_or(until, |known| known.max(until)));
        self.heard = None;
    }
}

/// What a request leaves to those before it. Never all: a limit of few requests still lets one of each kind through.
fn kept(limit: u32, priority: Priority) -> u32 {
    (limit / 100 * priority.left_percent() + limit % 100 * priority.left_percent() / 100)
        .min(limit.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn spend_all(budget: &mut Budget, priority: Priority, now: Instant) -> u32 {
        (0..).take_while(|_| budget.spend(priority, now).is_ok()).count() as u32
    }

    #[test]
    fn each_kind_leaves_a_part_to_those_before_it() {
        let now = Instant::now();
        let mut budget = Budget::new(200, WINDOW);
        assert_eq!(spend_all(&mut budget, Priority::Notice, now), 100);
        assert_eq!(spend_all(&mut budget, Priority::Look, now), 40);
        assert_eq!(spend_all(&mut budget, Priority::Start, now), 40);
        assert_eq!(spend_all(&mut budget, Priority::Stop, now), 20);
        assert_eq!(budget.spend(Priority::Stop, now), Err(now + WINDOW));
        assert_eq!(spend_all(&mut budget, Priority::Stop, now + WINDOW), 200);
    }

    #[test]
    fn what_others_spend_counts_too() {
        let now = Instant::now();
        let mut budget = Budget::new(200, WINDOW);
        budget.hear(25, 200, now);
        assert_eq!(budget.spend(Priority::Look, now), Err(now + WINDOW));
        assert_eq!(spend_all(&mut budget, Priority::Start, now), 5);
        assert!(budget.spend(Priority::Stop, now).is_ok());
        assert!(budget.spend(Priority::Look, now + WINDOW).is_ok(), "old words are forgotten");
    }

    #[test]
    fn a_pause_holds_for_all_and_is_never_shortened() {
        let now = Instant::now();
        let mut budget = Budget::new(200, WINDOW);
        budget.pause(now + Duration::from_secs(30));
        budget.pause(now + Duration::from_secs(5));
        assert_eq!(budget.spend(Priority::Stop, now), Err(now + Duration::from_secs(30)));
        assert!(budget.spend(Priority::Notice, now + Duration::from_secs(30)).is_ok());
    }

    #[test]
    fn a_small_limit_lets_everybody_through_in_the_end() {
        for limit in 1..4 {
            for priority in [Priority::Stop, Priority::Start, Priority::Look, Priority::Notice] {
                assert!(
                    Budget::new(limit, WINDOW).spend(priority, Instant::now()).is_ok(),
                    "{limit} {priority:?}"
                );
            }
        }
    }

    proptest! {
        /// Wherever Coolify's window begins, it never sees more than its limit.
        #[test]
        fn no_stretch_of_a_minute_holds_more_than_the_limit(
            limit in 1..50_u32,
            asked in prop::collection::vec((0..4_000_u64, 0..4_u8), 1..400),
        ) {
            let began = Instant::now();
            let (mut budget, mut now, mut sent) = (Budget::new(limit, WINDOW), began, Vec::new());
            for (later_ms, kind) in asked {
                now += Duration::from_millis(later_ms);
                let priority = match kind {
                    0 => Priority::Stop,
                    1 => Priority::Start,
                    2 => Priority::Look,
                    _ => Priority::Notice,
                };
                match budget.spend(priority, now) {
                    Ok(()) => sent.push(now),
                    Err(again) => prop_assert!(again > now),
                }
            }
            for from in &sent {
                let within = sent.iter().filter(|at| *at >= from && at.duration_since(*from) < WINDOW);
                prop_assert!(within.count() <= limit as usize);
            }
        }
    }
}
