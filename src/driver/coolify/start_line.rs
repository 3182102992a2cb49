//! Whose deployment is next. Coolify does a few at a time and lets a few more wait; whatever is past that it refuses or,
//! worse, drops. So no more than fit are ever there, and the rest stand in a line here, in the order they came. Pure.

use meeboter_actors::ids::BotId;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Deployments whose length counts for the estimate.
const REMEMBERED: usize = 20;

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Whether it is one's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is: go on.
    Now,
    /// So many are before one; nothing changes before that time, if one is given.
    Later {
        /// Those that wait before this one.
        ahead: usize,
        /// When the line moves again.
        paused_until: Option<Instant>,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct StartLine {
    at_once: usize,
    next: u64,
    /// With whose start it is; none: what holds an image.
    waiting: VecDeque<(Ticket, Option<BotId>)>,
    under_way: Vec<(Ticket, Instant)>,
    paused_until: Option<Instant>,
    took: VecDeque<Duration>,
    /// How long a deployment takes before any was seen.
    usual: Duration,
}

impl StartLine {
    /// So many deployments at a time are given to Coolify.
    pub(super) fn new(at_once: usize, usual: Duration) -> Self {
        let (waiting, under_way, took) = Default::default();
        Self { at_once: at_once.max(1), next: 0, waiting, under_way, paused_until: None, took, usual }
    }

    /// Gives another number at a time to Coolify from now on.
    pub(super) fn widen(&mut self, at_once: usize) {
        self.at_once = at_once.max(1);
    }

    /// Takes a place at the end, for a bot or for what holds an image.
    pub(super) fn join(&mut self, bot: Option<BotId>) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.push_back((ticket, bot));
        ticket
    }

    /// Asks whether it is a ticket's turn, and takes it.
    pub(super) fn begin(&mut self, ticket: Ticket, now: Instant) -> Turn {
        if self.under_way.iter().any(|(known, _)| *known == ticket) {
            return Turn::Now;
        }
        let ahead = self.waiting.iter().take_while(|(waiting, _)| *waiting != ticket).count();
        let paused_until = self.paused_until.filter(|until| *until > now);
        if paused_until.is_some() || self.under_way.len() + ahead >= self.at_once {
            return Turn::Later { ahead, paused_until };
        }
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        self.under_way.push((ticket, now));
        Turn::Now
    }

    /// Gives a place or a turn back.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Instant) {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        if let Some(at) = self.under_way.iter().position(|(known, _)| *known == ticket) {
            let (_, since) = self.under_way.swap_remove(at);
            self.took.push_back(now.saturating_duration_since(since));
            if self.took.len() > REMEMBERED {
                self.took.pop_front();
            }
        }
    }

    /// Coolify has no room: nobody else begins before then.
    pub(super) fn pause(&mut self, until: Instant) {
        self.paused_until = Some(self.paused_until.map_or(until, |known| known.max(until)));
    }

    /// About how long a place with so many before it waits.
    pub(super) fn estimate(&self, ahead: usize) -> Duration {
        let rounds = u32::try_from(ahead / self.at_once + 1).unwrap_or(u32::MAX);
        self.typical().saturating_mul(rounds)
    }

    /// About how long a bot waits yet, if it does.
    pub(super) fn wait_of(&self, bot: BotId, now: Instant) -> Option<Duration> {
        let ahead = self.waiting.iter().position(|(_, waiting)| *waiting == Some(bot))?;
        let pause = self.paused_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        Some(self.estimate(ahead).saturating_add(pause))
    }

    fn typical(&self) -> Duration {
        let seen = u32::try_from(self.took.len()).unwrap_or(0);
        self.took.iter().sum::<Duration>().checked_div(seen).unwrap_or(self.usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn so_many_at_a_time_in_the_order_they_came() {
        let now = Instant::now();
        let mut line = StartLine::new(2, Duration::from_secs(30));
        let tickets: Vec<_> = (0..5).map(|bot| line.join(Some(BotId(bot)))).collect();
        assert_eq!(line.begin(tickets[2], now), Turn::Later { ahead: 2, paused_until: None });
        assert_eq!((line.begin(tickets[0], now), line.begin(tickets[1], now)), (Turn::Now, Turn::Now));
        assert_eq!(line.begin(tickets[3], now), Turn::Later { ahead: 1, paused_until: None });
        let s = Duration::from_secs;
        let waits: Vec<_> = (0..6).map(|bot| line.wait_of(BotId(bot), now)).collect();
        assert_eq!(
            waits,
            [None, None, Some(s(30)), Some(s(30)), Some(s(60)), None],
            "two have begun, one never came"
        );
        line.leave(tickets[0], now + Duration::from_secs(10));
        assert_eq!(line.begin(tickets[3], now), Turn::Later { ahead: 1, paused_until: None });
        assert_eq!(line.begin(tickets[2], now), Turn::Now);
        assert_eq!(line.estimate(0), Duration::from_secs(10));
    }

    #[test]
    fn a_full_engine_holds_the_line() {
        let now = Instant::now();
        let mut line = StartLine::new(2, Duration::from_secs(30));
        let (first, second) = (line.join(None), line.join(Some(BotId(2))));
        assert_eq!(line.begin(first, now), Turn::Now);
        let until = now + Duration::from_secs(60);
        line.pause(until);
        assert_eq!(line.begin(second, now), Turn::Later { ahead: 0, paused_until: Some(until) });
        assert_eq!(line.begin(first, now), Turn::Now, "whoever has begun goes on");
        assert_eq!(line.wait_of(BotId(2), now), Some(Duration::from_secs(90)), "the pause is waited for too");
        assert_eq!(line.begin(second, until), Turn::Now);
    }

    proptest! {
        /// Nobody overtakes, no more than fit are under way, and whoever stays gets his turn.
        #[test]
        fn everybody_gets_a_turn(at_once in 1..5_usize, leaving in prop::collection::vec(any::<bool>(), 1..40)) {
            let now = Instant::now();
            let mut line = StartLine::new(at_once, Duration::from_secs(1));
            let tickets: Vec<_> = leaving.iter().map(|_| line.join(None)).collect();
            for (ticket, leaves) in tickets.iter().zip(&leaving) {
                if *leaves {
                    line.leave(*ticket, now);
                }
            }
            let mut staying: Vec<_> = tickets.iter().zip(&leaving).filter(|(_, leaves)| !**leaves).collect();
            while !staying.is_empty() {
                let begun: Vec<_> =
                    staying.iter().rev().filter(|(ticket, _)| line.begin(**ticket, now) == Turn::Now).collect();
                prop_assert!(begun.len() <= at_once);
                let oldest = *staying[0].0;
                prop_assert_eq!(line.begin(oldest, now), Turn::Now, "the oldest is never held up");
                line.leave(oldest, now);
                staying.remove(0);
            }
        }
    }
}
