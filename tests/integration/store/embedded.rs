//! The embedded PostgreSQL: made, adopted, started again, stopped.

use crate::support::postgres::{Janitor, log, runtime};
use meeboter::store::data_dir::{DataDir, DataDirError};
use meeboter::store::embedded::{Durability, Embedded, Found};
use meeboter::store::queries::Page;
use std::path::{Path, PathBuf};
use std::time::Duration;

struct Folder {
    path: PathBuf,
    _janitor: Janitor,
}

fn folder() -> Folder {
    let path = tempfile::Builder::new().prefix("meeboter-test-").tempdir().expect("a folder").keep();
    Folder { _janitor: Janitor::watch(&path), path }
}

async fn start(data_dir: &DataDir) -> Embedded {
    Embedded::start(data_dir, Durability::Throwaway, runtime(), &log()).await.expect("PostgreSQL")
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("runs");
}

/// The session that a process belongs to.
fn session_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("runs");
    let after_name = stat.rsplit(')').next().expect("fields");
    after_name.split_whitespace().nth(3).and_then(|field| field.parse().ok()).expect("a number")
}

async fn answers(embedded: &Embedded) {
    let database = embedded.database("check").await.expect("a database");
    let (_client, _connection) =
        database.config().connect(tokio_postgres::NoTls).await.expect("accepts connections");
}

#[tokio::test]
async fn it_is_adopted_started_again_and_stopped() {
    let folder = folder();
    let data_dir = DataDir::hold(&folder.path).expect("ours");
    let first = start(&data_dir).await;
    let pid = first.pid().expect("runs");
    assert_eq!(first.ensure_running().await.expect("runs"), Found::Running);

    assert_eq!(session_of(pid), pid, "what is sent to this process's session does not reach it");

    // A server that was killed leaves it running; the next one adopts it.
    std::mem::forget(first);
    let adopted = start(&data_dir).await;
    assert_eq!(adopted.pid(), Some(pid));
    answers(&adopted).await;

    // Killed, its children still ending.
    kill(pid);
    assert_eq!(adopted.ensure_running().await.expect("starts"), Found::Started);
    assert_ne!(adopted.pid(), Some(pid));
    answers(&adopted).await;

    adopted.stop().await.expect("stops");
    assert_eq!(adopted.pid(), None);
    let again = start(&data_dir).await;
    answers(&again).await;
    again.stop().await.expect("stops");
}

#[tokio::test]
async fn a_stale_pid_file_is_no_obstacle() {
    let folder = folder();
    let data_dir = DataDir::hold(&folder.path).expect("ours");
    let embedded = start(&data_dir).await;
    let pid_file = folder.path.join("postgres/data/postmaster.pid");
    let text = std::fs::read_to_string(&pid_file).expect("is there");
    embedded.stop().await.expect("stops");
    // After a reboot the pid may be anybody's: this test's own, for one, or a process of PostgreSQL's user.
    let mut other = std::process::Command::new("sleep");
    other.arg("60");
    std::os::unix::process::CommandExt::uid(&mut other, owner(&pid_file));
    let mut other = other.spawn().expect("sleeps");
    for pid in [std::process::id(), other.id(), 4_000_000] {
        let lines: Vec<&str> = text.lines().skip(1).collect();
        std::fs::write(&pid_file, format!("{pid}\n{}\n", lines.join("\n"))).expect("writes");
        let embedded = start(&data_dir).await;
        answers(&embedded).await;
        embedded.stop().await.expect("stops");
    }
    other.kill().expect("ends");
    other.wait().expect("ended");
}

/// Who owns the folder of a file.
fn owner(file: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    file.parent().and_then(|folder| folder.metadata().ok()).map(|metadata| metadata.uid()).expect("is there")
}

#[tokio::test]
async fn a_crash_while_it_is_made_leaves_no_half_database() {
    let folder = folder();
    let data_dir = DataDir::hold(&folder.path).expect("ours");
    let embedded = start(&data_dir).await;
    embedded.stop().await.expect("stops");
    let postgres = folder.path.join("postgres");
    std::fs::rename(postgres.join("data"), postgres.join("data.new")).expect("moves");
    std::fs::remove_file(postgres.join("data.new/PG_VERSION")).expect("half of it");
    let embedded = start(&data_dir).await;
    answers(&embedded).await;
    embedded.stop().await.expect("stops");
}

#[tokio::test]
async fn what_was_written_survives_a_kill() {
    let folder = folder();
    let data_dir = DataDir::hold(&folder.path).expect("ours");
    let embedded = Embedded::start(&data_dir, Durability::Full, runtime(), &log()).await.expect("PostgreSQL");
    let database = embedded.database("meeboter").await.expect("a database");
    let journal = super::lead(&database).await;
    super::commit(&journal, 1, vec![super::write_bot(&super::sample::bot(1))]).await;
    kill(embedded.pid().expect("runs"));
    assert_eq!(embedded.ensure_running().await.expect("starts"), Found::Started);
    use meeboter_actors::ports::{BatchNo, Store};
    let mut committed = journal.was_committed(BatchNo(1)).await;
    if committed.is_err() {
        committed = journal.was_committed(BatchNo(1)).await;
    }
    assert_eq!(committed, Ok(true));
    let pool = meeboter::store::pool::Pool::connect(&database, 5).await.expect("a pool");
    let bots = pool.list_bots(meeboter_actors::ids::UserId(1), Page { number: 1, size: 5 }).await;
    assert_eq!(bots.expect("lists").total, 1);
    drop(journal);
    embedded.stop().await.expect("stops");
}

#[tokio::test]
async fn a_data_folder_is_held_by_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let held = DataDir::hold(folder.path()).expect("ours");
    let Err(error) = DataDir::hold(folder.path()) else { panic!("it is held") };
    assert!(
        matches!(&error, DataDirError::Held { pid, .. } if *pid == std::process::id().to_string()),
        "{error}"
    );
    drop(held);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    // A process that another test starts holds copies of all files for the moment before it becomes its program.
    while DataDir::hold(folder.path()).is_err() {
        assert!(std::time::Instant::now() < deadline, "free again");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_folder_that_postgresql_cannot_reach_is_named() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        // Then PostgreSQL is this user, who can enter what it made.
        return;
    }
    let closed = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).expect("closes");
    let data_dir = DataDir::hold(&closed.path().join("data")).expect("ours");
    let Err(error) = Embedded::start(&data_dir, Durability::Throwaway, runtime(), &log()).await else {
        panic!("cannot be reached")
    };
    assert!(error.to_string().contains(&format!("cannot enter {}", closed.path().display())), "{error}");
}

#[tokio::test]
async fn a_folder_with_a_long_name_works_too() {
    let folder = folder();
    let data_dir = DataDir::hold(&folder.path.join("x".repeat(100))).expect("ours");
    let embedded = start(&data_dir).await;
    answers(&embedded).await;
    let database = embedded.database("check").await.expect("a database");
    embedded.stop().await.expect("stops");
    for host in database.config().get_hosts() {
        let tokio_postgres::config::Host::Unix(socket) = host else { panic!("no TCP") };
        assert!(!socket.starts_with(&folder.path), "{socket:?}");
        std::fs::remove_dir_all(socket).expect("removes");
    }
}

#[tokio::test]
async fn the_database_may_be_a_link_to_another_disk() {
    let (folder, disk) = (folder(), folder());
    let data_dir = DataDir::hold(&folder.path).expect("ours");
    let first = start(&data_dir).await;
    first.stop().await.expect("stops");
    let cluster = folder.path.join("postgres/data");
    let moved = disk.path.join("data");
    std::fs::rename(&cluster, &moved).expect("moves");
    std::os::unix::fs::symlink(&moved, &cluster).expect("links");
    open_to_all(&disk.path);
    let embedded = start(&data_dir).await;
    answers(&embedded).await;
    assert_eq!(start(&data_dir).await.pid(), embedded.pid());
    embedded.stop().await.expect("stops");
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).expect("opens");
}
