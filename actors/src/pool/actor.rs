//! The pool's shell: knows every slot and every live bot's owner, gives new bots to a slot or to the queue, moves
//! the queue on whatever frees room, and rebuilds slots whose actors died. It never waits: it reserves in memory,
//! passes on, and hears of outcomes as messages.

use super::breaker::Breaker;
use super::drains::Closing;
use super::index::{Growth, Placement, SlotIndex};
use super::load::{PlatformLoad, PoolLoad};
use super::message::{
    Connect, CreateBot, HandOver, LeaveBot, ListSlots, Observe, ObserveLoad, PoolSnapshot, SlotDied,
    SlotPublished,
};
use super::offers::LineState;
use super::owners::{Owner, Owners};
use super::restart::RestartBudget;
use super::{Drain, PoolSettings};
use crate::bot::{Bot, BotState};
use crate::ids::{BotId, HostName, Platform, SlotName, UserId};
use crate::journal::CommitError;
use crate::journal::actor::Journal;
use crate::ports::{Measure, SlotIds};
use crate::queue::message::{TakeBack, Withdraw, WithdrawError};
use crate::recording::actor::BotEnded;
use crate::schedule::message::StartObserved;
use crate::slot::actor::{Discard, Outcome, Refused, SlotActor, SlotLinks};
use crate::slot::drains::Deadline;
use crate::slot::event::SlotEvent;
use crate::slot::handle::SlotHandle;
use crate::slot::machine::Notice;
use crate::slot::{BusyStep, Slot, SlotState, SlotStatus};
use crate::supervision::{DeathGuard, tell};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What is needed to speak to a slot and to build it again; what is known of it is in the index.
pub(super) struct Member {
    pub(super) handle: Arc<SlotHandle>,
    pub(super) addr: Addr<SlotActor>,
    budget: RestartBudget,
    /// There is no slot any more; kept while somebody holds its reservation, which must not become its successor's.
    gone: bool,
}

/// See the module.
pub struct PoolSupervisor {
    pub(super) settings: PoolSettings,
    slot_ids: Arc<dyn SlotIds>,
    pub(super) links: Arc<SlotLinks>,
    stored: Vec<Slot>,
    pub(super) partners: Option<Connect>,
    /// What is being emptied, as committed.
    pub(super) drains: BTreeMap<Drain, Deadline>,
    /// Drains of which a change is on its way into the database.
    pub(super) drains_in_flight: BTreeSet<Drain>,
    /// The drain of the whole server.
    pub(super) closing: Option<Closing>,
    pub(super) index: SlotIndex,
    pub(super) members: BTreeMap<SlotName, Member>,
    pub(super) owners: Owners,
    pub(super) lines: BTreeMap<Platform, LineState>,
    /// Whose bot the pool grew for last: of those who need room that all share it is the last in turn.
    pub(super) grown_for: Option<Platform>,
    /// Free slots that were told to go, for the room that bots of other platforms need.
    pub(super) displaced: BTreeMap<SlotName, Platform>,
    pub(super) breakers: BTreeMap<HostName, Breaker>,
    pub(super) keys_in_flight: BTreeSet<(UserId, String)>,
    pub(super) bot_ids: Range<i64>,
    pub(super) fetching_ids: bool,
    /// Requests that wait for the next block of bot ids.
    pub(super) without_id: VecDeque<CreateBot>,
    /// Slots that are being made ahead of need.
    pub(super) prewarming: usize,
    rebuilds: u64,
    _guard: DeathGuard,
}

impl PoolSupervisor {
    /// A pool with the stored slots.
    pub fn new(
        settings: PoolSettings,
        slot_ids: Arc<dyn SlotIds>,
        stored: Vec<Slot>,
        drains: BTreeMap<Drain, Deadline>,
        waiting: impl IntoIterator<Item = (BotId, Platform)>,
        links: SlotLinks,
        guard: DeathGuard,
    ) -> Self {
        let mut index = SlotIndex::new(&settings);
        links.limits.configure(&settings);
        for drain in drains.keys() {
            if let Drain::Host(host) = drain {
                index.drain_host(host, true);
            }
        }
        // At once, not when this actor first runs: bots speak to a server that has just taken the lead, and one that were
        // told that it is in no slot would leave its meeting.
        for slot in &stored {
            links.directory.insert(SlotHandle::new(Arc::new(slot.clone())));
        }
        let mut owners = Owners::default();
        for (bot, platform) in waiting {
            owners.insert(bot, Owner::Queue(platform));
        }
        Self {
            settings,
            slot_ids,
            links: Arc::new(links),
            stored,
            partners: None,
            drains,
            drains_in_flight: BTreeSet::new(),
            closing: None,
            index,
            members: BTreeMap::new(),
            owners,
            lines: BTreeMap::new(),
            grown_for: None,
            displaced: BTreeMap::new(),
            breakers: BTreeMap::new(),
            keys_in_flight: BTreeSet::new(),
            bot_ids: 0..0,
            fetching_ids: false,
            without_id: VecDeque::new(),
            prewarming: 0,
            rebuilds: 0,
            _guard: guard,
        }
    }

    // --- slots -------------------------------------------------------------------------------------------------

    /// Reserves a slot for one bot of the platform, growing the pool where that is allowed.
    pub(super) fn reserve(&mut self, platform: &Platform) -> Option<Arc<SlotHandle>> {
        if self.is_shut(platform) {
            return None;
        }
        match self.index.take(platform) {
            Placement::Slot(name) => self.members.get(&name).map(|member| Arc::clone(&member.handle)),
            Placement::Grow(growth) => {
                self.grown_for = Some(platform.clone());
                self.grow(platform, growth)
            }
            Placement::Full => None,
        }
    }

    /// Makes a slot that nobody but the caller may use; it is stored by its first commit.
    pub(super) fn grow(
        &mut self,
        platform: &Platform,
        Growth { name, host }: Growth,
    ) -> Option<Arc<SlotHandle>> {
        let settings = self.settings.platforms.get(platform)?;
        // What a platform that is being drained still needs goes with its bot.
        let ephemeral = settings.ephemeral || self.drains.contains_key(&Drain::Platform(platform.clone()));
        let (image, id, now) = (settings.image.clone(), self.slot_ids.next(), self.now());
        self.build(Slot::vacant(name.clone(), id, platform.clone(), host, image, ephemeral, now));
        self.index.reserve(&name, true);
        self.members.get(&name).map(|member| Arc::clone(&member.handle))
    }

    /// Whoever reserved the slot is through with it. One that nobody took was never stored; it leaves without a trace.
    pub(super) fn unreserve(&mut self, name: &SlotName) {
        self.index.reserve(name, false);
        let (Some(line), Some(member)) = (self.index.get(name), self.members.get(name)) else { return };
        // The row of one that is being rebuilt is read just now, and says whether there is one.
        let rebuilding = line.status.is_none();
        if member.gone {
            self.forget(name);
        } else if !rebuilding && !line.stored && member.handle.snapshot().version == 0 {
            tell(&member.addr, Discard);
            self.forget(name);
        } else {
            self.prepare_ahead(&member.handle.snapshot());
        }
    }

    /// The slot is no more. Its number is free once nobody holds its reservation.
    fn gone(&mut self, name: &SlotName) {
        if !self.index.get(name).is_some_and(|line| line.reserved) {
            return self.forget(name);
        }
        self.index.gone(name);
        if let Some(member) = self.members.get_mut(name) {
            member.gone = true;
        }
    }

    fn forget(&mut self, name: &SlotName) {
        self.index.remove(name);
        self.displaced.remove(name);
        let Some(member) = self.members.remove(name) else { return };
        self.links.directory.remove(member.handle.id());
    }

    /// Starts a slot's actor, and keeps what outlives it.
    fn build(&mut self, slot: Slot) {
        let (links, name, slot) = (Arc::clone(&self.links), slot.name.clone(), Arc::new(slot));
        let known = self.members.remove(&name);
        let handle = links.directory.slot(slot.id).unwrap_or_else(|| SlotHandle::new(Arc::clone(&slot)));
        let guard = {
            let (links, name) = (Arc::clone(&links), name.clone());
            DeathGuard::new(move || tell(&links.pool, SlotDied { name }))
        };
        let addr = SlotActor::new(Arc::clone(&slot), Arc::clone(&handle), Arc::clone(&links), guard).start();
        // At once, not when the actor first runs: an offer may follow on the heels of this.
        handle.connect(Arc::clone(&slot), addr.clone());
        links.directory.insert(Arc::clone(&handle));
        self.index.put(&slot);
        let budget = known.map(|known| known.budget).unwrap_or_default();
        self.members.insert(name, Member { handle, addr, budget, gone: false });
    }

    fn slot_published(&mut self, SlotPublished { slot, notices }: SlotPublished, ctx: &mut Context<Self>) {
        let crowded = self.index.crowded();
        let is_declined =
            notices.iter().any(|notice| matches!(notice, Notice::BotReturned { crowded: true, .. }));
        if is_declined {
            // First, and also where the slot goes: it would count as one that waited for its image and waits no more.
            self.index.declined(&slot);
        }
        if matches!(slot.state, SlotState::Retired) {
            self.gone(&slot.name);
        } else if self.members.contains_key(&slot.name) {
            let before = self.index.get(&slot.name).and_then(|line| line.status);
            if let (Some(took), Some(partners)) = (started(before, &slot), &self.partners) {
                tell(&partners.schedule, StartObserved { platform: slot.platform.clone(), took });
            }
            if !is_declined {
                self.index.put(&slot);
            }
            self.stays(&slot);
            self.keep_up(&slot);
            self.clear_out_late(&slot);
        }
        if let Some(bot) = slot.bot().filter(|bot| !bot.state.is_final()) {
            self.owners.insert(bot.id, Owner::Slot(slot.name.clone()));
        }
        for notice in notices {
            match notice {
                Notice::BotEnded(bot) => self.ended(*bot),
                Notice::BotReturned { bot, .. } => self.returned(*bot),
            }
        }
        // A vacant slot is not news of room: it was built for somebody.
        let frees = matches!(slot.state, SlotState::Idle { .. }) && slot.version > 0;
        let got_on = self.index.crowded() < crowded;
        if frees || got_on || matches!(slot.state, SlotState::Retired) {
            self.pump_all(ctx);
        }
        self.prepare_ahead(&slot);
        self.close_when_empty();
    }

    /// A slot gave a bot back: its commit has put it into the queue.
    fn returned(&mut self, bot: Bot) {
        self.owners.insert(bot.id, Owner::Queue(bot.spec.platform.clone()));
        if let Some(partners) = &self.partners {
            tell(&partners.queue, TakeBack { bot });
        }
    }

    pub(super) fn ended(&mut self, bot: Bot) {
        // An end that is said again, by a rebuilt slot, is counted once.
        let was_live = self.owners.remove(bot.id);
        self.links.live.bot(&bot);
        if let Some(end) = bot.end.as_ref().filter(|_| was_live) {
            let platform = &bot.spec.platform;
            self.links.meter.record(Measure::BotEnded { platform, outcome: end.reason.outcome() });
        }
        if let Some(partners) = &self.partners {
            tell(&partners.recordings, BotEnded { bot });
        }
    }

    /// Rebuilds a slot from its row, behind everything that the dead actor had submitted.
    fn slot_died(&mut self, name: SlotName, ctx: &mut Context<Self>) {
        let now = self.now();
        let Some(member) = self.members.get_mut(&name) else { return };
        let links = &self.links;
        self.rebuilds += 1;
        links.meter.record(Measure::SlotRebuilt);
        let wait = member.budget.died(now);
        self.index.rebuilding(&name);
        slog::error!(links.log, "slot actor died; rebuilding it";
            "slot" => %name, "wait_s" => wait.as_secs(), "deaths" => member.budget.deaths());
        let found = Found::read(links.journal.clone(), name.clone(), self.owners.seated(&name), wait);
        ctx.spawn(found.into_actor(self).map(|found, act, ctx| {
            if let Ok(found) = found {
                act.rebuild(found, ctx);
            }
        }));
    }

    fn rebuild(&mut self, found: Found, ctx: &mut Context<Self>) {
        // What the dead actor committed and could not say any more.
        for bot in found.left {
            match bot.state {
                BotState::Queued => self.returned(bot),
                _ => self.ended(bot),
            }
        }
        match found.slot {
            Some(slot) => self.build(slot),
            None => {
                self.gone(&found.name);
                self.pump_all(ctx);
                self.close_when_empty();
            }
        }
    }

    // --- wishes ------------------------------------------------------------------------------------------------

    fn leave(&mut self, LeaveBot { bot_id, reason, reply }: LeaveBot, ctx: &mut Context<Self>) {
        let wish = Withdraw { bot_id, reason, reply };
        match (self.owners.get(bot_id), &self.partners) {
            (Some(Owner::Queue(_)), Some(partners)) => tell(&partners.queue, wish),
            (Some(Owner::Slot(name)), _) => self.leave_slot(name.clone(), wish, ctx),
            // The Scheduler knows its own bots; nobody else has to remember so many for so long.
            (None, Some(partners)) => tell(&partners.schedule, wish),
            _ => drop(wish.reply.send(Err(WithdrawError::NotLive))),
        }
    }

    /// Has a slot apply a wish for its bot, and answers with what came of it.
    fn leave_slot(&self, name: SlotName, wish: Withdraw, ctx: &mut Context<Self>) {
        let Some(member) = self.members.get(&name) else {
            return drop(wish.reply.send(Err(WithdrawError::Unknown)));
        };
        let event = SlotEvent::LeaveRequested { bot_id: wish.bot_id, reason: wish.reason };
        let applied = member.handle.send(event);
        ctx.spawn(applied.into_actor(self).map(move |applied, act, ctx| {
            let answer = match applied {
                Ok(Ok(Outcome { slot, ended })) => {
                    let bot = ended.map(|bot| *bot).or_else(|| slot.bot().cloned());
                    bot.ok_or(WithdrawError::NotLive)
                }
                // Meanwhile the slot gave it back: the wish follows it.
                Ok(Err(Refused::Rejected(_)))
                    if matches!(act.owners.get(wish.bot_id), Some(Owner::Queue(_))) =>
                {
                    return act.leave(wish.into(), ctx);
                }
                Ok(Err(Refused::Rejected(_))) => Err(WithdrawError::NotLive),
                Ok(Err(Refused::Busy | Refused::Commit(_))) | Err(_) => Err(WithdrawError::Unknown),
            };
            let _ = wish.reply.send(answer);
        }));
    }

    // --- what there is -----------------------------------------------------------------------------------------

    fn snapshot(&self) -> PoolSnapshot {
        let drains = self.drains.keys().map(|drain| (drain.clone(), self.drain_line(drain)));
        PoolSnapshot {
            slots: self.index.counts(),
            bots: self.owners.count(),
            rebuilds: self.rebuilds,
            hosts: self.index.hosts().clone(),
            platforms: self.platform_lines(),
            max_size: self.settings.max_size,
            waiting: self.owners.waiting_by_platform(),
            drains: drains.collect(),
            closing: self.closing_line(),
        }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.links.clock.now()
    }
}

/// What the store says of a slot whose actor died.
struct Found {
    name: SlotName,
    /// `None`: it was never stored, or is gone.
    slot: Option<Slot>,
    /// Bots that the supervisor took to be in the slot, and that have ended or were given back.
    left: Vec<Bot>,
}

impl Found {
    /// Reads it, behind everything that the dead actor had submitted.
    async fn read(
        journal: Journal,
        name: SlotName,
        held: Vec<BotId>,
        wait: Duration,
    ) -> Result<Self, CommitError> {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let slot = journal.read_slot(name.clone()).await?;
        let mut left = Vec::new();
        for id in held {
            let has_left = |bot: &Bot| bot.state.is_final() || bot.state == BotState::Queued;
            left.extend(journal.read_bot(id).await?.filter(has_left));
        }
        Ok(Self { name, slot, left })
    }
}

/// How long the start of a slot's bot took, if this change says that its container runs.
fn started(before: Option<SlotStatus>, slot: &Slot) -> Option<TimeDelta> {
    let runs = matches!(slot.state, SlotState::Busy { step: BusyStep::Running { .. }, .. });
    let deployed_at = slot.bot().and_then(|bot| bot.deployed_at);
    deployed_at.filter(|_| runs && before == Some(SlotStatus::Deploying)).map(|at| slot.changed_at - at)
}

impl Actor for PoolSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for slot in std::mem::take(&mut self.stored) {
            self.build(slot.clone());
            // Before anybody can give it a bot.
            self.keep_up(&slot);
        }
        self.fetch_bot_ids(ctx);
    }
}

impl Handler<Connect> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: Connect, ctx: &mut Self::Context) {
        self.partners = Some(message);
        self.pump_all(ctx);
    }
}

impl Handler<CreateBot> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: CreateBot, ctx: &mut Self::Context) {
        self.create(message, ctx);
    }
}

impl Handler<HandOver> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: HandOver, ctx: &mut Self::Context) {
        self.take_scheduled(message, ctx);
    }
}

impl Handler<LeaveBot> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: LeaveBot, ctx: &mut Self::Context) {
        self.leave(message, ctx);
    }
}

impl Handler<SlotPublished> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: SlotPublished, ctx: &mut Self::Context) {
        self.slot_published(message, ctx);
    }
}

impl Handler<SlotDied> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: SlotDied, ctx: &mut Self::Context) {
        self.slot_died(message.name, ctx);
    }
}

impl Handler<ObserveLoad> for PoolSupervisor {
    type Result = MessageResult<ObserveLoad>;

    fn handle(&mut self, message: ObserveLoad, _: &mut Self::Context) -> Self::Result {
        let line = |(platform, limits)| {
            let waiting = self.owners.waiting(&platform);
            (platform, PlatformLoad::new(limits, waiting))
        };
        let platforms = self.platform_lines().into_iter().map(line).collect();
        let (slots, hosts) = (self.index.each(), self.index.hosts());
        let (max_size, named) = (self.settings.max_size, message.longest_unused);
        MessageResult(PoolLoad::of(platforms, slots, hosts, max_size, named))
    }
}

impl Handler<Observe> for PoolSupervisor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.snapshot())
    }
}

impl Handler<ListSlots> for PoolSupervisor {
    type Result = MessageResult<ListSlots>;

    fn handle(&mut self, _: ListSlots, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.index.lines())
    }
}
