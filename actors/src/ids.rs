//! Names and numbers that identify things. Plain data; each is a type of its own so that none is passed for another.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A bot: one run in one meeting. Positive, handed out in blocks of a sequence; gaps are fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BotId(pub i64);

/// The user who owns bots and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(pub i64);

/// A slot's uuid: what a bot container knows of its slot (`POOL_SLOT_UUID`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotId(pub Uuid);

/// A slot's name, `pool-<platform>-NNN`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotName(pub String);

impl SlotName {
    /// The name of slot `number` of a platform; numbers count from 1.
    pub fn new(platform: &Platform, number: u32) -> Self {
        Self(format!("pool-{}-{number:03}", platform.0))
    }

    /// The number that it ends in; 0, which no slot is given, where it has none.
    pub fn number(&self) -> u32 {
        self.0.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

/// A platform's canonical key: `google-meet`, `microsoft-teams`, `zoom`, `rehearsal`, or a configured one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Platform(pub String);

/// A host that runs containers, as the configuration names it. A slot stays on its host for life.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostName(pub String);

impl HostName {
    /// The one host of an engine that has no others.
    pub fn local() -> Self {
        Self("local".to_owned())
    }
}

/// Counts the assignments of a slot: grows by one at each, and only then. What belongs to an older one is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub i64);

impl Generation {
    /// The generation of the next assignment.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Counts the operations on a slot's container; an outcome that carries an older one is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Operation(pub i64);

impl Operation {
    /// Later than any that a slot gets to: what it stops stays stopped.
    pub const LAST: Self = Self(i64::MAX);

    /// The next operation's number.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What an engine calls a container: `pid:start_time` for processes, an id elsewhere. Opaque here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub String);

/// The container of one generation of one slot: enough to find it on an engine, even where its id was never learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerKey {
    /// The slot.
    pub slot: SlotId,
    /// Its generation.
    pub generation: Generation,
}

macro_rules! display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display!(BotId, UserId, SlotId, SlotName, Platform, HostName, Generation, Operation, ContainerId);
