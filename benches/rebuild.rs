//! How long a slot takes to be there again when its actor has panicked, and whether its neighbours notice: 1,000 slots,
//! 600 of them with bots, of which 100 panic one after the other. A slot is there when it waits for its container's end
//! again. The actors run inside the benchmark, on the real store. Beside it: a query of the slot's row.

use anyhow::{Context, Result, ensure};
use meeboter_actors::ids::{ContainerKey, HostName};
use meeboter_actors::ports::Store;
use meeboter_actors::slot::Slot;
use meeboter_actors::slot::actor::Observe;
use meeboter_actors::tree::Tree;
use meeboter_benches::figures::{Figures, ms, ratio};
use meeboter_benches::steady::Steady;
use meeboter_benches::workbench::Workbench;
use meeboter_benches::{progress, samples, verdict};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

const SLOTS: u32 = 1_000;
const RUNNING: u32 = 600;
const PANICS: usize = 100;
const REBUILT_MAX: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(60);

/// Told when somebody begins to wait for a container's end.
type Watched = UnboundedReceiver<(ContainerKey, Instant)>;

#[actix_web::main]
async fn main() -> Result<()> {
    // A hundred panics are what is wanted.
    std::panic::set_hook(Box::new(|_| {}));
    progress("starting PostgreSQL");
    let workbench = Workbench::start().await?;
    let outcome = measure(&workbench).await;
    workbench.stop().await?;
    outcome
}

async fn measure(workbench: &Workbench) -> Result<()> {
    let slots = samples::slots(SLOTS, RUNNING);
    let journal = workbench.holding("bench", &slots).await?;
    let lead = journal.validity();
    let rows = journal.load().await?;
    let keys: Vec<ContainerKey> =
        slots.iter().filter(|slot| slot.bot().is_some()).map(Slot::container_key).collect();
    let (driver, mut watched) = Steady::fused(keys.clone());
    let driver = Arc::new(driver);
    let settings = samples::settings(SLOTS, [HostName::local()]);
    let (tree, arbiter) =
        workbench.tree(Arc::new(journal), Arc::clone(&driver) as Arc<_>, lead, rows, settings).await?;
    for _ in &keys {
        next(&mut watched).await?;
    }
    let row = time_rows(workbench, &slots[..PANICS]).await?;
    progress("a hundred panics");
    let (mut rebuilt, mut quiet, mut beside) = (Figures::default(), Figures::default(), Figures::default());
    for key in &keys[..PANICS] {
        quiet.extend(ask_neighbours(&tree).await?);
        let (took, asked) = panic(&driver, *key, &mut watched, &tree).await?;
        rebuilt.add(took);
        beside.extend(asked);
    }
    arbiter.stop();
    report(&rebuilt, &quiet, &beside, &row, driver.stops());
    Ok(())
}

/// Has a slot panic, and asks its neighbours until it is there again.
async fn panic(
    driver: &Steady,
    key: ContainerKey,
    watched: &mut Watched,
    tree: &Tree,
) -> Result<(Duration, Figures)> {
    let began = Instant::now();
    ensure!(driver.blow(key), "nobody waits for the end of {key:?}");
    let mut asked = Figures::default();
    loop {
        asked.extend(ask_neighbours(tree).await?);
        match watched.try_recv() {
            Ok((again, at)) => {
                ensure!(again == key, "another slot died");
                return Ok((at - began, asked));
            }
            Err(_) => ensure!(began.elapsed() < LIMIT, "the slot is not there again"),
        }
    }
}

/// Asks ten slots that do not panic how they are.
async fn ask_neighbours(tree: &Tree) -> Result<Figures> {
    let mut asked = Figures::default();
    for handle in
        tree.directory.all().iter().rev().filter(|handle| handle.snapshot().bot().is_none()).take(10)
    {
        let actor = handle.actor().context("a neighbour has no actor")?;
        let began = Instant::now();
        timeout(LIMIT, actor.send(Observe)).await??;
        asked.add(began.elapsed());
    }
    Ok(asked)
}

async fn time_rows(workbench: &Workbench, slots: &[Slot]) -> Result<Figures> {
    let client = workbench.postgres()?.connect("bench").await?;
    let text =
        "SELECT * FROM bot_pool_slots LEFT JOIN bots ON bots.id = assigned_bot_id WHERE slot_name = $1";
    let statement = client.prepare(text).await?;
    let mut figures = Figures::default();
    for slot in slots {
        let began = Instant::now();
        let rows = client.query(&statement, &[&slot.name.0]).await?;
        ensure!(rows.len() == 1, "{} rows", rows.len());
        figures.add(began.elapsed());
    }
    Ok(figures)
}

async fn next(watched: &mut Watched) -> Result<(ContainerKey, Instant)> {
    timeout(LIMIT, watched.recv()).await?.context("the engine is gone")
}

fn report(rebuilt: &Figures, quiet: &Figures, beside: &Figures, row: &Figures, stops: usize) {
    println!("rebuild: {SLOTS} slots, {RUNNING} of them with bots, {PANICS} panics");
    for (name, figures) in [
        ("there again", rebuilt),
        ("a query of its row", row),
        ("a neighbour, as usual", quiet),
        ("a neighbour meanwhile", beside),
    ] {
        println!(
            "  {name:<22} median {:7.3} ms   p99 {:7.3} ms   max {:7.3} ms",
            ms(figures.median()),
            ms(figures.p99()),
            ms(figures.max())
        );
    }
    println!(
        "  ratio                  {:7.1} × (medians, there again)",
        ratio(rebuilt.median(), row.median())
    );
    println!("  stopped                {stops}");
    verdict(
        rebuilt.max() <= REBUILT_MAX && stops == 0,
        &format!(
            "there again after {:.1} ms at most, {stops} stopped; the targets are 50 ms and none",
            ms(rebuilt.max())
        ),
    );
}
