//! The scripted client: asks for a bot, for now or for later, asks again with the same key while it does not know what
//! became of it, and may later move the bot to another time and ask it to leave.

use super::invariants;
use super::world::{Happening, Shared, World};
use crate::bot::{BotSpec, EndReason};
use crate::ids::{BotId, Platform, UserId};
use crate::pool::message::{CreateBot, CreateError, LeaveBot};
use crate::ports::Clock;
use crate::queue::Plan;
use crate::queue::message::WithdrawError;
use crate::schedule::message::{MoveError, MoveStart};
use crate::supervision::tell;
use crate::tree::Tree;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::oneshot;

/// The latest start that a client asks for, from when it comes.
const START_AHEAD_MS_MAX: u64 = 3_600_000;

/// What a client is up to.
#[derive(Debug, Clone)]
pub struct Client {
    user: UserId,
    plan: Plan,
    platform: Platform,
    key: String,
    queue_timeout_ms: u32,
    /// How far ahead its bot is to start and to end, and by how much the start is moved later on.
    start_ahead: Option<TimeDelta>,
    end_ahead: Option<TimeDelta>,
    moves_by: Option<TimeDelta>,
    times: Times,
    /// What it was answered.
    pub answer: Answer,
    /// From when on it moves its bot, or asks it to leave.
    acts_from: Option<DateTime<Utc>>,
    leaves: bool,
    /// Its wish to leave was answered.
    left: bool,
}

/// What a client asks for, by the clock at which it came.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    start_at: Option<DateTime<Utc>>,
    end_at: Option<DateTime<Utc>>,
    /// When its bot is to start instead; `None`: as it was, or the wish to move was answered.
    moves_to: Option<DateTime<Utc>>,
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
        let start_ahead = (world.rng.u8(0..100) < world.scheduled_percent)
            .then(|| world.between(60_000, START_AHEAD_MS_MAX));
        let moves_by = (start_ahead.is_some() && world.rng.u8(0..3) == 0)
            .then(|| world.between(0, 1_200_000) - TimeDelta::minutes(5));
        let ends = start_ahead.is_none() && world.rng.u8(0..5) == 0;
        let end_ahead = ends.then(|| world.between(60_000, 600_000));
        let user = UserId(world.rng.i64(1..=6));
        Self {
            user,
            plan: plan_of(user),
            platform,
            key: format!("key-{number}"),
            queue_timeout_ms,
            start_ahead,
            end_ahead,
            moves_by,
            times: Times::default(),
            answer: Answer::None,
            acts_from: None,
            leaves: world.rng.u8(0..4) == 0,
            left: false,
        }
    }

    /// The client with the times that it asks for, from when it came.
    fn at(mut self, now: DateTime<Utc>) -> Self {
        let start_at = self.times.start_at.or(self.start_ahead.map(|ahead| now + ahead));
        self.times = Times {
            start_at,
            end_at: self.times.end_at.or(self.end_ahead.map(|ahead| now + ahead)),
            moves_to: start_at.and_then(|start_at| Some(start_at + self.moves_by?)),
        };
        self
    }

    fn spec(&self) -> BotSpec {
        BotSpec {
            platform: self.platform.clone(),
            queue_timeout_ms: self.queue_timeout_ms,
            priority: self.plan.priority(),
            start_at: self.times.start_at,
            end_at: self.times.end_at,
            ..super::sample::spec()
        }
    }
}

/// Two users have what is usual; all four plans are there.
fn plan_of(user: UserId) -> Plan {
    match user.0 {
        1 => Plan::Enterprise,
        2 => Plan::Professional,
        3 | 4 => Plan::Standard,
        _ => Plan::Free,
    }
}

/// Does a client's next step.
pub fn step(shared: &Shared, number: usize, tree: &Tree) {
    let mut world = shared.lock();
    let Some(client) = world.clients.get(number).cloned() else { return };
    let stored = world.tables.keys.get(&(client.user, client.key.clone())).map(|key| key.bot_id);
    match (client.answer, stored) {
        (Answer::Refused, _) => {}
        (Answer::Acknowledged(_), _) if client.acts_from.is_some_and(|from| world.now < from) => {}
        (Answer::Acknowledged(bot_id), _) => {
            if let Some(to) = client.times.moves_to {
                let again = world.between(3_000, 20_000);
                world.plan(again, Happening::Client(number));
                drop(world);
                move_start(shared.clone(), number, bot_id, to, tree);
            } else if client.leaves && !client.left {
                let again = world.between(3_000, 20_000);
                world.plan(again, Happening::Client(number));
                drop(world);
                leave(shared.clone(), number, bot_id, tree);
            }
        }
        // As the door does: a key that is stored is answered with its bot.
        (Answer::None, Some(bot_id)) => acknowledge(&mut world, number, bot_id),
        (Answer::None, None) => {
            let client = client.at(world.utc());
            world.clients[number] = client.clone();
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
    let asked_at = shared.now();
    actix::spawn(async move {
        let Ok(outcome) = answer.await else { return };
        let mut world = shared.lock();
        if shared.is_dead(&world) {
            return;
        }
        if matches!(outcome, Err(CreateError::QueueFull(_))) {
            world.count("queue full");
            invariants::refused(&mut world, asked_at);
        }
        match outcome {
            Ok(created) => acknowledge(&mut world, number, created.bot.id),
            Err(
                CreateError::PoolFull
                | CreateError::QueueFull(_)
                | CreateError::ScheduleFull(_)
                | CreateError::PlatformNotServed(_)
                | CreateError::PlatformDisabled(_)
                | CreateError::Closing,
            ) => {
                world.count("refused at the door");
                world.clients[number].answer = Answer::Refused;
            }
            // Asks again; a key that is stored by then is answered with its bot.
            Err(
                CreateError::KeyInFlight
                | CreateError::Conflict(_)
                | CreateError::Unavailable
                | CreateError::OutcomeUnknown,
            ) => {}
        }
    });
}

fn acknowledge(world: &mut World, number: usize, bot_id: BotId) {
    let client = &mut world.clients[number];
    let (moves, leaves) = (client.times.moves_to.is_some(), client.leaves);
    client.answer = Answer::Acknowledged(bot_id);
    world.note(format!("client {number}: bot {bot_id} acknowledged"));
    if !world.tables.bots.contains_key(&bot_id) {
        world.violated(format!("bot {bot_id} was acknowledged and is not stored"));
    }
    if moves || leaves {
        let longest_ms = if moves { 1_800_000 } else { 400_000 };
        let after = world.between(0, longest_ms);
        world.clients[number].acts_from = Some(world.now + after);
        world.plan(after, Happening::Client(number));
    }
}

fn move_start(shared: Shared, number: usize, bot_id: BotId, to: DateTime<Utc>, tree: &Tree) {
    let (reply, answer) = oneshot::channel();
    tell(&tree.schedule, MoveStart { bot_id, start_at: Some(to), end_at: None, reply });
    actix::spawn(async move {
        let Ok(outcome) = answer.await else { return };
        let mut world = shared.lock();
        if shared.is_dead(&world) {
            return;
        }
        match outcome {
            Ok(_) => {
                world.count("move taken");
                // Taken means that it is durable, wherever the bot is by now.
                let stored = world.tables.bots.get(&bot_id).and_then(|row| row.spec.start_at);
                if stored != Some(to) {
                    world.violated(format!("the move of bot {bot_id} to {to} was acknowledged and is lost"));
                }
            }
            Err(MoveError::NotScheduled) => world.count("move too late"),
            Err(MoveError::EndsBeforeStart(_)) => {
                world.violated("a bot without an end ends before its start")
            }
            Err(MoveError::Unknown) => return,
        }
        world.clients[number].times.moves_to = None;
    });
}

fn leave(shared: Shared, number: usize, bot_id: BotId, tree: &Tree) {
    let (reply, answer) = oneshot::channel();
    tell(&tree.pool, LeaveBot { bot_id, reason: EndReason::LeftByRequest, reply });
    actix::spawn(async move {
        let Ok(outcome) = answer.await else { return };
        let mut world = shared.lock();
        if shared.is_dead(&world) {
            return;
        }
        let stored = world.tables.bots.get(&bot_id).cloned();
        let said = outcome.as_ref().map_or("not", |bot| bot.state.as_str());
        world.note(format!("client {number}: wants bot {bot_id} to leave: {said}"));
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
            Err(WithdrawError::NotLive) => {
                world.clients[number].left = stored.is_some_and(|row| row.state.is_final());
            }
            Err(WithdrawError::Unknown) => {}
        }
    });
}
