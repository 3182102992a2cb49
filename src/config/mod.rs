//! Settings: `config/default.toml` (embedded) < a file < the environment, checked at start. How the layers are read is
//! in `layers`; what the values mean is here. A mistake names the key, what was read and what is allowed.

mod layers;

use chrono::TimeDelta;
use layers::Layers;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The defaults, as a file to read.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The platform of the meetings that this server itself serves.
pub const REHEARSAL: &str = "rehearsal";

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting {key}: read {value} from {source_name}; it takes {takes}")]
pub struct ConfigError {
    /// The key, dotted.
    pub key: String,
    /// What was read.
    pub value: String,
    /// Where it was read.
    pub source_name: String,
    /// What is allowed.
    pub takes: String,
}

/// Everything that can be set. `config/default.toml` says what each key means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub server: Server,
    pub database: Database,
    pub s3: S3,
    pub pool: Pool,
    pub hosts: BTreeMap<String, Host>,
    pub breaker: Breaker,
    pub pulls: Pulls,
    pub images: Images,
    pub queue: Queue,
    pub schedule: Schedule,
    pub scale: Scale,
    pub bots: Bots,
    pub driver: Driver,
    pub rehearsal: Rehearsal,
    pub auth: Auth,
    pub log: Log,
}

impl Settings {
    /// The platforms that have a pool; rehearsals only where they are switched on.
    pub fn served_platforms(&self) -> impl Iterator<Item = (&String, &PlatformPool)> {
        self.pool.platforms.iter().filter(|(key, _)| self.rehearsal.enabled || *key != REHEARSAL)
    }
}

/// A value that is never printed.
#[derive(Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The value itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True where none is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs)]
        pub struct $name { $(pub $field: $type,)* }
    )*};
}

sections! {
    /// `[server]`
    Server {
        bind: String, port: u16, public_url: String, body_max_bytes: usize, in_flight_max: usize,
        decision_timeout_ms: u64, session_hours: u32,
    }
    /// `[database]`
    Database { url: Secret, pool_max: usize }
    /// `[s3]`
    S3 {
        endpoint: String, public_endpoint: String, access_key: String, secret_key: Secret, bucket: String,
        region: String,
    }
    /// `[pool]`
    Pool {
        max_size: u32, prewarm_count: i32, prewarm_on_startup: bool,
        platforms: BTreeMap<String, PlatformPool>,
    }
    /// `[pool.platforms.<key>]`
    PlatformPool {
        max_size: u32, image: String, enabled: bool, prewarm: u32, ephemeral: bool, cpu_millis: u32,
        memory_mib: u32, shm_mib: u32,
    }
    /// `[hosts.<name>]`
    Host { capacity: u32 }
    /// `[breaker]`
    Breaker { failures: u32, probe_first_ms: u32, probe_last_ms: u32 }
    /// `[pulls]`
    Pulls { waiters_max: u32 }
    /// `[images]`
    Images { ghcr_org: String, tag: String }
    /// `[queue]`
    Queue { max: u32, default_timeout_ms: u32 }
    /// `[schedule]`
    Schedule { max: u32, lead_ms: u32, lateness_ms: u32, burst: u32 }
    /// `[scale]`
    Scale {
        enabled: bool, min_idle: u32, look_ahead_ms: u32, window_ms: u32, up_at_percent: u32, up_by: u32,
        down_at_percent: u32, down_by: u32, cooldown_ms: u32,
    }
    /// `[bots]`
    Bots {
        heartbeat_interval_ms: u64, heartbeat_suspect_ms: u64, heartbeat_lost_ms: u64, segment_ms: u64,
        leave_grace_ms: u64, segment_grace_ms: u64, leave_limit_ms: u64, stop_grace_ms: u64,
        deploy_timeout_ms: u64, start_elsewhere_max: u32, max_duration_ms: u64, recovery_delay_ms: u64, recovery_interval_ms: u64,
        waiting_room_timeout_ms: u64, no_one_joined_timeout_ms: u64,
        everyone_left_timeout_ms: u64, inactivity_timeout_ms: u64,
    }
    /// `[driver]`
    Driver { kind: DriverKind, bot_program: PathBuf, server_url: String }
    /// `[rehearsal]`
    Rehearsal { enabled: bool }
    /// `[auth]`
    Auth { secret: Secret }
    /// `[log]`
    Log { level: LogLevel, format: LogFormat }
}

impl Pool {
    /// Slots that are made ahead for a platform that wishes for so many.
    pub fn prewarm(&self, platform: &PlatformPool) -> u32 {
        // Negative: each platform's own.
        u32::try_from(self.prewarm_count).unwrap_or(platform.prewarm)
    }
}

impl PlatformPool {
    /// What a container may use, by its key; 0: as much as the engine gives.
    pub fn limits(&self) -> [(&'static str, u32); 3] {
        [("cpu_millis", self.cpu_millis), ("memory_mib", self.memory_mib), ("shm_mib", self.shm_mib)]
    }
}

impl Schedule {
    /// How long before its start a bot is handed over at least.
    pub fn lead(&self) -> TimeDelta {
        TimeDelta::milliseconds(i64::from(self.lead_ms))
    }

    /// How long after its start time a bot is still started.
    pub fn lateness(&self) -> TimeDelta {
        TimeDelta::milliseconds(i64::from(self.lateness_ms))
    }
}

/// `driver.kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// Children of this machine.
    Process,
}

/// `log.level`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogFormat {
    Terminal,
    Json,
}

/// Settings, and what is worth a warning about them.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Sentences to log.
    pub warnings: Vec<String>,
}

/// Reads the layers. `environment` is the process's, or a test's.
pub fn load(
    file: Option<(&str, &str)>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::new(DEFAULTS)?;
    if let Some((name, text)) = file {
        layers.add_file(name, text)?;
    }
    layers.add_environment(environment)?;
    let (mut settings, layers): (Settings, Layers) = layers.read()?;
    check(&settings, &layers)?;
    if settings.data_dir.as_os_str().is_empty() {
        settings.data_dir = default_data_dir();
    }
    Ok(Loaded { settings, warnings: layers.warnings })
}

/// `/var/lib/meeboter` as root, else `~/.local/share/meeboter`.
pub fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/meeboter");
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(std::env::temp_dir);
    home.join(".local/share/meeboter")
}

fn check(settings: &Settings, layers: &Layers) -> Result<(), ConfigError> {
    let number = |key: &str, value: u64, from: u64, to: u64| {
        let takes = format!("a whole number from {from} to {to}");
        if (from..=to).contains(&value) { Ok(()) } else { Err(layers.error(key, takes)) }
    };
    let day_ms = 86_400_000;
    number("server.body_max_bytes", settings.server.body_max_bytes as u64, 1_024, 16_777_216)?;
    number("server.in_flight_max", settings.server.in_flight_max as u64, 1, 100_000)?;
    number("server.decision_timeout_ms", settings.server.decision_timeout_ms, 100, 60_000)?;
    number("server.session_hours", u64::from(settings.server.session_hours), 1, 24 * 365)?;
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
    for (name, host) in &settings.hosts {
        number(&format!("hosts.{name}.capacity"), u64::from(host.capacity), 0, 100_000)?;
    }
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

fn is_base_url(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        load(None, environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    }

    fn refused(environment: &[(&str, &str)]) -> String {
        read(environment).expect_err("must be refused").to_string()
    }

    #[test]
    fn the_defaults_are_good() {
        let settings = read(&[]).expect("the defaults are good").settings;
        assert_eq!((settings.server.port, settings.pool.max_size, settings.queue.max), (3000, 100, 1000));
        assert!(!settings.data_dir.as_os_str().is_empty());
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let file = Some(("own.toml", "[server]\nport = 1\nbind = \"::1\"\n"));
        let environment = [("MEEBOTER_SERVER__PORT".to_owned(), "2".to_owned())];
        let settings = load(file, environment).expect("good").settings;
        assert_eq!((settings.server.port, settings.server.bind.as_str()), (2, "::1"));
    }

    #[test]
    fn known_names_of_deployments_are_honoured() {
        let loaded = read(&[
            ("DATABASE_URL", "postgres://h/d"),
            ("MAX_POOL_SIZE", "7"),
            ("MINIO_BUCKET_NAME", "old"),
            ("S3_BUCKET_NAME", "new"),
            ("BOT_AUTH_TOKEN", "x"),
            ("MEEBOTER_POOL__PLATFORMS__GOOGLE_MEET__MAX_SIZE", "3"),
            ("S3_REGION", ""),
        ])
        .expect("good");
        let settings = loaded.settings;
        assert_eq!((settings.pool.max_size, settings.s3.bucket.as_str()), (7, "new"));
        assert_eq!(settings.pool.platforms["google-meet"].max_size, 3);
        assert_eq!(settings.s3.region, "us-east-1", "an empty variable is unset");
        assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
        assert_eq!(format!("{:?}", settings.database.url), "***");
    }

    #[test]
    fn a_count_for_all_platforms_replaces_their_own() {
        let prewarmed = |environment: &[(&str, &str)]| {
            let pool = read(environment).expect("good").settings.pool;
            (pool.prewarm(&pool.platforms["google-meet"]), pool.prewarm(&pool.platforms["rehearsal"]))
        };
        assert_eq!(prewarmed(&[]), (5, 0));
        assert_eq!(prewarmed(&[("POOL_PREWARM_COUNT", "2")]), (2, 2));
        assert_eq!(prewarmed(&[("POOL_PREWARM_COUNT", "0")]), (0, 0));
        let off = read(&[("POOL_PREWARM_ON_STARTUP", "false")]).expect("good").settings;
        assert!(!off.pool.prewarm_on_startup);
    }

    #[test]
    fn a_mistake_names_key_value_and_what_is_allowed() {
        let cases = [
            (
                ("MEEBOTER_SERVER__PORT", "abc"),
                ["server.port", "\"abc\"", "MEEBOTER_SERVER__PORT", "whole number"],
            ),
            (("MEEBOTER_SERVER__PORT", "70000"), ["server.port", "70000", "MEEBOTER_SERVER__PORT", "65535"]),
            (
                ("MEEBOTER_QUEUE__DEFAULT_TIMEOUT_MS", "600001"),
                ["queue.default_timeout_ms", "600001", "MEEB", "600000"],
            ),
            (
                ("MEEBOTER_SCHEDULE__LEAD_MS", "0"),
                ["schedule.lead_ms", "read 0 from", "MEEBOTER_SCHEDULE__LEAD_MS", "100 to 86400000"],
            ),
            (
                ("POOL_PREWARM_COUNT", "-2"),
                ["pool.prewarm_count", "-2", "POOL_PREWARM_COUNT", "-1 to 100000"],
            ),
            (("POOL_PREWARM_COUNT", "some"), ["pool.prewarm_count", "some", "POOL_PRE", "whole number"]),
            (("POOL_PREWARM_ON_STARTUP", "ja"), ["pool.prewarm_on_startup", "ja", "POOL_", "true or false"]),
            (
                ("MEEBOTER_SCALE__DOWN_AT_PERCENT", "80"),
                ["scale.down_at_percent", "80", "MEEBOTER_SCALE__DOWN_AT_PERCENT", "0 to 79"],
            ),
            (
                ("MEEBOTER_DRIVER__KIND", "podman"),
                ["driver.kind", "\"podman\"", "MEEBOTER_DRIVER__KIND", "process"],
            ),
            (
                ("MEEBOTER_SERVER__PROT", "1"),
                ["server.prot", "\"1\"", "MEEBOTER_SERVER__PROT", "server.port"],
            ),
            (
                ("NEXT_PUBLIC_APP_ORIGIN_URL", "meeboter"),
                ["server.public_url", "\"meeboter\"", "NEXT_PUBLIC", "https://"],
            ),
        ];
        for (variable, wanted) in cases {
            let message = refused(&[variable]);
            for part in wanted {
                assert!(message.contains(part), "{message:?} does not name {part:?}");
            }
        }
    }

    #[test]
    fn a_secret_is_not_repeated_in_a_mistake() {
        let message = refused(&[("AUTH_SECRET", "tooshort")]);
        assert!(message.contains("auth.secret") && !message.contains("tooshort"), "{message}");
    }

    #[test]
    fn an_unknown_key_in_a_file_is_a_mistake() {
        let message = load(Some(("own.toml", "[sever]\nport = 1\n")), []).expect_err("refused").to_string();
        assert!(message.contains("sever.port") && message.contains("own.toml"), "{message}");
    }
}
