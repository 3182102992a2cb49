//! What must hold after every step, whatever happens.

use super::liveness;
use super::program::Program;
use super::store::Tables;
use super::world::World;
use crate::bot::{Bot, BotState, EndReason};
use crate::ids::{BotId, ContainerKey, SlotId};
use crate::journal::{Change, Decision};
use crate::pool::index::SlotLine;
use crate::pool::load::PoolLoad;
use crate::pool::message::PoolSnapshot;
use crate::queue::message::QueueSnapshot;
use crate::scale::actor::ScaleSnapshot;
use crate::scale::plan::Action;
use crate::schedule::ScheduleSettings;
use crate::schedule::message::ScheduleSnapshot;
use crate::schedule::plan::{furthest, missed_at};
use crate::slot::preparation::Preparation;
use crate::slot::{BusyStep, DeployStep, Slot, SlotState, SlotStatus};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// How long the store may keep a decision waiting that was made in time.
pub(super) const COMMIT_SLACK: TimeDelta = TimeDelta::minutes(2);
/// The same where nothing is wrong.
const HEALTHY_SLACK: TimeDelta = TimeDelta::milliseconds(200);

/// Checked after every commit; `before` holds the rows that it touched as they were.
pub fn after_commit(world: &mut World, before: &Tables, decisions: &[Decision]) {
    note_changes(world, decisions);
    every_live_bot_in_exactly_one_place(world);
    final_states_stay(world);
    idle_means_gone(world, before);
    those_that_go_take_no_bot(world, before, decisions);
    caps_hold(world);
    liveness::after_commit(world, before, decisions);
    note_places(world, decisions);
    queue_order_kept(world, before, decisions);
    schedule_kept(world, before, decisions);
    queue_timeouts_exact(world, before, decisions);
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
                if bot.state == BotState::Queued && bot.setback.is_some() {
                    let failed = bot.failed_starts() > 0;
                    world.count(if failed { "start goes elsewhere" } else { "start declined" });
                }
                world.note(format!("bot {} {} {}", bot.id, bot.state.as_str(), reason.unwrap_or_default()));
            }
            Change::InsertQueueEntry(entry) => {
                world.note(format!("bot {} queued {:?}", entry.bot_id, entry.place()))
            }
            Change::UpdateQueueEntry(entry) => {
                world.count("bot reprioritised");
                world.note(format!("bot {} moved to {:?}", entry.bot_id, entry.place()));
            }
            Change::WriteMaintenance(row) => {
                let Some(run) = &row.run else { continue };
                let ended = run.ended_at.is_some();
                world.count(if ended { "maintenance ended" } else { "maintenance began" });
                world.note(format!("maintenance {}", if ended { "ended" } else { "begins" }));
            }
            Change::DeleteRecording { .. } | Change::DeleteEvents(_) | Change::DeleteBot(_) => {}
            Change::InsertEvent(_)
            | Change::DeleteQueueEntry(_)
            | Change::WriteRecording(_)
            | Change::InsertDrain(_)
            | Change::UpdateDrain(_)
            | Change::DeleteDrain(_)
            | Change::InsertIdempotencyKey(_) => {}
        }
    }
}

/// No slot with two bots, no bot in two places or in none, and none that waits otherwise than its own row says.
fn every_live_bot_in_exactly_one_place(world: &mut World) {
    let mut places: BTreeMap<BotId, Vec<String>> = BTreeMap::new();
    for slot in world.tables.slots.values() {
        if let Some(bot) = slot.bot() {
            places.entry(bot.id).or_default().push(slot.name.0.clone());
        }
    }
    let mut wrong = Vec::new();
    for (bot, entry) in &world.tables.queue {
        places.entry(*bot).or_default().push("queue".to_owned());
        let wished = world.tables.bots.get(bot).map(|bot| bot.spec.priority);
        if wished != Some(entry.priority) {
            wrong.push(format!("bot {bot} waits at priority {}, its row says {wished:?}", entry.priority));
        }
    }
    for bot in world.tables.bots.values().filter(|bot| bot.state == BotState::Scheduled) {
        places.entry(bot.id).or_default().push("schedule".to_owned());
    }
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
        // A bot that is started again stays where it is, wherever the slot goes afterwards.
        let assigned = known.is_some_and(|known| {
            known.generation != slot.generation && matches!(known.state, SlotState::Idle { .. })
        });
        if assigned && known.is_some_and(|known| known.drains.any()) {
            world.violated(format!("{} drains and was given a bot", slot.name));
        }
        let is_away = |since: &DateTime<Utc>| (*since).max(world.troubled_until) + OFFER_MAX[1] < world.now;
        if assigned && world.breakers_open.get(&slot.host).is_some_and(is_away) {
            world.violated(format!("{} was given a bot while its engine is away", slot.name));
        }
        if slot.ephemeral && slot.generation.0 > 0 && matches!(slot.state, SlotState::Idle { .. }) {
            world.violated(format!("{} is ephemeral and idle after a bot", slot.name));
        }
        let Some(known) = known else { continue };
        let both_idle =
            matches!((&known.state, &slot.state), (SlotState::Idle { .. }, SlotState::Idle { .. }));
        if both_idle && known.changed_at < slot.changed_at && *known == as_before(slot, known) {
            world.count("slot refreshed");
        }
        if known.image != slot.image {
            world.count("image changed");
            if !matches!(known.state, SlotState::Idle { .. }) {
                world.violated(format!("{} changed its image under a bot", slot.name));
            }
        }
        if slot.drains.any() && !known.drains.any() {
            world.count("slot drains");
        }
        let is_due = known.drains.by().is_some_and(|by| by <= world.utc());
        if is_due && matches!(slot.state, SlotState::Busy { step: BusyStep::Leaving { .. }, .. }) {
            world.count("asked to leave at a drain's deadline");
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

/// A slot is idle, or its number free, only when nothing of it runs; and what was prepared is what its next bot gets.
fn idle_means_gone(world: &mut World, before: &Tables) {
    let mut wrong = Vec::new();
    // What a lost host leaves behind is no matter of a slot any more once an operator says so.
    let is_forgotten = |slot: &&Slot| slot.bot().is_none() && world.forgotten.contains(&slot.name);
    let forgotten: BTreeSet<SlotId> =
        before.slots.values().filter(is_forgotten).map(|slot| slot.id).collect();
    for key in world.containers.prepared.keys() {
        let slot = world.tables.slots.values().find(|slot| slot.id == key.slot);
        let is_held = slot.is_some_and(|slot| slot.holds_container() && slot.container_key() == *key);
        let is_known = slot.is_some() || before.slots.values().any(|slot| slot.id == key.slot);
        if !is_held && is_known && !forgotten.contains(&key.slot) {
            wrong.push(format!("{} (prepared)", super::engine::name(*key)));
        }
    }
    for key in world.containers.running.keys() {
        let slot = world.tables.slots.values().find(|slot| slot.id == key.slot);
        let known = before.slots.values().any(|slot| slot.id == key.slot);
        match slot {
            Some(slot) if matches!(slot.state, SlotState::Idle { .. }) => wrong.push(slot.name.0.clone()),
            Some(slot) if slot.generation != key.generation => wrong.push(slot.name.0.clone()),
            None if known && !forgotten.contains(&key.slot) => wrong.push(super::engine::name(*key)),
            _ => {}
        }
    }
    for name in wrong {
        world.violated(format!("{name} is idle, moved on or gone while its container runs"));
    }
}

/// A slot as it would be if nothing but its times and counts had changed.
fn as_before(slot: &Slot, before: &Slot) -> Slot {
    let Slot { changed_at, version, .. } = *before;
    Slot { changed_at, version, ..slot.clone() }
}

fn caps_hold(world: &mut World) {
    for (platform, max) in world.platforms.clone() {
        let count = world.tables.slots.values().filter(|slot| slot.platform == platform).count();
        if count > max as usize {
            world.violated(format!("{platform} has {count} slots of {max}"));
        }
    }
}

/// An offer is under way no longer than this, if the store answers and if it does not.
const OFFER_MAX: [TimeDelta; 2] = [TimeDelta::milliseconds(500), TimeDelta::seconds(60)];
/// How exact deadlines in the queue are kept, where the store answers; and how soon a refusal is there.
const QUICK: TimeDelta = TimeDelta::milliseconds(100);

fn note_places(world: &mut World, decisions: &[Decision]) {
    for change in decisions.iter().flatten() {
        if let Change::InsertQueueEntry(entry) | Change::UpdateQueueEntry(entry) = change {
            world.placed_at.insert(entry.bot_id, world.now);
        }
    }
}

/// An entry may be served before an earlier one only while the earlier one is on offer itself, or came to its place
/// when the offer was under way, so there are never as many others left behind as there are slots.
fn queue_order_kept(world: &mut World, before: &Tables, decisions: &[Decision]) {
    let mut wrong = Vec::new();
    let settled_by = world.now - OFFER_MAX[usize::from(!world.steady())];
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
            .filter(|other| other.deadline_at > world.utc())
            .filter(|other| world.placed_at.get(&other.bot_id).is_some_and(|at| *at < settled_by))
            .count();
        let slots = world.platforms.get(&entry.platform).copied().unwrap_or(0) as usize;
        if overtaken >= slots {
            wrong.push(format!("bot {} was served before {overtaken} earlier ones", bot.id));
        }
        world.count("served from the queue");
    }
    wrong.into_iter().for_each(|what| world.violated(what));
}

/// A scheduled bot is handed over within its time, and given up only where it had to be.
fn schedule_kept(world: &mut World, before: &Tables, decisions: &[Decision]) {
    for change in decisions.iter().flatten() {
        let Change::WriteBot(bot) = change else { continue };
        let was = before.bots.get(&bot.id).cloned();
        if was.as_ref().is_some_and(|was| was.state == BotState::Deploying)
            && let Some(deployed_at) = bot.deployed_at
        {
            world.longest_start = world.longest_start.max(world.utc() - deployed_at);
        }
        if bot.state == BotState::Scheduled {
            world.scheduled_since.insert(bot.id, world.utc());
        }
        if let Some(was) = was.filter(|was| was.state == BotState::Scheduled) {
            match bot.end.as_ref().map(|end| end.reason) {
                None if bot.state == BotState::Scheduled => world.count("bot moved"),
                None => handed_over_in_time(world, &was),
                Some(EndReason::StartMissed) => missed_for_a_reason(world, &was),
                Some(_) => world.count("scheduled bot cancelled"),
            }
        }
    }
}

fn handed_over_in_time(world: &mut World, bot: &Bot) {
    let (settings, now) = (ScheduleSettings::default(), world.utc());
    let Some(start_at) = bot.spec.start_at else {
        return world.violated(format!("bot {} was scheduled without a start", bot.id));
    };
    world.count("handed over");
    let earliest = start_at - furthest(&settings, world.longest_start) - COMMIT_SLACK;
    let latest = missed_at(&settings, start_at, bot.spec.end_at) + COMMIT_SLACK;
    if !(earliest..=latest).contains(&now) && world.clock_steady_for(COMMIT_SLACK) {
        world.violated(format!("bot {} starts at {start_at} and was handed over at {now}", bot.id));
    }
    let since = world.scheduled_since.get(&bot.id).copied().unwrap_or(now);
    if now > since.max(start_at - settings.lead) + HEALTHY_SLACK {
        world.count("handed over late");
    }
}

/// The server was down for longer than starts are made up for, or the clock was set and nobody put it right, or nobody
/// could take the bot.
fn missed_for_a_reason(world: &mut World, bot: &Bot) {
    let settings = ScheduleSettings::default();
    let missed_at = bot.spec.start_at.map(|start_at| missed_at(&settings, start_at, bot.spec.end_at));
    let was_down = world.down.iter().any(|(from, to)| {
        *to - *from > settings.lateness && missed_at.is_some_and(|at| (*from..=*to).contains(&at))
    });
    let no_room =
        bot.spec.queue_timeout_ms == 0 || !world.settings.platforms.contains_key(&bot.spec.platform);
    let is_early = missed_at.is_none_or(|at| world.utc() < at) && world.clock_steady_for(COMMIT_SLACK);
    // Who was kept while the clock was doubted is looked at within a minute of the end of that, which is counted from a
    // look within a minute of the leap.
    let was_set = !world.clock_steady_for(settings.lateness + TimeDelta::minutes(2) + COMMIT_SLACK);
    if is_early || !(was_down || was_set || no_room) {
        world.violated(format!("the start of bot {} was given up without need", bot.id));
    }
    let was_missed_before = |before| missed_at.is_some_and(|at| at <= before);
    if world.before_leap(settings.lateness).is_some_and(|before| !was_missed_before(before)) {
        world.violated(format!("the start of bot {} was given up by a clock that had just leapt", bot.id));
    }
}

/// Nobody's time is up early; where the store answers, nobody waits longer than was asked.
fn queue_timeouts_exact(world: &mut World, before: &Tables, decisions: &[Decision]) {
    let mut wrong = Vec::new();
    for change in decisions.iter().flatten() {
        let Change::WriteBot(bot) = change else { continue };
        let timed_out = bot.end.as_ref().is_some_and(|end| end.reason == EndReason::QueueTimeout);
        let Some(entry) = before.queue.get(&bot.id).filter(|_| timed_out) else { continue };
        if bot.ended_at.is_none_or(|at| at < entry.deadline_at) {
            wrong.push(format!("bot {} gave up before its time", bot.id));
        }
        world.count("queue timeout");
    }
    if world.steady() {
        let overdue = world.tables.queue.values().filter(|entry| entry.deadline_at + QUICK < world.now);
        wrong.extend(overdue.map(|entry| format!("bot {} waits past its time", entry.bot_id)));
    }
    wrong.into_iter().for_each(|what| world.violated(what));
}

/// Checked when a client is told that the queue is full: it is told at once.
pub fn refused(world: &mut World, asked_at: DateTime<Utc>) {
    if world.steady() && world.now > asked_at + QUICK {
        world.violated(format!("a refusal took {}", world.now - asked_at));
    }
}

/// Checked before the engine stops something: never a live meeting by mistake.
pub fn before_stop(world: &mut World, key: ContainerKey) {
    let holder = world.tables.slots.values().find(|slot| slot.id == key.slot);
    let Some(slot) = holder.filter(|slot| slot.generation == key.generation) else { return };
    let wanted = matches!(
        slot.state,
        SlotState::Busy { step: BusyStep::Running { .. } | BusyStep::Leaving { .. }, .. }
            | SlotState::Deploying {
                step: DeployStep::Pulling
                    | DeployStep::Resuming
                    | DeployStep::Starting
                    | DeployStep::Retrying { .. },
                ..
            }
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

/// Checked when a claim is answered: it is the stored one, and no other program of the bot is in its meeting.
pub fn claimed(world: &mut World, key: ContainerKey, nonce: Uuid) {
    let bot_id = world.programs.get(&key).map(|program| program.bot_id);
    let is_beside = |(other, program): (&ContainerKey, &Program)| {
        *other != key && Some(program.bot_id) == bot_id && program.is_in_meeting()
    };
    if world.programs.iter().any(is_beside) {
        world.violated(format!("bot {bot_id:?} is in its meeting twice"));
    }
    let slot = world.tables.slots.values().find(|slot| slot.id == key.slot);
    let Some(bot) = slot.and_then(|slot| slot.bot()).map(|bot| bot.id) else { return };
    let stored = world.tables.bots.get(&bot).and_then(|bot| bot.nonce);
    if stored.is_some_and(|stored| stored != nonce) {
        world.violated(format!("bot {bot} was claimed twice"));
    }
}

/// Checked at the end: the mailboxes remember no bot that the rows do not know as live.
pub fn nothing_remembered(
    world: &mut World,
    pool: &PoolSnapshot,
    queue: &QueueSnapshot,
    schedule: &ScheduleSnapshot,
) {
    if *schedule != ScheduleSnapshot::default() {
        world.violated(format!("the Scheduler still remembers {schedule:?}"));
    }
    if pool.bots > 0 {
        world.violated(format!("the pool still remembers {} bots", pool.bots));
    }
    if !pool.waiting.is_empty() {
        world.violated(format!("the pool still counts waiting bots: {:?}", pool.waiting));
    }
    if !queue.lines.is_empty() {
        world.violated(format!("the queue still remembers {:?}", queue.lines));
    }
}

/// Checked at the end: the index is what the rows say, and what had to be adopted is.
pub fn the_pool_knows_the_rows(world: &mut World, pool: &PoolSnapshot, lines: &[SlotLine]) {
    let told = |name: &str, status: Option<SlotStatus>, image: &str, draining: bool, reserved: bool| {
        format!("{name} {status:?} {image} draining {draining} reserved {reserved}")
    };
    let known: Vec<String> = lines
        .iter()
        .map(|line| told(&line.name.0, line.status, &line.image, line.draining, line.reserved))
        .collect();
    let slots = world.tables.slots.values();
    let rows: Vec<String> =
        slots.map(|slot| told(&slot.name.0, slot.status(), &slot.image, slot.drains.any(), false)).collect();
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
        if world.tables.drains.keys().any(|drain| drain.holds(&slot.platform, &slot.host)) {
            world.violated(format!("{} is left in a drain", slot.name));
        }
        let has_room = world.settings.hosts.get(&slot.host).is_some_and(|host| host.capacity > 0);
        if slot.status() == Some(SlotStatus::Idle) && !has_room {
            world.violated(format!("{} is left on host {}, which gets no bots", slot.name, slot.host));
        }
    }
}

/// Checked at the end: the short account of the pool is that of the long one.
pub fn load_is_that_of_the_slots(world: &mut World, lines: &[SlotLine], load: &PoolLoad) {
    for (platform, of) in &load.platforms {
        let slots: Vec<_> = lines.iter().filter(|line| line.platform == *platform).collect();
        let free = slots.iter().filter(|line| line.status == Some(SlotStatus::Idle) && !line.draining);
        let names: Vec<_> = free.map(|line| &line.name).collect();
        let named = of.longest_unused.iter().all(|name| names.contains(&name));
        let counts = (of.slots as usize, of.free as usize, of.longest_unused.len());
        if counts != (slots.len(), names.len(), names.len().min(3)) || !named {
            world.violated(format!("the load of {platform} is {of:?}, its slots are {slots:?}"));
        }
    }
}

/// How long before the end the Scaler must have come to rest: by then it had an hour without faults.
const REST: TimeDelta = TimeDelta::minutes(30);
/// How long after the last bot it may still work: some cool-downs.
const REST_AFTER_BOT: TimeDelta = TimeDelta::minutes(15);

/// Checked at the end: what is made ahead of need is there, and nothing is made or deleted any more.
pub fn at_rest(world: &mut World, pool: &PoolSnapshot, lines: &[SlotLine], scaler: &ScaleSnapshot) {
    let last_ended = world.tables.bots.values().filter_map(|bot| bot.ended_at).max();
    let rest = world.utc() - REST;
    let rest_from = last_ended.map_or(rest, |at| rest.max(at + REST_AFTER_BOT));
    for (at, action) in &scaler.recent {
        world.count(match action {
            Action::Grow { .. } => "scaler grows",
            Action::Retire { .. } => "scaler retires",
        });
        if *at > rest_from {
            world.violated(format!("the Scaler does not come to rest: {action:?} at {at}"));
        }
    }
    if let Some(platform) = &scaler.growing {
        world.violated(format!("the Scaler still makes a slot for {platform}"));
    }
    let hosts = pool.hosts.values().filter(|host| !host.draining);
    let on_hosts = hosts.map(|host| host.capacity.saturating_sub(host.slots)).sum::<u32>() > 0;
    let is_room = on_hosts && lines.len() < pool.max_size as usize;
    for (platform, limits) in pool.platforms.iter().filter(|(_, limits)| limits.open && is_room) {
        let slots = lines.iter().filter(|line| line.platform == *platform && !line.draining).count();
        if slots < limits.prewarm.min(limits.max_size) as usize {
            world.violated(format!(
                "{platform} has {slots} slots, and {} were to be prewarmed",
                limits.prewarm
            ));
        }
    }
}

/// How long a slot may take to have its next container ready: maintenance removes it now and then.
const PREPARE_MAX: TimeDelta = TimeDelta::minutes(2);

/// What is wrong with the container that a free slot has ready at the end.
fn not_prepared(world: &World, slot: &Slot) -> Option<String> {
    let SlotState::Idle { ahead, .. } = &slot.state else { return None };
    let of = world.settings.platforms.get(&slot.platform)?;
    let wanted = (of.enabled && world.engine_prepares).then_some(of.limits);
    let there = world.containers.prepared.get(&slot.container_key());
    let is_right = match (wanted, there, ahead) {
        (Some(limits), Some(there), Preparation::Prepared { .. }) => {
            there.limits == limits && there.image == slot.image
        }
        (None, None, Preparation::Absent) => true,
        _ => slot.changed_at + PREPARE_MAX > world.utc() || world.troubled_until + PREPARE_MAX > world.now,
    };
    (!is_right).then(|| format!("{} has {ahead:?} ready, its engine {there:?}", slot.name))
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
    wrong.extend(world.tables.slots.values().filter_map(|slot| not_prepared(world, slot)));
    for key in world.containers.prepared.keys() {
        if !world.tables.slots.values().any(|slot| slot.container_key() == *key) {
            wrong.push(format!("{} g{} is still prepared", super::engine::name(*key), key.generation));
        }
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
