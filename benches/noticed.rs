//! How long a bot that dies in a meeting goes unnoticed: from SIGKILL until the API says that it is FATAL. Beside it:
//! a watcher that does nothing but wait for the kernel's word of the same exit.

use anyhow::{Context, Result, bail, ensure};
use meeboter_benches::figures::{Figures, ms, ratio};
use meeboter_benches::server::Server;
use meeboter_benches::{progress, verdict};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 10;
const JOIN_LIMIT: Duration = Duration::from_secs(120);
const NOTICE_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at the bot through the API.
const LOOK: Duration = Duration::from_millis(5);
const TARGET: Duration = Duration::from_secs(3);

#[actix_web::main]
async fn main() -> Result<()> {
    progress("starting the server");
    let server = Server::start(&[
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "2"),
        ("MEEBOTER_BOTS__RECOVERY_DELAY_MS", "200"),
    ])
    .await?;
    let (mut told, mut seen) = (Figures::default(), Figures::default());
    for round in 0..ROUNDS {
        progress(&format!("bot {} of {ROUNDS}: joins a rehearsal and is killed", round + 1));
        let (by_api, by_kernel) = kill_one(&server).await?;
        told.add(by_api);
        seen.add(by_kernel);
    }
    println!("noticed: {ROUNDS} bots killed while they recorded a meeting");
    println!(
        "  FATAL in the API   median {:7.1} ms   max {:7.1} ms   (all: {told})",
        ms(told.median()),
        ms(told.max())
    );
    println!(
        "  the kernel's word  median {:7.1} ms   max {:7.1} ms   (all: {seen})",
        ms(seen.median()),
        ms(seen.max())
    );
    println!("  ratio              {:.1} × (median)", ratio(told.median(), seen.median()));
    let sentence = format!("noticed within {:.0} ms at most; the target is 3000 ms", ms(told.max()));
    verdict(told.max() <= TARGET, &sentence);
    Ok(())
}

/// Sends a bot, kills it while it records, and returns when the API and when the kernel told.
async fn kill_one(server: &Server) -> Result<(Duration, Duration)> {
    let (_, bot) =
        server.create_bot("bench", "host=admit&admitAfterMs=200&lengthMs=600000&end=ended").await?;
    let id = bot["id"].as_i64().with_context(|| format!("no bot was created: {bot}"))?;
    wait(server, id, "RECORDING", JOIN_LIMIT).await?;
    let programs = server.bot_programs();
    let [pid] = programs[..] else { bail!("one bot should run, not {}", programs.len()) };
    let pid = Pid::from_raw(pid).context("no PID")?;
    let process = Arc::new(pidfd_open(pid, PidfdFlags::empty())?);
    let watched = Arc::clone(&process);
    let (watches, watching) = tokio::sync::oneshot::channel();
    let watcher = tokio::task::spawn_blocking(move || watch(&watched, watches));
    watching.await?;
    let killed = Instant::now();
    pidfd_send_signal(&process, Signal::KILL)?;
    let bot = wait(server, id, "FATAL", NOTICE_LIMIT).await?;
    let by_api = killed.elapsed();
    ensure!(bot["endReason"].is_string(), "a bot that ended says why: {bot}");
    let ended = watcher.await??;
    Ok((by_api, ended.duration_since(killed)))
}

/// Waits for the end of a process.
fn watch(process: &OwnedFd, watches: tokio::sync::oneshot::Sender<()>) -> Result<Instant> {
    // Nobody waits for it where the run was given up.
    let _ = watches.send(());
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    poll(&mut fds, None)?;
    Ok(Instant::now())
}

async fn wait(server: &Server, id: i64, state: &str, limit: Duration) -> Result<Value> {
    let deadline = Instant::now() + limit;
    loop {
        let bot = server.bot(id).await?;
        if bot["state"] == state {
            return Ok(bot);
        }
        let has_ended = bot["endReason"].is_string();
        ensure!(!has_ended && Instant::now() < deadline, "the bot is not {state}: {bot}\n{}", server.log());
        tokio::time::sleep(LOOK).await;
    }
}
