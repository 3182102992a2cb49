//! Why a slot takes no new bot and is deleted when it has none: its own drain, and that of its platform or its host. They
//! are kept apart, so that the end of one leaves the other. Plain data.

use chrono::{DateTime, Utc};

/// When a bot that is still in what is being emptied is asked to leave; `None`: it stays for as long as it likes.
pub type Deadline = Option<DateTime<Utc>>;

/// The drains that a slot is in, each with its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drains {
    /// Its own: an operator wished it, or it makes room.
    pub own: Option<Deadline>,
    /// The earliest of its platform's and its host's, as far as the slot was told.
    pub wider: Option<Deadline>,
}

impl Drains {
    /// In a drain of its own.
    pub fn own(by: Deadline) -> Self {
        Self { own: Some(by), wider: None }
    }

    /// Whether it is in any.
    pub fn any(self) -> bool {
        self.own.is_some() || self.wider.is_some()
    }

    /// The earliest deadline.
    pub fn by(self) -> Deadline {
        [self.own, self.wider].into_iter().flatten().reduce(earlier).flatten()
    }
}

/// The deadline of somebody who is in two drains.
pub fn earlier(one: Deadline, other: Deadline) -> Deadline {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use chrono::TimeDelta;

    #[test]
    fn the_earliest_deadline_counts_and_never_is_later_than_any() {
        let (soon, late) = (Some(sample::now()), Some(sample::now() + TimeDelta::hours(1)));
        for (own, wider, by) in [
            (None, None, None),
            (Some(None), None, None),
            (Some(None), Some(late), late),
            (Some(soon), Some(None), soon),
            (Some(late), Some(soon), soon),
            (Some(soon), Some(late), soon),
        ] {
            let drains = Drains { own, wider };
            assert_eq!((drains.any(), drains.by()), (own.is_some() || wider.is_some(), by));
        }
    }
}
