//! How long a server that comes back takes with 1,000 slots, 600 of them running, once its database is up: until it
//! takes bots again, and until it has compared what it wants with what runs. The actors run inside the benchmark, on the
//! real store, and an engine in which everything goes on running. Beside it: reading the same rows with one query.

use anyhow::{Context, Result, ensure};
use meeboter_actors::ids::{ContainerKey, HostName, UserId};
use meeboter_actors::pool::message::CreateBot;
use meeboter_actors::ports::Store;
use meeboter_actors::slot::Slot;
use meeboter_actors::supervision::tell;
use meeboter_benches::figures::{Figures, ms, ratio};
use meeboter_benches::steady::Steady;
use meeboter_benches::workbench::Workbench;
use meeboter_benches::{progress, samples, verdict};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

const SLOTS: u32 = 1_000;
const RUNNING: u32 = 600;
const ROUNDS: u32 = 5;
const ADMITTING_MAX: Duration = Duration::from_secs(1);
const RECONCILED_MAX: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);

#[actix_web::main]
async fn main() -> Result<()> {
    progress("starting PostgreSQL");
    let workbench = Workbench::start().await?;
    let outcome = measure(&workbench).await;
    workbench.stop().await?;
    outcome
}

async fn measure(workbench: &Workbench) -> Result<()> {
    let slots = samples::slots(SLOTS, RUNNING);
    drop(workbench.holding("bench", &slots).await?);
    let (mut admitting, mut reconciled, mut read) =
        (Figures::default(), Figures::default(), Figures::default());
    let mut stops = 0;
    for round in 1..=ROUNDS {
        progress(&format!("start {round} of {ROUNDS}"));
        read.add(time_a_query(workbench).await?);
        let start = start(workbench, &slots).await?;
        admitting.add(start.admitting);
        reconciled.add(start.reconciled);
        stops += start.stops;
    }
    println!("restart: {SLOTS} slots, {RUNNING} of them running, {ROUNDS} starts");
    for (name, figures) in
        [("admitting", &admitting), ("reconciled", &reconciled), ("one query of the rows", &read)]
    {
        println!("  {name:<22} median {:7.1} ms   max {:7.1} ms", ms(figures.median()), ms(figures.max()));
    }
    println!(
        "  ratio                  {:7.1} × (medians, admitting)",
        ratio(admitting.median(), read.median())
    );
    println!("  stopped                {stops}");
    verdict(
        admitting.max() <= ADMITTING_MAX && reconciled.max() <= RECONCILED_MAX && stops == 0,
        &format!(
            "admitting after {:.0} ms, reconciled after {:.0} ms, {stops} stopped; the targets are 1 s, 5 s and none",
            ms(admitting.max()),
            ms(reconciled.max())
        ),
    );
    Ok(())
}

struct Start {
    admitting: Duration,
    reconciled: Duration,
    stops: usize,
}

async fn start(workbench: &Workbench, slots: &[Slot]) -> Result<Start> {
    let running = slots.iter().filter(|slot| slot.bot().is_some());
    let keys = running.map(|slot| ContainerKey { slot: slot.id, generation: slot.generation }).collect();
    let driver = Arc::new(Steady::new(keys));
    let began = Instant::now();
    let journal = workbench.journal("bench").await?;
    let lead = journal.validity();
    let rows = journal.load().await?;
    let settings = samples::settings(SLOTS, [HostName::local()]);
    let (tree, arbiter) =
        workbench.tree(Arc::new(journal), Arc::clone(&driver) as Arc<_>, lead, rows, settings).await?;
    let (reply, created) = oneshot::channel();
    tell(&tree.pool, CreateBot { spec: samples::spec(), user_id: UserId(1), idempotency: None, reply });
    // Refused or taken, with all its reasons: it was decided.
    let created = timeout(LIMIT, created).await.context("a creation was not answered")??;
    let admitting = began.elapsed();
    ensure!(created.is_ok(), "a bot was not taken: {created:?}");
    while driver.listings() == 0 || driver.watches() < RUNNING as usize {
        ensure!(began.elapsed() < LIMIT, "{} containers are watched", driver.watches());
        sleep(LOOK).await;
    }
    let reconciled = began.elapsed();
    arbiter.stop();
    Ok(Start { admitting, reconciled, stops: driver.stops() })
}

async fn time_a_query(workbench: &Workbench) -> Result<Duration> {
    let began = Instant::now();
    let client = workbench.postgres()?.connect("bench").await?;
    let text = "SELECT * FROM bot_pool_slots LEFT JOIN bots ON bots.id = assigned_bot_id";
    let rows = client.query(text, &[]).await?;
    ensure!(rows.len() == SLOTS as usize, "{} rows", rows.len());
    Ok(began.elapsed())
}
