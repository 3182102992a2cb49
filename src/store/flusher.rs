//! Makes what the Journal has committed proof against a crash of the database. Its batches commit without waiting for
//! the disk; one flush on a second connection then serves all that were committed before it began, while the next batch
//! is being written.

use super::database::{Connection, Database};
use super::link::Failure;
use meeboter_actors::ports::BatchNo;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio_postgres::{Error, Statement};

/// A transaction of one record and no row. PostgreSQL writes its log in order, so when this one's commit is on disk,
/// so is every commit before it.
pub(super) const FLUSH: &str = "SELECT FROM pg_logical_emit_message(true, 'meeboter', '')";
/// For a session whose commits wait for the disk, whatever the database's default is; one that waits for more stays.
pub(super) const SYNCHRONOUS: &str = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
const SESSION: &str = "SET statement_timeout = '4s'";

/// See the module. While its connection stands the database has not crashed, and what was committed since it was made
/// is there; when it is lost, what was not flushed may be gone. It may outlive the connections that the batches come by.
pub(super) struct Flusher {
    connection: Connection,
    flush: Statement,
    committed: Mutex<Committed>,
    /// How many of the committed ones are durable. Held while a flush is under way.
    flushed: tokio::sync::Mutex<u64>,
    given_up: AtomicBool,
}

/// Batches that are known to be there, in the order in which that became known, counted from 1.
#[derive(Default)]
struct Committed {
    count: u64,
    unflushed: BTreeMap<BatchNo, u64>,
}

impl Flusher {
    pub(super) async fn connect(database: &Database) -> Result<Self, Failure> {
        let connection = database.connect().await?;
        connection.client.batch_execute(SESSION).await?;
        connection.client.batch_execute(SYNCHRONOUS).await?;
        let flush = connection.client.prepare(FLUSH).await?;
        Ok(Self {
            connection,
            flush,
            committed: Mutex::default(),
            flushed: tokio::sync::Mutex::new(0),
            given_up: AtomicBool::new(false),
        })
    }

    /// Its connection stands, and does not answer: nobody waits for it any more.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.connection.client.is_closed() || self.given_up.load(Ordering::Relaxed)
    }

    /// Notes that a batch is there.
    pub(super) fn note_committed(&self, batch: BatchNo) {
        let mut committed = self.committed();
        committed.count += 1;
        let count = committed.count;
        committed.unflushed.insert(batch, count);
    }

    /// Comes back when the batch is durable; one that was never noted here may be lost.
    pub(super) async fn flush(&self, batch: BatchNo) -> Result<(), Failure> {
        let wanted = self.committed().unflushed.get(&batch).copied().ok_or(Failure::Unflushed(batch))?;
        self.flush_through(wanted).await?;
        self.committed().unflushed.remove(&batch);
        Ok(())
    }

    /// Comes back when everything is durable that was committed before this call.
    pub(super) async fn flush_all(&self) -> Result<(), Failure> {
        let wanted = {
            let mut committed = self.committed();
            committed.count += 1;
            committed.count
        };
        Ok(self.flush_through(wanted).await?)
    }

    async fn flush_through(&self, wanted: u64) -> Result<(), Error> {
        let mut flushed = self.flushed.lock().await;
        if *flushed < wanted {
            let committed = self.committed().count;
            self.connection.client.execute(&self.flush, &[]).await?;
            *flushed = committed;
        }
        Ok(())
    }

    fn committed(&self) -> MutexGuard<'_, Committed> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
