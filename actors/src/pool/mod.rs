//! The pool: which slots there are, and which of them gets a bot. The choice is in [`policy`].

pub mod actor;
mod creation;
pub mod message;
pub mod policy;

use crate::ids::Platform;
use std::collections::BTreeMap;

/// What the pool may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// The platforms that are served.
    pub platforms: BTreeMap<Platform, PlatformSettings>,
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
}
