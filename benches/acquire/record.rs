//! What is seen of acquiring and releasing: slots that became idle for good, and, where it is kept, what was written.

use meeboter_actors::journal::{Change, Decision};
use meeboter_actors::ports::BatchNo;
use meeboter_actors::slot::SlotState;
use meeboter_benches::observed_store::Observer;
use std::collections::BTreeMap;
use std::time::Instant;

#[derive(Default)]
pub(crate) struct Record {
    keeps: bool,
    /// Committed, and not flushed yet: how many slots are idle, and, if it is kept, what was written.
    written: BTreeMap<BatchNo, (usize, Vec<Decision>)>,
    freed: u64,
    decisions: Vec<Decision>,
}

impl Record {
    /// A number of a batch that the Journal, which counts from 1, will not use.
    pub(crate) const FIRST: BatchNo = BatchNo(0);

    pub(crate) fn new(keeps: bool) -> Self {
        Self { keeps, ..Self::default() }
    }

    /// Slots that became idle so far.
    pub(crate) fn freed(&self) -> u64 {
        self.freed
    }

    /// What was kept since the last call, in order.
    pub(crate) fn forget(&mut self) -> Vec<Decision> {
        std::mem::take(&mut self.decisions)
    }
}

impl Observer for Record {
    fn committed(&mut self, batch: BatchNo, _: Instant, decisions: &[Decision]) {
        let is_idle = |change: &&Change| matches!(change, Change::WriteSlot(slot) if matches!(slot.state, SlotState::Idle { .. }));
        let idle = decisions.iter().flatten().filter(is_idle).count();
        let kept = if self.keeps { decisions.to_vec() } else { Vec::new() };
        self.written.insert(batch, (idle, kept));
    }

    fn flushed(&mut self, batch: BatchNo) {
        if let Some((idle, decisions)) = self.written.remove(&batch) {
            self.freed += idle as u64;
            self.decisions.extend(decisions);
        }
    }
}
