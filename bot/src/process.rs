//! Child processes: each in its own process group, each marked in its environment, none outliving this program.
//!
//! Three nets, one below the other: a [`Child`] ends its group when dropped; where `setpriv` is installed, the kernel
//! ends a child with its parent even where the parent was killed; and [`Remains`], dropped last, ends
//! whatever still carries the marker or descends from this process.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use slog::{Logger, debug, o};
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, Command};

/// In the environment of every child: the nonce of the program that started it.
const ENV_MARKER: &str = "MEEBOTER_BOT_NONCE";
const SETPRIV: &str = "/usr/bin/setpriv";
/// How long the last sweep waits for what it asked to end.
const SWEEP_GRACE: Duration = Duration::from_millis(800);
const SWEEP_LIMIT: Duration = Duration::from_secs(5);
/// How much of what a child said last is kept.
const LAST_WORDS_BYTES: usize = 1_000;

/// A child that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {program}; is it installed?")]
pub(crate) struct SpawnError {
    program: String,
    #[source]
    source: std::io::Error,
}

/// Starts children; clones start children with the same marker.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    marker: String,
    has_setpriv: bool,
    log: Logger,
}

impl Spawner {
    /// Children will be marked with `nonce`.
    pub(crate) fn new(nonce: uuid::Uuid, log: &Logger) -> Self {
        Self { marker: nonce.to_string(), has_setpriv: Path::new(SETPRIV).exists(), log: log.clone() }
    }

    /// A command for `program` that will not outlive this program; stdin and stdout are closed, stderr is logged.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = if self.has_setpriv {
            let mut command = Command::new(SETPRIV);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.env(ENV_MARKER, &self.marker).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command.stderr(Stdio::piped()).process_group(0);
        command
    }

    /// Starts `command`, which [`Spawner::command`] made; `name` is for messages.
    pub(crate) fn spawn(&self, name: &str, mut command: Command) -> Result<Child, SpawnError> {
        let failed = |source| SpawnError { program: name.to_owned(), source };
        let mut inner = command.spawn().map_err(failed)?;
        let group = inner.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let last_words = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = inner.stderr.take() {
            let log = self.log.new(o!("program" => name.to_owned()));
            tokio::spawn(hear(stderr, last_words.clone(), log));
        }
        Ok(Child { inner, group, last_words })
    }
}

/// A running child and its process group.
#[derive(Debug)]
pub(crate) struct Child {
    inner: tokio::process::Child,
    group: Option<Pid>,
    last_words: Arc<Mutex<String>>,
}

impl Child {
    /// What it said last on its stderr.
    pub(crate) fn last_words(&self) -> String {
        self.last_words.lock().unwrap_or_else(PoisonError::into_inner).trim().to_owned()
    }

    /// Standard input, where it was piped; once.
    pub(crate) fn take_stdin(&mut self) -> Option<tokio::process::ChildStdin> {
        self.inner.stdin.take()
    }

    /// Standard output, where it was piped; once.
    pub(crate) fn take_stdout(&mut self) -> Option<tokio::process::ChildStdout> {
        self.inner.stdout.take()
    }

    /// Resolves when the child has exited.
    pub(crate) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.inner.wait().await
    }

    /// Its exit status, if it has exited.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.inner.try_wait().ok().flatten()
    }

    /// Sends a signal to the whole group.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // The group may be gone already, which is what is wanted.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }

    /// Asks the group to end, waits up to `grace`, then kills it.
    pub(crate) async fn stop(mut self, signal: Signal, grace: Duration) {
        if self.exited().is_none() {
            self.signal(signal);
            let _ = tokio::time::timeout(grace, self.inner.wait()).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Logs what a child says and keeps the end of it; a child is never held up by a full pipe.
async fn hear(mut stderr: ChildStderr, last_words: Arc<Mutex<String>>, log: Logger) {
    let mut buffer = [0_u8; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            debug!(log, "{}", line);
        }
        let mut last_words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
        last_words.push_str(&text);
        let mut cut = last_words.len().saturating_sub(LAST_WORDS_BYTES);
        while !last_words.is_char_boundary(cut) {
            cut += 1;
        }
        last_words.drain(..cut);
    }
}

/// Ends, when dropped, every process that this program started and that is still there.
#[derive(Debug)]
pub(crate) struct Remains {
    marker: Vec<u8>,
}

impl Remains {
    /// Watches over the children of `spawner`. Orphaned grandchildren become children of this process, so that they
    /// can be found.
    pub(crate) fn of(spawner: &Spawner) -> Self {
        // Without it an orphan is still found by the marker.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        Self { marker: format!("{ENV_MARKER}={}", spawner.marker).into_bytes() }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "runs after the runtime has ended: there is no executor to block"
    )]
    fn sweep(&self) {
        let began = Instant::now();
        while began.elapsed() < SWEEP_LIMIT {
            while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
            let left = self.list();
            if left.is_empty() {
                return;
            }
            let signal = if began.elapsed() < SWEEP_GRACE { Signal::TERM } else { Signal::KILL };
            for pid in left {
                let _ = rustix::process::kill_process(pid, signal);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything alive that carries the marker or descends from this process.
    fn list(&self) -> Vec<Pid> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let mut found = Vec::new();
        let mut parents = Vec::new();
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let Some((state, parent)) = state_and_parent(pid) else { continue };
            if pid == own || state == 'Z' {
                continue;
            }
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if environ.split(|&byte| byte == 0).any(|variable| variable == self.marker) {
                found.push(pid);
            }
            parents.push((pid, parent));
        }
        let mut family = vec![own];
        let mut index = 0;
        while index < family.len() {
            let children = parents.iter().filter(|(_, parent)| *parent == family[index]);
            family.extend(children.map(|(pid, _)| *pid).collect::<Vec<_>>());
            index += 1;
        }
        found.extend(family.into_iter().skip(1));
        found.sort_unstable();
        found.dedup();
        found.into_iter().filter_map(Pid::from_raw).collect()
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        self.sweep();
    }
}

/// From /proc: the state letter and the parent's pid.
fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold blanks and parentheses.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}
