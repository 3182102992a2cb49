//! How a bot finds its owner: the Scheduler if its start is ahead, a slot if one is free and nobody waits, else the
//! queue. The receiver's commit creates it, or takes it from the Scheduler; an offer whose receiver died is looked up
//! before the next one is made.

use super::actor::PoolSupervisor;
use super::message::{CreateBot, CreateError, CreateReply, Created, HandOver};
use super::owners::Owner;
use crate::bot::{Bot, BotSpec, BotState};
use crate::ids::{BotId, Platform, UserId};
use crate::journal::{CommitError, IdempotencyKey};
use crate::queue::message::{Enqueue, EnqueueError, Newcomer, QueuePlace};
use crate::schedule::message::{Schedule, ScheduleError};
use crate::schedule::plan::waits;
use crate::slot::actor::Refused;
use crate::slot::event::{BotSource, SlotEvent};
use crate::slot::handle::SlotHandle;
use crate::supervision::tell;
use actix::prelude::*;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Slots tried for one new bot before it goes to the queue.
const OFFERS_MAX: u32 = 3;
/// Bot ids in hand below which the next block is fetched.
const BOT_IDS_LOW: i64 = 256;

/// A bot on its way to an owner.
struct Given {
    bot: Bot,
    origin: Origin,
    offers: u32,
}

/// Where it comes from, and where the outcome goes.
enum Origin {
    Request { idempotency: Option<IdempotencyKey>, reply: CreateReply },
    Schedule { reply: oneshot::Sender<Result<(), CreateError>> },
}

impl From<CommitError> for CreateError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(why) => Self::Conflict(why),
            CommitError::Deposed => Self::OutcomeUnknown,
        }
    }
}

enum Offered {
    Taken(Box<Bot>),
    Declined,
    Failed(CommitError),
}

impl Origin {
    fn is_schedule(&self) -> bool {
        matches!(self, Self::Schedule { .. })
    }

    fn source(&self) -> BotSource {
        match self {
            Self::Request { idempotency, .. } => BotSource::Request { idempotency: idempotency.clone() },
            Self::Schedule { .. } => BotSource::Schedule,
        }
    }

    fn newcomer(&self) -> Newcomer {
        match self {
            Self::Request { idempotency, .. } => Newcomer::Request(idempotency.clone()),
            Self::Schedule { .. } => Newcomer::Scheduled,
        }
    }
}

impl PoolSupervisor {
    pub(super) fn create(&mut self, message: CreateBot, ctx: &mut Context<Self>) {
        let key = message.idempotency.as_ref().map(|(key, _)| (message.user_id, key.clone()));
        let platform = &message.spec.platform;
        let refused = if self.is_closed(platform) {
            // Where it is only switched off, or begins to be drained, bots that are there already are served.
            let disabled = || CreateError::PlatformDisabled(platform.clone());
            Some(self.serves_nobody(platform).unwrap_or_else(disabled))
        } else if key.is_some_and(|key| self.keys_in_flight.contains(&key)) {
            Some(CreateError::KeyInFlight)
        } else {
            None
        };
        if let Some(refused) = refused {
            let _ = message.reply.send(Err(refused));
            return;
        }
        let Some(id) = self.next_bot_id(ctx) else {
            // Whoever gave up waiting is forgotten: the line is no longer than what the door lets in.
            self.without_id.retain(|waiting| !waiting.reply.is_closed());
            self.without_id.push_back(message);
            return;
        };
        let CreateBot { spec, user_id, idempotency, reply } = message;
        let idempotency =
            idempotency.map(|(key, fingerprint)| IdempotencyKey { user_id, key, fingerprint, bot_id: id });
        if let Some(key) = &idempotency {
            self.keys_in_flight.insert((user_id, key.key.clone()));
        }
        let bot = self.new_bot(id, user_id, spec);
        let given = Given { bot, origin: Origin::Request { idempotency, reply }, offers: 0 };
        match &self.partners {
            Some(partners) if waits(partners.schedule_lead, given.bot.spec.start_at, self.now()) => {
                self.schedule(given, ctx);
            }
            _ => self.give(given, ctx),
        }
    }

    pub(super) fn take_scheduled(&mut self, HandOver { bot, reply }: HandOver, ctx: &mut Context<Self>) {
        self.give(Given { bot: *bot, origin: Origin::Schedule { reply }, offers: 0 }, ctx);
    }

    /// Gives a new bot to the Scheduler.
    fn schedule(&mut self, given: Given, ctx: &mut Context<Self>) {
        let Some(partners) = &self.partners else { return };
        let Origin::Request { idempotency, .. } = &given.origin else { return };
        let (reply, answer) = oneshot::channel();
        let bot = Box::new(given.bot.clone());
        tell(&partners.schedule, Schedule { bot, idempotency: idempotency.clone(), reply });
        ctx.spawn(answer.into_actor(self).map(move |outcome, act, _| match outcome {
            Ok(Ok(bot)) => act.created(given, bot, None),
            Ok(Err(ScheduleError::Full(bound))) => act.refuse(given, CreateError::ScheduleFull(bound)),
            Ok(Err(ScheduleError::Commit(error))) => act.refuse(given, error.into()),
            // The Scheduler died over it, and the process with it.
            Err(_) => act.refuse(given, CreateError::OutcomeUnknown),
        }));
    }

    fn new_bot(&self, id: BotId, user_id: UserId, spec: BotSpec) -> Bot {
        Bot {
            id,
            user_id,
            spec: Arc::new(spec),
            state: BotState::Queued,
            end: None,
            seat: None,
            nonce: None,
            report_seq: 0,
            leave: None,
            setback: None,
            created_at: self.now(),
            deployed_at: None,
            joined_at: None,
            ended_at: None,
            version: 1,
        }
    }

    /// Why nobody gets a slot of the platform, where that is so.
    fn serves_nobody(&self, platform: &Platform) -> Option<CreateError> {
        if !self.settings.platforms.contains_key(platform) {
            Some(CreateError::PlatformNotServed(platform.clone()))
        } else if self.closing.is_some() {
            Some(CreateError::Closing)
        } else if self.is_shut(platform) {
            Some(CreateError::PlatformDisabled(platform.clone()))
        } else {
            None
        }
    }

    /// Gives a bot to a slot if one is free and nobody waits, else to the queue.
    fn give(&mut self, given: Given, ctx: &mut Context<Self>) {
        let platform = given.bot.spec.platform.clone();
        let unserved = self.serves_nobody(&platform);
        // Nobody serves its line. That of a drain is served again: by this server when the drain ends, or by the next.
        if let Some(why @ CreateError::PlatformNotServed(_)) = unserved {
            return self.refuse(given, why);
        }
        let somebody_waits = self.owners.waiting(&platform) > 0;
        let place = if somebody_waits || given.offers >= OFFERS_MAX { None } else { self.reserve(&platform) };
        match place {
            Some(handle) => self.offer(given, handle, ctx),
            None if given.bot.spec.queue_timeout_ms == 0 => {
                self.refuse(given, unserved.unwrap_or(CreateError::PoolFull));
            }
            None => self.enqueue(given, ctx),
        }
    }

    fn offer(&mut self, mut given: Given, handle: Arc<SlotHandle>, ctx: &mut Context<Self>) {
        given.offers += 1;
        let source = given.origin.source();
        let answer = handle.send(SlotEvent::Assigned { bot: Box::new(given.bot.clone()), source });
        let journal = self.links.journal.clone();
        let (id, scheduled) = (given.bot.id, given.origin.is_schedule());
        let outcome = async move {
            match answer.await {
                Ok(Ok(outcome)) => {
                    outcome.slot.bot().cloned().map_or(Offered::Declined, |bot| Offered::Taken(Box::new(bot)))
                }
                Ok(Err(Refused::Rejected(_) | Refused::Busy)) => Offered::Declined,
                Ok(Err(Refused::Commit(error))) if !scheduled => Offered::Failed(error),
                // The slot's actor died over it, or somebody wrote the row of a scheduled bot: the row says what
                // became of the offer.
                Ok(Err(Refused::Commit(_))) | Err(_) => match journal.read_bot(id).await {
                    Ok(Some(bot)) if bot.state != BotState::Scheduled => Offered::Taken(Box::new(bot)),
                    Ok(_) => Offered::Declined,
                    Err(error) => Offered::Failed(error),
                },
            }
        };
        ctx.spawn(outcome.into_actor(self).map(move |offered, act, ctx| {
            act.unreserve(handle.name());
            match offered {
                Offered::Taken(bot) => act.taken(given, *bot),
                Offered::Declined => act.give(given, ctx),
                Offered::Failed(error) => act.refuse(given, error.into()),
            }
            act.pump_all(ctx);
            act.close_when_empty();
        }));
    }

    fn enqueue(&mut self, given: Given, ctx: &mut Context<Self>) {
        let Some(partners) = &self.partners else { return };
        let (reply, answer) = oneshot::channel();
        let platform = given.bot.spec.platform.clone();
        self.owners.insert(given.bot.id, Owner::Queue(platform));
        tell(
            &partners.queue,
            Enqueue { bot: Box::new(given.bot.clone()), source: given.origin.newcomer(), reply },
        );
        ctx.spawn(answer.into_actor(self).map(move |outcome, act, _| {
            let refused = match outcome {
                Ok(Ok(place)) => return act.queued(given, place),
                Ok(Err(EnqueueError::Full(bound))) => CreateError::QueueFull(bound),
                Ok(Err(EnqueueError::Commit(error))) => error.into(),
                // The queue died over it, and the process with it.
                Err(_) => CreateError::OutcomeUnknown,
            };
            act.owners.remove(given.bot.id);
            act.refuse(given, refused);
        }));
    }

    fn taken(&mut self, given: Given, bot: Bot) {
        match given.origin {
            Origin::Schedule { reply } => drop(reply.send(Ok(()))),
            Origin::Request { .. } => self.created(given, bot, None),
        }
    }

    fn queued(&mut self, given: Given, place: QueuePlace) {
        match given.origin {
            Origin::Schedule { reply } => drop(reply.send(Ok(()))),
            Origin::Request { .. } => {
                let bot = Bot { state: BotState::Queued, ..given.bot.clone() };
                self.created(given, bot, Some(place));
            }
        }
    }

    fn created(&mut self, given: Given, bot: Bot, queued: Option<QueuePlace>) {
        if let Origin::Request { idempotency, reply } = given.origin {
            self.release_key(idempotency);
            let _ = reply.send(Ok(Created { bot, queued }));
        }
    }

    fn refuse(&mut self, given: Given, error: CreateError) {
        match given.origin {
            Origin::Request { idempotency, reply } => {
                self.release_key(idempotency);
                let _ = reply.send(Err(error));
            }
            Origin::Schedule { reply } => drop(reply.send(Err(error))),
        }
    }

    fn release_key(&mut self, key: Option<IdempotencyKey>) {
        if let Some(key) = key {
            self.keys_in_flight.remove(&(key.user_id, key.key));
        }
    }

    fn next_bot_id(&mut self, ctx: &mut Context<Self>) -> Option<BotId> {
        if self.bot_ids.end - self.bot_ids.start < BOT_IDS_LOW {
            self.fetch_bot_ids(ctx);
        }
        self.bot_ids.next().map(BotId)
    }

    pub(super) fn fetch_bot_ids(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.fetching_ids, true) {
            return;
        }
        let block = self.links.journal.reserve_bot_ids();
        ctx.spawn(block.into_actor(self).map(|block, act, ctx| {
            act.fetching_ids = false;
            let waiting = std::mem::take(&mut act.without_id);
            let Ok(block) = block else {
                for CreateBot { reply, .. } in waiting {
                    let _ = reply.send(Err(CreateError::Unavailable));
                }
                return;
            };
            // What is left of the old block becomes a gap, which is fine.
            act.bot_ids = block;
            for message in waiting.into_iter().filter(|waiting| !waiting.reply.is_closed()) {
                act.create(message, ctx);
            }
        }));
    }
}
