//! What the actors are told of the configuration.

use crate::config::{DriverKind, Host, Settings};
use meeboter_actors::ids::{HostName, Platform};
use meeboter_actors::pool::{HostSettings, PlatformSettings, PoolSettings};
use meeboter_actors::schedule::ScheduleSettings;
use meeboter_actors::slot::SlotTiming;
use std::collections::BTreeMap;
use std::time::Duration;

/// The pool's settings.
pub(super) fn pool(settings: &Settings) -> PoolSettings {
    let images = &settings.images;
    let platforms = settings.served_platforms().map(|(key, platform)| {
        let image = match platform.image.as_str() {
            "" => format!("ghcr.io/{}/meeboter-{key}-bot:{}", images.ghcr_org, images.tag),
            image => image.to_owned(),
        };
        let settings = PlatformSettings {
            max_size: platform.max_size,
            image,
            enabled: platform.enabled,
            prewarm: platform.prewarm,
            ephemeral: platform.ephemeral,
        };
        (Platform(key.clone()), settings)
    });
    PoolSettings {
        platforms: platforms.collect(),
        hosts: hosts(settings),
        max_size: settings.pool.max_size,
        queue_max: settings.queue.max,
    }
}

/// The hosts of the engine. Processes run on this one, whatever else is configured.
pub(super) fn hosts(settings: &Settings) -> BTreeMap<HostName, HostSettings> {
    let limits = |host: &Host| HostSettings { capacity: host.capacity };
    let hosts = settings.hosts.iter().map(|(name, host)| (HostName(name.clone()), limits(host)));
    match settings.driver.kind {
        DriverKind::Process => hosts.filter(|(name, _)| *name == HostName::local()).collect(),
    }
}

/// The Scheduler's settings.
pub(super) fn schedule(settings: &Settings) -> ScheduleSettings {
    let schedule = &settings.schedule;
    ScheduleSettings {
        lead: schedule.lead(),
        lateness: schedule.lateness(),
        burst: schedule.burst,
        max: schedule.max,
    }
}

/// The slot machine's durations.
pub(super) fn timing(settings: &Settings) -> SlotTiming {
    let bots = &settings.bots;
    let ms = Duration::from_millis;
    SlotTiming {
        deploy: ms(bots.deploy_timeout_ms),
        leave_grace: ms(bots.leave_grace_ms),
        segment_grace: ms(bots.segment_grace_ms),
        leave_limit: ms(bots.leave_limit_ms),
        stop_grace: ms(bots.stop_grace_ms),
        max_duration: ms(bots.max_duration_ms),
        recovery_delay: ms(bots.recovery_delay_ms),
        recovery_interval: ms(bots.recovery_interval_ms),
        heartbeat_suspect: ms(bots.heartbeat_suspect_ms),
        heartbeat_lost: ms(bots.heartbeat_lost_ms),
        ..SlotTiming::default()
    }
}
