//! What a slot keeps in memory: the difference between the actors with no slot and with 10,000, idle, and with bots in
//! 6,000 of them. Each is measured in a process of its own, which nothing was freed in before. Beside it: 10,000 actors
//! that hold nothing, and the slots as rows, without actors. `--quick` is a small run.

use actix::prelude::*;
use anyhow::{Context as _, Result, bail, ensure};
use chrono::Utc;
use meeboter_actors::ids::{ContainerKey, HostName};
use meeboter_actors::ports::Rows;
use meeboter_actors::slot::Slot;
use meeboter_benches::memory::Memory;
use meeboter_benches::steady::Steady;
use meeboter_benches::workbench::Workbench;
use meeboter_benches::{progress, samples, verdict};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SLOTS: u32 = 10_000;
/// Of ten slots, so many have a bot.
const BUSY_OF_TEN: u32 = 6;
const TARGET_KIB: f64 = 4.0;
/// Until all slots have their actors, and what was needed to build them is given back.
const REST: Duration = Duration::from_secs(2);
const START_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// What is measured, in the order of the report.
const SUBJECTS: [&str; 4] = ["idle", "busy", "actors", "rows"];

#[actix_web::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => report(SLOTS),
        (Some("--quick"), _) => report(SLOTS / 10),
        (Some(subject), Some(count)) => {
            println!("{}", measure(subject, count.parse()?).await?);
            Ok(())
        }
        (Some(argument), None) => bail!("{argument} is not understood; there is --quick"),
    }
}

fn report(count: u32) -> Result<()> {
    let mut kib = [0.0; SUBJECTS.len()];
    for (subject, kib) in SUBJECTS.into_iter().zip(&mut kib) {
        progress(&format!("{count} of: {subject}"));
        let measured = Command::new(std::env::current_exe()?).args([subject, &count.to_string()]).output()?;
        let said = String::from_utf8(measured.stdout)?;
        let bytes = said.trim().parse::<f64>();
        let bytes = bytes.with_context(|| String::from_utf8_lossy(&measured.stderr).into_owned())?;
        *kib = bytes / 1024.0;
    }
    let [idle, busy, actors, rows] = kib;
    println!("slots: what each of {count} keeps in memory (RSS)");
    println!("  idle               {idle:6.2} KiB");
    println!("  6 of 10 with a bot {busy:6.2} KiB");
    println!("  an actor alone     {actors:6.2} KiB");
    println!("  a row alone        {rows:6.2} KiB");
    println!("  ratio              {:6.2} × an actor and a row", idle / (actors + rows));
    let sentence = format!("{idle:.1} KiB for an idle slot; the target is {TARGET_KIB} KiB");
    verdict(idle <= TARGET_KIB, &sentence);
    Ok(())
}

/// Bytes for each of so many.
async fn measure(subject: &str, count: u32) -> Result<f64> {
    let kept = match subject {
        "actors" => keep_actors(count).await?,
        "rows" => {
            let before = rss()?;
            let slots = slots(count, 0);
            ensure!(slots.len() == count as usize, "{} slots", slots.len());
            let kept = rss()? - before;
            drop(slots);
            kept
        }
        "idle" => keep_slots(count, 0).await?,
        "busy" => keep_slots(count, BUSY_OF_TEN).await?,
        _ => bail!("nothing is known of {subject}"),
    };
    Ok(kept * 1024.0 * 1024.0 / f64::from(count))
}

/// In MiB.
fn rss() -> Result<f64> {
    Memory::of(i32::try_from(std::process::id())?)?.get("Rss")
}

fn slots(count: u32, busy_of_ten: u32) -> Vec<Slot> {
    let slot = |number| match number % 10 {
        digit if digit < busy_of_ten => samples::busy_slot(number, HostName::local(), Utc::now()),
        _ => samples::idle_slot(number, HostName::local(), Utc::now()),
    };
    (1..=count).map(slot).collect()
}

async fn keep_slots(count: u32, busy_of_ten: u32) -> Result<f64> {
    let workbench = Workbench::start().await?;
    let before = keep_tree(&workbench, "none", 0, busy_of_ten).await?;
    let after = keep_tree(&workbench, "all", count, busy_of_ten).await?;
    workbench.stop().await?;
    Ok(after - before)
}

/// What the process keeps with the actors of so many slots, in MiB.
async fn keep_tree(workbench: &Workbench, database: &str, count: u32, busy_of_ten: u32) -> Result<f64> {
    let journal = workbench.journal(database).await?;
    let lead = journal.validity();
    let rows = Rows { slots: slots(count, busy_of_ten), ..Rows::default() };
    let busy = rows.slots.iter().filter(|slot| slot.bot().is_some());
    let keys: Vec<_> = busy.map(|slot| ContainerKey { slot: slot.id, generation: slot.generation }).collect();
    let watched = keys.len();
    let driver = Arc::new(Steady::new(keys));
    let settings = samples::settings(count.max(1), [HostName::local()]);
    let (tree, arbiter) =
        workbench.tree(Arc::new(journal), Arc::clone(&driver) as Arc<_>, lead, rows, settings).await?;
    let began = Instant::now();
    while driver.watches() < watched || tree.directory.all().len() < count as usize {
        ensure!(began.elapsed() < START_LIMIT, "{} containers are watched", driver.watches());
        sleep(LOOK).await;
    }
    sleep(REST).await;
    let kept = rss()?;
    arbiter.stop();
    Ok(kept)
}

/// An actor that holds nothing, and is never told anything.
struct Empty;

impl Actor for Empty {
    type Context = Context<Self>;
}

async fn keep_actors(count: u32) -> Result<f64> {
    let before = rss()?;
    let addresses: Vec<Addr<Empty>> = (0..count).map(|_| Empty.start()).collect();
    sleep(REST).await;
    let kept = rss()? - before;
    ensure!(addresses.iter().all(Addr::connected), "an actor has ended");
    Ok(kept)
}
