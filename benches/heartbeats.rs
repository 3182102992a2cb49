//! What it costs that 10,000 bots say that they live: a heartbeat every 5 s each, at the slots' handles. Beside it: one
//! UPDATE of a row for each heartbeat, at the same pace. `--quick` is a small run.

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use meeboter_actors::ids::{ContainerKey, Generation, HostName};
use meeboter_actors::journal::actor::Observe;
use meeboter_actors::maintenance::MaintenanceRow;
use meeboter_actors::ports::Rows;
use meeboter_actors::slot::handle::{Pulse, SlotHandle};
use meeboter_benches::steady::Steady;
use meeboter_benches::workbench::Workbench;
use meeboter_benches::{cpu, progress, samples, verdict};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

const SLOTS: u32 = 10_000;
/// A hundredth of a second's heartbeats go together, as a busy server's requests do.
const BURST: Duration = Duration::from_millis(10);
/// 10,000 slots in 5 s: 2,000 a second.
const PER_BURST: usize = 20;
const SHARE_MAX: f64 = 0.15;
/// Until all slots have their actors.
const START_LIMIT: Duration = Duration::from_secs(60);

#[actix_web::main]
async fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let duration = Duration::from_secs(if quick { 2 } else { 20 });
    progress("starting PostgreSQL");
    let workbench = Workbench::start().await?;
    let outcome = measure(&workbench, duration).await;
    workbench.stop().await?;
    outcome
}

async fn measure(workbench: &Workbench, duration: Duration) -> Result<()> {
    progress(&format!("{SLOTS} slots whose bots are in meetings"));
    let slots: Vec<_> =
        (1..=SLOTS).map(|number| samples::busy_slot(number, HostName::local(), Utc::now())).collect();
    let keys = slots.iter().map(|slot| ContainerKey { slot: slot.id, generation: slot.generation }).collect();
    let driver = Arc::new(Steady::new(keys));
    let journal = workbench.journal("bench").await?;
    let lead = journal.validity();
    let settings = samples::settings(SLOTS, [HostName::local()]);
    // As the database of a server that has run before: a first start writes down when it began to keep its timetable.
    let maintenance = MaintenanceRow { timetable: Some(String::new()), ..MaintenanceRow::new(Utc::now()) };
    let rows = Rows { slots, maintenance: Some(maintenance), ..Rows::default() };
    let (tree, arbiter) =
        workbench.tree(Arc::new(journal), Arc::clone(&driver) as Arc<_>, lead, rows, settings).await?;
    let began = Instant::now();
    while driver.watches() < SLOTS as usize {
        ensure!(began.elapsed() < START_LIMIT, "{} containers are watched", driver.watches());
        sleep(BURST).await;
    }
    let before = tree.journal.send(Observe).await.context("the Journal does not answer")?;
    let handles = tree.directory.all();
    ensure!(handles.len() == SLOTS as usize, "{} slots have handles", handles.len());

    progress("without heartbeats");
    let idle = share(duration, || Ok(())).await?;
    progress("with heartbeats");
    let mut next = handles.iter().cycle();
    let beating = share(duration, || (0..PER_BURST).try_for_each(|_| beat(next.next()))).await?;
    let after = tree.journal.send(Observe).await.context("the Journal does not answer")?;
    arbiter.stop();

    progress("the peer");
    let peer = peer(workbench, duration).await?;
    let writes = after.decisions - before.decisions;
    println!("heartbeats: {SLOTS} slots, one every 5 s each, for {} s", duration.as_secs());
    println!(
        "  Meeboter           {:6.2} % of a core   ({:.2} % without them)",
        beating * 100.0,
        idle * 100.0
    );
    println!("  a row for each     {:6.2} % of a core   (PostgreSQL and its client)", peer * 100.0);
    println!("  ratio              {:6.3} ×", beating / peer.max(1e-9));
    println!("  database writes    {writes}");
    verdict(
        beating <= SHARE_MAX && writes == 0,
        &format!("{:.1} % of a core, {writes} writes; the targets are 15 % and none", beating * 100.0),
    );
    Ok(())
}

fn beat(handle: Option<&Arc<SlotHandle>>) -> Result<()> {
    let handle = handle.context("there are no slots")?;
    let bot = handle.snapshot().bot().map(|bot| bot.id).context("a slot lost its bot")?;
    let pulse = handle.heartbeat(bot, Generation(1), Utc::now());
    ensure!(pulse == Pulse::CarryOn, "a bot was told {pulse:?}");
    Ok(())
}

/// The share of a core that this process uses while a burst is sent every hundredth of a second.
async fn share(duration: Duration, mut burst: impl FnMut() -> Result<()>) -> Result<f64> {
    let (began, used) = (Instant::now(), cpu::used(std::process::id())?);
    let mut bursts = interval(BURST);
    bursts.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while began.elapsed() < duration {
        bursts.tick().await;
        burst()?;
    }
    Ok((cpu::used(std::process::id())? - used).as_secs_f64() / began.elapsed().as_secs_f64())
}

/// The same for an UPDATE of a row for each heartbeat, PostgreSQL's share with it.
async fn peer(workbench: &Workbench, duration: Duration) -> Result<f64> {
    let client = workbench.postgres()?.connect("bench").await?;
    client
        .batch_execute(&format!(
            "CREATE TABLE peer_beats (id int PRIMARY KEY, beat_at timestamptz); \
             INSERT INTO peer_beats SELECT n, now() FROM generate_series(1, {SLOTS}) AS n"
        ))
        .await?;
    client.batch_execute("VACUUM ANALYZE peer_beats").await?;
    let update = client.prepare("UPDATE peer_beats SET beat_at = now() WHERE id = $1").await?;
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let backend = u32::try_from(backend)?;
    let mut ids = (1..=i32::try_from(SLOTS)?).cycle();
    let (began, own, theirs) = (Instant::now(), cpu::used(std::process::id())?, cpu::used(backend)?);
    let mut bursts = interval(BURST);
    bursts.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while began.elapsed() < duration {
        bursts.tick().await;
        for id in ids.by_ref().take(PER_BURST) {
            client.execute(&update, &[&id]).await?;
        }
    }
    let used = cpu::used(std::process::id())? - own + cpu::used(backend)? - theirs;
    Ok(used.as_secs_f64() / began.elapsed().as_secs_f64())
}
