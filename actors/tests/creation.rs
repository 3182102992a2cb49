//! How bots are made within the whole tree, on the fakes, and what is said of those that may not have been.

use async_trait::async_trait;
use chrono::TimeDelta;
use meeboter_actors::bot::{Bot, BotSpec, BotState, EndReason};
use meeboter_actors::ids::{BotId, Platform, SlotName, UserId};
use meeboter_actors::journal::{Change, Decision};
use meeboter_actors::pool::PoolSettings;
use meeboter_actors::pool::message::{Configure, CreateBot, CreateError};
use meeboter_actors::ports::{BatchNo, Clock, Rows, Store, StoreError};
use meeboter_actors::recording::Recording;
use meeboter_actors::slot::Slot;
use meeboter_actors::supervision::tell;
use meeboter_actors::testing::sample;
use meeboter_actors::testing::scenario::settings;
use meeboter_actors::testing::server::{plant, plant_on, run_in, until};
use meeboter_actors::testing::store::FakeStore;
use meeboter_actors::testing::world::{Faults, Shared, World};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A store whose leader is replaced as it commits a bot: what was sent has arrived, and the answer does not say so.
struct Overtaken {
    store: FakeStore,
    shared: Shared,
}

#[async_trait]
impl Store for Overtaken {
    async fn commit(&self, batch: BatchNo, decisions: &[Decision]) -> Result<(), StoreError> {
        self.store.commit(batch, decisions).await?;
        if !decisions.iter().flatten().any(|change| matches!(change, Change::WriteBot(_))) {
            return Ok(());
        }
        self.shared.lock().takes_lead(2);
        Err(StoreError::Deposed)
    }

    async fn flush(&self, batch: BatchNo) -> Result<(), StoreError> {
        self.store.flush(batch).await
    }

    async fn was_committed(&self, batch: BatchNo) -> Result<bool, StoreError> {
        self.store.was_committed(batch).await
    }

    async fn load(&self) -> Result<Rows, StoreError> {
        self.store.load().await
    }

    async fn read_slot(&self, name: &SlotName) -> Result<Option<Slot>, StoreError> {
        self.store.read_slot(name).await
    }

    async fn read_bot(&self, id: BotId) -> Result<Option<Bot>, StoreError> {
        self.store.read_bot(id).await
    }

    async fn read_recording(&self, id: BotId) -> Result<Option<Recording>, StoreError> {
        self.store.read_recording(id).await
    }

    async fn reserve_bot_ids(&self, count: u32) -> Result<Range<i64>, StoreError> {
        self.store.reserve_bot_ids(count).await
    }
}

/// Asks for a bot of a server that is replaced meanwhile, on a pool of so many slots; what was said, and how many bots
/// there are.
fn ask_while_replaced(slots: u32, spec: BotSpec) -> (Option<CreateError>, usize) {
    let platform = Platform("zoom".to_owned());
    let platforms = [(platform.clone(), slots)].into();
    let settings = settings(&platforms, false);
    let world = World::new(1, Faults::default(), platforms, settings);
    run_in(world, async |shared: Shared| {
        let store = Overtaken { store: FakeStore(shared.clone()), shared: shared.clone() };
        let tree = plant_on(&shared, Arc::new(store)).await;
        let (reply, answer) = oneshot::channel();
        let spec = BotSpec { platform: platform.clone(), ..spec };
        tell(&tree.pool, CreateBot { spec, user_id: UserId(1), idempotency: None, reply });
        let said = answer.await.expect("an answer");
        (said.err(), shared.lock().tables.bots.len())
    })
}

#[test]
fn nobody_is_told_that_a_bot_cannot_be_made_which_may_be_in_a_slot() {
    assert_eq!(ask_while_replaced(1, sample::spec()), (Some(CreateError::OutcomeUnknown), 1));
}

#[test]
fn nor_one_that_may_be_in_the_queue() {
    assert_eq!(ask_while_replaced(0, sample::spec()), (Some(CreateError::OutcomeUnknown), 1));
}

#[test]
fn nor_one_that_may_be_in_the_schedule() {
    let start_at = Some(sample::now() + TimeDelta::hours(1));
    let spec = BotSpec { start_at, ..sample::spec() };
    assert_eq!(ask_while_replaced(1, spec), (Some(CreateError::OutcomeUnknown), 1));
}

/// What becomes of bots with a start whose platform is taken out of the settings before, and comes back when the first of
/// them has missed its own.
fn start_on_a_platform_that_is_gone(queue_timeout_ms: u32) {
    let platform = Platform("zoom".to_owned());
    let platforms = [(platform.clone(), 2)].into();
    let settings = settings(&platforms, false);
    run_in(World::new(1, Faults::default(), platforms, settings.clone()), async |shared: Shared| {
        let tree = plant(&shared).await;
        let mut ids = vec![];
        for minutes in [10, 18] {
            let start_at = Some(shared.now() + TimeDelta::minutes(minutes));
            let spec = BotSpec { platform: platform.clone(), start_at, queue_timeout_ms, ..sample::spec() };
            let (reply, answer) = oneshot::channel();
            tell(&tree.pool, CreateBot { spec, user_id: UserId(1), idempotency: None, reply });
            ids.push(answer.await.expect("an answer").expect("is scheduled").bot.id);
        }
        let bot = |shared: &Shared, id: BotId| shared.lock().tables.bots[&id].clone();
        let configure = |settings: PoolSettings| {
            shared.lock().settings = settings.clone();
            tell(&tree.pool, Configure { settings });
        };
        configure(PoolSettings { platforms: BTreeMap::new(), ..settings.clone() });
        tokio::time::sleep(Duration::from_secs(19 * 60)).await;
        assert!(ids.iter().all(|id| bot(&shared, *id).state == BotState::Scheduled), "nobody took them");
        until(&shared, |shared| bot(shared, ids[0]).state.is_final()).await;
        let end = bot(&shared, ids[0]).end.expect("ended");
        assert_eq!(end.reason, EndReason::StartMissed);
        assert!(end.detail.contains("platform zoom is not served"), "{}", end.detail);
        configure(settings);
        until(&shared, |shared| bot(shared, ids[1]).state == BotState::Deploying).await;
    });
}

#[test]
fn a_scheduled_bot_waits_for_a_platform_that_is_not_served_and_its_end_says_so() {
    start_on_a_platform_that_is_gone(0);
}

#[test]
fn so_does_one_that_would_queue() {
    start_on_a_platform_that_is_gone(600_000);
}
