//! Work that is offered at a steady rate, whether or not earlier work is done. Each piece is timed from the moment that
//! it was due, so that whoever is slow cannot slow the clock down.

use super::figures::Figures;
use anyhow::Result;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

/// How much is offered, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    pub per_second: u32,
    pub duration: Duration,
}

/// What came of it.
pub struct Outcome<T> {
    /// What was done, and how long it took from the moment that it was due.
    pub done: Vec<(Duration, T)>,
    /// How old was what was given up.
    pub undone: Figures,
    /// From the moment that a piece was due until it was begun: this program's own delay.
    pub late: Figures,
}

impl Offer {
    /// How many pieces it is.
    pub fn pieces(&self) -> u32 {
        // Both are small.
        (f64::from(self.per_second) * self.duration.as_secs_f64()) as u32
    }

    /// Offers the work. What is not done yet so long after the last piece was offered is given up.
    pub async fn make<T, F>(&self, rest: Duration, mut work: impl FnMut(u32) -> F) -> Result<Outcome<T>>
    where
        T: 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        let mut outcome = Outcome { done: Vec::new(), undone: Figures::default(), late: Figures::default() };
        let mut under_way = JoinSet::new();
        let (mut offered, mut ended) = (Vec::new(), Vec::new());
        let start = Instant::now();
        for number in 0..self.pieces() {
            let due = start + Duration::from_secs(1) * number / self.per_second;
            sleep_until(due).await;
            outcome.late.add(due.elapsed());
            let piece = work(number);
            under_way.spawn_local(async move {
                let done = piece.await?;
                anyhow::Ok((number, due.elapsed(), done))
            });
            offered.push(due);
            while let Some(piece) = under_way.try_join_next() {
                outcome.take(piece, &mut ended)?;
            }
        }
        let end = Instant::now() + rest;
        while let Ok(Some(piece)) = tokio::time::timeout_at(end, under_way.join_next()).await {
            outcome.take(piece, &mut ended)?;
        }
        under_way.shutdown().await;
        ended.sort_unstable();
        for (number, due) in (0..).zip(offered) {
            if ended.binary_search(&number).is_err() {
                outcome.undone.add(due.elapsed());
            }
        }
        Ok(outcome)
    }
}

/// A piece that has ended: its number, how long it took, and what came of it.
type Piece<T> = Result<Result<(u32, Duration, T)>, JoinError>;

impl<T> Outcome<T> {
    fn take(&mut self, piece: Piece<T>, ended: &mut Vec<u32>) -> Result<()> {
        let (number, took, done) = piece??;
        ended.push(number);
        self.done.push((took, done));
        Ok(())
    }

    /// The share of what was offered that was done.
    pub fn kept(&self) -> f64 {
        let done = self.done.len() as f64;
        done / (done + self.undone.count() as f64).max(1.0)
    }

    /// How long everything took; what was not done took at least until the end.
    pub fn took(&self) -> Figures {
        let mut took = Figures::default();
        self.done.iter().for_each(|(duration, _)| took.add(*duration));
        took.extend(self.undone.clone());
        took
    }
}
