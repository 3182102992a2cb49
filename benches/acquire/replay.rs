//! The store alone: one writer gives it decisions that were made before, in batches. No actor, nobody who waits.

use anyhow::Result;
use futures_util::future::try_join;
use meeboter::store::journal::JournalConnection;
use meeboter_actors::journal::{Change, Decision};
use meeboter_actors::ports::{BatchNo, Store};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Batches that are committed and not flushed yet, at most: as the Journal has it.
const UNFLUSHED: usize = 8;

pub(crate) struct Replay {
    journal: JournalConnection,
    last: i64,
}

impl Replay {
    pub(crate) fn new(journal: JournalConnection) -> Self {
        Self { journal, last: 0 }
    }

    /// Commits all of them in their order, so many in a batch as long as no row is in it twice; returns the time that
    /// the commits took.
    pub(crate) async fn run(&mut self, decisions: Vec<Decision>, batch: usize) -> Result<Duration> {
        let batches = batches(decisions, batch);
        let (journal, last) = (&self.journal, &mut self.last);
        let began = Instant::now();
        let (committed, mut unflushed) = mpsc::channel(UNFLUSHED);
        let write = async {
            // Dropped at the end, so that the flushing ends too.
            let committed = committed;
            for decisions in &batches {
                *last += 1;
                journal.commit(BatchNo(*last), decisions).await?;
                committed.send(BatchNo(*last)).await?;
            }
            anyhow::Ok(())
        };
        let flush = async {
            while let Some(batch) = unflushed.recv().await {
                journal.flush(batch).await?;
            }
            anyhow::Ok(())
        };
        try_join(write, flush).await?;
        Ok(began.elapsed())
    }
}

fn batches(decisions: Vec<Decision>, size: usize) -> Vec<Vec<Decision>> {
    let mut batches = Vec::new();
    let (mut batch, mut rows) = (Vec::new(), BTreeSet::new());
    for decision in decisions {
        let keys: Vec<_> = decision.iter().filter_map(Change::row).collect();
        if batch.len() >= size || keys.iter().any(|key| rows.contains(key)) {
            batches.push(std::mem::take(&mut batch));
            rows.clear();
        }
        rows.extend(keys);
        batch.push(decision);
    }
    batches.push(batch);
    batches
}
