//! The real store, with an eye on what is written through it. What is looked for is the observer's.

use async_trait::async_trait;
use meeboter::store::journal::JournalConnection;
use meeboter_actors::bot::Bot;
use meeboter_actors::ids::{BotId, SlotName};
use meeboter_actors::journal::Decision;
use meeboter_actors::ports::{BatchNo, Rows, Store, StoreError};
use meeboter_actors::recording::Recording;
use meeboter_actors::slot::Slot;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Who looks.
pub trait Observer: Send + 'static {
    /// A batch that began to be written then is there; it may be lost yet.
    fn committed(&mut self, batch: BatchNo, began: Instant, decisions: &[Decision]);
    /// It is durable.
    fn flushed(&mut self, batch: BatchNo);
}

pub struct ObservedStore<O> {
    inner: JournalConnection,
    observer: Mutex<O>,
}

impl<O> ObservedStore<O> {
    pub fn new(inner: JournalConnection, observer: O) -> Self {
        Self { inner, observer: Mutex::new(observer) }
    }

    pub fn observer(&self) -> MutexGuard<'_, O> {
        self.observer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<O: Observer> Store for ObservedStore<O> {
    async fn commit(&self, batch: BatchNo, decisions: &[Decision]) -> Result<(), StoreError> {
        let began = Instant::now();
        self.inner.commit(batch, decisions).await?;
        self.observer().committed(batch, began, decisions);
        Ok(())
    }

    async fn flush(&self, batch: BatchNo) -> Result<(), StoreError> {
        self.inner.flush(batch).await?;
        self.observer().flushed(batch);
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
