//! A store in memory that keeps the real one's promises, and loses answers, commits and patience as a real one does.

use super::invariants;
use super::world::{Happening, Shared, World};
use crate::bot::{Bot, BotState};
use crate::ids::{BotId, SlotName, UserId};
use crate::journal::{Change, Decision, IdempotencyKey, RowKey};
use crate::maintenance::MaintenanceRow;
use crate::pool::{Drain, DrainOrder};
use crate::ports::{BatchNo, Rows, Store, StoreError};
use crate::queue::QueueEntry;
use crate::recording::{Recording, RecordingState};
use crate::slot::{DeployStep, Slot, SlotState};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::MutexGuard;

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
    /// `maintenance`.
    pub maintenance: Option<MaintenanceRow>,
    /// `idempotency_keys`.
    pub keys: BTreeMap<(UserId, String), IdempotencyKey>,
    /// Batches, by epoch and number.
    pub batches: BTreeSet<(i64, BatchNo)>,
    /// Who leads.
    pub epoch: i64,
    next_bot_id: i64,
    /// From and to, of the last time.
    away: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Batches of the leader on their way: when it crashes or another takes the lead some arrive, and none before an
    /// earlier one.
    in_flight: BTreeMap<BatchNo, Vec<Decision>>,
}

impl Tables {
    /// Stores a slot and the bot in it.
    pub fn hold(&mut self, slot: Slot) {
        self.bots.extend(slot.bot().map(|bot| (bot.id, bot.clone())));
        self.slots.insert(slot.name.clone(), slot);
    }

    /// Since when nobody reaches the store, if nobody does.
    pub fn away_since(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.away.filter(|(_, until)| now < *until).map(|(from, _)| from)
    }

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
            maintenance: self.maintenance.clone(),
        }
    }

    /// Some rows alone.
    fn of(&self, rows: &[RowKey]) -> Self {
        let mut some = Self::default();
        for row in rows {
            match row {
                RowKey::Bot(id) => copy(&self.bots, &mut some.bots, id),
                RowKey::Slot(name) => copy(&self.slots, &mut some.slots, name),
                RowKey::Queue(id) => copy(&self.queue, &mut some.queue, id),
                RowKey::Recording(id) => copy(&self.recordings, &mut some.recordings, id),
                RowKey::Drain(drain) => copy(&self.drains, &mut some.drains, drain),
                RowKey::Idempotency(user, key) => copy(&self.keys, &mut some.keys, &(*user, key.clone())),
                RowKey::Maintenance => some.maintenance.clone_from(&self.maintenance),
            }
        }
        some
    }

    /// Some rows as they were.
    fn restore(&mut self, rows: Vec<RowKey>, before: Self) {
        for row in rows {
            match row {
                RowKey::Bot(id) => put_back(&mut self.bots, &before.bots, id),
                RowKey::Slot(name) => put_back(&mut self.slots, &before.slots, name),
                RowKey::Queue(id) => put_back(&mut self.queue, &before.queue, id),
                RowKey::Recording(id) => put_back(&mut self.recordings, &before.recordings, id),
                RowKey::Drain(drain) => put_back(&mut self.drains, &before.drains, drain),
                RowKey::Idempotency(user, key) => put_back(&mut self.keys, &before.keys, (user, key)),
                RowKey::Maintenance => self.maintenance.clone_from(&before.maintenance),
            }
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
                Change::InsertEvent(_) | Change::DeleteEvents(_) => {}
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
                Change::WriteMaintenance(row) => self.maintenance = Some((**row).clone()),
                Change::DeleteRecording { bot_id, version } => {
                    let stored = self.recordings.remove(bot_id).map_or(0, |row| row.version);
                    expect(format!("recording {bot_id}"), stored, *version)?;
                }
                Change::DeleteBot(bot) => {
                    let row = self.bots.remove(bot).filter(|row| row.state.is_final());
                    row.ok_or_else(|| format!("bot {bot} has not ended, or is gone"))?;
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

fn copy<K: Ord + Clone, V: Clone>(from: &BTreeMap<K, V>, to: &mut BTreeMap<K, V>, key: &K) {
    if let Some(value) = from.get(key) {
        to.insert(key.clone(), value.clone());
    }
}

fn put_back<K: Ord, V: Clone>(rows: &mut BTreeMap<K, V>, before: &BTreeMap<K, V>, key: K) {
    match before.get(&key).cloned() {
        Some(value) => drop(rows.insert(key, value)),
        None => drop(rows.remove(&key)),
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
        let rows: Vec<RowKey> = decisions.iter().flatten().filter_map(Change::row).collect();
        let before = self.tables.of(&rows);
        if let Err(why) = decisions.iter().try_for_each(|decision| self.tables.apply(decision)) {
            self.tables.restore(rows, before);
            self.note(format!("commit refused: {why}"));
            self.count("commit refused");
            return Err(why);
        }
        self.tables.batches.insert(key);
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

    /// What a crash, or another leader, does to batches on their way: they arrived, or not.
    pub fn settle_in_flight(&mut self) {
        for (batch, decisions) in std::mem::take(&mut self.tables.in_flight) {
            if !self.rng.bool() {
                return;
            }
            self.count("commit arrived late");
            let _ = self.commit(batch, &decisions);
        }
    }
}

/// The store as one process reaches it.
pub struct FakeStore(pub Shared);

impl FakeStore {
    /// The world, where the store is reached; one that another leads by now says so.
    fn reached(&self) -> Result<MutexGuard<'_, World>, StoreError> {
        let mut world = self.0.lock();
        let away_ms = world.between(1_000, 20_000);
        let per_mille = world.faults.store_away;
        let is_leader = world.leads(self.0.process);
        if is_leader && world.tables.away_since(world.now).is_none() && world.chance("store away", per_mille)
        {
            let back_at = world.now + away_ms;
            world.tables.away = Some((world.now, back_at));
            world.trouble(back_at);
        }
        let Some(process) = world.processes.get(&self.0.process) else { return Err(cut_off()) };
        if process.cut_off_at.is_some() || world.tables.away_since(world.now).is_some() {
            return Err(cut_off());
        }
        if process.epoch != world.tables.epoch {
            world.count("deposed leader refused");
            return Err(StoreError::Deposed);
        }
        Ok(world)
    }

    async fn ask(&self) -> Result<MutexGuard<'_, World>, StoreError> {
        self.0.delay(0, 8).await;
        self.reached()
    }
}

fn cut_off() -> StoreError {
    StoreError::Unavailable("cut off".to_owned())
}

#[async_trait]
impl Store for FakeStore {
    async fn commit(&self, batch: BatchNo, decisions: &[Decision]) -> Result<(), StoreError> {
        self.0.boundary("before commit").await;
        {
            let mut world = self.0.lock();
            if world.leads(self.0.process) {
                world.tables.in_flight.insert(batch, decisions.to_vec());
                world.panic_while_committing(decisions);
            }
        }
        self.0.boundary("commit on its way").await;
        self.0.delay(0, 8).await;
        let outcome = self.reached().and_then(|mut world| {
            let (lost, torn) = (world.faults.commit_lost, world.faults.commit_torn);
            world.tables.in_flight.remove(&batch);
            if world.chance("commit lost", lost) {
                return Err(cut_off());
            }
            world.commit(batch, decisions).map_err(StoreError::Refused)?;
            if world.chance("commit torn", torn) {
                return Err(cut_off());
            }
            Ok(())
        });
        self.0.boundary("after commit").await;
        outcome
    }

    async fn flush(&self, batch: BatchNo) -> Result<(), StoreError> {
        self.0.boundary("before flush").await;
        let mut world = self.ask().await?;
        let lost = world.faults.commit_lost;
        if world.chance("flush lost", lost) {
            return Err(cut_off());
        }
        let key = (world.tables.epoch, batch);
        if !world.tables.batches.contains(&key) {
            world.violated(format!("{batch:?} is flushed and was never committed"));
        }
        Ok(())
    }

    async fn was_committed(&self, batch: BatchNo) -> Result<bool, StoreError> {
        let world = self.ask().await?;
        Ok(world.tables.batches.contains(&(world.tables.epoch, batch)))
    }

    async fn load(&self) -> Result<Rows, StoreError> {
        Ok(self.0.lock().tables.rows())
    }

    async fn read_slot(&self, name: &SlotName) -> Result<Option<Slot>, StoreError> {
        Ok(self.ask().await?.tables.slot(name))
    }

    async fn read_bot(&self, id: BotId) -> Result<Option<Bot>, StoreError> {
        Ok(self.ask().await?.tables.bots.get(&id).cloned())
    }

    async fn read_recording(&self, id: BotId) -> Result<Option<Recording>, StoreError> {
        Ok(self.ask().await?.tables.recordings.get(&id).cloned())
    }

    async fn reserve_bot_ids(&self, count: u32) -> Result<Range<i64>, StoreError> {
        let mut world = self.ask().await?;
        let first = world.tables.next_bot_id + 1;
        world.tables.next_bot_id += i64::from(count);
        Ok(first..first + i64::from(count))
    }
}
