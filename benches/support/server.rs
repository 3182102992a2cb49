//! The server under measurement, on embedded defaults in a temporary folder.

use super::postgres::Postgres;
use actix_web::http::{Method, StatusCode};
use anyhow::{Context, Result, anyhow, bail, ensure};
use awc::{Client, ClientRequest, Connector};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Names another server program to measure: another build, or an older release.
const PROGRAM: &str = "MEEBOTER_BENCH_SERVER";
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(40);
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(3);
const METRICS_BYTES_MAX: usize = 4 << 20;
/// Time between two looks while waiting for a start or an end.
const LOOK: Duration = Duration::from_millis(5);

/// See the module. Whatever it started is ended when it is dropped.
pub struct Server {
    folder: TempDir,
    port: u16,
    settings: Vec<(String, String)>,
    child: Option<Child>,
    client: Client,
    key: String,
}

impl Server {
    /// Starts one and waits until it is ready. `settings` are environment variables.
    pub async fn start(settings: &[(&str, &str)]) -> Result<Self> {
        let mut server = Self::stopped(settings)?;
        server.start_again().await?;
        server.key = fs::read_to_string(server.data_dir().join("api-key"))?.trim().to_owned();
        Ok(server)
    }

    /// Starts one that stands by on the same database as another one, and has its key.
    pub async fn stand_by(leader: &Self) -> Result<Self> {
        let settings: Vec<_> =
            leader.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let mut server = Self::stopped(&settings)?;
        server.key.clone_from(&leader.key);
        server.stand_by_again().await?;
        Ok(server)
    }

    fn stopped(settings: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("meeboter-bench-").tempdir()?;
        // PostgreSQL's own user has to get through.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Ok(Self { folder, port, settings, child: None, client: client(), key: String::new() })
    }

    /// Starts it on the folder that it has; returns the time until it was ready.
    pub async fn start_again(&mut self) -> Result<Duration> {
        self.start_until("/readyz").await
    }

    /// Starts it on the folder that it has, beside another one that leads.
    pub async fn stand_by_again(&mut self) -> Result<()> {
        self.start_until("/healthz").await.map(drop)
    }

    async fn start_until(&mut self, path: &str) -> Result<Duration> {
        let mut command = self.command()?;
        // Connections that it kept lead to a process that is gone.
        self.client = client();
        let begun = Instant::now();
        let mut child = command.spawn().context("the server could not be started")?;
        let ready = loop {
            if self.says_yes(path).await {
                break Ok(begun.elapsed());
            }
            if let Some(status) = child.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.log());
            }
            if begun.elapsed() > START_LIMIT {
                break Err(anyhow!("the server is not ready within {START_LIMIT:?}:\n{}", self.log()));
            }
            tokio::time::sleep(LOOK).await;
        };
        self.child = Some(child);
        ready
    }

    async fn says_yes(&self, path: &str) -> bool {
        let answer = self.client.get(self.url(path)).send().await;
        answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    fn command(&self) -> Result<Command> {
        // The one that was built with this benchmark lies beside it.
        let program = std::env::var_os(PROGRAM).map_or_else(
            || std::env::current_exe().map(|this| this.with_file_name("meeboter")),
            |named| Ok(named.into()),
        )?;
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(program);
        command.arg("serve").env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let inherited = ["PATH", "HOME", "TMPDIR", "LANG"];
        command.envs(inherited.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        command
            .env("MEEBOTER_DATA_DIR", self.data_dir())
            .env("MEEBOTER_SERVER__PORT", self.port.to_string())
            .env("MEEBOTER_SERVER__BIND", "127.0.0.1")
            .env("MEEBOTER_REHEARSAL__ENABLED", "true")
            .envs(self.settings.iter().map(|(key, value)| (key, value)));
        Ok(command)
    }

    /// Asks it to stop, its PostgreSQL with it, and waits for that.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        signal(i32::try_from(child.id())?, Signal::TERM);
        let deadline = Instant::now() + STOP_LIMIT;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child = Some(child);
                bail!("the server did not stop within {STOP_LIMIT:?}:\n{}", self.log());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Ends it without a word, as a crash does.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops it in its tracks, as on a machine that hangs. It can only be killed any more.
    pub fn freeze(&self) -> Result<()> {
        signal(self.pid()?, Signal::STOP);
        Ok(())
    }

    pub fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.as_ref().context("the server does not run")?.id())?)
    }

    pub fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    pub fn postgres(&self) -> Result<Postgres> {
        Postgres::of(self.data_dir())
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// The end of what it has logged.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// A request with the first key.
    fn request(&self, method: Method, path: &str) -> ClientRequest {
        self.client.request(method, self.url(path)).insert_header(("x-api-key", self.key.as_str()))
    }

    /// Sends a bot to a rehearsal; returns the status and what was said.
    pub fn create_bot(
        &self,
        name: &str,
        options: &str,
    ) -> impl Future<Output = Result<(StatusCode, Value)>> + use<> {
        let body = json!({
            "meetingInfo": {
                "platform": "rehearsal",
                "meetingUrl": self.url(&format!("/rehearsal/{name}?{options}")),
            },
            "botDisplayName": name,
        });
        let request = self.request(Method::POST, "/api/bots");
        async move {
            let answer = request.send_json(&body).await;
            let mut answer = answer.map_err(|error| anyhow!("no answer to a request: {error}"))?;
            Ok((answer.status(), answer.json().await.map_err(|error| anyhow!("no answer's body: {error}"))?))
        }
    }

    /// Asks whether the server lives; the status.
    pub fn ask_alive(&self) -> impl Future<Output = Result<StatusCode>> + use<> {
        let request = self.client.get(self.url("/healthz"));
        async move {
            let answer = request.send().await.map_err(|error| anyhow!("no answer to a request: {error}"))?;
            Ok(answer.status())
        }
    }

    /// What Prometheus would be told.
    pub async fn metrics(&self) -> Result<String> {
        let answer = self.client.get(self.url("/metrics")).send().await;
        let mut answer = answer.map_err(|error| anyhow!("no answer to a request: {error}"))?;
        let page = answer.body().limit(METRICS_BYTES_MAX).await;
        Ok(String::from_utf8(page.map_err(|error| anyhow!("no answer's body: {error}"))?.to_vec())?)
    }

    /// Has a bot leave its meeting.
    pub async fn end_bot(&self, id: i64) -> Result<()> {
        let path = format!("/api/bots/{id}/remove-from-call");
        let answer = self.request(Method::POST, &path).send_json(&json!({})).await;
        let answer = answer.map_err(|error| anyhow!("no answer to a request: {error}"))?;
        ensure!(answer.status().is_success(), "bot {id} was not told to leave: {}", answer.status());
        Ok(())
    }

    /// The bot as it is.
    pub async fn bot(&self, id: i64) -> Result<Value> {
        let answer = self.request(Method::GET, &format!("/api/bots/{id}")).send().await;
        let mut answer = answer.map_err(|error| anyhow!("no answer to a request: {error}"))?;
        let bot = answer.json().await.map_err(|error| anyhow!("no answer's body: {error}"))?;
        ensure!(answer.status() == StatusCode::OK, "bot {id} was not told: {bot}");
        Ok(bot)
    }

    /// The pids of the bot programs that work in this server's folder.
    pub fn bot_programs(&self) -> Vec<i32> {
        let is_bot = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "meeboter-bot")
        };
        self.bots_processes().into_iter().filter(is_bot).collect()
    }

    /// The pids of bots and of what they started.
    fn bots_processes(&self) -> Vec<i32> {
        let mark = format!("MEEBOTER_WORK_DIR={}/", self.data_dir().display());
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_ours = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark.as_bytes()))
        };
        pids.filter(is_ours).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let postgres = self.postgres().ok();
        if let Some(mut child) = self.child.take() {
            let pid = i32::try_from(child.id()).unwrap_or_default();
            signal(pid, Signal::TERM);
            // One that is frozen hears it only then.
            signal(pid, Signal::CONT);
            let _ = child.wait();
        }
        // Bots outlive the server; a PostgreSQL does where the server was killed.
        for pid in self.bots_processes() {
            signal(pid, Signal::KILL);
        }
        if let Some(postgres) =
            postgres.filter(|before| self.postgres().is_ok_and(|now| now.pid == before.pid))
        {
            signal(postgres.pid, Signal::QUIT);
        }
    }
}

fn client() -> Client {
    // The server closes connections that nobody used for 5 s: none is used that may just be closing.
    let connector = Connector::new().conn_keep_alive(KEEP_ALIVE);
    Client::builder().timeout(REQUEST_LIMIT).connector(connector).finish()
}

/// Sends a signal to a process that may be gone.
fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}
