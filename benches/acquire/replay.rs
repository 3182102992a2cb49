//! The store alone: one writer gives it decisions that were made before, in batches. No actor, nobody who waits.

use anyhow::Result;
use meeboter::store::journal::JournalConnection;
use meeboter_actors::journal::{Change, Decision};
use meeboter_actors::ports::{BatchNo, Store};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

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
        let began = Instant::now();
        for decisions in &batches {
            self.last += 1;
            self.journal.commit(BatchNo(self.last), decisions).await?;
        }
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
