//! One slot's shell: takes an event, asks the machine, commits, acts, publishes. It waits for its own commit and
//! holds further events meanwhile; results of effects come back as events.

use super::effects::{Effect, effects_of};
use super::event::SlotEvent;
use super::handle::{Directory, SlotHandle};
use super::machine::{Notice, Rejection, transition};
use super::recovery::recovery;
use super::{BusyStep, Slot, SlotState, SlotTiming};
use crate::bot::Bot;
use crate::ids::{BotId, Generation, Operation};
use crate::image_pull::actor::ImagePullActor;
use crate::journal::CommitError;
use crate::journal::actor::Journal;
use crate::live::Live;
use crate::pool::actor::PoolSupervisor;
use crate::pool::hosts::AwayHosts;
use crate::pool::limits::PlatformLimits;
use crate::pool::message::SlotPublished;
use crate::ports::{Clock, Driver, Lead, Machine, Measure, Meter, Presence, SLEEP_MAX};
use crate::supervision::{DeathGuard, tell};
use actix::prelude::*;
use chrono::{DateTime, Utc};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Events held while a commit is under way; past that, reporters are told to come again.
const HELD_MAX: usize = 64;
/// Time between two looks at the bot's silence.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(5);

/// Something happened to the slot.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Happened {
    /// What.
    pub event: SlotEvent,
    /// Who waits for the outcome.
    pub reply: Option<Reply>,
}

/// Where an event's outcome goes: what was committed, or why nothing changed.
pub type Reply = oneshot::Sender<Result<Outcome, Refused>>;

/// What an event led to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The slot as committed.
    pub slot: Arc<Slot>,
    /// The bot that ended with it; the slot may be free of it already.
    pub ended: Option<Box<Bot>>,
}

/// Why an event was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The machine's word.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Too much waits for the slot's commit.
    #[error("the slot is busy committing; try again")]
    Busy,
    /// The store's word.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What every slot's shell is connected to.
#[derive(Clone)]
pub struct SlotLinks {
    /// The writer.
    pub journal: Journal,
    /// The engine.
    pub driver: Arc<dyn Driver>,
    /// Pulls.
    pub pulls: Addr<ImagePullActor>,
    /// The supervisor.
    pub pool: Addr<PoolSupervisor>,
    /// The dashboard's state.
    pub live: Live,
    /// The index by bot.
    pub directory: Arc<Directory>,
    /// The hosts whose engines are away.
    pub away: Arc<AwayHosts>,
    /// What containers may use.
    pub limits: Arc<PlatformLimits>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The lead.
    pub lead: Arc<dyn Lead>,
    /// Who counts.
    pub meter: Arc<dyn Meter>,
    /// Durations.
    pub timing: SlotTiming,
    /// The log.
    pub log: slog::Logger,
}

/// See the module.
pub struct SlotActor {
    /// As it was last committed; whoever is told of it shares it.
    pub(super) slot: Arc<Slot>,
    pub(super) links: Arc<SlotLinks>,
    handle: Arc<SlotHandle>,
    /// A commit or a reload is under way.
    committing: bool,
    held: VecDeque<Happened>,
    pub(super) watch: Option<(Generation, SpawnHandle)>,
    /// The wait for an image, or for a container ahead, which ends with the need for it.
    pub(super) awaited: Option<(Operation, SpawnHandle)>,
    wake: Option<SpawnHandle>,
    /// Silence counts from here at the earliest: a restarted or sleeping server gives everyone a full grace.
    grace_from: DateTime<Utc>,
    last_look: DateTime<Utc>,
    inspecting: bool,
    /// The bot that this slot was made for, rather than ahead of need or for one before.
    made_for: Option<BotId>,
    /// The pool knows this slot no more, and it was never stored.
    discarded: bool,
    guard: DeathGuard,
}

impl SlotActor {
    /// The shell of a slot in its committed state.
    pub fn new(slot: Arc<Slot>, handle: Arc<SlotHandle>, links: Arc<SlotLinks>, guard: DeathGuard) -> Self {
        let now = links.clock.now();
        Self {
            slot,
            links,
            handle,
            committing: false,
            held: VecDeque::new(),
            watch: None,
            awaited: None,
            wake: None,
            grace_from: now,
            last_look: now,
            inspecting: false,
            made_for: None,
            discarded: false,
            guard,
        }
    }

    pub(super) fn take(&mut self, happened: Happened, ctx: &mut Context<Self>) {
        if self.committing {
            return self.hold(happened);
        }
        let Happened { event, reply } = happened;
        let (name, now) = (event.name(), self.links.clock.now());
        if self.is_contradicted(&event, now) {
            return answer(reply, Ok(Outcome { slot: Arc::clone(&self.slot), ended: None }));
        }
        let decided = transition(&self.slot, event, &self.links.timing, now);
        let transition = match decided {
            Ok(transition) => transition,
            Err(rejection) => {
                if let Rejection::Stale { event } = rejection {
                    self.links.meter.record(Measure::StaleEvent { event });
                }
                slog::debug!(self.links.log, "event refused";
                    "slot" => %self.slot.name, "event" => name, "reason" => %rejection);
                return answer(reply, Err(rejection.into()));
            }
        };
        if transition.changes.is_empty() {
            return answer(reply, Ok(Outcome { slot: Arc::new(transition.next), ended: None }));
        }
        self.committing = true;
        let commit = self.links.journal.submit(transition.changes);
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, ctx| match outcome {
            Ok(()) => {
                let ended = ended_bot(&transition.notices).filter(|_| reply.is_some());
                act.commit_known(transition.next, transition.notices, name, ctx);
                answer(reply, Ok(Outcome { slot: Arc::clone(&act.slot), ended }));
                act.resume(ctx);
            }
            Err(CommitError::Deposed) => answer(reply, Err(CommitError::Deposed.into())),
            Err(conflict) => {
                slog::warn!(act.links.log, "decision refused by the store; reloading";
                    "slot" => %act.slot.name, "event" => name, "reason" => %conflict);
                answer(reply, Err(conflict.into()));
                act.reload(ctx);
            }
        }));
    }

    /// Keeps an event for after the commit. Effects' results are never refused; reporters are, past the bound.
    fn hold(&mut self, happened: Happened) {
        if self.held.len() >= HELD_MAX && happened.reply.is_some() {
            return answer(happened.reply, Err(Refused::Busy));
        }
        self.held.push_back(happened);
    }

    fn resume(&mut self, ctx: &mut Context<Self>) {
        self.committing = false;
        while !self.committing
            && let Some(happened) = self.held.pop_front()
        {
            self.take(happened, ctx);
        }
    }

    fn commit_known(
        &mut self,
        next: Slot,
        notices: Vec<Notice>,
        event: &'static str,
        ctx: &mut Context<Self>,
    ) {
        let before = effects_of(&self.slot);
        slog::debug!(self.links.log, "slot moved"; "slot" => %next.name, "event" => event,
            "generation" => next.generation.0, "from" => self.slot.step(), "to" => next.step(),
            "bot" => next.bot().map(|bot| bot.id.0));
        self.measure(&next, event);
        let (held, holds) = (self.slot.bot().map(|bot| bot.id), next.bot().map(|bot| bot.id));
        if !is_running(&self.slot) && is_running(&next) {
            self.grace_from = self.links.clock.now();
        }
        self.slot = Arc::new(next);
        self.handle.publish(Arc::clone(&self.slot));
        self.links.directory.moved(&self.handle, held, holds);
        self.issue(&before, ctx);
        self.publish(notices);
        if matches!(self.slot.state, SlotState::Retired) {
            self.guard.disarm();
            ctx.stop();
        }
    }

    /// Counts what the change to `next` means.
    fn measure(&mut self, next: &Slot, event: &'static str) {
        if self.slot.version == 0 {
            self.made_for = next.bot().map(|bot| bot.id);
        }
        let (machine, from, to) = (Machine::Slot, self.slot.step(), next.step());
        self.links.meter.record(Measure::Moved { machine, from, event, to });
        let platform = &next.platform;
        if matches!(self.slot.state, SlotState::Deploying { .. })
            && is_running(next)
            && let Some(deployed_at) = next.bot().and_then(|bot| bot.deployed_at)
        {
            let took = (next.changed_at - deployed_at).to_std().unwrap_or_default();
            let slot_is_new = self.made_for.is_some() && self.made_for == next.bot().map(|bot| bot.id);
            self.links.meter.record(Measure::Deployed { platform, slot_is_new, took });
        }
        if let Some(given_up) = recovery(&self.slot.state, &next.state, &self.links.timing) {
            self.links.meter.record(Measure::SlotRecovered { platform, given_up });
        }
    }

    fn publish(&self, notices: Vec<Notice>) {
        self.links.live.slot(&self.slot);
        if let Some(bot) = self.slot.bot() {
            self.links.live.bot(bot);
        }
        for Notice::BotEnded(bot) | Notice::BotReturned { bot, .. } in &notices {
            self.links.live.bot(bot);
        }
        tell(&self.links.pool, SlotPublished { slot: Arc::clone(&self.slot), notices });
    }

    /// Issues what the present state needs and the one before did not.
    fn issue(&mut self, before: &[Effect], ctx: &mut Context<Self>) {
        let now_needed = effects_of(&self.slot);
        if let Some((generation, watch)) = self.watch.take_if(|(generation, _)| {
            !now_needed.contains(&Effect::WatchContainer { generation: *generation })
        }) {
            slog::trace!(self.links.log, "watch ends"; "slot" => %self.slot.name, "generation" => generation.0);
            ctx.cancel_future(watch);
        }
        let is_needed = |operation| {
            let awaits = |effect: &Effect| match effect {
                Effect::PullImage { operation: of, .. } | Effect::PrepareContainer { operation: of, .. } => {
                    *of == operation
                }
                _ => false,
            };
            now_needed.iter().any(awaits)
        };
        if let Some((_, awaited)) = self.awaited.take_if(|(operation, _)| !is_needed(*operation)) {
            ctx.cancel_future(awaited);
        }
        if let Some(wake) = self.wake.take() {
            ctx.cancel_future(wake);
        }
        for effect in now_needed {
            match effect {
                Effect::WakeAt(at) => self.wake_at(at, ctx),
                effect if before.contains(&effect) => {}
                Effect::PullImage { image, operation } => self.pull_image(image, operation, ctx),
                Effect::PrepareContainer { generation: _, operation, limits } => {
                    self.prepare_container(operation, limits, ctx)
                }
                Effect::StartContainer { generation: _, operation, bot_id } => {
                    self.start_container(operation, bot_id, ctx)
                }
                Effect::WatchContainer { generation } => self.watch(generation, ctx),
                Effect::StopContainer { generation: _, operation, container } => {
                    self.stop_container(operation, container, ctx)
                }
            }
        }
    }

    fn wake_at(&mut self, at: DateTime<Utc>, ctx: &mut Context<Self>) {
        let wait = (at - self.links.clock.now()).to_std().unwrap_or(Duration::ZERO);
        self.sleep(wait.min(SLEEP_MAX), at, ctx);
    }

    /// Looks after this wait whether it is time.
    fn sleep(&mut self, wait: Duration, at: DateTime<Utc>, ctx: &mut Context<Self>) {
        self.wake = Some(ctx.run_later(wait, move |act, ctx| {
            act.wake = None;
            // Recovery pauses while the engine is away, and so does what is made ahead of need. The pool says when it is
            // back; should the clock have been set back meanwhile, that comes too early, and this one does not.
            let can_wait = matches!(act.slot.state, SlotState::Error { .. } | SlotState::Idle { .. });
            if can_wait && act.links.away.contains(&act.slot.host) {
                return act.sleep(SLEEP_MAX, at, ctx);
            }
            // The machine is asked all the same: it knows a time that is far off only because the clock was set back.
            if act.links.clock.now() < at {
                act.wake_at(at, ctx);
            }
            let generation = act.slot.generation;
            // A segment of an earlier generation is too old to change anything.
            let leaving = matches!(act.slot.state, SlotState::Busy { step: BusyStep::Leaving { .. }, .. });
            if act.slept(act.links.clock.now()) {
                act.grant_upload();
            }
            let event = match act.handle.segment_at().filter(|_| leaving) {
                Some(at) => SlotEvent::SegmentArrived { generation, at },
                None => SlotEvent::Woke,
            };
            act.take(Happened { event, reply: None }, ctx);
        }));
    }

    /// What a bot that is leaving sent meanwhile may not have been heard: its upload has its time from now.
    fn grant_upload(&self) {
        if matches!(self.slot.state, SlotState::Busy { step: BusyStep::Leaving { .. }, .. }) {
            self.handle.segment_arrives(self.links.clock.now());
        }
    }

    /// After a conflict the row is the truth: read it behind everything submitted. Where it is not what this actor
    /// holds, the actor ends, and the supervisor builds one from the row.
    fn reload(&mut self, ctx: &mut Context<Self>) {
        let read = self.links.journal.read_slot(self.slot.name.clone());
        ctx.spawn(read.into_actor(self).map(|row, act, ctx| {
            let same = match row {
                Ok(Some(row)) => row == *act.slot,
                Ok(None) => act.slot.version == 0,
                Err(_) => false,
            };
            if same && act.discarded {
                act.discard(ctx);
            } else if same {
                act.publish(vec![]);
                act.resume(ctx);
            } else {
                ctx.stop();
            }
        }));
    }

    /// Ends without a trace.
    fn discard(&mut self, ctx: &mut Context<Self>) {
        self.guard.disarm();
        ctx.stop();
    }

    /// For how long the bot was not heard of, with every grace counted in.
    fn silence(&self, now: DateTime<Utc>) -> Duration {
        let heard = self.handle.heard_at().map_or(self.grace_from, |at| at.max(self.grace_from));
        (now - heard).to_std().unwrap_or(Duration::ZERO)
    }

    /// Whether a look says that the container of a bot is gone that was heard of lately, or may have spoken while this
    /// server slept: listings leave containers out now and then. Once the bot is silent the engine is asked for this very
    /// container.
    fn is_contradicted(&self, event: &SlotEvent, now: DateTime<Utc>) -> bool {
        matches!(event, SlotEvent::Observed { presence: Presence::Gone, .. })
            && is_running(&self.slot)
            && (self.slept(now) || self.silence(now) < self.links.timing.heartbeat_suspect)
    }

    /// Whether it is so long since the last look for life that what was said meanwhile may not have been heard.
    fn slept(&self, now: DateTime<Utc>) -> bool {
        now - self.last_look > chrono::TimeDelta::from_std(LIVENESS_INTERVAL * 3).unwrap_or_default()
    }

    /// Judges the bot's silence: past the first limit the engine is asked, past the second the bot is lost.
    fn look_for_life(&mut self, ctx: &mut Context<Self>) {
        let now = self.links.clock.now();
        let slept = self.slept(now);
        if now < self.last_look {
            // Words that came before the clock was set back would count for as long as it was set back.
            self.handle.forget_future(now);
            self.grace_from = now;
        }
        self.last_look = now;
        // Whoever slept, or may lead no more, has not heard what there was to hear.
        if slept || !self.links.lead.holds() {
            self.grace_from = now;
        }
        if !is_running(&self.slot) {
            return;
        }
        let silent = self.silence(now);
        let generation = self.slot.generation;
        if silent >= self.links.timing.heartbeat_lost {
            let event = SlotEvent::HeartbeatLost { generation, silent };
            self.take(Happened { event, reply: None }, ctx);
        } else if silent >= self.links.timing.heartbeat_suspect && !self.inspecting {
            self.inspecting = true;
            let (host, key) = (self.slot.host.clone(), self.slot.container_key());
            let driver = Arc::clone(&self.links.driver);
            let inspect = async move { driver.inspect(&host, key).await };
            ctx.spawn(inspect.into_actor(self).map(move |seen, act, ctx| {
                act.inspecting = false;
                if let Ok(presence) = seen {
                    let event = SlotEvent::Observed { generation, presence, began_at: now };
                    act.take(Happened { event, reply: None }, ctx);
                }
            }));
        }
    }
}

fn is_running(slot: &Slot) -> bool {
    matches!(slot.state, SlotState::Busy { step: BusyStep::Running { .. } | BusyStep::Leaving { .. }, .. })
}

fn ended_bot(notices: &[Notice]) -> Option<Box<Bot>> {
    notices.iter().find_map(|notice| match notice {
        Notice::BotEnded(bot) => Some(bot.clone()),
        Notice::BotReturned { .. } => None,
    })
}

fn answer(reply: Option<Reply>, outcome: Result<Outcome, Refused>) {
    if let Some(reply) = reply {
        // Whoever asked may have given up; the outcome stands in the store.
        let _ = reply.send(outcome);
    }
}

impl Actor for SlotActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.grant_upload();
        self.issue(&[], ctx);
        // The actor before this one may have died between the commit of an end and its news.
        let ended = self.slot.bot().filter(|bot| bot.state.is_final());
        self.publish(ended.map(|bot| Notice::BotEnded(Box::new(bot.clone()))).into_iter().collect());
        ctx.run_interval(LIVENESS_INTERVAL, Self::look_for_life);
    }
}

impl Handler<Happened> for SlotActor {
    type Result = ();

    fn handle(&mut self, happened: Happened, ctx: &mut Self::Context) {
        self.take(happened, ctx);
    }
}

/// A slot's shell as it is: what its row does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShellSnapshot {
    /// A commit or a reload is under way.
    pub committing: bool,
    /// Events that wait for that.
    pub held: usize,
    /// Its container's end is being waited for.
    pub watching: bool,
    /// When its bot was last heard of.
    pub heard_at: Option<DateTime<Utc>>,
}

/// Asks for a [`ShellSnapshot`].
#[derive(Message)]
#[rtype(result = "ShellSnapshot")]
pub struct Observe;

impl Handler<Observe> for SlotActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(ShellSnapshot {
            committing: self.committing,
            held: self.held.len(),
            watching: self.watch.is_some(),
            heard_at: self.handle.heard_at(),
        })
    }
}

/// Ends an actor whose slot was never stored.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Discard;

impl Handler<Discard> for SlotActor {
    type Result = ();

    fn handle(&mut self, _: Discard, ctx: &mut Self::Context) {
        match self.slot.version {
            // Its commit failed, and its row, if there is one, is being read.
            0 if self.committing => self.discarded = true,
            0 => self.discard(ctx),
            _ => {}
        }
    }
}

/// Panics in the actor's handler, as a bug would.
#[cfg(any(test, feature = "testing"))]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;

#[cfg(any(test, feature = "testing"))]
impl Handler<Panic> for SlotActor {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        // Without the hook: an injected panic is no news.
        std::panic::resume_unwind(Box::new("injected panic"));
    }
}
