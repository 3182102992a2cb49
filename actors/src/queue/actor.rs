//! The queue's shell: owns the bots that wait. A bot that is offered to a slot stays here until the slot's commit
//! has moved it; wishes that arrive meanwhile wait for the outcome and are then applied by whoever owns it.

use super::QueueEntry;
use super::estimate::Pace;
use super::message::{
    Enqueue, EnqueueError, FindPlace, LineSnapshot, Newcomer, Observe, OfferNext, QueuePlace, QueueSnapshot,
    Reprioritise, ReprioritiseError, TakeBack, Withdraw,
};
use super::order::{Lines, Place};
use super::wish::Wish;
use crate::bot::machine as life;
use crate::bot::{Bot, BotState, End, EndReason};
use crate::ids::{BotId, Platform, SlotName};
use crate::journal::actor::Journal;
use crate::journal::{Change, CommitError};
use crate::live::{Front, Live};
use crate::pool::actor::PoolSupervisor;
use crate::pool::message::{LeaveBot, OfferEnded, OfferOutcome, QueueMoved};
use crate::ports::{Clock, Measure, Meter, SLEEP_MAX};
use crate::slot::actor::Refused;
use crate::slot::event::{BotSource, SlotEvent};
use crate::supervision::{DeathGuard, tell};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between two publications of the lines: a long line that moves quickly costs no more than a short one.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);
/// Places of a line that are published, first to last; of the others only how many there are.
const PUBLISHED_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its creation is being committed.
    Arriving,
    Waiting,
    /// A slot is committing it.
    Offered,
    /// Its new place is being committed.
    Moving,
    /// Its end is being committed.
    Ending,
}

struct Waiting {
    bot: Bot,
    phase: Phase,
    wishes: VecDeque<Wish>,
    /// The slot that it is offered to took it and gave it back; word of that came before the slot's answer.
    returned: Option<Bot>,
}

impl Waiting {
    fn new(bot: Bot, phase: Phase) -> Self {
        Self { bot, phase, wishes: VecDeque::new(), returned: None }
    }
}

/// What the queue is connected to.
pub struct QueueLinks {
    /// The writer.
    pub journal: Journal,
    /// The supervisor.
    pub pool: Addr<PoolSupervisor>,
    /// The dashboard's state.
    pub live: Live,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who counts.
    pub meter: Arc<dyn Meter>,
}

/// See the module.
pub struct QueueActor {
    lines: Lines,
    paces: BTreeMap<Platform, Pace>,
    bots: BTreeMap<BotId, Waiting>,
    /// Those that are being moved: the earlier of their two places. Nobody behind it is offered before it is known which
    /// counts; the grant could not be committed before that either.
    moving: BTreeMap<BotId, Place>,
    /// When those in [`Phase::Waiting`] give up, soonest first.
    deadlines: BTreeSet<(DateTime<Utc>, BotId)>,
    bound: u32,
    links: QueueLinks,
    /// Rings for the next deadline; when by the machine's own count, which nobody sets.
    timer: Option<(Instant, SpawnHandle)>,
    /// Lines that changed since they were published.
    unpublished: BTreeSet<Platform>,
    _guard: DeathGuard,
}

impl QueueActor {
    /// A queue of at most `bound` bots, with the stored ones in their places.
    pub fn new(stored: Vec<(QueueEntry, Bot)>, bound: u32, links: QueueLinks, guard: DeathGuard) -> Self {
        let mut lines = Lines::default();
        lines.restore(stored.iter().map(|(entry, _)| entry.clone()));
        let deadlines = stored.iter().map(|(entry, _)| (entry.deadline_at, entry.bot_id)).collect();
        let bots = stored.into_iter().map(|(_, bot)| (bot.id, Waiting::new(bot, Phase::Waiting))).collect();
        Self {
            lines,
            paces: BTreeMap::new(),
            bots,
            moving: BTreeMap::new(),
            deadlines,
            bound,
            links,
            timer: None,
            unpublished: BTreeSet::new(),
            _guard: guard,
        }
    }

    // --- coming ------------------------------------------------------------------------------------------------

    fn enqueue(&mut self, message: Enqueue, ctx: &mut Context<Self>) {
        let Enqueue { mut bot, source, reply } = message;
        if self.bots.len() >= self.bound as usize {
            let _ = reply.send(Err(EnqueueError::Full(self.bound)));
            return;
        }
        bot.state = BotState::Queued;
        let (mut decision, queued_at) = match source {
            Newcomer::Request(idempotency) => (life::created(&bot, idempotency), bot.created_at),
            Newcomer::Scheduled => (life::left_schedule(&mut bot), self.links.clock.now()),
        };
        let entry = self.entry_for(&bot, queued_at);
        decision.push(Change::InsertQueueEntry(entry.clone()));
        let bot_id = bot.id;
        let platform = entry.platform.clone();
        self.lines.insert(entry);
        self.line_changed(&platform, ctx);
        self.bots.insert(bot_id, Waiting::new(*bot, Phase::Arriving));
        let commit = self.links.journal.submit(decision);
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, ctx| match outcome {
            Ok(()) => {
                let place = act.place(bot_id);
                act.settle(bot_id, ctx);
                if let Some(place) = place {
                    let _ = reply.send(Ok(place));
                }
            }
            Err(error) => {
                act.forget(bot_id, None, ctx);
                let _ = reply.send(Err(error.into()));
            }
        }));
    }

    /// Takes in a bot that a slot gave back. The slot's commit has put it into the queue already, so the bound does not
    /// count: there are never more of them than slots.
    fn take_back(&mut self, bot: Bot, ctx: &mut Context<Self>) {
        if let Some(waiting) = self.bots.get_mut(&bot.id) {
            if waiting.phase == Phase::Offered && bot.version > waiting.bot.version {
                waiting.returned = Some(bot);
            }
            return;
        }
        let (bot_id, entry) = (bot.id, QueueEntry::returned(&bot));
        let platform = entry.platform.clone();
        self.lines.insert(entry);
        self.line_changed(&platform, ctx);
        self.bots.insert(bot_id, Waiting::new(bot, Phase::Arriving));
        self.settle(bot_id, ctx);
    }

    fn entry_for(&mut self, bot: &Bot, queued_at: DateTime<Utc>) -> QueueEntry {
        let platform = bot.spec.platform.clone();
        let (priority, turn, arrival) = self.lines.next_place(&platform, bot.spec.priority, bot.user_id);
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

    fn place(&self, bot_id: BotId) -> Option<QueuePlace> {
        let position = self.lines.position(bot_id)?;
        let pace = self.paces.get(&self.lines.get(bot_id)?.platform).copied().unwrap_or_default();
        Some(QueuePlace { position, estimated_wait: pace.wait(position, self.links.clock.now()) })
    }

    /// The bot stands in line (again): apply what was wished meanwhile, else it may be offered.
    fn settle(&mut self, bot_id: BotId, ctx: &mut Context<Self>) {
        self.moving.remove(&bot_id);
        let Some(waiting) = self.bots.get_mut(&bot_id) else { return };
        self.links.live.bot(&waiting.bot);
        waiting.phase = Phase::Waiting;
        if let Some(wish) = waiting.wishes.pop_front() {
            return self.apply(bot_id, wish, ctx);
        }
        let platform = waiting.bot.spec.platform.clone();
        if let Some(entry) = self.lines.get(bot_id) {
            self.deadlines.insert((entry.deadline_at, bot_id));
        }
        self.lines.free(bot_id);
        tell(&self.links.pool, QueueMoved { platform, left: None });
        self.arm(ctx);
    }

    /// The bot is about to be committed as something else: it is neither offered nor ended meanwhile.
    fn hold(&mut self, bot_id: BotId, phase: Phase) -> Option<&mut Waiting> {
        self.lines.hold(bot_id);
        if let Some(entry) = self.lines.get(bot_id) {
            self.deadlines.remove(&(entry.deadline_at, bot_id));
        }
        let waiting = self.bots.get_mut(&bot_id)?;
        waiting.phase = phase;
        Some(waiting)
    }

    // --- being served ------------------------------------------------------------------------------------------

    fn offer(&mut self, OfferNext { platform, slot }: OfferNext, ctx: &mut Context<Self>) {
        // Whose time is up is not offered any more, even where the timer has not rung yet.
        self.expire(ctx);
        let Some(bot_id) = self.next_to_offer(&platform) else {
            return self.offer_ended(platform, slot.name().clone(), OfferOutcome::Nobody);
        };
        let Some(waiting) = self.hold(bot_id, Phase::Offered) else { return };
        let (bot, version) = (Box::new(waiting.bot.clone()), waiting.bot.version);
        let accepted = slot.send(SlotEvent::Assigned { bot, source: BotSource::Queue });
        let journal = self.links.journal.clone();
        let outcome = async move {
            match accepted.await {
                Ok(Ok(_)) => true,
                Ok(Err(Refused::Rejected(_) | Refused::Busy)) => false,
                // Conflict, or the slot's actor died over it: the row says what became of the offer.
                Ok(Err(Refused::Commit(_))) | Err(_) => match journal.read_bot(bot_id).await {
                    // One that is queued again was taken, and given back since.
                    Ok(row) => row.is_none_or(|bot| bot.state != BotState::Queued || bot.version != version),
                    // No longer leading: nothing may be offered any more.
                    Err(_) => std::future::pending().await,
                },
            }
        };
        ctx.spawn(outcome.into_actor(self).map(move |taken, act, ctx| {
            let outcome = if taken {
                act.handed_over(bot_id, &platform, ctx);
                OfferOutcome::Taken
            } else {
                act.settle(bot_id, ctx);
                act.expire(ctx);
                OfferOutcome::Declined
            };
            act.offer_ended(platform, slot.name().clone(), outcome);
        }));
    }

    /// The first of a line, unless one that is being moved may come before it.
    fn next_to_offer(&self, platform: &Platform) -> Option<BotId> {
        let first = self.lines.of(platform)?.first_free()?;
        let is_here = |bot: &BotId| self.lines.get(*bot).is_some_and(|entry| entry.platform == *platform);
        let is_behind = self.moving.iter().any(|(bot, place)| *place < first.place() && is_here(bot));
        (!is_behind).then_some(first.bot_id)
    }

    fn offer_ended(&self, platform: Platform, slot: SlotName, outcome: OfferOutcome) {
        tell(&self.links.pool, OfferEnded { platform, slot, outcome });
    }

    /// The slot has the bot now; wishes that waited are the slot's to apply.
    fn handed_over(&mut self, bot_id: BotId, platform: &Platform, ctx: &mut Context<Self>) {
        self.paces.entry(platform.clone()).or_default().move_on(self.links.clock.now());
        let served = self.lines.serve(bot_id);
        self.line_changed(platform, ctx);
        let Some(waiting) = self.bots.remove(&bot_id) else { return };
        if let Some(entry) = &served {
            let wait = (self.links.clock.now() - entry.queued_at).to_std().unwrap_or_default();
            self.links.meter.record(Measure::QueueWaited { platform, wait });
        }
        // One that the slot has given back already has not left for the pool: it waits here.
        if waiting.returned.is_none() {
            tell(&self.links.pool, QueueMoved { platform: platform.clone(), left: Some((bot_id, None)) });
        }
        for wish in waiting.wishes {
            match wish {
                Wish::Withdraw(wish) => tell(&self.links.pool, LeaveBot::from(wish)),
                Wish::Reprioritise(wish) => {
                    let _ = wish.reply.send(Err(ReprioritiseError::NotWaiting));
                }
            }
        }
        if let Some(bot) = waiting.returned {
            self.take_back(bot, ctx);
        }
    }

    // --- wishes ------------------------------------------------------------------------------------------------

    /// Applies a wish to a bot that waits, or keeps it until the outcome of what is under way is known.
    fn wish(&mut self, bot_id: BotId, wish: Wish, ctx: &mut Context<Self>) {
        match self.bots.get_mut(&bot_id) {
            None => wish.refuse(),
            Some(waiting) if waiting.phase == Phase::Waiting => self.apply(bot_id, wish, ctx),
            Some(waiting) => {
                waiting.wishes.retain(|older| !wish.supersedes(older));
                waiting.wishes.push_back(wish);
            }
        }
    }

    fn apply(&mut self, bot_id: BotId, wish: Wish, ctx: &mut Context<Self>) {
        match wish {
            Wish::Withdraw(wish) => {
                if let Some(waiting) = self.bots.get_mut(&bot_id) {
                    // Answered when the bot is gone, with all who wish the same.
                    waiting.wishes.push_front(Wish::Withdraw(wish));
                }
                self.end(bot_id, |_| life::end(EndReason::Cancelled), ctx);
            }
            Wish::Reprioritise(wish) => self.reprioritise(wish, ctx),
        }
    }

    /// Moves a waiting bot. It stands at its new place at once, and neither it nor anybody behind it is offered before that
    /// is committed.
    fn reprioritise(
        &mut self,
        Reprioritise { bot_id, priority, reply }: Reprioritise,
        ctx: &mut Context<Self>,
    ) {
        if self.lines.get(bot_id).is_some_and(|entry| entry.priority == priority) {
            let _ = reply.send(self.place(bot_id).ok_or(ReprioritiseError::NotWaiting));
            return self.settle(bot_id, ctx);
        }
        let Some(waiting) = self.hold(bot_id, Phase::Moving) else { return };
        let (moved, mut decision) = life::reprioritised(&waiting.bot, priority);
        let Some((before, after)) = self.lines.reprioritise(bot_id, priority) else { return };
        self.moving.insert(bot_id, before.place().min(after.place()));
        self.line_changed(&before.platform, ctx);
        decision.push(Change::UpdateQueueEntry(after));
        let commit = self.links.journal.submit(decision);
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, ctx| match outcome {
            Ok(()) => {
                act.links.live.bot(&moved);
                if let Some(waiting) = act.bots.get_mut(&bot_id) {
                    waiting.bot = moved;
                }
                let _ = reply.send(act.place(bot_id).ok_or(ReprioritiseError::NotWaiting));
                act.settle(bot_id, ctx);
            }
            Err(CommitError::Conflict(_)) => {
                let _ = reply.send(Err(ReprioritiseError::Unknown));
                act.lines.remove(bot_id);
                act.lines.insert(before);
                act.reread(bot_id, ctx);
            }
            Err(CommitError::Deposed) => {
                let _ = reply.send(Err(ReprioritiseError::Unknown));
            }
        }));
    }

    // --- ending ------------------------------------------------------------------------------------------------

    /// Ends a waiting bot. On a conflict the row is read again, and says whether it still waits.
    fn end(&mut self, bot_id: BotId, why: impl FnOnce(&Bot) -> End, ctx: &mut Context<Self>) {
        let now = self.links.clock.now();
        let Some(waiting) = self.hold(bot_id, Phase::Ending) else { return };
        let (ended, mut decision) = life::ended(&waiting.bot, why(&waiting.bot), now);
        decision.push(Change::DeleteQueueEntry(bot_id));
        let commit = self.links.journal.submit(decision);
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, ctx| match outcome {
            Ok(()) => {
                act.links.live.bot(&ended);
                act.forget(bot_id, Some(ended), ctx);
            }
            Err(CommitError::Conflict(_)) => act.reread(bot_id, ctx),
            Err(CommitError::Deposed) => {}
        }));
    }

    fn reread(&mut self, bot_id: BotId, ctx: &mut Context<Self>) {
        let read = self.links.journal.read_bot(bot_id);
        ctx.spawn(read.into_actor(self).map(move |row, act, ctx| match row {
            Ok(Some(bot)) if bot.state == BotState::Queued => {
                if let Some(waiting) = act.bots.get_mut(&bot_id) {
                    waiting.bot = bot;
                }
                act.settle(bot_id, ctx);
            }
            Ok(row) => act.forget(bot_id, row, ctx),
            Err(_) => {}
        }));
    }

    /// The bot waits no more: it ended here, or never came to be.
    fn forget(&mut self, bot_id: BotId, ended: Option<Bot>, ctx: &mut Context<Self>) {
        self.moving.remove(&bot_id);
        self.lines.remove(bot_id);
        let Some(waiting) = self.bots.remove(&bot_id) else { return };
        let platform = waiting.bot.spec.platform.clone();
        self.line_changed(&platform, ctx);
        let left = Some((bot_id, ended.clone().map(Box::new)));
        tell(&self.links.pool, QueueMoved { platform, left });
        for wish in waiting.wishes {
            match (wish, &ended) {
                (Wish::Withdraw(wish), Some(ended)) => drop(wish.reply.send(Ok(ended.clone()))),
                (wish, _) => wish.refuse(),
            }
        }
    }

    /// Ends the bots whose time is up. One that is offered is the slot's if it takes it; else it comes back here.
    fn expire(&mut self, ctx: &mut Context<Self>) {
        let now = self.links.clock.now();
        while let Some((at, bot_id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, bot_id));
            self.end(bot_id, life::queue_timeout, ctx);
        }
        self.arm(ctx);
    }

    /// Sets the timer to the next deadline. One that rings early does no harm, so it is only ever brought forward.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let Some((next, _)) = self.deadlines.first().copied() else { return };
        // Looks at the clock now and then: a machine that slept, or whose clock was set, has another time than its timers.
        let wait = (next - self.links.clock.now()).to_std().unwrap_or(Duration::ZERO).min(SLEEP_MAX);
        let rings_at = Instant::now() + wait;
        if let Some((at, timer)) = self.timer {
            if at <= rings_at {
                return;
            }
            ctx.cancel_future(timer);
        }
        let timer = ctx.run_later(wait, |act, ctx| {
            act.timer = None;
            act.expire(ctx);
        });
        self.timer = Some((rings_at, timer));
    }

    // --- publishing --------------------------------------------------------------------------------------------

    /// Publishes the line soon, together with what else happens to it until then.
    fn line_changed(&mut self, platform: &Platform, ctx: &mut Context<Self>) {
        let pace = self.paces.entry(platform.clone()).or_default();
        match self.lines.of(platform) {
            Some(_) => pace.begin(self.links.clock.now()),
            None => pace.end(self.links.clock.now()),
        }
        if self.unpublished.is_empty() {
            ctx.run_later(PUBLISH_INTERVAL, |act, _| act.publish());
        }
        self.unpublished.insert(platform.clone());
    }

    fn publish(&mut self) {
        for platform in std::mem::take(&mut self.unpublished) {
            let line = self.lines.of(&platform);
            let bots = line.into_iter().flat_map(|line| line.entries()).take(PUBLISHED_MAX);
            let pace = self.paces.get(&platform).copied().unwrap_or_default();
            let front = Front {
                bots: bots.map(|entry| entry.bot_id).collect(),
                length: line.map_or(0, |line| line.length()),
                wait_per_place: pace.per_place(self.links.clock.now()),
            };
            self.links.live.queue(&platform, front);
        }
    }

    fn snapshot(&self) -> QueueSnapshot {
        let now = self.links.clock.now();
        let line = |(platform, line): (&Platform, &super::order::Line)| {
            let pace = self.paces.get(platform).copied().unwrap_or_default();
            let snapshot = LineSnapshot {
                length: line.length(),
                oldest_queued_at: line.oldest_queued_at(),
                waited_ms: line.waited_ms(now),
                estimated_wait: pace.wait(line.length() + 1, now),
            };
            (platform.clone(), snapshot)
        };
        QueueSnapshot { lines: self.lines.all().map(line).collect() }
    }
}

impl Actor for QueueActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let platforms: Vec<Platform> = self.lines.all().map(|(platform, _)| platform.clone()).collect();
        self.bots.values().for_each(|waiting| self.links.live.bot(&waiting.bot));
        for platform in platforms {
            self.line_changed(&platform, ctx);
            tell(&self.links.pool, QueueMoved { platform, left: None });
        }
        self.publish();
        self.expire(ctx);
    }
}

impl Handler<Enqueue> for QueueActor {
    type Result = ();

    fn handle(&mut self, message: Enqueue, ctx: &mut Self::Context) {
        self.enqueue(message, ctx);
    }
}

impl Handler<TakeBack> for QueueActor {
    type Result = ();

    fn handle(&mut self, message: TakeBack, ctx: &mut Self::Context) {
        self.take_back(message.bot, ctx);
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
        self.wish(message.bot_id, Wish::Withdraw(message), ctx);
    }
}

impl Handler<Reprioritise> for QueueActor {
    type Result = ();

    fn handle(&mut self, message: Reprioritise, ctx: &mut Self::Context) {
        self.wish(message.bot_id, Wish::Reprioritise(message), ctx);
    }
}

impl Handler<FindPlace> for QueueActor {
    type Result = Option<QueuePlace>;

    fn handle(&mut self, message: FindPlace, _: &mut Self::Context) -> Self::Result {
        self.place(message.bot_id)
    }
}

impl Handler<Observe> for QueueActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.snapshot())
    }
}
