//! The program inside a slot: claims its slot's assignment, attends the one meeting, reports, ends.
//!
//! Only start and end live here: environment, signals, exit code, exit note. `bootstrap` claims, `session` attends,
//! `meeting` decides; `platform` knows the meeting pages; `stage` (display, sound, browser) is what they are shown on;
//! `recorder`, `spool` and `upload` are the recording's way; `client`, `reports` and `heartbeat` speak to the server;
//! `patience` says how long it is waited for;
//! `process` sees to it that nothing started here stays behind.

mod backoff;
mod bootstrap;
mod browser;
mod client;
mod display;
mod heartbeat;
mod meeting;
mod orders;
mod patience;
mod platform;
mod process;
mod recorder;
mod reports;
mod session;
mod sound;
mod spool;
mod stage;
mod telemetry;
mod upload;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use chrono::Utc;
use meeboter_bot::{BOT_FILE, ENV_WORK_DIR, EXIT_NOTE_FILE, ExitNote};
use slog::{Logger, crit, error, info, o, warn};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::bootstrap::{Claim, Settings, WhenDone};
use crate::client::{BotClient, Client};
use crate::orders::OrderBook;
use crate::process::{Remains, Spawner};
use crate::session::{Session, SessionEnd};
use crate::telemetry::{LevelSwitch, chain};

/// The end was not reported.
const EXIT_FAILED: i32 = 1;
/// The environment is wrong.
const EXIT_SETTINGS: i32 = 2;
/// The slot is somebody else's.
const EXIT_FENCED: i32 = 3;
/// A bug.
const EXIT_PANIC: i32 = 70;

/// How the program ends.
struct Ended {
    code: i32,
    reason: String,
    /// True: an exit would only bring a restart that ends the same way.
    may_idle: bool,
}

fn main() {
    let (log, level) = telemetry::logger();
    let settings = match Settings::read(|name| std::env::var_os(name)) {
        Ok(settings) => settings,
        Err(error) => {
            crit!(log, "cannot start"; "error" => chain(&error));
            if let Some(dir) = std::env::var_os(ENV_WORK_DIR) {
                let ended = Ended { code: EXIT_SETTINGS, reason: chain(&error), may_idle: false };
                write_note(Path::new(&dir), &ended, &log);
            }
            std::process::exit(EXIT_SETTINGS);
        }
    };
    let nonce = Uuid::new_v4();
    let log = log.new(o!("slot" => settings.slot.to_string()));
    let note_dir = settings.work_dir.clone();
    let spawner = Spawner::new(nonce, &log);
    let remains = Remains::of(&spawner);
    let run = || run(&settings, nonce, &spawner, &level, &log);
    let ended = std::panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        crit!(log, "panicked");
        Ended { code: EXIT_PANIC, reason: "the program panicked".to_owned(), may_idle: false }
    });
    drop(remains);
    if let Some(dir) = note_dir {
        write_note(&dir, &ended, &log);
    }
    info!(log, "exit"; "code" => ended.code, "reason" => &ended.reason);
    std::process::exit(ended.code);
}

/// One thread is enough, and `setpriv` ties a child to the thread that started it.
fn run(settings: &Settings, nonce: Uuid, spawner: &Spawner, level: &LevelSwitch, log: &Logger) -> Ended {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(format!("no runtime: {error}")),
    };
    runtime.block_on(async {
        let orders = OrderBook::new();
        if let Err(error) = listen_to_signals(&orders, log) {
            return failed(format!("no signals: {error}"));
        }
        let ended = live(settings, nonce, spawner, &orders, level, log).await;
        if ended.may_idle && settings.when_done == WhenDone::Idle && orders.now().stops == 0 {
            info!(log, "done, waiting to be stopped"; "reason" => &ended.reason);
            orders.until(|orders| orders.stops > 0).await;
        }
        ended
    })
}

fn failed(reason: String) -> Ended {
    Ended { code: EXIT_FAILED, reason, may_idle: false }
}

fn listen_to_signals(orders: &OrderBook, log: &Logger) -> std::io::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind)?;
        let (orders, log) = (orders.clone(), log.clone());
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                info!(log, "told to stop"; "signal" => kind.as_raw_value());
                orders.stop();
            }
        });
    }
    // A closed terminal is no reason to leave a meeting.
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move { while hangups.recv().await.is_some() {} });
    Ok(())
}

async fn live(
    settings: &Settings,
    nonce: Uuid,
    spawner: &Spawner,
    orders: &OrderBook,
    level: &LevelSwitch,
    log: &Logger,
) -> Ended {
    let client = match Client::new(&settings.server, log) {
        Ok(client) => client,
        Err(error) => return failed(chain(&error)),
    };
    let assignment = match bootstrap::claim(&client, settings, nonce, orders, log).await {
        Claim::Granted(assignment) => *assignment,
        Claim::Fenced(reason) => {
            warn!(log, "this slot is not ours, joining nothing"; "error" => &reason);
            return Ended { code: EXIT_FENCED, reason, may_idle: true };
        }
        Claim::GaveUp(reason) => {
            error!(log, "gave up"; "error" => &reason);
            return failed(reason);
        }
        Claim::Stopped => {
            return Ended {
                code: 0,
                reason: "stopped before anything was assigned".to_owned(),
                may_idle: false,
            };
        }
    };
    let log = log.new(o!("bot" => assignment.bot_id, "generation" => assignment.generation));
    info!(log, "claimed"; "platform" => &assignment.platform, "recording" => assignment.recording_enabled);
    let (work_dir, _temporary) = match work_dir(settings.work_dir.as_deref()) {
        Ok(dirs) => dirs,
        Err(error) => return failed(format!("no work folder: {error}")),
    };
    // Whoever finds the spool must know whose it is.
    if let Err(error) = std::fs::write(work_dir.join(BOT_FILE), format!("{}\n", assignment.bot_id)) {
        return failed(format!("the work folder cannot be written to: {error}"));
    }
    let client = BotClient::new(client, &assignment, orders.clone(), level.clone(), log.clone());
    let (orders, spawner) = (orders.clone(), spawner.clone());
    match (Session { assignment, client, orders, spawner, work_dir, log }).run().await {
        SessionEnd::Reported(reason) => Ended { code: 0, reason, may_idle: true },
        SessionEnd::Unreported(reason) => Ended { code: EXIT_FAILED, reason, may_idle: true },
        SessionEnd::Fenced => {
            let reason = "fenced: the server refuses this generation".to_owned();
            Ended { code: EXIT_FENCED, reason, may_idle: true }
        }
    }
}

/// The given folder, or a temporary one that goes with the program.
fn work_dir(given: Option<&Path>) -> std::io::Result<(PathBuf, Option<tempfile::TempDir>)> {
    match given {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            Ok((std::fs::canonicalize(dir)?, None))
        }
        None => {
            let dir = tempfile::Builder::new().prefix("meeboter-work-").tempdir()?;
            Ok((dir.path().to_owned(), Some(dir)))
        }
    }
}

fn write_note(dir: &Path, ended: &Ended, log: &Logger) {
    let note = ExitNote { code: ended.code, reason: ended.reason.clone(), at: Utc::now() };
    let path = dir.join(EXIT_NOTE_FILE);
    let partial = dir.join(format!("{EXIT_NOTE_FILE}.tmp"));
    // Renamed into place: a reader sees all of it or nothing.
    let written = serde_json::to_vec(&note)
        .map_err(std::io::Error::from)
        .and_then(|bytes| std::fs::write(&partial, bytes))
        .and_then(|()| std::fs::rename(&partial, &path));
    if let Err(error) = written {
        error!(log, "exit note not written"; "path" => path.display().to_string(), "error" => error.to_string());
    }
}
