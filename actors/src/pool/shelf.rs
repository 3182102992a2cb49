//! What the index keeps of one platform: its idle slots, host by host, in the order in which they are given away, and how
//! many there are of which kind. Pure: no actor, no clock.

use super::index::SlotLine;
use super::numbers::FreeNumbers;
use crate::ids::{HostName, SlotName};
use crate::slot::{DeployStep, Slot, SlotState, SlotStatus};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};

/// A slot's place in the book.
pub(super) type Key = u32;

/// Sorts the idle slots of a platform: the least comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) unwanted_image: bool,
    /// Microseconds since the epoch; the least there is where it was never used.
    pub(super) last_used_us: i64,
    pub(super) number: u32,
    pub(super) key: Key,
}

/// What is kept of a slot.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// All but whether it is reserved.
    pub(super) line: SlotLine,
    /// The number that its name is made of; 0 where it is made in another way.
    pub(super) number: u32,
    /// It waits for its image.
    pub(super) pulling: bool,
    /// What was made for its next bot could not be removed: until it is, a start would fail.
    pub(super) stuck: bool,
}

impl Entry {
    /// What is kept of this slot.
    pub(super) fn new(slot: &Slot) -> Self {
        let line = SlotLine {
            name: slot.name.clone(),
            platform: slot.platform.clone(),
            host: slot.host.clone(),
            image: slot.image.clone(),
            status: slot.status(),
            last_used_at: last_used(slot),
            reserved: false,
            draining: slot.drains.any(),
            stored: slot.version > 0,
        };
        let number = line.name.number();
        let is_usual = SlotName::new(&line.platform, number) == line.name;
        let number = if is_usual { number } else { 0 };
        Self { line, number, pulling: waits_for_image(slot), stuck: is_stuck(slot) }
    }

    /// What may change about a slot.
    pub(super) fn take_in(&mut self, slot: &Slot) {
        let Self { line, pulling, stuck, .. } = self;
        line.image.clone_from(&slot.image);
        line.status = slot.status();
        line.last_used_at = last_used(slot).or(line.last_used_at);
        line.draining = slot.drains.any();
        line.stored = slot.version > 0;
        *pulling = waits_for_image(slot);
        *stuck = is_stuck(slot);
    }

    /// The image that it waits for, and where.
    pub(super) fn awaited(&self) -> Option<(HostName, String)> {
        self.pulling.then(|| (self.line.host.clone(), self.line.image.clone()))
    }
}

/// What is known of a platform on one host.
#[derive(Debug, Clone, Default)]
pub(super) struct Rack {
    pub(super) idle: BTreeSet<Turn>,
    /// Slots in error.
    pub(super) errors: u32,
    /// So many slots of the host wait for this image that one more was refused, since when none has got on.
    pub(super) crowded: Option<String>,
    /// Its image was wanted ahead of need and is not known to have come since.
    pub(super) without_image: bool,
}

/// What is known of a platform.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    /// `None`: not served any more.
    pub(super) served: Option<Limits>,
    /// By host, of which there are few.
    pub(super) racks: BTreeMap<HostName, Rack>,
    pub(super) free_numbers: FreeNumbers,
    pub(super) slots: u32,
    /// Stored slots by state, in the order of [`STATUSES`].
    pub(super) stored: [u32; STATUSES.len()],
}

/// What a platform may have, and of which image its slots are to be.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) max_size: u32,
    pub(super) image: String,
}

/// What stored slots are counted by.
pub(super) const STATUSES: [SlotStatus; 4] =
    [SlotStatus::Idle, SlotStatus::Deploying, SlotStatus::Busy, SlotStatus::Error];

impl Shelf {
    /// Where a slot that is not reserved stands among the idle ones, if it may be given away.
    pub(super) fn turn(&self, Entry { line, number, stuck, .. }: &Entry, key: Key) -> Option<Turn> {
        let free = line.status == Some(SlotStatus::Idle) && !line.draining && !stuck;
        free.then(|| Turn {
            unwanted_image: self.served.as_ref().is_none_or(|limits| limits.image != line.image),
            last_used_us: line.last_used_at.map_or(i64::MIN, |at| at.timestamp_micros()),
            number: *number,
            key,
        })
    }

    /// Takes a slot in where it stands.
    pub(super) fn file(&mut self, entry: &Entry, key: Key, reserved: bool) {
        let turn = self.turn(entry, key).filter(|_| !reserved);
        if let Some(rack) = self.racks.get_mut(&entry.line.host) {
            rack.idle.extend(turn);
            rack.errors += u32::from(entry.line.status == Some(SlotStatus::Error));
        }
        if let Some(count) = self.count_of(&entry.line) {
            *count += 1;
        }
    }

    /// Takes a slot out from where it stood.
    pub(super) fn unfile(&mut self, entry: &Entry, key: Key, reserved: bool) {
        let turn = self.turn(entry, key).filter(|_| !reserved);
        if let Some(rack) = self.racks.get_mut(&entry.line.host) {
            turn.map(|turn| rack.idle.remove(&turn));
            rack.errors -= u32::from(entry.line.status == Some(SlotStatus::Error));
        }
        if let Some(count) = self.count_of(&entry.line) {
            *count -= 1;
        }
    }

    fn count_of(&mut self, line: &SlotLine) -> Option<&mut u32> {
        let status = line.status.unwrap_or(SlotStatus::Error);
        let at = STATUSES.iter().position(|known| *known == status).filter(|_| line.stored)?;
        self.stored.get_mut(at)
    }
}

fn waits_for_image(slot: &Slot) -> bool {
    matches!(slot.state, SlotState::Deploying { step: DeployStep::Pulling | DeployStep::Resuming, .. })
}

/// Whether what was made for a free slot's next bot could not be removed.
pub(super) fn is_stuck(slot: &Slot) -> bool {
    matches!(&slot.state, SlotState::Idle { ahead, .. } if ahead.is_stuck())
}

fn last_used(slot: &Slot) -> Option<DateTime<Utc>> {
    match slot.state {
        SlotState::Idle { last_used_at, .. } => last_used_at,
        _ => None,
    }
}
