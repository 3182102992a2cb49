//! Who comes first: priority (lower first), then fair between users, then age. Pure.
//!
//! Fairness is round-robin by turns (`rotation.rs`). The turn is stored with the entry, so the order survives a
//! restart as it is. Everything here is O(log n) in the bots that wait, but for what hands out a whole line.

use super::QueueEntry;
use super::ranks::Ranks;
use super::rotation::Rotation;
use crate::ids::{BotId, Platform, UserId};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};

/// Sorts entries: the least comes first. Priority, turn, arrival.
pub type Place = (i16, i64, i64);

impl QueueEntry {
    /// Where it stands.
    pub fn place(&self) -> Place {
        (self.priority, self.turn, self.arrival)
    }
}

/// A line for each platform that somebody waits for.
#[derive(Debug, Default)]
pub struct Lines {
    lines: BTreeMap<Platform, Line>,
    places: BTreeMap<BotId, (Platform, Place)>,
    arrivals: i64,
}

/// The bots that wait for one platform.
#[derive(Debug, Default)]
pub struct Line {
    entries: BTreeMap<Place, QueueEntry>,
    ranks: Ranks<Place>,
    /// Those who may be offered.
    free: BTreeSet<Place>,
    /// Since when each waits.
    since: BTreeSet<(DateTime<Utc>, BotId)>,
    /// The sum of these, in milliseconds since 1970.
    since_total_ms: i128,
    rotations: BTreeMap<i16, Rotation>,
}

impl Lines {
    /// The place for a new entry of this user.
    pub fn next_place(&mut self, platform: &Platform, priority: i16, user: UserId) -> Place {
        self.arrivals += 1;
        let turn = self.of(platform).map_or(0, |line| line.next_turn(priority, user));
        (priority, turn, self.arrivals)
    }

    /// Puts an entry at its place. It is held: not to be offered yet.
    pub fn insert(&mut self, entry: QueueEntry) {
        self.arrivals = self.arrivals.max(entry.arrival);
        self.places.insert(entry.bot_id, (entry.platform.clone(), entry.place()));
        self.lines.entry(entry.platform.clone()).or_default().insert(entry);
    }

    /// Puts stored entries back, free to be offered. The least turn of each priority is the one being served.
    pub fn restore(&mut self, entries: impl IntoIterator<Item = QueueEntry>) {
        let mut entries: Vec<QueueEntry> = entries.into_iter().collect();
        entries.sort_unstable_by_key(QueueEntry::place);
        // Those that were given back are out of turn: they say nothing of the turn being served.
        for entry in entries.iter().filter(|entry| !entry.is_returned()) {
            let line = self.lines.entry(entry.platform.clone()).or_default();
            line.rotations.entry(entry.priority).or_insert_with(|| Rotation::at(entry.turn));
        }
        for entry in entries {
            let bot = entry.bot_id;
            self.insert(entry);
            self.free(bot);
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, bot: BotId) -> Option<QueueEntry> {
        self.take(bot, Line::remove)
    }

    /// Takes an entry out that was served: its turn is now the earliest that newcomers get.
    pub fn serve(&mut self, bot: BotId) -> Option<QueueEntry> {
        self.take(bot, Line::serve)
    }

    /// Moves an entry to another priority, behind its user's others there; it keeps its age, and is held. Returns it
    /// as it was and as it is.
    pub fn reprioritise(&mut self, bot: BotId, priority: i16) -> Option<(QueueEntry, QueueEntry)> {
        let before = self.remove(bot)?;
        let turn = self.of(&before.platform).map_or(0, |line| line.next_turn(priority, before.user_id));
        let after = QueueEntry { priority, turn, ..before.clone() };
        self.insert(after.clone());
        Some((before, after))
    }

    /// The entry may be offered from now on.
    pub fn free(&mut self, bot: BotId) {
        if let Some((line, place)) = self.find(bot) {
            line.free.insert(place);
        }
    }

    /// The entry may not be offered until it is free again; it keeps its place.
    pub fn hold(&mut self, bot: BotId) {
        if let Some((line, place)) = self.find(bot) {
            line.free.remove(&place);
        }
    }

    /// The line of a platform; `None`: nobody waits for it.
    pub fn of(&self, platform: &Platform) -> Option<&Line> {
        self.lines.get(platform)
    }

    /// All lines.
    pub fn all(&self) -> impl Iterator<Item = (&Platform, &Line)> {
        self.lines.iter()
    }

    /// The entry of a bot.
    pub fn get(&self, bot: BotId) -> Option<&QueueEntry> {
        let (platform, place) = self.places.get(&bot)?;
        self.of(platform)?.entries.get(place)
    }

    /// Where a bot stands in its platform's line, counted from 1.
    pub fn position(&self, bot: BotId) -> Option<usize> {
        let (platform, place) = self.places.get(&bot)?;
        Some(self.of(platform)?.ranks.before(place) + 1)
    }

    fn find(&mut self, bot: BotId) -> Option<(&mut Line, Place)> {
        let (platform, place) = self.places.get(&bot)?;
        Some((self.lines.get_mut(platform)?, *place))
    }

    fn take(
        &mut self,
        bot: BotId,
        take: impl Fn(&mut Line, Place) -> Option<QueueEntry>,
    ) -> Option<QueueEntry> {
        let (platform, place) = self.places.remove(&bot)?;
        let line = self.lines.get_mut(&platform)?;
        let entry = take(line, place);
        if line.entries.is_empty() {
            self.lines.remove(&platform);
        }
        entry
    }
}

impl Line {
    /// First to last.
    pub fn entries(&self) -> impl Iterator<Item = &QueueEntry> {
        self.entries.values()
    }

    /// How many wait; never 0.
    pub fn length(&self) -> usize {
        self.entries.len()
    }

    /// The first that may be offered.
    pub fn first_free(&self) -> Option<&QueueEntry> {
        self.entries.get(self.free.first()?)
    }

    /// Since when the one waits who waits longest.
    pub fn oldest_queued_at(&self) -> Option<DateTime<Utc>> {
        self.since.first().map(|(at, _)| *at)
    }

    /// The waits so far of all who wait, added up, in milliseconds.
    pub fn waited_ms(&self, now: DateTime<Utc>) -> i64 {
        let length = i128::try_from(self.length()).unwrap_or(i128::MAX);
        let total = i128::from(now.timestamp_millis()) * length - self.since_total_ms;
        i64::try_from(total.max(0)).unwrap_or(i64::MAX)
    }

    fn next_turn(&self, priority: i16, user: UserId) -> i64 {
        self.rotations.get(&priority).map_or(0, |rotation| rotation.next_turn(user))
    }

    fn insert(&mut self, entry: QueueEntry) {
        let place = entry.place();
        self.ranks.insert(place);
        self.since.insert((entry.queued_at, entry.bot_id));
        self.since_total_ms += i128::from(entry.queued_at.timestamp_millis());
        let rotation = self.rotations.entry(entry.priority).or_default();
        rotation.join(entry.user_id, entry.turn, entry.arrival);
        self.entries.insert(place, entry);
    }

    fn remove(&mut self, place: Place) -> Option<QueueEntry> {
        let entry = self.entries.remove(&place)?;
        self.ranks.remove(&place);
        self.free.remove(&place);
        self.since.remove(&(entry.queued_at, entry.bot_id));
        self.since_total_ms -= i128::from(entry.queued_at.timestamp_millis());
        if let Some(rotation) = self.rotations.get_mut(&entry.priority) {
            rotation.leave(entry.user_id, entry.turn, entry.arrival);
            // Where nobody waits there is nobody to be fair to: the next ones begin anew.
            if rotation.is_empty() {
                self.rotations.remove(&entry.priority);
            }
        }
        Some(entry)
    }

    fn serve(&mut self, place: Place) -> Option<QueueEntry> {
        let entry = self.remove(place)?;
        if let Some(rotation) = self.rotations.get_mut(&entry.priority) {
            rotation.serve(entry.user_id, entry.turn);
        }
        Some(entry)
    }
}
