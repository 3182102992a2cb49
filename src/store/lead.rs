//! Who leads: a session's advisory lock, and the epoch that every batch is written under.
//!
//! The lock lasts as long as the connection that took it, so a dead leader frees it at once; the epoch lasts as long
//! as the process. Both live in the database that the rows are in: whoever cannot reach it cannot lead.

use super::database::DatabaseError;
use chrono::{DateTime, Utc};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use tokio_postgres::{Client, Error};

/// The advisory lock's two numbers: "meeb", and what of it is locked.
const LOCK: (i32, i32) = (0x6d65_6562, 1);

/// Why this process does not lead.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// The database cannot be reached.
    #[error(transparent)]
    Connect(#[from] DatabaseError),
    /// Another server leads on this database.
    #[error(
        "another server already works on this database: {0}. Stop it first, or give this one a database of its own (DATABASE_URL)"
    )]
    Led(Leader),
    /// The lock could not be asked for.
    #[error("could not ask PostgreSQL for the lead")]
    Lock(#[source] Error),
    /// The schema could not be brought to this version.
    #[error("the database schema could not be migrated; see migrations/README.md")]
    Migrate(#[source] Box<refinery::Error>),
    /// Somebody uses a table that a migration needs alone.
    #[error(
        "the database schema could not be migrated: a table is in use by {0}. Wait for that to end, or end it (pg_terminate_backend); see migrations/README.md"
    )]
    InUse(String),
    /// The epoch could not be counted up.
    #[error("could not begin a new epoch; may this user write to the database?")]
    Epoch(#[source] Error),
    /// The statements could not be prepared.
    #[error("the database's schema does not fit this server's statements; was it made by another version?")]
    Prepare(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// PostgreSQL did not finish in time.
    #[error("PostgreSQL took longer than {0:?} to hand over the lead")]
    TimedOut(Duration),
}

/// Who holds the lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// `meeboter/<hostname>/<pid>`.
    pub application_name: String,
    /// Where it connects from; `None`: this host, by a socket.
    pub address: Option<IpAddr>,
    /// How long it has asked the database for nothing, by the database's clock.
    pub silent: Duration,
    /// Its session.
    pub(super) backend: Backend,
}

impl fmt::Display for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.map_or_else(|| "this host".to_owned(), |address| address.to_string());
        let (pid, since) = (self.backend.pid, self.backend.started_at.format("%F %T UTC"));
        write!(f, "{} at {address}, connected since {since} (backend pid {pid})", self.application_name)
    }
}

/// A session of the database; its start tells it from a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) pid: i32,
    pub(super) started_at: DateTime<Utc>,
}

/// This connection's session.
pub(super) async fn backend(client: &Client) -> Result<Backend, Error> {
    let row = client
        .query_one("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()", &[])
        .await?;
    Ok(Backend { pid: row.try_get(0)?, started_at: row.try_get(1)? })
}

/// Takes the lock unless another session has it.
pub(super) async fn try_lock(client: &Client) -> Result<bool, Error> {
    client.query_one("SELECT pg_try_advisory_lock($1, $2)", &[&LOCK.0, &LOCK.1]).await?.try_get(0)
}

/// Who has the lock.
pub(super) async fn leader(client: &Client) -> Result<Option<Leader>, Error> {
    // classid and objid are unsigned there; the numbers are small enough to be equal either way.
    // A session that is working, however slowly, is not silent: its statements have deadlines of their own.
    let text = "SELECT coalesce(s.application_name, ''), s.client_addr, s.pid, s.backend_start, \
                CASE WHEN s.state = 'active' THEN 0 ELSE \
                coalesce(extract(epoch FROM clock_timestamp() - s.state_change) * 1000, 0) END::bigint \
                FROM pg_locks AS l JOIN pg_stat_activity AS s ON s.pid = l.pid \
                WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 \
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                AND l.classid::bigint = $1 AND l.objid::bigint = $2";
    let row = client.query_opt(text, &[&i64::from(LOCK.0), &i64::from(LOCK.1)]).await?;
    row.map(|row| {
        Ok(Leader {
            application_name: row.try_get(0)?,
            address: row.try_get(1)?,
            backend: Backend { pid: row.try_get(2)?, started_at: row.try_get(3)? },
            silent: Duration::from_millis(u64::try_from(row.try_get::<_, i64>(4)?).unwrap_or(0)),
        })
    })
    .transpose()
}

/// Ends a session, if it is still the one that is meant.
pub(super) async fn terminate(client: &Client, backend: Backend) -> Result<(), Error> {
    let text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2";
    client.execute(text, &[&backend.pid, &backend.started_at]).await.map(drop)
}

/// Who uses tables of this database in transactions that have lasted, for people.
pub(super) async fn users_of_tables(client: &Client) -> Result<String, Error> {
    let text = "SELECT coalesce(string_agg(DISTINCT format('%s (backend pid %s)', \
                coalesce(nullif(s.application_name, ''), 'a session'), s.pid), ', '), 'nobody any more') \
                FROM pg_locks AS l JOIN pg_stat_activity AS s ON s.pid = l.pid \
                WHERE l.locktype = 'relation' AND l.granted AND s.pid <> pg_backend_pid() \
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                AND s.xact_start < clock_timestamp() - interval '1 second'";
    client.query_one(text, &[]).await?.try_get(0)
}

/// Begins an epoch: what an earlier leader still sends is refused from here on.
pub(super) async fn begin_epoch(client: &Client, led_by: &str) -> Result<i64, Error> {
    let text = "UPDATE leadership SET epoch = epoch + 1, led_by = $1, led_since = now() RETURNING epoch";
    client.query_one(text, &[&led_by]).await?.try_get(0)
}

/// The epoch that stands.
pub(super) async fn epoch(client: &Client) -> Result<i64, Error> {
    client.query_one("SELECT epoch FROM leadership", &[]).await?.try_get(0)
}
