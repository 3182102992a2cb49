//! Maintenance and the collector of spools within the whole tree, on the fakes and without faults: what a new server
//! finds stored, and what it makes of it.

use actix::prelude::*;
use async_trait::async_trait;
use chrono::TimeDelta;
use meeboter_actors::bot::{Bot, BotState, EndReason, Seat};
use meeboter_actors::ids::{BotId, Platform};
use meeboter_actors::journal::actor::Journal;
use meeboter_actors::maintenance::actor::{Configure, MaintenanceSnapshot, Observe, RunNow};
use meeboter_actors::maintenance::timetable::Timetable;
use meeboter_actors::maintenance::{Before, MaintenanceRow, MaintenanceSettings, Retention, Run, Trigger};
use meeboter_actors::ports::{Clock, Spool, SpoolError, Spools};
use meeboter_actors::recording::Recording;
use meeboter_actors::recording::collector::{CollectorLinks, SpoolCollector};
use meeboter_actors::slot::Slot;
use meeboter_actors::supervision::{DeathGuard, tell};
use meeboter_actors::testing::sample;
use meeboter_actors::testing::scenario::settings;
use meeboter_actors::testing::server::{plant, run_in, until};
use meeboter_actors::testing::world::{Faults, Shared, World};
use meeboter_actors::tree::Tree;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn run<F: Future>(prepare: impl FnOnce(&mut World), test: impl FnOnce(Shared) -> F) -> F::Output {
    let platforms = [(Platform("zoom".to_owned()), 2)].into();
    let settings = settings(&platforms, false);
    let mut world = World::new(1, Faults::default(), platforms, settings);
    prepare(&mut world);
    run_in(world, test)
}

/// Time passes until nothing runs.
async fn quiet(tree: &Tree) -> MaintenanceSnapshot {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let seen = tree.maintainer.send(Observe).await.expect("answers");
        if seen.running.is_none() {
            return seen;
        }
    }
}

/// What a new server makes of what is stored.
fn after_a_start(row: MaintenanceRow) -> MaintenanceSnapshot {
    let prepare = |world: &mut World| world.tables.maintenance = Some(row);
    run(prepare, |shared| async move { quiet(&plant(&shared).await).await })
}

const LAST_NIGHT: TimeDelta = TimeDelta::minutes(25);

fn cut_off(attempt: u32) -> MaintenanceRow {
    let began_at = sample::now();
    let before = Before { ended_at: Some(began_at - LAST_NIGHT), undone_from: Some(began_at - LAST_NIGHT) };
    let run = Run { trigger: Trigger::Timetable, attempt, began_at, ended_at: None, steps: vec![], before };
    MaintenanceRow { run: Some(run), ..MaintenanceRow::new(began_at) }
}

#[test]
fn a_run_that_was_cut_off_is_resumed_once() {
    let seen = after_a_start(cut_off(1));
    let last = seen.last.expect("a run");
    assert_eq!((last.trigger, last.attempt, last.steps.len()), (Trigger::Resumed, 2, 5));
    assert!(last.ended_at.is_some() && seen.next_at.is_some(), "the next one is at its time");
    let seen = after_a_start(cut_off(2));
    let last = seen.last.expect("still shown");
    assert_eq!((last.attempt, last.ended_at), (2, None), "it is left at that");
}

#[test]
fn the_last_end_is_known_during_a_run_and_after_one_that_was_cut_off() {
    let seen = after_a_start(cut_off(2));
    assert_eq!(seen.ended_at, Some(sample::now() - LAST_NIGHT));
    assert_eq!(seen.due_at, Some(sample::now()), "what was due at noon is not done");
    assert_eq!(seen.next_at, Some(sample::now() + TimeDelta::minutes(30)), "and is not tried before that");
    run(
        |_| {},
        |shared| async move {
            let tree = plant(&shared).await;
            drop(tree.maintainer.send(RunNow).await);
            let ended_at = quiet(&tree).await.ended_at;
            assert!(ended_at.is_some());
            let seen = tree.maintainer.send(RunNow).await.expect("answers");
            assert!(seen.running.is_some());
            assert_eq!(seen.ended_at, ended_at);
            // Also when it is stored that it has begun.
            until(&shared, |shared| shared.lock().counts.get("maintenance began") == Some(&2)).await;
            let seen = tree.maintainer.send(Observe).await.expect("answers");
            assert!(seen.running.is_some());
            assert_eq!((seen.ended_at, seen.due_at.is_some()), (ended_at, true));
            assert!(quiet(&tree).await.ended_at > ended_at);
        },
    );
}

#[test]
fn what_was_missed_is_made_up_once_and_stored_before_it_begins() {
    let row = MaintenanceRow::new(sample::now() - TimeDelta::days(7));
    let stored = run(
        |world| world.tables.maintenance = Some(row),
        |shared| async move {
            let tree = plant(&shared).await;
            let seen = quiet(&tree).await;
            assert_eq!(seen.last.map(|run| run.trigger), Some(Trigger::MadeUp));
            tokio::time::sleep(Duration::from_secs(300)).await;
            let world = shared.lock();
            assert_eq!(world.counts.get("maintenance began"), Some(&1), "seven nights are one run");
            world.tables.maintenance.clone().expect("stored")
        },
    );
    assert!(stored.due_from >= sample::now(), "what was due is done: {stored:?}");
    assert!(stored.run.is_some_and(|run| run.ended_at.is_some()));
}

#[test]
fn what_another_timetable_had_due_is_not_made_up() {
    let long_ago = sample::now() - TimeDelta::days(7);
    let row = |timetable: &str| MaintenanceRow {
        timetable: Some(timetable.to_owned()),
        ..MaintenanceRow::new(long_ago)
    };
    // That of the tests, and one that was changed while no server was up.
    let same = after_a_start(row("*/30 * * * * UTC"));
    assert_eq!(same.last.map(|run| run.trigger), Some(Trigger::MadeUp));
    let other = after_a_start(row("0 3 * * * UTC"));
    assert!(other.last.is_none() && other.next_at.is_some(), "{other:?}");
    // While it runs, and it is remembered.
    run(
        |world| world.tables.maintenance = Some(MaintenanceRow::new(sample::now())),
        |shared| async move {
            let tree = plant(&shared).await;
            tokio::time::sleep(Duration::from_secs(1_200)).await;
            let timetable = Timetable::parse("25 12 * * *", "UTC").ok();
            let settings = MaintenanceSettings { timetable, ..MaintenanceSettings::default() };
            let noon = shared.now();
            tell(&tree.maintainer, Configure { settings });
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(shared.lock().counts.get("maintenance began"), None);
            let stored = shared.lock().tables.maintenance.clone().expect("stored");
            assert_eq!((stored.timetable.as_deref(), stored.due_from), (Some("25 12 * * * UTC"), noon));
        },
    );
}

#[test]
fn what_a_clock_said_that_was_a_month_ahead_puts_nothing_off() {
    let ahead = MaintenanceRow {
        timetable: Some("*/30 * * * * UTC".to_owned()),
        ..MaintenanceRow::new(sample::now() + TimeDelta::days(30))
    };
    let next_at = after_a_start(ahead).next_at.expect("it is due again");
    assert!(next_at - sample::now() <= TimeDelta::minutes(30), "{next_at}");
}

/// A bot that ended so many days ago.
fn ended(id: i64, days_ago: i64) -> Bot {
    let end = Some(meeboter_actors::bot::machine::end(EndReason::LeftByRequest));
    let ended_at = Some(sample::now() - TimeDelta::days(days_ago));
    Bot { state: BotState::Done, end, ended_at, ..sample::bot(id) }
}

#[test]
fn a_clock_that_leaps_ahead_removes_nothing_for_a_day() {
    let prepare = |world: &mut World| {
        world.tables.bots.extend([(BotId(1), ended(1, 1)), (BotId(2), ended(2, 31))]);
    };
    run(prepare, |shared| async move {
        let tree = plant(&shared).await;
        let retention = Retention { bots: Some(TimeDelta::days(30)), ..Retention::default() };
        let timetable = Timetable::parse("*/30 * * * *", "UTC").ok();
        let settings = MaintenanceSettings { timetable, retention, ..MaintenanceSettings::default() };
        tell(&tree.maintainer, Configure { settings });
        tokio::time::sleep(Duration::from_secs(60)).await;
        shared.lock().set_clock(TimeDelta::days(90));
        tokio::time::sleep(Duration::from_secs(60)).await;
        shared.lock().set_clock(-TimeDelta::days(90));
        let left = || shared.lock().tables.bots.keys().map(|id| id.0).collect::<Vec<_>>();
        let retention = |seen: &MaintenanceSnapshot| {
            let last = seen.last.clone().expect("a run");
            (last.trigger, last.steps[3].first_failure.clone())
        };
        let (trigger, why) = retention(&quiet(&tree).await);
        assert_eq!((trigger, left()), (Trigger::MadeUp, vec![1, 2]));
        assert!(why.is_some_and(|why| why.contains("the clock")), "it says why");
        // Nor does a run that an operator asks for, with the clock right again.
        drop(tree.maintainer.send(RunNow).await);
        quiet(&tree).await;
        assert_eq!(left(), [1, 2]);
        tokio::time::sleep(Duration::from_secs(25 * 3_600)).await;
        assert_eq!(retention(&quiet(&tree).await), (Trigger::Timetable, None));
        assert_eq!(left(), [1], "31 days old");
    });
}

#[test]
fn the_day_without_removals_outlives_the_server_that_saw_the_leap() {
    let prepare = |world: &mut World| {
        world.tables.bots.extend([(BotId(1), ended(1, 1)), (BotId(2), ended(2, 31))]);
    };
    run(prepare, |shared| async move {
        let serve = async |shared: &Shared| {
            let tree = plant(shared).await;
            let retention = Retention { bots: Some(TimeDelta::days(30)), ..Retention::default() };
            let settings = MaintenanceSettings { retention, ..MaintenanceSettings::default() };
            tell(&tree.maintainer, Configure { settings });
            tree
        };
        let left = || shared.lock().tables.bots.keys().map(|id| id.0).collect::<Vec<_>>();
        let tree = serve(&shared).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        shared.lock().set_clock(TimeDelta::days(90));
        tokio::time::sleep(Duration::from_secs(23 * 3_600)).await;
        shared.lock().takes_lead(2);
        drop(tree);
        let next = shared.through(2);
        let tree = serve(&next).await;
        for hours in [0, 23] {
            tokio::time::sleep(Duration::from_secs(hours * 3_600)).await;
            drop(tree.maintainer.send(RunNow).await);
            let last = quiet(&tree).await.last.expect("a run");
            let why = last.steps[3].first_failure.clone();
            assert!(why.is_some_and(|why| why.contains("the clock")), "{last:?}");
            assert_eq!(left(), [1, 2], "after {hours} hours");
        }
        shared.lock().set_clock(-TimeDelta::days(90));
        tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
        drop(tree.maintainer.send(RunNow).await);
        assert_eq!(quiet(&tree).await.last.expect("a run").steps[3].first_failure, None);
        assert_eq!(left(), [1], "33 days old");
        // And the next server trusts the clock from its start.
        let stored = shared.lock().tables.maintenance.clone().expect("stored");
        assert_eq!(stored.doubted_from, None);
    });
}

#[test]
fn a_run_that_is_resumed_removes_nothing_by_a_clock_that_leapt_before() {
    let seen = after_a_start(MaintenanceRow { doubted_from: Some(sample::now()), ..cut_off(1) });
    let last = seen.last.expect("a run");
    assert_eq!(last.trigger, Trigger::Resumed);
    assert!(last.steps[3].first_failure.as_ref().is_some_and(|why| why.contains("the clock")), "{last:?}");
}

#[test]
fn a_clock_that_leaps_while_a_run_is_under_way_makes_nothing_older_for_it() {
    let prepare = |world: &mut World| drop(world.tables.bots.insert(BotId(1), ended(1, 1)));
    run(prepare, |shared| async move {
        let tree = plant(&shared).await;
        let retention = Retention { bots: Some(TimeDelta::days(30)), ..Retention::default() };
        let settings = MaintenanceSettings { retention, ..MaintenanceSettings::default() };
        tell(&tree.maintainer, Configure { settings });
        drop(tree.maintainer.send(RunNow).await);
        // It lists the hosts twice, with seconds between, before it looks at what is old.
        until(&shared, |shared| shared.lock().counts.contains_key("maintenance began")).await;
        shared.lock().set_clock(TimeDelta::days(90));
        let last = quiet(&tree).await.last.expect("a run");
        assert_eq!(last.steps[3].first_failure, None);
        assert!(shared.lock().tables.bots.contains_key(&BotId(1)));
    });
}

#[test]
fn an_operator_who_asks_twice_is_shown_the_run_under_way() {
    run(
        |_| {},
        |shared| async move {
            let tree = plant(&shared).await;
            let first = tree.maintainer.send(RunNow).await.expect("answers").running.expect("it began");
            let second = tree.maintainer.send(RunNow).await.expect("answers").running.expect("the same");
            assert_eq!(first.began_at, second.began_at);
            let last = quiet(&tree).await.last.expect("a run");
            assert_eq!((last.trigger, last.began_at), (Trigger::Operator, first.began_at));
            assert!(last.steps.iter().all(|step| step.ended_at.is_some() && step.failures == 0), "{last:?}");
            assert_eq!(shared.lock().counts.get("maintenance began"), Some(&1));
        },
    );
}

#[test]
fn an_image_that_has_moved_and_was_not_pulled_is_counted_and_tried_again() {
    let prepare = |world: &mut World| {
        let platform = world.settings.platforms.get_mut(&Platform("zoom".to_owned())).expect("is served");
        // It stays.
        platform.prewarm = 1;
        world.tables.hold(Slot { image: platform.image.clone(), ..sample::idle_slot(1) });
    };
    run(prepare, |shared| async move {
        let tree = plant(&shared).await;
        let settings =
            MaintenanceSettings { timetable: None, refresh_idle: None, ..MaintenanceSettings::default() };
        tell(&tree.maintainer, Configure { settings });
        let refreshed = async || {
            drop(tree.maintainer.send(RunNow).await);
            let last = quiet(&tree).await.last.expect("a run");
            let step = last.steps[1].clone();
            (step.done.get("images").copied(), step.failures, step.first_failure)
        };
        let count = |what: &str| shared.lock().counts.get(what).copied();
        assert_eq!(refreshed().await, (Some(1), 0, None), "nobody knows what was pulled");
        shared.lock().faults = Faults { refuse: 1_000, ..Faults::default() };
        let moved = count("tag moved");
        let seen = loop {
            let seen = refreshed().await;
            if count("tag moved") != moved {
                break seen;
            }
            assert_eq!(seen, (None, 0, None), "nothing has moved yet");
        };
        assert_eq!((seen.0, seen.1), (None, 1));
        assert!(seen.2.is_some_and(|why| why.contains("registry away")), "it says why");
        assert!(count("image kept").is_some(), "the engine has the image, and could not pull it");
        shared.lock().faults = Faults::default();
        assert_eq!(refreshed().await, (Some(1), 0, None), "it is tried again");
        let moved = count("tag moved");
        let seen = refreshed().await;
        assert!(count("tag moved") != moved || seen == (None, 0, None), "and not once more");
    });
}

/// One spool that is delivered at the second try; what was done to it.
struct OneSpool {
    spool: Spool,
    done: Arc<Mutex<Vec<&'static str>>>,
}

#[async_trait]
impl Spools for OneSpool {
    async fn find(&self) -> Result<Vec<Spool>, SpoolError> {
        let settled = self.done.lock().expect("whole").iter().any(|done| *done != "failed");
        Ok(if settled { vec![] } else { vec![self.spool.clone()] })
    }

    async fn deliver(&self, _: &Spool) -> Result<u32, SpoolError> {
        let mut done = self.done.lock().expect("whole");
        if done.is_empty() {
            done.push("failed");
            return Err(SpoolError("no answer".to_owned()));
        }
        done.push("delivered");
        Ok(3)
    }

    async fn discard(&self, _: &Spool) -> Result<(), SpoolError> {
        self.done.lock().expect("whole").push("discarded");
        Ok(())
    }
}

/// What becomes of the spool of a bot that ended, by whether it still has a recording.
fn collected(recording: Option<Recording>) -> (Vec<&'static str>, Option<String>) {
    let slot = Slot { version: 1, ..sample::idle_slot(1) };
    let seat = Some(Seat { slot: slot.name.clone(), generation: slot.generation });
    let end = Some(meeboter_actors::bot::machine::end(EndReason::Crashed));
    let ended_at = Some(sample::now() - TimeDelta::days(1));
    let bot = Bot { state: BotState::Fatal, seat, end, ended_at, ..sample::bot(1) };
    let spool = Spool { key: slot.last_bots_container(), bot_id: bot.id };
    let prepare = |world: &mut World| {
        world.tables.slots.insert(slot.name.clone(), slot);
        world.tables.bots.insert(bot.id, bot);
        world.tables.recordings.extend(recording.map(|recording| (BotId(1), recording)));
    };
    run(prepare, |shared| async move {
        let tree = plant(&shared).await;
        let done = Arc::new(Mutex::new(Vec::new()));
        let links = CollectorLinks {
            spools: Arc::new(OneSpool { spool, done: Arc::clone(&done) }),
            directory: Arc::clone(&tree.directory),
            journal: Journal::new(tree.journal.clone()),
            recordings: tree.recordings.clone(),
            clock: Arc::new(shared.clone()) as Arc<dyn Clock>,
            log: slog::Logger::root(slog::Discard, slog::o!()),
        };
        let _collector = SpoolCollector::new(links, DeathGuard::new(|| {})).start();
        tokio::time::sleep(Duration::from_secs(120)).await;
        let done = done.lock().expect("whole").clone();
        let state = shared.lock().tables.recordings.get(&BotId(1)).map(|row| row.state.as_str().to_owned());
        (done, state)
    })
}

#[test]
fn a_spool_is_tried_again_and_its_recording_joined() {
    let (done, state) = collected(Some(Recording::open(BotId(1))));
    assert_eq!((done, state.as_deref()), (vec!["failed", "delivered"], Some("ready")));
}

#[test]
fn a_spool_that_nobody_can_use_is_thrown_away() {
    assert_eq!(collected(None), (vec!["discarded"], None));
}
