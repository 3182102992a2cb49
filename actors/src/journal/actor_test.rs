use super::*;
use crate::journal::Change;
use crate::ports::{Rows, StoreError, Unmetered};
use async_trait::async_trait;
use std::sync::{Mutex, MutexGuard};
use std::task::Poll;
use tokio::sync::Notify;

/// Commits at once, and flushes what it is told to.
#[derive(Default)]
struct Slow {
    seen: Mutex<Seen>,
    changed: Notify,
}

#[derive(Default)]
struct Seen {
    committed: Vec<(BatchNo, usize)>,
    flushed: BTreeSet<BatchNo>,
    reads: usize,
}

impl Slow {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("whole")
    }

    /// Reads, and batches committed.
    fn counts(&self) -> (usize, usize) {
        let seen = self.seen();
        (seen.reads, seen.committed.len())
    }

    fn let_flush(&self, batch: i64) {
        self.seen().flushed.insert(BatchNo(batch));
        self.changed.notify_waiters();
    }
}

#[async_trait]
impl Store for Slow {
    async fn commit(&self, batch: BatchNo, decisions: &[Decision]) -> Result<(), StoreError> {
        self.seen().committed.push((batch, decisions.len()));
        Ok(())
    }

    async fn flush(&self, batch: BatchNo) -> Result<(), StoreError> {
        loop {
            let changed = self.changed.notified();
            if self.seen().flushed.contains(&batch) {
                return Ok(());
            }
            changed.await;
        }
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
        self.seen().reads += 1;
        Ok(None)
    }

    async fn read_recording(&self, _: BotId) -> Result<Option<Recording>, StoreError> {
        Ok(None)
    }

    async fn reserve_bot_ids(&self, count: u32) -> Result<Range<i64>, StoreError> {
        Ok(0..i64::from(count))
    }
}

fn run<W: Future<Output = ()>>(test: impl FnOnce(Arc<Slow>, Journal) -> W) {
    actix::System::new().block_on(async {
        let store = Arc::new(Slow::default());
        let guard = DeathGuard::new(|| {});
        let durable = Arc::clone(&store) as Arc<dyn Store>;
        let actor = JournalActor::new(durable, Arc::new(|| {}), Arc::new(Unmetered), guard);
        test(store, Journal::new(actor.start())).await;
    });
}

/// A decision that touches one row.
fn decision(row: i64) -> Decision {
    vec![Change::DeleteQueueEntry(BotId(row))]
}

/// Lets the actors do all that they can do by themselves.
async fn come_to_rest() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn the_next_batch_is_written_while_one_is_flushed_and_they_are_answered_in_order() {
    run(async |store, journal| {
        let mut first = Box::pin(journal.submit(decision(1)));
        come_to_rest().await;
        let mut second = Box::pin(journal.submit(decision(2)));
        come_to_rest().await;
        assert_eq!(store.seen().committed, [(BatchNo(1), 1), (BatchNo(2), 1)]);
        store.let_flush(2);
        come_to_rest().await;
        assert!(matches!(futures_util::poll!(&mut second), Poll::Pending), "the first is not known yet");
        store.let_flush(1);
        come_to_rest().await;
        assert_eq!(futures_util::poll!(&mut first), Poll::Ready(Ok(())));
        assert_eq!(futures_util::poll!(&mut second), Poll::Ready(Ok(())));
    });
}

#[test]
fn a_row_is_in_one_batch_at_a_time() {
    run(async |store, journal| {
        let first = journal.submit(decision(1));
        come_to_rest().await;
        let (again, behind) = (journal.submit(decision(1)), journal.submit(decision(2)));
        come_to_rest().await;
        assert_eq!(store.seen().committed, [(BatchNo(1), 1)], "the row may come back yet");
        store.let_flush(1);
        store.let_flush(2);
        assert_eq!((first.await, again.await, behind.await), (Ok(()), Ok(()), Ok(())));
        assert_eq!(store.seen().committed, [(BatchNo(1), 1), (BatchNo(2), 2)]);
    });
}

#[test]
fn a_read_sees_everything_submitted_before_it() {
    run(async |store, journal| {
        let written = journal.submit(decision(1));
        let (read, behind) = (journal.read_bot(BotId(1)), journal.submit(decision(2)));
        come_to_rest().await;
        assert_eq!(store.counts(), (0, 1));
        store.let_flush(1);
        store.let_flush(2);
        assert_eq!((written.await, read.await, behind.await), (Ok(()), Ok(None), Ok(())));
        assert_eq!(store.counts(), (1, 2));
    });
}

#[test]
fn no_more_batches_are_under_way_than_can_be_looked_up() {
    run(async |store, journal| {
        let mut waiting = Vec::new();
        for row in 0..20 {
            waiting.push(journal.submit(decision(row)));
            come_to_rest().await;
        }
        assert_eq!(store.seen().committed.len(), UNSETTLED_MAX);
        (1..=20).for_each(|batch| store.let_flush(batch));
        for outcome in waiting {
            assert_eq!(outcome.await, Ok(()));
        }
        let sizes: Vec<usize> = store.seen().committed.iter().map(|(_, size)| *size).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 20);
        assert_eq!(sizes.len(), UNSETTLED_MAX + 1, "those that had to wait went together");
    });
}
