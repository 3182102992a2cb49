//! Bots that wait for their start while the clock is set, within the whole tree, on the fakes and without faults.

use chrono::{DateTime, TimeDelta, Utc};
use meeboter_actors::bot::{Bot, BotSpec, BotState, EndReason};
use meeboter_actors::ids::{Platform, UserId};
use meeboter_actors::pool::PoolSettings;
use meeboter_actors::pool::message::{Configure, CreateBot, LeaveBot};
use meeboter_actors::ports::Clock;
use meeboter_actors::supervision::tell;
use meeboter_actors::testing::sample;
use meeboter_actors::testing::scenario::settings;
use meeboter_actors::testing::server::{plant, run_in, until};
use meeboter_actors::testing::world::{Faults, Shared, World};
use meeboter_actors::tree::Tree;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

const DAY: TimeDelta = TimeDelta::days(1);
/// How long after its start a bot is still started.
const LATENESS: Duration = Duration::from_secs(600);

fn zoom() -> Platform {
    Platform("zoom".to_owned())
}

/// The settings for so many slots.
fn slots(max: u32) -> PoolSettings {
    settings(&[(zoom(), max)].into(), false)
}

/// Runs a test with so many slots at first.
fn run<F: Future>(max: u32, test: impl FnOnce(Shared) -> F) {
    run_in(World::new(1, Faults::default(), [(zoom(), 1)].into(), slots(max)), test);
}

/// A new bot, which waits no longer than its start allows where there is no slot.
async fn create(tree: &Tree, start_at: Option<DateTime<Utc>>) -> Bot {
    let (reply, answer) = oneshot::channel();
    let spec = BotSpec { platform: zoom(), start_at, queue_timeout_ms: 0, ..sample::spec() };
    tell(&tree.pool, CreateBot { spec, user_id: UserId(1), idempotency: None, reply });
    answer.await.expect("an answer").expect("a bot").bot
}

/// A bot whose start is so many hours ahead.
async fn scheduled(tree: &Tree, hours: i64) -> Bot {
    let bot = create(tree, Some(sample::now() + TimeDelta::hours(hours))).await;
    assert_eq!(bot.state, BotState::Scheduled);
    bot
}

fn stored(shared: &Shared, bot: &Bot) -> Bot {
    shared.lock().tables.bots[&bot.id].clone()
}

fn state(shared: &Shared, bot: &Bot) -> BotState {
    stored(shared, bot).state
}

fn reason(shared: &Shared, bot: &Bot) -> Option<EndReason> {
    stored(shared, bot).end.map(|end| end.reason)
}

/// The clock is a day ahead for two minutes.
async fn leap_and_return(shared: &Shared) {
    shared.lock().set_clock(DAY);
    sleep(Duration::from_secs(120)).await;
    shared.lock().set_clock(-DAY);
}

#[test]
fn a_clock_that_leaps_ahead_and_is_put_right_gives_no_bot_up() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        let (soon, later) = (scheduled(&tree, 1).await, scheduled(&tree, 12).await);
        sleep(Duration::from_secs(300)).await;
        leap_and_return(&shared).await;
        assert_eq!(
            (state(&shared, &soon), state(&shared, &later)),
            (BotState::Scheduled, BotState::Scheduled)
        );
        // It starts in its time, as if nothing had been.
        until(&shared, |shared| state(shared, &soon) != BotState::Scheduled).await;
        assert_ne!(reason(&shared, &soon), Some(EndReason::StartMissed));
        let ahead = sample::now() + TimeDelta::hours(1) - shared.now();
        assert!((TimeDelta::minutes(5)..TimeDelta::minutes(8)).contains(&ahead), "{ahead} ahead");
        assert_eq!(state(&shared, &later), BotState::Scheduled);
    });
}

#[test]
fn a_clock_that_stays_ahead_is_believed_after_the_lateness() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        let bot = scheduled(&tree, 12).await;
        shared.lock().set_clock(DAY);
        let leapt = Instant::now();
        until(&shared, |shared| state(shared, &bot).is_final()).await;
        let waited = leapt.elapsed();
        assert_eq!(reason(&shared, &bot), Some(EndReason::StartMissed));
        let noticed = Duration::from_secs(60);
        assert!(waited >= LATENESS && waited <= LATENESS + 2 * noticed, "{waited:?}");
    });
}

#[test]
fn a_bot_that_nobody_could_take_is_offered_again_when_the_clock_is_put_right() {
    run(0, async |shared: Shared| {
        let tree = plant(&shared).await;
        let bot = scheduled(&tree, 1).await;
        // It is offered again and again, and there is no slot.
        sleep(Duration::from_secs(56 * 60)).await;
        leap_and_return(&shared).await;
        assert_eq!(state(&shared, &bot), BotState::Scheduled);
        tell(&tree.pool, Configure { settings: slots(1) });
        until(&shared, |shared| state(shared, &bot) != BotState::Scheduled).await;
        assert_ne!(reason(&shared, &bot), Some(EndReason::StartMissed));
        let ahead = sample::now() + TimeDelta::hours(1) - shared.now();
        assert!(ahead > TimeDelta::zero(), "{ahead} ahead");
    });
}

#[test]
fn a_bot_that_is_kept_in_doubt_can_be_cancelled() {
    run(1, async |shared: Shared| {
        let tree = plant(&shared).await;
        let bot = scheduled(&tree, 12).await;
        shared.lock().set_clock(DAY);
        sleep(Duration::from_secs(120)).await;
        let (reply, answer) = oneshot::channel();
        tell(&tree.pool, LeaveBot { bot_id: bot.id, reason: EndReason::Cancelled, reply });
        answer.await.expect("an answer").expect("is taken");
        assert_eq!(reason(&shared, &bot), Some(EndReason::Cancelled));
        sleep(2 * LATENESS).await;
    });
}
