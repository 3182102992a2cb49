//! The pool's shell: knows every slot and every live bot's owner, gives new bots to a slot or to the queue, moves
//! the queue on whatever frees room, and rebuilds slots whose actors died. It never waits: it reserves in memory,
//! passes on, and hears of outcomes as messages.

use super::PoolSettings;
use super::policy::{Candidate, Placement, place};
use crate::bot::{Bot, BotSpec, BotState, EndReason};
use crate::ids::{BotId, Platform, SlotName, UserId};
use crate::journal::{CommitError, IdempotencyKey};
use crate::ports::SlotIds;
use crate::queue::PRIORITY_STANDARD;
use crate::queue::actor::{
    Enqueue, EnqueueError, OfferNext, QueueActor, QueuePlace, Withdraw, WithdrawError, forward,
};
use crate::recording::actor::{BotEnded, RecordingActor};
use crate::slot::actor::{Discard, Refused, SlotActor, SlotLinks};
use crate::slot::handle::SlotHandle;
use crate::slot::machine::{BotSource, SlotEvent};
use crate::slot::{Slot, SlotState, SlotStatus};
use crate::supervision::{DeathGuard, tell};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Slots tried for one new bot before it goes to the queue.
const OFFERS_MAX: u32 = 3;
/// Bot ids in hand below which the next block is fetched.
const BOT_IDS_LOW: i64 = 64;
/// Rebuilds of one slot within [`REBUILD_WINDOW`] before the next one waits that long.
const REBUILDS_MAX: usize = 5;
const REBUILD_WINDOW: Duration = Duration::from_secs(60);

/// Asks for a new bot.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CreateBot {
    /// What is wanted.
    pub spec: BotSpec,
    /// Whose it will be.
    pub user_id: UserId,
    /// The client's key and the request's fingerprint, where it sent one.
    pub idempotency: Option<(String, [u8; 32])>,
    /// Where the outcome goes, once it is durable.
    pub reply: CreateReply,
}

/// Where the outcome of a creation goes.
pub type CreateReply = oneshot::Sender<Result<Created, CreateError>>;

/// A bot that was created.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// As it is stored.
    pub bot: Bot,
    /// Its place in the queue, where it has to wait.
    pub queued: Option<QueuePlace>,
}

/// Why no bot was created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The platform is not served.
    #[error("platform {0} is not served")]
    PlatformNotServed(Platform),
    /// No slot is free and the request does not want to wait.
    #[error("no slot is free")]
    PoolFull,
    /// No slot is free and the queue has reached its bound.
    #[error("no slot is free and {0} bots are waiting already")]
    QueueFull(u32),
    /// A request with the same key is under way.
    #[error("a request with this idempotency key is under way")]
    KeyInFlight,
    /// The key was used before, or another constraint refused the bot.
    #[error("the request conflicts with what is stored: {0}")]
    Conflict(String),
    /// The outcome is not known, or nothing can be created now.
    #[error("nothing can be created now")]
    Unavailable,
}

/// Asks a bot to leave, or takes it out of the queue.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LeaveBot {
    /// Which.
    pub bot_id: BotId,
    /// Why.
    pub reason: EndReason,
    /// Where the bot as it then is goes.
    pub reply: oneshot::Sender<Result<Bot, WithdrawError>>,
}

/// A slot was built, or committed a change.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SlotPublished {
    /// As committed.
    pub slot: Slot,
    /// Bots that ended with this change.
    pub ended: Vec<Bot>,
}

/// A slot's actor died.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SlotDied {
    /// Which slot.
    pub name: SlotName,
}

/// The queue's offer to a slot is over.
#[derive(Message)]
#[rtype(result = "()")]
pub struct OfferEnded {
    /// Whose line.
    pub platform: Platform,
    /// The slot.
    pub slot: SlotName,
    /// Whether the slot has the bot now.
    pub taken: bool,
}

/// Somebody joined or left a line.
#[derive(Message)]
#[rtype(result = "()")]
pub struct QueueMoved {
    /// Whose line.
    pub platform: Platform,
    /// Who left, and as what it ended if it ended there; `None`: somebody may be offered.
    pub left: Option<(BotId, Option<Box<Bot>>)>,
}

/// Tells the supervisor who its partners are.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Connect {
    /// The queue.
    pub queue: Addr<QueueActor>,
    /// The recordings.
    pub recordings: Addr<RecordingActor>,
}

/// The pool as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolSnapshot {
    /// Slots by platform and state.
    pub slots: BTreeMap<(Platform, SlotStatus), u32>,
    /// Live bots by their mailbox.
    pub owners: BTreeMap<BotId, Owner>,
    /// Slots' actors rebuilt so far.
    pub rebuilds: u64,
}

/// Asks for a [`PoolSnapshot`].
#[derive(Message)]
#[rtype(result = "PoolSnapshot")]
pub struct Observe;

/// The mailbox that a live bot is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The queue, in this platform's line.
    Queue(Platform),
    /// A slot.
    Slot(SlotName),
}

struct Member {
    handle: Arc<SlotHandle>,
    addr: Addr<SlotActor>,
    platform: Platform,
    image: String,
    /// `None`: being rebuilt.
    status: Option<SlotStatus>,
    last_used_at: Option<DateTime<Utc>>,
    reserved: bool,
    /// Whether there is a row.
    stored: bool,
    rebuilt_at: VecDeque<DateTime<Utc>>,
}

/// See the module.
pub struct PoolSupervisor {
    settings: PoolSettings,
    slot_ids: Arc<dyn SlotIds>,
    links: Option<SlotLinks>,
    make_links: Option<Box<dyn FnOnce(Addr<PoolSupervisor>) -> SlotLinks>>,
    stored: Vec<Slot>,
    partners: Option<Connect>,
    members: BTreeMap<SlotName, Member>,
    owners: BTreeMap<BotId, Owner>,
    offers: BTreeMap<Platform, usize>,
    keys_in_flight: BTreeSet<(UserId, String)>,
    bot_ids: Range<i64>,
    fetching_ids: bool,
    /// Requests that wait for the next block of bot ids.
    without_id: VecDeque<CreateBot>,
    rebuilds: u64,
    _guard: DeathGuard,
}

impl PoolSupervisor {
    /// A pool with the stored slots. `make_links` is given the supervisor's own address.
    pub fn new(
        settings: PoolSettings,
        slot_ids: Arc<dyn SlotIds>,
        stored: Vec<Slot>,
        waiting: impl IntoIterator<Item = (BotId, Platform)>,
        make_links: Box<dyn FnOnce(Addr<PoolSupervisor>) -> SlotLinks>,
        guard: DeathGuard,
    ) -> Self {
        Self {
            settings,
            slot_ids,
            links: None,
            make_links: Some(make_links),
            stored,
            partners: None,
            members: BTreeMap::new(),
            owners: waiting.into_iter().map(|(bot, platform)| (bot, Owner::Queue(platform))).collect(),
            offers: BTreeMap::new(),
            keys_in_flight: BTreeSet::new(),
            bot_ids: 0..0,
            fetching_ids: false,
            without_id: VecDeque::new(),
            rebuilds: 0,
            _guard: guard,
        }
    }

    // --- new bots ----------------------------------------------------------------------------------------------

    fn create(&mut self, message: CreateBot, ctx: &mut Context<Self>) {
        let key = message.idempotency.as_ref().map(|(key, _)| (message.user_id, key.clone()));
        let refused = if !self.settings.platforms.contains_key(&message.spec.platform) {
            Some(CreateError::PlatformNotServed(message.spec.platform.clone()))
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
        self.give(Given { bot, idempotency, reply, offers: 0 }, ctx);
    }

    fn new_bot(&self, id: BotId, user_id: UserId, spec: BotSpec) -> Bot {
        Bot {
            id,
            user_id,
            spec,
            state: BotState::Queued,
            end: None,
            seat: None,
            nonce: None,
            report_seq: 0,
            leave: None,
            created_at: self.now(),
            deployed_at: None,
            joined_at: None,
            ended_at: None,
            version: 1,
        }
    }

    /// Gives a new bot to a slot if one is free and nobody waits, else to the queue.
    fn give(&mut self, given: Given, ctx: &mut Context<Self>) {
        let platform = given.bot.spec.platform.clone();
        let somebody_waits = self.waiting(&platform) > 0;
        let place = if somebody_waits || given.offers >= OFFERS_MAX { None } else { self.reserve(&platform) };
        match place {
            Some(handle) => self.offer(given, handle, ctx),
            None if given.bot.spec.queue_timeout_ms == 0 => self.refuse(given, CreateError::PoolFull),
            None => self.enqueue(given, ctx),
        }
    }

    fn offer(&mut self, mut given: Given, handle: Arc<SlotHandle>, ctx: &mut Context<Self>) {
        given.offers += 1;
        let source = BotSource::Request { idempotency: given.idempotency.clone() };
        let answer = handle.send(SlotEvent::Assigned { bot: Box::new(given.bot.clone()), source });
        let Some(journal) = self.links.as_ref().map(|links| links.journal.clone()) else { return };
        let id = given.bot.id;
        let outcome = async move {
            match answer.await {
                Ok(Ok(slot)) => {
                    slot.bot().cloned().map_or(Offered::Declined, |bot| Offered::Taken(Box::new(bot)))
                }
                Ok(Err(Refused::Rejected(_) | Refused::Busy)) => Offered::Declined,
                Ok(Err(Refused::Commit(error))) => Offered::Failed(error),
                // The slot's actor died over it: the row says what became of the offer.
                Err(_) => match journal.read_bot(id).await {
                    Ok(Some(bot)) => Offered::Taken(Box::new(bot)),
                    Ok(None) => Offered::Declined,
                    Err(error) => Offered::Failed(error),
                },
            }
        };
        ctx.spawn(outcome.into_actor(self).map(move |offered, act, ctx| {
            let platform = given.bot.spec.platform.clone();
            act.unreserve(handle.name());
            match offered {
                Offered::Taken(bot) => act.created(given, Created { bot: *bot, queued: None }),
                Offered::Declined => act.give(given, ctx),
                Offered::Failed(CommitError::Conflict(why)) => act.refuse(given, CreateError::Conflict(why)),
                Offered::Failed(CommitError::Deposed) => act.refuse(given, CreateError::Unavailable),
            }
            act.pump(&platform);
        }));
    }

    fn enqueue(&mut self, given: Given, ctx: &mut Context<Self>) {
        let Some(partners) = &self.partners else { return };
        let (reply, answer) = oneshot::channel();
        let platform = given.bot.spec.platform.clone();
        self.owners.insert(given.bot.id, Owner::Queue(platform));
        tell(
            &partners.queue,
            Enqueue {
                bot: Box::new(given.bot.clone()),
                idempotency: given.idempotency.clone(),
                priority: PRIORITY_STANDARD,
                reply,
            },
        );
        ctx.spawn(answer.into_actor(self).map(move |outcome, act, _| {
            let refused = match outcome {
                Ok(Ok(place)) => {
                    let mut bot = given.bot.clone();
                    bot.state = BotState::Queued;
                    return act.created(given, Created { bot, queued: Some(place) });
                }
                Ok(Err(EnqueueError::Full(bound))) => CreateError::QueueFull(bound),
                Ok(Err(EnqueueError::Commit(CommitError::Conflict(why)))) => CreateError::Conflict(why),
                Ok(Err(EnqueueError::Commit(CommitError::Deposed))) | Err(_) => CreateError::Unavailable,
            };
            act.owners.remove(&given.bot.id);
            act.refuse(given, refused);
        }));
    }

    fn created(&mut self, given: Given, created: Created) {
        self.release_key(&given);
        let _ = given.reply.send(Ok(created));
    }

    fn refuse(&mut self, given: Given, error: CreateError) {
        self.release_key(&given);
        let _ = given.reply.send(Err(error));
    }

    fn release_key(&mut self, given: &Given) {
        if let Some(key) = &given.idempotency {
            self.keys_in_flight.remove(&(key.user_id, key.key.clone()));
        }
    }

    fn next_bot_id(&mut self, ctx: &mut Context<Self>) -> Option<BotId> {
        if self.bot_ids.end - self.bot_ids.start < BOT_IDS_LOW {
            self.fetch_bot_ids(ctx);
        }
        self.bot_ids.next().map(BotId)
    }

    fn fetch_bot_ids(&mut self, ctx: &mut Context<Self>) {
        let Some(links) = self.links.as_ref().filter(|_| !self.fetching_ids) else { return };
        self.fetching_ids = true;
        let block = links.journal.reserve_bot_ids();
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

    // --- slots -------------------------------------------------------------------------------------------------

    /// Reserves a slot for one bot of the platform, growing the pool where that is allowed.
    fn reserve(&mut self, platform: &Platform) -> Option<Arc<SlotHandle>> {
        let candidates = self.members.iter().map(|(name, member)| Candidate {
            name,
            platform: &member.platform,
            image: &member.image,
            status: member.status,
            reserved: member.reserved,
            last_used_at: member.last_used_at,
        });
        let name = match place(platform, &self.settings, candidates) {
            Placement::Slot(name) => name,
            Placement::Grow(name) => {
                let image = self.settings.platforms.get(platform)?.image.clone();
                let slot =
                    Slot::vacant(name.clone(), self.slot_ids.next(), platform.clone(), image, self.now());
                self.build(slot);
                name
            }
            Placement::Full => return None,
        };
        let member = self.members.get_mut(&name)?;
        member.reserved = true;
        Some(Arc::clone(&member.handle))
    }

    fn unreserve(&mut self, name: &SlotName) {
        let Some(member) = self.members.get_mut(name) else { return };
        member.reserved = false;
        if !member.stored {
            // A place that nobody took was never stored; it leaves without a trace.
            if let Some(member) = self.members.remove(name) {
                tell(&member.addr, Discard);
                if let Some(links) = &self.links {
                    links.directory.remove(member.handle.id());
                }
            }
        }
    }

    /// Starts a slot's actor, and keeps what outlives it.
    fn build(&mut self, slot: Slot) {
        let Some(links) = self.links.clone() else { return };
        let name = slot.name.clone();
        let known = self.members.remove(&name);
        let handle =
            known.as_ref().map_or_else(|| SlotHandle::new(slot.clone()), |known| Arc::clone(&known.handle));
        let guard = {
            let (pool, name) = (links.pool.clone(), name.clone());
            DeathGuard::new(move || tell(&pool, SlotDied { name }))
        };
        let addr = SlotActor::new(slot.clone(), Arc::clone(&handle), links.clone(), guard).start();
        // At once, not when the actor first runs: an offer may follow on the heels of this.
        handle.connect(slot.clone(), addr.clone());
        links.directory.insert(Arc::clone(&handle));
        let member = Member {
            platform: slot.platform.clone(),
            image: slot.image.clone(),
            status: slot.status(),
            last_used_at: last_used(&slot),
            reserved: known.as_ref().is_some_and(|known| known.reserved),
            stored: slot.version > 0,
            rebuilt_at: known.map(|known| known.rebuilt_at).unwrap_or_default(),
            addr,
            handle,
        };
        self.members.insert(name, member);
    }

    fn slot_published(&mut self, SlotPublished { slot, ended }: SlotPublished) {
        let platform = slot.platform.clone();
        if matches!(slot.state, SlotState::Retired) {
            self.members.remove(&slot.name);
            if let Some(links) = &self.links {
                links.directory.remove(slot.id);
            }
        } else if let Some(member) = self.members.get_mut(&slot.name) {
            member.status = slot.status();
            member.last_used_at = last_used(&slot).or(member.last_used_at);
            member.stored = slot.version > 0;
        }
        if let Some(bot) = slot.bot().filter(|bot| !bot.state.is_final()) {
            self.owners.insert(bot.id, Owner::Slot(slot.name.clone()));
        }
        for bot in ended {
            self.ended(bot);
        }
        // A vacant slot is not news of room: it was built for somebody.
        let frees = matches!(slot.state, SlotState::Idle { .. }) && slot.version > 0;
        if frees || matches!(slot.state, SlotState::Retired) {
            self.pump(&platform);
        }
    }

    fn ended(&mut self, bot: Bot) {
        self.owners.remove(&bot.id);
        if let Some(partners) = &self.partners {
            tell(&partners.recordings, BotEnded { bot });
        }
    }

    /// Rebuilds a slot from its row, behind everything that the dead actor had submitted.
    fn slot_died(&mut self, name: SlotName, ctx: &mut Context<Self>) {
        let now = self.now();
        let (Some(member), Some(links)) = (self.members.get_mut(&name), &self.links) else { return };
        member.status = None;
        self.rebuilds += 1;
        let window = TimeDelta::from_std(REBUILD_WINDOW).unwrap_or_default();
        member.rebuilt_at.retain(|at| now - *at < window);
        member.rebuilt_at.push_back(now);
        let often = member.rebuilt_at.len() > REBUILDS_MAX;
        let wait = if often { REBUILD_WINDOW } else { Duration::ZERO };
        slog::error!(links.log, "slot actor died; rebuilding it";
            "slot" => %name, "wait_s" => wait.as_secs(), "deaths_in_window" => member.rebuilt_at.len());
        let journal = links.journal.clone();
        let read = async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            (journal.read_slot(name.clone()).await, name)
        };
        ctx.spawn(read.into_actor(self).map(|(row, name), act, _| match row {
            Ok(Some(slot)) => act.build(slot),
            Ok(None) => {
                if let Some(member) = act.members.remove(&name) {
                    act.pump(&member.platform);
                }
            }
            Err(_) => {}
        }));
    }

    // --- the queue ---------------------------------------------------------------------------------------------

    fn waiting(&self, platform: &Platform) -> usize {
        self.owners.values().filter(|owner| matches!(owner, Owner::Queue(line) if line == platform)).count()
    }

    /// Offers free room to those who wait, as long as there are both.
    fn pump(&mut self, platform: &Platform) {
        let Some(queue) = self.partners.as_ref().map(|partners| partners.queue.clone()) else { return };
        let waiting = self.waiting(platform);
        while self.offers.get(platform).copied().unwrap_or(0) < waiting {
            let Some(slot) = self.reserve(platform) else { return };
            *self.offers.entry(platform.clone()).or_default() += 1;
            tell(&queue, OfferNext { platform: platform.clone(), slot });
        }
    }

    fn offer_ended(&mut self, OfferEnded { platform, slot, taken }: OfferEnded) {
        if let Some(offers) = self.offers.get_mut(&platform) {
            *offers = offers.saturating_sub(1);
        }
        self.unreserve(&slot);
        if taken {
            self.pump(&platform);
        }
    }

    fn queue_moved(&mut self, QueueMoved { platform, left }: QueueMoved) {
        match left {
            None => self.pump(&platform),
            Some((bot_id, ended)) => {
                if matches!(self.owners.get(&bot_id), Some(Owner::Queue(_))) {
                    self.owners.remove(&bot_id);
                }
                if let Some(bot) = ended.filter(|bot| bot.state.is_final()) {
                    self.ended(*bot);
                }
            }
        }
    }

    fn leave(&mut self, LeaveBot { bot_id, reason, reply }: LeaveBot) {
        let wish = Withdraw { bot_id, reason, reply };
        match (self.owners.get(&bot_id), &self.partners) {
            (Some(Owner::Queue(_)), Some(partners)) => tell(&partners.queue, wish),
            (Some(Owner::Slot(name)), _) => match self.members.get(name) {
                Some(member) => forward(&member.handle, wish),
                None => drop(wish.reply.send(Err(WithdrawError::Unknown))),
            },
            _ => drop(wish.reply.send(Err(WithdrawError::NotLive))),
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.links.as_ref().map_or(DateTime::UNIX_EPOCH, |links| links.clock.now())
    }
}

/// A new bot on its way to an owner.
struct Given {
    bot: Bot,
    idempotency: Option<IdempotencyKey>,
    reply: CreateReply,
    offers: u32,
}

enum Offered {
    Taken(Box<Bot>),
    Declined,
    Failed(CommitError),
}

fn last_used(slot: &Slot) -> Option<DateTime<Utc>> {
    match slot.state {
        SlotState::Idle { last_used_at } => last_used_at,
        _ => None,
    }
}

impl Actor for PoolSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(make_links) = self.make_links.take() {
            self.links = Some(make_links(ctx.address()));
        }
        for slot in std::mem::take(&mut self.stored) {
            self.build(slot);
        }
        self.fetch_bot_ids(ctx);
    }
}

impl Handler<Connect> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: Connect, _: &mut Self::Context) {
        self.partners = Some(message);
        for platform in self.settings.platforms.keys().cloned().collect::<Vec<_>>() {
            self.pump(&platform);
        }
    }
}

impl Handler<CreateBot> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: CreateBot, ctx: &mut Self::Context) {
        self.create(message, ctx);
    }
}

impl Handler<LeaveBot> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: LeaveBot, _: &mut Self::Context) {
        self.leave(message);
    }
}

impl Handler<SlotPublished> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: SlotPublished, _: &mut Self::Context) {
        self.slot_published(message);
    }
}

impl Handler<SlotDied> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: SlotDied, ctx: &mut Self::Context) {
        self.slot_died(message.name, ctx);
    }
}

impl Handler<OfferEnded> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: OfferEnded, _: &mut Self::Context) {
        self.offer_ended(message);
    }
}

impl Handler<QueueMoved> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: QueueMoved, _: &mut Self::Context) {
        self.queue_moved(message);
    }
}

impl Handler<Observe> for PoolSupervisor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let mut slots: BTreeMap<(Platform, SlotStatus), u32> = BTreeMap::new();
        for member in self.members.values().filter(|member| member.stored) {
            // A slot whose actor is being rebuilt is out of order for that moment.
            let status = member.status.unwrap_or(SlotStatus::Error);
            *slots.entry((member.platform.clone(), status)).or_default() += 1;
        }
        MessageResult(PoolSnapshot { slots, owners: self.owners.clone(), rebuilds: self.rebuilds })
    }
}
