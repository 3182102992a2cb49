//! Carries a batch through whatever happens to it until every decision's outcome is known.
//!
//! The rules: a batch whose fate is unknown is looked up by its number before it is sent again; a batch that the
//! store refuses is replayed decision by decision, each under its own number, so that only the culprit fails.

use super::{CommitError, Decision};
use crate::ports::{BatchNo, Store, StoreError};
use std::time::Duration;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(2);

/// Hands out batch numbers, counted up within this process's leadership.
#[derive(Debug, Default)]
pub struct BatchNumbers(i64);

impl BatchNumbers {
    fn next(&mut self) -> BatchNo {
        self.0 += 1;
        BatchNo(self.0)
    }
}

/// Writes the decisions, together if possible; returns one outcome for each, in order. Comes back only when every
/// outcome is known, however long the store is away.
pub async fn settle(
    store: &dyn Store,
    numbers: &mut BatchNumbers,
    decisions: &[Decision],
) -> Vec<Result<(), CommitError>> {
    match commit_known(store, numbers.next(), decisions).await {
        Ok(()) => decisions.iter().map(|_| Ok(())).collect(),
        Err(CommitError::Deposed) => decisions.iter().map(|_| Err(CommitError::Deposed)).collect(),
        Err(conflict) if decisions.len() == 1 => vec![Err(conflict)],
        Err(CommitError::Conflict(_)) => {
            let mut outcomes = Vec::with_capacity(decisions.len());
            for decision in decisions {
                outcomes.push(commit_known(store, numbers.next(), std::slice::from_ref(decision)).await);
            }
            outcomes
        }
    }
}

async fn commit_known(store: &dyn Store, batch: BatchNo, decisions: &[Decision]) -> Result<(), CommitError> {
    let mut backoff = BACKOFF_FIRST;
    loop {
        match store.commit(batch, decisions).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Refused(why)) => return Err(CommitError::Conflict(why)),
            Err(StoreError::Deposed) => return Err(CommitError::Deposed),
            Err(StoreError::Unavailable(_)) => {}
        }
        loop {
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_LAST);
            match store.was_committed(batch).await {
                Ok(true) => return Ok(()),
                Ok(false) => break,
                Err(StoreError::Deposed) => return Err(CommitError::Deposed),
                Err(StoreError::Unavailable(_) | StoreError::Refused(_)) => {}
            }
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
