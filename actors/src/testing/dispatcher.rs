//! The scripted dispatcher: moves bots in the queue, now and then also one that does not wait there.

use super::invariants::COMMIT_SLACK;
use super::server::Server;
use super::world::{Happening, Shared, World};
use crate::ids::BotId;
use crate::queue::Plan;
use crate::queue::message::{Reprioritise, ReprioritiseError};
use crate::supervision::tell;
use tokio::sync::oneshot;

/// Does the dispatcher's next step, if there is a server.
pub fn step(shared: &Shared, leader: Option<&Server>) {
    let mut world = shared.lock();
    if world.calm {
        return;
    }
    let again = world.between(2_000, 60_000);
    world.plan(again, Happening::Dispatcher);
    let Some(leader) = leader.filter(|leader| world.may_act(leader.shared.process)) else { return };
    let Some(bot_id) = pick(&mut world) else { return };
    let priority = Plan::ALL[world.rng.usize(0..Plan::ALL.len())].priority();
    let asked = world.moves_asked.entry(bot_id).or_default();
    *asked += 1;
    let asked = *asked;
    drop(world);
    let (reply, answer) = oneshot::channel();
    tell(&leader.tree.queue, Reprioritise { bot_id, priority, reply });
    let shared = leader.shared.clone();
    actix::spawn(async move {
        let Ok(outcome) = answer.await else { return };
        let mut world = shared.lock();
        // Where the same was asked again meanwhile, the later answer is looked at. One that led before knows nothing of
        // those who came to the queue since.
        if !world.leads(shared.process) || world.moves_asked.get(&bot_id) != Some(&asked) {
            return;
        }
        let stored = world.tables.queue.get(&bot_id).map(|entry| entry.priority);
        match (outcome, stored) {
            (Ok(_), Some(stored)) if stored != priority => {
                world.violated(format!("bot {bot_id} was moved to priority {priority} and has {stored}"));
            }
            (Err(ReprioritiseError::NotWaiting), Some(_)) if waits_since_just_now(&world, bot_id) => {
                world.count("move too early");
            }
            (Err(ReprioritiseError::NotWaiting), Some(_)) => {
                world.violated(format!("bot {bot_id} waits and was not moved"));
            }
            (Ok(_), _) => world.count("move taken"),
            (Err(ReprioritiseError::NotWaiting), None) => world.count("move refused"),
            (Err(ReprioritiseError::Unknown), _) => {}
        }
    });
}

/// It waits since just now: a slot gave it back and the queue may not have heard of that yet, or it was asked before
/// the Scheduler had handed the bot over.
fn waits_since_just_now(world: &World, bot_id: BotId) -> bool {
    let queued_at = world.tables.queue.get(&bot_id).map(|entry| entry.queued_at);
    queued_at.is_some_and(|at| world.utc() - at < COMMIT_SLACK)
}

fn pick(world: &mut World) -> Option<BotId> {
    let waiting: Vec<BotId> = world.tables.queue.keys().copied().collect();
    let all: Vec<BotId> = world.tables.bots.keys().copied().collect();
    let from = if waiting.is_empty() || world.rng.u8(0..8) == 0 { all } else { waiting };
    (!from.is_empty()).then(|| from[world.rng.usize(0..from.len())])
}
