//! Drains and hosts whose engines are away, within the whole tree, on the fakes. No pull there comes to an end, so that a
//! bot keeps being deployed until somebody has another wish.

use chrono::{DateTime, TimeDelta, Utc};
use meeboter_actors::bot::{BotSpec, BotState, EndReason};
use meeboter_actors::ids::{BotId, HostName, Platform, SlotName, UserId};
use meeboter_actors::image_pull::actor as pulls;
use meeboter_actors::image_pull::machine::PullState;
use meeboter_actors::pool::breaker::BreakerEvent;
use meeboter_actors::pool::message::{
    CreateBot, CreateError, Created, DrainPlatform, DrainServer, EngineHeard, Observe, Operate, OperateError,
    PoolSnapshot, ServerDrain, SlotAction,
};
use meeboter_actors::pool::{Drain, DrainLine};
use meeboter_actors::ports::Clock;
use meeboter_actors::slot::drains::Drains;
use meeboter_actors::slot::{RecoveryStep, Slot, SlotState, SlotStatus};
use meeboter_actors::supervision::tell;
use meeboter_actors::testing::sample;
use meeboter_actors::testing::scenario::settings;
use meeboter_actors::testing::server::{plant, run_in, until};
use meeboter_actors::testing::world::{Faults, Shared, World};
use meeboter_actors::tree::Tree;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

fn zoom() -> Platform {
    Platform("zoom".to_owned())
}

/// Runs a test with so many slots at most.
fn run<F: Future>(slots: u32, test: impl FnOnce(Shared) -> F) {
    let platforms = [(zoom(), slots)].into();
    let settings = settings(&platforms, false);
    let faults = Faults { hang: 1_000, ..Faults::default() };
    run_in(World::new(1, faults, platforms, settings), test);
}

async fn create(tree: &Tree) -> Result<Created, CreateError> {
    let (reply, answer) = oneshot::channel();
    let spec = BotSpec { platform: zoom(), ..sample::spec() };
    tell(&tree.pool, CreateBot { spec, user_id: UserId(1), idempotency: None, reply });
    answer.await.expect("an answer")
}

async fn drain_server(tree: &Tree, order: Option<ServerDrain>) -> DrainLine {
    let (reply, answer) = oneshot::channel();
    tell(&tree.pool, DrainServer { order, reply });
    answer.await.expect("an answer")
}

async fn drain_platform(tree: &Tree, within: Option<TimeDelta>) -> DrainLine {
    let (reply, answer) = oneshot::channel();
    tell(&tree.pool, DrainPlatform { platform: zoom(), draining: true, within, reply });
    answer.await.expect("an answer").expect("is taken")
}

async fn end_drain(tree: &Tree) -> Result<DrainLine, OperateError> {
    let (reply, answer) = oneshot::channel();
    tell(&tree.pool, DrainPlatform { platform: zoom(), draining: false, within: None, reply });
    answer.await.expect("an answer")
}

async fn operate(tree: &Tree, slot: &SlotName, action: SlotAction) -> Result<Arc<Slot>, OperateError> {
    let (reply, answer) = oneshot::channel();
    tell(&tree.pool, Operate { slot: slot.clone(), action, reply });
    answer.await.expect("an answer")
}

async fn pool(tree: &Tree) -> PoolSnapshot {
    tree.pool.send(Observe).await.expect("an answer")
}

fn state(shared: &Shared, bot: BotId) -> BotState {
    shared.lock().tables.bots[&bot].state
}

#[test]
fn an_emptied_server_gives_no_slots_and_says_when_nobody_is_left() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        let bot = create(&tree).await.expect("a bot").bot.id;
        let (emptied, empty) = oneshot::channel();
        let order = ServerDrain { within: Some(TimeDelta::seconds(30)), emptied };
        let line = drain_server(&tree, Some(order)).await;
        assert_eq!((line.slots_left, line.bots_left, line.by.is_some()), (1, 1, true));
        assert_eq!(create(&tree).await, Err(CreateError::Closing));
        let began = tokio::time::Instant::now();
        empty.await.expect("is told");
        assert!(began.elapsed() >= Duration::from_secs(30), "not before the deadline");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(state(&shared, bot), BotState::Queued, "it waits for the next server");
        assert_eq!(pool(&tree).await.closing.map(|line| line.bots_left), Some(0));

        drain_server(&tree, None).await;
        until(&shared, |shared| state(shared, bot) == BotState::Deploying).await;
        assert_eq!(pool(&tree).await.closing, None);
    });
}

#[test]
fn a_bot_whose_slot_is_stored_as_the_servers_deadline_passes_is_asked_to_leave_too() {
    run(2, async |shared: Shared| {
        let tree = plant(&shared).await;
        create(&tree).await.expect("a bot");
        let (reply, created) = oneshot::channel();
        let spec = BotSpec { platform: zoom(), ..sample::spec() };
        tell(&tree.pool, CreateBot { spec, user_id: UserId(1), idempotency: None, reply });
        let (emptied, empty) = oneshot::channel();
        let order = ServerDrain { within: Some(TimeDelta::zero()), emptied };
        drain_server(&tree, Some(order)).await;
        let bot = created.await.expect("an answer").expect("was let in before").bot.id;
        let began = tokio::time::Instant::now();
        empty.await.expect("is told");
        assert!(began.elapsed() < Duration::from_secs(60), "long before its pull is given up");
        assert_eq!(state(&shared, bot), BotState::Queued, "it waits for the next server");
    });
}

/// Asks for a bot that starts then, and does not queue.
async fn schedule(tree: &Tree, start_at: DateTime<Utc>) -> BotId {
    let (reply, answer) = oneshot::channel();
    let spec = BotSpec { platform: zoom(), start_at: Some(start_at), queue_timeout_ms: 0, ..sample::spec() };
    tell(&tree.pool, CreateBot { spec, user_id: UserId(1), idempotency: None, reply });
    answer.await.expect("an answer").expect("is scheduled").bot.id
}

/// Waits until a bot has missed its start, which it did for this reason.
async fn is_missed(shared: &Shared, missed: BotId, why: &str) {
    until(shared, |shared| state(shared, missed).is_final()).await;
    let end = shared.lock().tables.bots[&missed].end.clone().expect("ended");
    assert_eq!(end.reason, EndReason::StartMissed);
    assert!(end.detail.contains(why), "{}", end.detail);
}

#[test]
fn a_scheduled_bot_whose_start_comes_while_nobody_is_served_waits_and_is_told_why() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        let both = async || {
            let start_at = shared.now() + TimeDelta::minutes(10);
            [schedule(&tree, start_at).await, schedule(&tree, start_at + TimeDelta::minutes(8)).await]
        };
        let bots = both().await;
        drain_server(&tree, Some(ServerDrain { within: None, emptied: oneshot::channel().0 })).await;
        is_missed(&shared, bots[0], "this server is being emptied").await;
        assert_eq!(state(&shared, bots[1]), BotState::Scheduled, "it is offered again");
        drain_server(&tree, None).await;
        until(&shared, |shared| state(shared, bots[1]) == BotState::Deploying).await;

        let bots = both().await;
        drain_platform(&tree, Some(TimeDelta::zero())).await;
        is_missed(&shared, bots[0], "platform zoom takes no new bots").await;
        assert_eq!(state(&shared, bots[1]), BotState::Scheduled, "it is offered again");
    });
}

#[test]
fn a_drain_of_the_server_that_is_ended_tells_nobody() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        create(&tree).await.expect("a bot");
        let (emptied, empty) = oneshot::channel();
        drain_server(&tree, Some(ServerDrain { within: Some(TimeDelta::seconds(30)), emptied })).await;
        drain_server(&tree, None).await;
        assert!(empty.await.is_err(), "dropped");
    });
}

#[test]
fn after_a_platforms_deadline_nobody_gets_a_slot_of_it() {
    run(2, async |shared: Shared| {
        let tree = plant(&shared).await;
        let bot = create(&tree).await.expect("a bot").bot.id;
        let line = drain_platform(&tree, Some(TimeDelta::seconds(60))).await;
        assert_eq!((line.slots_left, line.bots_left), (1, 1));
        let slot = SlotName::new(&zoom(), 1);
        until(&shared, |shared| shared.lock().tables.slots.get(&slot).is_some_and(|slot| slot.drains.any()))
            .await;
        assert_eq!(shared.lock().tables.slots[&slot].drains.by(), line.by);
        // Another deadline replaces the first.
        let line = drain_platform(&tree, Some(TimeDelta::seconds(120))).await;
        assert_eq!(shared.lock().tables.drains[&Drain::Platform(zoom())], line.by);
        until(&shared, |shared| state(shared, bot) == BotState::Queued).await;
        assert!(line.by.is_some_and(|by| shared.now() >= by), "not before");
        until(&shared, |shared| shared.lock().tables.slots.is_empty()).await;
        until(&shared, |shared| state(shared, bot).is_final()).await;
    });
}

#[test]
fn a_slots_own_deadline_stays_in_force_in_a_wider_drain() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        create(&tree).await.expect("a bot");
        let slot = SlotName::new(&zoom(), 1);
        let action = SlotAction::Drain { within: Some(TimeDelta::seconds(60)) };
        let own = operate(&tree, &slot, action).await.expect("is taken").drains.by();
        assert!(own.is_some());
        let deadline = |shared: &Shared| shared.lock().tables.slots[&slot].drains.by();
        for within in [None, Some(TimeDelta::seconds(120))] {
            drain_platform(&tree, within).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(deadline(&shared), own);
        }
        let earlier = drain_platform(&tree, Some(TimeDelta::seconds(10))).await.by;
        until(&shared, |shared| deadline(shared) == earlier).await;
        drain_platform(&tree, Some(TimeDelta::seconds(20))).await;
        until(&shared, |shared| deadline(shared) > earlier).await;
        end_drain(&tree).await.expect("is taken");
        until(&shared, |shared| shared.lock().tables.slots[&slot].drains == Drains::own(own)).await;
    });
}

#[test]
fn a_slot_that_is_rebuilt_hears_of_a_drain_that_ended_meanwhile() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        let bot = create(&tree).await.expect("a bot").bot.id;
        let slot = SlotName::new(&zoom(), 1);
        let drains = |shared: &Shared| shared.lock().tables.slots[&slot].drains;
        drain_platform(&tree, Some(TimeDelta::minutes(5))).await;
        until(&shared, |shared| drains(shared).any()).await;
        tree.directory.bot(bot).expect("is in a slot").panic();
        end_drain(&tree).await.expect("is taken");
        until(&shared, |shared| !drains(shared).any()).await;
        assert_eq!(state(&shared, bot), BotState::Deploying);
    });
}

#[test]
fn a_slot_hears_after_a_restart_that_the_drain_it_was_in_has_ended() {
    run(1, async |shared: Shared| {
        let slot = SlotName::new(&zoom(), 1);
        let drains = Drains { own: None, wider: Some(Some(shared.now() + TimeDelta::minutes(5))) };
        shared.lock().tables.hold(Slot { drains, ..sample::busy_slot(1) });
        let _tree = plant(&shared).await;
        until(&shared, |shared| !shared.lock().tables.slots[&slot].drains.any()).await;
    });
}

#[test]
fn of_two_changes_of_a_drain_at_a_time_the_second_is_not_answered_from_what_was_before() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        create(&tree).await.expect("a bot");
        let (reply, begun) = oneshot::channel();
        tell(&tree.pool, DrainPlatform { platform: zoom(), draining: true, within: None, reply });
        assert_eq!(end_drain(&tree).await, Err(OperateError::OutcomeUnknown));
        begun.await.expect("an answer").expect("is taken");
        end_drain(&tree).await.expect("is taken");
        assert!(shared.lock().tables.drains.is_empty());
    });
}

#[test]
fn a_server_is_not_empty_while_a_slot_that_may_have_a_bot_is_rebuilt() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        let bot = create(&tree).await.expect("a bot").bot.id;
        let slot = tree.directory.bot(bot).expect("is in a slot");
        // Past its budget it waits for minutes before it is built again.
        for _ in 0..10 {
            slot.panic();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let (emptied, mut empty) = oneshot::channel();
        let line = drain_server(&tree, Some(ServerDrain { within: None, emptied })).await;
        assert_eq!((line.slots_left, line.bots_left), (1, 1));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(empty.try_recv().is_err(), "its bot is there");
        assert_eq!(drain_platform(&tree, None).await.bots_left, 1);
    });
}

#[test]
fn what_a_lost_host_leaves_behind_is_forgotten_only_while_it_does_not_answer() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        shared.lock().faults = Faults { refuse: 1_000, ..Faults::default() };
        create(&tree).await.expect("a bot");
        let slot = || tree.directory.all().first().map(|handle| handle.snapshot());
        until(&shared, |_| slot().and_then(|slot| slot.status()) == Some(SlotStatus::Error)).await;
        let Slot { name, host, .. } = (*slot().expect("in error")).clone();
        let answer = operate(&tree, &name, SlotAction::Forget).await;
        assert_eq!(answer.map(|_| ()), Err(OperateError::HostAnswers(host.clone())));
        shared.lock().hosts_away.insert(host.clone(), false);
        for _ in 0..3 {
            let heard = BreakerEvent::Unanswered { began_at: shared.now() };
            tell(&tree.pool, EngineHeard { host: host.clone(), heard });
        }
        operate(&tree, &name, SlotAction::Forget).await.expect("is taken");
        assert!(shared.lock().tables.slots.is_empty());
        assert_eq!(pool(&tree).await.slots.values().sum::<u32>(), 0);
    });
}

#[test]
fn a_host_whose_engine_is_away_gets_nobody_until_it_answers() {
    run(2, async |shared: Shared| {
        let tree = plant(&shared).await;
        // The listings of the start are answered.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let hosts: Vec<HostName> = pool(&tree).await.hosts.into_keys().collect();
        let back_at = shared.now() + TimeDelta::seconds(200);
        for host in &hosts {
            shared.lock().hosts_away.insert(host.clone(), false);
            for _ in 0..3 {
                let heard = BreakerEvent::Unanswered { began_at: shared.now() };
                tell(&tree.pool, EngineHeard { host: host.clone(), heard });
            }
        }
        assert!(pool(&tree).await.hosts.values().all(|host| !host.answers()));
        let created = create(&tree).await.expect("a bot");
        assert_eq!(created.queued.map(|place| place.position), Some(1), "no host takes it");
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(state(&shared, created.bot.id), BotState::Queued);
        shared.lock().hosts_away.clear();
        until(&shared, |shared| state(shared, created.bot.id) == BotState::Deploying).await;
        let late = shared.now() - back_at;
        assert!(late >= TimeDelta::zero() && late < TimeDelta::seconds(130), "{late}");
    });
}

#[test]
fn a_clock_that_is_set_ahead_keeps_nobody_who_comes_then_waiting_past_its_time() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        create(&tree).await.expect("has the slot");
        create(&tree).await.expect("waits for minutes");
        shared.lock().set_clock(TimeDelta::minutes(10));
        let (reply, answer) = oneshot::channel();
        let spec = BotSpec { platform: zoom(), queue_timeout_ms: 5_000, ..sample::spec() };
        tell(&tree.pool, CreateBot { spec, user_id: UserId(1), idempotency: None, reply });
        let bot = answer.await.expect("an answer").expect("a bot").bot;
        until(&shared, |shared| state(shared, bot.id).is_final()).await;
        let waited = shared.now() - bot.created_at;
        assert!(waited < TimeDelta::milliseconds(5_300), "{waited}");
    });
}

#[test]
fn a_clock_that_is_set_back_does_not_put_a_recovery_off() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        shared.lock().faults = Faults { refuse: 1_000, ..Faults::default() };
        create(&tree).await.expect("a bot");
        let slot = || tree.directory.all().first().expect("it was made").snapshot();
        until(&shared, |_| slot().status() == Some(SlotStatus::Error)).await;
        let SlotState::Error { step: RecoveryStep::Waiting { until: due }, .. } = slot().state else {
            panic!("{:?}", slot().state)
        };
        shared.lock().faults = Faults::default();
        let host = slot().host.clone();
        shared.lock().hosts_away.insert(host.clone(), false);
        let heard = BreakerEvent::Unanswered { began_at: shared.now() };
        for _ in 0..3 {
            tell(&tree.pool, EngineHeard { host: host.clone(), heard });
        }
        // Its time comes while the engine is away, and it looks again and again.
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(slot().status(), Some(SlotStatus::Error));
        shared.lock().set_clock(-TimeDelta::seconds(600));
        shared.lock().hosts_away.clear();
        tell(&tree.pool, EngineHeard { host, heard: BreakerEvent::Answered });
        until(&shared, |_| slot().status() != Some(SlotStatus::Error)).await;
        let late = shared.now() - due;
        assert!(late < TimeDelta::seconds(90), "{late}");
    });
}

#[test]
fn a_clock_that_is_set_back_puts_no_second_try_off() {
    let platforms = [(zoom(), 2)].into();
    let mut settings = settings(&platforms, false);
    settings.hosts.remove(&HostName("other".to_owned()));
    run_in(World::new(1, Faults::default(), platforms, settings), async |shared: Shared| {
        let tree = plant(&shared).await;
        let step = |of: &str| tree.directory.all().iter().any(|handle| handle.snapshot().step() == of);
        let month = TimeDelta::days(30);
        // Of a pull, which waits for two seconds.
        shared.lock().faults = Faults { refuse: 1_000, ..Faults::default() };
        create(&tree).await.expect("a bot");
        while !matches!(pull_state(&tree).await, Some(PullState::BackingOff { .. })) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let began = Instant::now();
        shared.lock().set_clock(-month);
        shared.lock().faults = Faults::default();
        until(&shared, |_| step("running")).await;
        assert!(began.elapsed() < Duration::from_secs(120), "pulled after {:?}", began.elapsed());
        // Of a start, which does too.
        shared.lock().hosts_away.insert(HostName::local(), false);
        create(&tree).await.expect("a bot");
        until(&shared, |_| step("retrying")).await;
        let began = Instant::now();
        shared.lock().set_clock(-month);
        shared.lock().hosts_away.clear();
        until(&shared, |_| !step("retrying")).await;
        assert!(began.elapsed() < Duration::from_secs(3), "started after {:?}", began.elapsed());
    });
}

/// How far the one pull is.
async fn pull_state(tree: &Tree) -> Option<PullState> {
    let seen = tree.pulls.send(pulls::Observe).await.expect("an answer");
    seen.pulls.first().map(|line| line.state)
}
