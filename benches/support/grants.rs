//! What is seen of a queue that is served: when slots became free, when bots were granted one, in which order.

use super::figures::Figures;
use super::observed_store::Observer;
use meeboter_actors::bot::Bot;
use meeboter_actors::ids::{BotId, SlotName};
use meeboter_actors::journal::{Change, Decision};
use meeboter_actors::ports::BatchNo;
use meeboter_actors::queue::QueueEntry;
use meeboter_actors::queue::order::Place;
use meeboter_actors::slot::{Slot, SlotState};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// See the module.
#[derive(Default)]
pub struct Grants {
    /// From the moment that a free slot's commit was known until the next bot's was.
    pub grants: Figures,
    /// What each commit took.
    pub commits: Figures,
    /// Bots that were granted a slot although one before them in the line was granted one only in a later commit.
    pub inversions: usize,
    /// Bots that wait yet.
    pub left: usize,
    /// Committed, and not flushed yet: since when, and what.
    written: BTreeMap<BatchNo, (Instant, Vec<Decision>)>,
    places: HashMap<BotId, Place>,
    free_since: BTreeMap<SlotName, Instant>,
    /// The last place that was granted.
    last: Option<Place>,
}

impl Grants {
    /// Of bots that wait in this line.
    pub fn of(queue: &[(QueueEntry, Bot)]) -> Self {
        let places = queue.iter().map(|(entry, _)| (entry.bot_id, entry.place())).collect();
        Self { left: queue.len(), places, ..Self::default() }
    }

    /// From here on it counts.
    pub fn forget(&mut self) {
        (self.grants, self.commits, self.inversions) = Default::default();
    }

    fn durable(&mut self, decisions: &[Decision], began: Instant) {
        let now = Instant::now();
        self.commits.add(now - began);
        let before = self.last;
        for decision in decisions {
            let slot = decision.iter().find_map(|change| match change {
                Change::WriteSlot(slot) => Some(slot),
                _ => None,
            });
            let taken = decision.iter().find_map(|change| match change {
                Change::DeleteQueueEntry(bot) => Some(*bot),
                _ => None,
            });
            match (slot, taken) {
                (Some(slot), Some(bot)) => self.granted(slot, bot, before, now),
                (Some(slot), None) if matches!(slot.state, SlotState::Idle { .. }) => {
                    self.free_since.insert(slot.name.clone(), now);
                }
                _ => {}
            }
        }
    }

    fn granted(&mut self, slot: &Slot, bot: BotId, before: Option<Place>, now: Instant) {
        self.left -= 1;
        if let Some(since) = self.free_since.remove(&slot.name) {
            self.grants.add(now - since);
        }
        let Some(place) = self.places.remove(&bot) else { return };
        if before.is_some_and(|before| place < before) {
            self.inversions += 1;
        }
        self.last = self.last.max(Some(place));
    }
}

impl Observer for Grants {
    fn committed(&mut self, batch: BatchNo, began: Instant, decisions: &[Decision]) {
        self.written.insert(batch, (began, decisions.to_vec()));
    }

    /// What is flushed is flushed with all that was committed before it.
    fn flushed(&mut self, batch: BatchNo) {
        let later = self.written.split_off(&BatchNo(batch.0 + 1));
        for (began, decisions) in std::mem::replace(&mut self.written, later).into_values() {
            self.durable(&decisions, began);
        }
    }
}
