//! How long nobody serves when the leader is gone: two real servers on one PostgreSQL; the one that leads is killed, or
//! frozen, and the other one must take a bot. Beside it: PostgreSQL alone, until a lock of a process that was killed is
//! given to the one that waits for it, and one of a frozen process whose session is ended. `--quick` is a small run.

use actix_web::http::StatusCode;
use anyhow::{Context, Result, bail, ensure};
use meeboter_benches::figures::{Figures, ms, ratio};
use meeboter_benches::postgres::Postgres;
use meeboter_benches::server::Server;
use meeboter_benches::workbench::Workbench;
use meeboter_benches::{progress, verdict};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

const ROUNDS: u32 = 5;
/// Between two attempts to have a bot taken.
const LOOK: Duration = Duration::from_millis(5);
/// For the leader's confirmations and the standby's looks to be where chance has them.
const REST: Duration = Duration::from_millis(1_300);
const LIMIT: Duration = Duration::from_secs(60);
const DATABASE: &str = "bench";
/// A lock that nobody else knows.
const LOCK: &str = "SELECT pg_advisory_lock(20261126)";
/// The argument that makes this program one that holds the lock.
const HOLDER: &str = "hold-the-lock";

/// What befalls whoever has the lead, or the lock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Killed,
    Frozen,
}

impl Fate {
    const ALL: [Self; 2] = [Self::Killed, Self::Frozen];

    fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Frozen => "frozen",
        }
    }

    /// Until the other one serves.
    fn target(self) -> Duration {
        match self {
            Self::Killed => Duration::from_secs(1),
            Self::Frozen => Duration::from_secs(5),
        }
    }
}

#[actix_web::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [HOLDER, folder] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return hold(Path::new(folder)).await;
    }
    let rounds = if arguments.iter().any(|argument| argument == "--quick") { 1 } else { ROUNDS };
    progress("starting PostgreSQL");
    let workbench = Workbench::start().await?;
    let outcome = measure(&workbench, rounds).await;
    workbench.stop().await?;
    outcome
}

async fn measure(workbench: &Workbench, rounds: u32) -> Result<()> {
    let url = workbench.url(DATABASE).await?;
    progress("starting a leader and a standby");
    let settings = [("DATABASE_URL", url.as_str()), ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "0")];
    let mut leader = Server::start(&settings).await?;
    let mut standby = Server::stand_by(&leader).await?;
    for fate in Fate::ALL {
        let (mut servers, mut locks) = (Figures::default(), Figures::default());
        for round in 1..=rounds {
            progress(&format!("{}, {round} of {rounds}", fate.name()));
            locks.add(time_a_lock(workbench, fate).await?);
            sleep(REST).await;
            servers.add(time_a_takeover(&mut leader, &standby, fate).await?);
            std::mem::swap(&mut leader, &mut standby);
            standby.stand_by_again().await?;
        }
        report(fate, &servers, &locks);
    }
    Ok(())
}

/// From the leader's end until the standby has taken a bot. The leader is killed in the end in any case.
async fn time_a_takeover(leader: &mut Server, standby: &Server, fate: Fate) -> Result<Duration> {
    let (status, said) = leader.create_bot("before", "host=admit").await?;
    ensure!(status == StatusCode::CREATED, "the leader does not serve: {said}");
    let began = Instant::now();
    match fate {
        Fate::Killed => leader.kill()?,
        Fate::Frozen => leader.freeze()?,
    }
    let took = loop {
        let (status, said) = standby.create_bot("after", "host=admit").await?;
        match status {
            StatusCode::CREATED => break began.elapsed(),
            StatusCode::SERVICE_UNAVAILABLE => {}
            _ => bail!("the standby said {status}: {said}"),
        }
        ensure!(began.elapsed() < LIMIT, "the standby does not take over:\n{}", standby.log());
        sleep(LOOK).await;
    };
    if fate == Fate::Frozen {
        leader.kill()?;
    }
    Ok(took)
}

/// From the end of a process that holds a lock until the one that waits for it has it.
async fn time_a_lock(workbench: &Workbench, fate: Fate) -> Result<Duration> {
    let (mut holder, backend) = start_holder(workbench.folder()).await?;
    let waiting = workbench.postgres()?.connect(DATABASE).await?;
    let waits = waiting.batch_execute(LOCK);
    tokio::pin!(waits);
    // It is asked for before the holder ends.
    ensure!(timeout(LOOK, &mut waits).await.is_err(), "the lock is free");
    let pid = i32::try_from(holder.id().context("the holder has ended")?)?;
    let pid = Pid::from_raw(pid).context("no PID")?;
    let began = Instant::now();
    match fate {
        Fate::Killed => kill_process(pid, Signal::KILL)?,
        Fate::Frozen => {
            kill_process(pid, Signal::STOP)?;
            let ends = workbench.postgres()?.connect(DATABASE).await?;
            ends.execute("SELECT pg_terminate_backend($1)", &[&backend]).await?;
        }
    }
    timeout(LIMIT, waits).await.context("the lock is not given")??;
    let took = began.elapsed();
    holder.kill().await?;
    Ok(took)
}

/// This program again, as one that holds the lock; its session.
async fn start_holder(folder: &Path) -> Result<(Child, i32)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(HOLDER).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut holder = command.spawn().context("the holder could not be started")?;
    let said = holder.stdout.take().context("the holder says nothing")?;
    let line = timeout(LIMIT, BufReader::new(said).lines().next_line()).await??;
    let backend = line.context("the holder ended")?.parse()?;
    Ok((holder, backend))
}

/// Takes the lock, says which session has it, and waits for its end.
async fn hold(folder: &Path) -> Result<()> {
    let client = Postgres::of(folder)?.connect(DATABASE).await?;
    client.batch_execute(LOCK).await?;
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    println!("{backend}");
    std::future::pending().await
}

fn report(fate: Fate, servers: &Figures, locks: &Figures) {
    println!("failover: the leader is {}, {} times", fate.name(), servers.count());
    for (name, figures) in [("the standby serves", servers), ("a lock is given", locks)] {
        let [median, max] = [figures.median(), figures.max()].map(ms);
        println!("  {name:<18} median {median:7.1} ms   max {max:7.1} ms   ({figures})");
    }
    println!("  ratio              {:7.1} × (medians)", ratio(servers.median(), locks.median()));
    let (max, target) = (servers.max(), fate.target());
    verdict(
        max <= target,
        &format!("{}: at most {:.2} s; the target is {} s", fate.name(), max.as_secs_f64(), target.as_secs()),
    );
}
