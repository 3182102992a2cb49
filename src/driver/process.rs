//! Bots as processes of this host: the embedded default.
//!
//! A bot outlives the server. It leads a session of its own, writes to files, and has no tie to its parent, so that a
//! restarted server finds it again by what `/proc` says. `setsid(1)` makes the session: a fresh child leads no
//! process group, so the tool calls setsid(2) and becomes the bot, under one number from beginning to end. (The
//! standard library's own is unstable, and code between fork and exec needs `unsafe`.)
//!
//! Nothing that matters is kept in memory: the process table, the record of each bot's process, and the fence of
//! each slot are the state. A crash at any point leaves something the next call understands.
//!
//! It sets no limits on what a bot uses: memory and processors of a group of processes are limited by cgroups, which this
//! server has no right to make, and a limit on one process (`setrlimit`) would hit the browser's address space rather
//! than its memory. Whoever starts it says so in the log where limits are configured.
//!
mod ending;
mod kin;
mod leftovers;
mod pidfd;
mod procfs;
mod record;

use super::folders::Folders;
use super::spools::SpoolSource;
use super::tasks::Tasks;
use super::turns::Turns;
use super::{TokenSource, lock};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use kin::bot_of;
use meeboter_actors::ids::{BotId, ContainerId, ContainerKey, HostName, SlotId};
use meeboter_actors::ports::{
    Driver, DriverError, EngineEvent, ImageDigest, ListedContainer, Presence, PullProgress, Pulled, Spool,
    StartRequest, StopRequest,
};
use meeboter_bot::{ENV_SERVER, ENV_SLOT, ENV_TOKEN, ENV_WHEN_DONE, ENV_WORK_DIR};
use pidfd::Held;
use procfs::{Identity, MARKER_VARIABLE, Marker, Process};
use record::{forget, record, recorded};
use slog::{debug, info, warn};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::{OwnedMutexGuard, broadcast, mpsc, watch};
use uuid::Uuid;

/// What a bot inherits of the server's environment.
const INHERITED: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];
/// How long a call waits for its turn at a slot; longer than any stop takes.
const TURN_DEADLINE: Duration = Duration::from_secs(180);
/// Exits that may wait to be told of; past that a listing says what happened.
const EXITS_UNTOLD_MAX: usize = 256;
/// How long after an exit its status may take to be collected.
const STATUS_DEADLINE: Duration = Duration::from_secs(1);

/// How bots are run.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// The program inside a slot.
    pub bot_program: PathBuf,
    /// Where the bots' folders are.
    pub work_root: PathBuf,
    /// Whose bots they are: those of another installation are never touched.
    pub installation: Uuid,
    /// Base URL of this server, as a process of this host reaches it.
    pub server_url: String,
    /// Bots at a time, until [`ProcessDriver::limit`] says another number.
    pub bots_max: usize,
    /// Folders of stopped generations that are kept, for people who look for a cause.
    pub folders_kept: usize,
}

/// See the module.
pub struct ProcessDriver {
    host: Arc<Host>,
    tasks: Tasks,
}

struct Host {
    settings: ProcessSettings,
    /// Bots at a time; counts from the next start of one.
    bots_max: AtomicUsize,
    tokens: TokenSource,
    folders: Folders,
    /// One start or stop of a slot at a time. Holds only slots that someone is at.
    turns: Turns<SlotId>,
    /// How the bots that this server started ended; forgotten when they are stopped.
    endings: Mutex<HashMap<ContainerKey, watch::Receiver<Option<ExitStatus>>>>,
    /// Tells of the exits of bots that this server started.
    exits: broadcast::Sender<ContainerKey>,
    log: slog::Logger,
}

impl ProcessDriver {
    /// A driver whose tasks run on the present runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(settings: ProcessSettings, tokens: TokenSource, log: slog::Logger) -> Self {
        let folders = Folders::new(settings.work_root.clone());
        let (turns, endings) = Default::default();
        let bots_max = AtomicUsize::new(settings.bots_max);
        let (exits, _) = broadcast::channel(EXITS_UNTOLD_MAX);
        let host = Host { settings, bots_max, tokens, folders, turns, endings, exits, log };
        Self { host: Arc::new(host), tasks: Tasks::here() }
    }

    /// Runs so many bots at a time from now on; those that run go on.
    pub fn limit(&self, bots_max: usize) {
        self.host.bots_max.store(bots_max, Ordering::Relaxed);
    }

    /// Runs a call to its end, whatever becomes of the caller.
    async fn detached<T, F>(&self, call: impl FnOnce(Arc<Host>) -> F) -> Result<T, DriverError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DriverError>> + Send + 'static,
    {
        self.tasks.finish(call(Arc::clone(&self.host))).await
    }
}

#[async_trait]
impl Driver for ProcessDriver {
    /// There is nothing to pull: the program must be there.
    async fn pull(
        &self,
        _host: &HostName,
        _image: &str,
        _progress: watch::Sender<PullProgress>,
    ) -> Result<Pulled, DriverError> {
        self.detached(async |host| host.program().await.map(|_| Pulled::Current)).await
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        self.detached(|host| async move { host.start(request).await }).await
    }

    async fn wait_exit(&self, _host: &HostName, key: ContainerKey) -> Result<String, DriverError> {
        let host = Arc::clone(&self.host);
        self.tasks.wait(async move { host.wait_exit(key).await }).await
    }

    async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        self.detached(|host| async move { host.stop(request).await }).await
    }

    async fn inspect(&self, _host: &HostName, key: ContainerKey) -> Result<Presence, DriverError> {
        let bot = self.detached(|host| async move { host.find(key).await }).await?;
        Ok(if bot.is_some() { Presence::Running } else { Presence::Gone })
    }

    async fn list(&self, _host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        self.detached(|host| async move { host.list().await }).await
    }

    async fn resolve(&self, _host: &HostName, _image: &str) -> Result<Option<ImageDigest>, DriverError> {
        self.detached(|host| async move { host.resolve().await }).await
    }

    async fn logs(
        &self,
        _host: &HostName,
        key: ContainerKey,
        lines: u32,
    ) -> Result<Vec<String>, DriverError> {
        self.detached(move |host| async move { host.logs(key, lines).await }).await
    }

    async fn sweep(
        &self,
        _host: &HostName,
        wanted: &BTreeSet<ContainerKey>,
        before: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        let wanted = wanted.clone();
        self.detached(move |host| async move { host.sweep(wanted, before).await }).await
    }

    /// Tells of the exits of bots that this server started. Those it adopted are found by the waits for their exits and
    /// by listings: nothing tells of them.
    async fn watch(&self, _host: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        let mut exits = self.host.exits.subscribe();
        loop {
            let told = match exits.recv().await {
                Ok(key) => events.try_send(EngineEvent::Vanished(key)).is_ok(),
                // Some were missed.
                Err(_) => false,
            };
            if !told {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl SpoolSource for ProcessDriver {
    async fn spools(&self) -> Result<Vec<Spool>, DriverError> {
        self.detached(|host| async move { host.spools().await }).await
    }

    async fn spooled(&self, key: ContainerKey) -> Result<Vec<(u32, PathBuf)>, DriverError> {
        self.detached(move |host| async move { host.spooled(key).await }).await
    }
}

impl Host {
    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        let key = request.key;
        let _turn = self.turn(key.slot).await?;
        let program = self.program().await?;
        let folders = self.folders.clone();
        let (fence, recorded, all) = blocking("look for the bot", move || {
            Ok((folders.fence(key.slot)?, recorded(&folders.of(key))?, procfs::scan()?))
        })
        .await?;
        if let Some(fence) = fence.filter(|fence| *fence >= key.generation) {
            return Err(refused(format!("generation {fence} of this slot was stopped"), false));
        }
        if let Some(bot) = bot_of(self.marker(key), recorded, &all) {
            info!(self.log, "bot already runs";
                "slot" => %request.slot_name, "generation" => key.generation.0, "container" => %bot);
            return Ok(ContainerId(bot.to_string()));
        }
        let bots_max = self.bots_max.load(Ordering::Relaxed);
        if self.keys_in(&all).len() >= bots_max {
            let message = format!("this host runs {bots_max} bots, its limit");
            return Err(refused(message, true));
        }
        self.end_kin(key, None).await?;
        let bot = self.spawn(key, request.bot_id, &program).await?;
        info!(self.log, "bot started"; "slot" => %request.slot_name, "generation" => key.generation.0,
            "bot" => request.bot_id.0, "container" => %bot);
        Ok(ContainerId(bot.to_string()))
    }

    async fn spawn(&self, key: ContainerKey, bot_id: BotId, program: &Path) -> Result<Identity, DriverError> {
        let folders = self.folders.clone();
        let (folder, log, errors) = blocking("make the bot's folder", move || {
            let folder = folders.prepare(key, bot_id)?;
            forget(&folder)?;
            let log = folders.open_log(key)?;
            let errors = log.try_clone()?;
            Ok((folder, log, errors))
        })
        .await?;
        let inherited = INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
        let child = Command::new("setsid")
            .arg(program)
            .env_clear()
            .envs(inherited)
            .env(ENV_SLOT, key.slot.to_string())
            .env(ENV_SERVER, &self.settings.server_url)
            .env(ENV_TOKEN, (self.tokens)(key.slot, key.generation))
            .env(ENV_WORK_DIR, &folder)
            .env(ENV_WHEN_DONE, "exit")
            .env(MARKER_VARIABLE, self.marker(key).to_string())
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| failed("run `setsid` (util-linux)", &error))?;
        let recorded = self.record(key, &child).await;
        // Not before: the number of a process that was collected is free for another.
        self.collect(key, child);
        recorded
    }

    /// Notes which process the bot is. Where this fails the bot runs unrecorded; the next start finds it by its marker.
    async fn record(&self, key: ContainerKey, child: &Child) -> Result<Identity, DriverError> {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let folders = self.folders.clone();
        blocking("record the bot's process", move || {
            let bot = procfs::identity_of_child(pid.ok_or(io::ErrorKind::NotFound)?)?;
            record(&folders.of(key), bot)?;
            Ok(bot)
        })
        .await
    }

    /// Collects the exit status of a child, so that no zombie stays.
    fn collect(&self, key: ContainerKey, mut child: Child) {
        let (sender, receiver) = watch::channel(None);
        lock(&self.endings).insert(key, receiver);
        let (log, exits) = (self.log.clone(), self.exits.clone());
        tokio::spawn(async move {
            match child.wait().await {
                // Nobody may be left who wants to know.
                Ok(status) => drop(sender.send(Some(status))),
                Err(error) => warn!(log, "a bot's exit status was lost"; "error" => %error),
            }
            drop(exits.send(key));
        });
    }

    async fn wait_exit(&self, key: ContainerKey) -> Result<String, DriverError> {
        if let Some(bot) = self.find(key).await?
            && let Some(held) = Held::take(bot).map_err(|error| failed("watch the bot", &error))?
        {
            held.gone().await.map_err(|error| failed("watch the bot", &error))?;
        }
        Ok(self.exit_note(key).await)
    }

    /// What is known of an end. The last lines of an end that was not clean go to the server's log.
    async fn exit_note(&self, key: ContainerKey) -> String {
        let status = self.exit_status(key).await;
        let folders = self.folders.clone();
        let read = move || Ok((folders.exit_note(key), folders.log_note(key).unwrap_or_default()));
        let (note, tail) = blocking("read the exit note", read).await.unwrap_or_default();
        let is_clean = note.as_ref().is_some_and(|note| note.code == 0);
        let sentence = match (note, status) {
            (Some(note), _) if note.code == 0 => note.reason.trim_end_matches('.').to_owned(),
            (Some(note), _) => format!("{} (code {})", note.reason.trim_end_matches('.'), note.code),
            (None, Some(status)) => format!("{status}, no exit note"),
            (None, None) => "no exit note".to_owned(),
        };
        if is_clean {
            debug!(self.log, "bot ended"; "slot_id" => %key.slot, "generation" => key.generation.0);
        } else {
            warn!(self.log, "bot ended badly"; "slot_id" => %key.slot, "generation" => key.generation.0,
                "note" => &sentence, "log_tail" => tail);
        }
        sentence
    }

    /// The exit status, where the bot was this process's child.
    async fn exit_status(&self, key: ContainerKey) -> Option<ExitStatus> {
        let mut ending = lock(&self.endings).get(&key).cloned()?;
        let status = tokio::time::timeout(STATUS_DEADLINE, ending.wait_for(Option::is_some)).await;
        *status.ok()?.ok()?
    }

    async fn list(&self) -> Result<Vec<ListedContainer>, DriverError> {
        let all = blocking("list processes", procfs::scan).await?;
        let mut listed = Vec::new();
        for key in self.keys_in(&all) {
            let folders = self.folders.clone();
            let recorded = blocking("read the bot's record", move || recorded(&folders.of(key))).await?;
            let marker = self.marker(key);
            let kin = || all.iter().filter(|process| process.marker == Some(marker));
            // What a dead bot left behind is listed too: someone has to stop it.
            let oldest = || kin().map(|process| process.identity).min();
            if let Some(container) = bot_of(marker, recorded, &all).or_else(oldest) {
                let container = ContainerId(container.to_string());
                listed.push(ListedContainer { key, container, presence: Presence::Running });
            }
            let folders = self.folders.clone();
            if let Err(error) = blocking("bound a log", move || folders.bound_log(key)).await {
                debug!(self.log, "a bot's log was not looked at"; "slot_id" => %key.slot, "error" => %error);
            }
        }
        Ok(listed)
    }

    /// The bot of a generation, where it runs.
    async fn find(&self, key: ContainerKey) -> Result<Option<Identity>, DriverError> {
        let folders = self.folders.clone();
        let look = move || Ok((recorded(&folders.of(key))?, procfs::scan()?));
        let (recorded, all) = blocking("look for the bot", look).await?;
        Ok(bot_of(self.marker(key), recorded, &all))
    }

    fn keys_in(&self, all: &[Process]) -> BTreeSet<ContainerKey> {
        let markers = all.iter().filter_map(|process| process.marker);
        markers
            .filter(|marker| marker.installation == self.settings.installation)
            .map(|marker| marker.key)
            .collect()
    }

    fn marker(&self, key: ContainerKey) -> Marker {
        Marker { installation: self.settings.installation, key }
    }

    /// The bot program, where it can be run.
    async fn program(&self) -> Result<PathBuf, DriverError> {
        let program = self.settings.bot_program.clone();
        let shown = program.display().to_string();
        let check = move || {
            let path = program.canonicalize()?;
            let metadata = path.metadata()?;
            let is_executable = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
            if is_executable { Ok(path) } else { Err(io::ErrorKind::PermissionDenied.into()) }
        };
        blocking("find the bot program", check).await.map_err(|DriverError { message, .. }| {
            let hint = "build it with `cargo build -p meeboter-bot` or set its path";
            refused(format!("no bot program at {shown} ({message}); {hint}"), false)
        })
    }

    async fn turn(&self, slot: SlotId) -> Result<OwnedMutexGuard<()>, DriverError> {
        self.turns.take(slot, TURN_DEADLINE).await.map_err(|_| DriverError {
            message: "another operation on this slot does not end".to_owned(),
            answered: false,
            retryable: true,
        })
    }
}

/// Reads or writes on a thread that may block.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DriverError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| failed(what, &error)),
        Err(error) => Err(failed(what, &error)),
    }
}

fn failed(what: &str, error: &dyn Display) -> DriverError {
    DriverError { message: format!("cannot {what}: {error}"), answered: true, retryable: true }
}

fn refused(message: String, retryable: bool) -> DriverError {
    DriverError { message, answered: true, retryable }
}
