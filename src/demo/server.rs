//! The server under demonstration: this same program, as a child.

use super::api::Api;
use super::engine::Engine;
use super::folder::Folder;
use super::progress::Display;
use super::{DemoError, logs};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

const READY_LIMIT: Duration = Duration::from_secs(60);
const READY_POLL: Duration = Duration::from_millis(200);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Settings of a real installation that may lie in the environment: a demonstration must not reach its database, its
/// storage or its hosts.
const FOREIGN: [&str; 15] = [
    "DATABASE_URL",
    "COOLIFY_",
    "S3_",
    "MINIO_",
    "AWS_",
    "AUTH_",
    "BOT_AUTH_TOKEN",
    "BOT_IMAGE_TAG",
    "GHCR_ORG",
    "MAX_POOL_SIZE",
    "POOL_PREWARM_",
    "NEXT_PUBLIC_",
    "DOCKER_",
    "PG",
    "MEEBOTER_",
];
/// Names the bot program; a demonstration needs it as much as any server.
const KEPT: &str = "MEEBOTER_BOT";

/// The child. Dropped while it runs, it is killed.
pub(super) struct Server {
    child: Child,
    base: String,
}

impl Server {
    /// Starts the server on a free port, with the folder as its home.
    pub(super) fn start(folder: &Folder, slots: u16, engine: &Engine) -> Result<Self, DemoError> {
        let system = |what| move |source| DemoError::System { what, source };
        let port = free_port().map_err(system("finding a free port"))?;
        let base = format!("http://127.0.0.1:{port}");
        let program = std::env::current_exe().map_err(system("finding this program's own file"))?;
        let log_failed = |source| DemoError::Folder { path: folder.server_log(), source };
        let log = folder.create_server_log().map_err(log_failed)?;
        let errors = log.try_clone().map_err(log_failed)?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(is_foreign) {
                command.env_remove(name);
            }
        }
        command
            .arg("serve")
            .current_dir(folder.root())
            .env("MEEBOTER_SERVER__PORT", port.to_string())
            .env("MEEBOTER_DATA_DIR", folder.root())
            .env("MEEBOTER_REHEARSAL__ENABLED", "true")
            .env("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", slots.to_string())
            .envs(engine.settings(&base))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // A group of its own: Ctrl-C reaches this program alone, which then ends the server in good order.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(system("starting the server"))?;
        Ok(Self { child, base })
    }

    /// Its address, without a slash at the end.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Waits for the server to end by itself; says how it did.
    pub(super) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => format!("its end could not be seen: {error}"),
        }
    }

    /// Asks it to end; past a limit it is killed.
    pub(super) async fn stop(mut self, display: &Display) {
        // No number: it has ended and was waited for.
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
        else {
            return;
        };
        let asked = kill_process(pid, Signal::TERM);
        if asked.is_ok() && timeout(STOP_LIMIT, self.child.wait()).await.is_ok() {
            return;
        }
        display.line(&format!("The server did not end within {} s and is killed.", STOP_LIMIT.as_secs()));
        if let Err(error) = self.child.kill().await {
            display.line(&format!("The server (process {pid:?}) could not be killed: {error}"));
        }
    }
}

/// Waits until the server at `base` is ready.
pub(super) async fn wait_until_ready(base: &str, folder: &Folder) -> Result<(), DemoError> {
    let api = Api::new(base, "");
    let ready = async {
        while !api.is_ready().await {
            sleep(READY_POLL).await;
        }
    };
    timeout(READY_LIMIT, ready).await.map_err(|_| {
        let log = folder.server_log();
        DemoError::NotReady { limit: READY_LIMIT, tail: logs::tail(&log), log }
    })
}

/// A port that was free a moment ago; should somebody take it meanwhile, the server ends and says so.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn is_foreign(name: &str) -> bool {
    !name.starts_with(KEPT) && FOREIGN.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_real_installation_stay_out() {
        for name in ["DATABASE_URL", "S3_ENDPOINT", "COOLIFY_API_TOKEN", "MEEBOTER_DATABASE__URL", "PGHOST"] {
            assert!(is_foreign(name), "{name}");
        }
        for name in ["PATH", "HOME", "LANG", "MEEBOTER_BOT_PROGRAM"] {
            assert!(!is_foreign(name), "{name}");
        }
    }
}
