//! What the domain needs of the world: a store, an engine that runs containers, a place for recordings, a clock.
//! Traits and their data only; the implementations are the server's, the lying ones are in `testing`.

use crate::bot::{Bot, Outcome};
use crate::ids::{
    BotId, ContainerId, ContainerKey, Generation, HostName, Operation, Platform, SlotId, SlotName,
};
use crate::journal::Decision;
use crate::maintenance::MaintenanceRow;
use crate::pool::Drain;
use crate::queue::QueueEntry;
use crate::recording::{Joined, Recording};
use crate::slot::Slot;
use crate::slot::drains::Deadline;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The longest sleep of a timer that waits for a moment of the [`Clock`], which may be set, or the machine suspended,
/// meanwhile.
pub(crate) const SLEEP_MAX: Duration = Duration::from_secs(60);

/// The time. Virtual in tests.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> DateTime<Utc>;
}

/// Whether this process may act on what it has decided: it leads, as far as anybody can know.
#[async_trait]
pub trait Lead: Send + Sync + 'static {
    /// Whether it may act now.
    fn holds(&self) -> bool;
    /// Comes back when it may.
    async fn proven(&self);
}

/// What has states and goes from one to another by rules that know no world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// A slot, with its bot.
    Slot,
    /// An image on a host.
    Pull,
    /// The breaker of a host.
    Breaker,
}

/// Something that happened and is worth counting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure<'a> {
    /// A bot left the queue for a slot.
    QueueWaited {
        /// Its platform.
        platform: &'a Platform,
        /// Since it joined.
        wait: Duration,
    },
    /// There is the first sign that a bot's container runs.
    Deployed {
        /// Its platform.
        platform: &'a Platform,
        /// Whether the slot was made for it.
        slot_is_new: bool,
        /// Since the slot got the bot.
        took: Duration,
    },
    /// A bot ended.
    BotEnded {
        /// Its platform.
        platform: &'a Platform,
        /// How.
        outcome: Outcome,
    },
    /// A slot left its error, as nothing of its container is left.
    SlotRecovered {
        /// Its platform.
        platform: &'a Platform,
        /// Whether it was deleted rather than freed.
        given_up: bool,
    },
    /// A slot's actor died and was built again.
    SlotRebuilt,
    /// A state machine took an event that changed it or had something done; a slot's change is committed.
    Moved {
        /// Which machine.
        machine: Machine,
        /// The step that it was at.
        from: &'static str,
        /// What happened.
        event: &'static str,
        /// The step that it is at.
        to: &'static str,
    },
    /// A host's breaker opened or closed.
    BreakerTurned {
        /// Which host.
        host: &'a HostName,
        /// Whether the host is left alone now.
        open: bool,
    },
    /// An event belonged to the past of its slot.
    StaleEvent {
        /// Its name.
        event: &'static str,
    },
    /// The outcome of a transaction of the Journal is known.
    BatchCommitted {
        /// Decisions in it.
        decisions: usize,
        /// How long that took.
        took: Duration,
    },
    /// The engine was asked for something.
    DriverCalled {
        /// What.
        call: &'static str,
        /// What came of it.
        outcome: CallOutcome,
        /// How long that took.
        took: Duration,
    },
    /// A message was handled.
    MailboxWaited {
        /// By whom.
        actor: &'static str,
        /// How long it had waited.
        wait: Duration,
    },
}

/// What came of a call to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// It did what was asked.
    Done,
    /// It answered that it did not.
    Refused,
    /// It did not answer, or not before whoever asked gave up.
    Unanswered,
}

impl CallOutcome {
    /// The name as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Counts what happens, for those who watch. Waits for nobody, and decides nothing.
pub trait Meter: Send + Sync + 'static {
    /// Counts.
    fn record(&self, measure: Measure<'_>);
}

/// Counts nothing, where nobody watches.
pub struct Unmetered;

impl Meter for Unmetered {
    fn record(&self, _: Measure<'_>) {}
}

/// Numbers the batches of one leadership, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchNo(pub i64);

/// Why the store did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A version, a constraint or a value was refused; nothing was written.
    #[error("the store refused: {0}")]
    Refused(String),
    /// No answer; what was sent may or may not have been written.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// Another process leads now.
    #[error("another server leads")]
    Deposed,
}

/// Everything that the actors are built from at start.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// All slots, with the bots in them.
    pub slots: Vec<Slot>,
    /// Waiting bots, with their places.
    pub queue: Vec<(QueueEntry, Bot)>,
    /// Bots that wait for their start.
    pub scheduled: Vec<Bot>,
    /// Recordings that are not ready or failed yet, with their bots.
    pub recordings: Vec<(Recording, Bot)>,
    /// What is being emptied, and by when.
    pub drains: BTreeMap<Drain, Deadline>,
    /// What is remembered of maintenance; `None`: nothing yet.
    pub maintenance: Option<MaintenanceRow>,
}

/// The durable rows, through the one connection that leads.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes all decisions in one transaction under this number; one that was committed before under the same
    /// number is not written again. What is written is there for whoever reads, in the order of the calls, and nobody
    /// may be told of it before it is flushed: a database that crashes may lose it, and what came behind it.
    async fn commit(&self, batch: BatchNo, decisions: &[Decision]) -> Result<(), StoreError>;
    /// Comes back when a batch that was committed can no longer be lost. Unavailable: it may be lost already, and is to
    /// be looked up.
    async fn flush(&self, batch: BatchNo) -> Result<(), StoreError>;
    /// Whether the batch of this number is committed. Where it is, it can be flushed.
    async fn was_committed(&self, batch: BatchNo) -> Result<bool, StoreError>;
    /// Reads what the actors are built from.
    async fn load(&self) -> Result<Rows, StoreError>;
    /// Reads one slot and the bot in it.
    async fn read_slot(&self, name: &SlotName) -> Result<Option<Slot>, StoreError>;
    /// Reads one bot.
    async fn read_bot(&self, id: BotId) -> Result<Option<Bot>, StoreError>;
    /// Reads the recording of a bot.
    async fn read_recording(&self, id: BotId) -> Result<Option<Recording>, StoreError>;
    /// Takes `count` numbers that nobody else will get.
    async fn reserve_bot_ids(&self, count: u32) -> Result<Range<i64>, StoreError>;
}

/// Why an engine did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DriverError {
    /// What failed, on what, in the engine's own words.
    pub message: String,
    /// Whether the engine answered at all; where it did not, the outcome is unknown.
    pub answered: bool,
    /// Whether another try may help.
    pub retryable: bool,
}

/// How far a pull is. Units are the engine's: bytes where it counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Done so far.
    pub done: u64,
    /// In all, as far as is known yet; 0: not known.
    pub total: u64,
}

/// What a container may use; `None`: as much as its engine gives. A driver says in its documentation which of these it
/// can honour, and whoever starts it says so too where one is set that it cannot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Memory, in MiB.
    pub memory_mib: Option<u32>,
    /// Shared memory, in MiB: browsers need more than engines give by themselves.
    pub shm_mib: Option<u32>,
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRequest {
    /// Where.
    pub host: HostName,
    /// Which container.
    pub key: ContainerKey,
    /// The slot's name, for people who look at the engine.
    pub slot_name: SlotName,
    /// The image.
    pub image: String,
    /// What it may use.
    pub limits: ResourceLimits,
    /// The operation; a later one supersedes it.
    pub operation: Operation,
    /// The bot it will run, for people and logs.
    pub bot_id: BotId,
    /// The slot's platform.
    pub platform: Platform,
    /// The slot is deleted with its bot.
    pub ephemeral: bool,
}

/// What to prepare: a container that has everything but a bot, and does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrepareRequest {
    /// Where.
    pub host: HostName,
    /// Which container: of the generation that the slot's next bot will get.
    pub key: ContainerKey,
    /// The slot's name, for people who look at the engine.
    pub slot_name: SlotName,
    /// The image, which is on the host.
    pub image: String,
    /// What it may use.
    pub limits: ResourceLimits,
    /// The operation; a later one supersedes it.
    pub operation: Operation,
}

/// What to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopRequest {
    /// Where.
    pub host: HostName,
    /// Which container.
    pub key: ContainerKey,
    /// Its id, where it was learnt.
    pub container: Option<ContainerId>,
    /// The operation; a later one supersedes it.
    pub operation: Operation,
    /// How long it may take to end by itself.
    pub grace: Duration,
}

/// Whether a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// It runs.
    Running,
    /// It is there, and was never started.
    Prepared,
    /// It does not run, and never will again.
    Gone,
}

/// A container that an engine lists as this installation's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedContainer {
    /// Which slot and generation it says it is.
    pub key: ContainerKey,
    /// Its id.
    pub container: ContainerId,
    /// Whether it runs; gone: it has ended, and there is something left of it to remove.
    pub presence: Presence,
}

/// Something that an engine says by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineEvent {
    /// A container runs, which did not before.
    Appeared(ContainerKey),
    /// A container is gone, and nothing of it is left.
    Vanished(ContainerKey),
}

/// An engine that runs containers. Every call is idempotent and has a deadline of its own.
///
/// A generation of a slot has one container, whoever makes it and however often it is asked for: `prepare` and `start`
/// know it by its key, also where they meet. After `stop` of a generation was acknowledged, no `start` and no `prepare`
/// of that generation with an earlier operation makes or runs anything any more. One with a later operation may: the
/// slot had removed what was prepared, and nobody's container had run. An engine that prepares nothing never sees such
/// a one, and may fence the generation as a whole.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// Makes the image present on the host, and says how far it is. Takes as long as there is progress: it has no
    /// deadline of its own but for silence.
    async fn pull(
        &self,
        host: &HostName,
        image: &str,
        progress: watch::Sender<PullProgress>,
    ) -> Result<Pulled, DriverError>;
    /// Whether containers on this host can be prepared. A fact about the engine that is known without asking it: where
    /// it cannot, nothing is decided about preparations at all.
    fn prepares(&self, host: &HostName) -> bool {
        let _ = host;
        false
    }
    /// Makes the container of a generation, and does not run it: it contains nothing of a bot, and waits for the `start`
    /// of that generation. Where it is already there, or runs, answers with it. Whoever starts a container waits for it:
    /// an engine that does only so much at a time does that first.
    async fn prepare(&self, request: PrepareRequest) -> Result<ContainerId, DriverError> {
        Err(DriverError {
            message: format!("nothing can be prepared on host {}", request.host),
            answered: true,
            retryable: false,
        })
    }
    /// Starts the container of a generation: the one that was prepared, or one that it makes. Where it already runs,
    /// answers with it.
    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError>;
    /// About how long a bot's start has to wait yet until it begins, where the engine does only so many at a time; known
    /// without asking it. `None`: it does not wait.
    fn start_wait(&self, _bot: BotId) -> Option<Duration> {
        None
    }
    /// Comes back when the container is gone, with what is known of why.
    async fn wait_exit(&self, host: &HostName, key: ContainerKey) -> Result<String, DriverError>;
    /// Stops the container and removes what is left of it; `Ok` means known gone.
    async fn stop(&self, request: StopRequest) -> Result<(), DriverError>;
    /// Looks at one container.
    async fn inspect(&self, host: &HostName, key: ContainerKey) -> Result<Presence, DriverError>;
    /// Lists this installation's containers on a host, all or an error: those that run, those that are prepared, and
    /// those that ended where something is left of them.
    async fn list(&self, host: &HostName) -> Result<Vec<ListedContainer>, DriverError>;
    /// What an image's reference means now to whoever pulls it to the host; `None`: nothing.
    async fn resolve(&self, host: &HostName, image: &str) -> Result<Option<ImageDigest>, DriverError>;
    /// The last lines that a container printed, at most so many, the latest at the end; of one that is gone, as long as
    /// they are kept. Nothing is known of it: no lines.
    async fn logs(&self, host: &HostName, key: ContainerKey, lines: u32) -> Result<Vec<String>, DriverError>;
    /// Removes what containers that do not run left on the host before then, their logs and work folders, but for those
    /// that are wanted and those that hold pieces of a recording; answers with how many.
    async fn sweep(
        &self,
        host: &HostName,
        wanted: &BTreeSet<ContainerKey>,
        before: DateTime<Utc>,
    ) -> Result<u32, DriverError>;
    /// Tells of what happens to this installation's containers on a host as it happens. Comes back when it can tell no
    /// more: what happened since may have been missed, and only a listing says. An engine that says nothing by itself
    /// never comes back. Where `events` is full the event is dropped, and that too is an end.
    async fn watch(&self, host: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        let _ = (host, events);
        std::future::pending().await
    }
}

/// What a pull came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// What is made of the image from now on is made of what its reference means.
    Current,
    /// It could not be pulled; it is on the host as it was, and can be used.
    Kept {
        /// Why, in the engine's words.
        reason: String,
    },
}

/// What an image's reference means, in the engine's own words: where it is equal, so is the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageDigest(pub String);

/// What a bot recorded and did not live to upload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spool {
    /// Whose container recorded it.
    pub key: ContainerKey,
    /// The bot that was in it.
    pub bot_id: BotId,
}

/// Why something could not be done about a spool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpoolError(pub String);

/// The spools on the hosts that this server itself can read.
#[async_trait]
pub trait Spools: Send + Sync + 'static {
    /// Those of containers that do not run.
    async fn find(&self) -> Result<Vec<Spool>, SpoolError>;
    /// Puts all finished pieces of a spool to where the bot would have, and takes them out of it; answers with how many.
    /// What was done before a failure need not be done again.
    async fn deliver(&self, spool: &Spool) -> Result<u32, SpoolError>;
    /// Throws the pieces away: nobody can ever use them.
    async fn discard(&self, spool: &Spool) -> Result<(), SpoolError>;
}

/// How full a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What it is used for.
    pub name: String,
    /// Bytes that this process may still write.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

impl Disk {
    /// How much of it is free; one that says nothing of its size counts as empty.
    pub fn free_percent(&self) -> f64 {
        // Percent: what is lost in the conversion is beyond anybody's interest.
        if self.total_bytes == 0 { 100.0 } else { 100.0 * self.free_bytes as f64 / self.total_bytes as f64 }
    }
}

/// The disks that this server and its bots write to.
#[async_trait]
pub trait Disks: Send + Sync + 'static {
    /// Looks at each, and answers within seconds; one that cannot be looked at, or has not answered the look before this,
    /// is left out.
    async fn look(&self) -> Vec<Disk>;
}

/// A bot that ended some time ago, for retention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedBot {
    /// Which.
    pub id: BotId,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
    /// Its recording, if there still is one.
    pub recording: Option<Recording>,
}

/// The number of a line of a bot's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId(pub i64);

/// Why the archive has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rows of ended bots cannot be read: {0}")]
pub struct ArchiveError(pub String);

/// Reads of what nobody owns any more: rows of ended bots. They disturb no commit.
#[async_trait]
pub trait Archive: Send + Sync + 'static {
    /// Bots that ended by `until`, those that ended first at first, behind `after`; none that a slot still holds.
    async fn ended_bots(
        &self,
        until: DateTime<Utc>,
        after: Option<(DateTime<Utc>, BotId)>,
        max: u32,
    ) -> Result<Vec<EndedBot>, ArchiveError>;
    /// Lines of these bots' histories, at most so many.
    async fn events_of(&self, bots: &[BotId], max: u32) -> Result<Vec<EventId>, ArchiveError>;
}

/// Why a recording could not be joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ArtifactsError {
    /// What failed, on what.
    pub message: String,
    /// Whether another try may help.
    pub retryable: bool,
}

/// Where segments and recordings are kept.
#[async_trait]
pub trait Artifacts: Send + Sync + 'static {
    /// How many segments of a bot's generation have arrived.
    async fn count_segments(&self, bot: BotId, generation: Generation) -> Result<u32, ArtifactsError>;
    /// Joins the segments into one playable object at `key`; `None` where there is nothing to join.
    async fn join(
        &self,
        bot: BotId,
        generation: Generation,
        key: &str,
    ) -> Result<Option<Joined>, ArtifactsError>;
    /// Removes everything that was ever kept of a bot, segments and recordings; how many objects. `Ok` means that
    /// nothing is left.
    async fn remove(&self, bot: BotId) -> Result<u32, ArtifactsError>;
}

/// Makes new slots' uuids, so that the actors need no randomness of their own.
pub trait SlotIds: Send + Sync + 'static {
    /// A uuid never used before.
    fn next(&self) -> SlotId;
}
