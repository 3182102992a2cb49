//! A store in memory that keeps the real one's promises, and loses answers, commits and patience as a real one does.

use super::invariants;
use super::world::{Happening, Shared, World};
use crate::bot::{Bot, BotState};
use crate::ids::{BotId, SlotName, UserId};
use crate::journal::{Change, Decision, IdempotencyKey};
use crate::pool::{Drain, DrainOrder};
use crate::ports::{BatchNo, Clock, Rows, Store, StoreError};
use crate::queue::QueueEntry;
use crate::recording::{Recording, RecordingState};
use crate::slot::{DeployStep, Slot, SlotState};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The rows.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// `bots`.
    pub bots: BTreeMap<BotId, Bot>,
    /// `bot_pool_slots`.
    pub slots: BTreeMap<SlotName, Slot>,
    /// `bot_pool_queue`.
    pub queue: BTreeMap<BotId, QueueEntry>,
    /// `recordings`.
    pub recordings: BTreeMap<BotId, Recording>,
    /// `pool_drains`.
    pub drains: BTreeMap<Drain, Option<DateTime<Utc>>>,
    /// `idempotency_keys`.
    pub keys: BTreeMap<(UserId, String), IdempotencyKey>,
    /// Batches, by epoch and number.
    pub batches: BTreeSet<(i64, BatchNo)>,
    /// Who leads.
    pub epoch: i64,
    next_bot_id: i64,
    away_until: Option<DateTime<Utc>>,
    /// A batch on its way when the server crashes: it is applied, or not.
    in_flight: Option<(BatchNo, Vec<Decision>)>,
}

impl Tables {
    /// A slot with its bot as the bot's own row has it.
    pub fn slot(&self, name: &SlotName) -> Option<Slot> {
        let mut slot = self.slots.get(name)?.clone();
        if let SlotState::Deploying { bot, .. } | SlotState::Busy { bot, .. } = &mut slot.state
            && let Some(row) = self.bots.get(&bot.id)
        {
            **bot = row.clone();
        }
        Some(slot)
    }

    /// Everything that a server is built from.
    pub fn rows(&self) -> Rows {
        let queue = self
            .queue
            .values()
            .filter_map(|entry| Some((entry.clone(), self.bots.get(&entry.bot_id)?.clone())));
        let recordings = self.recordings.values().filter(|recording| {
            matches!(recording.state, RecordingState::Open | RecordingState::Joining { .. })
        });
        let recordings = recordings.filter_map(|recording| {
            let bot = self.bots.get(&recording.bot_id).filter(|bot| bot.state.is_final())?;
            Some((recording.clone(), bot.clone()))
        });
        Rows {
            slots: self.slots.keys().filter_map(|name| self.slot(name)).collect(),
            queue: queue.collect(),
            scheduled: self.bots.values().filter(|bot| bot.state == BotState::Scheduled).cloned().collect(),
            recordings: recordings.collect(),
            drains: self.drains.clone(),
        }
    }

    fn apply(&mut self, decision: &Decision) -> Result<(), String> {
        for change in decision {
            match change {
                Change::WriteBot(bot) => {
                    let version = self.bots.get(&bot.id).map_or(0, |row| row.version);
                    expect(format!("bot {}", bot.id), version, bot.version - 1)?;
                    self.bots.insert(bot.id, (**bot).clone());
                }
                Change::WriteSlot(slot) => {
                    let version = self.slots.get(&slot.name).map_or(0, |row| row.version);
                    expect(format!("slot {}", slot.name), version, slot.version - 1)?;
                    self.slots.insert(slot.name.clone(), (**slot).clone());
                }
                Change::DeleteSlot { name, version } => {
                    let stored = self.slots.remove(name).map_or(0, |row| row.version);
                    expect(format!("slot {name}"), stored, *version)?;
                }
                Change::WriteRecording(recording) => {
                    let version = self.recordings.get(&recording.bot_id).map_or(0, |row| row.version);
                    expect(format!("recording {}", recording.bot_id), version, recording.version - 1)?;
                    self.recordings.insert(recording.bot_id, recording.clone());
                }
                Change::InsertEvent(_) => {}
                Change::InsertQueueEntry(entry) => {
                    if self.queue.insert(entry.bot_id, entry.clone()).is_some() {
                        return Err(format!("bot {} is queued already", entry.bot_id));
                    }
                }
                Change::UpdateQueueEntry(entry) => {
                    let row = self.queue.get_mut(&entry.bot_id);
                    *row.ok_or_else(|| format!("bot {} is not queued", entry.bot_id))? = entry.clone();
                }
                Change::DeleteQueueEntry(bot) => {
                    self.queue.remove(bot).ok_or_else(|| format!("bot {bot} is not queued"))?;
                }
                Change::InsertDrain(DrainOrder { drain, by }) => {
                    if self.drains.insert(drain.clone(), *by).is_some() {
                        return Err(format!("{drain} is being drained already"));
                    }
                }
                Change::UpdateDrain(DrainOrder { drain, by }) => {
                    let row = self.drains.get_mut(drain);
                    *row.ok_or_else(|| format!("{drain} is not being drained"))? = *by;
                }
                Change::DeleteDrain(drain) => {
                    self.drains.remove(drain).ok_or_else(|| format!("{drain} is not being drained"))?;
                }
                Change::InsertIdempotencyKey(key) => {
                    if self.keys.insert((key.user_id, key.key.clone()), key.clone()).is_some() {
                        return Err(format!("key {} is taken", key.key));
                    }
                }
            }
        }
        Ok(())
    }
}

fn expect(row: String, stored: i64, expected: i64) -> Result<(), String> {
    if stored == expected { Ok(()) } else { Err(format!("{row} is at version {stored}, not {expected}")) }
}

impl World {
    /// Applies a batch as one transaction, and checks what must hold after every commit.
    fn commit(&mut self, batch: BatchNo, decisions: &[Decision]) -> Result<(), String> {
        let key = (self.tables.epoch, batch);
        if self.tables.batches.contains(&key) {
            return Ok(());
        }
        let mut after = self.tables.clone();
        for decision in decisions {
            if let Err(why) = after.apply(decision) {
                self.note(format!("commit refused: {why}"));
                self.count("commit refused");
                return Err(why);
            }
        }
        after.batches.insert(key);
        let before = std::mem::replace(&mut self.tables, after);
        invariants::after_commit(self, &before, decisions);
        Ok(())
    }

    /// Now and then the actor of a slot dies while its commit is on its way.
    fn panic_while_committing(&mut self, decisions: &[Decision]) {
        for change in decisions.iter().flatten() {
            let Change::WriteSlot(slot) = change else { continue };
            // A hand-over is under way then: the moment at which a death is hardest to get right.
            let assigned = matches!(slot.state, SlotState::Deploying { step: DeployStep::Pulling, .. });
            let per_mille = self.faults.panic_committing * if assigned { 5 } else { 1 };
            if self.chance("slot panics while committing", per_mille) {
                self.plan(TimeDelta::zero(), Happening::Panic(slot.name.clone()));
            }
        }
    }

    /// What a crash does to a batch on its way: it arrived, or not.
    pub fn settle_in_flight(&mut self) {
        let Some((batch, decisions)) = self.tables.in_flight.take() else { return };
        if self.rng.bool() {
            self.count("commit arrived after crash");
            let _ = self.commit(batch, &decisions);
        }
    }
}

/// The store of one incarnation.
pub struct FakeStore(Shared);

impl FakeStore {
    /// Takes the lead.
    pub fn lead(shared: Shared) -> Self {
        shared.lock().tables.epoch += 1;
        Self(shared)
    }

    fn answers(&self) -> Result<(), StoreError> {
        let mut world = self.0.lock();
        let away_ms = world.between(1_000, 20_000);
        let per_mille = world.faults.store_away;
        if world.chance("store away", per_mille) {
            world.tables.away_until = Some(self.0.now() + away_ms);
        }
        match world.tables.away_until {
            Some(until) if self.0.now() < until => Err(StoreError::Unavailable("away".to_owned())),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn commit(&self, batch: BatchNo, decisions: &[Decision]) -> Result<(), StoreError> {
        self.0.boundary("before commit").await;
        {
            let mut world = self.0.lock();
            world.tables.in_flight = Some((batch, decisions.to_vec()));
            world.panic_while_committing(decisions);
        }
        self.0.boundary("commit on its way").await;
        self.0.delay(0, 8).await;
        let outcome = self.answers().and_then(|()| {
            let mut world = self.0.lock();
            let (lost, torn) = (world.faults.commit_lost, world.faults.commit_torn);
            if world.crashed || world.chance("commit lost", lost) {
                return Err(StoreError::Unavailable("cut off".to_owned()));
            }
            world.commit(batch, decisions).map_err(StoreError::Refused)?;
            if world.chance("commit torn", torn) {
                return Err(StoreError::Unavailable("cut off after the commit".to_owned()));
            }
            Ok(())
        });
        {
            let mut world = self.0.lock();
            if !world.crashed {
                world.tables.in_flight = None;
            }
        }
        self.0.boundary("after commit").await;
        outcome
    }

    async fn was_committed(&self, batch: BatchNo) -> Result<bool, StoreError> {
        self.0.delay(0, 8).await;
        self.answers()?;
        let world = self.0.lock();
        Ok(world.tables.batches.contains(&(world.tables.epoch, batch)))
    }

    async fn load(&self) -> Result<Rows, StoreError> {
        Ok(self.0.lock().tables.rows())
    }

    async fn read_slot(&self, name: &SlotName) -> Result<Option<Slot>, StoreError> {
        self.0.delay(0, 8).await;
        self.answers()?;
        Ok(self.0.lock().tables.slot(name))
    }

    async fn read_bot(&self, id: BotId) -> Result<Option<Bot>, StoreError> {
        self.0.delay(0, 8).await;
        self.answers()?;
        Ok(self.0.lock().tables.bots.get(&id).cloned())
    }

    async fn read_recording(&self, id: BotId) -> Result<Option<Recording>, StoreError> {
        self.0.delay(0, 8).await;
        self.answers()?;
        Ok(self.0.lock().tables.recordings.get(&id).cloned())
    }

    async fn reserve_bot_ids(&self, count: u32) -> Result<Range<i64>, StoreError> {
        self.0.delay(0, 8).await;
        self.answers()?;
        let mut world = self.0.lock();
        let first = world.tables.next_bot_id + 1;
        world.tables.next_bot_id += i64::from(count);
        Ok(first..first + i64::from(count))
    }
}
