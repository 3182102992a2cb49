//! `meeboter backup`: the database as one file in the object store, and back. `pg_dump` and `pg_restore` do the work
//! (`postgres.rs`); nothing of it touches a disk. A backup is stored when all of it is there, else not at all.

mod postgres;

use crate::artifacts::{Backup, Failure, S3Artifacts, S3Keys, S3Settings};
use crate::config::{LoadError, Settings, Source};
use crate::store::database::{Database, DatabaseError};
use crate::store::restored::{UnfitError, make_fit};
use crate::table;
use chrono::{DateTime, Utc};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a backup or a restore may take.
const DEADLINE: Duration = Duration::from_secs(6 * 60 * 60);
/// Bytes in a MiB, for people.
const MIB: f64 = 1024.0 * 1024.0;

/// Why there is no backup, or it was not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] LoadError),
    /// Both ends must be outside of the server.
    #[error(
        "{0} is not set: backups go from a PostgreSQL to an object store, both of which are there without the server; \
        of embedded ones, stop the server and copy its data folder"
    )]
    Embedded(&'static str),
    /// The database's address.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The store, or a program, failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// All rows are there, and what forgotten bots had may be given again.
    #[error(
        "the database is restored, but not fit for use: its next bots could get ids or slots of forgotten ones; drop the \
        database and restore it again"
    )]
    Unfit(#[from] UnfitError),
    /// No such backup.
    #[error("there is no backup {0}: `meeboter backup list` shows those there are")]
    Missing(String),
    /// No folder for temporary files.
    #[error("no temporary folder can be made")]
    Folder(#[source] io::Error),
}

/// `meeboter backup`
#[derive(Debug, Clone, clap::Args)]
pub struct BackupOptions {
    /// Settings that override the defaults, as for `serve`; the environment overrides both.
    #[arg(long, global = true, env = "MEEBOTER_CONFIG")]
    config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    action: BackupAction,
}

/// What can be done with backups.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum BackupAction {
    /// Store a backup of the database; servers go on meanwhile.
    Create {
        /// Remove all but so many of the latest backups afterwards.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        keep: Option<u32>,
    },
    /// The backups there are, the oldest first.
    List,
    /// Restore a backup into the database, which must be empty; no server may use it yet.
    Restore {
        /// Its name, as the list has it.
        name: String,
    },
}

/// Does it, and says what was done.
pub async fn run(options: BackupOptions) -> Result<(), BackupError> {
    let settings = Source { file: options.config }.load()?.settings;
    let folder = tempfile::tempdir().map_err(BackupError::Folder)?;
    let store = store(&settings, folder.path().to_owned())?;
    match options.action {
        BackupAction::Create { keep } => {
            let (database, name) = (database(&settings)?, name_of(Utc::now()));
            store.ensure_bucket().await?;
            let bytes = in_time("a backup", create(&store, &database, &name)).await?;
            println!("{name}: {}", mib(bytes));
            if let Some(keep) = keep {
                for old in surplus(store.backups().await?, keep as usize) {
                    store.remove_backup(&old.name).await?;
                    println!("{}: removed", old.name);
                }
            }
        }
        BackupAction::List => {
            let backups = store.backups().await?;
            let rows: Vec<_> = backups.into_iter().map(|backup| [backup.name, mib(backup.bytes)]).collect();
            println!("{}", table::render(["name", "size"], &rows));
        }
        BackupAction::Restore { name } => {
            let database = database(&settings)?;
            in_time("restoring a backup", restore(&store, &database, &name)).await?;
            println!("{name}: restored");
        }
    }
    Ok(())
}

async fn create(store: &S3Artifacts, database: &Database, name: &str) -> Result<u64, BackupError> {
    let mut dump = postgres::dump(database)?;
    Ok(store.put_backup(name, &mut dump.output, dump.program.end()).await?)
}

async fn restore(store: &S3Artifacts, database: &Database, name: &str) -> Result<(), BackupError> {
    let Some(mut backup) = store.read_backup(name).await? else {
        return Err(BackupError::Missing(name.to_owned()));
    };
    let mut restore = postgres::restore(database)?;
    let sent = tokio::io::copy(&mut backup, &mut restore.input).await;
    drop(restore.input);
    // Where the program ended early, its own words say more than a broken pipe.
    restore.program.end().await?;
    sent.map_err(|source| Failure::File { what: "pass the backup on", source })?;
    Ok(make_fit(database).await?)
}

async fn in_time<T>(
    what: &'static str,
    work: impl Future<Output = Result<T, BackupError>>,
) -> Result<T, BackupError> {
    let outcome = tokio::time::timeout(DEADLINE, work).await;
    outcome.unwrap_or(Err(Failure::Late { what, limit: DEADLINE }.into()))
}

fn database(settings: &Settings) -> Result<Database, BackupError> {
    match settings.database.url.expose() {
        "" => Err(BackupError::Embedded("DATABASE_URL")),
        url => Ok(Database::parse(url, Handle::current())?),
    }
}

fn store(settings: &Settings, temp_dir: PathBuf) -> Result<S3Artifacts, BackupError> {
    let s3 = &settings.s3;
    if s3.endpoint.is_empty() {
        return Err(BackupError::Embedded("S3_ENDPOINT"));
    }
    let settings = S3Settings {
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        bucket: s3.bucket.clone(),
        keys: S3Keys { access_key: s3.access_key.clone(), secret_key: s3.secret_key.expose().to_owned() },
        temp_dir,
        join_bytes_max: S3Settings::JOIN_BYTES_MAX,
    };
    Ok(S3Artifacts::new(settings, slog::Logger::root(slog::Discard, slog::o!()))?)
}

/// A name that sorts by time.
fn name_of(now: DateTime<Utc>) -> String {
    now.format("%Y-%m-%dT%H-%M-%S-%3fZ.dump").to_string()
}

/// What is too much where so many of the latest are kept.
fn surplus(mut oldest_first: Vec<Backup>, keep: usize) -> Vec<Backup> {
    oldest_first.truncate(oldest_first.len().saturating_sub(keep));
    oldest_first
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_time() {
        let at = |text: &str| name_of(text.parse().expect("a time"));
        assert_eq!(at("2026-01-02T03:04:05Z"), "2026-01-02T03-04-05-000Z.dump");
        assert!(at("2026-01-02T03:04:05Z") < at("2026-01-02T10:00:00Z"));
        assert!(at("2026-09-30T00:00:00Z") < at("2026-10-01T00:00:00Z"));
    }

    #[test]
    fn the_latest_are_kept() {
        let all = |count: u32| (0..count).map(|at| Backup { name: at.to_string(), bytes: 1 }).collect();
        let gone =
            |count, keep| surplus(all(count), keep).into_iter().map(|old| old.name).collect::<Vec<_>>();
        assert_eq!(gone(5, 3), ["0", "1"]);
        assert_eq!((gone(3, 3), gone(0, 3), gone(2, 1)), (vec![], vec![], vec!["0".to_owned()]));
    }
}
