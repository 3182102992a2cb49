//! What a transaction that somebody holds open elsewhere costs: no version of a row that is younger than its snapshot may
//! be removed meanwhile. 1,000 pairs of acquire and release a second are offered, each timed from the moment that it was
//! due, first as usual, then while a snapshot that has read every table is held. The actors run inside the benchmark, on
//! the real store. Beside it: a table of slots of which every caller locks a row by itself (`support/peer.rs`), with a
//! snapshot of its own. `--quick` is a small run.

use anyhow::{Context, Result, ensure};
use meeboter_actors::bot::EndReason;
use meeboter_actors::ids::{HostName, UserId};
use meeboter_actors::pool::message::{CreateBot, LeaveBot};
use meeboter_actors::ports::{BatchNo, Store};
use meeboter_actors::supervision::tell;
use meeboter_actors::tree::Tree;
use meeboter_benches::figures::{ms, ratio};
use meeboter_benches::open_loop::{Offer, Outcome};
use meeboter_benches::peer::{self, Peer, Slots};
use meeboter_benches::postgres::Postgres;
use meeboter_benches::steady::Steady;
use meeboter_benches::workbench::Workbench;
use meeboter_benches::{cpu, progress, samples, verdict};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_postgres::Client;

const SLOTS: u32 = 1_000;
const PER_SECOND: u32 = 1_000;
const DATABASE: &str = "bench";
/// Connections of the peer.
const CONNECTIONS: usize = 16;
/// How long the last pairs may take when no further one is offered.
const REST: Duration = Duration::from_millis(250);
const KEPT_MIN: f64 = 0.9;
const P99_MAX: f64 = 3.0;
/// Before the Journal's own, which count from 1.
const FIRST: BatchNo = BatchNo(0);

#[actix_web::main]
async fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let [quiet, held] = if quick { [3, 6] } else { [20, 60] }.map(Duration::from_secs);
    progress("starting PostgreSQL");
    let workbench = Workbench::start().await?;
    let outcome = measure(&workbench, quiet, held).await;
    workbench.stop().await?;
    outcome
}

async fn measure(workbench: &Workbench, quiet: Duration, held: Duration) -> Result<()> {
    let postgres = workbench.postgres()?;
    let slots = Peer::new(workbench.postgres()?, SLOTS).slots(CONNECTIONS).await?;
    let theirs = Both::of(&postgres, peer::DATABASE, "the peer", [quiet, held], |number| {
        pair_of_peer(slots.clone(), number)
    });
    let theirs = theirs.await?;
    slots.close();

    let journal = workbench.journal(DATABASE).await?;
    let lead = journal.validity();
    journal.commit(FIRST, &samples::idle_slots(SLOTS)).await?;
    journal.flush(FIRST).await?;
    let rows = journal.load().await?;
    ensure!(rows.slots.len() == SLOTS as usize, "{} slots are stored", rows.slots.len());
    let settings = samples::settings(SLOTS, [HostName::local()]);
    let driver = Arc::new(Steady::pulling(Duration::MAX));
    let (tree, arbiter) = workbench.tree(Arc::new(journal), driver, lead, rows, settings).await?;
    let ours = Both::of(&postgres, DATABASE, "Meeboter", [quiet, held], |_| pair(tree.clone())).await?;
    arbiter.stop();
    report(&ours, &theirs);
    let usual = ours.quiet.outcome.kept();
    ensure!(
        usual >= KEPT_MIN,
        "only {:.1} % were kept as usual: this machine is too busy to say what a snapshot costs",
        usual * 100.0
    );
    judge(&ours);
    Ok(())
}

async fn pair_of_peer(slots: Slots, number: u32) -> Result<()> {
    slots.pair(i32::try_from(number)?).await
}

/// A bot gets a slot and gives it back.
async fn pair(tree: Tree) -> Result<()> {
    let (reply, created) = oneshot::channel();
    tell(&tree.pool, CreateBot { spec: samples::spec(), user_id: UserId(1), idempotency: None, reply });
    let created = created.await.context("a creation was not answered")??;
    let (reply, left) = oneshot::channel();
    tell(&tree.pool, LeaveBot { bot_id: created.bot.id, reason: EndReason::Cancelled, reply });
    left.await.context("a cancel was not answered")??;
    Ok(())
}

/// The same load twice: as usual, and with a snapshot held.
struct Both {
    quiet: Run,
    held: Run,
    /// What the snapshot left behind: each table with its index, and rows that nobody sees any more.
    left: Vec<String>,
}

struct Run {
    outcome: Outcome<()>,
    /// The share of a core that PostgreSQL used in the first and in the last third.
    postgres: [f64; 2],
}

impl Both {
    async fn of<F>(
        postgres: &Postgres,
        database: &str,
        who: &str,
        [quiet, held]: [Duration; 2],
        mut work: impl FnMut(u32) -> F,
    ) -> Result<Self>
    where
        F: Future<Output = Result<()>> + 'static,
    {
        progress(&format!("{who}, {PER_SECOND} pairs a second for {} s, as usual", quiet.as_secs()));
        let quiet = Run::of(postgres, quiet, &mut work).await?;
        progress(&format!("{who}, for {} s, while a snapshot is held", held.as_secs()));
        let snapshot = hold(postgres, database).await?;
        let held = Run::of(postgres, held, &mut work).await?;
        let left = left_behind(postgres, database).await?;
        drop(snapshot);
        Ok(Self { quiet, held, left })
    }

    /// How many times longer the slowest of a hundred took.
    fn slowed(&self) -> f64 {
        ratio(self.held.outcome.took().p99(), self.quiet.outcome.took().p99())
    }
}

impl Run {
    async fn of<F>(postgres: &Postgres, duration: Duration, work: impl FnMut(u32) -> F) -> Result<Self>
    where
        F: Future<Output = Result<()>> + 'static,
    {
        let offer = Offer { per_second: PER_SECOND, duration };
        let third = duration / 3;
        let sampled = async {
            let start = used(postgres);
            tokio::time::sleep(third).await;
            let first = used(postgres);
            tokio::time::sleep(third).await;
            let last = used(postgres);
            tokio::time::sleep(third).await;
            let share = |used: Duration| used.as_secs_f64() / third.as_secs_f64();
            [share(first.saturating_sub(start)), share(used(postgres).saturating_sub(last))]
        };
        let (outcome, postgres) = tokio::join!(offer.make(REST, work), sampled);
        Ok(Self { outcome: outcome?, postgres })
    }
}

/// The processor time of PostgreSQL and of its present sessions.
fn used(postgres: &Postgres) -> Duration {
    // A worker that has ended since it was listed counts no more.
    postgres.pids().into_iter().filter_map(|pid| cpu::used(u32::try_from(pid).ok()?).ok()).sum()
}

/// A snapshot that has read every table of the database. It is held until the connection is dropped.
async fn hold(postgres: &Postgres, database: &str) -> Result<Client> {
    let client = postgres.connect(database).await?;
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let tables = "SELECT relid::regclass::text FROM pg_stat_user_tables";
    for table in client.query(tables, &[]).await? {
        let table: String = table.get(0);
        client.batch_execute(&format!("SELECT count(*) FROM {table}")).await?;
    }
    Ok(client)
}

/// The tables with the most versions of rows that nobody but the held snapshot may see.
async fn left_behind(postgres: &Postgres, database: &str) -> Result<Vec<String>> {
    let client = postgres.connect(database).await?;
    let text = "
        SELECT format('%s: %s dead rows, %s kB with %s kB of indexes, %s %% of updates beside the old row', relname,
            n_dead_tup, pg_table_size(relid) / 1024, pg_indexes_size(relid) / 1024,
            100 * n_tup_hot_upd / greatest(n_tup_upd, 1))
        FROM pg_stat_user_tables WHERE n_dead_tup > 0 ORDER BY n_dead_tup DESC LIMIT 3";
    Ok(client.query(text, &[]).await?.iter().map(|row| row.get(0)).collect())
}

fn report(ours: &Both, theirs: &Both) {
    println!("held: {PER_SECOND} pairs of acquire and release a second offered, {SLOTS} slots");
    for (name, both) in [("Meeboter", ours), ("the peer", theirs)] {
        println!("  {name}");
        for (when, run) in [("as usual", &both.quiet), ("a snapshot is held", &both.held)] {
            let took = run.outcome.took();
            println!(
                "    {when:<19} {:5.1} % kept   p50 {:7.2} ms   p99 {:8.2} ms   offered late p99 {:5.2} ms",
                run.outcome.kept() * 100.0,
                ms(took.median()),
                ms(took.p99()),
                ms(run.outcome.late.p99())
            );
            let [first, last] = run.postgres.map(|share| share * 100.0);
            println!(
                "    {:<19} PostgreSQL used {first:.0} % of a core in the first third, {last:.0} % in the last",
                ""
            );
        }
        println!("    p99 with a snapshot {:5.1} × as usual", both.slowed());
        both.left.iter().for_each(|line| println!("    {line}"));
    }
    println!(
        "  ratio               {:5.2} × the peer's p99 (a snapshot is held)",
        ratio(ours.held.outcome.took().p99(), theirs.held.outcome.took().p99())
    );
}

fn judge(ours: &Both) {
    let kept = ours.held.outcome.kept();
    verdict(
        kept >= KEPT_MIN && ours.slowed() <= P99_MAX,
        &format!(
            "{:.1} % kept, p99 {:.1} × as usual; the targets are 90 % and 3 ×",
            kept * 100.0,
            ours.slowed()
        ),
    );
}
