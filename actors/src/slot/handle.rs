//! How the rest of the server reaches a slot: its last committed state, the time it was last heard of, and its
//! mailbox. A handle outlives the actors of its slot, so a heartbeat that arrives while one is being rebuilt counts.

use super::actor::{Happened, Outcome, Refused, SlotActor};
use super::event::SlotEvent;
use super::{BusyStep, Slot, SlotState};
use crate::ids::{BotId, Generation, SlotId, SlotName};
use crate::supervision::tell;
use actix::Addr;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::oneshot;

/// See the module.
pub struct SlotHandle {
    id: SlotId,
    name: SlotName,
    /// Milliseconds since the epoch; 0: never.
    heard_at_ms: AtomicI64,
    /// The same, of the last segment that began to arrive.
    segment_at_ms: AtomicI64,
    snapshot: RwLock<Arc<Slot>>,
    addr: RwLock<Option<Addr<SlotActor>>>,
}

/// What a heartbeat is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// Go on.
    CarryOn,
    /// Leave the meeting.
    Leave,
    /// This generation is over, or belongs to another bot.
    Stale,
}

impl SlotHandle {
    /// A handle to a slot that has no actor yet.
    pub fn new(slot: Arc<Slot>) -> Arc<Self> {
        Arc::new(Self {
            id: slot.id,
            name: slot.name.clone(),
            heard_at_ms: AtomicI64::new(0),
            segment_at_ms: AtomicI64::new(0),
            snapshot: RwLock::new(slot),
            addr: RwLock::new(None),
        })
    }

    /// The slot's uuid.
    pub fn id(&self) -> SlotId {
        self.id
    }

    /// The slot's name.
    pub fn name(&self) -> &SlotName {
        &self.name
    }

    /// The last committed state.
    pub fn snapshot(&self) -> Arc<Slot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a heartbeat and says what the bot should do. Writes nothing and waits for nobody.
    pub fn heartbeat(&self, bot: BotId, generation: Generation, now: DateTime<Utc>) -> Pulse {
        let slot = self.snapshot();
        if slot.generation != generation || slot.bot().is_none_or(|held| held.id != bot) {
            return Pulse::Stale;
        }
        self.heard_at_ms.fetch_max(now.timestamp_millis(), Ordering::Relaxed);
        match &slot.state {
            SlotState::Busy { step: BusyStep::Running { .. }, .. } | SlotState::Deploying { .. } => {
                Pulse::CarryOn
            }
            SlotState::Busy { .. } => Pulse::Leave,
            SlotState::Idle { .. } | SlotState::Error { .. } | SlotState::Retired => Pulse::Stale,
        }
    }

    /// Notes that the bot uploads a segment: while it leaves, it is waited for a little longer.
    pub fn segment_arrives(&self, now: DateTime<Utc>) {
        self.segment_at_ms.fetch_max(now.timestamp_millis(), Ordering::Relaxed);
    }

    /// Sends an event to the slot; the answer comes when its outcome is committed. A dropped answer means that the
    /// slot's actor died over it: the outcome is unknown.
    pub fn send(&self, event: SlotEvent) -> oneshot::Receiver<Result<Outcome, Refused>> {
        let (reply, answer) = oneshot::channel();
        let addr = self.addr.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(addr) = addr.as_ref() {
            tell(addr, Happened { event, reply: Some(reply) });
        }
        answer
    }

    /// The slot's present actor; one that died is replaced soon.
    pub fn actor(&self) -> Option<Addr<SlotActor>> {
        self.addr.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the slot's actor panic, as a bug would.
    #[cfg(any(test, feature = "testing"))]
    pub fn panic(&self) {
        if let Some(addr) = self.addr.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            tell(addr, super::actor::Panic);
        }
    }

    /// The clock was set back to `now`: nothing was heard later than that.
    pub(super) fn forget_future(&self, now: DateTime<Utc>) {
        self.heard_at_ms.fetch_min(now.timestamp_millis(), Ordering::Relaxed);
        self.segment_at_ms.fetch_min(now.timestamp_millis(), Ordering::Relaxed);
    }

    pub(super) fn heard_at(&self) -> Option<DateTime<Utc>> {
        noted(&self.heard_at_ms)
    }

    pub(super) fn segment_at(&self) -> Option<DateTime<Utc>> {
        noted(&self.segment_at_ms)
    }

    pub(super) fn publish(&self, slot: Arc<Slot>) {
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = slot;
    }

    /// Leads to this actor from now on, which was built from this state.
    pub(crate) fn connect(&self, slot: Arc<Slot>, addr: Addr<SlotActor>) {
        self.publish(slot);
        *self.addr.write().unwrap_or_else(PoisonError::into_inner) = Some(addr);
    }
}

fn noted(at_ms: &AtomicI64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(at_ms.load(Ordering::Relaxed)).filter(|at| at.timestamp() > 0)
}

/// All slots' handles, by slot and by the bot in it. Written by the actors, read from any thread.
#[derive(Default)]
pub struct Directory {
    maps: RwLock<Maps>,
}

#[derive(Default)]
struct Maps {
    slots: BTreeMap<SlotId, Arc<SlotHandle>>,
    bots: BTreeMap<BotId, Arc<SlotHandle>>,
}

impl Directory {
    /// The handle of a slot.
    pub fn slot(&self, id: SlotId) -> Option<Arc<SlotHandle>> {
        self.maps.read().unwrap_or_else(PoisonError::into_inner).slots.get(&id).cloned()
    }

    /// The handle of the slot that a bot is in.
    pub fn bot(&self, id: BotId) -> Option<Arc<SlotHandle>> {
        self.maps.read().unwrap_or_else(PoisonError::into_inner).bots.get(&id).cloned()
    }

    /// All handles, by uuid.
    pub fn all(&self) -> Vec<Arc<SlotHandle>> {
        self.maps.read().unwrap_or_else(PoisonError::into_inner).slots.values().cloned().collect()
    }

    pub(crate) fn insert(&self, handle: Arc<SlotHandle>) {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(bot) = handle.snapshot().bot() {
            maps.bots.insert(bot.id, Arc::clone(&handle));
        }
        maps.slots.insert(handle.id, handle);
    }

    pub(crate) fn remove(&self, id: SlotId) {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = maps.slots.remove(&id) else { return };
        if let Some(bot) = handle.snapshot().bot()
            && maps.bots.get(&bot.id).is_some_and(|holder| holder.id == id)
        {
            maps.bots.remove(&bot.id);
        }
    }

    /// Moves the entry by bot from what the slot held to what it holds.
    pub(super) fn moved(&self, handle: &Arc<SlotHandle>, before: Option<BotId>, after: Option<BotId>) {
        if before == after {
            return;
        }
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = before {
            maps.bots.remove(&before);
        }
        if let Some(after) = after {
            maps.bots.insert(after, Arc::clone(handle));
        }
    }
}
