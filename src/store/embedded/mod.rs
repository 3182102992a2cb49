//! A private PostgreSQL in the data folder, from the binaries that are installed on this host.
//!
//! It listens on a Unix socket alone, in a folder that only its user can enter, and trusts whoever gets there. It is a
//! session of its own and outlives this server: the next one adopts it, or starts it again if it died. Its files:
//! `postgres/data` (the cluster), `postgres/log`, `postgres/start.log` (what it says before its log begins),
//! `postgres/run` (the socket, where the path is short enough).

mod account;
mod binaries;
mod process;

use super::data_dir::DataDir;
use super::database::{Connection, Database, DatabaseError};
use account::Account;
use binaries::{Binaries, search_path};
use process::{Processes, is_alive, look, pid_file, pid_in_file, signal};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use slog::{Logger, info, o, warn};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Config;
use tokio_postgres::error::SqlState;

/// The superuser that owns everything in it.
const USER: &str = "meeboter";
/// The database that is always there.
const MAINTENANCE: &str = "postgres";
/// Only part of the socket's name.
const PORT: u16 = 5432;
/// A socket's path has at most 107 bytes; `/.s.PGSQL.5432` takes 14.
const SOCKET_FOLDER_MAX: usize = 93;
/// To make a cluster.
const INITDB_DEADLINE: Duration = Duration::from_secs(120);
/// To accept connections, with recovery after a crash.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// To stop at the first, polite request; open sessions are cut.
const FAST_STOP_DEADLINE: Duration = Duration::from_secs(10);
/// To stop at the second, which recovers at the next start.
const IMMEDIATE_STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Why there is no embedded PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Not installed.
    #[error("PostgreSQL is not installed: run `apt-get install postgresql` (or set DATABASE_URL)")]
    NoBinaries,
    /// The version that made the cluster is not installed.
    #[error(
        "the database in the data folder was made by PostgreSQL {major}, which is not installed: run `apt-get install postgresql-{major}`, or move it with pg_upgrade"
    )]
    OtherVersion {
        /// The version that is needed.
        major: u32,
    },
    /// Run by root, with nobody to run PostgreSQL as.
    #[error(
        "PostgreSQL refuses to run as root and there is no user `postgres` or `nobody`; run this server as another user"
    )]
    NoAccount,
    /// PostgreSQL's user cannot reach the data folder.
    #[error(
        "PostgreSQL runs as uid {uid}, which cannot enter {folder}; choose another data folder, such as /var/lib/meeboter"
    )]
    NotEnterable {
        /// What is in the way.
        folder: PathBuf,
        /// For whom.
        uid: u32,
    },
    /// A folder is there but somebody else's.
    #[error("{folder} does not belong to uid {uid}; remove it, or give it to that user")]
    NotOurs {
        /// Which.
        folder: PathBuf,
        /// Whose it should be.
        uid: u32,
    },
    /// A folder or file could not be made.
    #[error("{folder} could not be prepared for PostgreSQL; may this user write there?")]
    Prepare {
        /// Which.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program could not be run.
    #[error("{program} could not be run")]
    Run {
        /// Which.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The cluster could not be made.
    #[error("initdb could not make the database: {said}")]
    Initdb {
        /// Its words.
        said: String,
    },
    /// PostgreSQL ended at once.
    #[error("PostgreSQL ended while it was starting ({status}): {said}; see also {log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its words.
        said: String,
        /// Where there are more.
        log: PathBuf,
    },
    /// It runs but does not accept connections.
    #[error("PostgreSQL did not accept connections within {START_DEADLINE:?}; see {log}")]
    NotReady {
        /// Where its words are.
        log: PathBuf,
        /// The last answer.
        source: Option<DatabaseError>,
    },
    /// It did not stop.
    #[error("PostgreSQL (pid {pid}) did not stop")]
    NotStopped {
        /// Which.
        pid: i32,
    },
    /// A database could not be made in it.
    #[error("the database {name} could not be made")]
    CreateDatabase {
        /// Which.
        name: String,
        /// Why.
        source: tokio_postgres::Error,
    },
    /// It does not accept a connection.
    #[error(transparent)]
    Connect(#[from] DatabaseError),
}

/// Whether what it says is written survives the loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Yes.
    Full,
    /// No: for tests, whose folder is thrown away.
    Throwaway,
}

/// What a look at it led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It ran already.
    Running,
    /// It was started.
    Started,
}

/// See the module.
pub struct Embedded {
    folder: PathBuf,
    cluster: PathBuf,
    socket: PathBuf,
    account: Account,
    binaries: Binaries,
    durability: Durability,
    runtime: Handle,
    /// What this process started, to be reaped.
    child: Mutex<Option<Child>>,
    log: Logger,
}

impl Embedded {
    /// Adopts the one in the data folder, or makes and starts it; comes back when it accepts connections.
    pub async fn start(
        data_dir: &DataDir,
        durability: Durability,
        runtime: Handle,
        log: &Logger,
    ) -> Result<Self, EmbeddedError> {
        let folder = resolved(data_dir.path().join("postgres"));
        let cluster = resolved(folder.join("data"));
        let account = Account::choose(&folder)?;
        let made_by = std::fs::read_to_string(cluster.join("PG_VERSION")).ok();
        let made_by = made_by.and_then(|version| version.trim().parse().ok());
        let binaries = Binaries::find(made_by, &search_path())?;
        account.make_private(&folder)?;
        account.open_way_to(&folder)?;
        let socket = socket_folder(&folder);
        account.make_private(&socket)?;
        let log = log.new(o!("part" => "postgres"));
        let child = Mutex::new(None);
        let this = Self { folder, cluster, socket, account, binaries, durability, runtime, child, log };
        if made_by.is_none() {
            this.make_cluster().await?;
        }
        if this.ensure_running().await? == Found::Running {
            info!(this.log, "running PostgreSQL adopted"; "pid" => this.pid());
        }
        Ok(this)
    }

    /// Starts it if it does not run. To be called every few seconds.
    pub async fn ensure_running(&self) -> Result<Found, EmbeddedError> {
        let mut child = self.child.lock().await;
        let deadline = Instant::now() + START_DEADLINE;
        let mut found = Found::Running;
        loop {
            if let Some(ended) = child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                *child = None;
                if found == Found::Started && !self.is_still_held() {
                    return Err(self.ended(ended));
                }
            }
            match look(&self.cluster) {
                Processes::Postmaster(pid) => match self.connect(MAINTENANCE).await {
                    Ok(_) => {
                        if found == Found::Started {
                            info!(self.log, "PostgreSQL started"; "pid" => pid, "version" => self.binaries.major);
                        }
                        return Ok(found);
                    }
                    Err(source) if Instant::now() >= deadline => {
                        return Err(EmbeddedError::NotReady {
                            log: self.folder.join("log"),
                            source: Some(source),
                        });
                    }
                    // It is starting, recovering or stopping.
                    Err(_) => {}
                },
                // They hold its shared memory: a new one would refuse to start beside them.
                Processes::Orphans(_) => {}
                Processes::None if child.is_some() => {}
                Processes::None => {
                    self.clear_stale_pid_file()?;
                    *child = Some(self.spawn()?);
                    found = Found::Started;
                }
            }
            if Instant::now() >= deadline {
                return Err(EmbeddedError::NotReady { log: self.folder.join("log"), source: None });
            }
            sleep(INTERVAL).await;
        }
    }

    /// Stops it, cutting what is open; the data is whole.
    pub async fn stop(&self) -> Result<(), EmbeddedError> {
        let mut child = self.child.lock().await;
        for (kind, patience) in [(Signal::INT, FAST_STOP_DEADLINE), (Signal::QUIT, IMMEDIATE_STOP_DEADLINE)] {
            let Processes::Postmaster(pid) = look(&self.cluster) else { break };
            signal(pid, kind);
            let deadline = Instant::now() + patience;
            while Instant::now() < deadline && look(&self.cluster) == Processes::Postmaster(pid) {
                sleep(INTERVAL).await;
            }
        }
        let deadline = Instant::now() + FAST_STOP_DEADLINE;
        while Instant::now() < deadline
            && child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
        {
            sleep(INTERVAL).await;
        }
        match look(&self.cluster) {
            Processes::Postmaster(pid) => Err(EmbeddedError::NotStopped { pid }),
            Processes::None | Processes::Orphans(_) => {
                *child = None;
                info!(self.log, "PostgreSQL stopped");
                Ok(())
            }
        }
    }

    /// The database of that name, made if it is not there.
    pub async fn database(&self, name: &str) -> Result<Database, EmbeddedError> {
        let create = |source| EmbeddedError::CreateDatabase { name: name.to_owned(), source };
        let connection = self.connect(MAINTENANCE).await?;
        let quoted = name.replace('"', "\"\"");
        let made = connection
            .client
            .batch_execute(&format!("CREATE DATABASE \"{quoted}\" TEMPLATE template0"))
            .await;
        match made {
            Err(error) if error.code() != Some(&SqlState::DUPLICATE_DATABASE) => Err(create(error)),
            Ok(()) | Err(_) => Ok(self.place(name)),
        }
    }

    /// The pid of the running one.
    pub fn pid(&self) -> Option<i32> {
        match look(&self.cluster) {
            Processes::Postmaster(pid) => Some(pid),
            Processes::None | Processes::Orphans(_) => None,
        }
    }

    fn place(&self, name: &str) -> Database {
        let mut config = Config::new();
        config.host_path(&self.socket).port(PORT).user(USER).dbname(name);
        Database::new(config, self.runtime.clone())
    }

    async fn connect(&self, name: &str) -> Result<Connection, DatabaseError> {
        self.place(name).connect().await
    }

    /// Makes the cluster beside its place and moves it there whole, so that a crash leaves none that is half made.
    async fn make_cluster(&self) -> Result<(), EmbeddedError> {
        let half = self.folder.join("data.new");
        let prepare = |source| EmbeddedError::Prepare { folder: half.clone(), source };
        if half.exists() {
            std::fs::remove_dir_all(&half).map_err(prepare)?;
        }
        let program = self.binaries.program("initdb");
        let mut command = self.command(&program);
        command.arg("-D").arg(&half).args(["-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        command.args(["--no-instructions"]).args(match self.durability {
            Durability::Full => None,
            Durability::Throwaway => Some("--no-sync"),
        });
        let run = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = timeout(INITDB_DEADLINE, run)
            .await
            .map_err(|_| EmbeddedError::Initdb { said: format!("no end within {INITDB_DEADLINE:?}") })?
            .map_err(|source| EmbeddedError::Run { program, source })?;
        if !output.status.success() {
            return Err(EmbeddedError::Initdb { said: tail(&String::from_utf8_lossy(&output.stderr)) });
        }
        std::fs::rename(&half, &self.cluster).map_err(prepare)?;
        info!(self.log, "database made"; "folder" => self.cluster.display().to_string(), "version" => self.binaries.major);
        Ok(())
    }

    fn spawn(&self) -> Result<Child, EmbeddedError> {
        let start_log = self.folder.join("start.log");
        let prepare = |source| EmbeddedError::Prepare { folder: start_log.clone(), source };
        let said = std::fs::File::create(&start_log).map_err(prepare)?;
        let also_said = said.try_clone().map_err(prepare)?;
        // A session of its own, so that nothing that is sent to ours ends it.
        let mut command = self.command(Path::new("setsid"));
        command.arg(self.binaries.program("postgres")).arg("-D").arg(&self.cluster);
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
            .stdout(said)
            .stderr(also_said)
            .spawn()
            .map_err(|source| EmbeddedError::Run { program: "setsid".into(), source })
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("listen_addresses", String::new()),
            ("unix_socket_directories", self.socket.display().to_string()),
            ("unix_socket_permissions", "0700".to_owned()),
            ("port", PORT.to_string()),
            ("max_connections", "60".to_owned()),
            ("shared_buffers", "32MB".to_owned()),
            ("max_wal_size", "256MB".to_owned()),
            ("max_parallel_workers_per_gather", "0".to_owned()),
            ("logging_collector", "on".to_owned()),
            ("log_directory", self.folder.join("log").display().to_string()),
            // A file for each day of the week, each written over after a week.
            ("log_filename", "postgresql-%a.log".to_owned()),
            ("log_truncate_on_rotation", "on".to_owned()),
            ("log_rotation_age", "1d".to_owned()),
            ("log_rotation_size", "0".to_owned()),
        ];
        if self.durability == Durability::Throwaway {
            settings.extend(["fsync", "full_page_writes"].map(|name| (name, "off".to_owned())));
        }
        settings
    }

    /// A command as PostgreSQL's user, without our environment and its secrets.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("LC_ALL", "C");
        command.current_dir(&self.folder).stdin(Stdio::null());
        if self.account.is_other() {
            command.uid(self.account.uid).gid(self.account.gid);
        }
        command
    }

    /// PostgreSQL itself sees that a pid in its file is dead; it cannot see that a living one is not its own any more.
    fn clear_stale_pid_file(&self) -> Result<(), EmbeddedError> {
        let Some(pid) = pid_in_file(&self.cluster).filter(|pid| is_alive(*pid)) else { return Ok(()) };
        let file = pid_file(&self.cluster);
        warn!(self.log, "pid file of a PostgreSQL that is gone removed"; "pid" => pid);
        std::fs::remove_file(&file).map_err(|source| EmbeddedError::Prepare { folder: file, source })?;
        // The socket's own lock file names the same pid.
        let _ = std::fs::remove_file(self.socket.join(format!(".s.PGSQL.{PORT}.lock")));
        Ok(())
    }

    /// True where one that was started gave up because something of the one before it was left: try again.
    fn is_still_held(&self) -> bool {
        let said = std::fs::read_to_string(self.folder.join("start.log")).unwrap_or_default();
        said.contains("still in use") || said.contains("already exists")
    }

    fn ended(&self, status: ExitStatus) -> EmbeddedError {
        let said = std::fs::read_to_string(self.folder.join("start.log")).unwrap_or_default();
        EmbeddedError::Ended { status, said: tail(&said), log: self.folder.join("log") }
    }
}

/// Where a folder really is: processes are told by it, and it may be a link to another disk.
fn resolved(folder: PathBuf) -> PathBuf {
    folder.canonicalize().unwrap_or(folder)
}

/// Where one of PostgreSQL's programs is: in PATH, else that of the newest version installed; its bare name where there is
/// none, for the error that comes of it.
pub(crate) fn program(name: &str) -> PathBuf {
    let mut places = search_path().into_iter().map(|folder| folder.join(name));
    places.find(|place| place.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

/// Beside the cluster if a socket's path may be that long, else in a short folder named after it.
fn socket_folder(folder: &Path) -> PathBuf {
    let beside = folder.join("run");
    if beside.as_os_str().len() <= SOCKET_FOLDER_MAX {
        return beside;
    }
    let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let parent = if rustix::process::geteuid().is_root() { "/run" } else { "/tmp" };
    Path::new(parent).join(format!("meeboter-{name}"))
}

/// The last lines of what a program said.
fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(5)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_folder_has_its_socket_elsewhere() {
        let short = Path::new("/var/lib/meeboter/postgres");
        assert_eq!(socket_folder(short), short.join("run"));
        let long = PathBuf::from(format!("/{}/postgres", "x".repeat(120)));
        assert!(socket_folder(&long).as_os_str().len() <= SOCKET_FOLDER_MAX);
    }
}
