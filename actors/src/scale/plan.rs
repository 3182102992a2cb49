//! How many slots there should be. Pure: time, the pool and what is scheduled are arguments.
//!
//! Three wishes ask for slots, and the largest counts: the prewarm count, which counts whatever slot stays, whatever its
//! state; a minimum of idle slots, with one more for each bot that starts soon; and a platform that was in use by more
//! than a mark, which gets a step more. Slots are made one at a time, never past a cap, and not for a platform that
//! somebody waits for: the pool itself makes what those need, at once. Idle slots go by steps, at a lower mark, and only
//! while none of the three wishes would ask for them back: so a steady load comes to rest.

use super::ScaleSettings;
use super::history::{History, Utilisation};
use crate::ids::{Platform, SlotName};
use crate::pool::load::{PlatformLoad, PoolLoad};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;

/// How long a platform whose slot could not be made lets the others go first.
const RETRY_AFTER: TimeDelta = TimeDelta::minutes(1);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a slot.
    Grow {
        /// For which platform.
        platform: Platform,
    },
    /// Delete an idle slot.
    Retire {
        /// Which.
        slot: SlotName,
    },
}

/// The last time that a platform was scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaled {
    /// When.
    pub at: DateTime<Utc>,
    /// Slots to reach, until the cool-down is over; `None`: it was scaled down.
    pub up_to: Option<u32>,
}

/// What is remembered of a platform.
#[derive(Debug, Clone, Default)]
struct Track {
    history: History,
    scaled: Option<Scaled>,
    failed_at: Option<DateTime<Utc>>,
}

/// What there is of a platform, and what comes.
struct Standing<'a> {
    load: &'a PlatformLoad,
    /// Bots that start soon.
    coming: u32,
}

/// Decides, round by round, and remembers what it needs for that.
#[derive(Debug, Clone)]
pub struct Scaling {
    settings: ScaleSettings,
    tracks: BTreeMap<Platform, Track>,
}

impl Scaling {
    /// Knows nothing yet.
    pub fn new(settings: ScaleSettings) -> Self {
        Self { settings, tracks: BTreeMap::new() }
    }

    /// Notes how much is in use, and decides what to do. `coming`: bots that start soon; `growing`: a slot is being made
    /// already, so no other is begun.
    pub fn round(
        &mut self,
        now: DateTime<Utc>,
        pool: &PoolLoad,
        coming: &BTreeMap<Platform, usize>,
        growing: bool,
    ) -> Vec<Action> {
        self.tracks.retain(|platform, _| pool.platforms.contains_key(platform));
        let settings = self.settings;
        let mut actions = Vec::new();
        let mut next: Option<(u32, &Platform)> = None;
        for (platform, load) in &pool.platforms {
            let coming = count(coming.get(platform).copied().unwrap_or(0));
            let standing = Standing { load, coming };
            let track = self.tracks.entry(platform.clone()).or_default();
            let utilisation = Utilisation::of(load.in_use, load.stored);
            track.history.observe(now, utilisation, settings.window);
            let room = pool.room.min(load.limits.max_size.saturating_sub(load.slots));
            let lack = if load.limits.prewarm > 0 {
                actions.extend(track.scale(&settings, now, &standing, room));
                standing.lack(&settings, track.up_to(&settings, now))
            } else {
                standing.lack_of_those_who_come(&settings)
            };
            let may_grow = !growing && room > 0 && load.limits.open && load.waiting == 0 && !track.rests(now);
            if may_grow && lack > next.map_or(0, |(most, _)| most) {
                next = Some((lack, platform));
            }
        }
        actions.extend(next.map(|(_, platform)| Action::Grow { platform: platform.clone() }));
        actions
    }

    /// A slot could not be made.
    pub fn failed(&mut self, platform: &Platform, now: DateTime<Utc>) {
        if let Some(track) = self.tracks.get_mut(platform) {
            track.failed_at = Some(now);
        }
    }

    /// The mean utilisation of each platform, where a whole window of it is known, and when it was last scaled.
    pub fn lines(
        &self,
        now: DateTime<Utc>,
    ) -> impl Iterator<Item = (&Platform, Option<Utilisation>, Option<Scaled>)> {
        self.tracks.iter().map(move |(platform, track)| {
            (platform, track.history.mean(now, self.settings.window), track.scaled)
        })
    }
}

impl Track {
    /// Scales up, which sets how many slots to reach, or down, which says which go. `room`: slots that may be added.
    fn scale(
        &mut self,
        settings: &ScaleSettings,
        now: DateTime<Utc>,
        standing: &Standing<'_>,
        room: u32,
    ) -> Vec<Action> {
        if !settings.enabled || self.cools(settings, now) {
            return vec![];
        }
        let Some(mean) = self.history.mean(now, settings.window) else { return vec![] };
        if mean >= Utilisation::percent(settings.up_at_percent) {
            let by = settings.up_by.min(room);
            if by > 0 && standing.load.limits.open {
                self.scaled = Some(Scaled { at: now, up_to: Some(standing.load.staying + by) });
            }
        } else if mean <= Utilisation::percent(settings.down_at_percent) && standing.load.waiting == 0 {
            let leaving = standing.leaving(settings);
            if !leaving.is_empty() {
                self.scaled = Some(Scaled { at: now, up_to: None });
            }
            return leaving.iter().map(|slot| Action::Retire { slot: slot.clone() }).collect();
        }
        vec![]
    }

    /// Whether a slot could not be made just now.
    fn rests(&self, now: DateTime<Utc>) -> bool {
        // A clock that was set back must not put the next try off.
        self.failed_at.is_some_and(|at| (at..at + RETRY_AFTER).contains(&now))
    }

    fn cools(&self, settings: &ScaleSettings, now: DateTime<Utc>) -> bool {
        // A clock that was set back must not make the cool-down longer.
        self.scaled.is_some_and(|scaled| (scaled.at..scaled.at + settings.cooldown).contains(&now))
    }

    fn up_to(&self, settings: &ScaleSettings, now: DateTime<Utc>) -> u32 {
        let scaled = self.scaled.filter(|_| self.cools(settings, now));
        scaled.and_then(|scaled| scaled.up_to).unwrap_or(0)
    }
}

impl Standing<'_> {
    /// Idle slots that should be kept.
    fn spare(&self, settings: &ScaleSettings) -> u32 {
        if settings.enabled { settings.min_idle.saturating_add(self.coming) } else { 0 }
    }

    /// How many slots there should be more.
    fn lack(&self, settings: &ScaleSettings, up_to: u32) -> u32 {
        if self.load.slots == 0 && self.coming == 0 && !settings.prewarm_on_startup {
            return 0;
        }
        let idle = self.spare(settings).saturating_sub(self.load.free + self.load.coming_up);
        self.load.limits.prewarm.max(up_to).saturating_sub(self.load.staying).max(idle)
    }

    /// The same for a platform without a prewarm count: it grows with its bots and keeps what it has. But who starts soon
    /// finds a slot with its image, or a first pull would make it late.
    fn lack_of_those_who_come(&self, settings: &ScaleSettings) -> u32 {
        let coming = if settings.enabled { self.coming } else { 0 };
        coming.saturating_sub(self.load.free + self.load.coming_up)
    }

    /// The slots that go, if a step may be taken.
    fn leaving(&self, settings: &ScaleSettings) -> &[SlotName] {
        if self.load.free <= self.spare(settings).saturating_add(settings.down_by) {
            return &[];
        }
        let by = settings.down_by.min(self.load.staying.saturating_sub(self.load.limits.prewarm));
        // What is left must not be so much in use that it is scaled up again.
        let left = Utilisation::of(self.load.in_use, self.load.stored.saturating_sub(by));
        if left >= Utilisation::percent(settings.up_at_percent) {
            return &[];
        }
        self.load.longest_unused.get(..by as usize).unwrap_or_default()
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
