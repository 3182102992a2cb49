//! What must hold after every step, whatever happens.

use super::store::Tables;
use super::world::World;
use crate::bot::BotState;
use crate::ids::{BotId, ContainerKey};
use crate::journal::{Change, Decision};
use crate::pool::message::PoolSnapshot;
use crate::queue::actor::QueueSnapshot;
use crate::slot::{BusyStep, SlotState, SlotStatus};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Checked after every commit.
pub fn after_commit(world: &mut World, before: &Tables, decisions: &[Decision]) {
    note_changes(world, decisions);
    every_live_bot_in_exactly_one_place(world);
    final_states_stay(world);
    idle_means_gone(world, before);
    those_that_go_take_no_bot(world, before, decisions);
    caps_hold(world);
    queue_order_kept(world, before, decisions);
}

fn note_changes(world: &mut World, decisions: &[Decision]) {
    for change in decisions.iter().flatten() {
        match change {
            Change::WriteSlot(slot) => {
                let status = slot.status().map_or("retired", SlotStatus::as_str);
                world.count(&format!("slot {status}"));
                let bot = slot.bot().map(|bot| bot.id.0);
                world.note(format!("{} g{} {status} bot {bot:?}", slot.name, slot.generation));
            }
            Change::DeleteSlot { name, .. } => {
                world.count("slot retired");
                world.note(format!("{name} retired"));
            }
            Change::WriteBot(bot) => {
                world.count(&format!("bot {}", bot.state.as_str()));
                let reason = bot.end.as_ref().map(|end| end.reason.as_str());
                if let Some(reason) = reason {
                    world.count(&format!("end {reason}"));
                }
                world.note(format!("bot {} {} {}", bot.id, bot.state.as_str(), reason.unwrap_or_default()));
            }
            Change::InsertQueueEntry(entry) => {
                world.note(format!("bot {} queued {:?}", entry.bot_id, entry.place()))
            }
            Change::InsertEvent(_)
            | Change::DeleteQueueEntry(_)
            | Change::WriteRecording(_)
            | Change::InsertDrain(_)
            | Change::DeleteDrain(_)
            | Change::InsertIdempotencyKey(_) => {}
        }
    }
}

/// No slot with two bots, no bot in two places or in none.
fn every_live_bot_in_exactly_one_place(world: &mut World) {
    let mut places: BTreeMap<BotId, Vec<String>> = BTreeMap::new();
    for slot in world.tables.slots.values() {
        if let Some(bot) = slot.bot() {
            places.entry(bot.id).or_default().push(slot.name.0.clone());
        }
    }
    for bot in world.tables.queue.keys() {
        places.entry(*bot).or_default().push("queue".to_owned());
    }
    let mut wrong = Vec::new();
    for bot in world.tables.bots.values() {
        let count = places.get(&bot.id).map_or(0, Vec::len);
        let expected = if bot.state.is_final() { count <= 1 } else { count == 1 };
        if !expected {
            wrong.push(format!("bot {} ({}) is in {:?}", bot.id, bot.state.as_str(), places.get(&bot.id)));
        }
    }
    wrong.into_iter().for_each(|what| world.violated(what));
}

fn final_states_stay(world: &mut World) {
    let bots: Vec<(BotId, BotState)> = world.tables.bots.values().map(|bot| (bot.id, bot.state)).collect();
    for (id, state) in bots {
        match world.finals.get(&id) {
            Some(known) if *known != state => {
                let known = known.as_str();
                world.violated(format!("bot {id} was {known} and is {}", state.as_str()));
            }
            None if state.is_final() => drop(world.finals.insert(id, state)),
            _ => {}
        }
    }
}

/// A draining slot is given no bot; an ephemeral one is not free again.
fn those_that_go_take_no_bot(world: &mut World, before: &Tables, decisions: &[Decision]) {
    for change in decisions.iter().flatten() {
        let Change::WriteSlot(slot) = change else { continue };
        let known = before.slots.get(&slot.name);
        let assigned = known.is_some_and(|known| known.generation != slot.generation);
        if assigned && known.is_some_and(|known| known.draining) {
            world.violated(format!("{} drains and was given a bot", slot.name));
        }
        if slot.ephemeral && slot.generation.0 > 0 && matches!(slot.state, SlotState::Idle { .. }) {
            world.violated(format!("{} is ephemeral and idle after a bot", slot.name));
        }
        let Some(known) = known else { continue };
        if known.image != slot.image {
            world.count("image changed");
            if !matches!(known.state, SlotState::Idle { .. }) {
                world.violated(format!("{} changed its image under a bot", slot.name));
            }
        }
        if slot.draining && !known.draining {
            world.count("slot drains");
        }
        if let (
            SlotState::Busy { step: BusyStep::Leaving { until: was, .. }, .. },
            SlotState::Busy { step: BusyStep::Leaving { until, latest }, .. },
        ) = (&known.state, &slot.state)
            && until > was
        {
            world.count("grace extended");
            if until > latest {
                world.violated(format!("{} waits beyond the limit", slot.name));
            }
        }
    }
}

/// A slot is idle, or its number free, only when nothing of it runs.
fn idle_means_gone(world: &mut World, before: &Tables) {
    let mut wrong = Vec::new();
    for key in world.containers.running.keys() {
        let slot = world.tables.slots.values().find(|slot| slot.id == key.slot);
        let known = before.slots.values().any(|slot| slot.id == key.slot);
        match slot {
            Some(slot) if matches!(slot.state, SlotState::Idle { .. }) => wrong.push(slot.name.0.clone()),
            Some(slot) if slot.generation != key.generation => wrong.push(slot.name.0.clone()),
            None if known => wrong.push(super::engine::name(*key)),
            _ => {}
        }
    }
    for name in wrong {
        world.violated(format!("{name} is idle, moved on or gone while its container runs"));
    }
}

fn caps_hold(world: &mut World) {
    for (platform, max) in world.platforms.clone() {
        let count = world.tables.slots.values().filter(|slot| slot.platform == platform).count();
        if count > max as usize {
            world.violated(format!("{platform} has {count} slots of {max}"));
        }
    }
}

/// An entry may be served before an earlier one only while the earlier one is on offer itself, so there are never
/// as many left behind as there are slots.
fn queue_order_kept(world: &mut World, before: &Tables, decisions: &[Decision]) {
    let mut wrong = Vec::new();
    for change in decisions.iter().flatten() {
        let Change::WriteBot(bot) = change else { continue };
        let Some(entry) = before.queue.get(&bot.id).filter(|_| bot.state == BotState::Deploying) else {
            continue;
        };
        let overtaken = world
            .tables
            .queue
            .values()
            .filter(|other| other.platform == entry.platform && other.place() < entry.place())
            .filter(|other| other.deadline_at > world.now)
            .count();
        let slots = world.platforms.get(&entry.platform).copied().unwrap_or(0) as usize;
        if overtaken >= slots {
            wrong.push(format!("bot {} was served before {overtaken} earlier ones", bot.id));
        }
        world.count("served from the queue");
    }
    wrong.into_iter().for_each(|what| world.violated(what));
}

/// Checked before the engine stops something: never a live meeting by mistake.
pub fn before_stop(world: &mut World, key: ContainerKey) {
    let holder = world.tables.slots.values().find(|slot| slot.id == key.slot);
    let Some(slot) = holder.filter(|slot| slot.generation == key.generation) else { return };
    let wanted = matches!(
        slot.state,
        SlotState::Busy { step: BusyStep::Running { .. } | BusyStep::Leaving { .. }, .. }
            | SlotState::Deploying { .. }
    );
    if wanted {
        let name = slot.name.clone();
        world.violated(format!("{name} g{}: a live bot was stopped", key.generation));
    }
}

/// Checked when a container's program starts: nothing else of the slot runs.
pub fn program_starts(world: &mut World, key: ContainerKey) {
    let others = world.programs.keys().filter(|other| other.slot == key.slot && **other != key).count();
    if others > 0 {
        world.violated(format!("{} runs {} containers", super::engine::name(key), others + 1));
    }
}

/// Checked when a claim is answered: it is the stored one.
pub fn claimed(world: &mut World, key: ContainerKey, nonce: Uuid) {
    let slot = world.tables.slots.values().find(|slot| slot.id == key.slot);
    let Some(bot) = slot.and_then(|slot| slot.bot()).map(|bot| bot.id) else { return };
    let stored = world.tables.bots.get(&bot).and_then(|bot| bot.nonce);
    if stored.is_some_and(|stored| stored != nonce) {
        world.violated(format!("bot {bot} was claimed twice"));
    }
}

/// Checked at the end: the mailboxes remember no bot that the rows do not know as live.
pub fn nothing_remembered(world: &mut World, pool: &PoolSnapshot, queue: &QueueSnapshot) {
    if !pool.owners.is_empty() {
        world.violated(format!("the pool still remembers {:?}", pool.owners));
    }
    if !pool.waiting.is_empty() {
        world.violated(format!("the pool still counts waiting bots: {:?}", pool.waiting));
    }
    the_pool_knows_the_rows(world, pool);
    if !queue.entries.is_empty() {
        world.violated(format!("the queue still remembers {:?}", queue.entries));
    }
}

/// The index is what the rows say, and what had to be adopted is.
fn the_pool_knows_the_rows(world: &mut World, pool: &PoolSnapshot) {
    let told = |name: &str, status: Option<SlotStatus>, image: &str, draining: bool, reserved: bool| {
        format!("{name} {status:?} {image} draining {draining} reserved {reserved}")
    };
    let lines = pool.lines.iter();
    let known: Vec<String> = lines
        .map(|line| told(&line.name.0, line.status, &line.image, line.draining, line.reserved))
        .collect();
    let slots = world.tables.slots.values();
    let rows: Vec<String> =
        slots.map(|slot| told(&slot.name.0, slot.status(), &slot.image, slot.draining, false)).collect();
    if known != rows {
        world.violated(format!("the pool knows {known:?}, the rows say {rows:?}"));
    }
    let on_hosts: u32 = pool.hosts.values().map(|host| host.slots).sum();
    if on_hosts as usize != rows.len() {
        world.violated(format!("{on_hosts} slots on hosts, {} rows", rows.len()));
    }
    let slots: Vec<_> = world.tables.slots.values().cloned().collect();
    for slot in slots {
        let wanted = world.settings.platforms.get(&slot.platform).map(|platform| &platform.image);
        if wanted != Some(&slot.image) {
            world.violated(format!("{} still has image {}", slot.name, slot.image));
        }
        if world.tables.drains.iter().any(|drain| drain.holds(&slot.platform, &slot.host)) {
            world.violated(format!("{} is left in a drain", slot.name));
        }
    }
}

/// Checked at the end, when there were no faults for long enough: nothing is left over.
pub fn settled(world: &mut World) {
    let mut wrong = Vec::new();
    for bot in world.tables.bots.values().filter(|bot| !bot.state.is_final()) {
        wrong.push(format!("bot {} is still {}", bot.id, bot.state.as_str()));
    }
    for slot in world.tables.slots.values().filter(|slot| !matches!(slot.state, SlotState::Idle { .. })) {
        wrong.push(format!("{} is still {:?}", slot.name, slot.state));
    }
    for key in world.containers.running.keys() {
        wrong.push(format!("{} g{} still runs", super::engine::name(*key), key.generation));
    }
    for recording in world.tables.recordings.values() {
        if matches!(recording.state.as_str(), "open" | "joining") {
            wrong.push(format!("recording {} is still {}", recording.bot_id, recording.state.as_str()));
        }
    }
    if !world.tables.queue.is_empty() {
        wrong.push(format!("{} bots still wait", world.tables.queue.len()));
    }
    for (number, client) in world.clients.iter().enumerate() {
        if client.answer == super::client::Answer::None {
            wrong.push(format!("client {number} was never answered"));
        }
    }
    wrong.into_iter().for_each(|what| world.violated(what));
}
