//! What the PoolSupervisor is told and asked, and what it answers. Plain data.

use super::breaker::BreakerEvent;
use super::index::{HostLine, SlotLine};
use super::load::PoolLoad;
use super::{Drain, DrainLine, PoolSettings};
use crate::bot::{Bot, BotSpec, EndReason};
use crate::ids::{BotId, HostName, Platform, SlotName, UserId};
use crate::queue::actor::QueueActor;
use crate::queue::message::{QueuePlace, Withdraw, WithdrawError};
use crate::reconcile::actor::Reconciler;
use crate::recording::actor::RecordingActor;
use crate::schedule::actor::Scheduler;
use crate::slot::actor::Refused;
use crate::slot::machine::Notice;
use crate::slot::{Slot, SlotStatus};
use actix::prelude::*;
use chrono::TimeDelta;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;

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
    /// The platform takes no new bots: it is switched off, or being drained.
    #[error("platform {0} takes no new bots")]
    PlatformDisabled(Platform),
    /// The whole server is being emptied.
    #[error("this server is being emptied")]
    Closing,
    /// No slot is free and the request does not want to wait.
    #[error("no slot is free")]
    PoolFull,
    /// The bound on scheduled bots is reached.
    #[error("{0} bots are scheduled already")]
    ScheduleFull(u32),
    /// No slot is free and the queue has reached its bound.
    #[error("no slot is free and {0} bots are waiting already")]
    QueueFull(u32),
    /// A request with the same key is under way.
    #[error("a request with this idempotency key is under way")]
    KeyInFlight,
    /// The key was used before, or another constraint refused the bot.
    #[error("the request conflicts with what is stored: {0}")]
    Conflict(String),
    /// Nothing can be created now, and nothing was.
    #[error("nothing can be created now")]
    Unavailable,
    /// It was submitted, and what became of it is not known: the bot may be there.
    #[error("the outcome is not known")]
    OutcomeUnknown,
}

/// Gives away a scheduled bot whose time has come. Whoever takes it commits the move; until it hears of that, the
/// Scheduler has the bot.
#[derive(Message)]
#[rtype(result = "()")]
pub struct HandOver {
    /// The bot, SCHEDULED.
    pub bot: Box<Bot>,
    /// Where the outcome goes; an error means that the bot is SCHEDULED as before, unless the outcome is not known.
    pub reply: oneshot::Sender<Result<(), CreateError>>,
}

/// Asks a bot to leave, or takes it out of the queue or the schedule.
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

impl From<Withdraw> for LeaveBot {
    /// Whoever had the bot has it no more: the pool knows who has.
    fn from(Withdraw { bot_id, reason, reply }: Withdraw) -> Self {
        Self { bot_id, reason, reply }
    }
}

/// A slot was built, or committed a change.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SlotPublished {
    /// As committed.
    pub slot: Arc<Slot>,
    /// What else that means: bots that ended, or go back to the queue.
    pub notices: Vec<Notice>,
}

/// Something was heard of a host's engine, or not.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EngineHeard {
    /// Which host.
    pub host: HostName,
    /// What.
    pub heard: BreakerEvent,
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
    /// What came of it.
    pub outcome: OfferOutcome,
}

/// What came of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferOutcome {
    /// The slot has a bot now.
    Taken,
    /// The slot would not have it; the bot waits on, or has ended since.
    Declined,
    /// Nobody could be offered: those who wait are being stored, served, moved or ended.
    Nobody,
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
    /// Bots whose start is ahead.
    pub schedule: Addr<Scheduler>,
    /// Who lists hosts.
    pub reconciler: Addr<Reconciler>,
    /// How far ahead a start must be to wait there.
    pub schedule_lead: TimeDelta,
}

/// The pool in numbers; what it costs to say does not grow with the slots, nor with the bots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolSnapshot {
    /// Slots by platform and state.
    pub slots: BTreeMap<(Platform, SlotStatus), u32>,
    /// Live bots whose mailbox the pool knows: those in the queue and in slots.
    pub bots: usize,
    /// Slots' actors rebuilt so far.
    pub rebuilds: u64,
    /// What each host holds.
    pub hosts: BTreeMap<HostName, HostLine>,
    /// What each platform that is served may hold.
    pub platforms: BTreeMap<Platform, PlatformLine>,
    /// Slots that there may be over all platforms.
    pub max_size: u32,
    /// How many bots wait, by platform.
    pub waiting: BTreeMap<Platform, usize>,
    /// What is being emptied, and how far that is.
    pub drains: BTreeMap<Drain, DrainLine>,
    /// How far the drain of the whole server is, where one is under way.
    pub closing: Option<DrainLine>,
}

/// What a platform may hold, as the settings are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlatformLine {
    /// Slots of it.
    pub max_size: u32,
    /// Slots made ahead of need.
    pub prewarm: u32,
    /// It takes new bots: it is neither switched off nor being drained.
    pub open: bool,
}

/// Asks for a [`PoolSnapshot`].
#[derive(Message)]
#[rtype(result = "PoolSnapshot")]
pub struct Observe;

/// Asks for every slot, by name.
#[derive(Message)]
#[rtype(result = "Vec<SlotLine>")]
pub struct ListSlots;

/// Asks for a [`PoolLoad`], which is small whatever the size of the pool.
#[derive(Message)]
#[rtype(result = "PoolLoad")]
pub struct ObserveLoad {
    /// How many of each platform's free slots are named, the longest unused first.
    pub longest_unused: usize,
}

/// Replaces the settings while everything runs: raised caps serve those who wait, a new image is adopted by idle slots
/// at once and by busy ones when they are free, a platform switched off serves those it has. Lowered caps take nothing
/// away. Whether slots are ephemeral counts for those made from then on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Configure {
    /// All of them.
    pub settings: PoolSettings,
}

/// Makes a slot ahead of need: placed as any new slot is, its image pulled, then stored as idle.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Prewarm {
    /// For which platform.
    pub platform: Platform,
    /// Where the outcome goes, once the slot is stored.
    pub reply: oneshot::Sender<Result<SlotName, GrowError>>,
}

/// Why no slot was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrowError {
    /// A cap is reached, or no host has room.
    #[error("there is no room for another slot")]
    Full,
    /// The platform takes no new bots, or is not served.
    #[error("the platform takes no new bots")]
    Disabled,
    /// The image could not be made present; in the engine's words. There is no slot.
    #[error("the image is not there: {0}")]
    Pull(String),
    /// The outcome is not known, or nothing can be stored now.
    #[error("the slot could not be stored")]
    Unavailable,
}

/// Has a slot do something for an operator.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Operate {
    /// Which slot.
    pub slot: SlotName,
    /// What.
    pub action: SlotAction,
    /// Where the slot as it then is goes, once that is durable.
    pub reply: oneshot::Sender<Result<Arc<Slot>, OperateError>>,
}

/// What an operator may have a slot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotAction {
    /// Recover from an error now. Nothing that runs is touched: a slot with a bot refuses.
    Reset,
    /// Take no new bot, and be deleted when there is none: at once, if it is idle.
    Drain {
        /// After that a bot that is still there is asked to leave; `None`: it stays for as long as it likes.
        within: Option<TimeDelta>,
    },
    /// Take bots again.
    Undrain,
    /// Be deleted now; only an idle slot can.
    Retire,
    /// Be deleted though its container is not known gone, as its host is lost for good; only while its host does not
    /// answer or is not configured. What should still be there is a stray from then on, and removed as such.
    Forget,
    /// Stop its container and start another for the same bot; only while the bot is not in its meeting.
    Restart,
    /// End its bot as FATAL `internal`, and become free.
    End {
        /// Only this one; `None`: whichever it holds.
        bot: Option<BotId>,
    },
}

/// Why an operator's wish was not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperateError {
    /// There is no such slot, platform or host.
    #[error("there is no {0}")]
    Unknown(String),
    /// The slot's word.
    #[error(transparent)]
    Refused(Refused),
    /// Only what a host leaves behind that is lost can be forgotten, and this one answers.
    #[error("host {0} answers")]
    HostAnswers(HostName),
    /// The outcome is not known; ask again.
    #[error("the outcome is not known; ask again")]
    OutcomeUnknown,
}

/// Empties a platform, or ends that: it takes no new bots, its slots are deleted when they are free, and those who wait
/// are served by slots that go with their bot.
#[derive(Message)]
#[rtype(result = "()")]
pub struct DrainPlatform {
    /// Which.
    pub platform: Platform,
    /// `false`: take bots again; slots that were to go stay.
    pub draining: bool,
    /// After that bots that are still there are asked to leave, and those that wait are not served any more; `None`:
    /// they stay for as long as they like.
    pub within: Option<TimeDelta>,
    /// Where it is said how far that is, once the wish is durable.
    pub reply: DrainReply,
}

/// Empties a host, or ends that: it gets no new slots, and those it has are deleted when they are free.
#[derive(Message)]
#[rtype(result = "()")]
pub struct DrainHost {
    /// Which.
    pub host: HostName,
    /// `false`: get slots again; those that were to go stay.
    pub draining: bool,
    /// After that bots that are still there are asked to leave; `None`: they stay for as long as they like.
    pub within: Option<TimeDelta>,
    /// Where it is said how far that is, once the wish is durable.
    pub reply: DrainReply,
}

/// Where it goes how far a drain is.
pub type DrainReply = oneshot::Sender<Result<DrainLine, OperateError>>;

/// Empties the whole server, or ends that: new bots are refused, those that wait are left to the server after this one,
/// and none is given a slot. Not stored: a server that starts serves.
#[derive(Message)]
#[rtype(result = "()")]
pub struct DrainServer {
    /// `None`: serve again.
    pub order: Option<ServerDrain>,
    /// Where it goes how far that is.
    pub reply: oneshot::Sender<DrainLine>,
}

/// How the whole server is to be emptied.
pub struct ServerDrain {
    /// After that bots that are still there are asked to leave; `None`: they stay for as long as they like.
    pub within: Option<TimeDelta>,
    /// Told when no bot is left; dropped where the drain is ended or replaced.
    pub emptied: oneshot::Sender<()>,
}

/// Recovers all slots in error now.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Recover {
    /// Where the number of slots that were told goes.
    pub reply: oneshot::Sender<usize>,
}
