//! What containers may use, as the slots that start them read it. Written by the pool alone, when its settings change.

use super::PoolSettings;
use crate::ids::Platform;
use crate::ports::ResourceLimits;
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

/// See the module.
#[derive(Debug, Default)]
pub struct PlatformLimits(RwLock<BTreeMap<Platform, ResourceLimits>>);

impl PlatformLimits {
    /// What a container of the platform may use; nothing is said of one that is not served any more.
    pub fn of(&self, platform: &Platform) -> ResourceLimits {
        let limits = self.0.read().unwrap_or_else(PoisonError::into_inner);
        limits.get(platform).copied().unwrap_or_default()
    }

    pub(super) fn configure(&self, settings: &PoolSettings) {
        let platforms = settings.platforms.iter();
        let limits = platforms.map(|(platform, settings)| (platform.clone(), settings.limits)).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }
}
