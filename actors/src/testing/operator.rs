//! The scripted operator: resets, drains, retires and ends slots, drains platforms and hosts, changes settings, makes
//! slots ahead of need; whatever comes to mind, at any moment.

use super::scenario;
use super::world::{Shared, World};
use crate::bot::EndReason;
use crate::ids::{BotId, HostName, Platform, SlotName};
use crate::image_pull::actor::ForgetImage;
use crate::pool::message::{
    Configure, DrainHost, DrainPlatform, GrowError, LeaveBot, Operate, OperateError, Prewarm, Recover,
    SlotAction,
};
use crate::pool::{Drain, HostSettings, PoolSettings};
use crate::slot::Slot;
use crate::supervision::tell;
use crate::tree::Tree;
use chrono::TimeDelta;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Does what comes to the operator's mind.
pub fn step(shared: &Shared, tree: &Tree) {
    let mut world = shared.lock();
    if world.rng.bool() && tidies_up(&mut world) {
        let settings = world.settings.clone();
        let drain = world.tables.drains.keys().next().cloned();
        drop(world);
        tell(&tree.pool, Configure { settings });
        if let Some(drain) = drain {
            turn(shared.clone(), drain, tree);
        }
        return;
    }
    let lost = lost_slots(&world);
    if !lost.is_empty() && world.rng.u8(0..4) == 0 {
        drop(world);
        lost.into_iter().for_each(|slot| operate(shared.clone(), slot, SlotAction::Forget, tree));
        return;
    }
    let retrying = retrying(&world);
    match if retrying.is_empty() { world.rng.u8(0..10) } else { [0, 0, 4][world.rng.usize(0..3)] } {
        0..4 => {
            let Some((slot, action)) = draw_action(&mut world) else { return };
            let after = world.between(0, 2_000);
            let stops = world.tables.slots.get(&slot).is_some_and(|slot| slot.step() == "stopping");
            drop(world);
            operate(shared.clone(), slot.clone(), action, tree);
            match action {
                SlotAction::Restart => change_mind(shared.clone(), slot, after, tree),
                SlotAction::Drain { .. } if stops => take_back(shared.clone(), slot, after, tree),
                _ => {}
            }
        }
        4 => {
            let host = retrying.first().and_then(|slot| Some(world.tables.slots.get(slot)?.host.clone()));
            let drain = host.map_or_else(|| draw_drain(&mut world), Drain::Host);
            drop(world);
            turn(shared.clone(), drain, tree);
        }
        5 | 6 => {
            let settings = draw_settings(&mut world);
            world.settings = settings.clone();
            world.note("operator: new settings");
            tell(&tree.pool, Configure { settings });
        }
        7 | 8 => {
            let platform = draw_platform(&mut world);
            let unknown = if world.rng.bool() { images_of(&world, &platform) } else { vec![] };
            drop(world);
            // Now and then it has to be pulled for that, which may fail.
            unknown.into_iter().for_each(|image| tell(&tree.pulls, image));
            prewarm(shared.clone(), platform, tree);
        }
        _ => {
            world.count("recover all");
            tell(&tree.pool, Recover { reply: oneshot::channel().0 });
        }
    }
}

/// Switches every platform and host on again; whether there was anything to tidy up, drains included.
fn tidies_up(world: &mut World) -> bool {
    let mut is_needed = !world.tables.drains.is_empty();
    for of in world.settings.platforms.values_mut() {
        is_needed |= !of.enabled;
        of.enabled = true;
    }
    let hosts = all_hosts(world);
    is_needed |= world.settings.hosts != hosts;
    world.settings.hosts = hosts;
    is_needed
}

fn draw_platform(world: &mut World) -> Platform {
    let platforms: Vec<Platform> = world.platforms.keys().cloned().collect();
    platforms[world.rng.usize(0..platforms.len())].clone()
}

/// What hosts leave behind that do not answer, or are not in the settings.
fn lost_slots(world: &World) -> Vec<SlotName> {
    let is_lost = |slot: &&Slot| {
        let is_away = world.breakers_open.contains_key(&slot.host);
        is_away || !world.settings.hosts.contains_key(&slot.host)
    };
    let lost = world.tables.slots.values().filter(is_lost).filter(|slot| slot.bot().is_none());
    lost.map(|slot| slot.name.clone()).collect()
}

/// The image of a platform on every host.
fn images_of(world: &World, platform: &Platform) -> Vec<ForgetImage> {
    let Some(settings) = world.settings.platforms.get(platform) else { return Vec::new() };
    let hosts = world.settings.hosts.keys();
    hosts.map(|host| ForgetImage { host: host.clone(), image: settings.image.clone() }).collect()
}

/// Slots whose start is tried again. They are that for a moment only, so whoever meets one does something with it.
fn retrying(world: &World) -> Vec<SlotName> {
    let slots = world.tables.slots.values().filter(|slot| slot.step() == "retrying");
    slots.map(|slot| slot.name.clone()).collect()
}

fn draw_action(world: &mut World) -> Option<(SlotName, SlotAction)> {
    // Mostly what is neither free nor simply running: there is least time for it.
    let slots = world.tables.slots.values();
    let busy = slots.filter(|slot| !matches!(slot.step(), "idle" | "prepared" | "running"));
    let mut names: Vec<SlotName> = busy.map(|slot| slot.name.clone()).collect();
    if names.is_empty() || world.rng.u8(0..3) == 0 {
        names = world.tables.slots.keys().cloned().collect();
    }
    let retrying = retrying(world);
    if !retrying.is_empty() {
        names = retrying;
    }
    if names.is_empty() {
        return None;
    }
    let name = names[world.rng.usize(0..names.len())].clone();
    let within = draw_deadline(world);
    // Often the one that is there, at times one that is elsewhere.
    let bot = world.rng.bool().then(|| BotId(world.rng.i64(1..=world.tables.bots.len() as i64 + 1)));
    let bot = bot.or_else(|| world.tables.slots.get(&name)?.bot().map(|bot| bot.id));
    // A drain is taken back soon, or its slot is gone.
    if world.tables.slots.get(&name).is_some_and(|slot| slot.drains.own.is_some()) && world.rng.bool() {
        return Some((name, SlotAction::Undrain));
    }
    let actions = [
        SlotAction::Reset,
        SlotAction::Drain { within },
        SlotAction::Undrain,
        SlotAction::Retire,
        SlotAction::Forget,
        SlotAction::Restart,
        SlotAction::End { bot },
    ];
    Some((name, actions[world.rng.usize(0..actions.len())]))
}

/// A deadline for some drains.
fn draw_deadline(world: &mut World) -> Option<TimeDelta> {
    let within = world.between(0, 1_200_000);
    world.rng.bool().then_some(within)
}

fn draw_drain(world: &mut World) -> Drain {
    if world.rng.bool() {
        return Drain::Platform(draw_platform(world));
    }
    let hosts: Vec<_> = all_hosts(world).into_keys().collect();
    Drain::Host(hosts[world.rng.usize(0..hosts.len())].clone())
}

fn all_hosts(world: &World) -> BTreeMap<HostName, HostSettings> {
    scenario::hosts(world.platforms.values().sum())
}

/// Caps between one and the largest, sometimes a new image, seldom a platform switched off or a host taken out.
fn draw_settings(world: &mut World) -> PoolSettings {
    let mut settings = world.settings.clone();
    settings.hosts = all_hosts(world);
    match world.rng.u8(0..8) {
        0 => {
            world.count("host taken out");
            settings.hosts.pop_last();
        }
        1 => {
            world.count("host gets no more bots");
            settings.hosts.values_mut().next_back().into_iter().for_each(|host| host.capacity = 0);
        }
        _ => {}
    }
    for (platform, of) in &mut settings.platforms {
        let largest = world.platforms.get(platform).copied().unwrap_or(1);
        of.max_size = world.rng.u32(1..=largest);
        of.enabled = world.rng.u8(0..8) > 0;
        if world.engine_prepares && world.rng.u8(0..4) == 0 {
            of.limits.cpu_millis = Some(world.rng.u32(1..4));
        }
        if world.rng.bool() {
            let (repository, _) = of.image.split_once(':').unwrap_or((&of.image, ""));
            of.image = format!("{repository}:{}", world.rng.u8(1..4));
        }
    }
    settings
}

/// A restart is soon over: whatever else comes to mind of that slot comes at once.
fn change_mind(shared: Shared, slot: SlotName, after: TimeDelta, tree: &Tree) {
    let tree = tree.clone();
    actix::spawn(async move {
        tokio::time::sleep(after.to_std().unwrap_or_default()).await;
        let mut world = shared.lock();
        if shared.is_dead(&world) {
            return;
        }
        let bot = world.tables.slots.get(&slot).and_then(|slot| slot.bot()).map(|bot| bot.id);
        let host = world.tables.slots.get(&slot).map(|slot| slot.host.clone());
        let within = Some(world.between(0, 2_000));
        let choice = world.rng.u8(0..4);
        drop(world);
        match (choice, bot) {
            (3, _) => host.into_iter().for_each(|host| turn(shared.clone(), Drain::Host(host), &tree)),
            (0, Some(bot_id)) => {
                let reason = EndReason::LeftByRequest;
                tell(&tree.pool, LeaveBot { bot_id, reason, reply: oneshot::channel().0 });
            }
            (0 | 1, _) => operate(shared, slot, SlotAction::Drain { within }, &tree),
            _ => operate(shared, slot, SlotAction::End { bot: None }, &tree),
        }
    });
}

/// A slot is soon stopped, and a drain that was meant for it ends while it is.
fn take_back(shared: Shared, slot: SlotName, after: TimeDelta, tree: &Tree) {
    let tree = tree.clone();
    actix::spawn(async move {
        tokio::time::sleep(after.to_std().unwrap_or_default()).await;
        if !shared.is_dead(&shared.lock()) {
            operate(shared.clone(), slot, SlotAction::Undrain, &tree);
        }
    });
}

fn operate(shared: Shared, slot: SlotName, action: SlotAction, tree: &Tree) {
    let (reply, answer) = oneshot::channel();
    if action == SlotAction::Forget {
        shared.lock().forgotten.insert(slot.clone());
    }
    tell(&tree.pool, Operate { slot: slot.clone(), action, reply });
    actix::spawn(async move {
        let Ok(outcome) = answer.await else { return };
        let mut world = shared.lock();
        if action == SlotAction::Forget && outcome != Err(OperateError::OutcomeUnknown) {
            world.forgotten.remove(&slot);
        }
        if shared.is_dead(&world) {
            return;
        }
        world.note(format!("operator: {action:?} {slot}: {}", if outcome.is_ok() { "taken" } else { "not" }));
        match outcome {
            Ok(_) => world.count(&format!("{} taken", name_of(action))),
            Err(OperateError::Refused(_) | OperateError::HostAnswers(_)) => {
                world.count(&format!("{} refused", name_of(action)))
            }
            Err(OperateError::Unknown(_) | OperateError::OutcomeUnknown) => {}
        }
    });
}

fn name_of(action: SlotAction) -> &'static str {
    match action {
        SlotAction::Reset => "Reset",
        SlotAction::Drain { .. } => "Drain",
        SlotAction::Undrain => "Undrain",
        SlotAction::Retire => "Retire",
        SlotAction::Forget => "Forget",
        SlotAction::Restart => "Restart",
        SlotAction::End { .. } => "End",
    }
}

/// Begins a drain, or ends it where it is under way.
fn turn(shared: Shared, drain: Drain, tree: &Tree) {
    let (draining, within) = {
        let mut world = shared.lock();
        let is_draining = world.tables.drains.contains_key(&drain);
        // Now and then one that is under way gets another deadline.
        (!is_draining || world.rng.u8(0..4) == 0, draw_deadline(&mut world))
    };
    let (reply, answer) = oneshot::channel();
    match drain.clone() {
        Drain::Platform(platform) => tell(&tree.pool, DrainPlatform { platform, draining, within, reply }),
        Drain::Host(host) => tell(&tree.pool, DrainHost { host, draining, within, reply }),
    }
    actix::spawn(async move {
        let Ok(Ok(_)) = answer.await else { return };
        let mut world = shared.lock();
        if shared.is_dead(&world) {
            return;
        }
        world.count(if draining { "drain begun" } else { "drain ended" });
        world.note(format!("operator: {drain} drains: {draining}"));
    });
}

fn prewarm(shared: Shared, platform: Platform, tree: &Tree) {
    let (reply, answer) = oneshot::channel();
    tell(&tree.pool, Prewarm { platform, reply });
    actix::spawn(async move {
        let Ok(outcome) = answer.await else { return };
        let mut world = shared.lock();
        if shared.is_dead(&world) {
            return;
        }
        match outcome {
            Ok(name) => {
                world.count("slot prewarmed");
                world.note(format!("operator: {name} made ahead"));
            }
            Err(GrowError::Pull(_)) => world.count("prewarm without its image"),
            Err(GrowError::Full) => world.count("prewarm found no room"),
            Err(GrowError::Disabled | GrowError::Unavailable) => {}
        }
    });
}
