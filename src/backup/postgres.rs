//! PostgreSQL's own programs for backups. They are told of the database by their environment: a command line is there for
//! everybody on the machine to read, a password too.

use crate::artifacts::{Failure, last_words};
use crate::store::database::Database;
use crate::store::embedded::program;
use std::process::Stdio;
use tokio::io;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// The archive format that `pg_restore` reads; owners and rights are those of the database it is restored into. A lock
/// that a migration holds is not waited for without end.
const DUMP: [&str; 4] = ["--format=custom", "--no-owner", "--no-privileges", "--lock-wait-timeout=60000"];
/// All of it or nothing.
const RESTORE: [&str; 4] = ["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"];

/// A database on its way out.
pub(super) struct Dump {
    pub(super) output: ChildStdout,
    pub(super) program: Program,
}

/// A database on its way in.
pub(super) struct Restore {
    pub(super) input: ChildStdin,
    pub(super) program: Program,
}

/// A running program; it ends with this.
pub(super) struct Program {
    name: &'static str,
    child: Child,
    said: JoinHandle<String>,
}

/// Starts to write a database out.
pub(super) fn dump(database: &Database) -> Result<Dump, Failure> {
    let mut command = command("pg_dump", database.config());
    command.args(DUMP).stdout(Stdio::piped());
    let mut program = Program::start("pg_dump", command)?;
    let output = program.child.stdout.take().ok_or_else(|| no_pipe("pg_dump"))?;
    Ok(Dump { output, program })
}

/// Starts to read a database in.
pub(super) fn restore(database: &Database) -> Result<Restore, Failure> {
    let mut command = command("pg_restore", database.config());
    command.args(RESTORE).arg("--dbname").arg(database.config().get_dbname().unwrap_or_default());
    // Of several hosts, the one that takes writes.
    command.env("PGTARGETSESSIONATTRS", "read-write").stdin(Stdio::piped());
    let mut program = Program::start("pg_restore", command)?;
    let input = program.child.stdin.take().ok_or_else(|| no_pipe("pg_restore"))?;
    Ok(Restore { input, program })
}

impl Program {
    fn start(name: &'static str, mut command: Command) -> Result<Self, Failure> {
        let mut child = command.spawn().map_err(|source| Failure::Program { program: name, source })?;
        let said = tokio::spawn(last_words(child.stderr.take()));
        Ok(Self { name, child, said })
    }

    /// Waits for its end, and says how it went.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        let program = self.name;
        let status = self.child.wait().await.map_err(|source| Failure::Program { program, source })?;
        if status.success() {
            return Ok(());
        }
        let tail = self.said.await.unwrap_or_default();
        Err(Failure::ProgramFailed { program, status: status.to_string(), tail })
    }
}

fn command(name: &'static str, config: &Config) -> Command {
    let mut command = Command::new(program(name));
    command.env_clear().envs(environment(config));
    command.envs(["PATH", "HOME"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn no_pipe(program: &'static str) -> Failure {
    Failure::Program { program, source: io::ErrorKind::BrokenPipe.into() }
}

/// What PostgreSQL's programs go by.
fn environment(config: &Config) -> Vec<(&'static str, String)> {
    let host = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) => folder.display().to_string(),
    };
    let list = |values: Vec<String>| Some(values.join(",")).filter(|list| !list.is_empty());
    let variables = [
        ("PGHOST", list(config.get_hosts().iter().map(host).collect())),
        ("PGPORT", list(config.get_ports().iter().map(u16::to_string).collect())),
        ("PGUSER", config.get_user().map(str::to_owned)),
        ("PGPASSWORD", config.get_password().map(|password| String::from_utf8_lossy(password).into_owned())),
        ("PGDATABASE", config.get_dbname().map(str::to_owned)),
        ("PGOPTIONS", config.get_options().map(str::to_owned)),
        ("PGSSLMODE", (config.get_ssl_mode() == SslMode::Disable).then(|| "disable".to_owned())),
        ("PGCONNECT_TIMEOUT", Some("10".to_owned())),
        ("PGAPPNAME", Some("meeboter backup".to_owned())),
    ];
    variables.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_the_programs_are_told() {
        let told = |url: &str| environment(&url.parse().expect("an address"));
        let always = [("PGCONNECT_TIMEOUT", "10"), ("PGAPPNAME", "meeboter backup")];
        let expected = |variables: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
            variables.iter().chain(&always).map(|(name, value)| (*name, (*value).to_owned())).collect()
        };
        let remote = told("postgres://ada:s%40crt@db.example:6432/bots?sslmode=disable");
        assert_eq!(
            remote,
            expected(&[
                ("PGHOST", "db.example"),
                ("PGPORT", "6432"),
                ("PGUSER", "ada"),
                ("PGPASSWORD", "s@crt"),
                ("PGDATABASE", "bots"),
                ("PGSSLMODE", "disable"),
            ])
        );
        let local = told("postgres:///meeboter?host=/run/postgresql&user=meeboter");
        assert_eq!(
            local,
            expected(&[("PGHOST", "/run/postgresql"), ("PGUSER", "meeboter"), ("PGDATABASE", "meeboter")])
        );
    }
}
