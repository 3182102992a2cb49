//! Where the database is, and how a connection to it is made.

use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config, NoTls};

/// To reach the server and to hear its first answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A database to connect to.
#[derive(Clone)]
pub struct Database {
    config: Config,
    runtime: Handle,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Not an address.
    #[error("DATABASE_URL is not a PostgreSQL address; write postgres://user:password@host:5432/database")]
    Address(#[source] tokio_postgres::Error),
    /// Asks for TLS.
    #[error(
        "DATABASE_URL asks for TLS (sslmode=require), which this server does not speak to PostgreSQL; use a private network or a local proxy, and sslmode=disable"
    )]
    Tls,
    /// Not reachable, or it refused.
    #[error(
        "PostgreSQL at {place} does not accept a connection; is it running, and are user and password right?"
    )]
    Connect {
        /// Host and database.
        place: String,
        /// What PostgreSQL's client says.
        source: tokio_postgres::Error,
    },
    /// No answer in time.
    #[error("PostgreSQL at {place} did not answer a connection within {CONNECT_TIMEOUT:?}")]
    TimedOut {
        /// Host and database.
        place: String,
    },
}

/// A connection; its socket is closed when this is dropped.
pub(super) struct Connection {
    pub(super) client: Client,
    _driver: AbortOnDrop,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Database {
    /// The database at a `postgres://` address. Its connections are driven on `runtime`, whoever uses them.
    pub fn parse(url: &str, runtime: Handle) -> Result<Self, DatabaseError> {
        let config: Config = url.parse().map_err(DatabaseError::Address)?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(DatabaseError::Tls);
        }
        Ok(Self::new(config, runtime))
    }

    /// The database of a configuration.
    pub(super) fn new(mut config: Config, runtime: Handle) -> Self {
        config
            .application_name(application_name())
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(2))
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(5));
        Self { config, runtime }
    }

    /// How it is connected to.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The same server's primary: never a replica that only reads.
    pub(super) fn primary(mut self) -> Self {
        self.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        self
    }

    /// Connects, on the runtime that drives connections.
    pub(super) async fn connect(&self) -> Result<Connection, DatabaseError> {
        let config = self.config.clone();
        let handle = self.runtime.clone();
        let connect = self.runtime.spawn(async move {
            let (client, connection) = config.connect(NoTls).await?;
            // An error of the connection reaches whoever waits for an answer on it.
            let driver = AbortOnDrop(handle.spawn(async move { drop(connection.await) }));
            Ok(Connection { client, _driver: driver })
        });
        let mut connect = AbortConnect(connect);
        match tokio::time::timeout(CONNECT_TIMEOUT, &mut connect.0).await {
            Ok(Ok(Ok(connection))) => Ok(connection),
            Ok(Ok(Err(source))) => Err(DatabaseError::Connect { place: self.place(), source }),
            Ok(Err(_)) | Err(_) => Err(DatabaseError::TimedOut { place: self.place() }),
        }
    }

    /// Host and database, for people; no secrets.
    pub(super) fn place(&self) -> String {
        let hosts: Vec<String> = self.config.get_hosts().iter().map(host_name).collect();
        format!("{}/{}", hosts.join(","), self.config.get_dbname().unwrap_or_default())
    }
}

struct AbortConnect(JoinHandle<Result<Connection, tokio_postgres::Error>>);

impl Drop for AbortConnect {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn host_name(host: &tokio_postgres::config::Host) -> String {
    match host {
        tokio_postgres::config::Host::Tcp(name) => name.clone(),
        tokio_postgres::config::Host::Unix(folder) => folder.display().to_string(),
    }
}

/// `meeboter/<hostname>/<pid>`: how this process shows in `pg_stat_activity`.
pub(super) fn application_name() -> String {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // PostgreSQL cuts the name at 63 bytes; the pid must stay.
    let hostname: String = hostname.trim().chars().filter(char::is_ascii_graphic).take(40).collect();
    format!("meeboter/{hostname}/{}", std::process::id())
}
