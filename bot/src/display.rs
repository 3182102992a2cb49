//! The screen of a bot: an X server without hardware, of its own.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::ChildStdout;

use crate::process::{Child, SpawnError, Spawner};

/// Width of the picture in pixels.
pub(crate) const WIDTH: u32 = 1280;
/// Height of the picture in pixels.
pub(crate) const HEIGHT: u32 = 720;
/// The screen is this much larger than the picture: Chromium makes a window as large as its screen a pixel smaller.
const MARGIN: u32 = 16;
/// A display number is shorter than this.
const LINE_MAX_BYTES: u64 = 64;
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A screen that could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DisplayError {
    /// The program did not start.
    #[error("the display cannot be started")]
    Spawn(#[from] SpawnError),
    /// It started, and did not come up.
    #[error("Xvfb did not say its display number within {} s; it said: {said}", READY_TIMEOUT.as_secs())]
    NotReady {
        /// Its last words.
        said: String,
    },
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
        let number = match server.take_stdout() {
            Some(stdout) => tokio::time::timeout(READY_TIMEOUT, read_number(stdout)).await.ok().flatten(),
            None => None,
        };
        match number {
            Some(number) => Ok(Self { server, number }),
            None => Err(DisplayError::NotReady { said: server.last_words() }),
        }
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

async fn read_number(stdout: ChildStdout) -> Option<u32> {
    let mut line = String::new();
    BufReader::new(stdout.take(LINE_MAX_BYTES)).read_line(&mut line).await.ok()?;
    line.trim().parse().ok()
}
