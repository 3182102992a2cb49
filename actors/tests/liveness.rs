//! When a bot counts as gone, within the whole tree, on the fakes.

use chrono::TimeDelta;
use meeboter_actors::bot::BotSpec;
use meeboter_actors::ids::{ContainerId, Platform, SlotName, UserId};
use meeboter_actors::pool::message::CreateBot;
use meeboter_actors::ports::{Clock, Presence};
use meeboter_actors::slot::SlotStatus;
use meeboter_actors::slot::event::SlotEvent;
use meeboter_actors::slot::handle::Pulse;
use meeboter_actors::supervision::tell;
use meeboter_actors::testing::sample;
use meeboter_actors::testing::scenario::settings;
use meeboter_actors::testing::server::{plant, run_in, until};
use meeboter_actors::testing::world::{Faults, Shared, World};
use std::time::Duration;
use tokio::sync::oneshot;

fn zoom() -> Platform {
    Platform("zoom".to_owned())
}

/// Runs a test with one slot at most.
fn run<F: Future>(test: impl FnOnce(Shared) -> F) {
    let platforms = [(zoom(), 1)].into();
    let settings = settings(&platforms, false);
    run_in(World::new(1, Faults::default(), platforms, settings), test);
}

#[test]
fn a_listing_without_a_bots_container_does_not_end_it_where_the_server_slept() {
    run(async |shared: Shared| {
        let tree = plant(&shared).await;
        let (reply, answer) = oneshot::channel();
        let spec = BotSpec { platform: zoom(), ..sample::spec() };
        tell(&tree.pool, CreateBot { spec, user_id: UserId(1), idempotency: None, reply });
        let bot = answer.await.expect("an answer").expect("a bot").bot.id;
        let name = SlotName::new(&zoom(), 1);
        let status = |shared: &Shared| shared.lock().tables.slots.get(&name).and_then(|slot| slot.status());
        until(&shared, |shared| status(shared) == Some(SlotStatus::Busy)).await;

        let slot = tree.directory.bot(bot).expect("is in a slot");
        let container = (slot.snapshot().container_key(), ContainerId("c".to_owned()));
        shared.lock().containers.running.extend([container]);
        let look = |began_at| SlotEvent::Observed {
            generation: slot.snapshot().generation,
            presence: Presence::Gone,
            began_at,
        };
        shared.lock().set_clock(TimeDelta::seconds(300));
        slot.send(look(shared.now())).await.expect("an answer").expect("is taken");
        assert!(!shared.lock().tables.bots[&bot].state.is_final(), "it had no chance to be heard");
        // Past the first limit, and looked for meanwhile: now the word counts.
        tokio::time::sleep(Duration::from_secs(60)).await;
        slot.send(look(shared.now())).await.expect("an answer").expect("is taken");
        assert!(shared.lock().tables.bots[&bot].state.is_final());
    });
}

#[test]
fn a_bot_that_speaks_to_a_server_that_just_began_to_lead_is_known() {
    run(async |shared: Shared| {
        let slot = sample::busy_slot(1);
        let bot = slot.bot().expect("busy").id;
        shared.lock().tables.hold(slot.clone());
        let tree = plant(&shared).await;
        // No actor has run yet.
        let holder = tree.directory.bot(bot).expect("is in a slot");
        assert_eq!(holder.heartbeat(bot, slot.generation, shared.now()), Pulse::CarryOn);
        assert_eq!(tree.directory.slot(slot.id).map(|handle| handle.id()), Some(holder.id()));
    });
}
