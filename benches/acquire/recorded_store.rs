//! The real store, which keeps what it commits, and says when a slot is idle for good.

use async_trait::async_trait;
use meeboter::store::journal::JournalConnection;
use meeboter_actors::bot::Bot;
use meeboter_actors::ids::{BotId, SlotName};
use meeboter_actors::journal::{Change, Decision};
use meeboter_actors::ports::{BatchNo, Rows, Store, StoreError};
use meeboter_actors::recording::Recording;
use meeboter_actors::slot::{Slot, SlotState};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

pub(crate) struct RecordedStore {
    inner: JournalConnection,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    decisions: Vec<Decision>,
    waiting: HashMap<SlotName, oneshot::Sender<()>>,
}

impl RecordedStore {
    /// A number of a batch that the Journal, which counts from 1, will not use.
    pub(crate) const FIRST: BatchNo = BatchNo(0);

    pub(crate) fn new(inner: JournalConnection) -> Self {
        Self { inner, seen: Mutex::default() }
    }

    /// Comes back when the slot's next idle state is committed.
    pub(crate) fn when_idle(&self, slot: &SlotName) -> oneshot::Receiver<()> {
        let (says, idle) = oneshot::channel();
        self.seen().waiting.insert(slot.clone(), says);
        idle
    }

    /// What was committed since the last call, in order.
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
        let mut seen = self.seen();
        for change in decisions.iter().flatten() {
            if let Change::WriteSlot(slot) = change
                && matches!(slot.state, SlotState::Idle { .. })
                && let Some(waiting) = seen.waiting.remove(&slot.name)
            {
                // Whoever waited may have given up.
                let _ = waiting.send(());
            }
        }
        seen.decisions.extend_from_slice(decisions);
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
