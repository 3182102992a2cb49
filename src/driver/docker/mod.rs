//! Bots as containers of Docker engines: one container a generation, made ahead while its slot is free, removed after its
//! one use. A slot stays on its host.
//!
//! The engines are the state: what a container is called and labelled says whose it is, so that any server of this
//! installation finds it again.
//!
//! All limits that can be configured are honoured. A container's token is in its environment, which whoever may use the
//! engine can read: it is worth nothing beyond its one generation.

mod container;
mod engine;
mod error;
mod events;
mod fences;
mod lifecycle;
mod pull;
mod reference;
mod remains;

pub use error::DockerError;

use super::TokenSource;
use super::folders::Folders;
use super::spools::SpoolSource;
use super::tasks::Tasks;
use crate::config::Secret;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use container::{Recipe, Wanted};
use engine::Engine;
use fences::Fences;
use meeboter_actors::ids::{ContainerId, ContainerKey, HostName};
use meeboter_actors::ports::{
    Driver, DriverError, EngineEvent, ImageDigest, ListedContainer, PrepareRequest, Presence, PullProgress,
    Pulled, Spool, StartRequest, StopRequest,
};
use slog::Logger;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// Where an engine is looked for that has no address.
pub const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";

/// Where an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineAddress {
    /// `unix:///path` or `tcp://host:port`.
    pub url: String,
    /// Folder of `ca.pem`, `cert.pem` and `key.pem`; `None`: without TLS.
    pub tls_dir: Option<PathBuf>,
}

/// Who this server is to a registry.
#[derive(Debug, Clone)]
pub struct RegistryAccess {
    /// The registry, as images name it: `ghcr.io`.
    pub server: String,
    /// The name.
    pub username: String,
    /// The password or token.
    pub password: Secret,
}

/// How bots are run.
#[derive(Debug, Clone)]
pub struct DockerSettings {
    /// The engines, by the hosts' names.
    pub hosts: BTreeMap<HostName, EngineAddress>,
    /// Registries that ask who it is.
    pub registries: Vec<RegistryAccess>,
    /// The containers' network; `None`: the engine's own.
    pub network: Option<String>,
    /// What a container's log may take up, in MiB.
    pub log_max_mib: u32,
    /// Where on this server what bots leave is brought to.
    pub work_root: PathBuf,
    /// Whose bots they are: those of another installation are never touched.
    pub installation: Uuid,
    /// Base URL of this server, as a container reaches it.
    pub server_url: String,
    /// Folders of stopped generations that are kept, for people who look for a cause.
    pub folders_kept: usize,
}

/// See the module.
pub struct DockerDriver {
    settings: DockerSettings,
    engines: RwLock<BTreeMap<HostName, Arc<Engine>>>,
    fences: Arc<Fences>,
    folders: Folders,
    tokens: TokenSource,
    tasks: Tasks,
    log: Logger,
}

impl DockerDriver {
    /// A driver whose tasks run on the present runtime. No engine is asked yet.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(settings: DockerSettings, tokens: TokenSource, log: Logger) -> Result<Self, DockerError> {
        let folders = Folders::new(settings.work_root.clone());
        let (hosts, engines) = (settings.hosts.clone(), RwLock::default());
        let (fences, tasks) = (Arc::default(), Tasks::here());
        let driver = Self { settings, engines, fences, folders, tokens, tasks, log };
        driver.configure(hosts)?;
        Ok(driver)
    }

    /// Uses these engines from now on. One whose address did not change goes on as it is, with the TLS files of now.
    pub fn configure(&self, hosts: BTreeMap<HostName, EngineAddress>) -> Result<(), DockerError> {
        for address in hosts.values() {
            address.check()?;
        }
        let mut engines = self.engines.write().unwrap_or_else(PoisonError::into_inner);
        engines.retain(|host, engine| hosts.get(host) == Some(&engine.address));
        for engine in engines.values().filter(|engine| engine.address.tls_dir.is_some()) {
            engine.forget_client();
        }
        for (host, address) in hosts {
            engines.entry(host.clone()).or_insert_with(|| Arc::new(self.engine(host, address)));
        }
        Ok(())
    }

    fn engine(&self, host: HostName, address: EngineAddress) -> Engine {
        let DockerSettings { installation, server_url, network, log_max_mib, .. } = &self.settings;
        Engine::new(engine::Place {
            host,
            address,
            registries: self.settings.registries.clone(),
            recipe: Recipe {
                installation: *installation,
                server_url: server_url.clone(),
                network: network.clone(),
                log_max_mib: *log_max_mib,
            },
            folders: self.folders.clone(),
            folders_kept: self.settings.folders_kept,
            log: self.log.clone(),
        })
    }

    fn at(&self, host: &HostName) -> Result<Arc<Engine>, DockerError> {
        let engines = self.engines.read().unwrap_or_else(PoisonError::into_inner);
        engines.get(host).cloned().ok_or_else(|| DockerError::UnknownHost(host.clone()))
    }
}

impl EngineAddress {
    /// Whether the files of an address with TLS can be read; what is in them shows with the first call.
    fn check(&self) -> Result<(), DockerError> {
        let Some(folder) = &self.tls_dir else { return Ok(()) };
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            std::fs::File::open(folder.join(name)).map_err(|error| DockerError::Tls {
                folder: folder.clone(),
                words: format!("{name}: {error}"),
            })?;
        }
        Ok(())
    }
}

#[async_trait]
impl Driver for DockerDriver {
    async fn pull(
        &self,
        host: &HostName,
        image: &str,
        progress: watch::Sender<PullProgress>,
    ) -> Result<Pulled, DriverError> {
        let (engine, image) = (self.at(host)?, image.to_owned());
        // Others may wait for it by now.
        self.tasks.finish(async move { engine.pull(&image, &progress).await }).await
    }

    fn prepares(&self, _host: &HostName) -> bool {
        true
    }

    async fn prepare(&self, request: PrepareRequest) -> Result<ContainerId, DriverError> {
        let PrepareRequest { host, key, slot_name, image, limits, operation } = request;
        let (engine, fences) = (self.at(&host)?, Arc::clone(&self.fences));
        let token = (self.tokens)(key.slot, key.generation);
        let order = async move {
            let wanted = Wanted { key, slot_name: &slot_name, image: &image, limits, token: &token };
            engine.prepare(wanted, operation, &fences).await
        };
        self.tasks.finish(order).await
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        let StartRequest { host, key, slot_name, image, limits, operation, .. } = request;
        let (engine, fences) = (self.at(&host)?, Arc::clone(&self.fences));
        let token = (self.tokens)(key.slot, key.generation);
        let order = async move {
            let wanted = Wanted { key, slot_name: &slot_name, image: &image, limits, token: &token };
            engine.start(wanted, operation, &fences).await
        };
        self.tasks.finish(order).await
    }

    async fn wait_exit(&self, host: &HostName, key: ContainerKey) -> Result<String, DriverError> {
        let engine = self.at(host)?;
        self.tasks.wait(async move { engine.wait_exit(key).await }).await
    }

    async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        let StopRequest { host, key, container: _, operation, grace } = request;
        let (engine, fences) = (self.at(&host)?, Arc::clone(&self.fences));
        self.tasks.finish(async move { engine.stop(key, operation, grace, &fences).await }).await
    }

    async fn inspect(&self, host: &HostName, key: ContainerKey) -> Result<Presence, DriverError> {
        let engine = self.at(host)?;
        let found = self.tasks.wait(async move { engine.find(key).await }).await?;
        Ok(found.map_or(Presence::Gone, |found| found.presence))
    }

    async fn list(&self, host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        let engine = self.at(host)?;
        self.tasks.wait(async move { engine.list().await }).await
    }

    async fn resolve(&self, host: &HostName, image: &str) -> Result<Option<ImageDigest>, DriverError> {
        let (engine, image) = (self.at(host)?, image.to_owned());
        self.tasks.wait(async move { engine.resolve(&image).await }).await
    }

    async fn logs(&self, host: &HostName, key: ContainerKey, lines: u32) -> Result<Vec<String>, DriverError> {
        let engine = self.at(host)?;
        self.tasks.wait(async move { engine.logs(key, lines).await }).await
    }

    async fn sweep(
        &self,
        host: &HostName,
        wanted: &BTreeSet<ContainerKey>,
        before: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        let listed = self.list(host).await?;
        let spared =
            listed.into_iter().map(|container| container.key).chain(wanted.iter().copied()).collect();
        let engine = self.at(host)?;
        self.tasks.finish(async move { engine.sweep(spared, before).await }).await
    }

    async fn watch(&self, host: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        let engine = self.at(host)?;
        self.tasks.wait(async move { engine.watch(&events).await }).await
    }
}

#[async_trait]
impl SpoolSource for DockerDriver {
    /// Those that were brought here; what is still in a container is brought when it is removed.
    async fn spools(&self) -> Result<Vec<Spool>, DriverError> {
        let folders = self.folders.clone();
        remains::blocking(move || folders.spools()).await.map_err(local)
    }

    async fn spooled(&self, key: ContainerKey) -> Result<Vec<(u32, PathBuf)>, DriverError> {
        let folders = self.folders.clone();
        remains::blocking(move || folders.spooled(key)).await.map_err(local)
    }
}

fn local(error: std::io::Error) -> DriverError {
    let message = format!("the folders of past bots cannot be read: {error}");
    DriverError { message, answered: true, retryable: true }
}
