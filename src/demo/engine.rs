//! What runs the demonstration's bots: this machine itself, or a Docker engine. What the server is told of it.

use crate::driver::docker::DEFAULT_SOCKET;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DemoDriver {
    /// Processes of this machine.
    Process,
    /// Containers of a Docker engine on this machine.
    Docker,
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

impl EngineOptions {
    /// Settings of the server, as environment variables.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        match self.driver {
            DemoDriver::Process => vec![],
            DemoDriver::Docker => vec![
                ("MEEBOTER_DRIVER__KIND", "docker".to_owned()),
                // The server listens on this machine's own address.
                ("MEEBOTER_DOCKER__NETWORK", "host".to_owned()),
                ("MEEBOTER_HOSTS__LOCAL__DOCKER_URL", self.docker_url.clone()),
                ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__IMAGE", self.image.clone().unwrap_or_default()),
                // Nothing stays on the engine when the server is gone.
                ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__PREPARE", "false".to_owned()),
            ],
        }
    }
}
