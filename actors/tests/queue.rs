//! The queue within the whole tree, on the fakes and without faults: one slot, which its first bot keeps.

use meeboter_actors::bot::{Bot, BotSpec, EndReason};
use meeboter_actors::ids::{BotId, Platform, UserId};
use meeboter_actors::pool::message::{Configure, CreateBot, Created, LeaveBot};
use meeboter_actors::queue::Plan;
use meeboter_actors::queue::message::{
    FindPlace, Observe, QueuePlace, Reprioritise, ReprioritiseError, Withdraw, WithdrawError,
};
use meeboter_actors::slot::SlotStatus;
use meeboter_actors::supervision::tell;
use meeboter_actors::testing::sample;
use meeboter_actors::testing::scenario::settings;
use meeboter_actors::testing::server::{plant, run_in, until};
use meeboter_actors::testing::world::{Faults, Shared, World};
use meeboter_actors::tree::Tree;
use std::time::Duration;
use tokio::sync::oneshot;

fn zoom() -> Platform {
    Platform("zoom".to_owned())
}

fn run<F: Future>(test: impl FnOnce(Shared) -> F) {
    run_seed(1, test);
}

fn run_seed<F: Future>(seed: u64, test: impl FnOnce(Shared) -> F) -> F::Output {
    let platforms = [(zoom(), 1)].into();
    let settings = settings(&platforms, false);
    run_in(World::new(seed, Faults::default(), platforms, settings), test)
}

async fn create(tree: &Tree, user: i64, plan: Plan) -> Created {
    let (reply, answer) = oneshot::channel();
    let spec = BotSpec { platform: zoom(), priority: plan.priority(), ..sample::spec() };
    tell(&tree.pool, CreateBot { spec, user_id: UserId(user), idempotency: None, reply });
    answer.await.expect("an answer").expect("a bot")
}

fn move_to(
    tree: &Tree,
    bot_id: BotId,
    plan: Plan,
) -> oneshot::Receiver<Result<QueuePlace, ReprioritiseError>> {
    let (reply, answer) = oneshot::channel();
    tell(&tree.queue, Reprioritise { bot_id, priority: plan.priority(), reply });
    answer
}

fn withdraw(tree: &Tree, bot_id: BotId) -> oneshot::Receiver<Result<Bot, WithdrawError>> {
    let (reply, answer) = oneshot::channel();
    tell(&tree.queue, Withdraw { bot_id, reason: EndReason::LeftByRequest, reply });
    answer
}

async fn position(tree: &Tree, bot_id: BotId) -> Option<usize> {
    tree.queue.send(FindPlace { bot_id }).await.expect("an answer").map(|place| place.position)
}

#[test]
fn a_bot_is_moved_and_that_is_stored() {
    run(async |shared: Shared| {
        let tree = plant(&shared).await;
        let holder = create(&tree, 1, Plan::Standard).await;
        assert_eq!(holder.queued, None);
        let first = create(&tree, 2, Plan::Standard).await.bot.id;
        let second = create(&tree, 3, Plan::Standard).await.bot.id;
        let third = create(&tree, 4, Plan::Enterprise).await;
        assert_eq!(third.queued.map(|place| place.position), Some(1), "a better plan comes first");

        let moved = move_to(&tree, second, Plan::Enterprise).await.expect("an answer");
        assert_eq!(moved.map(|place| place.position), Ok(1), "it is older than the third");
        assert_eq!(shared.lock().tables.queue[&second].priority, 10);
        let moved = move_to(&tree, third.bot.id, Plan::Free).await.expect("an answer");
        assert_eq!(moved.map(|place| place.position), Ok(3));
        assert_eq!(position(&tree, first).await, Some(2));

        for nowhere in [holder.bot.id, BotId(1_000)] {
            let refused = move_to(&tree, nowhere, Plan::Enterprise).await.expect("an answer");
            assert_eq!(refused, Err(ReprioritiseError::NotWaiting));
            assert_eq!(position(&tree, nowhere).await, None);
        }
    });
}

#[test]
fn nobody_is_served_before_one_that_is_being_moved_ahead_of_him() {
    let (one, two) = (settings(&[(zoom(), 1)].into(), false), settings(&[(zoom(), 2)].into(), false));
    let world = World::new(1, Faults::default(), [(zoom(), 2)].into(), one);
    run_in(world, async |shared: Shared| {
        let tree = plant(&shared).await;
        create(&tree, 1, Plan::Standard).await;
        let first = create(&tree, 2, Plan::Standard).await.bot.id;
        let second = create(&tree, 3, Plan::Standard).await.bot.id;
        shared.lock().faults.commit_lost = 1_000;
        let moved = move_to(&tree, first, Plan::Enterprise);
        // There is room for one of them while the move is not stored.
        tell(&tree.pool, Configure { settings: two });
        tokio::time::sleep(Duration::from_millis(200)).await;
        shared.lock().faults.commit_lost = 0;
        assert_eq!(moved.await.expect("an answer").map(|place| place.position), Ok(1));
        until(&shared, |shared| shared.lock().tables.queue.len() == 1).await;
        assert!(shared.lock().tables.queue.contains_key(&second));
    });
}

#[test]
fn wishes_for_one_bot_are_applied_one_after_the_other() {
    run(async |shared: Shared| {
        let tree = plant(&shared).await;
        create(&tree, 1, Plan::Standard).await;
        let bot = create(&tree, 2, Plan::Standard).await.bot.id;
        let (up, down) = (move_to(&tree, bot, Plan::Enterprise), move_to(&tree, bot, Plan::Free));
        let (ended, late) = (withdraw(&tree, bot), move_to(&tree, bot, Plan::Standard));
        for moved in [up, down] {
            assert_eq!(moved.await.expect("an answer").map(|place| place.position), Ok(1));
        }
        let ended = ended.await.expect("an answer").expect("it was there");
        assert_eq!(ended.end.map(|end| end.reason), Some(EndReason::Cancelled));
        assert_eq!(late.await.expect("an answer"), Err(ReprioritiseError::NotWaiting));
        assert!(shared.lock().tables.queue.is_empty());
    });
}

#[test]
fn the_queue_in_numbers() {
    run(async |shared: Shared| {
        let tree = plant(&shared).await;
        create(&tree, 1, Plan::Standard).await;
        for user in 2..=4 {
            create(&tree, user, Plan::Standard).await;
        }
        let snapshot = tree.queue.send(Observe).await.expect("an answer");
        let line = snapshot.lines[&zoom()];
        assert_eq!((snapshot.lines.len(), line.length), (1, 3));
        assert_eq!(line.estimated_wait, Duration::from_secs(4 * 30), "nothing has moved yet");
        assert!(line.oldest_queued_at.is_some_and(|at| at <= shared.lock().now));
    });
}

#[test]
fn a_line_is_published_a_moment_after_it_changed() {
    run(async |shared: Shared| {
        let tree = plant(&shared).await;
        create(&tree, 1, Plan::Standard).await;
        create(&tree, 2, Plan::Standard).await;
        assert_eq!(tree.live.front_of(&zoom()), None, "it is too soon");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let front = tree.live.front_of(&zoom()).expect("was published");
        assert_eq!((front.bots.len(), front.length), (1, 1));
    });
}

/// A tree whose one slot is being freed; the first bot has just been cancelled.
async fn freeing(shared: &Shared) -> Tree {
    let tree = plant(shared).await;
    let holder = create(&tree, 1, Plan::Standard).await.bot.id;
    // While it waits for its image nothing is there to be stopped, and the slot would be free at once.
    while tree.directory.all().iter().any(|handle| handle.snapshot().step() == "pulling") {
        tokio::time::sleep(TICK).await;
    }
    let (reply, left) = oneshot::channel();
    tell(&tree.pool, LeaveBot { bot_id: holder, reason: EndReason::LeftByRequest, reply });
    left.await.expect("an answer").expect("it was there");
    tree
}

fn slot_is(tree: &Tree, wanted: SlotStatus) -> bool {
    tree.directory.all().iter().any(|handle| handle.snapshot().status() == Some(wanted))
}

const TICK: Duration = Duration::from_millis(1);

#[test]
fn nobody_overtakes_a_bot_that_is_still_joining_the_line() {
    for seed in 1..=20 {
        // How long the slot takes to become free; with the same seed it takes as long again.
        let free_after = run_seed(seed, async |shared: Shared| {
            let tree = freeing(&shared).await;
            let mut ticks = 0;
            while !slot_is(&tree, SlotStatus::Idle) {
                tokio::time::sleep(TICK).await;
                ticks += 1;
            }
            ticks
        });
        for before in 1..=6 {
            run_seed(seed, async |shared: Shared| {
                let tree = freeing(&shared).await;
                tokio::time::sleep(TICK * (free_after - before)).await;
                // The first is on its way into the queue when the slot becomes free; the others come behind it.
                let asked = (2..14).map(|user| async move {
                    tokio::time::sleep(TICK * (user - 2)).await;
                    user
                });
                let tree = &tree;
                let created = asked
                    .map(|user| async move { create(tree, i64::from(user.await), Plan::Standard).await.bot });
                let bots = futures_util::future::join_all(created).await;
                while !slot_is(tree, SlotStatus::Deploying) {
                    tokio::time::sleep(TICK).await;
                }
                let served = tree.directory.bot(bots[0].id).is_some();
                assert!(
                    served,
                    "seed {seed}, asked {before} ms before the slot was free: bot {} waits",
                    bots[0].id
                );
            });
        }
    }
}
