//! What the actors are told of the configuration.

use crate::config::{DriverKind, Host, PlatformPool, Registry, Secret, Settings};
use crate::driver::coolify::probe::WishedLimits;
use crate::driver::coolify::{CoolifyPace, CoolifySettings, STORAGE_VARIABLES};
use crate::driver::docker::{DEFAULT_SOCKET, EngineAddress, RegistryAccess};
use crate::http::meeting::{self, Offered};
use chrono::TimeDelta;
use meeboter_actors::backoff::Backoff;
use meeboter_actors::ids::{HostName, Platform};
use meeboter_actors::image_pull::machine::PullSettings;
use meeboter_actors::maintenance::{MaintenanceSettings, Retention};
use meeboter_actors::pool::breaker::BreakerSettings;
use meeboter_actors::pool::{HostSettings, PlatformSettings, PoolSettings};
use meeboter_actors::ports::ResourceLimits;
use meeboter_actors::scale::ScaleSettings;
use meeboter_actors::schedule::ScheduleSettings;
use meeboter_actors::slot::SlotTiming;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Deployments that a server of Coolify's does at a time where nobody has changed it.
const COOLIFY_BUILDS_USUAL: u32 = 2;

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
            prewarm: if is_joined(settings, key) { settings.pool.prewarm(platform) } else { 0 },
            ephemeral: platform.ephemeral,
            prepare: platform.prepare,
            limits: limits(platform),
        };
        (Platform(key.clone()), settings)
    });
    PoolSettings {
        platforms: platforms.collect(),
        hosts: hosts(settings),
        max_size: settings.pool.max_size,
        queue_max: settings.queue.max,
        pulls: PullSettings { waiters_max: settings.pulls.waiters_max, ..PullSettings::default() },
        breaker: breaker(settings),
    }
}

fn limits(platform: &PlatformPool) -> ResourceLimits {
    let set = |value: u32| Some(value).filter(|value| *value > 0);
    ResourceLimits {
        cpu_millis: set(platform.cpu_millis),
        memory_mib: set(platform.memory_mib),
        shm_mib: set(platform.shm_mib),
    }
}

/// The keys of limits that are set, though the driver cannot honour them.
pub(super) fn limits_without_effect(settings: &Settings) -> Vec<String> {
    match settings.driver.kind {
        DriverKind::Process => {
            let platforms = settings.served_platforms();
            let set = platforms.flat_map(|(key, platform)| platform.limits().map(|limit| (key, limit)));
            set.filter(|(_, (_, value))| *value > 0)
                .map(|(key, (limit, _))| format!("pool.platforms.{key}.{limit}"))
                .collect()
        }
        DriverKind::Docker | DriverKind::Coolify => vec![],
    }
}

/// Bots that may run on this engine's hosts together.
pub(super) fn bots_max(settings: &Settings) -> usize {
    hosts(settings).values().map(|host| host.capacity as usize).sum()
}

/// Whether this server can join the platform's meetings. Slots of another would never be used.
fn is_joined(settings: &Settings, key: &str) -> bool {
    let further = settings.further_platforms().collect();
    let offered = Offered { rehearsal: settings.rehearsal.enabled, own_hosts: vec![], further };
    meeting::platform(key, &offered).is_ok_and(|platform| platform.0 == key)
}

/// The hosts of the engine. Processes run on this one, whatever else is configured.
pub(super) fn hosts(settings: &Settings) -> BTreeMap<HostName, HostSettings> {
    let limits = |host: &Host| HostSettings { capacity: host.capacity };
    let hosts = settings.hosts.iter().map(|(name, host)| (HostName(name.clone()), limits(host)));
    match settings.driver.kind {
        // A Coolify of one server: whatever else is configured is none of its.
        DriverKind::Process | DriverKind::Coolify => {
            hosts.filter(|(name, _)| *name == HostName::local()).collect()
        }
        DriverKind::Docker => hosts.collect(),
    }
}

/// The engines of the hosts.
pub(super) fn docker_hosts(settings: &Settings) -> BTreeMap<HostName, EngineAddress> {
    let address = |host: &Host| EngineAddress {
        url: match host.docker_url.as_str() {
            "" => DEFAULT_SOCKET.to_owned(),
            url => url.to_owned(),
        },
        tls_dir: Some(host.docker_tls_dir.clone()).filter(|folder| !folder.as_os_str().is_empty()),
    };
    settings.hosts.iter().map(|(name, host)| (HostName(name.clone()), address(host))).collect()
}

/// The registries that ask who it is.
pub(super) fn registries(settings: &Settings) -> Vec<RegistryAccess> {
    let access = |registry: &Registry| RegistryAccess {
        server: registry.server.clone(),
        username: registry.username.clone(),
        password: registry.password.clone(),
    };
    settings.docker.registries.values().map(access).collect()
}

/// When a host whose engine does not answer is left alone.
fn breaker(settings: &Settings) -> BreakerSettings {
    let breaker = &settings.breaker;
    let ms = |value: u32| Duration::from_millis(u64::from(value));
    let probe = Backoff { first: ms(breaker.probe_first_ms), last: ms(breaker.probe_last_ms) };
    BreakerSettings { failures: breaker.failures, probe }
}

/// The Scheduler's settings.
pub(super) fn schedule(settings: &Settings) -> ScheduleSettings {
    let schedule = &settings.schedule;
    ScheduleSettings {
        lead: schedule.lead(),
        lateness: schedule.lateness(),
        burst: match settings.driver.kind {
            DriverKind::Coolify => schedule.burst.min(coolify_builds(settings)),
            DriverKind::Process | DriverKind::Docker => schedule.burst,
        },
        max: schedule.max,
    }
}

/// The Scaler's settings.
pub(super) fn scale(settings: &Settings) -> ScaleSettings {
    let scale = &settings.scale;
    let ms = |value: u32| TimeDelta::milliseconds(i64::from(value));
    ScaleSettings {
        enabled: scale.enabled,
        prewarm_on_startup: settings.pool.prewarm_on_startup,
        min_idle: scale.min_idle,
        up_at_percent: scale.up_at_percent,
        up_by: scale.up_by,
        down_at_percent: scale.down_at_percent,
        down_by: scale.down_by,
        cooldown: ms(scale.cooldown_ms),
        window: ms(scale.window_ms),
        look_ahead: ms(scale.look_ahead_ms),
    }
}

/// The Maintainer's settings.
pub(super) fn maintenance(settings: &Settings) -> MaintenanceSettings {
    let maintenance = &settings.maintenance;
    let days = |count: u32| (count > 0).then(|| TimeDelta::days(i64::from(count)));
    MaintenanceSettings {
        // Checked when it was read.
        timetable: maintenance.timetable().unwrap_or_default(),
        refresh_idle: days(maintenance.refresh_idle_days),
        retention: Retention {
            recordings: days(maintenance.keep_recordings_days),
            events: days(maintenance.keep_events_days),
            bots: days(maintenance.keep_bots_days),
            logs: days(maintenance.keep_logs_days),
        },
        disk_free_percent: maintenance.disk_free_percent,
    }
}

/// How a Coolify is reached and used.
pub(super) fn coolify(settings: &Settings, installation: Uuid, server_url: String) -> CoolifySettings {
    let coolify = &settings.coolify;
    let ms = |value: u32| Duration::from_millis(u64::from(value));
    CoolifySettings {
        url: coolify.url.clone(),
        token: coolify.token.clone(),
        project: coolify.project_uuid.clone(),
        environment: coolify.environment_name.clone(),
        server: coolify.server_uuid.clone(),
        destination: coolify.destination_uuid.clone(),
        installation,
        server_url,
        legacy_environment: legacy_environment(settings),
        stop_grace: Duration::from_millis(settings.bots.stop_grace_ms),
        pace: CoolifyPace {
            requests_per_minute: coolify.requests_per_minute,
            usual_deployment: ms(coolify.deployment_ms),
            start_limit: deploy_timeout(settings),
            deployment_poll: ms(coolify.deployment_poll_ms),
            status_poll: ms(coolify.status_poll_ms),
            status_lag: ms(coolify.status_lag_ms),
            ..CoolifyPace::default()
        },
    }
}

/// What is wished of the limits of Coolify's server.
pub(super) fn coolify_limits(settings: &Settings) -> WishedLimits {
    WishedLimits {
        concurrent_builds: settings.coolify.concurrent_builds as usize,
        queue_limit: settings.coolify.queue_limit as usize,
        raise: settings.coolify.raise_limits,
    }
}

/// Deployments that Coolify does at a time, as far as the configuration knows.
fn coolify_builds(settings: &Settings) -> u32 {
    match settings.coolify.concurrent_builds {
        0 => COOLIFY_BUILDS_USUAL,
        builds => builds,
    }
}

/// The storage keys that bots of the older design expect, for the platforms whose bots are such.
fn legacy_environment(settings: &Settings) -> BTreeMap<Platform, Vec<(String, Secret)>> {
    let s3 = &settings.s3;
    let values = [s3.endpoint.as_str(), &s3.access_key, s3.secret_key.expose(), &s3.bucket, &s3.region];
    let variables: Vec<_> = STORAGE_VARIABLES
        .into_iter()
        .zip(values)
        .map(|(name, value)| (name.to_owned(), Secret::from(value)))
        .collect();
    let platforms = settings.served_platforms().filter(|(_, platform)| platform.legacy_env);
    platforms.map(|(key, _)| (Platform(key.clone()), variables.clone())).collect()
}

/// From the end of the pull to the first sign of life. Where starts stand in a line of the driver's, what a full pool of
/// them takes counts too: nobody's start fails for having been the last.
fn deploy_timeout(settings: &Settings) -> Duration {
    let own = Duration::from_millis(settings.bots.deploy_timeout_ms);
    if settings.driver.kind != DriverKind::Coolify {
        return own;
    }
    let slots = u32::try_from(bots_max(settings)).unwrap_or(u32::MAX).min(settings.pool.max_size);
    let rounds = slots.div_ceil(coolify_builds(settings));
    own + Duration::from_millis(u64::from(settings.coolify.deployment_ms) * u64::from(rounds))
}

/// The slot machine's durations.
pub(super) fn timing(settings: &Settings) -> SlotTiming {
    let bots = &settings.bots;
    let ms = Duration::from_millis;
    SlotTiming {
        deploy: deploy_timeout(settings),
        start_elsewhere: bots.start_elsewhere_max,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn limits_that_the_driver_cannot_honour_are_named() {
        let loaded = |environment: &[(&str, &str)]| {
            let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            config::load(None, environment).expect("good").settings
        };
        assert_eq!(limits_without_effect(&loaded(&[])), Vec::<String>::new());
        let settings = loaded(&[("MEEBOTER_POOL__PLATFORMS__ZOOM__MEMORY_MIB", "2048")]);
        assert_eq!(limits_without_effect(&settings), ["pool.platforms.zoom.memory_mib"]);
        let limits = pool(&settings).platforms[&Platform("zoom".into())].limits;
        assert_eq!((limits.memory_mib, limits.cpu_millis), (Some(2048), None));
    }

    #[test]
    fn a_line_for_the_engine_counts_in_what_a_start_may_take() {
        let environment = [
            ("MEEBOTER_DRIVER__KIND", "coolify"),
            ("COOLIFY_API_URL", "https://coolify.example.com/api/v1"),
            ("COOLIFY_API_TOKEN", "1|secret"),
            ("COOLIFY_PROJECT_UUID", "p"),
            ("COOLIFY_SERVER_UUID", "s"),
            ("NEXT_PUBLIC_APP_ORIGIN_URL", "https://meeboter.example.com"),
            ("MAX_POOL_SIZE", "50"),
            ("S3_ENDPOINT", "http://minio:9000"),
            ("S3_ACCESS_KEY", "key"),
            ("S3_SECRET_KEY", "hidden"),
            ("MEEBOTER_POOL__PLATFORMS__ZOOM__LEGACY_ENV", "true"),
        ];
        let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let settings = config::load(None, environment).expect("good").settings;
        let (own, line) = (Duration::from_secs(600), Duration::from_secs(25 * 30));
        assert_eq!(timing(&settings).deploy, own + line);
        assert_eq!(schedule(&settings).burst, 2);
        let coolify = coolify(&settings, Uuid::nil(), "https://meeboter.example.com".to_owned());
        assert_eq!(coolify.pace.start_limit, own + line);
        assert_eq!(coolify.environment, "production");
        let zoom = &coolify.legacy_environment[&Platform("zoom".into())];
        assert!(zoom.iter().any(|(name, value)| name == "S3_SECRET_KEY" && value.expose() == "hidden"));
        assert_eq!(coolify.legacy_environment.len(), 1, "off where nobody asked for it");
        assert!(!format!("{coolify:?}").contains("secret") && !format!("{coolify:?}").contains("hidden"));
    }

    #[test]
    fn only_platforms_that_can_be_joined_are_prewarmed() {
        let prewarmed = |environment: &[(&str, &str)]| {
            let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let pool = pool(&config::load(None, environment).expect("good").settings);
            let counts = pool.platforms.into_iter().map(|(key, platform)| (key.0, platform.prewarm));
            counts.filter(|(_, count)| *count > 0).collect::<Vec<_>>()
        };
        let (on, count) = (("MEEBOTER_REHEARSAL__ENABLED", "true"), ("POOL_PREWARM_COUNT", "4"));
        assert_eq!(prewarmed(&[]), []);
        assert_eq!(prewarmed(&[on]), []);
        assert_eq!(prewarmed(&[count]), []);
        assert_eq!(prewarmed(&[on, count]), [("rehearsal".to_owned(), 4)]);
    }
}
