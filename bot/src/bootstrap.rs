//! From the environment to a claimed assignment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use meeboter_bot::{Assignment, ENV_SERVER, ENV_SLOT, ENV_TOKEN, ENV_WHEN_DONE, ENV_WORK_DIR};
use slog::{Logger, info, warn};
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::client::{ClaimReply, Client};
use crate::orders::OrderBook;
use crate::telemetry::chain;

/// How long a server that does not answer is asked for the assignment.
const CLAIM_LIMIT: Duration = Duration::from_secs(600);

/// What to do after the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenDone {
    /// Exit.
    Exit,
    /// Wait to be stopped.
    Idle,
}

/// The program's whole environment, checked.
pub(crate) struct Settings {
    /// The slot.
    pub(crate) slot: Uuid,
    /// Base URL of the server.
    pub(crate) server: String,
    /// The slot's token.
    pub(crate) token: String,
    /// Where spool and exit note go.
    pub(crate) work_dir: Option<PathBuf>,
    /// What to do after the end.
    pub(crate) when_done: WhenDone,
}

/// An environment this program cannot run in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    /// A variable is missing.
    #[error("the environment variable {name} is not set; it must be {wanted}")]
    Missing {
        /// Its name.
        name: &'static str,
        /// What it has to be.
        wanted: &'static str,
    },
    /// A variable has a value that is not allowed. The value is not shown where it is secret.
    #[error("the environment variable {name} is {value:?}; it must be {wanted}")]
    Invalid {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it has to be.
        wanted: &'static str,
    },
}

impl Settings {
    /// Reads the settings by `get`, which is `std::env::var_os` outside of tests.
    pub(crate) fn read(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, SettingsError> {
        const SLOT: &str = "the uuid of the slot";
        const SERVER: &str = "the http(s) address of the server";
        const TOKEN: &str = "the slot's token in visible ASCII";
        const WHEN: &str = "exit or idle";
        let text = |name, wanted| match get(name) {
            None => Ok(None),
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => value.into_string().map(Some).map_err(|value| SettingsError::Invalid {
                name,
                value: value.to_string_lossy().into_owned(),
                wanted,
            }),
        };
        let needed = |name, wanted| text(name, wanted)?.ok_or(SettingsError::Missing { name, wanted });

        let slot = needed(ENV_SLOT, SLOT)?;
        let slot = Uuid::parse_str(&slot).map_err(|_| SettingsError::Invalid {
            name: ENV_SLOT,
            value: slot,
            wanted: SLOT,
        })?;
        let server = needed(ENV_SERVER, SERVER)?.trim_end_matches('/').to_owned();
        let host = server.strip_prefix("http://").or_else(|| server.strip_prefix("https://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(char::is_whitespace)) {
            return Err(SettingsError::Invalid { name: ENV_SERVER, value: server, wanted: SERVER });
        }
        let token = needed(ENV_TOKEN, TOKEN)?;
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SettingsError::Invalid { name: ENV_TOKEN, value: "***".to_owned(), wanted: TOKEN });
        }
        let when_done = match text(ENV_WHEN_DONE, WHEN)?.as_deref() {
            None | Some("idle") => WhenDone::Idle,
            Some("exit") => WhenDone::Exit,
            Some(other) => {
                let value = other.to_owned();
                return Err(SettingsError::Invalid { name: ENV_WHEN_DONE, value, wanted: WHEN });
            }
        };
        let work_dir = get(ENV_WORK_DIR).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        Ok(Self { slot, server, token, work_dir, when_done })
    }
}

/// What asking for the assignment came to.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The slot's bot is ours to run.
    Granted(Box<Assignment>),
    /// The generation is somebody else's, or over: join nothing.
    Fenced(String),
    /// No server answered in time.
    GaveUp(String),
    /// Stopped by a signal while asking.
    Stopped,
}

/// Asks for the assignment until there is an answer to go by.
pub(crate) async fn claim(
    client: &Client,
    settings: &Settings,
    nonce: Uuid,
    orders: &OrderBook,
    log: &Logger,
) -> Claim {
    tokio::select! {
        biased;
        () = orders.until(|orders| orders.stops > 0) => Claim::Stopped,
        claim = claim_loop(client, settings, nonce, log) => claim,
    }
}

async fn claim_loop(client: &Client, settings: &Settings, nonce: Uuid, log: &Logger) -> Claim {
    let mut backoff = Backoff::for_requests();
    let mut last_answer = Instant::now();
    loop {
        let error = match client.claim(settings.slot, &settings.token, nonce).await {
            Ok(ClaimReply::Granted(assignment)) => return Claim::Granted(assignment),
            Ok(ClaimReply::NotYet(delay)) => {
                info!(log, "nothing assigned yet"; "retry_after_ms" => delay.as_millis() as u64);
                last_answer = Instant::now();
                backoff.reset();
                tokio::time::sleep(delay.max(Duration::from_millis(100))).await;
                continue;
            }
            Err(error) => error,
        };
        if error.is_fence() || error.is_foreign() {
            return Claim::Fenced(error.to_string());
        }
        if last_answer.elapsed() >= CLAIM_LIMIT {
            let seconds = CLAIM_LIMIT.as_secs();
            return Claim::GaveUp(format!("no assignment within {seconds} s: {}", chain(&error)));
        }
        let delay = error.retry_after().unwrap_or_default().max(backoff.next_delay());
        warn!(log, "cannot claim the assignment, trying again"; "error" => chain(&error),
            "delay_ms" => delay.as_millis() as u64);
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: &str = "6f1d3f0e-8a50-4dd7-9d0a-111111111111";

    fn read(changes: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let usual = [(ENV_SLOT, SLOT), (ENV_SERVER, "http://127.0.0.1:3000"), (ENV_TOKEN, "abc")];
        Settings::read(|name| {
            let changed = changes.iter().find(|(changed, _)| *changed == name);
            changed.or(usual.iter().find(|(usual, _)| *usual == name)).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn three_variables_are_enough() {
        let settings = read(&[(ENV_SERVER, "https://bots.example.org/")]).expect("settings");
        assert_eq!(settings.server, "https://bots.example.org");
        assert_eq!((settings.when_done, settings.work_dir), (WhenDone::Idle, None));
        assert_eq!(read(&[(ENV_WHEN_DONE, "exit")]).expect("settings").when_done, WhenDone::Exit);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [
            (ENV_SLOT, ""),
            (ENV_SLOT, "7"),
            (ENV_SERVER, ""),
            (ENV_SERVER, "127.0.0.1:3000"),
            (ENV_SERVER, "http://"),
            (ENV_TOKEN, ""),
            (ENV_TOKEN, "se cret"),
            (ENV_WHEN_DONE, "sleep"),
        ];
        for (name, value) in wrong {
            let error = read(&[(name, value)]).err().expect("an error").to_string();
            assert!(error.contains(name) && error.contains("must be"), "{error}");
            assert!(!error.contains("se cret"), "{error}");
        }
    }
}
