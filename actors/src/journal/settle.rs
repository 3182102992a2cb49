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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bot::Bot;
    use crate::ids::{BotId, SlotName};
    use crate::journal::Change;
    use crate::ports::Rows;
    use crate::recording::Recording;
    use crate::slot::Slot;
    use async_trait::async_trait;
    use std::ops::Range;
    use std::sync::Mutex;

    /// Refuses whatever holds bot 2's row; counts what it took.
    #[derive(Default)]
    struct Picky {
        taken: Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl Store for Picky {
        async fn commit(&self, _: BatchNo, decisions: &[Decision]) -> Result<(), StoreError> {
            if decisions.iter().flatten().any(|change| *change == Change::DeleteQueueEntry(BotId(2))) {
                return Err(StoreError::Refused("bot 2".to_owned()));
            }
            self.taken.lock().expect("whole").push(decisions.len());
            Ok(())
        }

        async fn was_committed(&self, _: BatchNo) -> Result<bool, StoreError> {
            Ok(false)
        }

        async fn load(&self) -> Result<Rows, StoreError> {
            Ok(Rows::default())
        }

        async fn read_slot(&self, _: &SlotName) -> Result<Option<Slot>, StoreError> {
            Ok(None)
        }

        async fn read_bot(&self, _: BotId) -> Result<Option<Bot>, StoreError> {
            Ok(None)
        }

        async fn read_recording(&self, _: BotId) -> Result<Option<Recording>, StoreError> {
            Ok(None)
        }

        async fn reserve_bot_ids(&self, _: u32) -> Result<Range<i64>, StoreError> {
            Ok(0..0)
        }
    }

    #[test]
    fn only_the_culprit_of_a_refused_batch_fails() {
        let store = Picky::default();
        let decisions: Vec<Decision> =
            (1..=3).map(|bot| vec![Change::DeleteQueueEntry(BotId(bot))]).collect();
        let outcomes = actix::System::new()
            .block_on(async { settle(&store, &mut BatchNumbers::default(), &decisions).await });
        let failed: Vec<bool> = outcomes.iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, true, false]);
        assert_eq!(*store.taken.lock().expect("whole"), [1, 1]);
    }
}
