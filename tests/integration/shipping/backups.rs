//! Backups of a server's database in an object store, and back into another database.

use crate::support::client::answer;
use crate::support::postgres::{self, fresh_database, operators_key, url_of};
use crate::support::server::{Server, script_bot, silent_bot};
use meeboter::artifacts::embedded::EmbeddedS3;
use meeboter::store::database::Database;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// What servers call themselves: the meeting is known by it, whoever serves.
const ADDRESS: &str = "http://meeboter.example";
const MINUTE: Duration = Duration::from_secs(60);
/// A folder without programs.
const NOWHERE: &str = "/nowhere";

/// An object store for backups.
struct Store {
    embedded: EmbeddedS3,
    folder: TempDir,
}

impl Store {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = slog::Logger::root(slog::Discard, slog::o!());
        Self { embedded: EmbeddedS3::start(folder.path(), log).await.unwrap(), folder }
    }

    /// Runs `meeboter backup`, its programs looked for in `first` before anywhere else.
    async fn backup(&self, first: &Path, database: &Database, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meeboter"));
        let path = format!("{}:{}", first.display(), std::env::var("PATH").unwrap());
        command.arg("backup").args(arguments).env_clear().env("PATH", path).stdin(Stdio::null());
        command.env("DATABASE_URL", url_of(database)).env("S3_ENDPOINT", self.embedded.endpoint());
        let keys = self.embedded.keys();
        command.env("S3_ACCESS_KEY", &keys.access_key).env("S3_SECRET_KEY", &keys.secret_key);
        // The store is served by this test's own thread.
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Runs `meeboter backup`, which must succeed, and returns what it said.
    async fn done(&self, database: &Database, arguments: &[&str]) -> String {
        let output = self.backup(Path::new(NOWHERE), database, arguments).await;
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// Runs `meeboter backup`, which must fail, and returns its complaint.
    async fn failed(&self, first: &Path, database: &Database, arguments: &[&str]) -> String {
        let output = self.backup(first, database, arguments).await;
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// The names of the backups, the oldest first.
    async fn names(&self, database: &Database) -> Vec<String> {
        let said = self.done(database, &["list"]).await;
        let names = said.lines().skip(2).filter_map(|line| line.split_whitespace().next());
        names.map(str::to_owned).collect()
    }
}

/// A server without a slot, so that bots wait.
async fn server(database: &Database) -> Server {
    let url = url_of(database);
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("NEXT_PUBLIC_APP_ORIGIN_URL", ADDRESS),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "0"),
    ];
    Server::start(&settings).await
}

async fn create(server: &Server, key: &str, idempotency_key: &str) -> (StatusCode, Value) {
    let bot = json!({
        "meetingInfo": { "platform": "rehearsal", "meetingUrl": format!("{ADDRESS}/rehearsal/backup") },
        "queueTimeoutMs": 600_000,
    });
    let request = server.bare(Method::POST, "/api/bots").header("x-api-key", key);
    answer(request.header("idempotency-key", idempotency_key).json(&bot)).await
}

async fn total(server: &Server, key: &str) -> u64 {
    let (_, page) = answer(server.bare(Method::GET, "/api/bots").header("x-api-key", key)).await;
    page["total"].as_u64().unwrap()
}

/// Runs statements in a database.
async fn edit(database: &Database, statements: &str) {
    let (client, connection) = database.config().connect(tokio_postgres::NoTls).await.unwrap();
    let driven = tokio::spawn(connection);
    client.batch_execute(statements).await.unwrap();
    drop(client);
    driven.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_goes_on_from_a_backup_in_another_database() {
    let (store, database) = (Store::start().await, fresh_database().await);
    let mut before = server(&database).await;
    let key = operators_key(&database).await;
    let (status, kept) = create(&before, &key, "kept").await;
    assert_eq!(status, StatusCode::CREATED, "{kept}");
    // More than one part, however well it is packed.
    let filler = "CREATE TABLE filler AS SELECT md5(i::text) AS text FROM generate_series(1, 800000) AS i";
    edit(&database, filler).await;

    let said = store.done(&database, &["create"]).await;
    let name = said.split(':').next().unwrap().to_owned();
    assert_eq!(store.names(&database).await, std::slice::from_ref(&name));
    let file = store.folder.path().join("objects/meeboter-recordings/backups").join(&name);
    assert!(file.metadata().unwrap().len() > 12 << 20, "{file:?}");
    let (status, late) = create(&before, &key, "late").await;
    assert_eq!(status, StatusCode::CREATED, "{late}");
    before.kill();

    let other = fresh_database().await;
    store.done(&other, &["restore", &name]).await;
    let after = server(&other).await;
    assert_eq!(total(&after, &key).await, 1);
    let (status, again) = create(&after, &key, "kept").await;
    assert_eq!((status, &again["id"]), (StatusCode::OK, &kept["id"]), "{again}");
    let path = format!("/api/bots/{}", kept["id"]);
    let (_, bot) = answer(after.bare(Method::GET, &path).header("x-api-key", &key)).await;
    assert_eq!(bot["state"], "QUEUED", "{bot}");

    // Not over what is there.
    let complaint = store.failed(Path::new(NOWHERE), &other, &["restore", &name]).await;
    assert!(complaint.contains("already exists"), "{complaint}");
    assert_eq!(total(&after, &key).await, 1);
    let complaint = store.failed(Path::new(NOWHERE), &other, &["restore", "yesterday"]).await;
    assert!(complaint.contains("there is no backup yesterday"), "{complaint}");

    // What is in the object store of bots that this database never knew stays theirs.
    let (status, new) = create(&after, &key, "new").await;
    assert_eq!(status, StatusCode::CREATED, "{new}");
    let [late, new] = [&late, &new].map(|bot| bot["id"].as_i64().unwrap());
    assert!(new > late + 900_000, "{new} comes too soon after {late}");
}

/// The engine remembers bots that a restored database has forgotten.
#[tokio::test]
async fn bots_start_after_a_restore_where_others_ran_since_the_backup() {
    let (store, database) = (Store::start().await, fresh_database().await);
    let programs = tempfile::tempdir().unwrap();
    let (url, program) = (url_of(&database), silent_bot(programs.path()));
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("MEEBOTER_DRIVER__BOT_PROGRAM", program.as_str()),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "2"),
    ];
    let mut server = Server::start(&settings).await;
    let staying = started(&server, "staying").await;
    end(&server, started(&server, "before").await, (1, 1)).await;
    let said = store.done(&database, &["create"]).await;
    let name = said.split(':').next().unwrap();
    for since in ["since", "and since"] {
        end(&server, started(&server, since).await, (1, 1)).await;
    }
    server.kill();
    let database_name = database.config().get_dbname().unwrap();
    let maintenance = postgres::server().await.database("postgres").await.unwrap();
    edit(&maintenance, &format!("DROP DATABASE {database_name} WITH (FORCE)")).await;
    postgres::server().await.database(database_name).await.unwrap();
    store.done(&database, &["restore", name]).await;
    server.spawn();
    server.wait_ready().await;

    let next = started(&server, "next").await;
    // Who was there before goes on, and its slot goes with it.
    assert_eq!(server.bot(staying).await["state"], "JOINING_CALL");
    end(&server, staying, (1, 0)).await;
    end(&server, next, (0, 1)).await;
    let (_, slots) = server.get("/api/admin/slots").await;
    assert_eq!(slots["data"].as_array().map(Vec::len), Some(1), "{slots}");
}

/// A bot whose program runs.
async fn started(server: &Server, name: &str) -> i64 {
    let id = server.send_bot(name, "").await;
    let bot = server.wait_state(id, MINUTE, &["JOINING_CALL", "FATAL"]).await;
    assert_eq!(bot["state"], "JOINING_CALL", "{bot}");
    id
}

/// Ends a bot; so many slots are busy and free then.
async fn end(server: &Server, bot: i64, (busy, idle): (u64, u64)) {
    let (status, ended) = server.post(&format!("/api/admin/bots/{bot}/end"), &Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{ended}");
    server.wait_slots(MINUTE, "busy", busy).await;
    server.wait_slots(MINUTE, "idle", idle).await;
}

#[tokio::test]
async fn only_whole_backups_are_stored_and_the_latest_are_kept() {
    let (store, database) = (Store::start().await, fresh_database().await);
    edit(&database, "CREATE TABLE one (id int)").await;
    // Breaks off in its third part, as where the connection to PostgreSQL is lost.
    let programs = tempfile::tempdir().unwrap();
    script_bot(
        programs.path(),
        "pg_dump",
        "head -c 20000000 /dev/zero; echo 'the server is gone' >&2; exit 1",
    );
    let complaint = store.failed(programs.path(), &database, &["create"]).await;
    assert!(complaint.contains("pg_dump") && complaint.contains("the server is gone"), "{complaint}");
    assert_eq!(store.names(&database).await, Vec::<String>::new());

    let said = store.done(&database, &["create"]).await;
    let first = said.split(':').next().unwrap().to_owned();
    // Not a server's: nothing in it says which id comes next.
    let complaint = store.failed(Path::new(NOWHERE), &fresh_database().await, &["restore", &first]).await;
    assert!(complaint.contains("drop the database"), "{complaint}");
    store.done(&database, &["create", "--keep", "2"]).await;
    assert_eq!(store.names(&database).await.first(), Some(&first));
    store.done(&database, &["create", "--keep", "2"]).await;
    let names = store.names(&database).await;
    assert!(names.len() == 2 && !names.contains(&first), "{names:?}");
}
