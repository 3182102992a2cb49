//! The screen of a bot: an X server without hardware, of its own.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::process::{Child, SpawnError, Spawner};

/// Width of the picture in pixels.
pub(crate) const WIDTH: u32 = 1280;
/// Height of the picture in pixels.
pub(crate) const HEIGHT: u32 = 720;
/// The screen is this much larger than the picture: Chromium makes a window as large as its screen a pixel smaller.
const MARGIN: u32 = 16;
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A screen that could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DisplayError {
    /// The program did not start.
    #[error("the display cannot be started")]
    Spawn(#[from] SpawnError),
    /// It started, and did not come up.
    #[error("Xvfb did not say its display number within {} s", READY_TIMEOUT.as_secs())]
    NotReady,
}

/// A running X server.
#[derive(Debug)]
pub(crate) struct Display {
    server: Child,
    number: u32,
}

impl Display {
    /// Starts one on the first free number.
    pub(crate) async fn start(spawner: &Spawner) -> Result<Self, DisplayError> {
        let mut command = spawner.command("Xvfb");
        command.args([
            "-displayfd",
            "1",
            "-screen",
            "0",
            &format!("{}x{}x24", WIDTH + MARGIN, HEIGHT + MARGIN),
        ]);
        command.args(["-nolisten", "tcp", "-noreset", "-dpi", "96"]).stdout(Stdio::piped());
        let mut server = spawner.spawn("Xvfb", command)?;
        let stdout = server.take_stdout().ok_or(DisplayError::NotReady)?;
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        let read = tokio::time::timeout(READY_TIMEOUT, reader.read_line(&mut line)).await;
        let number = match read {
            Ok(Ok(_)) => line.trim().parse().map_err(|_| DisplayError::NotReady)?,
            Ok(Err(_)) | Err(_) => return Err(DisplayError::NotReady),
        };
        Ok(Self { server, number })
    }

    /// The value of `DISPLAY` for its clients.
    pub(crate) fn name(&self) -> String {
        format!(":{}", self.number)
    }

    /// Ends it; it removes its lock file only when asked politely.
    pub(crate) async fn stop(self) {
        self.server.stop(Signal::TERM, Duration::from_secs(3)).await;
    }
}
