//! Connections for everything that the Journal does not write: what HTTP reads, users, API keys.

use super::database::{Database, DatabaseError};
use super::flusher::{FLUSH, SYNCHRONOUS};
use crate::telemetry::chain;
use deadpool_postgres::{
    Connect, Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use futures_util::future::{BoxFuture, FutureExt, join_all};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row};

/// Connections made at start, and kept, where so many may be.
const CONNECTIONS_MIN: usize = 5;
/// For a free connection.
const WAIT_TIMEOUT: Duration = Duration::from_secs(2);
/// For a new connection.
const CREATE_TIMEOUT: Duration = Duration::from_secs(3);
/// For a look at a used one.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(2);
/// For an answer. PostgreSQL itself gives up a little earlier.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
const SESSION: &str = "SET statement_timeout = '4s'; SET lock_timeout = '3s'; \
    SET idle_in_transaction_session_timeout = '5s'";

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolSetupError {
    /// Its settings were refused.
    #[error("the connection pool could not be made")]
    Build(#[source] deadpool_postgres::BuildError),
    /// The database cannot be reached.
    #[error(transparent)]
    Connect(#[from] DatabaseError),
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// PostgreSQL is away or busy: another try later may succeed.
    #[error("the database does not answer ({query})")]
    Unavailable {
        /// What was asked.
        query: &'static str,
        /// Why, in one sentence.
        cause: String,
    },
    /// A value or a constraint was refused.
    #[error("the database refused the value ({query})")]
    Refused {
        /// What was asked.
        query: &'static str,
        /// Which rule, where one was broken.
        constraint: Option<String>,
        /// PostgreSQL's words.
        source: tokio_postgres::Error,
    },
    /// It is the query that is wrong.
    #[error(
        "the database does not understand ({query}); does its schema belong to this version of the server?"
    )]
    Failed {
        /// What was asked.
        query: &'static str,
        /// PostgreSQL's words.
        source: tokio_postgres::Error,
    },
    /// A row is not understood.
    #[error(transparent)]
    Decode(#[from] super::rows::DecodeError),
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    connections: deadpool_postgres::Pool,
}

impl Pool {
    /// A pool of so many connections at most to the primary, whose first ones stand.
    pub async fn connect(database: &Database, connections_max: usize) -> Result<Self, PoolSetupError> {
        let database = database.clone().primary();
        let config = database.config().clone();
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let driven = Driven { runtime: database.runtime().clone() };
        let connections = deadpool_postgres::Pool::builder(Manager::from_connect(config, driven, recycling))
            .max_size(connections_max)
            .timeouts(Timeouts {
                wait: Some(WAIT_TIMEOUT),
                create: Some(CREATE_TIMEOUT),
                recycle: Some(RECYCLE_TIMEOUT),
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(PoolSetupError::Build)?;
        // A first one that says what is wrong, if something is.
        drop(database.connect().await?);
        // Held together, so that they are several; one that fails is made when it is needed.
        drop(join_all((0..CONNECTIONS_MIN.min(connections_max)).map(|_| connections.get())).await);
        Ok(Self { connections })
    }

    /// Connections in use and in all.
    pub fn usage(&self) -> (usize, usize) {
        let status = self.connections.status();
        (status.size.saturating_sub(status.available), status.size)
    }

    /// Comes back when all that was read here before is safe from a crash of the database: what the Journal commits can be
    /// read before it is.
    pub async fn flush(&self) -> Result<(), QueryError> {
        self.rows("a flush", FLUSH, &[]).await.map(drop)
    }

    /// The rows that a statement answers with. `query` says for people what is asked.
    pub(super) async fn rows(
        &self,
        query: &'static str,
        text: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, QueryError> {
        let connection = self.connections.get().await.map_err(|error| away(query, &error))?;
        let answer = async {
            let statement = connection.prepare_cached(text).await?;
            connection.query(&statement, params).await
        };
        let answered = tokio::time::timeout(QUERY_TIMEOUT, answer).await;
        settled(query, connection, answered)
    }

    /// The rows that a statement answers with, in a transaction that takes `lock` first: the statement sees what those
    /// who had the lock before it committed.
    pub(super) async fn rows_under_lock(
        &self,
        query: &'static str,
        lock: &str,
        text: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, QueryError> {
        let mut connection = self.connections.get().await.map_err(|error| away(query, &error))?;
        let answer = async {
            let transaction = connection.transaction().await?;
            transaction.batch_execute(lock).await?;
            let statement = transaction.prepare_cached(text).await?;
            let rows = transaction.query(&statement, params).await?;
            transaction.commit().await?;
            Ok(rows)
        };
        let answered = tokio::time::timeout(QUERY_TIMEOUT, answer).await;
        settled(query, connection, answered)
    }

    /// The one row that a statement answers with, if any.
    pub(super) async fn row(
        &self,
        query: &'static str,
        text: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, QueryError> {
        Ok(self.rows(query, text, params).await?.into_iter().next())
    }
}

/// What came of a statement. A connection that did not answer in time is closed.
fn settled(
    query: &'static str,
    connection: Object,
    answered: Result<Result<Vec<Row>, tokio_postgres::Error>, Elapsed>,
) -> Result<Vec<Row>, QueryError> {
    match answered {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => Err(classify(query, error)),
        Err(_) => {
            // Whatever it still says is nobody's answer.
            drop(Object::take(connection));
            Err(QueryError::Unavailable { query, cause: format!("no answer within {QUERY_TIMEOUT:?}") })
        }
    }
}

fn away(query: &'static str, error: &PoolError) -> QueryError {
    QueryError::Unavailable { query, cause: chain(error) }
}

fn classify(query: &'static str, error: tokio_postgres::Error) -> QueryError {
    let Some(code) = error.code().map(SqlState::code) else {
        return QueryError::Unavailable { query, cause: chain(&error) };
    };
    match &code[..2] {
        "22" | "23" => {
            let constraint = error.as_db_error().and_then(|error| error.constraint()).map(str::to_owned);
            QueryError::Refused { query, constraint, source: error }
        }
        // Connections, resources, locks and cancellations, operators, the system: not the query's fault.
        "08" | "40" | "53" | "55" | "57" | "58" => QueryError::Unavailable { query, cause: chain(&error) },
        _ => QueryError::Failed { query, source: error },
    }
}

/// Connects on the runtime that drives connections, whichever worker asks.
struct Driven {
    runtime: Handle,
}

impl Connect for Driven {
    fn connect(
        &self,
        config: &Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        let config = config.clone();
        let (sender, connected) = tokio::sync::oneshot::channel();
        let driver = self.runtime.spawn(async move {
            match config.connect(NoTls).await {
                Ok((client, connection)) => {
                    if sender.send(Ok(client)).is_ok() {
                        // An error of the connection reaches whoever waits for an answer on it.
                        drop(connection.await);
                    }
                }
                Err(error) => drop(sender.send(Err(error))),
            }
        });
        async move {
            // A runtime that is being shut down answers nothing; the pool's own timeout says so.
            let Ok(client) = connected.await else { std::future::pending().await };
            let client = client?;
            client.batch_execute(SESSION).await?;
            client.batch_execute(SYNCHRONOUS).await?;
            Ok((client, driver))
        }
        .boxed()
    }
}
