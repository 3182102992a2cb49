//! What runs the demonstration's bots: this machine itself, a Docker engine, or an emulated Coolify. What the server is
//! told of it.

use super::DemoError;
use crate::coolify_emulator::{
    Containers, DockerContainers, Emulator, EmulatorSettings, Pace, ProcessContainers, Site,
};
use crate::driver::docker::DEFAULT_SOCKET;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The emulator's token: it is nobody's secret.
const TOKEN: &str = "1|demonstration";

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DemoDriver {
    /// Processes of this machine.
    Process,
    /// Containers of a Docker engine on this machine.
    Docker,
    /// Applications of an emulated Coolify, which are containers where there is an image and processes else.
    Coolify,
}

/// What runs the bots.
#[derive(Debug, Clone, clap::Args)]
pub struct EngineOptions {
    /// What runs the bots.
    #[arg(long, value_enum, default_value_t = DemoDriver::Process)]
    pub driver: DemoDriver,
    /// The image of the bots' containers, which the engine has or can pull.
    #[arg(long, value_name = "IMAGE", required_if_eq("driver", "docker"))]
    pub image: Option<String>,
    /// The engine's address; it has to be on this machine.
    #[arg(long, value_name = "URL", default_value = DEFAULT_SOCKET)]
    pub docker_url: String,
}

/// What runs the bots, as the server is to use it.
pub(super) struct Engine {
    settings: Vec<(&'static str, String)>,
    /// Goes with the demonstration.
    emulator: Option<Emulator>,
}

impl Engine {
    /// Starts what is not there yet; logs go to the folder.
    pub(super) async fn start(options: &EngineOptions, logs: &Path) -> Result<Self, DemoError> {
        let image = options.image.clone().unwrap_or_default();
        Ok(match options.driver {
            DemoDriver::Process => Self { settings: vec![], emulator: None },
            DemoDriver::Docker => Self {
                settings: vec![
                    ("MEEBOTER_DRIVER__KIND", "docker".to_owned()),
                    // The server listens on this machine's own address.
                    ("MEEBOTER_DOCKER__NETWORK", "host".to_owned()),
                    ("MEEBOTER_HOSTS__LOCAL__DOCKER_URL", options.docker_url.clone()),
                    ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__IMAGE", image),
                    // Nothing stays on the engine when the server is gone.
                    ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__PREPARE", "false".to_owned()),
                ],
                emulator: None,
            },
            DemoDriver::Coolify => {
                let emulator = emulate(options, logs).await?;
                let site = Site::default();
                let settings = vec![
                    ("MEEBOTER_DRIVER__KIND", "coolify".to_owned()),
                    ("COOLIFY_API_URL", format!("{}/api/v1", emulator.url())),
                    ("COOLIFY_API_TOKEN", TOKEN.to_owned()),
                    ("COOLIFY_PROJECT_UUID", site.project),
                    ("COOLIFY_SERVER_UUID", site.server),
                    ("COOLIFY_ENVIRONMENT_NAME", site.environment),
                    ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__IMAGE", image),
                ];
                Self {
                    settings: settings.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
                    emulator: Some(emulator),
                }
            }
        })
    }

    /// Settings of a server at this address, as environment variables.
    pub(super) fn settings(&self, base: &str) -> Vec<(&'static str, String)> {
        let mut settings = self.settings.clone();
        settings.push(("MEEBOTER_DRIVER__SERVER_URL", base.to_owned()));
        settings
    }

    /// Ends what was started.
    pub(super) async fn end(self) {
        if let Some(emulator) = self.emulator {
            emulator.end().await;
        }
    }
}

async fn emulate(options: &EngineOptions, logs: &Path) -> Result<Emulator, DemoError> {
    let failed = |what| move |source| DemoError::System { what, source };
    let containers: Arc<dyn Containers> = match &options.image {
        Some(_) => {
            let connected = DockerContainers::connect(&options.docker_url).await;
            let connected = connected.map_err(io::Error::other);
            Arc::new(connected.map_err(failed("connecting to the Docker engine (--docker-url)"))?)
        }
        None => {
            let program = std::env::current_exe().map(|this| this.with_file_name("meeboter-bot"));
            let program = program.map_err(failed("finding this program's own file"))?;
            Arc::new(ProcessContainers::new(program, logs.to_owned()))
        }
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed("finding a free port"))?;
    let seconds = Duration::from_secs;
    // Quicker than a real one, and as late with what it knows.
    let pace = Pace {
        pull: seconds(2),
        build: seconds(1),
        stop: Duration::from_millis(500),
        look_after: seconds(1),
        look_interval: seconds(5),
        restart: seconds(1),
    };
    let started = Emulator::start(listener, EmulatorSettings::new(TOKEN, pace), containers).await;
    started.map_err(failed("starting the emulated Coolify"))
}
