//! Room that platforms share, within the whole tree, on the fakes and without faults.

use meeboter_actors::bot::{BotSpec, BotState, EndReason};
use meeboter_actors::ids::{BotId, Platform, SlotName, UserId};
use meeboter_actors::pool::PoolSettings;
use meeboter_actors::pool::message::{CreateBot, LeaveBot, ListSlots, OfferEnded, OfferOutcome};
use meeboter_actors::slot::SlotStatus;
use meeboter_actors::supervision::tell;
use meeboter_actors::testing::sample;
use meeboter_actors::testing::scenario::settings;
use meeboter_actors::testing::server::{plant, run_in, until};
use meeboter_actors::testing::world::{Faults, Shared, World};
use meeboter_actors::tree::Tree;
use std::time::Duration;
use tokio::sync::oneshot;

const MEET: &str = "google-meet";
const ZOOM: &str = "zoom";

fn key(platform: &str) -> Platform {
    Platform(platform.to_owned())
}

/// Runs a test on two platforms, each of which may have all the slots that there may be.
fn run<F: Future>(slots: u32, change: impl FnOnce(&mut PoolSettings), test: impl FnOnce(Shared, Tree) -> F) {
    let platforms = [(key(MEET), slots), (key(ZOOM), slots)].into();
    let mut settings = settings(&platforms, false);
    settings.max_size = slots;
    change(&mut settings);
    let world = World::new(1, Faults::default(), platforms, settings);
    run_in(world, async |shared| {
        let tree = plant(&shared).await;
        test(shared, tree).await
    });
}

async fn create(tree: &Tree, platform: &str) -> BotId {
    let (reply, answer) = oneshot::channel();
    let spec = BotSpec { platform: key(platform), ..sample::spec() };
    tell(&tree.pool, CreateBot { spec, user_id: UserId(1), idempotency: None, reply });
    answer.await.expect("an answer").expect("a bot").bot.id
}

async fn leave(tree: &Tree, bot_id: BotId) {
    let (reply, answer) = oneshot::channel();
    tell(&tree.pool, LeaveBot { bot_id, reason: EndReason::LeftByRequest, reply });
    answer.await.expect("an answer").expect("it was there");
}

fn state(shared: &Shared, bot: BotId) -> BotState {
    shared.lock().tables.bots[&bot].state
}

/// Slots of a platform in a state.
async fn count(tree: &Tree, platform: &str, status: SlotStatus) -> usize {
    let lines = tree.pool.send(ListSlots).await.expect("an answer");
    lines.iter().filter(|line| line.platform == key(platform) && line.status == Some(status)).count()
}

/// Bots of the platform come and go, and leave that many free slots.
async fn leave_free(shared: &Shared, tree: &Tree, platform: &str, slots: usize) {
    let mut bots = Vec::new();
    for _ in 0..slots {
        bots.push(create(tree, platform).await);
    }
    for bot in &bots {
        leave(tree, *bot).await;
    }
    until(shared, |shared| bots.iter().all(|bot| state(shared, *bot).is_final())).await;
    while count(tree, platform, SlotStatus::Idle).await < slots {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn a_free_slot_of_another_platform_goes_for_a_bot_that_waits() {
    run(
        3,
        |_| {},
        async |shared, tree| {
            leave_free(&shared, &tree, ZOOM, 3).await;
            let bot = create(&tree, MEET).await;
            until(&shared, |shared| state(shared, bot) > BotState::Queued).await;
            let left = count(&tree, ZOOM, SlotStatus::Idle).await;
            assert_eq!(left, 2, "one bot needs one slot");
        },
    );
}

#[test]
fn what_is_to_be_ready_ahead_of_need_stays() {
    let prewarm = |settings: &mut PoolSettings| {
        settings.platforms.get_mut(&key(ZOOM)).expect("there").prewarm = 2;
    };
    run(3, prewarm, async |shared, tree| {
        leave_free(&shared, &tree, ZOOM, 3).await;
        let (first, second) = (create(&tree, MEET).await, create(&tree, MEET).await);
        until(&shared, |shared| state(shared, first) > BotState::Queued).await;
        // The third slot went for the first, and the second waits for as long as that is in use.
        let mut looks = 0;
        while !state(&shared, first).is_final() {
            assert_eq!(state(&shared, second), BotState::Queued);
            assert_eq!(count(&tree, ZOOM, SlotStatus::Idle).await, 2);
            tokio::time::sleep(Duration::from_millis(100)).await;
            looks += 1;
        }
        assert!(looks > 5, "{looks}");
    });
}

#[test]
fn platforms_take_turns_at_the_room_that_they_share() {
    let ephemeral =
        |settings: &mut PoolSettings| settings.platforms.values_mut().for_each(|of| of.ephemeral = true);
    run(1, ephemeral, async |shared, tree| {
        let mut bots = vec![(ZOOM, create(&tree, ZOOM).await)];
        for platform in [ZOOM, ZOOM, MEET, MEET] {
            bots.push((platform, create(&tree, platform).await));
        }
        let mut served = Vec::new();
        while !bots.is_empty() {
            let is_served = |shared: &Shared, bot: BotId| state(shared, bot) > BotState::Queued;
            until(&shared, |shared| bots.iter().any(|(_, bot)| is_served(shared, *bot))).await;
            let at = bots.iter().position(|(_, bot)| is_served(&shared, *bot)).expect("one is");
            let (platform, bot) = bots.remove(at);
            served.push(platform);
            leave(&tree, bot).await;
        }
        assert_eq!(served, [ZOOM, MEET, ZOOM, MEET, ZOOM]);
    });
}

#[test]
fn a_slot_that_would_not_have_a_bot_keeps_nothing_from_those_who_wait() {
    run(
        1,
        |_| {},
        async |shared, tree| {
            let mut bots = Vec::new();
            for _ in 0..3 {
                bots.push(create(&tree, ZOOM).await);
            }
            // The second was on offer, and nobody has joined the line since.
            until(&shared, |shared| state(shared, bots[1]) > BotState::Queued).await;
            // As where the bot on offer ended meanwhile: nobody is back in the line by that.
            let slot = SlotName::new(&key(ZOOM), 1);
            tell(&tree.pool, OfferEnded { platform: key(ZOOM), slot, outcome: OfferOutcome::Declined });
            until(&shared, |shared| state(shared, bots[2]) != BotState::Queued).await;
            assert_eq!(
                state(&shared, bots[2]),
                BotState::Deploying,
                "and did not wait until its time was up"
            );
        },
    );
}
