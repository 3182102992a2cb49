use super::*;
use crate::bot::Bot;
use crate::ids::{BotId, SlotName};
use crate::journal::Change;
use crate::ports::Rows;
use crate::recording::Recording;
use crate::slot::Slot;
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

/// Refuses whatever holds bot 2's row, and loses what it took as often as it is told to.
#[derive(Default)]
struct Moody(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Sizes of what was taken, in order.
    taken: Vec<usize>,
    there: BTreeSet<BatchNo>,
    durable: BTreeSet<BatchNo>,
    losses: u32,
}

impl Moody {
    fn rows(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("whole")
    }
}

#[async_trait]
impl Store for Moody {
    async fn commit(&self, batch: BatchNo, decisions: &[Decision]) -> Result<(), StoreError> {
        if decisions.iter().flatten().any(|change| *change == Change::DeleteQueueEntry(BotId(2))) {
            return Err(StoreError::Refused("bot 2".to_owned()));
        }
        let mut rows = self.rows();
        rows.taken.push(decisions.len());
        rows.there.insert(batch);
        Ok(())
    }

    async fn flush(&self, batch: BatchNo) -> Result<(), StoreError> {
        let mut rows = self.rows();
        if rows.losses > 0 {
            rows.losses -= 1;
            rows.there = rows.durable.clone();
            return Err(StoreError::Unavailable("the database crashed".to_owned()));
        }
        assert!(rows.there.contains(&batch), "{batch:?} is flushed and is not there");
        rows.durable = rows.there.clone();
        Ok(())
    }

    async fn was_committed(&self, batch: BatchNo) -> Result<bool, StoreError> {
        Ok(self.rows().there.contains(&batch))
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

fn settle(store: &Moody, bots: std::ops::RangeInclusive<i64>) -> Vec<Result<(), CommitError>> {
    let decisions: Vec<Decision> = bots.map(|bot| vec![Change::DeleteQueueEntry(BotId(bot))]).collect();
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime")
    });
    system.block_on(async {
        let numbers = BatchNumbers::default();
        let written = write(store, numbers.next(), &numbers, &decisions).await;
        flush(store, written, &decisions).await
    })
}

#[test]
fn only_the_culprit_of_a_refused_batch_fails() {
    let store = Moody::default();
    let failed: Vec<bool> = settle(&store, 1..=3).iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, true, false]);
    assert_eq!(store.rows().taken, [1, 1]);
}

#[test]
fn what_was_written_and_lost_before_it_was_flushed_is_written_again() {
    let store = Moody(Mutex::new(Kept { losses: 2, ..Kept::default() }));
    let outcomes = settle(&store, 3..=4);
    assert_eq!(outcomes, [Ok(()), Ok(())]);
    assert_eq!(store.rows().taken, [2, 2, 2], "once, and once for each loss");
    assert_eq!(store.rows().durable, [BatchNo(1)].into(), "under the number that it had");
}
