//! An emulated Coolify, a driver for it, and what a test asks of both.

use super::openapi;
use meeboter::config::Secret;
use meeboter::coolify_emulator::{
    ContainerSpec, Emulator, EmulatorSettings, Fault, Pace, SimulatedContainers, Trouble,
};
use meeboter::driver::coolify::{CoolifyDriver, CoolifyPace, CoolifySettings};
use meeboter_actors::ids::{
    BotId, ContainerId, ContainerKey, Generation, HostName, Operation, Platform, SlotId, SlotName,
};
use meeboter_actors::ports::{
    Driver, DriverError, ListedContainer, ResourceLimits, StartRequest, StopRequest,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Nothing here takes this long, however busy the machine is.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
const TOKEN: &str = "1|a-token-of-tests";
pub(super) const IMAGE: &str = "ghcr.io/meeboter/zoom-bot:v1";

/// See the module.
pub(super) struct Workshop {
    pub(super) emulator: Emulator,
    pub(super) containers: Arc<SimulatedContainers>,
    pub(super) settings: CoolifySettings,
}

impl Workshop {
    pub(super) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// One whose Coolify is set up by the test.
    pub(super) async fn with(change: impl FnOnce(&mut EmulatorSettings)) -> Self {
        let mut coolify = EmulatorSettings::new(TOKEN, Pace::quick());
        coolify.rate_limit = 100_000;
        change(&mut coolify);
        let containers = Arc::<SimulatedContainers>::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = coolify.site.clone();
        let emulator = Emulator::start(listener, coolify, Arc::clone(&containers) as _).await.unwrap();
        let ms = Duration::from_millis;
        let settings = CoolifySettings {
            url: emulator.url(),
            token: Secret::from(TOKEN),
            project: site.project,
            environment: site.environment,
            server: site.server,
            destination: String::new(),
            installation: Uuid::new_v4(),
            server_url: "http://127.0.0.1:9".to_owned(),
            legacy_environment: BTreeMap::new(),
            stop_grace: Duration::from_secs(2),
            pace: CoolifyPace {
                requests_per_minute: 100_000,
                start_limit: LIMIT,
                answer_limit: Duration::from_secs(10),
                deployment_poll: ms(20),
                status_poll: ms(30),
                status_lag: ms(400),
                stop_repeat: ms(300),
                ..CoolifyPace::default()
            },
        };
        Self { emulator, containers, settings }
    }

    /// Every call is another server on the same Coolify.
    pub(super) fn driver(&self) -> Arc<CoolifyDriver> {
        let tokens = Arc::new(|slot, generation| format!("token-of-{slot}-{generation}"));
        let log = slog::Logger::root(slog::Discard, slog::o!());
        Arc::new(CoolifyDriver::new(self.settings.clone(), tokens, log).unwrap())
    }

    pub(super) fn fault(&self, method: &str, path: &str, trouble: Trouble, times: u32) {
        self.emulator.fault(Fault { method: Some(method.to_owned()), path: path.to_owned(), trouble, times });
    }

    /// The application of a name; there is one.
    pub(super) fn application(&self, name: &str) -> Value {
        let mut named = self.named(name);
        assert_eq!(named.len(), 1, "applications of the name {name}: {named:?}");
        named.remove(0)
    }

    pub(super) fn named(&self, name: &str) -> Vec<Value> {
        self.emulator.applications().into_iter().filter(|row| row["name"] == name).collect()
    }

    /// The containers of a generation that run.
    pub(super) fn running(&self, key: ContainerKey) -> Vec<ContainerSpec> {
        let own = |spec: &ContainerSpec| variable(spec, "MILO_AUTH_TOKEN").as_deref() == Some(&token(key));
        self.containers.running().into_iter().filter(own).collect()
    }

    /// How often a container of a generation was started.
    pub(super) fn starts(&self, key: ContainerKey) -> usize {
        let own = |spec: &&ContainerSpec| variable(spec, "MILO_AUTH_TOKEN").as_deref() == Some(&token(key));
        self.containers.started().iter().filter(own).count()
    }

    /// How many requests there were of a kind.
    pub(super) fn requests(&self, method: &str, path: &str) -> usize {
        let hits = self.emulator.requests();
        hits.iter().filter(|request| request.method == method && request.path.ends_with(path)).count()
    }

    /// Asks the emulator as somebody else with the same token does.
    pub(super) async fn by_hand(&self, method: reqwest::Method, path: &str) -> Value {
        let request =
            http().request(method, format!("{}/api/v1{path}", self.emulator.url())).bearer_auth(TOKEN);
        request.send().await.unwrap().json().await.unwrap()
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            openapi::check(&self.emulator.requests());
        }
    }
}

/// A client of whoever is not Meeboter.
pub(super) fn http() -> reqwest::Client {
    // Another test may have been first.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::new()
}

pub(super) fn here() -> HostName {
    HostName::local()
}

pub(super) fn key(slot: u32, generation: i64) -> ContainerKey {
    ContainerKey { slot: SlotId(Uuid::from_u128(u128::from(slot))), generation: Generation(generation) }
}

pub(super) fn token(key: ContainerKey) -> String {
    format!("token-of-{}-{}", key.slot, key.generation)
}

pub(super) fn slot_name(slot: u32) -> SlotName {
    SlotName::new(&Platform("zoom".to_owned()), slot)
}

pub(super) fn start(slot: u32, generation: i64) -> StartRequest {
    StartRequest {
        host: here(),
        key: key(slot, generation),
        slot_name: slot_name(slot),
        image: IMAGE.to_owned(),
        limits: ResourceLimits::default(),
        operation: Operation(10 * generation),
        bot_id: BotId(100 + i64::from(slot)),
        platform: Platform("zoom".to_owned()),
        ephemeral: false,
    }
}

pub(super) fn stop(slot: u32, generation: i64) -> StopRequest {
    StopRequest {
        host: here(),
        key: key(slot, generation),
        container: None,
        operation: Operation(10 * generation + 5),
        grace: Duration::from_secs(2),
    }
}

pub(super) fn variable(spec: &ContainerSpec, name: &str) -> Option<String> {
    spec.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
}

pub(super) async fn listed(driver: &CoolifyDriver) -> Vec<ContainerKey> {
    let mut keys: Vec<_> =
        driver.list(&here()).await.unwrap().iter().map(|ListedContainer { key, .. }| *key).collect();
    keys.sort();
    keys
}

pub(super) fn started(outcome: Result<ContainerId, DriverError>) -> ContainerId {
    outcome.unwrap_or_else(|error| panic!("not started: {error}"))
}

/// Waits until something holds.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came about that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
