//! A driver on a real engine, with a slot of its own for each test.

use crate::support::dockerd::Dockerd;
use crate::support::scripted_bot;
use meeboter::driver::docker::{DockerDriver, DockerSettings, EngineAddress, RegistryAccess};
use meeboter_actors::ids::{
    BotId, ContainerId, ContainerKey, Generation, HostName, Operation, Platform, SlotId, SlotName,
};
use meeboter_actors::ports::{
    Driver, DriverError, PrepareRequest, Presence, ResourceLimits, StartRequest, StopRequest,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

/// Nothing here takes this long, however busy the machine is.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// How soon an end must be noticed.
pub(super) const NOTICED: Duration = Duration::from_secs(5);
/// Time between two looks while waiting.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// The engine that tests share which do it no harm. It goes with the process.
pub(super) async fn shared() -> &'static Dockerd {
    static SHARED: OnceCell<Dockerd> = OnceCell::const_new();
    let start = || async {
        let dockerd = Dockerd::start().await;
        scripted_bot::import_all(&dockerd);
        dockerd
    };
    SHARED.get_or_init(start).await
}

/// The only host of these drivers.
pub(super) fn here() -> HostName {
    HostName::local()
}

/// One slot, and what drivers of its installation are made of.
pub(super) struct Workshop {
    pub(super) installation: Uuid,
    pub(super) slot: SlotId,
    pub(super) root: TempDir,
    host: String,
    pub(super) tls_dir: Option<PathBuf>,
    pub(super) registries: Vec<RegistryAccess>,
}

impl Workshop {
    pub(super) fn on(dockerd: &Dockerd) -> Self {
        Self::at(dockerd.host())
    }

    pub(super) fn at(host: String) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (installation, slot) = (Uuid::new_v4(), SlotId(Uuid::new_v4()));
        Self { installation, slot, root, host, tls_dir: None, registries: vec![] }
    }

    /// A driver; every call is another server that works on the same engine.
    pub(super) fn driver(&self) -> Arc<DockerDriver> {
        self.driver_of(self.installation)
    }

    pub(super) fn driver_of(&self, installation: Uuid) -> Arc<DockerDriver> {
        let address = EngineAddress { url: self.host.clone(), tls_dir: self.tls_dir.clone() };
        let settings = DockerSettings {
            hosts: BTreeMap::from([(here(), address)]),
            registries: self.registries.clone(),
            network: Some("host".to_owned()),
            log_max_mib: 4,
            work_root: self.work_root().to_owned(),
            installation,
            server_url: "http://127.0.0.1:9".to_owned(),
            folders_kept: 50,
        };
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let tokens = Arc::new(|slot, generation| format!("token-of-{slot}-{generation}"));
        Arc::new(DockerDriver::new(settings, tokens, log).unwrap())
    }

    pub(super) fn work_root(&self) -> &Path {
        self.root.path()
    }

    pub(super) fn key(&self, generation: i64) -> ContainerKey {
        ContainerKey { slot: self.slot, generation: Generation(generation) }
    }

    pub(super) fn prepare(&self, generation: i64, script: &str) -> PrepareRequest {
        PrepareRequest {
            host: here(),
            key: self.key(generation),
            slot_name: SlotName("pool-zoom-001".to_owned()),
            image: scripted_bot::reference(script),
            limits: ResourceLimits::default(),
            operation: Operation(1),
        }
    }

    pub(super) fn start(&self, generation: i64, script: &str) -> StartRequest {
        let PrepareRequest { host, key, slot_name, image, limits, operation } =
            self.prepare(generation, script);
        let (bot_id, platform) = (BotId(7), Platform("zoom".to_owned()));
        StartRequest { host, key, slot_name, image, limits, operation, bot_id, platform, ephemeral: false }
    }

    /// Nobody is left to wait for: these bots do not hear a signal.
    pub(super) fn stop(&self, generation: i64) -> StopRequest {
        StopRequest {
            host: here(),
            key: self.key(generation),
            container: None,
            operation: Operation(2),
            grace: Duration::ZERO,
        }
    }
}

/// Waits until a container is as it should be.
pub(super) async fn until_present(driver: &DockerDriver, key: ContainerKey, presence: Presence) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = driver.inspect(&here(), key).await;
        if found == Ok(presence) {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?} is not {presence:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The engine's name for what was made.
pub(super) fn made(container: Result<ContainerId, DriverError>) -> String {
    container.unwrap().0
}
