//! The pool's shell: knows every slot and every live bot's owner, gives new bots to a slot or to the queue, moves
//! the queue on whatever frees room, and rebuilds slots whose actors died. It never waits: it reserves in memory,
//! passes on, and hears of outcomes as messages.

use super::PoolSettings;
use super::message::{
    Connect, CreateBot, HandOver, LeaveBot, Observe, OfferEnded, Owner, PoolSnapshot, QueueMoved, SlotDied,
    SlotPublished,
};
use super::policy::{Candidate, Placement, place};
use crate::bot::Bot;
use crate::ids::{BotId, HostName, Platform, SlotName, UserId};
use crate::journal::CommitError;
use crate::journal::actor::Journal;
use crate::ports::SlotIds;
use crate::queue::actor::forward;
use crate::queue::message::{OfferNext, Withdraw, WithdrawError};
use crate::recording::actor::BotEnded;
use crate::schedule::actor::StartObserved;
use crate::slot::actor::{Discard, SlotActor, SlotLinks};
use crate::slot::handle::SlotHandle;
use crate::slot::{BusyStep, Slot, SlotState, SlotStatus};
use crate::supervision::{DeathGuard, tell};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Rebuilds of one slot within [`REBUILD_WINDOW`] before the next one waits that long.
const REBUILDS_MAX: usize = 5;
const REBUILD_WINDOW: Duration = Duration::from_secs(60);

struct Member {
    handle: Arc<SlotHandle>,
    addr: Addr<SlotActor>,
    platform: Platform,
    host: HostName,
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
    pub(super) settings: PoolSettings,
    slot_ids: Arc<dyn SlotIds>,
    pub(super) links: Option<SlotLinks>,
    make_links: Option<Box<dyn FnOnce(Addr<PoolSupervisor>) -> SlotLinks>>,
    stored: Vec<Slot>,
    pub(super) partners: Option<Connect>,
    members: BTreeMap<SlotName, Member>,
    pub(super) owners: BTreeMap<BotId, Owner>,
    offers: BTreeMap<Platform, usize>,
    pub(super) keys_in_flight: BTreeSet<(UserId, String)>,
    pub(super) bot_ids: Range<i64>,
    pub(super) fetching_ids: bool,
    /// Requests that wait for the next block of bot ids.
    pub(super) without_id: VecDeque<CreateBot>,
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

    // --- slots -------------------------------------------------------------------------------------------------

    /// Reserves a slot for one bot of the platform, growing the pool where that is allowed.
    pub(super) fn reserve(&mut self, platform: &Platform) -> Option<Arc<SlotHandle>> {
        let candidates = self.members.iter().map(|(name, member)| Candidate {
            name,
            platform: &member.platform,
            host: &member.host,
            image: &member.image,
            status: member.status,
            reserved: member.reserved,
            last_used_at: member.last_used_at,
        });
        let name = match place(platform, &self.settings, candidates) {
            Placement::Slot(name) => name,
            Placement::Grow { name, host } => {
                let image = self.settings.platforms.get(platform)?.image.clone();
                let (id, now) = (self.slot_ids.next(), self.now());
                self.build(Slot::vacant(name.clone(), id, platform.clone(), host, image, now));
                name
            }
            Placement::Full => return None,
        };
        let member = self.members.get_mut(&name)?;
        member.reserved = true;
        Some(Arc::clone(&member.handle))
    }

    pub(super) fn unreserve(&mut self, name: &SlotName) {
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
            host: slot.host.clone(),
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
            if let (Some(took), Some(partners)) = (started(member.status, &slot), &self.partners) {
                tell(&partners.schedule, StartObserved { platform: platform.clone(), took });
            }
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
        if let Some(links) = &self.links {
            links.live.bot(&bot);
        }
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
        let here = Owner::Slot(name.clone());
        let held = self.owners.iter().filter(|(_, owner)| **owner == here).map(|(bot, _)| *bot).collect();
        let found = Found::read(links.journal.clone(), name, held, wait);
        ctx.spawn(found.into_actor(self).map(|found, act, _| {
            if let Ok(found) = found {
                act.rebuild(found);
            }
        }));
    }

    fn rebuild(&mut self, found: Found) {
        // What the dead actor committed and could not say any more.
        for bot in found.ended {
            self.ended(bot);
        }
        match found.slot {
            Some(slot) => self.build(slot),
            None => {
                if let Some(member) = self.members.remove(&found.name) {
                    self.pump(&member.platform);
                }
            }
        }
    }

    // --- the queue ---------------------------------------------------------------------------------------------

    pub(super) fn waiting(&self, platform: &Platform) -> usize {
        self.owners.values().filter(|owner| matches!(owner, Owner::Queue(line) if line == platform)).count()
    }

    /// Offers free room to those who wait, as long as there are both.
    pub(super) fn pump(&mut self, platform: &Platform) {
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
            // The Scheduler knows its own bots; nobody else has to remember so many for so long.
            (None, Some(partners)) => tell(&partners.schedule, wish),
            _ => drop(wish.reply.send(Err(WithdrawError::NotLive))),
        }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.links.as_ref().map_or(DateTime::UNIX_EPOCH, |links| links.clock.now())
    }
}

/// What the store says of a slot whose actor died.
struct Found {
    name: SlotName,
    /// `None`: it was never stored, or is gone.
    slot: Option<Slot>,
    /// Bots that the supervisor took to be in the slot and that have ended.
    ended: Vec<Bot>,
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
        let mut ended = Vec::new();
        for id in held {
            ended.extend(journal.read_bot(id).await?.filter(|bot| bot.state.is_final()));
        }
        Ok(Self { name, slot, ended })
    }
}

/// How long the start of a slot's bot took, if this change says that its container runs.
fn started(before: Option<SlotStatus>, slot: &Slot) -> Option<TimeDelta> {
    let runs = matches!(slot.state, SlotState::Busy { step: BusyStep::Running { .. }, .. });
    let deployed_at = slot.bot().and_then(|bot| bot.deployed_at);
    deployed_at.filter(|_| runs && before == Some(SlotStatus::Deploying)).map(|at| slot.changed_at - at)
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

impl Handler<HandOver> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: HandOver, ctx: &mut Self::Context) {
        self.take_scheduled(message, ctx);
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
