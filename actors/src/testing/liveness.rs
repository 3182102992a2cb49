//! What must hold of lives: nobody is given up who is well, who is silent is noticed, and nothing sleeps past its time
//! or goes in circles.

use super::store::Tables;
use super::world::World;
use crate::bot::{Bot, BotState, EndReason};
use crate::ids::ContainerKey;
use crate::journal::{Change, Decision};
use crate::slot::effects::{Effect, effects_of};
use crate::slot::{BusyStep, Slot, SlotState};
use chrono::TimeDelta;

/// Checked after every commit; `before` holds the rows that it touched as they were.
pub fn after_commit(world: &mut World, before: &Tables, decisions: &[Decision]) {
    ended_for_a_reason(world, before, decisions);
    slots_wake_in_time(world);
    silence_is_noticed(world);
    nobody_is_sent_in_circles(world, before, decisions);
    note_running(world, decisions);
}

/// For how long a bot's declined starts are counted together, and how many there may be.
const DECLINED_WITHIN: TimeDelta = TimeDelta::minutes(1);
const DECLINED_MAX: u32 = 12;

/// A bot that was one too many for an image's line waits until the line has moved, and is not sent there again at once.
fn nobody_is_sent_in_circles(world: &mut World, before: &Tables, decisions: &[Decision]) {
    for change in decisions.iter().flatten() {
        let Change::WriteBot(bot) = change else { continue };
        let started = before.bots.get(&bot.id).is_some_and(|was| was.state == BotState::Deploying);
        let is_back = bot.state == BotState::Queued && started;
        if !is_back || bot.failed_starts() > 0 {
            continue;
        }
        let now = world.now;
        let (since, count) = world.declined.entry(bot.id).or_insert((now, 0));
        if now - *since > DECLINED_WITHIN {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        let count = *count;
        if count == DECLINED_MAX {
            world.violated(format!("bot {} was declined {count} times within {DECLINED_WITHIN}", bot.id));
        }
    }
}

fn note_running(world: &mut World, decisions: &[Decision]) {
    for change in decisions.iter().flatten() {
        let Change::WriteSlot(slot) = change else { continue };
        let now = world.now;
        if slot.step() == "running" {
            world.running_since.entry(slot.name.clone()).or_insert(now);
        } else if slot.step() != "leaving" {
            world.running_since.remove(&slot.name);
        }
    }
}

/// Every end is explained, and nobody is given up whose program is well.
fn ended_for_a_reason(world: &mut World, before: &Tables, decisions: &[Decision]) {
    let mut wrong = Vec::new();
    for change in decisions.iter().flatten() {
        let Change::WriteBot(bot) = change else { continue };
        let was_live = before.bots.get(&bot.id).is_none_or(|was| !was.state.is_final());
        if !bot.state.is_final() || !was_live {
            continue;
        }
        match &bot.end {
            Some(end) if !end.detail.is_empty() => {}
            end => wrong.push(format!("bot {} ended without an explanation: {end:?}", bot.id)),
        }
        if silent_too_long(world, bot) {
            wrong.push(format!("bot {} was silent for long before that was noticed", bot.id));
        }
        let lost = matches!(
            bot.end.as_ref().map(|end| end.reason),
            Some(EndReason::HeartbeatLost | EndReason::Crashed)
        );
        if lost && is_well(world, bot) {
            wrong.push(format!("bot {} was given up and is well: {:?}", bot.id, bot.end));
        }
    }
    wrong.into_iter().for_each(|what| world.violated(what));
}

/// Its container runs and never ended, and its program speaks.
fn is_well(world: &World, bot: &Bot) -> bool {
    let slot =
        bot.seat.as_ref().and_then(|seat| Some((world.tables.slots.get(&seat.slot)?, seat.generation)));
    let Some((slot, generation)) = slot else { return false };
    let key = ContainerKey { slot: slot.id, generation };
    let has_ended = world.containers.exit_notes.contains_key(&key);
    let speaks = world.programs.get(&key).is_some_and(|program| program.speaks(world.now));
    world.containers.running.contains_key(&key) && !has_ended && speaks
}

/// How late a slot may look at its deadline, where its server does nothing else wrong.
const WAKE_SLACK: TimeDelta = TimeDelta::minutes(3);

/// A slot whose time is up does something about it, unless it is to recover and its engine is away.
fn slots_wake_in_time(world: &mut World) {
    if world.now - world.troubled_until < WAKE_SLACK || !world.clock_steady_for(WAKE_SLACK) {
        return;
    }
    let overdue = |slot: &&Slot| {
        let is_paused = matches!(slot.state, SlotState::Error { .. } | SlotState::Idle { .. })
            && world.breakers_open.contains_key(&slot.host);
        if is_paused {
            return false;
        }
        effects_of(slot).into_iter().any(|effect| match effect {
            Effect::WakeAt(at) => at.max(slot.changed_at) + WAKE_SLACK < world.utc(),
            _ => false,
        })
    };
    let wrong: Vec<_> = world.tables.slots.values().filter(overdue).map(|slot| slot.name.clone()).collect();
    wrong.into_iter().for_each(|name| world.violated(format!("{name} sleeps past its deadline")));
}

/// How long a program may be silent that runs on: the hard limit, and what it takes to look and to commit.
const SILENCE_MAX: TimeDelta = TimeDelta::minutes(9);

/// Whether a bot that is given up for its silence was silent for much longer than it should have been.
fn silent_too_long(world: &World, bot: &Bot) -> bool {
    let Some(seat) = bot.seat.as_ref() else { return false };
    let is_lost = bot.end.as_ref().is_some_and(|end| end.reason == EndReason::HeartbeatLost);
    let slot = world.tables.slots.get(&seat.slot).map(|slot| slot.id);
    let key = slot.map(|slot| ContainerKey { slot, generation: seat.generation });
    // One whose container is gone is not silent.
    let silent_from = key.and_then(|key| world.programs.get(&key)?.silent_from);
    let Some(silent_from) = silent_from else { return false };
    let running_since = world.running_since.get(&seat.slot).copied();
    let since =
        running_since.into_iter().chain(world.clock_set_at).chain([silent_from, world.troubled_until]);
    is_lost && since.max().is_some_and(|since| world.now - since > SILENCE_MAX)
}

/// A bot that fell silent is given up, where its server heard what there was to hear.
fn silence_is_noticed(world: &mut World) {
    let untroubled_for = world.now - world.troubled_until;
    if untroubled_for < SILENCE_MAX || !world.clock_steady_for(SILENCE_MAX) {
        return;
    }
    let by = world.now - SILENCE_MAX;
    let forgotten = |slot: &&Slot| {
        let program = world.programs.get(&slot.container_key());
        let is_silent = program.is_some_and(|program| program.silent_from.is_some_and(|at| at < by));
        let step = matches!(
            slot.state,
            SlotState::Busy { step: BusyStep::Running { .. } | BusyStep::Leaving { .. }, .. }
        );
        is_silent && step && world.running_since.get(&slot.name).is_some_and(|at| *at < by)
    };
    let wrong: Vec<_> = world.tables.slots.values().filter(forgotten).map(|slot| slot.name.clone()).collect();
    wrong
        .into_iter()
        .for_each(|name| world.violated(format!("{name}: its bot is silent and nobody notices")));
}
