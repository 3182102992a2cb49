//! The engine that the configuration names, with what only this server knows of it: how to build it, and what a changed
//! configuration means to it. What it does is in `driver`.

use super::{candidate, settings as wanted};
use crate::artifacts::S3Artifacts;
use crate::auth::Tokens;
use crate::config::{DriverKind, Settings};
use crate::driver::coolify::CoolifyDriver;
use crate::driver::coolify::probe::ProbeError;
use crate::driver::docker::{DockerDriver, DockerError, DockerSettings};
use crate::driver::process::{ProcessDriver, ProcessSettings};
use crate::driver::spools::{HostSpools, NoSpools, SpoolSource};
use meeboter_actors::ports::{Driver, Spools};
use slog::{Logger, warn};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// Work folders of past bots that are kept for people who look for a cause.
const WORK_FOLDERS_KEPT: usize = 50;

/// See the module.
#[derive(Clone)]
pub(super) enum Engine {
    /// Children of this machine.
    Process(Arc<ProcessDriver>),
    /// Containers of Docker engines.
    Docker(Arc<DockerDriver>),
    /// Applications of a Coolify.
    Coolify(Arc<CoolifyDriver>),
}

/// Why an engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An address or a certificate of Docker's is wrong.
    #[error("Docker's engines cannot be used (hosts)")]
    Docker(#[from] DockerError),
    /// The way to Coolify cannot be made.
    #[error("the way to Coolify cannot be set up (coolify.url)")]
    CoolifyClient(#[source] io::Error),
    /// What the settings name is not there, or may not be used.
    #[error("Coolify cannot be used")]
    Coolify(#[from] ProbeError),
}

/// What an engine is built from.
pub(super) struct Basis<'a> {
    pub(super) settings: &'a Settings,
    pub(super) data_dir: &'a Path,
    pub(super) installation: Uuid,
    pub(super) tokens: Tokens,
    /// Where this server listens.
    pub(super) address: SocketAddr,
    pub(super) log: &'a Logger,
}

impl Engine {
    /// Builds the one that is configured. Asks it nothing: an engine that is away must not keep the server from starting.
    pub(super) fn build(basis: Basis<'_>) -> Result<Self, EngineError> {
        let Basis { settings, data_dir, installation, tokens, address, log } = basis;
        for key in wanted::limits_without_effect(settings) {
            warn!(log, "a limit has no effect: this driver cannot set it"; "key" => key,
                "driver" => format!("{:?}", settings.driver.kind).to_lowercase());
        }
        let work_root = candidate::work_root(data_dir);
        let server_url = server_url(settings, address);
        let source = Arc::new(move |slot, generation| tokens.slot(slot, generation));
        Ok(match settings.driver.kind {
            DriverKind::Process => {
                let process = ProcessSettings {
                    bot_program: bot_program(settings),
                    work_root,
                    installation,
                    server_url,
                    bots_max: wanted::bots_max(settings),
                    folders_kept: WORK_FOLDERS_KEPT,
                };
                Self::Process(Arc::new(ProcessDriver::new(process, source, log.clone())))
            }
            DriverKind::Docker => {
                let docker = DockerSettings {
                    hosts: wanted::docker_hosts(settings),
                    registries: wanted::registries(settings),
                    network: Some(settings.docker.network.clone()).filter(|network| !network.is_empty()),
                    log_max_mib: settings.docker.log_max_mib,
                    work_root,
                    installation,
                    server_url,
                    folders_kept: WORK_FOLDERS_KEPT,
                };
                Self::Docker(Arc::new(DockerDriver::new(docker, source, log.clone())?))
            }
            DriverKind::Coolify => {
                let coolify = wanted::coolify(settings, installation, server_url);
                let driver = CoolifyDriver::new(coolify, source, log.clone());
                Self::Coolify(Arc::new(driver.map_err(EngineError::CoolifyClient)?))
            }
        })
    }

    /// Asks the engine whether the settings are right, where only it can say. One that is away says nothing about them.
    pub(super) async fn probe(&self, settings: &Settings, log: &Logger) -> Result<(), EngineError> {
        let Self::Coolify(coolify) = self else { return Ok(()) };
        match coolify.probe(wanted::coolify_limits(settings)).await {
            Err(error) if error.is_passing() => {
                warn!(log, "Coolify does not answer; whether its settings are right is not known"; "error" => %error);
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    /// What runs containers.
    pub(super) fn driver(&self) -> Arc<dyn Driver> {
        match self {
            Self::Process(process) => Arc::clone(process) as Arc<dyn Driver>,
            Self::Docker(docker) => Arc::clone(docker) as Arc<dyn Driver>,
            Self::Coolify(coolify) => Arc::clone(coolify) as Arc<dyn Driver>,
        }
    }

    /// What its bots recorded and did not live to upload, on its way to `artifacts`.
    pub(super) fn spools(&self, artifacts: S3Artifacts) -> Arc<dyn Spools> {
        let source: Arc<dyn SpoolSource> = match self {
            Self::Process(process) => Arc::clone(process) as _,
            Self::Docker(docker) => Arc::clone(docker) as _,
            // They are in containers of another machine.
            Self::Coolify(_) => return Arc::new(NoSpools),
        };
        Arc::new(HostSpools::new(source, artifacts))
    }

    /// Tells it of what may change while the server runs.
    pub(super) fn configure(&self, settings: &Settings) -> Result<(), EngineError> {
        match self {
            Self::Process(process) => process.limit(wanted::bots_max(settings)),
            Self::Docker(docker) => docker.configure(wanted::docker_hosts(settings))?,
            // How many bots there may be is the pool's to say; the rest counts from the next start on.
            Self::Coolify(_) => {}
        }
        Ok(())
    }
}

/// Where bots reach this server. That there is an address was checked when the settings were read.
fn server_url(settings: &Settings, address: SocketAddr) -> String {
    let (own, public) = (&settings.driver.server_url, &settings.server.public_url);
    let shares_network = match settings.driver.kind {
        DriverKind::Process => true,
        DriverKind::Docker => settings.docker.network == "host",
        DriverKind::Coolify => false,
    };
    let configured = if own.is_empty() && !shares_network { public } else { own };
    match configured.trim_end_matches('/') {
        "" if address.ip().is_unspecified() => format!("http://127.0.0.1:{}", address.port()),
        "" => format!("http://{address}"),
        configured => configured.to_owned(),
    }
}

/// The configured bot program, or `meeboter-bot` beside this one.
fn bot_program(settings: &Settings) -> PathBuf {
    if !settings.driver.bot_program.as_os_str().is_empty() {
        return settings.driver.bot_program.clone();
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("meeboter-bot")));
    beside.unwrap_or_else(|| PathBuf::from("meeboter-bot"))
}
