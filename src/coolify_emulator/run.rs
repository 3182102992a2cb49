//! The emulator as a command of the program.

use super::{
    Containers, DockerContainers, Emulator, EmulatorSettings, Pace, ProcessContainers, SimulatedContainers,
    Site, Token,
};
use clap::Args;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

/// Why the emulator does not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// It cannot listen, or cannot be set up.
    #[error("the emulator cannot start on {bind}:{port}")]
    Start {
        /// The address.
        bind: IpAddr,
        /// The port.
        port: u16,
        /// Why not.
        source: io::Error,
    },
}

/// How the emulator is run.
#[derive(Debug, Clone, Args)]
pub struct EmulatorOptions {
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// Port to listen on; 0: any free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// The token that clients send.
    #[arg(long, default_value = "1|emulator")]
    token: String,
    /// The program that every application runs, with the application's environment; without it they run nothing.
    #[arg(long)]
    program: Option<PathBuf>,
    /// The socket of a Docker engine, such as unix:///var/run/docker.sock, whose containers every application is.
    #[arg(long, conflicts_with = "program")]
    docker: Option<String>,
    /// Where the programs' output goes; without it, a temporary folder.
    #[arg(long, requires = "program")]
    log_dir: Option<PathBuf>,
    /// The first pull of an image, in milliseconds.
    #[arg(long, default_value_t = 10_000)]
    pull_ms: u64,
    /// A deployment beyond its pull, in milliseconds.
    #[arg(long, default_value_t = 5_000)]
    build_ms: u64,
    /// A stop or a deletion, in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    stop_ms: u64,
    /// How old statuses get, in milliseconds.
    #[arg(long, default_value_t = 60_000)]
    look_ms: u64,
    /// Deployments at a time.
    #[arg(long, default_value_t = 2)]
    concurrent_builds: usize,
    /// Deployments that may wait.
    #[arg(long, default_value_t = 25)]
    queue_limit: usize,
    /// Requests a minute.
    #[arg(long, default_value_t = 200)]
    rate_limit: u32,
}

impl EmulatorOptions {
    fn settings(&self) -> EmulatorSettings {
        let ms = Duration::from_millis;
        let pace = Pace {
            pull: ms(self.pull_ms),
            build: ms(self.build_ms),
            stop: ms(self.stop_ms),
            look_after: ms(self.stop_ms),
            look_interval: ms(self.look_ms.max(10)),
            restart: ms(1_000),
        };
        let site = Site {
            concurrent_builds: self.concurrent_builds,
            queue_limit: self.queue_limit,
            ..Site::default()
        };
        EmulatorSettings {
            site,
            tokens: vec![Token::for_a_pool(&self.token)],
            rate_limit: self.rate_limit,
            ..EmulatorSettings::new(&self.token, pace)
        }
    }
}

/// Runs it until a signal says to stop.
pub async fn run(options: EmulatorOptions) -> Result<(), RunError> {
    let (bind, port) = (options.bind, options.port);
    let failed = |source| RunError::Start { bind, port, source };
    let temporary = tempfile::Builder::new().prefix("coolify-emulator-").tempdir().map_err(failed)?;
    let containers: Arc<dyn Containers> = match (&options.program, &options.docker) {
        (None, None) => Arc::<SimulatedContainers>::default(),
        (None, Some(url)) => {
            let connected = DockerContainers::connect(url).await;
            Arc::new(connected.map_err(|error| failed(io::Error::other(error)))?)
        }
        (Some(program), _) => {
            let logs = options.log_dir.clone().unwrap_or_else(|| temporary.path().to_owned());
            std::fs::create_dir_all(&logs).map_err(failed)?;
            Arc::new(ProcessContainers::new(program.clone(), logs))
        }
    };
    let settings = options.settings();
    let site = settings.site.clone();
    let listener = TcpListener::bind((bind, port)).map_err(failed)?;
    let emulator = Emulator::start(listener, settings, containers).await.map_err(failed)?;
    println!("An emulated Coolify. A server uses it with these variables:");
    println!("  MEEBOTER_DRIVER__KIND=coolify");
    println!("  COOLIFY_API_URL={}/api/v1", emulator.url());
    println!("  COOLIFY_API_TOKEN='{}'", options.token);
    println!("  COOLIFY_PROJECT_UUID={}", site.project);
    println!("  COOLIFY_SERVER_UUID={}", site.server);
    println!("  COOLIFY_ENVIRONMENT_NAME={}", site.environment);
    println!("  COOLIFY_DESTINATION_UUID={}", site.destinations.join(","));
    let (mut interrupt, mut terminate) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            (Err(error), _) | (_, Err(error)) => return Err(failed(error)),
        };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    emulator.end().await;
    Ok(())
}
