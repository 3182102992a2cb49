//! Applications as processes of the host: a whole Meeboter can be tried without Docker.

use super::containers::{ContainerSpec, ContainerState, Containers};
use super::lock;
use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// What a process inherits of the emulator's environment.
const INHERITED: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];
/// How long the end of a process that was killed is waited for.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of a log that are read for its last lines.
const LOG_TAIL_BYTES: usize = 64 * 1024;

/// Runs one program for every application, whatever its image, with the application's environment.
pub struct ProcessContainers {
    program: PathBuf,
    logs: PathBuf,
    children: Mutex<HashMap<String, Child>>,
}

impl ProcessContainers {
    /// Runs `program`; what it prints goes to files in the folder `logs`, which is there.
    pub fn new(program: PathBuf, logs: PathBuf) -> Self {
        Self { program, logs, children: Mutex::default() }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    fn spawn(&self, spec: &ContainerSpec) -> io::Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(&spec.name))?;
        let errors = log.try_clone()?;
        let inherited = INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
        // A session of its own, so that what it starts can be ended with it.
        Command::new("setsid")
            .arg(&self.program)
            .env_clear()
            .envs(inherited)
            .envs(spec.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
}

#[async_trait]
impl Containers for ProcessContainers {
    /// There is nothing to pull.
    async fn pull(&self, _image: &str) -> Result<(), String> {
        Ok(())
    }

    async fn start(&self, spec: &ContainerSpec) -> Result<(), String> {
        let child = self.spawn(spec).map_err(|error| format!("{}: {error}", self.program.display()))?;
        lock(&self.children).insert(spec.name.clone(), child);
        Ok(())
    }

    async fn stop(&self, name: &str, grace: Duration) -> Result<(), String> {
        let Some(mut child) = lock(&self.children).remove(name) else { return Ok(()) };
        let Some(pid) = pid_of(&child) else { return Ok(()) };
        // One that is gone already needs no signal.
        let _ = kill_process(pid, Signal::TERM);
        let ended = timeout(grace, child.wait()).await;
        let _ = kill_process_group(pid, Signal::KILL);
        if ended.is_err() {
            let killed = timeout(END_LIMIT, child.wait()).await;
            killed.map_err(|_| format!("process {} does not end", pid.as_raw_nonzero()))?.ok();
        }
        Ok(())
    }

    async fn state(&self, name: &str) -> ContainerState {
        match lock(&self.children).get_mut(name).map(Child::try_wait) {
            None => ContainerState::Absent,
            Some(Ok(None)) => ContainerState::Running,
            Some(_) => ContainerState::Exited,
        }
    }

    async fn logs(&self, name: &str, lines: usize) -> String {
        let path = self.log(name);
        let tail = tokio::task::spawn_blocking(move || read_tail(&path)).await;
        let text = tail.ok().and_then(Result::ok).unwrap_or_default();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

fn read_tail(path: &Path) -> io::Result<String> {
    let bytes = std::fs::read(path)?;
    let tail = &bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..];
    Ok(String::from_utf8_lossy(tail).into_owned())
}
