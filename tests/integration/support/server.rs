//! The real server as a process of its own, on embedded defaults in a temporary folder, with what a test does to it:
//! ask it as a client would, kill it, start it again, and leave nothing behind.

use super::client::{Visitor, answer, client};
use super::frozen::cluster_pids;
use super::history::History;
use super::media::Media;
use super::postgres;
use meeboter::auth::api_keys::new_key;
use meeboter::store::database::Database;
use meeboter::store::pool::Pool;
use meeboter::store::queries::hash_of_key;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a start may take on a machine that is busy with other tests.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a recording may take to be joined.
const JOIN_DEADLINE: Duration = Duration::from_secs(60);
/// How long maintenance may take where there is little to do.
const MAINTENANCE_DEADLINE: Duration = Duration::from_secs(60);
/// How long what is left of a test may take to end.
const END_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks while waiting.
const LOOK: Duration = Duration::from_millis(50);

/// See the module.
pub(crate) struct Server {
    folder: TempDir,
    port: u16,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    client: Client,
}

impl Server {
    /// Starts a server with rehearsals on; `settings` are more environment variables.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::spawned(settings);
        server.wait_ready().await;
        server
    }

    /// Starts the process of a server with rehearsals on; it may not be ready yet. `{port}` in a value is its port.
    pub(crate) fn spawned(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("meeboter-test-").tempdir().unwrap();
        // PostgreSQL's own user has to get through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), open).unwrap();
        let port = free_port();
        let mut environment: Vec<(String, String)> = vec![
            ("MEEBOTER_DATA_DIR".into(), folder.path().display().to_string()),
            ("MEEBOTER_SERVER__PORT".into(), port.to_string()),
            ("MEEBOTER_SERVER__BIND".into(), "127.0.0.1".into()),
            ("MEEBOTER_REHEARSAL__ENABLED".into(), "true".into()),
            ("MEEBOTER_LOG_LEVEL".into(), "debug".into()),
            ("MEEBOTER_BOTS__SEGMENT_MS".into(), "2000".into()),
            ("MEEBOTER_BOTS__HEARTBEAT_INTERVAL_MS".into(), "1000".into()),
        ];
        let filled = |value: &str| value.replace("{port}", &port.to_string());
        environment.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), filled(value))));
        let mut server = Self { folder, port, environment, child: None, client: client() };
        server.spawn();
        server
    }

    /// Starts the process; it may not be ready yet.
    pub(crate) fn spawn(&mut self) {
        self.child = Some(self.command().spawn().unwrap());
    }

    /// The command that starts the server, its log going to the folder.
    fn command(&self) -> Command {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = serve();
        command.stdout(Stdio::null()).stderr(log);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Waits until the server takes requests.
    pub(crate) async fn wait_ready(&mut self) {
        self.wait_ok("/readyz").await;
    }

    /// Waits until the server answers; it may stand by.
    pub(crate) async fn wait_alive(&mut self) {
        self.wait_ok("/healthz").await;
    }

    async fn wait_ok(&mut self, path: &str) {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            if let Ok(answer) = self.client.get(self.url(path)).send().await
                && answer.status() == StatusCode::OK
            {
                return;
            }
            assert!(Instant::now() < deadline, "{path} does not answer 200:\n{}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends the server without a word, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks the server to stop, and returns its status.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        signal(i32::try_from(child.id()).unwrap(), Signal::TERM);
        child.wait().unwrap()
    }

    /// The status of a server that ends by itself.
    pub(crate) async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end:\n{}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether the process is there; it may be frozen.
    pub(crate) fn runs(&mut self) -> bool {
        let ended = self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
        if ended {
            self.child = None;
        }
        !ended
    }

    /// The server's pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// Everything the server has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The address of a rehearsal meeting.
    pub(crate) fn meeting(&self, name: &str, options: &str) -> String {
        self.url(&format!("/rehearsal/{name}?{options}"))
    }

    /// The first API key.
    pub(crate) fn key(&self) -> String {
        fs::read_to_string(self.folder.path().join("api-key")).unwrap().trim().to_owned()
    }

    /// The private database, to read and to add users.
    pub(crate) async fn pool(&self) -> Pool {
        let socket = self.folder.path().join("postgres/run").display().to_string().replace('/', "%2F");
        let place = Database::parse(&format!("postgres://meeboter@{socket}/meeboter"), postgres::runtime());
        Pool::connect(&place.unwrap(), 5).await.unwrap()
    }

    /// Does something to the private database that a server would not.
    pub(crate) async fn edit(&self, statements: &str) {
        let socket = self.folder.path().join("postgres/run");
        let mut config = tokio_postgres::Config::new();
        let config = config.host_path(socket).user("meeboter").dbname("meeboter");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        let driven = tokio::spawn(connection);
        client.batch_execute(statements).await.unwrap();
        drop(client);
        driven.await.unwrap().unwrap();
    }

    /// Another user of this server.
    pub(crate) async fn visitor(&self, pool: &Pool, name: &str) -> Visitor {
        let (user, key) = (pool.user_named(name).await.unwrap().id, new_key());
        pool.insert_api_key(user, "test", &key[..8], &hash_of_key(&key)).await.unwrap();
        Visitor { base: self.url(""), user, key, client: client() }
    }

    /// A request without a key.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// A request with the first key.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).header("x-api-key", self.key())
    }

    /// The request that creates a bot, under a key of the client's.
    pub(crate) fn create(&self, bot: &Value, idempotency_key: &str) -> RequestBuilder {
        self.request(Method::POST, "/api/bots").header("idempotency-key", idempotency_key).json(bot)
    }

    /// How many bots there are.
    pub(crate) async fn bot_count(&self) -> u64 {
        let (status, page) = self.get("/api/bots").await;
        assert_eq!(status, StatusCode::OK, "{page}");
        page["total"].as_u64().unwrap()
    }

    /// GET with the first key; the status and the body.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    /// POST with the first key; the status and the body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// Sends a bot to a rehearsal and returns its number.
    pub(crate) async fn send_bot(&self, name: &str, options: &str) -> i64 {
        let (status, bot) = self.post("/api/bots", &self.bot_request(name, options)).await;
        assert_eq!(status, StatusCode::CREATED, "{bot}");
        bot["id"].as_i64().unwrap()
    }

    /// What to POST for a bot in a rehearsal.
    pub(crate) fn bot_request(&self, name: &str, options: &str) -> Value {
        json!({
            "meetingInfo": { "platform": "rehearsal", "meetingUrl": self.meeting(name, options) },
            "botDisplayName": name,
        })
    }

    /// The bot as it is.
    pub(crate) async fn bot(&self, id: i64) -> Value {
        let (status, bot) = self.get(&format!("/api/bots/{id}")).await;
        assert_eq!(status, StatusCode::OK, "{bot}");
        bot
    }

    /// Waits until the bot is as wanted, and returns it.
    pub(crate) async fn wait_bot(&self, id: i64, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + limit;
        loop {
            let (status, bot) = self.get(&format!("/api/bots/{id}")).await;
            if status == StatusCode::OK && wanted(&bot) {
                return bot;
            }
            assert!(Instant::now() < deadline, "bot {id} is not as wanted: {bot}\n{}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the bot is in one of these states.
    pub(crate) async fn wait_state(&self, id: i64, limit: Duration, states: &[&str]) -> Value {
        self.wait_bot(id, limit, |bot| states.iter().any(|state| bot["state"] == *state)).await
    }

    /// A bot's history.
    pub(crate) async fn history(&self, id: i64) -> History {
        let (status, page) = self.get(&format!("/api/bots/{id}/events?pageSize=100")).await;
        assert_eq!((status, &page["hasNextPage"]), (StatusCode::OK, &Value::Bool(false)), "{page}");
        History(page["data"].as_array().unwrap().clone())
    }

    /// Waits for a bot's recording, and plays it through its signed link.
    pub(crate) async fn recording(&self, id: i64) -> Media {
        self.wait_bot(id, JOIN_DEADLINE, |bot| bot["recordingState"] == "ready").await;
        let (status, link) = self.get(&format!("/api/bots/{id}/recording")).await;
        assert_eq!(status, StatusCode::OK, "{link}");
        let file = self.client.get(link["recordingUrl"].as_str().unwrap()).send().await.unwrap();
        assert_eq!(file.status(), StatusCode::OK);
        let media = Media::of(&file.bytes().await.unwrap());
        assert!(media.has_picture && media.has_sound && media.complaints.is_empty(), "{media:?}");
        media
    }

    /// How many media segments of a bot are in the object store.
    pub(crate) fn segments(&self, id: i64) -> usize {
        let mut folders =
            vec![self.folder.path().join(format!("objects/meeboter-recordings/recordings/{id}"))];
        let mut count = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let is_segment = entry.path().extension().is_some_and(|ending| ending == "m4s");
                if is_segment {
                    count += 1;
                } else if entry.path().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        count
    }

    /// Has maintenance done now, and answers with the run.
    pub(crate) async fn maintain(&self) -> Value {
        let (status, begun) = self.post("/api/admin/maintenance", &json!({})).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
        let deadline = Instant::now() + MAINTENANCE_DEADLINE;
        loop {
            let (_, seen) = self.get("/api/admin/maintenance").await;
            if seen["running"].is_null() {
                assert!(seen["nextAt"].is_string(), "the next night is known: {seen}");
                return seen["last"].clone();
            }
            assert!(Instant::now() < deadline, "{seen}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until so many media segments of a bot are in the object store.
    pub(crate) async fn wait_segments(&self, id: i64, limit: Duration, count: usize) {
        let deadline = Instant::now() + limit;
        while self.segments(id) < count {
            assert!(Instant::now() < deadline, "{} segments of bot {id}", self.segments(id));
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the pool counts as many slots in a state.
    pub(crate) async fn wait_slots(&self, limit: Duration, state: &str, count: u64) {
        let deadline = Instant::now() + limit;
        loop {
            let (_, stats) = self.get("/api/bots/pool/stats").await;
            if stats[state] == count {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the pool does not have {count} {state}: {stats}\n{}",
                self.log()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The pids of the processes that work in this server's folder: bots and what they started. A browser hides its
    /// environment but stays where it was started, its crash handler goes elsewhere but shows its environment.
    pub(crate) fn bot_pids(&self) -> Vec<i32> {
        let folder = self.folder.path().join("bots");
        let mark = format!("MEEBOTER_WORK_DIR={}/", self.folder.path().display());
        let is_there =
            |pid: i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
        let is_marked = |pid: i32| environment(pid).iter().any(|variable| variable.starts_with(&mark));
        pids().filter(|pid| is_there(*pid) || is_marked(*pid)).collect()
    }

    /// The pids of the bots' programs themselves: each leads a session, which what it has just forked does not.
    pub(crate) fn bot_program_pids(&self) -> Vec<i32> {
        let is_bot = |pid: &i32| {
            // pid (name) state parent group session …
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let Some((start, rest)) = stat.rsplit_once(')') else { return false };
            let session = rest.split_whitespace().nth(3).and_then(|session| session.parse().ok());
            start.ends_with("(meeboter-bot") && session == Some(*pid)
        };
        self.bot_pids().into_iter().filter(is_bot).collect()
    }

    /// The pid of the private PostgreSQL.
    pub(crate) fn postgres_pid(&self) -> Option<i32> {
        let file = fs::read_to_string(self.folder.path().join("postgres/data/postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// The folder of the private PostgreSQL's cluster.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.folder.path().join("postgres/data")
    }

    /// The private database, for another program.
    pub(crate) fn database_url(&self) -> String {
        let socket = self.folder.path().join("postgres/run");
        assert!(socket.join(".s.PGSQL.5432").exists(), "no socket in {}", socket.display());
        format!("postgres:///meeboter?host={}&user=meeboter", socket.display())
    }

    /// Everything of this server that still runs, but the server.
    pub(crate) fn remains(&self) -> Vec<i32> {
        let mut remains = self.bot_pids();
        remains.extend(cluster_pids(&self.cluster()));
        remains
    }
}

/// A server that is expected not to start: its status and its words. It is given a folder and a port of its own, where
/// `settings` say nothing else.
pub(crate) async fn refused(settings: &[(&str, &str)]) -> (ExitStatus, String) {
    let folder = tempfile::Builder::new().prefix("meeboter-test-").tempdir().unwrap();
    let said = folder.path().join("said");
    let mut command = serve();
    command.env("MEEBOTER_DATA_DIR", folder.path()).env("MEEBOTER_SERVER__BIND", "127.0.0.1");
    command.env("MEEBOTER_SERVER__PORT", "0").envs(settings.iter().copied());
    let mut child = command.stdout(Stdio::null()).stderr(fs::File::create(&said).unwrap()).spawn().unwrap();
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        let words = fs::read_to_string(&said).unwrap();
        match child.try_wait().unwrap() {
            Some(status) => return (status, words),
            None if Instant::now() >= deadline => {
                signal(i32::try_from(child.id()).unwrap(), Signal::TERM);
                panic!("it did not end ({}):\n{words}", child.wait().unwrap());
            }
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

/// The server's program, without this process's environment, and with the few open files that a login is given.
fn serve() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 1024 && exec \"$0\" serve", env!("CARGO_BIN_EXE_meeboter")]);
    command.env_clear().stdin(Stdio::null());
    let inherited = ["PATH", "HOME", "TMPDIR", "LANG"];
    command.envs(inherited.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

/// All processes.
pub(crate) fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// A process's environment, as `NAME=value`.
pub(crate) fn environment(pid: i32) -> Vec<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variables = environment.split(|byte| *byte == 0).filter(|variable| !variable.is_empty());
    variables.map(|variable| String::from_utf8_lossy(variable).into_owned()).collect()
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(i32::try_from(child.id()).unwrap_or_default(), Signal::TERM);
            let _ = child.wait();
        }
        // Bots outlive the server, and a killed one leaves its database behind. They write until they are gone.
        let deadline = Instant::now() + END_DEADLINE;
        while Instant::now() < deadline && !self.remains().is_empty() {
            self.bot_pids().into_iter().for_each(|pid| signal(pid, Signal::KILL));
            self.postgres_pid().into_iter().for_each(|pid| signal(pid, Signal::QUIT));
            std::thread::park_timeout(LOOK);
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
        }
    }
}

/// A program that takes a bot's place and never says a word; it ends when the server's folder is gone.
pub(crate) fn silent_bot(folder: &Path) -> String {
    script_bot(folder, "silent-bot", "while [ -d \"$MEEBOTER_WORK_DIR\" ]; do sleep 1; done")
}

/// A shell script as a bot's program.
pub(crate) fn script_bot(folder: &Path, name: &str, script: &str) -> String {
    let (program, text) = (folder.join(name), folder.join(format!("{name}.text")));
    fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    // Not written by this process: a child forked meanwhile would hold the file open, and "text file busy" follow.
    let installed = Command::new("install").args(["-m", "755"]).arg(&text).arg(&program).status();
    assert!(installed.unwrap().success());
    program.display().to_string()
}

/// Sends a signal to a process that may be gone.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
