//! The real store, with an eye on what it commits: when slots became free, when bots were granted one, in which order.

use super::figures::Figures;
use async_trait::async_trait;
use meeboter::store::journal::JournalConnection;
use meeboter_actors::bot::Bot;
use meeboter_actors::ids::{BotId, SlotName};
use meeboter_actors::journal::{Change, Decision};
use meeboter_actors::ports::{BatchNo, Rows, Store, StoreError};
use meeboter_actors::queue::QueueEntry;
use meeboter_actors::queue::order::Place;
use meeboter_actors::recording::Recording;
use meeboter_actors::slot::{Slot, SlotState};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub struct WatchedStore {
    inner: JournalConnection,
    seen: Mutex<Seen>,
}

/// What was seen.
#[derive(Default)]
pub struct Seen {
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

impl WatchedStore {
    pub fn new(inner: JournalConnection, queue: &[(QueueEntry, Bot)]) -> Self {
        let places = queue.iter().map(|(entry, _)| (entry.bot_id, entry.place())).collect();
        Self { inner, seen: Mutex::new(Seen { left: queue.len(), places, ..Seen::default() }) }
    }

    /// From here on it counts.
    pub fn forget(&self) {
        let mut seen = self.seen();
        (seen.grants, seen.commits, seen.inversions) = Default::default();
    }

    pub fn granted(&self) -> usize {
        self.seen().grants.count()
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// What is flushed is flushed with all that was committed before it.
    fn durable_through(&mut self, batch: BatchNo) {
        let later = self.written.split_off(&BatchNo(batch.0 + 1));
        for (began, decisions) in std::mem::replace(&mut self.written, later).into_values() {
            self.committed(&decisions, began);
        }
    }

    fn committed(&mut self, decisions: &[Decision], began: Instant) {
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

#[async_trait]
impl Store for WatchedStore {
    async fn commit(&self, batch: BatchNo, decisions: &[Decision]) -> Result<(), StoreError> {
        let began = Instant::now();
        self.inner.commit(batch, decisions).await?;
        self.seen().written.insert(batch, (began, decisions.to_vec()));
        Ok(())
    }

    async fn flush(&self, batch: BatchNo) -> Result<(), StoreError> {
        self.inner.flush(batch).await?;
        self.seen().durable_through(batch);
        Ok(())
    }

    async fn was_committed(&self, batch: BatchNo) -> Result<bool, StoreError> {
        self.inner.was_committed(batch).await
    }

    async fn load(&self) -> Result<Rows, StoreError> {
        self.inner.load().await
    }

    async fn read_slot(&self, name: &SlotName) -> Result<Option<Slot>, StoreError> {
        self.inner.read_slot(name).await
    }

    async fn read_bot(&self, id: BotId) -> Result<Option<Bot>, StoreError> {
        self.inner.read_bot(id).await
    }

    async fn read_recording(&self, id: BotId) -> Result<Option<Recording>, StoreError> {
        self.inner.read_recording(id).await
    }

    async fn reserve_bot_ids(&self, count: u32) -> Result<Range<i64>, StoreError> {
        self.inner.reserve_bot_ids(count).await
    }
}
