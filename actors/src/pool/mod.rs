//! The pool: which slots there are, and which of them gets a bot. The choice is in [`index`].

pub mod actor;
pub mod breaker;
mod creation;
mod drains;
pub mod hosts;
pub mod index;
pub mod limits;
pub mod load;
pub mod message;
pub mod numbers;
mod offers;
mod operations;
pub mod owners;
pub mod restart;
mod shelf;
pub mod witness;

use crate::ids::{HostName, Platform};
use crate::image_pull::machine::PullSettings;
use crate::ports::ResourceLimits;
use crate::slot::drains::Deadline;
use breaker::BreakerSettings;
use std::collections::BTreeMap;
use std::fmt;

/// What is being emptied: it gets no new slots, and those it has go when they are free. Stored, so that it goes on after
/// a restart: an operator who drains a host must not see it filled again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// All slots of a platform.
    Platform(Platform),
    /// All slots on a host.
    Host(HostName),
}

/// A drain with its deadline, as the row in `pool_drains` holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainOrder {
    /// What is being emptied.
    pub drain: Drain,
    /// When bots that are still there are asked to leave; `None`: they stay for as long as they like.
    pub by: Deadline,
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainLine {
    /// Slots that are left.
    pub slots_left: usize,
    /// Those of them that have a bot.
    pub bots_left: usize,
    /// When these are asked to leave.
    pub by: Deadline,
}

impl Drain {
    /// Whether a slot of this platform on this host is in it.
    pub fn holds(&self, platform: &Platform, host: &HostName) -> bool {
        match self {
            Self::Platform(drained) => drained == platform,
            Self::Host(drained) => drained == host,
        }
    }
}

impl fmt::Display for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform(platform) => write!(f, "platform {platform}"),
            Self::Host(host) => write!(f, "host {host}"),
        }
    }
}

/// What the pool may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// The platforms that are served.
    pub platforms: BTreeMap<Platform, PlatformSettings>,
    /// The hosts that slots are on.
    pub hosts: BTreeMap<HostName, HostSettings>,
    /// Slots over all platforms.
    pub max_size: u32,
    /// Waiting bots over all platforms.
    pub queue_max: u32,
    /// What image pulls go by; read at start.
    pub pulls: PullSettings,
    /// When a host whose engine does not answer is left alone.
    pub breaker: BreakerSettings,
}

impl Default for PoolSettings {
    /// No platform, no host.
    fn default() -> Self {
        let (platforms, hosts, breaker, pulls) = Default::default();
        Self { platforms, hosts, max_size: 100, queue_max: 1000, pulls, breaker }
    }
}

/// What a platform's pool may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformSettings {
    /// Slots of this platform.
    pub max_size: u32,
    /// The image of its containers.
    pub image: String,
    /// Whether new bots are taken; those that wait or run are served to their end.
    pub enabled: bool,
    /// Slots made ahead, with the image cached on their host.
    pub prewarm: u32,
    /// Whether a slot is deleted with its bot.
    pub ephemeral: bool,
    /// Whether a free slot has the container for its next bot ready, where its engine can do that.
    pub prepare: bool,
    /// What a container of it may use; counts for those that are started from then on.
    pub limits: ResourceLimits,
}

/// What a host may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// Slots on it, over all platforms.
    pub capacity: u32,
}
