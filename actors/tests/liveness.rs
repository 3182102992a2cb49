//! When a bot counts as gone, within the whole tree, on the fakes.

use chrono::TimeDelta;
use meeboter_actors::bot::BotSpec;
use meeboter_actors::ids::{ContainerId, Platform, SlotName, UserId};
use meeboter_actors::pool::message::CreateBot;
use meeboter_actors::ports::{Clock, Presence};
use meeboter_actors::slot::event::SlotEvent;
use meeboter_actors::slot::handle::Pulse;
use meeboter_actors::slot::{BusyStep, Slot, SlotState, SlotStatus};
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

#[test]
fn a_bot_that_was_leaving_as_the_server_ended_has_time_for_its_upload_after_the_next_start() {
    run(async |shared: Shared| {
        let now = shared.now();
        let busy = sample::busy_slot(1);
        let SlotState::Busy { bot, container, .. } = busy.state.clone() else { panic!("is busy") };
        shared.lock().containers.hold(busy.host.clone(), busy.container_key());
        let step =
            BusyStep::Leaving { until: now - TimeDelta::minutes(1), latest: now + TimeDelta::minutes(10) };
        shared.lock().tables.hold(Slot { state: SlotState::Busy { bot, container, step }, ..busy });
        let tree = plant(&shared).await;
        let slot = tree.directory.all().pop().expect("is stored");
        let is_leaving =
            || matches!(slot.snapshot().state, SlotState::Busy { step: BusyStep::Leaving { .. }, .. });
        tokio::time::sleep(Duration::from_secs(140)).await;
        assert!(is_leaving(), "it may be uploading: nobody has heard it yet");
        until(&shared, |_| !is_leaving()).await;
        assert!(shared.now() - now < TimeDelta::seconds(200), "and it has sent nothing since");
    });
}
