//! Containers that are made ahead of need, within the whole tree, on the fakes and without faults; and the Scaler's
//! settings, which say how many slots are.

use chrono::TimeDelta;
use meeboter_actors::ids::{HostName, Platform};
use meeboter_actors::image_pull::PullKey;
use meeboter_actors::image_pull::anew::{pull_anew, refresh_slots};
use meeboter_actors::pool::PoolSettings;
use meeboter_actors::pool::message::{Configure, ListSlots};
use meeboter_actors::pool::{HostSettings, index::SlotLine};
use meeboter_actors::scale::ScaleSettings;
use meeboter_actors::scale::actor::Configure as ConfigureScale;
use meeboter_actors::slot::event::{BotSource, SlotEvent};
use meeboter_actors::supervision::tell;
use meeboter_actors::testing::sample;
use meeboter_actors::testing::scenario::settings;
use meeboter_actors::testing::server::{plant, run_in};
use meeboter_actors::testing::world::{Faults, Happening, Shared, World};
use meeboter_actors::tree::Tree;
use std::sync::Arc;

/// A pool of four slots, of which one is made ahead, on an engine that prepares.
fn run<F: Future>(test: impl FnOnce(Shared, Tree) -> F) -> F::Output {
    let platforms = [(zoom(), 4)].into();
    let mut settings = settings(&platforms, false);
    settings.hosts = [(HostName::local(), HostSettings { capacity: 4 })].into();
    settings.platforms.values_mut().for_each(|platform| platform.prewarm = 1);
    let mut world = World::new(1, Faults::default(), platforms, settings);
    world.engine_prepares = true;
    run_in(world, async |shared| {
        let tree = plant(&shared).await;
        test(shared, tree).await
    })
}

fn zoom() -> Platform {
    Platform("zoom".to_owned())
}

/// A minute passes, in which the engine carries out what it was told, each at its time.
async fn settled(shared: &Shared, tree: &Tree) -> Vec<SlotLine> {
    let (end, bell) = {
        let world = shared.lock();
        (world.now + TimeDelta::minutes(1), Arc::clone(&world.calendar_bell))
    };
    while shared.lock().now < end {
        let next = shared.lock().calendar.first_key_value().map_or(end, |((at, _), _)| end.min(*at));
        tokio::select! {
            biased;
            () = bell.notified() => {}
            () = tokio::time::sleep_until(shared.instant(next)) => {}
        }
        let mut world = shared.lock();
        let now = world.now;
        while let Some(entry) = world.calendar.first_entry()
            && entry.key().0 <= now
        {
            if let Happening::Engine(deed) = entry.remove() {
                world.carry_out(deed);
            }
        }
    }
    tree.pool.send(ListSlots).await.expect("answers")
}

/// The step of each slot, and how many containers the engine has prepared.
fn steps(shared: &Shared, tree: &Tree) -> (Vec<&'static str>, usize) {
    let slots = tree.directory.all();
    let steps = slots.iter().map(|handle| handle.snapshot().step()).collect();
    (steps, shared.lock().containers.prepared.len())
}

fn configure(shared: &Shared, tree: &Tree, change: impl FnOnce(&mut PoolSettings)) {
    let settings = {
        let mut world = shared.lock();
        change(&mut world.settings);
        world.settings.clone()
    };
    tell(&tree.pool, Configure { settings });
}

#[test]
fn a_free_slot_has_its_next_container_ready_for_as_long_as_that_is_wanted() {
    run(|shared, tree| async move {
        settled(&shared, &tree).await;
        assert_eq!(steps(&shared, &tree), (vec!["prepared"], 1));
        configure(&shared, &tree, |settings| {
            settings.platforms.values_mut().for_each(|platform| platform.limits.cpu_millis = Some(500));
        });
        settled(&shared, &tree).await;
        let made_with: Vec<_> =
            shared.lock().containers.prepared.values().map(|made| made.limits.cpu_millis).collect();
        assert_eq!((steps(&shared, &tree), made_with), ((vec!["prepared"], 1), vec![Some(500)]));
        configure(&shared, &tree, |settings| {
            settings.platforms.values_mut().for_each(|platform| platform.prepare = false);
        });
        settled(&shared, &tree).await;
        assert_eq!(steps(&shared, &tree), (vec!["idle"], 0));
    });
}

#[test]
fn what_is_ready_on_a_host_that_gets_no_more_bots_goes_and_is_made_on_another() {
    run(|shared, tree| async move {
        settled(&shared, &tree).await;
        let other = HostName("other".to_owned());
        configure(&shared, &tree, |settings| {
            settings.hosts.insert(HostName::local(), HostSettings { capacity: 0 });
            settings.hosts.insert(other.clone(), HostSettings { capacity: 4 });
        });
        let slots = settled(&shared, &tree).await;
        assert_eq!(steps(&shared, &tree), (vec!["prepared"], 1));
        assert_eq!(slots.first().map(|slot| &slot.host), Some(&other));
        configure(&shared, &tree, |settings| settings.hosts.clear());
        settled(&shared, &tree).await;
        assert_eq!(steps(&shared, &tree), (vec![], 0));
    });
}

#[test]
fn what_is_ready_is_made_anew_where_its_image_was_pulled_anew() {
    run(|shared, tree| async move {
        settled(&shared, &tree).await;
        let slot = tree.directory.all().first().expect("a slot").snapshot();
        let key = PullKey { host: slot.host.clone(), image: slot.image.clone() };
        pull_anew(&tree.pulls, &key).await.expect("an answer").expect("is there");
        let elsewhere = PullKey { host: HostName("other".to_owned()), ..key.clone() };
        assert_eq!(refresh_slots(&tree.directory, &elsewhere).await, 0);
        assert_eq!(refresh_slots(&tree.directory, &key).await, 1);
        settled(&shared, &tree).await;
        assert_eq!(steps(&shared, &tree), (vec!["prepared"], 1));
        let operation = tree.directory.all().first().expect("a slot").snapshot().operation;
        assert!(operation > slot.operation, "it is another one");
    });
}

#[test]
fn a_bot_starts_in_what_is_ready_and_waits_for_no_image() {
    run(|shared, tree| async move {
        settled(&shared, &tree).await;
        let pulls = shared.lock().counts.get("pull").copied();
        let handle = tree.directory.all().first().expect("a slot").clone();
        let key = handle.snapshot().container_key();
        let event = SlotEvent::Assigned {
            bot: Box::new(sample::bot(1)),
            source: BotSource::Request { idempotency: None },
        };
        let outcome = handle.send(event).await.expect("answers").expect("is taken");
        assert_eq!((outcome.slot.step(), outcome.slot.container_key()), ("starting", key));
        settled(&shared, &tree).await;
        let world = shared.lock();
        assert_eq!(world.counts.get("prepared container started"), Some(&1));
        assert_eq!(world.counts.get("pull").copied(), pulls);
        assert!(world.containers.running.contains_key(&key));
    });
}

#[test]
fn a_scaler_that_is_told_of_other_settings_goes_by_them() {
    run(|shared, tree| async move {
        assert_eq!(settled(&shared, &tree).await.len(), 1, "the prewarm count, and one idle");
        let few = ScaleSettings { min_idle: 3, ..ScaleSettings::default() };
        tell(&tree.scaler, ConfigureScale { settings: few });
        assert_eq!(settled(&shared, &tree).await.len(), 3);
        tell(&tree.scaler, ConfigureScale { settings: ScaleSettings { enabled: false, min_idle: 4, ..few } });
        assert_eq!(settled(&shared, &tree).await.len(), 3, "switched off");
    });
}
