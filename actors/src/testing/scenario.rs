//! What to simulate: how many clients over how long, how many slots, what may go wrong. Plain data.

use super::program;
use super::world::Faults;
use crate::ids::{HostName, Platform};
use crate::image_pull::machine::PullSettings;
use crate::pool::{HostSettings, PlatformSettings, PoolSettings};
use crate::ports::ResourceLimits;
use chrono::TimeDelta;
use std::collections::BTreeMap;

/// How long after the last client and the last fault everything must have settled.
const SETTLE: TimeDelta = TimeDelta::minutes(90);

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// All chance.
    pub seed: u64,
    /// Requests for bots.
    pub clients: usize,
    /// Further requests that come all within two seconds.
    pub flood: usize,
    /// Over how long the others come.
    pub spread: TimeDelta,
    /// How likely faults are.
    pub faults: Faults,
    /// How many of a hundred clients ask for a start ahead.
    pub scheduled_percent: u8,
    /// Slots of each of two platforms.
    pub slots: [u32; 2],
    /// Whether the two share room for fewer slots than they may have together.
    pub tight: bool,
    /// Whether the two have one image, and with it one line of those who wait for it.
    pub shares_image: bool,
    /// Slots of each that are made ahead of need; a platform with none has them for those who start soon.
    pub prewarm: [u32; 2],
    /// How often the operator does something.
    pub operations: usize,
    /// How often something large goes wrong.
    pub disasters: usize,
    /// Whether the slots of the second platform are deleted with their bots.
    pub ephemeral: bool,
    /// Whether the engine makes containers ahead of need.
    pub prepares: bool,
    /// Boundaries at which the server crashes; `None`: drawn.
    pub crash_at: Option<Vec<u64>>,
    /// Whether each line of the trace is kept.
    pub traced: bool,
}

impl Scenario {
    /// A full one: every fault, some crashes, two platforms.
    pub fn drawn(seed: u64) -> Self {
        Self {
            seed,
            clients: 30,
            flood: if seed.is_multiple_of(4) { 60 } else { 0 },
            spread: TimeDelta::minutes(40),
            faults: Faults::all(),
            scheduled_percent: 33,
            slots: [3, 2],
            tight: seed % 3 == 1,
            shares_image: matches!(seed % 8, 0 | 3 | 5),
            prewarm: if seed.is_multiple_of(2) { [0, 1] } else { [1, 0] },
            operations: if seed.is_multiple_of(5) { 0 } else { 30 },
            disasters: if seed.is_multiple_of(3) { 0 } else { 4 },
            ephemeral: seed.is_multiple_of(3),
            prepares: matches!(seed % 7, 2 | 3 | 6),
            crash_at: None,
            traced: true,
        }
    }

    /// The same over so many hours, with the time to settle counted in: 300 bots and 12 slots at the most.
    pub fn long(seed: u64, hours: u32) -> Self {
        let spread = TimeDelta::hours(i64::from(hours)) - SETTLE - program::LONGEST;
        let scale = usize::try_from(hours).unwrap_or(1);
        let flood = if seed.is_multiple_of(4) { 60 } else { 0 };
        Self {
            clients: (12 * scale).clamp(30, 300 - flood),
            flood,
            spread: spread.max(TimeDelta::minutes(40)),
            slots: [[3, 2], [7, 5], [2, 1], [5, 3]][usize::try_from(seed % 4).unwrap_or(0)],
            operations: if seed.is_multiple_of(5) { 0 } else { 5 * scale.max(6) },
            disasters: if seed.is_multiple_of(7) { 0 } else { scale.max(4) },
            ..Self::drawn(seed)
        }
    }

    /// A small quiet one, for crashing at every boundary in turn.
    pub fn quiet(crash_at: Option<u64>) -> Self {
        Self {
            seed: 7,
            clients: 5,
            flood: 0,
            spread: TimeDelta::seconds(20),
            faults: Faults::default(),
            scheduled_percent: 40,
            slots: [2, 1],
            tight: false,
            shares_image: false,
            prewarm: [0, 0],
            operations: 0,
            disasters: 0,
            ephemeral: true,
            prepares: false,
            crash_at: Some(crash_at.into_iter().collect()),
            traced: true,
        }
    }

    /// Nothing breaks, there is room for all, and every bot has a start ahead.
    pub fn on_time(seed: u64) -> Self {
        Self { seed, clients: 60, scheduled_percent: 100, slots: [60, 60], ..Self::quiet(None) }
    }

    /// Hundreds of requests at once against the bound of the queue, where store and engine do as they are told.
    pub fn flooded(seed: u64) -> Self {
        Self {
            seed,
            clients: 20,
            flood: 300,
            spread: TimeDelta::minutes(20),
            slots: [3, 2],
            ..Self::quiet(None)
        }
    }

    /// Every bot falls silent and runs on, and the clock is set meanwhile.
    pub fn silent(seed: u64) -> Self {
        let faults = Faults { bot_silent: 1_000, clock_set: 1_000, ..Faults::default() };
        Self { seed, clients: 20, spread: TimeDelta::minutes(40), faults, slots: [6, 6], ..Self::quiet(None) }
    }

    /// From when on nothing goes wrong any more, and when everything must have settled, from the beginning.
    pub fn ends(&self) -> (TimeDelta, TimeDelta) {
        let calm = self.spread + program::LONGEST;
        (calm, calm + SETTLE)
    }

    /// The platforms, and how many slots each may ever have.
    pub fn platforms(&self) -> BTreeMap<Platform, u32> {
        ["google-meet", "zoom"].into_iter().map(|key| Platform(key.to_owned())).zip(self.slots).collect()
    }

    /// How the pool begins.
    pub fn settings(&self) -> PoolSettings {
        let mut settings = settings(&self.platforms(), self.ephemeral);
        for (platform, prewarm) in settings.platforms.values_mut().zip(self.prewarm) {
            platform.prewarm = prewarm;
            if self.shares_image {
                platform.image = "bot:1".to_owned();
                platform.limits = limits(&platform.image);
            }
        }
        if self.tight {
            settings.max_size = (self.slots.iter().sum::<u32>() * 2).div_ceil(3);
        }
        settings
    }
}

/// What containers of an image may use, here: it follows from the image, so that the engine can tell.
pub fn limits(image: &str) -> ResourceLimits {
    let memory_mib = image.len().try_into().ok();
    ResourceLimits { memory_mib, ..ResourceLimits::default() }
}

/// Two hosts, of which neither has room for so many slots.
pub fn hosts(slots: u32) -> BTreeMap<HostName, HostSettings> {
    let other = HostName("other".to_owned());
    let hosts = [(HostName::local(), (slots * 4).div_ceil(5)), (other, (slots * 3).div_ceil(5))];
    hosts.into_iter().map(|(name, capacity)| (name, HostSettings { capacity })).collect()
}

/// Platforms on two hosts, of which neither has room for everybody.
pub fn settings(platforms: &BTreeMap<Platform, u32>, second_is_ephemeral: bool) -> PoolSettings {
    let all: u32 = platforms.values().sum();
    let platforms = platforms
        .iter()
        .enumerate()
        .map(|(number, (key, max))| {
            let settings = PlatformSettings {
                max_size: *max,
                image: format!("{key}:1"),
                enabled: true,
                prewarm: 0,
                ephemeral: second_is_ephemeral && number == 1,
                prepare: true,
                limits: limits(&format!("{key}:1")),
            };
            (key.clone(), settings)
        })
        .collect();
    let pulls = PullSettings { waiters_max: 1, ..PullSettings::default() };
    PoolSettings { hosts: hosts(all), platforms, queue_max: 20, pulls, ..PoolSettings::default() }
}
