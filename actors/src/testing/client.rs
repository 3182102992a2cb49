//! The scripted client: asks for a bot, asks again with the same key while it does not know what became of it, and
//! may later ask the bot to leave.

use super::world::{Happening, Shared, World};
use crate::bot::{BotSpec, EndReason};
use crate::ids::{BotId, Platform, UserId};
use crate::pool::message::{CreateBot, CreateError, LeaveBot};
use crate::supervision::tell;
use crate::tree::Tree;
use tokio::sync::oneshot;

/// What a client is up to.
#[derive(Debug, Clone)]
pub struct Client {
    user: UserId,
    platform: Platform,
    key: String,
    queue_timeout_ms: u32,
    /// What it was answered.
    pub answer: Answer,
    leaves: bool,
    /// Its wish to leave was answered.
    left: bool,
}

/// What a client knows of its bot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    None,
    /// The bot was acknowledged.
    Acknowledged(BotId),
    /// It was told no.
    Refused,
}

impl Client {
    /// Draws a client.
    pub fn new(world: &mut World, number: usize) -> Self {
        let platforms: Vec<Platform> = world.platforms.keys().cloned().collect();
        let platform = platforms[world.rng.usize(0..platforms.len())].clone();
        let queue_timeout_ms = [0, 5_000, 120_000, 600_000, 600_000][world.rng.usize(0..5)];
        Self {
            user: UserId(world.rng.i64(1..=3)),
            platform,
            key: format!("key-{number}"),
            queue_timeout_ms,
            answer: Answer::None,
            leaves: world.rng.u8(0..4) == 0,
            left: false,
        }
    }

    fn spec(&self) -> BotSpec {
        BotSpec {
            platform: self.platform.clone(),
            queue_timeout_ms: self.queue_timeout_ms,
            ..super::sample::spec()
        }
    }
}

/// Does a client's next step.
pub fn step(shared: &Shared, number: usize, tree: &Tree) {
    let mut world = shared.lock();
    let Some(client) = world.clients.get(number).cloned() else { return };
    let stored = world.tables.keys.get(&(client.user, client.key.clone())).map(|key| key.bot_id);
    match (client.answer, stored) {
        (Answer::Refused, _) => {}
        (Answer::Acknowledged(bot_id), _) => {
            if client.leaves && !client.left {
                let again = world.between(3_000, 20_000);
                world.plan(again, Happening::Client(number));
                drop(world);
                leave(shared.clone(), number, bot_id, tree);
            }
        }
        // As the door does: a key that is stored is answered with its bot.
        (Answer::None, Some(bot_id)) => acknowledge(&mut world, number, bot_id),
        (Answer::None, None) => {
            let again = world.between(3_000, 8_000);
            world.plan(again, Happening::Client(number));
            drop(world);
            create(shared.clone(), number, &client, tree);
        }
    }
}

fn create(shared: Shared, number: usize, client: &Client, tree: &Tree) {
    let (reply, answer) = oneshot::channel();
    tell(
        &tree.pool,
        CreateBot {
            spec: client.spec(),
            user_id: client.user,
            idempotency: Some((client.key.clone(), [0; 32])),
            reply,
        },
    );
    actix::spawn(async move {
        let Ok(outcome) = answer.await else { return };
        let mut world = shared.lock();
        if world.crashed {
            return;
        }
        match outcome {
            Ok(created) => acknowledge(&mut world, number, created.bot.id),
            Err(
                CreateError::PoolFull
                | CreateError::QueueFull(_)
                | CreateError::PlatformNotServed(_)
                | CreateError::PlatformDisabled(_),
            ) => {
                world.count("refused at the door");
                world.clients[number].answer = Answer::Refused;
            }
            // Asks again; a key that is stored by then is answered with its bot.
            Err(CreateError::KeyInFlight | CreateError::Conflict(_) | CreateError::Unavailable) => {}
        }
    });
}

fn acknowledge(world: &mut World, number: usize, bot_id: BotId) {
    let client = &mut world.clients[number];
    let leaves = client.leaves;
    client.answer = Answer::Acknowledged(bot_id);
    world.note(format!("client {number}: bot {bot_id} acknowledged"));
    if !world.tables.bots.contains_key(&bot_id) {
        world.violated(format!("bot {bot_id} was acknowledged and is not stored"));
    }
    if leaves {
        let after = world.between(0, 200_000);
        world.plan(after, Happening::Client(number));
    }
}

fn leave(shared: Shared, number: usize, bot_id: BotId, tree: &Tree) {
    let (reply, answer) = oneshot::channel();
    tell(&tree.pool, LeaveBot { bot_id, reason: EndReason::LeftByRequest, reply });
    actix::spawn(async move {
        let Ok(outcome) = answer.await else { return };
        let mut world = shared.lock();
        if world.crashed {
            return;
        }
        let stored = world.tables.bots.get(&bot_id).cloned();
        match outcome {
            Ok(bot) => {
                world.clients[number].left = true;
                world.count("leave taken");
                // Taken means that the wish is durable: the row says so, or has ended.
                if stored.is_none_or(|row| !row.state.is_final() && row.leave.is_none()) {
                    world.violated(format!(
                        "the leave of bot {bot_id} was acknowledged as {:?} and is lost",
                        bot.state
                    ));
                }
            }
            Err(crate::queue::actor::WithdrawError::NotLive) => {
                world.clients[number].left = stored.is_some_and(|row| row.state.is_final());
            }
            Err(crate::queue::actor::WithdrawError::Unknown) => {}
        }
    });
}
