//! Who comes first: priority (lower first), then fair between users, then age. Pure.
//!
//! Fairness is round-robin by turns: a user's entry gets the turn after the user's last one, and not an earlier one
//! than the turn being served. The turn is stored with the entry, so the order survives a restart as it is.

use super::QueueEntry;
use crate::ids::{BotId, Platform, UserId};
use std::collections::{BTreeMap, BTreeSet};

/// Sorts entries: the least comes first.
pub type Place = (i16, i64, i64);

impl QueueEntry {
    /// Where it stands.
    pub fn place(&self) -> Place {
        (self.priority, self.turn, self.arrival)
    }
}

/// A line for each platform.
#[derive(Debug, Default)]
pub struct Line {
    entries: BTreeMap<Platform, BTreeMap<Place, QueueEntry>>,
    places: BTreeMap<BotId, (Platform, Place)>,
    /// The turns that each user's entries have, by platform and priority.
    turns: BTreeMap<(Platform, i16, UserId), BTreeSet<i64>>,
    /// The turn last served, by platform and priority: newcomers do not get an earlier one.
    served: BTreeMap<(Platform, i16), i64>,
    arrivals: i64,
}

impl Line {
    /// The turn and arrival for a new entry of this user.
    pub fn next_place(&mut self, platform: &Platform, priority: i16, user: UserId) -> Place {
        self.arrivals += 1;
        let floor = self.served.get(&(platform.clone(), priority)).copied().unwrap_or(0);
        let turns = self.turns.get(&(platform.clone(), priority, user));
        let last = turns.and_then(BTreeSet::last);
        (priority, last.map_or(floor, |last| (last + 1).max(floor)), self.arrivals)
    }

    /// Puts an entry at its place.
    pub fn insert(&mut self, entry: QueueEntry) {
        self.arrivals = self.arrivals.max(entry.arrival);
        self.places.insert(entry.bot_id, (entry.platform.clone(), entry.place()));
        self.turns.entry(turns_key(&entry)).or_default().insert(entry.turn);
        self.entries.entry(entry.platform.clone()).or_default().insert(entry.place(), entry);
    }

    /// Puts stored entries back. The least turn of each priority is the one being served.
    pub fn restore(&mut self, entries: impl IntoIterator<Item = QueueEntry>) {
        for entry in entries {
            let served = self.served.entry((entry.platform.clone(), entry.priority)).or_insert(entry.turn);
            *served = (*served).min(entry.turn);
            self.insert(entry);
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, bot: BotId) -> Option<QueueEntry> {
        let (platform, place) = self.places.remove(&bot)?;
        let line = self.entries.get_mut(&platform)?;
        let entry = line.remove(&place)?;
        if line.is_empty() {
            self.entries.remove(&platform);
        }
        let key = turns_key(&entry);
        if let Some(turns) = self.turns.get_mut(&key) {
            turns.remove(&entry.turn);
            if turns.is_empty() {
                self.turns.remove(&key);
            }
        }
        Some(entry)
    }

    /// Notes that an entry was served: its turn is now the earliest that newcomers get.
    pub fn served(&mut self, entry: &QueueEntry) {
        let served = self.served.entry((entry.platform.clone(), entry.priority)).or_default();
        *served = (*served).max(entry.turn);
    }

    /// The entries of a platform, first to last.
    pub fn of(&self, platform: &Platform) -> impl Iterator<Item = &QueueEntry> {
        self.entries.get(platform).into_iter().flat_map(BTreeMap::values)
    }

    /// All entries, platform by platform, first to last.
    pub fn all(&self) -> impl Iterator<Item = &QueueEntry> {
        self.entries.values().flat_map(BTreeMap::values)
    }

    /// The entry of a bot.
    pub fn get(&self, bot: BotId) -> Option<&QueueEntry> {
        let (platform, place) = self.places.get(&bot)?;
        self.entries.get(platform)?.get(place)
    }

    /// Where a bot stands in its platform's line, counted from 1.
    pub fn position(&self, bot: BotId) -> Option<usize> {
        let (platform, place) = self.places.get(&bot)?;
        Some(self.entries.get(platform)?.range(..place).count() + 1)
    }
}

fn turns_key(entry: &QueueEntry) -> (Platform, i16, UserId) {
    (entry.platform.clone(), entry.priority, entry.user_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;

    fn join(line: &mut Line, bot: i64, user: i64, priority: i16) {
        let platform = Platform("zoom".into());
        let (priority, turn, arrival) = line.next_place(&platform, priority, UserId(user));
        let entry = QueueEntry { priority, turn, arrival, ..sample::queue_entry(bot, user) };
        line.insert(entry);
    }

    fn order(line: &Line) -> Vec<i64> {
        line.of(&Platform("zoom".into())).map(|entry| entry.bot_id.0).collect()
    }

    #[test]
    fn priority_then_users_in_turn_then_age() {
        let mut line = Line::default();
        for (bot, user, priority) in
            [(1, 1, 100), (2, 1, 100), (3, 1, 100), (4, 2, 100), (5, 3, 200), (6, 4, 10)]
        {
            join(&mut line, bot, user, priority);
        }
        assert_eq!(order(&line), [6, 1, 4, 2, 3, 5]);
        assert_eq!(line.position(BotId(2)), Some(4));
    }

    #[test]
    fn a_newcomer_does_not_overtake_the_turn_being_served() {
        let mut line = Line::default();
        for bot in 1..=4 {
            join(&mut line, bot, 1, 100);
        }
        for bot in 1..=3 {
            let entry = line.remove(BotId(bot)).expect("waits");
            line.served(&entry);
        }
        join(&mut line, 5, 2, 100);
        join(&mut line, 6, 2, 100);
        assert_eq!(order(&line), [5, 4, 6]);
    }

    #[test]
    fn the_order_is_in_the_entries() {
        let mut line = Line::default();
        for (bot, user) in [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3)] {
            join(&mut line, bot, user, 100);
        }
        let mut restored = Line::default();
        let mut entries: Vec<_> = line.all().cloned().collect();
        entries.reverse();
        restored.restore(entries);
        assert_eq!(order(&restored), order(&line));
    }
}
