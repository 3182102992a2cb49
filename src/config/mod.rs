//! Settings: `config/default.toml` (embedded) < a file < the environment, checked at start. How the layers are read is
//! in `layers`, what is allowed in `check`; what the values mean is here. A mistake names the key, what was read and what
//! is allowed.

mod check;
mod layers;

use chrono::TimeDelta;
use layers::Layers;
use meeboter_actors::maintenance::timetable::{Timetable, TimetableError};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// The defaults, as a file to read.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The platform of the meetings that this server itself serves.
pub const REHEARSAL: &str = "rehearsal";

/// Platforms of the documents.
pub const DOCUMENTED: [&str; 3] = ["google-meet", "microsoft-teams", "zoom"];

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
    pub maintenance: Maintenance,
    pub bots: Bots,
    pub driver: Driver,
    pub docker: Docker,
    pub coolify: Coolify,
    pub rehearsal: Rehearsal,
    pub auth: Auth,
    pub log: Log,
}

impl Settings {
    /// The platforms that have a pool; rehearsals only where they are switched on.
    pub fn served_platforms(&self) -> impl Iterator<Item = (&String, &PlatformPool)> {
        self.pool.platforms.iter().filter(|(key, _)| self.rehearsal.enabled || *key != REHEARSAL)
    }

    /// The keys of platforms that are neither documented nor this server's own.
    pub fn further_platforms(&self) -> impl Iterator<Item = &str> {
        let known = |key: &&str| DOCUMENTED.contains(key) || *key == REHEARSAL;
        self.pool.platforms.keys().map(String::as_str).filter(move |key| !known(key))
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

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
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
        creations_per_s_max: u32, decision_timeout_ms: u64, session_hours: u32,
        websockets_max: usize, websockets_per_user_max: usize,
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
        max_size: u32, image: String, enabled: bool, prewarm: u32, ephemeral: bool, prepare: bool,
        legacy_env: bool,
        cpu_millis: u32, memory_mib: u32, shm_mib: u32,
    }
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
    /// `[maintenance]`
    Maintenance {
        cron: String, time_zone: String, refresh_idle_days: u32, keep_recordings_days: u32,
        keep_events_days: u32, keep_bots_days: u32, keep_logs_days: u32, disk_free_percent: u32,
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
    /// `[docker]`
    Docker { network: String, log_max_mib: u32, registries: BTreeMap<String, Registry> }
    /// `[docker.registries.<name>]`
    Registry { server: String, username: String, password: Secret }
    /// `[coolify]`
    Coolify {
        url: String, token: Secret, project_uuid: String, environment_name: String, server_uuid: String,
        destination_uuid: String, requests_per_minute: u32, concurrent_builds: u32, queue_limit: u32,
        raise_limits: bool, deployment_ms: u32, deployment_poll_ms: u32, status_poll_ms: u32, status_lag_ms: u32,
    }
    /// `[rehearsal]`
    Rehearsal { enabled: bool }
    /// `[auth]`
    Auth { secret: Secret }
    /// `[log]`
    Log { level: LogLevel, format: LogFormat }
}

/// `[hosts.<name>]`; what it does not say does not count for it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Host {
    pub capacity: u32,
    #[serde(default)]
    pub docker_url: String,
    #[serde(default)]
    pub docker_tls_dir: PathBuf,
}

impl Pool {
    /// Slots that are made ahead for a platform that wishes for so many.
    pub fn prewarm(&self, platform: &PlatformPool) -> u32 {
        // Negative: each platform's own.
        u32::try_from(self.prewarm_count).unwrap_or(platform.prewarm)
    }
}

impl Maintenance {
    /// When it is due; `None`: only when an operator asks.
    pub fn timetable(&self) -> Result<Option<Timetable>, TimetableError> {
        if self.cron.is_empty() {
            return Ok(None);
        }
        Timetable::parse(&self.cron, &self.time_zone).map(Some)
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
    /// Containers of Docker engines.
    Docker,
    /// Applications of a Coolify.
    Coolify,
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
    /// Every key with its value as text, to see later what has changed. Holds secrets: it is for comparing alone.
    pub values: Values,
}

/// Keys, dotted, with their values as text.
pub type Values = BTreeMap<String, String>;

/// Where this server's settings come from, so that they can be read again while it runs.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file over the defaults.
    pub file: Option<PathBuf>,
}

/// Why settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not to be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One of them cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Source {
    /// Reads the defaults, the file and this process's environment.
    pub fn load(&self) -> Result<Loaded, LoadError> {
        let file = match &self.file {
            Some(path) => {
                let read = std::fs::read_to_string(path);
                let text = read.map_err(|source| LoadError::File { path: path.clone(), source })?;
                Some((path.display().to_string(), text))
            }
            None => None,
        };
        let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
        let environment = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        Ok(load(file, environment)?)
    }
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
    layers.complete_platforms();
    let (mut settings, layers): (Settings, Layers) = layers.read()?;
    check::check(&settings, &layers)?;
    if settings.data_dir.as_os_str().is_empty() {
        settings.data_dir = default_data_dir();
    }
    Ok(Loaded { settings, values: layers.flat(), warnings: layers.warnings })
}

/// `/var/lib/meeboter` as root, else `~/.local/share/meeboter`.
pub fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/meeboter");
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(std::env::temp_dir);
    home.join(".local/share/meeboter")
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
    fn a_further_platform_is_as_zoom_where_it_does_not_say_otherwise() {
        let file = "[pool.platforms.my-video]\nmax_size = 2\nprewarm = 0\n";
        let environment = [("MEEBOTER_POOL__PLATFORMS__ZOOM__ENABLED".to_owned(), "false".to_owned())];
        let pool = load(Some(("own.toml", file)), environment).expect("good").settings.pool;
        let own = &pool.platforms["my-video"];
        assert_eq!((own.max_size, own.prewarm, own.enabled, own.image.as_str()), (2, 0, true, ""));
        assert!(!pool.platforms["zoom"].enabled);
        for key in ["My_Video", "teams", "-x", ""] {
            let file = format!("[pool.platforms.\"{key}\"]\nmax_size = 2\n");
            let error = load(Some(("own.toml", &file)), []).expect_err("refused").to_string();
            assert!(error.contains("pool.platforms"), "{error}");
        }
    }

    #[test]
    fn an_engine_has_an_address_and_its_bots_have_one_of_this_server() {
        let own = |text: &str| load(Some(("own.toml", text)), []);
        let host = |keys: &str| format!("[docker]\nnetwork = \"host\"\n[hosts.far]\ncapacity = 3\n{keys}\n");
        let far = own(&host("docker_url = \"tcp://far:2376\"\ndocker_tls_dir = \"/tls\"")).expect("good");
        assert_eq!(far.settings.hosts["far"].docker_url, "tcp://far:2376");
        assert_eq!(own(&host("")).expect("good").settings.hosts["far"].docker_url, "");
        for (keys, named) in [
            ("docker_url = \"far:2376\"", "hosts.far.docker_url"),
            ("docker_url = \"tcp://far\"", "hosts.far.docker_url"),
            ("docker_url = \"unix://\"", "hosts.far.docker_url"),
            ("docker_tls_dir = \"/tls\"", "hosts.far.docker_tls_dir"),
            ("docker_ulr = \"\"", "docker_ulr"),
        ] {
            let error = own(&host(keys)).expect_err("refused").to_string();
            assert!(error.contains(named), "{keys}: {error}");
        }
        let kind = ("MEEBOTER_DRIVER__KIND", "docker");
        assert!(refused(&[kind]).contains("driver.server_url"));
        assert!(read(&[kind, ("MEEBOTER_DRIVER__SERVER_URL", "http://h:1")]).is_ok());
        let docker = |capacity| {
            format!("{}[hosts.local]\ncapacity = {capacity}\n[driver]\nkind = \"docker\"\n", host(""))
        };
        assert!(own(&docker(0)).is_ok(), "no bot goes to one of the two names");
        let twice = own(&docker(1)).expect_err("refused").to_string();
        assert!(twice.contains("hosts.local.docker_url") && twice.contains("hosts.far"), "{twice}");
        let secret = ("MEEBOTER_DOCKER__REGISTRIES__GHCR__PASSWORD", "no word");
        let incomplete = refused(&[secret]);
        assert!(incomplete.contains("docker.registries") && !incomplete.contains("no word"), "{incomplete}");
    }

    #[test]
    fn maintenance_is_due_by_cron_and_zone() {
        let timetable =
            |environment: &[(&str, &str)]| read(environment).expect("good").settings.maintenance.timetable();
        assert!(timetable(&[]).expect("good").is_some());
        let refused = |key: &str, value: &str| refused(&[(key, value)]);
        assert!(refused("MEEBOTER_MAINTENANCE__CRON", "at three").contains("maintenance.cron"));
        assert!(refused("MEEBOTER_MAINTENANCE__TIME_ZONE", "Mars").contains("maintenance.time_zone"));
        assert!(refused("MEEBOTER_MAINTENANCE__DISK_FREE_PERCENT", "100").contains("from 0 to 99"));
        let off = load(Some(("own.toml", "[maintenance]\ncron = \"\"\n")), []).expect("good").settings;
        assert_eq!(off.maintenance.timetable(), Ok(None));
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
    fn what_coolify_needs_is_asked_for_by_name() {
        let (kind, own) =
            (("MEEBOTER_DRIVER__KIND", "coolify"), ("NEXT_PUBLIC_APP_ORIGIN_URL", "https://m.example"));
        let mut environment = vec![kind, own];
        for (key, variable, value) in [
            ("coolify.url", "COOLIFY_API_URL", "https://coolify.example.com"),
            ("coolify.token", "COOLIFY_API_TOKEN", "1|secret"),
            ("coolify.project_uuid", "COOLIFY_PROJECT_UUID", "p"),
            ("coolify.server_uuid", "COOLIFY_SERVER_UUID", "s"),
        ] {
            let message = refused(&environment);
            assert!(message.contains(key) && !message.contains("secret"), "{message}");
            environment.push((variable, value));
        }
        assert_eq!(read(&environment).expect("good").settings.coolify.environment_name, "production");
        environment.retain(|variable| *variable != own);
        assert!(refused(&environment).contains("driver.server_url"));
        let legacy = ("MEEBOTER_POOL__PLATFORMS__ZOOM__LEGACY_ENV", "true");
        assert!(refused(&[legacy]).contains("pool.platforms.zoom.legacy_env"));
        assert!(refused(&[("COOLIFY_API_URL", "coolify")]).contains("coolify.url"));
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
