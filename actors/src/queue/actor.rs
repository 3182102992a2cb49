//! The queue's shell: owns the bots that wait. A bot that is offered to a slot stays here until the slot's commit
//! has moved it; wishes that arrive meanwhile wait for the outcome and are then applied by whoever owns it.

use super::QueueEntry;
use super::order::Line;
use crate::bot::machine as life;
use crate::bot::{Bot, BotState, EndReason};
use crate::ids::{BotId, Platform, SlotName};
use crate::journal::actor::Journal;
use crate::journal::{Change, CommitError, IdempotencyKey};
use crate::live::Live;
use crate::pool::actor::PoolSupervisor;
use crate::pool::message::{OfferEnded, QueueMoved};
use crate::ports::Clock;
use crate::slot::actor::Refused;
use crate::slot::event::{BotSource, SlotEvent};
use crate::slot::handle::SlotHandle;
use crate::supervision::{DeathGuard, tell};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The wait to announce for each place in the line while no release was observed.
pub const ESTIMATE_PER_PLACE: Duration = Duration::from_secs(30);

/// Takes in a bot; the queue's commit creates it, or takes it from the Scheduler.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Enqueue {
    /// The bot.
    pub bot: Box<Bot>,
    /// Where it comes from.
    pub source: Newcomer,
    /// Lower comes first.
    pub priority: i16,
    /// Where the outcome goes.
    pub reply: oneshot::Sender<Result<QueuePlace, EnqueueError>>,
}

/// Where a bot comes from that joins the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Newcomer {
    /// Just asked for, with the client's key where it sent one.
    Request(Option<IdempotencyKey>),
    /// Its start time is near.
    Scheduled,
}

/// Where a bot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePlace {
    /// Counted from 1.
    pub position: usize,
    /// A guess.
    pub estimated_wait: Duration,
}

/// Why a bot was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// The bound on waiting bots is reached.
    #[error("{0} bots are waiting already")]
    Full(u32),
    /// The store's word.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Offers the first bot in a platform's line to a slot that the supervisor has reserved.
#[derive(Message)]
#[rtype(result = "()")]
pub struct OfferNext {
    /// Whose line.
    pub platform: Platform,
    /// The slot.
    pub slot: Arc<SlotHandle>,
}

/// Takes a bot out of the queue before its turn.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Withdraw {
    /// Which.
    pub bot_id: BotId,
    /// Why, for a bot that has a slot by the time this is applied.
    pub reason: EndReason,
    /// Where the bot as it then is goes.
    pub reply: oneshot::Sender<Result<Bot, WithdrawError>>,
}

/// Why a wish was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WithdrawError {
    /// The bot is in no mailbox: it has ended, or never was.
    #[error("the bot is not live")]
    NotLive,
    /// The outcome is not known; ask again.
    #[error("the outcome is not known")]
    Unknown,
}

/// The queue as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueSnapshot {
    /// All entries, platform by platform, first to last.
    pub entries: Vec<QueueEntry>,
}

/// Asks for a [`QueueSnapshot`].
#[derive(Message)]
#[rtype(result = "QueueSnapshot")]
pub struct Observe;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its creation is being committed.
    Arriving,
    Waiting,
    /// A slot is committing it.
    Offered,
    /// Its end is being committed.
    Ending,
}

struct Waiting {
    bot: Bot,
    phase: Phase,
    wishes: Vec<Withdraw>,
}

/// See the module.
pub struct QueueActor {
    line: Line,
    bots: BTreeMap<BotId, Waiting>,
    /// When each gives up, soonest first.
    deadlines: BTreeSet<(DateTime<Utc>, BotId)>,
    bound: u32,
    journal: Journal,
    pool: Addr<PoolSupervisor>,
    live: Live,
    clock: Arc<dyn Clock>,
    timer: Option<SpawnHandle>,
    _guard: DeathGuard,
}

impl QueueActor {
    /// A queue of at most `bound` bots, with the stored ones in their places.
    pub fn new(
        stored: Vec<(QueueEntry, Bot)>,
        bound: u32,
        journal: Journal,
        pool: Addr<PoolSupervisor>,
        live: Live,
        clock: Arc<dyn Clock>,
        guard: DeathGuard,
    ) -> Self {
        let mut line = Line::default();
        line.restore(stored.iter().map(|(entry, _)| entry.clone()));
        let deadlines = stored.iter().map(|(entry, _)| (entry.deadline_at, entry.bot_id)).collect();
        let bots = stored
            .into_iter()
            .map(|(_, bot)| (bot.id, Waiting { bot, phase: Phase::Waiting, wishes: vec![] }))
            .collect();
        Self { line, bots, deadlines, bound, journal, pool, live, clock, timer: None, _guard: guard }
    }

    fn enqueue(&mut self, message: Enqueue, ctx: &mut Context<Self>) {
        let Enqueue { mut bot, source, priority, reply } = message;
        if self.bots.len() >= self.bound as usize {
            let _ = reply.send(Err(EnqueueError::Full(self.bound)));
            return;
        }
        bot.state = BotState::Queued;
        let platform = bot.spec.platform.clone();
        let (mut decision, queued_at) = match source {
            Newcomer::Request(idempotency) => (life::created(&bot, idempotency), bot.created_at),
            Newcomer::Scheduled => (life::left_schedule(&mut bot), self.clock.now()),
        };
        let entry = self.entry_for(&bot, priority, queued_at);
        decision.push(Change::InsertQueueEntry(entry.clone()));
        let bot_id = bot.id;
        self.deadlines.insert((entry.deadline_at, bot_id));
        self.line.insert(entry);
        self.bots.insert(bot_id, Waiting { bot: *bot, phase: Phase::Arriving, wishes: vec![] });
        let commit = self.journal.submit(decision);
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, ctx| {
            match outcome {
                Ok(()) => {
                    let place = act.place(bot_id);
                    act.settle(bot_id, ctx);
                    let _ = reply.send(Ok(place));
                }
                Err(error) => {
                    act.forget(bot_id, None);
                    let _ = reply.send(Err(error.into()));
                }
            }
            act.publish(&platform);
        }));
    }

    fn entry_for(&mut self, bot: &Bot, priority: i16, queued_at: DateTime<Utc>) -> QueueEntry {
        let platform = bot.spec.platform.clone();
        let (priority, turn, arrival) = self.line.next_place(&platform, priority, bot.user_id);
        let timeout = TimeDelta::milliseconds(i64::from(bot.spec.queue_timeout_ms));
        QueueEntry {
            bot_id: bot.id,
            platform,
            user_id: bot.user_id,
            priority,
            turn,
            arrival,
            queued_at,
            // Whoever asked for a time ahead did not mean to give up before it.
            deadline_at: bot.spec.start_at.map_or(queued_at, |start_at| start_at.max(queued_at)) + timeout,
        }
    }

    fn place(&self, bot: BotId) -> QueuePlace {
        let position = self.line.position(bot).unwrap_or(1);
        let places = u32::try_from(position).unwrap_or(u32::MAX);
        QueuePlace { position, estimated_wait: ESTIMATE_PER_PLACE.saturating_mul(places) }
    }

    /// The bot stands in line (again): apply what was wished meanwhile, else it may be offered.
    fn settle(&mut self, bot_id: BotId, ctx: &mut Context<Self>) {
        let Some(waiting) = self.bots.get_mut(&bot_id) else { return };
        waiting.phase = Phase::Waiting;
        self.live.bot(&waiting.bot);
        let platform = waiting.bot.spec.platform.clone();
        if !waiting.wishes.is_empty() {
            self.end(bot_id, EndReason::Cancelled, ctx);
        } else {
            tell(&self.pool, QueueMoved { platform, left: None });
        }
        self.arm(ctx);
    }

    fn offer(&mut self, OfferNext { platform, slot }: OfferNext, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let first = self.line.of(&platform).find(|entry| entry.deadline_at > now && self.waits(entry.bot_id));
        let Some(entry) = first.cloned() else {
            return self.offer_ended(platform, slot.name().clone(), false);
        };
        let Some(waiting) = self.bots.get_mut(&entry.bot_id) else { return };
        waiting.phase = Phase::Offered;
        let bot = Box::new(waiting.bot.clone());
        let accepted = slot.send(SlotEvent::Assigned { bot, source: BotSource::Queue });
        let journal = self.journal.clone();
        let outcome = async move {
            match accepted.await {
                Ok(Ok(_)) => true,
                Ok(Err(Refused::Rejected(_) | Refused::Busy)) => false,
                // Conflict, or the slot's actor died over it: the row says what became of the offer.
                Ok(Err(Refused::Commit(_))) | Err(_) => match journal.read_bot(entry.bot_id).await {
                    Ok(row) => row.is_none_or(|bot| bot.state != BotState::Queued),
                    // No longer leading: nothing may be offered any more.
                    Err(_) => std::future::pending().await,
                },
            }
        };
        ctx.spawn(outcome.into_actor(self).map(move |taken, act, ctx| {
            if taken {
                act.handed_over(&entry, &slot);
            } else {
                act.settle(entry.bot_id, ctx);
                act.expire(ctx);
            }
            act.publish(&platform);
            act.offer_ended(platform, slot.name().clone(), taken);
        }));
    }

    fn offer_ended(&self, platform: Platform, slot: SlotName, taken: bool) {
        tell(&self.pool, OfferEnded { platform, slot, taken });
    }

    /// The slot has the bot now; wishes that waited are the slot's to apply.
    fn handed_over(&mut self, entry: &QueueEntry, slot: &Arc<SlotHandle>) {
        self.leave_line(entry.bot_id);
        self.line.served(entry);
        let Some(waiting) = self.bots.remove(&entry.bot_id) else { return };
        tell(&self.pool, QueueMoved { platform: entry.platform.clone(), left: Some((entry.bot_id, None)) });
        for wish in waiting.wishes {
            forward(slot, wish);
        }
    }

    fn withdraw(&mut self, wish: Withdraw, ctx: &mut Context<Self>) {
        let Some(waiting) = self.bots.get_mut(&wish.bot_id) else {
            let _ = wish.reply.send(Err(WithdrawError::NotLive));
            return;
        };
        let bot_id = wish.bot_id;
        waiting.wishes.push(wish);
        if waiting.phase == Phase::Waiting {
            self.end(bot_id, EndReason::Cancelled, ctx);
        }
    }

    /// Ends a waiting bot. On a conflict the row is read again, and says whether it still waits.
    fn end(&mut self, bot_id: BotId, reason: EndReason, ctx: &mut Context<Self>) {
        let Some(waiting) = self.bots.get_mut(&bot_id) else { return };
        waiting.phase = Phase::Ending;
        let (ended, mut decision) = life::ended(&waiting.bot, life::end(reason), self.clock.now());
        decision.push(Change::DeleteQueueEntry(bot_id));
        let commit = self.journal.submit(decision);
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, ctx| match outcome {
            Ok(()) => {
                let platform = ended.spec.platform.clone();
                act.live.bot(&ended);
                act.forget(bot_id, Some(ended));
                act.publish(&platform);
            }
            Err(CommitError::Conflict(_)) => act.reread(bot_id, ctx),
            Err(CommitError::Deposed) => {}
        }));
    }

    fn reread(&mut self, bot_id: BotId, ctx: &mut Context<Self>) {
        let read = self.journal.read_bot(bot_id);
        ctx.spawn(read.into_actor(self).map(move |row, act, ctx| match row {
            Ok(Some(bot)) if bot.state == BotState::Queued => {
                if let Some(waiting) = act.bots.get_mut(&bot_id) {
                    waiting.bot = bot;
                }
                act.settle(bot_id, ctx);
            }
            Ok(row) => act.forget(bot_id, row),
            Err(_) => {}
        }));
    }

    /// The bot waits no more: it ended here, or never came to be.
    fn forget(&mut self, bot_id: BotId, ended: Option<Bot>) {
        self.leave_line(bot_id);
        let Some(waiting) = self.bots.remove(&bot_id) else { return };
        let left = Some((bot_id, ended.clone().map(Box::new)));
        tell(&self.pool, QueueMoved { platform: waiting.bot.spec.platform.clone(), left });
        for wish in waiting.wishes {
            let _ = wish.reply.send(ended.clone().ok_or(WithdrawError::NotLive));
        }
    }

    /// Ends the bots whose time is up. One that is offered is the slot's if it takes it; else it comes back here.
    fn expire(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let due = self.deadlines.iter().take_while(|(deadline_at, _)| *deadline_at <= now);
        let due: Vec<BotId> = due.map(|(_, bot_id)| *bot_id).filter(|id| self.waits(*id)).collect();
        for bot_id in due {
            self.end(bot_id, EndReason::QueueTimeout, ctx);
        }
        self.arm(ctx);
    }

    /// Sets the timer to the next deadline of a bot that waits.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let next: Option<DateTime<Utc>> = self
            .line
            .all()
            .filter(|entry| {
                self.bots.get(&entry.bot_id).is_some_and(|waiting| waiting.phase == Phase::Waiting)
            })
            .map(|entry| entry.deadline_at)
            .min();
        if let Some(at) = next {
            let wait = (at - self.clock.now()).to_std().unwrap_or(Duration::ZERO);
            self.timer = Some(ctx.run_later(wait, |act, ctx| {
                act.timer = None;
                act.expire(ctx);
            }));
        }
    }

    /// Neither on offer nor being ended.
    fn waits(&self, bot_id: BotId) -> bool {
        self.bots.get(&bot_id).is_some_and(|waiting| waiting.phase == Phase::Waiting)
    }

    fn leave_line(&mut self, bot_id: BotId) {
        if let Some(entry) = self.line.remove(bot_id) {
            self.deadlines.remove(&(entry.deadline_at, bot_id));
        }
    }

    fn publish(&self, platform: &Platform) {
        self.live.queue(platform, self.line.of(platform).map(|entry| entry.bot_id).collect());
    }
}

/// Has a slot apply a wish for a bot that was handed to it, and answers with what came of it.
pub(crate) fn forward(slot: &SlotHandle, wish: Withdraw) {
    let applied = slot.send(SlotEvent::LeaveRequested { bot_id: wish.bot_id, reason: wish.reason });
    actix::spawn(async move {
        let answer = match applied.await {
            Ok(Ok(slot)) => slot.bot().cloned().ok_or(WithdrawError::NotLive),
            Ok(Err(Refused::Rejected(_))) => Err(WithdrawError::NotLive),
            Ok(Err(Refused::Busy | Refused::Commit(_))) | Err(_) => Err(WithdrawError::Unknown),
        };
        let _ = wish.reply.send(answer);
    });
}

impl Actor for QueueActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let mut platforms: Vec<Platform> = self.line.all().map(|entry| entry.platform.clone()).collect();
        platforms.dedup();
        self.bots.values().for_each(|waiting| self.live.bot(&waiting.bot));
        for platform in platforms {
            self.publish(&platform);
            tell(&self.pool, QueueMoved { platform, left: None });
        }
        self.expire(ctx);
    }
}

impl Handler<Enqueue> for QueueActor {
    type Result = ();

    fn handle(&mut self, message: Enqueue, ctx: &mut Self::Context) {
        self.enqueue(message, ctx);
    }
}

impl Handler<OfferNext> for QueueActor {
    type Result = ();

    fn handle(&mut self, message: OfferNext, ctx: &mut Self::Context) {
        self.offer(message, ctx);
    }
}

impl Handler<Withdraw> for QueueActor {
    type Result = ();

    fn handle(&mut self, message: Withdraw, ctx: &mut Self::Context) {
        self.withdraw(message, ctx);
    }
}

impl Handler<Observe> for QueueActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(QueueSnapshot { entries: self.line.all().cloned().collect() })
    }
}
