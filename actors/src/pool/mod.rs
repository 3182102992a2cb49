//! The pool: which slots there are, and which of them gets a bot. The choice is in [`policy`].

pub mod actor;
mod creation;
pub mod message;
pub mod policy;

use crate::ids::{HostName, Platform};
use std::collections::BTreeMap;

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
}

/// What a host may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// Slots on it, over all platforms.
    pub capacity: u32,
}
