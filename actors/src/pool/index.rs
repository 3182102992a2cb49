//! Which slots there are, and which of them gets a bot, kept in such an order that a grant costs the same whatever the
//! size of the pool: it reads the front of one ordered set and never the slot's own entry, which in a large pool is far
//! from every cache. Pure: no actor, no clock.
//!
//! An idle slot of the platform with the wanted image comes first, where that is not known to be missing, then the least
//! recently used; else a new one, where both caps allow it and a host has room: on the host with the most. Never another
//! platform's, and never on a host whose engine is away, that is no longer configured, or where too many wait for the
//! image. Of idle slots that have the image or that have not, and of hosts with room, those come first where no slot of
//! the platform is in error: a start that failed is tried elsewhere. So is a new slot where the image did not come.

use super::PoolSettings;
use super::breaker::BreakerState;
use super::shelf::{Entry, Key, Limits, STATUSES, Shelf};
use crate::ids::{HostName, Platform, SlotName};
use crate::slot::{Slot, SlotStatus};
use chrono::{DateTime, Utc};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the pool knows of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotLine {
    /// Its name.
    pub name: SlotName,
    /// Its platform.
    pub platform: Platform,
    /// Its host.
    pub host: HostName,
    /// Its image.
    pub image: String,
    /// Its state; `None`: its actor is being rebuilt.
    pub status: Option<SlotStatus>,
    /// When its last bot left; `None`: never used.
    pub last_used_at: Option<DateTime<Utc>>,
    /// A bot is on its way to it, or it is being made.
    pub reserved: bool,
    /// It takes no new bot and is deleted when it has none.
    pub draining: bool,
    /// Whether there is a row.
    pub stored: bool,
}

/// Where a bot goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Into this idle slot, which is reserved now.
    Slot(SlotName),
    /// Into a new slot.
    Grow(Growth),
    /// There is no room.
    Full,
}

/// A slot to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// Its name, with the first number that is free.
    pub name: SlotName,
    /// Where it will be.
    pub host: HostName,
}

/// What a host holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostLine {
    /// Slots on it.
    pub slots: u32,
    /// Slots that it has room for; 0 for one that is to get no more bots, and one that is no longer configured.
    pub capacity: u32,
    /// It gets no new slots.
    pub draining: bool,
    /// Whether its engine answers; while it does not, the host gets neither bots nor slots.
    pub engine: BreakerState,
}

impl HostLine {
    /// Whether its engine answers, as far as is known.
    pub fn answers(&self) -> bool {
        self.engine == BreakerState::Closed
    }

    /// Whether it gets bots at all: what it has no room for, it is not given to run either.
    pub fn takes_bots(&self) -> bool {
        self.capacity > 0 && self.answers()
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct SlotIndex {
    max_size: u32,
    shelves: BTreeMap<Platform, Shelf>,
    hosts: BTreeMap<HostName, HostLine>,
    /// Hosts that get no new slots, also those that are neither in the settings nor have any.
    drained: BTreeSet<HostName>,
    /// Slots that wait for an image, by host and image: those of every platform wait in one line.
    pulling: BTreeMap<(HostName, String), u32>,
    /// Slots by key; the keys of those that are gone are used again.
    book: Vec<Option<Entry>>,
    /// Slots that somebody has a hold of: few, so that a grant need not touch the book.
    reserved: BTreeSet<Key>,
    unused_keys: Vec<Key>,
    /// Its order is chance: what goes through it sorts what it finds.
    keys: HashMap<SlotName, Key>,
}

impl SlotIndex {
    /// An empty pool with these limits.
    pub fn new(settings: &PoolSettings) -> Self {
        let mut index = Self::default();
        index.configure(settings);
        index
    }

    /// Goes by other limits and images from now on. Touches every idle slot.
    pub fn configure(&mut self, settings: &PoolSettings) {
        self.max_size = settings.max_size;
        for platform in settings.platforms.keys() {
            self.shelves.entry(platform.clone()).or_default();
        }
        for (platform, shelf) in &mut self.shelves {
            let limits = settings.platforms.get(platform);
            shelf.served =
                limits.map(|limits| Limits { max_size: limits.max_size, image: limits.image.clone() });
            let image = shelf.served.as_ref().map(|limits| &limits.image);
            for rack in shelf.racks.values_mut() {
                rack.idle.clear();
                // A line for what is wanted no more keeps nobody out.
                rack.crowded.take_if(|crowded| image != Some(crowded));
            }
        }
        for host in settings.hosts.keys() {
            self.host(host);
        }
        for (name, host) in &mut self.hosts {
            host.capacity = settings.hosts.get(name).map_or(0, |limits| limits.capacity);
        }
        for (key, entry) in (0..).zip(&self.book) {
            let Some(entry) = entry.as_ref().filter(|_| !self.reserved.contains(&key)) else { continue };
            if let Some(shelf) = self.shelves.get_mut(&entry.line.platform) {
                let turn = shelf.turn(entry, key);
                if let Some(rack) = shelf.racks.get_mut(&entry.line.host) {
                    rack.idle.extend(turn);
                }
            }
        }
    }

    /// How a host's breaker stands.
    pub fn set_engine(&mut self, host: &HostName, engine: BreakerState) {
        if let Some(line) = self.hosts.get_mut(host) {
            line.engine = engine;
        }
    }

    /// Takes in a slot that gave its bot back because too many, whatever their platform, wait for its image on the host:
    /// the host gets no more bots of the platform before one of those has got on. The slot itself was never one of them,
    /// so that it waits no more lets nobody else in. Where none waits any more, that has happened already.
    pub fn declined(&mut self, slot: &Slot) {
        let Some(key) = self.keys.get(&slot.name).copied() else { return };
        drop(self.change(key, |entry| entry.take_in(slot)));
        let awaited = (slot.host.clone(), slot.image.clone());
        if !self.pulling.contains_key(&awaited) {
            return;
        }
        let Some(shelf) = self.shelves.get_mut(&slot.platform) else { return };
        let is_wanted = shelf.served.as_ref().is_some_and(|limits| limits.image == awaited.1);
        if let Some(rack) = shelf.racks.get_mut(&slot.host).filter(|_| is_wanted) {
            rack.crowded = Some(awaited.1);
        }
    }

    /// Notes whether a platform's image came to a host when it was wanted there ahead of need, or is on its way yet. Until
    /// it does, other hosts come first.
    pub fn image_came(&mut self, platform: &Platform, host: &HostName, came: bool) {
        if let Some(shelf) = self.shelves.get_mut(platform) {
            shelf.racks.entry(host.clone()).or_default().without_image = !came;
        }
    }

    /// Has a host get new slots, or none; also one that is not in the settings, for when it comes into them.
    pub fn drain_host(&mut self, host: &HostName, draining: bool) {
        if draining {
            self.drained.insert(host.clone());
        } else {
            self.drained.remove(host);
        }
        if let Some(line) = self.hosts.get_mut(host) {
            line.draining = draining;
        }
    }

    /// What a host holds; one that is not known yet is from now on.
    fn host(&mut self, host: &HostName) -> &mut HostLine {
        let draining = self.drained.contains(host);
        self.hosts.entry(host.clone()).or_insert_with(|| HostLine { draining, ..HostLine::default() })
    }

    /// Takes in a slot, or what changed about it. It stays reserved if it was.
    pub fn put(&mut self, slot: &Slot) {
        if let Some(key) = self.keys.get(&slot.name).copied() {
            let left = self.change(key, |entry| entry.take_in(slot));
            return self.got_on(left);
        }
        let entry = Entry::new(slot);
        self.wait(entry.awaited());
        self.host(&entry.line.host).slots += 1;
        let Entry { line, .. } = &entry;
        let shelf = self.shelves.entry(line.platform.clone()).or_default();
        shelf.slots += 1;
        shelf.racks.entry(line.host.clone()).or_default();
        shelf.free_numbers.take(slot.name.number());
        let key = self.unused_keys.pop().unwrap_or(u32::try_from(self.book.len()).unwrap_or(Key::MAX));
        self.keys.insert(line.name.clone(), key);
        shelf.file(&entry, key, false);
        match self.book.get_mut(key as usize) {
            Some(place) => *place = Some(entry),
            None => self.book.push(Some(entry)),
        }
    }

    /// Forgets a slot; its number is free again.
    pub fn remove(&mut self, name: &SlotName) {
        let Some(key) = self.keys.remove(name) else { return };
        let Some(entry) = self.book.get_mut(key as usize).and_then(Option::take) else { return };
        self.unused_keys.push(key);
        let reserved = self.reserved.remove(&key);
        if let Some(shelf) = self.shelves.get_mut(&entry.line.platform) {
            shelf.unfile(&entry, key, reserved);
            shelf.slots -= 1;
            shelf.free_numbers.give(name.number());
        }
        if let Some(host) = self.hosts.get_mut(&entry.line.host) {
            host.slots -= 1;
        }
        let awaited = entry.awaited();
        self.leave(awaited.as_ref());
        self.got_on(awaited);
    }

    /// A slot's actor died: nothing is given to it until it is [`put`](Self::put) again.
    pub fn rebuilding(&mut self, name: &SlotName) {
        self.change_named(name, |entry| entry.line.status = None);
    }

    /// A slot is no more, but somebody still holds its reservation: until that is over it keeps its number and its room.
    pub fn gone(&mut self, name: &SlotName) {
        self.change_named(name, |Entry { line, pulling, .. }| {
            (line.status, line.stored, *pulling) = (None, false, false);
        });
    }

    /// Keeps a slot from being given away, or no longer.
    pub fn reserve(&mut self, name: &SlotName, reserved: bool) {
        let Some(key) = self.keys.get(name).copied() else { return };
        let was = if reserved { !self.reserved.insert(key) } else { self.reserved.remove(&key) };
        let Some(entry) = self.book.get(key as usize).and_then(Option::as_ref) else { return };
        if let Some(shelf) = self.shelves.get_mut(&entry.line.platform) {
            shelf.unfile(entry, key, was);
            shelf.file(entry, key, reserved);
        }
    }

    /// Decides where the next bot of a platform goes; an idle slot is reserved by that.
    pub fn take(&mut self, platform: &Platform) -> Placement {
        let shelf = self.shelves.get_mut(platform).filter(|shelf| shelf.served.is_some());
        let racks = shelf.into_iter().flat_map(|shelf| &mut shelf.racks);
        let open = racks.filter(|(host, rack)| {
            !rack.idle.is_empty()
                && rack.crowded.is_none()
                && self.hosts.get(*host).is_none_or(HostLine::takes_bots)
        });
        let first = open.min_by_key(|(_, rack)| {
            let turn = rack.idle.first().copied();
            let lacks_image = rack.without_image || turn.is_none_or(|turn| turn.unwanted_image);
            (lacks_image, rack.errors > 0, turn)
        });
        let Some(turn) = first.and_then(|(_, rack)| rack.idle.pop_first()) else {
            return self.growth(platform).map_or(Placement::Full, Placement::Grow);
        };
        self.reserved.insert(turn.key);
        if turn.number > 0 {
            return Placement::Slot(SlotName::new(platform, turn.number));
        }
        let entry = self.book.get(turn.key as usize).and_then(Option::as_ref);
        entry.map_or(Placement::Full, |entry| Placement::Slot(entry.line.name.clone()))
    }

    /// The slot that the platform may be given more. Looks at the hosts, of which there are few.
    pub fn growth(&self, platform: &Platform) -> Option<Growth> {
        let shelf = self.shelves.get(platform)?;
        if shelf.slots >= shelf.served.as_ref()?.max_size || self.keys.len() >= self.max_size as usize {
            return None;
        }
        let crowded = |host| shelf.racks.get(host).is_some_and(|rack| rack.crowded.is_some());
        let failing = |host| shelf.racks.get(host).is_some_and(|rack| rack.errors > 0 || rack.without_image);
        let room = self.hosts.iter().filter(|(name, host)| {
            !host.draining && host.answers() && host.slots < host.capacity && !crowded(*name)
        });
        let (host, _) =
            room.min_by_key(|(name, host)| (failing(*name), Reverse(host.capacity - host.slots)))?;
        let name = SlotName::new(platform, shelf.free_numbers.first());
        Some(Growth { name, host: host.clone() })
    }

    /// The free slot of another platform that is in the way of one more slot of this one: the longest unused, and where
    /// it was used never, that. `kept` says how many slots a platform keeps whatever happens; `None`: all. Nothing where
    /// the platform has as many slots as it may, or could have another as it is. Goes through the free slots of others.
    pub fn in_the_way(
        &self,
        platform: &Platform,
        kept: impl Fn(&Platform) -> Option<u32>,
    ) -> Option<(SlotName, Platform)> {
        let own = self.shelves.get(platform)?;
        if own.slots >= own.served.as_ref()?.max_size || self.growth(platform).is_some() {
            return None;
        }
        let opens = |name: &HostName, host: &HostLine| {
            let crowded = own.racks.get(name).is_some_and(|rack| rack.crowded.is_some());
            !host.draining && host.takes_bots() && !crowded
        };
        let is_room = self.hosts.iter().any(|(name, host)| opens(name, host) && host.slots < host.capacity);
        let others = self.shelves.iter().filter(|(other, shelf)| {
            *other != platform && kept(other).is_some_and(|kept| shelf.slots > kept)
        });
        let free = others.flat_map(|(other, shelf)| {
            let helps = |name: &HostName, host: &HostLine| opens(name, host) || (is_room && host.answers());
            let racks = shelf.racks.iter();
            let racks =
                racks.filter(move |(name, _)| self.hosts.get(*name).is_some_and(|host| helps(name, host)));
            racks.flat_map(|(_, rack)| &rack.idle).map(move |turn| (turn, other))
        });
        let (turn, of) = free.min_by_key(|(turn, of)| (turn.last_used_us, *of, turn.number))?;
        Some((self.line(turn.key)?.name, of.clone()))
    }

    /// What is known of a slot.
    pub fn get(&self, name: &SlotName) -> Option<SlotLine> {
        self.line(*self.keys.get(name)?)
    }

    fn line(&self, key: Key) -> Option<SlotLine> {
        let entry = self.book.get(key as usize)?.as_ref()?;
        Some(SlotLine { reserved: self.reserved.contains(&key), ..entry.line.clone() })
    }

    /// All slots in no order, each with whether somebody has a hold of it; nothing is copied.
    pub fn each(&self) -> impl Iterator<Item = (&SlotLine, bool)> {
        let entries = (0..).zip(&self.book);
        entries.filter_map(|(key, entry)| Some((&entry.as_ref()?.line, self.reserved.contains(&key))))
    }

    /// All slots, by name.
    pub fn lines(&self) -> Vec<SlotLine> {
        let mut lines: Vec<SlotLine> = self.keys.values().filter_map(|key| self.line(*key)).collect();
        lines.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        lines
    }

    /// Stored slots by platform and state; one whose actor is being rebuilt is in error for that moment.
    pub fn counts(&self) -> BTreeMap<(Platform, SlotStatus), u32> {
        let shelves = self.shelves.iter();
        shelves
            .flat_map(|(platform, shelf)| {
                let counted = STATUSES.into_iter().zip(shelf.stored).filter(|(_, count)| *count > 0);
                counted.map(|(status, count)| ((platform.clone(), status), count))
            })
            .collect()
    }

    /// Slots of a platform, also those that are being made.
    pub fn size(&self, platform: &Platform) -> u32 {
        self.shelves.get(platform).map_or(0, |shelf| shelf.slots)
    }

    /// How many slots somebody has a hold of.
    pub fn reserved(&self) -> usize {
        self.reserved.len()
    }

    /// The hosts.
    pub fn hosts(&self) -> &BTreeMap<HostName, HostLine> {
        &self.hosts
    }

    /// How often it is so that a host gets no bots of a platform because too many wait for the image there.
    pub fn crowded(&self) -> usize {
        let racks = self.shelves.values().flat_map(|shelf| shelf.racks.values());
        racks.filter(|rack| rack.crowded.is_some()).count()
    }

    fn change_named(&mut self, name: &SlotName, change: impl FnOnce(&mut Entry)) {
        if let Some(key) = self.keys.get(name).copied() {
            let left = self.change(key, change);
            self.got_on(left);
        }
    }

    /// Changes an entry, and says which line for an image it has left by that.
    fn change(&mut self, key: Key, change: impl FnOnce(&mut Entry)) -> Option<(HostName, String)> {
        let reserved = self.reserved.contains(&key);
        let entry = self.book.get_mut(key as usize).and_then(Option::as_mut)?;
        let shelf = self.shelves.get_mut(&entry.line.platform)?;
        let before = entry.awaited();
        shelf.unfile(entry, key, reserved);
        change(entry);
        shelf.file(entry, key, reserved);
        let after = entry.awaited();
        if before == after {
            return None;
        }
        let has_bot = matches!(entry.line.status, Some(SlotStatus::Deploying | SlotStatus::Busy));
        if let Some(rack) = shelf.racks.get_mut(&entry.line.host).filter(|_| after.is_none() && has_bot) {
            rack.without_image = false;
        }
        self.wait(after);
        if self.leave(before.as_ref()) {
            // Nobody is left who would let others in.
            self.got_on(before);
            return None;
        }
        before
    }

    /// One more waits for this image.
    fn wait(&mut self, awaited: Option<(HostName, String)>) {
        if let Some(awaited) = awaited {
            *self.pulling.entry(awaited).or_default() += 1;
        }
    }

    /// One that waited for this image waits no more; says whether it was the last.
    fn leave(&mut self, awaited: Option<&(HostName, String)>) -> bool {
        let Some(awaited) = awaited else { return false };
        let Some(count) = self.pulling.get_mut(awaited) else { return false };
        *count -= 1;
        let was_last = *count == 0;
        if was_last {
            self.pulling.remove(awaited);
        }
        was_last
    }

    /// There is room for another to wait for this image, of any platform.
    fn got_on(&mut self, awaited: Option<(HostName, String)>) {
        let Some((host, image)) = awaited else { return };
        for rack in self.shelves.values_mut().filter_map(|shelf| shelf.racks.get_mut(&host)) {
            rack.crowded.take_if(|crowded| *crowded == image);
        }
    }
}

#[cfg(test)]
#[path = "index_test.rs"]
mod tests;
