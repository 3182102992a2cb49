//! A slot: a reserved place on a host with a cached image, and the bot in it. Plain data; the rules are in
//! [`machine`], what must be under way in a state is in [`effects`].

pub mod actor;
pub mod command;
pub mod drains;
pub mod effects;
pub mod event;
pub mod handle;
pub mod machine;
#[cfg(test)]
mod machine_model;
#[cfg(test)]
mod machine_test;
#[cfg(test)]
mod machine_words;
mod orders;
pub mod preparation;
mod recovery;
mod restart;
mod setback;
#[cfg(test)]
mod table;

use crate::backoff::Backoff;
use crate::bot::Bot;
use crate::ids::{ContainerId, ContainerKey, Generation, HostName, Operation, Platform, SlotId, SlotName};
use chrono::{DateTime, Utc};
use drains::Drains;
use preparation::Preparation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// One slot, as the row in `bot_pool_slots` holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// `pool-<platform>-NNN`.
    pub name: SlotName,
    /// What its containers know it by.
    pub id: SlotId,
    /// The platform it serves.
    pub platform: Platform,
    /// Where its containers run.
    pub host: HostName,
    /// The image of its containers.
    pub image: String,
    /// In any it takes no new bot, and is deleted when it has none.
    pub drains: Drains,
    /// It is deleted with its bot rather than used again.
    pub ephemeral: bool,
    /// Counts assignments.
    pub generation: Generation,
    /// Counts operations on its containers.
    pub operation: Operation,
    /// Counts writes of the row; 0: not written yet.
    pub version: i64,
    /// When it last changed.
    pub changed_at: DateTime<Utc>,
    /// Where it is.
    pub state: SlotState,
}

/// Where a slot is, with what belongs to that state.
#[derive(Debug, Clone, PartialEq)]
pub enum SlotState {
    /// Free, and its last container is known to be gone.
    Idle {
        /// When its last bot left it; `None`: never used.
        last_used_at: Option<DateTime<Utc>>,
        /// The container for its next bot.
        ahead: Preparation,
    },
    /// Has a bot whose container is being started.
    Deploying {
        /// The bot.
        bot: Box<Bot>,
        /// How far.
        step: DeployStep,
        /// Starts that failed so far.
        attempts: u32,
        /// When it gives up.
        deadline: DateTime<Utc>,
    },
    /// Its container runs, or is being stopped.
    Busy {
        /// The bot; has ended where the step is `Stopping`.
        bot: Box<Bot>,
        /// The container, where the engine has named it.
        container: Option<ContainerId>,
        /// How far.
        step: BusyStep,
    },
    /// Something failed; holds no bot. Its container may still be there.
    Error {
        /// What failed, in the engine's words.
        reason: String,
        /// Recoveries that the engine answered with a failure.
        attempts: u32,
        /// Since when.
        since: DateTime<Utc>,
        /// The container, where the engine has named it.
        container: Option<ContainerId>,
        /// How far recovery is.
        step: RecoveryStep,
    },
    /// Removed from the pool. Never stored: the commit that enters it deletes the row.
    Retired,
}

/// How far a start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeployStep {
    /// The image is being made present.
    Pulling,
    /// The same where the container was being prepared when the bot came: it may be there already.
    Resuming,
    /// The container is being started.
    Starting,
    /// A start failed; the next one begins then.
    Retrying {
        /// When.
        at: DateTime<Utc>,
    },
    /// The container is being stopped and removed, so that another can be started for the same bot.
    Restarting,
}

/// How far a running bot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusyStep {
    /// The container runs.
    Running {
        /// When the bot is told to leave: its end time, or the longest allowed meeting.
        leave_at: DateTime<Utc>,
    },
    /// The bot is leaving by its own or by request; it is stopped then if it has not ended.
    Leaving {
        /// When patience ends; later where segments still arrive.
        until: DateTime<Utc>,
        /// When it ends whatever arrives.
        latest: DateTime<Utc>,
    },
    /// The bot has ended; its container is being stopped and removed.
    Stopping,
}

/// How far a recovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryStep {
    /// The next attempt begins then.
    Waiting {
        /// When.
        until: DateTime<Utc>,
    },
    /// What is left of the container is being stopped and removed.
    Stopping,
}

/// The four states that users see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotStatus {
    /// Free.
    Idle,
    /// Starting a bot.
    Deploying,
    /// Running or stopping a bot.
    Busy,
    /// Out of order.
    Error,
}

impl SlotStatus {
    /// The name as stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Deploying => "deploying",
            Self::Busy => "busy",
            Self::Error => "error",
        }
    }
}

impl Slot {
    /// A slot that is not stored yet; its first assignment stores it.
    pub fn vacant(
        name: SlotName,
        id: SlotId,
        platform: Platform,
        host: HostName,
        image: String,
        ephemeral: bool,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            name,
            id,
            platform,
            host,
            image,
            drains: Drains::default(),
            ephemeral,
            generation: Generation(0),
            operation: Operation(0),
            version: 0,
            changed_at: now,
            state: SlotState::Idle { last_used_at: None, ahead: Preparation::Absent },
        }
    }

    /// The state as users see it; a retired slot has none.
    pub fn status(&self) -> Option<SlotStatus> {
        match self.state {
            SlotState::Idle { .. } => Some(SlotStatus::Idle),
            SlotState::Deploying { .. } => Some(SlotStatus::Deploying),
            SlotState::Busy { .. } => Some(SlotStatus::Busy),
            SlotState::Error { .. } => Some(SlotStatus::Error),
            SlotState::Retired => None,
        }
    }

    /// The step that it is at, finer than the status: a word for logs and counts.
    pub fn step(&self) -> &'static str {
        match &self.state {
            SlotState::Idle { ahead, .. } => ahead.step(),
            SlotState::Deploying { step: DeployStep::Pulling, .. } => "pulling",
            SlotState::Deploying { step: DeployStep::Resuming, .. } => "resuming",
            SlotState::Deploying { step: DeployStep::Starting, .. } => "starting",
            SlotState::Deploying { step: DeployStep::Retrying { .. }, .. } => "retrying",
            SlotState::Deploying { step: DeployStep::Restarting, .. } => "restarting",
            SlotState::Busy { step: BusyStep::Running { .. }, .. } => "running",
            SlotState::Busy { step: BusyStep::Leaving { .. }, .. } => "leaving",
            SlotState::Busy { step: BusyStep::Stopping, .. } => "stopping",
            SlotState::Error { step: RecoveryStep::Waiting { .. }, .. } => "error",
            SlotState::Error { step: RecoveryStep::Stopping, .. } => "recovering",
            SlotState::Retired => "retired",
        }
    }

    /// The bot in it, live or just ended.
    pub fn bot(&self) -> Option<&Bot> {
        match &self.state {
            SlotState::Deploying { bot, .. } | SlotState::Busy { bot, .. } => Some(bot),
            SlotState::Idle { .. } | SlotState::Error { .. } | SlotState::Retired => None,
        }
    }

    /// Whether its container runs, may yet be made or started, or may be left.
    pub fn holds_container(&self) -> bool {
        match &self.state {
            SlotState::Idle { ahead, .. } => *ahead != Preparation::Absent,
            SlotState::Deploying { .. } | SlotState::Busy { .. } | SlotState::Error { .. } => true,
            SlotState::Retired => false,
        }
    }

    /// The first of a time that its state waits for and the deadline of its drain.
    pub(super) fn or_drain_by(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        self.drains.by().map_or(at, |by| by.min(at))
    }

    /// The generation of its container: that of its bot, or the one that its next bot will get.
    pub fn container_generation(&self) -> Generation {
        match self.state {
            SlotState::Idle { .. } => self.generation.next(),
            _ => self.generation,
        }
    }

    /// Its container, if it holds one.
    pub fn container_key(&self) -> ContainerKey {
        ContainerKey { slot: self.id, generation: self.container_generation() }
    }

    /// The container that its bot is in, or its last bot was.
    pub fn last_bots_container(&self) -> ContainerKey {
        ContainerKey { slot: self.id, generation: self.generation }
    }
}

/// The containers that slots hold; any other is never started again.
pub fn held_containers<'a>(slots: impl Iterator<Item = &'a Slot>) -> BTreeSet<ContainerKey> {
    slots.filter(|slot| slot.holds_container()).map(Slot::container_key).collect()
}

/// The durations that the slot machine goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotTiming {
    /// From the end of the pull to the first evidence that the container runs.
    pub deploy: Duration,
    /// The longest wait for the image, a safeguard: pulls end by their own rule, silence.
    pub pull: Duration,
    /// Wait before another start after one that failed.
    pub start_retry: Duration,
    /// Waits before a container is prepared, or what was prepared is removed, once more after that failed.
    pub prepare_retry: Backoff,
    /// Starts before the slot gives the bot back.
    pub start_attempts: u32,
    /// Slots that may give a bot back after a failed start; the next one in which it fails ends it as `deploy_failed`.
    pub start_elsewhere: u32,
    /// From the wish to leave to the stop, for the end of the recording and its upload.
    pub leave_grace: Duration,
    /// While a bot leaves: how long after a segment the next one is waited for, beyond the grace.
    pub segment_grace: Duration,
    /// From the wish to leave to the stop at the latest, whatever still arrives.
    pub leave_limit: Duration,
    /// How long a container may take to end by itself when it is stopped.
    pub stop_grace: Duration,
    /// The longest meeting.
    pub max_duration: Duration,
    /// Wait before each of the first, quick recoveries; grows with the attempts.
    pub recovery_delay: Duration,
    /// How long recoveries are quick, and the time between two of them afterwards.
    pub recovery_interval: Duration,
    /// Recoveries that the engine answered with a failure before the slot is given up.
    pub recovery_attempts: u32,
    /// Silence after which the engine is asked.
    pub heartbeat_suspect: Duration,
    /// Silence after which the bot is lost.
    pub heartbeat_lost: Duration,
}

impl Default for SlotTiming {
    fn default() -> Self {
        Self {
            deploy: Duration::from_secs(600),
            pull: Duration::from_secs(2 * 3600),
            start_retry: Duration::from_secs(2),
            prepare_retry: Backoff { first: Duration::from_secs(10), last: Duration::from_secs(300) },
            start_attempts: 3,
            start_elsewhere: 1,
            leave_grace: Duration::from_secs(120),
            segment_grace: Duration::from_secs(150),
            leave_limit: Duration::from_secs(900),
            stop_grace: Duration::from_secs(30),
            max_duration: Duration::from_secs(4 * 3600),
            recovery_delay: Duration::from_secs(10),
            recovery_interval: Duration::from_secs(300),
            recovery_attempts: 3,
            heartbeat_suspect: Duration::from_secs(45),
            heartbeat_lost: Duration::from_secs(300),
        }
    }
}
