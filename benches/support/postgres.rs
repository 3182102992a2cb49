//! The server's private PostgreSQL: how it was started, and connections to it.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, Config, NoTls};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Time between two attempts to connect.
const LOOK: Duration = Duration::from_millis(5);

/// A PostgreSQL as it was found running: enough to connect to it, and to start it again.
pub struct Postgres {
    pub pid: i32,
    arguments: Vec<String>,
    folder: PathBuf,
    socket: PathBuf,
    port: u16,
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// The one that runs in this data folder.
    pub fn of(data_dir: &Path) -> Result<Self> {
        let folder = data_dir.join("postgres");
        let cluster = folder.join("data");
        let file = fs::read_to_string(cluster.join("postmaster.pid")).context("PostgreSQL does not run")?;
        let lines: Vec<&str> = file.lines().map(str::trim).collect();
        let [pid, _, _, port, socket, ..] = lines[..] else { bail!("postmaster.pid is not understood") };
        let arguments = fs::read(format!("/proc/{pid}/cmdline"))?;
        let arguments = String::from_utf8(arguments)?.split_terminator('\0').map(str::to_owned).collect();
        let owner = cluster.metadata()?;
        Ok(Self {
            pid: pid.parse()?,
            arguments,
            folder,
            socket: socket.into(),
            port: port.parse()?,
            uid: owner.uid(),
            gid: owner.gid(),
        })
    }

    /// Its PID and those of its children.
    pub fn pids(&self) -> Vec<i32> {
        let children = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = fs::read_to_string(children).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(self.pid).chain(children).collect()
    }

    /// How to reach one of its databases.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.socket).port(self.port).user("meeboter").dbname(database);
        config
    }

    /// How another process names one of its databases.
    pub fn url(&self, database: &str) -> String {
        let socket = self.socket.display().to_string().replace('/', "%2F");
        format!("postgres://meeboter@{socket}:{}/{database}", self.port)
    }

    /// A connection to one of its databases, the way the server has one.
    pub async fn connect(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config(database).connect(NoTls).await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    /// Starts it with nobody around it, stops it again, and returns the time until it accepted a connection.
    pub async fn time_a_start(&self) -> Result<Duration> {
        let said = File::create(self.folder.join("bench.log"))?;
        let mut command = Command::new(self.arguments.first().context("PostgreSQL has no command line")?);
        command.args(&self.arguments[1..]).current_dir(&self.folder);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        if rustix::process::geteuid().is_root() {
            command.uid(self.uid).gid(self.gid);
        }
        let begun = Instant::now();
        let mut child = command.spawn().context("PostgreSQL could not be started")?;
        let connected = loop {
            if self.connect("postgres").await.is_ok() {
                break Ok(begun.elapsed());
            }
            if let Some(status) = child.try_wait()? {
                bail!("PostgreSQL ended with {status}");
            }
            if begun.elapsed() > START_LIMIT {
                break Err(anyhow::anyhow!("PostgreSQL did not accept a connection within {START_LIMIT:?}"));
            }
            tokio::time::sleep(LOOK).await;
        };
        stop(&mut child).await?;
        connected
    }
}

async fn stop(child: &mut Child) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("no PID")?;
    kill_process(pid, Signal::INT)?;
    let deadline = Instant::now() + STOP_LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            kill_process(pid, Signal::QUIT)?;
            child.wait()?;
            bail!("PostgreSQL did not stop within {STOP_LIMIT:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
