//! What the values of settings may be, one with another. A mistake names the key, what was read and what is allowed.

use super::layers::Layers;
use super::{ConfigError, DriverKind, Maintenance, Scale, Settings};
use crate::driver::docker::DEFAULT_SOCKET;
use meeboter_actors::maintenance::timetable::TimetableError;
use std::collections::BTreeMap;

/// Everything that a type does not say.
pub(super) fn check(settings: &Settings, layers: &Layers) -> Result<(), ConfigError> {
    let number = |key: &str, value: u64, from: u64, to: u64| {
        let takes = format!("a whole number from {from} to {to}");
        if (from..=to).contains(&value) { Ok(()) } else { Err(layers.error(key, takes)) }
    };
    let day_ms = 86_400_000;
    number("server.body_max_bytes", settings.server.body_max_bytes as u64, 1_024, 16_777_216)?;
    number("server.in_flight_max", settings.server.in_flight_max as u64, 1, 100_000)?;
    number("server.creations_per_s_max", u64::from(settings.server.creations_per_s_max), 0, 1_000_000)?;
    number("server.decision_timeout_ms", settings.server.decision_timeout_ms, 100, 60_000)?;
    number("server.session_hours", u64::from(settings.server.session_hours), 1, 24 * 365)?;
    number("server.websockets_max", settings.server.websockets_max as u64, 1, 100_000)?;
    number("server.websockets_per_user_max", settings.server.websockets_per_user_max as u64, 1, 100_000)?;
    number("database.pool_max", settings.database.pool_max as u64, 2, 500)?;
    number("pool.max_size", u64::from(settings.pool.max_size), 1, 100_000)?;
    if !(-1..=100_000).contains(&settings.pool.prewarm_count) {
        return Err(layers.error("pool.prewarm_count", "a whole number from -1 to 100000".to_owned()));
    }
    for (name, platform) in &settings.pool.platforms {
        for (limit, value) in platform.limits() {
            number(&format!("pool.platforms.{name}.{limit}"), u64::from(value), 0, 100_000_000)?;
        }
    }
    check_scale(&settings.scale, &number)?;
    check_maintenance(&settings.maintenance, layers, &number)?;
    for key in settings.pool.platforms.keys() {
        if !is_platform_key(key) {
            let takes = "a key of small letters, digits and dashes, that is no other platform's alias";
            return Err(layers.error(&format!("pool.platforms.{key}"), takes.to_owned()));
        }
    }
    check_engine(settings, layers, &number)?;
    let breaker = &settings.breaker;
    let (first_ms, last_ms) = (u64::from(breaker.probe_first_ms), u64::from(breaker.probe_last_ms));
    number("breaker.failures", u64::from(breaker.failures), 1, 1_000)?;
    number("breaker.probe_first_ms", first_ms, 100, day_ms)?;
    number("breaker.probe_last_ms", last_ms, first_ms, day_ms)?;
    number("pulls.waiters_max", u64::from(settings.pulls.waiters_max), 1, 100_000)?;
    number("queue.max", u64::from(settings.queue.max), 0, 1_000_000)?;
    number("queue.default_timeout_ms", u64::from(settings.queue.default_timeout_ms), 0, 600_000)?;
    let schedule = &settings.schedule;
    number("schedule.max", u64::from(schedule.max), 0, 1_000_000)?;
    number("schedule.lead_ms", u64::from(schedule.lead_ms), 100, day_ms)?;
    number("schedule.lateness_ms", u64::from(schedule.lateness_ms), 0, day_ms)?;
    number("schedule.burst", u64::from(schedule.burst), 1, 100_000)?;
    let bots = &settings.bots;
    number("bots.heartbeat_interval_ms", bots.heartbeat_interval_ms, 500, 60_000)?;
    number("bots.heartbeat_suspect_ms", bots.heartbeat_suspect_ms, bots.heartbeat_interval_ms, day_ms)?;
    number("bots.heartbeat_lost_ms", bots.heartbeat_lost_ms, bots.heartbeat_suspect_ms, day_ms)?;
    number("bots.segment_ms", bots.segment_ms, 1_000, 60_000)?;
    number("bots.leave_grace_ms", bots.leave_grace_ms, 1_000, day_ms)?;
    number("bots.segment_grace_ms", bots.segment_grace_ms, 1_000, day_ms)?;
    number("bots.leave_limit_ms", bots.leave_limit_ms, bots.leave_grace_ms, day_ms)?;
    number("bots.stop_grace_ms", bots.stop_grace_ms, 100, 600_000)?;
    number("bots.deploy_timeout_ms", bots.deploy_timeout_ms, 1_000, day_ms)?;
    number("bots.start_elsewhere_max", u64::from(bots.start_elsewhere_max), 0, 100)?;
    number("bots.max_duration_ms", bots.max_duration_ms, 1_000, 7 * day_ms)?;
    number("bots.recovery_delay_ms", bots.recovery_delay_ms, 100, day_ms)?;
    number("bots.recovery_interval_ms", bots.recovery_interval_ms, bots.recovery_delay_ms, day_ms)?;
    number("bots.waiting_room_timeout_ms", bots.waiting_room_timeout_ms, 1_000, day_ms)?;
    number("bots.no_one_joined_timeout_ms", bots.no_one_joined_timeout_ms, 1_000, day_ms)?;
    number("bots.everyone_left_timeout_ms", bots.everyone_left_timeout_ms, 1_000, day_ms)?;
    number("bots.inactivity_timeout_ms", bots.inactivity_timeout_ms, 1_000, day_ms)?;
    for (key, url) in [
        ("server.public_url", &settings.server.public_url),
        ("s3.endpoint", &settings.s3.endpoint),
        ("s3.public_endpoint", &settings.s3.public_endpoint),
        ("driver.server_url", &settings.driver.server_url),
    ] {
        if !url.is_empty() && !is_base_url(url) {
            return Err(layers.error(key, "an address such as https://host:port, without a path".to_owned()));
        }
    }
    let secret = settings.auth.secret.expose();
    if !secret.is_empty() && secret.len() < 32 {
        return Err(layers.error("auth.secret", "at least 32 characters".to_owned()));
    }
    if !settings.s3.endpoint.is_empty()
        && (settings.s3.access_key.is_empty() || settings.s3.secret_key.is_empty())
    {
        return Err(layers
            .error("s3.access_key", "a key, and s3.secret_key too, where s3.endpoint is set".to_owned()));
    }
    if settings.s3.bucket.len() < 3 {
        return Err(layers.error("s3.bucket", "a bucket's name".to_owned()));
    }
    Ok(())
}

fn check_engine(
    settings: &Settings,
    layers: &Layers,
    number: &impl Fn(&str, u64, u64, u64) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    number("docker.log_max_mib", u64::from(settings.docker.log_max_mib), 1, 1_000_000)?;
    for (name, host) in &settings.hosts {
        number(&format!("hosts.{name}.capacity"), u64::from(host.capacity), 0, 100_000)?;
        if !host.docker_url.is_empty() && !is_engine_url(&host.docker_url) {
            let takes = "a socket such as unix:///var/run/docker.sock, or tcp://host:2376";
            return Err(layers.error(&format!("hosts.{name}.docker_url"), takes.to_owned()));
        }
        let is_local = host.docker_url.is_empty() || host.docker_url.starts_with("unix:");
        if is_local && !host.docker_tls_dir.as_os_str().is_empty() {
            let takes = "a folder only where docker_url is an address such as tcp://host:2376";
            return Err(layers.error(&format!("hosts.{name}.docker_tls_dir"), takes.to_owned()));
        }
    }
    check_engines_differ(settings, layers)?;
    check_coolify(settings, layers, number)?;
    let reachable = !settings.driver.server_url.is_empty() || !settings.server.public_url.is_empty();
    if settings.driver.kind == DriverKind::Docker && settings.docker.network != "host" && !reachable {
        let takes = "the address that bots' containers reach this server by, such as http://172.17.0.1:3000 \
            (or set server.public_url, or docker.network = \"host\")";
        return Err(layers.error("driver.server_url", takes.to_owned()));
    }
    if settings.driver.kind == DriverKind::Coolify && !reachable {
        let takes =
            "the address that bots on Coolify's server reach this server by (or set server.public_url)";
        return Err(layers.error("driver.server_url", takes.to_owned()));
    }
    Ok(())
}

/// Two names of one engine would have room for twice as many bots as it has.
fn check_engines_differ(settings: &Settings, layers: &Layers) -> Result<(), ConfigError> {
    let mut engines: BTreeMap<&str, &str> = BTreeMap::new();
    let open = settings.hosts.iter().filter(|(_, host)| host.capacity > 0);
    for (name, host) in open.filter(|_| settings.driver.kind == DriverKind::Docker) {
        let url = if host.docker_url.is_empty() { DEFAULT_SOCKET } else { &host.docker_url };
        if let Some(other) = engines.insert(url, name) {
            let takes = format!("another engine than hosts.{other}'s, or hosts.{other}.capacity = 0");
            return Err(layers.error(&format!("hosts.{name}.docker_url"), takes));
        }
    }
    Ok(())
}

fn check_coolify(
    settings: &Settings,
    layers: &Layers,
    number: &impl Fn(&str, u64, u64, u64) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    let coolify = &settings.coolify;
    number("coolify.requests_per_minute", u64::from(coolify.requests_per_minute), 10, 100_000)?;
    number("coolify.concurrent_builds", u64::from(coolify.concurrent_builds), 0, 1_000)?;
    number("coolify.queue_limit", u64::from(coolify.queue_limit), 0, 100_000)?;
    number("coolify.deployment_ms", u64::from(coolify.deployment_ms), 10, 3_600_000)?;
    number("coolify.deployment_poll_ms", u64::from(coolify.deployment_poll_ms), 10, 60_000)?;
    number("coolify.status_poll_ms", u64::from(coolify.status_poll_ms), 10, 600_000)?;
    number("coolify.status_lag_ms", u64::from(coolify.status_lag_ms), 0, 3_600_000)?;
    let url = coolify.url.trim_end_matches('/');
    if !url.is_empty() && !is_base_url(url.strip_suffix("/api/v1").unwrap_or(url)) {
        let takes = "Coolify's address, such as https://coolify.example.com";
        return Err(layers.error("coolify.url", takes.to_owned()));
    }
    let legacy = settings.pool.platforms.iter().find(|(_, platform)| platform.legacy_env);
    if let Some((key, _)) = legacy.filter(|_| settings.s3.endpoint.is_empty()) {
        let takes = "true only where s3.endpoint is set: bots cannot reach the embedded object store by keys";
        return Err(layers.error(&format!("pool.platforms.{key}.legacy_env"), takes.to_owned()));
    }
    if settings.driver.kind != DriverKind::Coolify {
        return Ok(());
    }
    for (key, is_set, takes) in [
        ("coolify.url", !url.is_empty(), "Coolify's address, such as https://coolify.example.com"),
        ("coolify.token", !coolify.token.is_empty(), "a token, from Keys & Tokens → API tokens in Coolify"),
        (
            "coolify.project_uuid",
            !coolify.project_uuid.is_empty(),
            "the UUID in the address of a project's page",
        ),
        (
            "coolify.server_uuid",
            !coolify.server_uuid.is_empty(),
            "the UUID in the address of a server's page",
        ),
        (
            "coolify.environment_name",
            !coolify.environment_name.is_empty(),
            "the name of one of its environments",
        ),
    ] {
        if !is_set {
            return Err(layers.error(key, takes.to_owned()));
        }
    }
    Ok(())
}

fn check_scale(
    scale: &Scale,
    number: &impl Fn(&str, u64, u64, u64) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    let day_ms = 86_400_000;
    let up_at_percent = u64::from(scale.up_at_percent);
    number("scale.min_idle", u64::from(scale.min_idle), 0, 100_000)?;
    number("scale.look_ahead_ms", u64::from(scale.look_ahead_ms), 0, day_ms)?;
    number("scale.window_ms", u64::from(scale.window_ms), 10_000, 3_600_000)?;
    number("scale.up_at_percent", up_at_percent, 1, 100)?;
    number("scale.up_by", u64::from(scale.up_by), 1, 100_000)?;
    number("scale.down_at_percent", u64::from(scale.down_at_percent), 0, up_at_percent - 1)?;
    number("scale.down_by", u64::from(scale.down_by), 1, 100_000)?;
    number("scale.cooldown_ms", u64::from(scale.cooldown_ms), 10_000, day_ms)
}

fn check_maintenance(
    maintenance: &Maintenance,
    layers: &Layers,
    number: &impl Fn(&str, u64, u64, u64) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    let years_100 = 36_500;
    number("maintenance.refresh_idle_days", u64::from(maintenance.refresh_idle_days), 0, years_100)?;
    number("maintenance.keep_recordings_days", u64::from(maintenance.keep_recordings_days), 0, years_100)?;
    number("maintenance.keep_events_days", u64::from(maintenance.keep_events_days), 0, years_100)?;
    number("maintenance.keep_bots_days", u64::from(maintenance.keep_bots_days), 0, years_100)?;
    number("maintenance.keep_logs_days", u64::from(maintenance.keep_logs_days), 0, years_100)?;
    number("maintenance.disk_free_percent", u64::from(maintenance.disk_free_percent), 0, 99)?;
    match maintenance.timetable() {
        Ok(_) => Ok(()),
        Err(TimetableError::Zone(_)) => {
            let takes = "a time zone of the IANA database, such as UTC or Europe/Berlin";
            Err(layers.error("maintenance.time_zone", takes.to_owned()))
        }
        Err(error) => {
            let takes = format!("a cron expression such as \"0 3 * * *\", or \"\" ({error})");
            Err(layers.error("maintenance.cron", takes))
        }
    }
}

/// Slots and images are named by it; aliases of the documented platforms never reach a section of their own.
fn is_platform_key(key: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let whole = !key.starts_with('-') && !key.ends_with('-') && (1..=40).contains(&key.len());
    whole && key.chars().all(plain) && !["google", "meet", "teams"].contains(&key)
}

fn is_engine_url(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| match url.scheme() {
        "unix" => !url.has_host() && url.path().len() > 1,
        "tcp" => url.has_host() && url.port().is_some() && matches!(url.path(), "" | "/"),
        _ => false,
    })
}

fn is_base_url(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none()
    })
}
