//! How much of the pool is in use: what the Scaler goes by. Pure, and small whatever the pool's size: counts, and the
//! names of a few slots.

use super::index::{HostLine, SlotLine};
use super::message::PlatformLine;
use crate::ids::{HostName, Platform, SlotName};
use crate::slot::SlotStatus;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The pool's load.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolLoad {
    /// Each platform that is served.
    pub platforms: BTreeMap<Platform, PlatformLoad>,
    /// Slots that may be added over all platforms.
    pub room: u32,
}

/// A platform's load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformLoad {
    /// What it may hold.
    pub limits: PlatformLine,
    /// Slots, also those that are being made.
    pub slots: u32,
    /// Slots that are not draining.
    pub staying: u32,
    /// Slots that have a row.
    pub stored: u32,
    /// Slots with a bot.
    pub in_use: u32,
    /// Slots that are being made.
    pub coming_up: u32,
    /// Idle slots that nobody has a hold of.
    pub free: u32,
    /// The first of these, the longest unused first.
    pub longest_unused: Vec<SlotName>,
    /// Bots that wait.
    pub waiting: usize,
}

impl PlatformLoad {
    /// No slots yet.
    pub fn new(limits: PlatformLine, waiting: usize) -> Self {
        let (slots, staying, stored, in_use, coming_up, free, longest_unused) = Default::default();
        Self { limits, slots, staying, stored, in_use, coming_up, free, longest_unused, waiting }
    }
}

impl PoolLoad {
    /// Counts `slots`, each with whether somebody has a hold of it, into the platforms. `longest_unused`: so many free
    /// slots are named.
    pub fn of<'a>(
        mut platforms: BTreeMap<Platform, PlatformLoad>,
        slots: impl Iterator<Item = (&'a SlotLine, bool)>,
        hosts: &BTreeMap<HostName, HostLine>,
        max_size: u32,
        longest_unused: usize,
    ) -> Self {
        let mut all = 0;
        let mut free: BTreeMap<&Platform, Vec<&SlotLine>> = BTreeMap::new();
        for (line, is_reserved) in slots {
            all += 1;
            let Some(load) = platforms.get_mut(&line.platform) else { continue };
            let is_idle = line.status == Some(SlotStatus::Idle);
            let has_bot = matches!(line.status, Some(SlotStatus::Busy | SlotStatus::Deploying));
            load.slots += 1;
            load.staying += u32::from(!line.draining);
            load.stored += u32::from(line.stored);
            load.in_use += u32::from(has_bot && line.stored);
            load.coming_up += u32::from(is_idle && !line.stored);
            if is_idle && line.stored && !is_reserved && !line.draining {
                load.free += 1;
                free.entry(&line.platform).or_default().push(line);
            }
        }
        for (platform, mut lines) in free {
            lines.sort_by_key(|line| (line.last_used_at, Reverse(line.name.number())));
            if let Some(load) = platforms.get_mut(platform) {
                load.longest_unused =
                    lines.iter().take(longest_unused).map(|line| line.name.clone()).collect();
            }
        }
        let hosts = hosts.values().filter(|host| !host.draining && host.answers());
        let on_hosts: u32 = hosts.map(|host| host.capacity.saturating_sub(host.slots)).sum();
        Self { platforms, room: max_size.saturating_sub(all).min(on_hosts) }
    }
}
