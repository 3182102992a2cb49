//! Server processes as the world sees them: which of them leads, which reaches the store, which is frozen; and the
//! lead as each of them sees it.

use super::world::{Shared, World};
use crate::ports::Lead;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

/// How long a leader may act after the store was last heard of: what `src/store/validity.rs` has, 3 s less a margin.
const VALIDITY: TimeDelta = TimeDelta::milliseconds(2_500);
/// Silence after which a standby takes the lead.
pub const SILENCE_MAX: TimeDelta = TimeDelta::milliseconds(3_000);
/// Time between two looks of somebody who waits for the lead to be proven.
const PROOF_INTERVAL: Duration = Duration::from_millis(100);

/// A server process that lives.
#[derive(Debug, Clone)]
pub struct Process {
    /// When it began.
    pub began_at: DateTime<Utc>,
    /// Under which it leads, or led.
    pub epoch: i64,
    /// Since when it does not reach the store.
    pub cut_off_at: Option<DateTime<Utc>>,
    /// It does nothing.
    pub frozen: bool,
    /// It slept: from then on it may have heard of the store again.
    proven_from: DateTime<Utc>,
}

impl World {
    /// A process begins, and takes the lead from whoever has it.
    pub fn takes_lead(&mut self, number: u32) {
        self.settle_in_flight();
        self.tables.epoch += 1;
        let process = Process {
            began_at: self.now,
            epoch: self.tables.epoch,
            cut_off_at: None,
            frozen: false,
            proven_from: self.now,
        };
        self.processes.insert(number, process);
        self.breakers_open.clear();
        self.trouble(self.now);
    }

    /// Whether a process lives and leads.
    pub fn leads(&self, number: u32) -> bool {
        self.processes.get(&number).is_some_and(|process| process.epoch == self.tables.epoch)
    }

    /// Whether a process may act, as far as it can know.
    pub fn may_act(&self, number: u32) -> bool {
        let Some(process) = self.processes.get(&number) else { return false };
        let heard_last = process.cut_off_at.into_iter().chain(self.tables.away_since(self.now)).min();
        match heard_last {
            _ if self.now < process.proven_from => false,
            Some(at) => self.now < at + VALIDITY,
            // Its next word from the store is that another leads.
            None => process.epoch == self.tables.epoch,
        }
    }

    /// A process that slept, or was cut off, goes on; it takes a moment until it has heard of the store.
    pub fn goes_on(&mut self, number: u32) {
        let proven_from = self.now + self.between(1, 500);
        self.trouble(proven_from);
        if let Some(process) = self.processes.get_mut(&number) {
            (process.frozen, process.cut_off_at) = (false, None);
            process.proven_from = proven_from;
        }
    }
}

/// The lead as one process sees it.
pub struct FakeLead(pub Shared);

#[async_trait]
impl Lead for FakeLead {
    fn holds(&self) -> bool {
        self.0.lock().may_act(self.0.process)
    }

    async fn proven(&self) {
        if !self.holds() {
            self.0.lock().count("engine left alone by a leader in doubt");
        }
        while !self.holds() {
            tokio::time::sleep(PROOF_INTERVAL).await;
        }
    }
}
