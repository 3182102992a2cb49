//! Round-robin between the users of one priority, as turns. Pure.
//!
//! A user's entry gets the turn after the user's last one, and not an earlier one than the turn being served; who has
//! been served in that turn gets the next one at the earliest. So of two users who both wait, neither is served a third
//! time before the other's next bot.

use crate::ids::UserId;
use std::collections::{BTreeMap, BTreeSet};

/// The turns of one priority in one line.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    /// The turn being served.
    turn: i64,
    /// Who was served in it.
    served: BTreeSet<UserId>,
    /// Turn and arrival of each user's entries.
    waiting: BTreeMap<UserId, BTreeSet<(i64, i64)>>,
}

impl Rotation {
    /// A rotation that goes on where stored entries stand, of which this is the least turn.
    pub(super) fn at(turn: i64) -> Self {
        Self { turn, ..Self::default() }
    }

    /// The turn for a new entry of this user.
    pub(super) fn next_turn(&self, user: UserId) -> i64 {
        let earliest = self.turn + i64::from(self.served.contains(&user));
        let last = self.waiting.get(&user).and_then(BTreeSet::last);
        last.map_or(earliest, |(last, _)| earliest.max(last + 1))
    }

    /// An entry waits.
    pub(super) fn join(&mut self, user: UserId, turn: i64, arrival: i64) {
        self.waiting.entry(user).or_default().insert((turn, arrival));
    }

    /// It waits no more.
    pub(super) fn leave(&mut self, user: UserId, turn: i64, arrival: i64) {
        if let Some(turns) = self.waiting.get_mut(&user) {
            turns.remove(&(turn, arrival));
            if turns.is_empty() {
                self.waiting.remove(&user);
            }
        }
    }

    /// An entry of this turn was served.
    pub(super) fn serve(&mut self, user: UserId, turn: i64) {
        if turn > self.turn {
            self.turn = turn;
            self.served.clear();
        }
        if turn == self.turn {
            self.served.insert(user);
        }
    }

    /// Nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
