//! The real store, which counts slots that become idle for good, and keeps what it commits where it is told to.

use async_trait::async_trait;
use meeboter::store::journal::JournalConnection;
use meeboter_actors::bot::Bot;
use meeboter_actors::ids::{BotId, SlotName};
use meeboter_actors::journal::{Change, Decision};
use meeboter_actors::ports::{BatchNo, Rows, Store, StoreError};
use meeboter_actors::recording::Recording;
use meeboter_actors::slot::{Slot, SlotState};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) struct RecordedStore {
    inner: JournalConnection,
    keeps: bool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Committed, and not flushed yet: how many slots are idle, and, if it is kept, what was written.
    written: BTreeMap<BatchNo, (usize, Vec<Decision>)>,
    freed: u64,
    decisions: Vec<Decision>,
}

impl RecordedStore {
    /// A number of a batch that the Journal, which counts from 1, will not use.
    pub(crate) const FIRST: BatchNo = BatchNo(0);

    pub(crate) fn new(inner: JournalConnection, keeps: bool) -> Self {
        Self { inner, keeps, seen: Mutex::default() }
    }

    /// Slots that became idle so far.
    pub(crate) fn freed(&self) -> u64 {
        self.seen().freed
    }

    /// What was kept since the last call, in order.
    pub(crate) fn forget(&self) -> Vec<Decision> {
        std::mem::take(&mut self.seen().decisions)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for RecordedStore {
    async fn commit(&self, batch: BatchNo, decisions: &[Decision]) -> Result<(), StoreError> {
        self.inner.commit(batch, decisions).await?;
        let is_idle = |change: &&Change| matches!(change, Change::WriteSlot(slot) if matches!(slot.state, SlotState::Idle { .. }));
        let idle = decisions.iter().flatten().filter(is_idle).count();
        let kept = if self.keeps { decisions.to_vec() } else { Vec::new() };
        self.seen().written.insert(batch, (idle, kept));
        Ok(())
    }

    async fn flush(&self, batch: BatchNo) -> Result<(), StoreError> {
        self.inner.flush(batch).await?;
        let mut seen = self.seen();
        if let Some((idle, decisions)) = seen.written.remove(&batch) {
            seen.freed += idle as u64;
            seen.decisions.extend(decisions);
        }
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
