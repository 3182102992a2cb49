//! One PostgreSQL for the test process, a database of its own for each test.

use super::frozen::{Frozen, cluster_pids};
use super::server::signal;
use meeboter::auth::api_keys::new_key;
use meeboter::store::data_dir::DataDir;
use meeboter::store::database::Database;
use meeboter::store::embedded::{Durability, Embedded};
use meeboter::store::pool::Pool;
use meeboter::store::queries::hash_of_key;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

/// Runs beyond any test: what drives the shared server's connections must not end with the test that began it.
pub(crate) fn runtime() -> Handle {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime")
        })
        .handle()
        .clone()
}

/// A log that goes nowhere.
pub(crate) fn log() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

/// A PostgreSQL of this process, ended and removed with it.
pub(crate) struct TestServer {
    pub(crate) embedded: Embedded,
    cluster: PathBuf,
    _data_dir: DataDir,
    _janitor: Janitor,
}

impl TestServer {
    pub(crate) async fn start(durability: Durability) -> Self {
        let folder = tempfile::Builder::new().prefix("meeboter-test-").tempdir().expect("a folder").keep();
        let janitor = Janitor::watch(&folder);
        let data_dir = DataDir::hold(&folder).expect("the folder is ours");
        let embedded = Embedded::start(&data_dir, durability, runtime(), &log()).await.expect("PostgreSQL");
        Self { embedded, cluster: folder.join("postgres/data"), _data_dir: data_dir, _janitor: janitor }
    }
}

/// What may befall a PostgreSQL.
impl TestServer {
    /// All of it is gone at once; somebody has to start it again.
    pub(crate) fn kill(&self) {
        self.embedded.pid().into_iter().for_each(|pid| signal(pid, Signal::KILL));
    }

    /// One of its processes is gone: PostgreSQL then ends all its sessions and recovers by itself.
    pub(crate) fn kill_a_session(&self, which: u32) {
        let Some(postmaster) = self.embedded.pid() else { return };
        let children = cluster_pids(&self.cluster).into_iter().filter(|pid| *pid != postmaster);
        let children: Vec<i32> = children.collect();
        let victim = children.get(which as usize % children.len().max(1));
        victim.into_iter().for_each(|pid| signal(*pid, Signal::KILL));
    }

    /// All of it stops in its tracks, until what this returns is dropped.
    pub(crate) fn freeze(&self) -> Option<Frozen> {
        self.embedded.pid().map(|postmaster| Frozen::cluster(&self.cluster, postmaster))
    }
}

/// Ends the server and the PostgreSQL in a folder and removes the folder, once this process is gone, however it went.
pub(crate) struct Janitor(Mutex<Child>);

impl Janitor {
    pub(crate) fn watch(folder: &Path) -> Self {
        let script = r#"
            read -r _
            server=$(cat "$0/lock" 2>/dev/null)
            [ -n "$server" ] && [ "$(cat "/proc/$server/comm" 2>/dev/null)" = meeboter ] && kill -KILL "$server"
            pid=$(head -n 1 "$0/postgres/data/postmaster.pid" 2>/dev/null)
            [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$0/postgres/data" ] && kill -QUIT "$pid"
            for _ in 1 2 3 4 5 6 7 8 9 10; do [ -n "$pid" ] && [ -d "/proc/$pid" ] && sleep 0.2; done
            rm -rf "$0"
        "#;
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", script]).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(Mutex::new(command.spawn().expect("a shell")))
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        let mut child = self.0.lock().expect("nobody panics with it");
        drop(child.stdin.take());
        let _ = child.wait();
    }
}

static SERVER: OnceCell<TestServer> = OnceCell::const_new();

/// The shared server.
pub(crate) async fn server() -> &'static Embedded {
    &SERVER.get_or_init(|| TestServer::start(Durability::Throwaway)).await.embedded
}

/// How another process names a database.
pub(crate) fn url_of(database: &Database) -> String {
    let config = database.config();
    let socket = match &config.get_hosts()[0] {
        tokio_postgres::config::Host::Unix(folder) => folder.display().to_string().replace('/', "%2F"),
        tokio_postgres::config::Host::Tcp(name) => name.clone(),
    };
    let (user, name) = (config.get_user().unwrap(), config.get_dbname().unwrap());
    format!("postgres://{user}@{socket}/{name}")
}

/// An empty database of the shared server.
pub(crate) async fn fresh_database() -> Database {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    server().await.database(&name).await.expect("a database")
}

/// A new key of the first user, who is an operator. The database must have its schema.
pub(crate) async fn operators_key(database: &Database) -> String {
    let (pool, key) = (Pool::connect(database, 5).await.unwrap(), new_key());
    let user = pool.user_named("admin").await.unwrap().id;
    pool.insert_api_key(user, "test", &key[..8], &hash_of_key(&key)).await.unwrap();
    key
}
