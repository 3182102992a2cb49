//! Carries a batch through whatever happens to it until every decision's outcome is known.
//!
//! Two steps: the batch is written, and the next one may be; then it is flushed, and whoever submitted is answered. The
//! rules: a batch whose fate is unknown is looked up by its number before it is sent again; a batch that the store
//! refuses is replayed decision by decision, each under its own number, so that only the culprit fails; what was
//! written and cannot be flushed may be lost, and is looked up again.

use super::{CommitError, Decision};
use crate::ports::{BatchNo, Store, StoreError};
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(2);

/// Hands out batch numbers, counted up within this process's leadership.
#[derive(Debug, Default)]
pub struct BatchNumbers(AtomicI64);

impl BatchNumbers {
    /// The next one.
    pub fn next(&self) -> BatchNo {
        BatchNo(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The last one that was handed out; 0: none.
    pub fn last(&self) -> BatchNo {
        BatchNo(self.0.load(Ordering::Relaxed))
    }
}

/// Decisions that the store has taken or refused, but could lose yet.
pub struct Written {
    /// The numbers that they went under, with which of them.
    parts: Vec<(BatchNo, Range<usize>, Result<(), CommitError>)>,
}

/// Writes the decisions under this number, or, where they are refused together, each under one of its own. Comes back
/// only when the store has taken or refused each, however long it is away.
pub async fn write(
    store: &dyn Store,
    number: BatchNo,
    numbers: &BatchNumbers,
    decisions: &[Decision],
) -> Written {
    let outcome = write_known(store, number, decisions).await;
    if decisions.len() == 1 || !matches!(outcome, Err(CommitError::Conflict(_))) {
        return Written { parts: vec![(number, 0..decisions.len(), outcome)] };
    }
    let mut parts = Vec::with_capacity(decisions.len());
    for (index, decision) in decisions.iter().enumerate() {
        let number = numbers.next();
        let outcome = write_known(store, number, std::slice::from_ref(decision)).await;
        parts.push((number, index..index + 1, outcome));
    }
    Written { parts }
}

/// Makes what was written durable; returns one outcome for each decision, in order.
pub async fn flush(
    store: &dyn Store,
    written: Written,
    decisions: &[Decision],
) -> Vec<Result<(), CommitError>> {
    let mut outcomes = Vec::with_capacity(decisions.len());
    for (number, range, mut outcome) in written.parts {
        if outcome.is_ok() {
            outcome = flush_known(store, number, decisions.get(range.clone()).unwrap_or_default()).await;
        }
        outcomes.extend(range.map(|_| outcome.clone()));
    }
    outcomes
}

async fn write_known(store: &dyn Store, batch: BatchNo, decisions: &[Decision]) -> Result<(), CommitError> {
    let mut backoff = BACKOFF_FIRST;
    loop {
        match store.commit(batch, decisions).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Refused(why)) => return Err(CommitError::Conflict(why)),
            Err(StoreError::Deposed) => return Err(CommitError::Deposed),
            Err(StoreError::Unavailable(_)) => {}
        }
        if was_committed(store, batch, &mut backoff).await? {
            return Ok(());
        }
    }
}

async fn flush_known(store: &dyn Store, batch: BatchNo, decisions: &[Decision]) -> Result<(), CommitError> {
    let mut backoff = BACKOFF_FIRST;
    loop {
        match store.flush(batch).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Deposed) => return Err(CommitError::Deposed),
            Err(StoreError::Unavailable(_) | StoreError::Refused(_)) => {}
        }
        if !was_committed(store, batch, &mut backoff).await? {
            write_known(store, batch, decisions).await?;
        }
    }
}

/// Looks a batch up until there is an answer, a pause before each look.
async fn was_committed(
    store: &dyn Store,
    batch: BatchNo,
    backoff: &mut Duration,
) -> Result<bool, CommitError> {
    loop {
        tokio::time::sleep(*backoff).await;
        *backoff = (*backoff * 2).min(BACKOFF_LAST);
        match store.was_committed(batch).await {
            Ok(there) => return Ok(there),
            Err(StoreError::Deposed) => return Err(CommitError::Deposed),
            Err(StoreError::Unavailable(_) | StoreError::Refused(_)) => {}
        }
    }
}

/// Repeats a read until the store answers it.
pub(super) async fn read_known<T, F>(mut read: impl FnMut() -> F) -> Result<T, CommitError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = BACKOFF_FIRST;
    loop {
        match read().await {
            Ok(value) => return Ok(value),
            Err(StoreError::Deposed) => return Err(CommitError::Deposed),
            Err(StoreError::Refused(why)) => return Err(CommitError::Conflict(why)),
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(backoff).await,
        }
        backoff = (backoff * 2).min(BACKOFF_LAST);
    }
}

#[cfg(test)]
#[path = "settle_test.rs"]
mod tests;
