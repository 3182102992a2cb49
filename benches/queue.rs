//! How long it takes from a slot's release until the next bot of a long line has it for good. The actors run in this
//! program, on the real store and an engine that does everything at once. Beside it: how long the commits themselves
//! take. `--quick` is a small run that only shows that it works.

use anyhow::{Result, ensure};
use meeboter_actors::ids::HostName;
use meeboter_actors::ports::{Lead, Rows, Store};
use meeboter_actors::queue::Plan;
use meeboter_benches::engine::Engine;
use meeboter_benches::figures::{Figures, ms, ratio};
use meeboter_benches::grants::Grants;
use meeboter_benches::observed_store::ObservedStore;
use meeboter_benches::postgres::Postgres;
use meeboter_benches::workbench::Workbench;
use meeboter_benches::{progress, samples, verdict};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::types::Json;

const USERS: i64 = 1_000;
const SLOTS: u32 = 256;
/// Between two releases: 1,000 in a second.
const PACE: Duration = Duration::from_millis(1);
const FILL_LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
const TARGET_P50: Duration = Duration::from_millis(6);
const TARGET_P99: Duration = Duration::from_millis(20);

#[actix_web::main]
async fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (waiting, releases) = if quick { (10_000, 2_000) } else { (100_000, 10_000) };
    progress("starting PostgreSQL");
    let workbench = Workbench::start().await?;
    let outcome = run(&workbench, waiting, releases).await;
    workbench.stop().await?;
    outcome
}

async fn run(workbench: &Workbench, waiting: i64, releases: u32) -> Result<()> {
    let journal = workbench.journal("bench").await?;
    progress(&format!("{waiting} bots of {USERS} users join the line"));
    fill(&workbench.postgres()?, waiting).await?;
    let rows = journal.load().await?;
    ensure!(rows.queue.len() == usize::try_from(waiting)?, "{} bots wait", rows.queue.len());
    let lead = journal.validity();
    let store = Arc::new(ObservedStore::new(journal, Grants::of(&rows.queue)));
    measure(workbench, &store, lead, rows, releases).await
}

async fn measure(
    workbench: &Workbench,
    store: &Arc<ObservedStore<Grants>>,
    lead: Arc<dyn Lead>,
    rows: Rows,
    releases: u32,
) -> Result<()> {
    let engine = Arc::new(Engine::default());
    let settings = samples::settings(SLOTS, [HostName::local()]);
    let driver = Arc::clone(&engine) as Arc<_>;
    let (_tree, actors) =
        workbench.tree(Arc::clone(store) as Arc<dyn Store>, driver, lead, rows, settings).await?;
    progress(&format!("{SLOTS} slots take the first bots"));
    let deadline = Instant::now() + FILL_LIMIT;
    while engine.running() < SLOTS as usize {
        ensure!(Instant::now() < deadline, "only {} of {SLOTS} slots run", engine.running());
        sleep(LOOK).await;
    }
    store.observer().forget();
    progress(&format!("{releases} releases, 1000 a second"));
    let start = Instant::now() + PACE;
    let mut late = Figures::default();
    for number in 0..releases {
        let due = start + PACE * number;
        sleep_until(due).await;
        engine.end_one().await;
        late.add(due.elapsed());
    }
    // The last ones are served too.
    let deadline = Instant::now() + FILL_LIMIT;
    let granted = || store.observer().grants.count();
    while granted() < releases as usize {
        ensure!(Instant::now() < deadline, "only {} of {releases} were served", granted());
        sleep(LOOK).await;
    }
    actors.stop();
    report(&store.observer(), &late);
    Ok(())
}

/// Bots of four plans, as rows: user after user, turn after turn.
async fn fill(postgres: &Postgres, waiting: i64) -> Result<()> {
    let client = postgres.connect("bench").await?;
    let spec = samples::spec();
    client
        .execute(
            "INSERT INTO users (id, name) SELECT n, 'user ' || n FROM generate_series(2, $1::bigint) AS n",
            &[&USERS],
        )
        .await?;
    client
        .execute(
            "INSERT INTO bots (id, user_id, platform, spec, state, report_seq, created_at, version) \
             SELECT n, 1 + n % $2::bigint, $3::text, $4::jsonb, 'QUEUED', 0, now(), 1 FROM generate_series(1, $1::bigint) AS n",
            &[&waiting, &USERS, &spec.platform.0, &Json(&spec)],
        )
        .await?;
    let priorities: Vec<i16> = Plan::ALL.iter().map(|plan| plan.priority()).collect();
    client
        .execute(
            "INSERT INTO bot_pool_queue \
             (bot_id, platform, user_id, priority, turn, arrival, queued_at, deadline_at) \
             SELECT id, platform, user_id, ($1::smallint[])[1 + user_id % 4], id / $2::bigint, id, now(), \
             now() + interval '1 hour' FROM bots",
            &[&priorities, &USERS],
        )
        .await?;
    client.batch_execute("ANALYZE").await?;
    Ok(())
}

fn report(seen: &Grants, late: &Figures) {
    println!("queue: {} releases at 1000 a second, {} bots wait behind", seen.grants.count(), seen.left);
    for (name, figures) in
        [("release to grant", &seen.grants), ("a commit", &seen.commits), ("released late", late)]
    {
        let [median, p99, max] = [figures.median(), figures.p99(), figures.max()].map(ms);
        println!("  {name:<18} p50 {median:7.2} ms   p99 {p99:7.2} ms   max {max:7.2} ms");
    }
    let (p50, p99) = (seen.grants.median(), seen.grants.p99());
    println!(
        "  ratio              p50 {:7.2} ×    p99 {:7.2} ×",
        ratio(p50, seen.commits.median()),
        ratio(p99, seen.commits.p99())
    );
    println!("  inversions         {}", seen.inversions);
    let passed = p50 <= TARGET_P50 && p99 <= TARGET_P99 && seen.inversions == 0;
    let sentence = format!(
        "p50 {:.1} ms, p99 {:.1} ms, {} inversions; the targets are 6 ms, 20 ms and none",
        ms(p50),
        ms(p99),
        seen.inversions
    );
    verdict(passed, &sentence);
}
