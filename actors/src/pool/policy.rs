//! Which slot gets a bot. Pure: the pool's members are an argument.

use super::PoolSettings;
use crate::ids::{HostName, Platform, SlotName};
use crate::slot::SlotStatus;
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};

/// What the choice looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The slot's name.
    pub name: &'a SlotName,
    /// Its platform.
    pub platform: &'a Platform,
    /// Its host.
    pub host: &'a HostName,
    /// Its image.
    pub image: &'a str,
    /// Its state; `None`: being rebuilt.
    pub status: Option<SlotStatus>,
    /// A bot is on its way to it.
    pub reserved: bool,
    /// When its last bot left; `None`: never used.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// Where a bot goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Into this idle slot.
    Slot(SlotName),
    /// Into a new slot.
    Grow {
        /// Its name.
        name: SlotName,
        /// Where it will be.
        host: HostName,
    },
    /// There is no room.
    Full,
}

/// An idle slot of the platform with the wanted image first, then the least recently used; else a new one, where
/// both caps allow it and a host has room: the one with the most. Never another platform's.
pub fn place<'a>(
    platform: &Platform,
    settings: &PoolSettings,
    members: impl Iterator<Item = Candidate<'a>> + Clone,
) -> Placement {
    let Some(wanted) = settings.platforms.get(platform) else { return Placement::Full };
    let idle = members
        .clone()
        .filter(|member| {
            member.platform == platform && member.status == Some(SlotStatus::Idle) && !member.reserved
        })
        .min_by_key(|member| (member.image != wanted.image, member.last_used_at, member.name));
    if let Some(idle) = idle {
        return Placement::Slot(idle.name.clone());
    }
    let taken: BTreeSet<&SlotName> =
        members.clone().filter(|member| member.platform == platform).map(|member| member.name).collect();
    let mut slots_on: BTreeMap<&HostName, usize> = BTreeMap::new();
    let mut total = 0;
    for member in members {
        *slots_on.entry(member.host).or_default() += 1;
        total += 1;
    }
    if taken.len() >= wanted.max_size as usize || total >= settings.max_size as usize {
        return Placement::Full;
    }
    let room = settings.hosts.iter().filter_map(|(host, limits)| {
        let free = (limits.capacity as usize).checked_sub(slots_on.get(host).copied().unwrap_or(0))?;
        (free > 0).then_some((std::cmp::Reverse(free), host))
    });
    let name = (1..=wanted.max_size)
        .map(|number| SlotName::new(platform, number))
        .find(|name| !taken.contains(name));
    match (name, room.min()) {
        (Some(name), Some((_, host))) => Placement::Grow { name, host: host.clone() },
        _ => Placement::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{HostSettings, PlatformSettings};
    use chrono::TimeDelta;

    struct Member(SlotName, Platform, &'static str, SlotStatus, bool, Option<i64>);

    fn choose(platform: &str, max_size: u32, members: &[Member]) -> Placement {
        let platform_of =
            PlatformSettings { max_size: 3, image: "v2".into(), enabled: true, prewarm: 0, ephemeral: false };
        let platforms = ["zoom", "google-meet"].map(|key| (Platform(key.into()), platform_of.clone()));
        let hosts =
            [("a", 2), ("b", 3)].map(|(host, capacity)| (HostName(host.into()), HostSettings { capacity }));
        let settings =
            PoolSettings { platforms: platforms.into(), hosts: hosts.into(), max_size, queue_max: 10 };
        let on = HostName("a".into());
        let candidates =
            members.iter().map(|Member(name, platform, image, status, reserved, used)| Candidate {
                name,
                platform,
                host: &on,
                image,
                status: Some(*status),
                reserved: *reserved,
                last_used_at: used.map(|used| DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(used)),
            });
        place(&Platform(platform.into()), &settings, candidates)
    }

    fn member(platform: &str, number: u32, image: &'static str, status: SlotStatus, used: i64) -> Member {
        let platform = Platform(platform.into());
        Member(SlotName::new(&platform, number), platform, image, status, false, Some(used))
    }

    fn name(name: &str) -> SlotName {
        SlotName(name.into())
    }

    /// On the host with the most room.
    fn grow(slot: &str) -> Placement {
        Placement::Grow { name: name(slot), host: HostName("b".into()) }
    }

    #[test]
    fn the_wanted_image_comes_before_the_least_recently_used() {
        use SlotStatus::Idle;
        let members = [
            member("zoom", 1, "v1", Idle, 1),
            member("zoom", 2, "v2", Idle, 9),
            member("zoom", 3, "v2", Idle, 5),
        ];
        assert_eq!(choose("zoom", 10, &members), Placement::Slot(name("pool-zoom-003")));
    }

    #[test]
    fn never_across_platforms() {
        let members = [member("google-meet", 1, "v2", SlotStatus::Idle, 1)];
        assert_eq!(choose("zoom", 10, &members), grow("pool-zoom-001"));
        assert_eq!(choose("zoom", 1, &members), Placement::Full);
        assert_eq!(choose("webex", 10, &members), Placement::Full);
    }

    #[test]
    fn a_new_slot_gets_the_first_free_number() {
        use SlotStatus::{Busy, Error};
        let members = [member("zoom", 1, "v2", Busy, 1), member("zoom", 3, "v2", Error, 1)];
        assert_eq!(choose("zoom", 10, &members), grow("pool-zoom-002"));
    }

    #[test]
    fn a_reserved_slot_is_not_idle() {
        let mut reserved = member("zoom", 1, "v2", SlotStatus::Idle, 1);
        reserved.4 = true;
        assert_eq!(choose("zoom", 10, &[reserved]), grow("pool-zoom-002"));
    }
}
