//! The sound of a bot: a PulseAudio server of its own with two sinks that lead nowhere, `speaker` (recorded by way of
//! its monitor) and `silence` (its monitor is the microphone, so that a meeting never hears itself), and a meter on the
//! speaker.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{ChildStdout, Command};

use crate::process::{Child, SpawnError, Spawner};

/// The recorded source.
pub(crate) const MONITOR: &str = "speaker.monitor";
const READY_TIMEOUT: Duration = Duration::from_secs(15);
/// Samples above this (of 32767) are sound: about -60 dBFS.
const AUDIBLE_LEVEL: u16 = 33;

/// Sound that could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SoundError {
    /// A program did not start.
    #[error("the sound server cannot be started")]
    Spawn(#[from] SpawnError),
    /// Its folder or script cannot be written.
    #[error("cannot write the sound server's set-up in {}", path.display())]
    Write {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It started, and did not come up.
    #[error("the sound server did not open its socket within {} s; it said: {said}", READY_TIMEOUT.as_secs())]
    NotReady {
        /// Its last words.
        said: String,
    },
}

/// A running sound server.
#[derive(Debug)]
pub(crate) struct Sound {
    server: Child,
    meter: Option<Child>,
    heard: Arc<AtomicBool>,
    meter_alive: Arc<AtomicBool>,
    folder: PathBuf,
}

impl Sound {
    /// Starts one whose files are in `folder`, which has to be short: a socket's path has at most 107 bytes.
    pub(crate) async fn start(spawner: &Spawner, folder: &Path) -> Result<Self, SoundError> {
        let write = |source| SoundError::Write { path: folder.to_owned(), source };
        let script = folder.join("setup.pa");
        let socket = folder.join("native");
        std::fs::write(&script, setup_script(&socket)).map_err(write)?;
        let mut command = spawner.command("pulseaudio");
        command.args([
            "-n",
            "--daemonize=no",
            "--use-pid-file=no",
            "--exit-idle-time=-1",
            "--disable-shm=yes",
        ]);
        command.args(["--realtime=no", "--high-priority=yes", "--log-target=stderr", "--log-level=error"]);
        command.arg("-F").arg(&script);
        environment(&mut command, folder);
        let mut server = spawner.spawn("pulseaudio", command)?;
        let began = Instant::now();
        // The socket is the last line of the script: once it answers, the sinks are there.
        while UnixStream::connect(&socket).await.is_err() {
            if began.elapsed() >= READY_TIMEOUT || server.exited().is_some() {
                return Err(SoundError::NotReady { said: server.last_words() });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let heard = Arc::new(AtomicBool::new(false));
        Ok(Self {
            server,
            meter: None,
            heard,
            meter_alive: Arc::new(AtomicBool::new(false)),
            folder: folder.to_owned(),
        })
    }

    /// Lets a program play into this server.
    pub(crate) fn lend_to_player(&self, command: &mut Command) {
        environment(command, &self.folder);
        // More than a player would ask for: on a busy machine a short buffer runs dry, which is heard.
        command.env("PULSE_LATENCY_MSEC", "150");
    }

    /// Lets a program record from this server.
    pub(crate) fn lend_to_recorder(&self, command: &mut Command) {
        environment(command, &self.folder);
    }

    /// Starts listening for sound.
    pub(crate) fn start_meter(&mut self, spawner: &Spawner) -> Result<(), SoundError> {
        let mut command = spawner.command("parec");
        command.args(["--device", MONITOR, "--raw", "--format=s16le", "--rate=8000", "--channels=1"]);
        command.args(["--latency-msec=200"]).stdout(Stdio::piped());
        environment(&mut command, &self.folder);
        let mut meter = spawner.spawn("parec", command)?;
        if let Some(stdout) = meter.take_stdout() {
            self.meter_alive.store(true, Ordering::Relaxed);
            tokio::spawn(listen(stdout, self.heard.clone(), self.meter_alive.clone()));
        }
        self.meter = Some(meter);
        Ok(())
    }

    /// Whether there was sound since the last time this was asked; `None` where nobody listens.
    pub(crate) fn take_audible(&self) -> Option<bool> {
        self.meter_alive.load(Ordering::Relaxed).then(|| self.heard.swap(false, Ordering::Relaxed))
    }

    /// True where the server has ended by itself. Chromium plays into no other one that takes its place.
    pub(crate) fn is_gone(&mut self) -> bool {
        self.server.exited().is_some()
    }

    /// Ends server and meter.
    pub(crate) async fn stop(self) {
        drop(self.meter);
        self.server.stop(Signal::TERM, Duration::from_secs(3)).await;
    }
}

fn setup_script(socket: &Path) -> String {
    let socket = socket.display();
    // An explicit rate: what the browser plays and what is recorded then needs no resampling.
    format!(
        "load-module module-null-sink sink_name=speaker rate=48000 channels=2\n\
         load-module module-null-sink sink_name=silence rate=48000 channels=2\n\
         set-default-sink speaker\n\
         set-default-source silence.monitor\n\
         load-module module-native-protocol-unix socket={socket} auth-anonymous=1 auth-cookie-enabled=0\n"
    )
}

fn environment(command: &mut Command, folder: &Path) {
    command.env("PULSE_SERVER", format!("unix:{}", folder.join("native").display()));
    command.env("PULSE_RUNTIME_PATH", folder).env("PULSE_STATE_PATH", folder).env("XDG_RUNTIME_DIR", folder);
    command.env_remove("PULSE_SINK").env_remove("PULSE_SOURCE");
    // No session bus: a found one would be somebody else's desktop.
    command.env("DBUS_SESSION_BUS_ADDRESS", "disabled:");
}

async fn listen(mut samples: ChildStdout, heard: Arc<AtomicBool>, alive: Arc<AtomicBool>) {
    let mut buffer = [0_u8; 4096];
    while let Ok(count) = samples.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        if is_audible(&buffer[..count]) {
            heard.store(true, Ordering::Relaxed);
        }
    }
    alive.store(false, Ordering::Relaxed);
}

fn is_audible(bytes: &[u8]) -> bool {
    bytes.chunks_exact(2).any(|pair| i16::from_le_bytes([pair[0], pair[1]]).unsigned_abs() > AUDIBLE_LEVEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_below_sixty_decibels_is_silence() {
        let bytes = |sample: i16| sample.to_le_bytes().repeat(100);
        assert!(!is_audible(&bytes(0)));
        assert!(!is_audible(&bytes(33)));
        assert!(is_audible(&bytes(-34)));
        assert!(is_audible(&bytes(i16::MIN)));
    }
}
