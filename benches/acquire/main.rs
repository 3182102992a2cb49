//! How many bots get a slot and give it back, each time durably: slot, bot and event rows, 1,000 slots, 64 and 256
//! callers. The actors run inside the benchmark, on the real store. A pair is a bot that is created into a slot, and
//! cancelled while the slot waits for its image, which frees the slot: two durable decisions, and a caller waits for both.
//!
//! Beside it, on the same PostgreSQL in the same minutes: a table of slots that every caller locks a row of by itself
//! (`support/peer.rs`), the store alone, which one writer gives the same decisions in batches (`replay.rs`), and the
//! peer's table written in batches (`one_table.rs`). `--quick` is a small run.

mod one_table;
mod record;
mod replay;

use actix::Arbiter;
use anyhow::{Context, Result, ensure};
use meeboter_actors::bot::EndReason;
use meeboter_actors::ids::{HostName, UserId};
use meeboter_actors::journal::Decision;
use meeboter_actors::pool::message::{CreateBot, Created, LeaveBot};
use meeboter_actors::ports::Store;
use meeboter_actors::supervision::tell;
use meeboter_actors::tree::Tree;
use meeboter_benches::figures::{Figures, ms};
use meeboter_benches::observed_store::ObservedStore;
use meeboter_benches::peer::Peer;
use meeboter_benches::steady::Steady;
use meeboter_benches::workbench::Workbench;
use meeboter_benches::{progress, samples, verdict};
use one_table::OneTable;
use record::Record;
use replay::Replay;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

const SLOTS: u32 = 1_000;
const CALLERS: [usize; 2] = [64, 256];
/// Times the peer, by callers.
const TARGETS: [f64; 2] = [4.0, 8.0];
const STORE_SHARE_MIN: f64 = 0.6;
const P99_MAX: Duration = Duration::from_millis(25);
/// One caller, until all slots have their actors and PostgreSQL its plans.
const WARM_UP: Duration = Duration::from_millis(500);
/// Between two looks whether the last slots are idle.
const LOOK: Duration = Duration::from_millis(1);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

#[actix_web::main]
async fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, duration) = if quick { (1, Duration::from_secs(1)) } else { (5, Duration::from_secs(4)) };
    progress("starting PostgreSQL");
    let workbench = Workbench::start().await?;
    let outcome = measure(&workbench, rounds, duration).await;
    workbench.stop().await?;
    outcome
}

/// What one of several callers' loops did.
#[derive(Default)]
struct Loops {
    pairs: u32,
    acquired: Figures,
    released: Figures,
}

/// One of [`CALLERS`], all rounds.
#[derive(Default)]
struct Outcome {
    pairs: Vec<f64>,
    acquired: Figures,
    released: Figures,
    peer: Vec<f64>,
    peer_connections: Vec<usize>,
    peer_acquired: Figures,
    store: Vec<f64>,
    one_table: Vec<f64>,
}

async fn measure(workbench: &Workbench, rounds: u32, duration: Duration) -> Result<()> {
    let measured = Pool::start(workbench, "bench", false).await?;
    // What this one commits is what the store is given alone; keeping it would slow the measured one down.
    let kept = Pool::start(workbench, "kept", true).await?;
    let mut replay = Replay::new(workbench.journal("replay").await?);
    replay.run(samples::idle_slots(SLOTS), SLOTS as usize).await?;
    replay.run(kept.written(), 1).await?;
    let peer = Peer::new(workbench.postgres()?, SLOTS);
    let mut outcomes = [Outcome::default(), Outcome::default()];
    for round in 1..=rounds {
        for (callers, outcome) in CALLERS.into_iter().zip(&mut outcomes) {
            let say = |what| progress(&format!("round {round} of {rounds}, {callers} callers: {what}"));
            say("the peer");
            let best = peer.best(callers, duration).await?;
            outcome.peer.push(best.pairs_per_second);
            outcome.peer_connections.push(best.connections);
            outcome.peer_acquired.extend(best.acquired);
            say("Meeboter");
            let (pairs, loops) = measured.run(callers, duration).await?;
            outcome.pairs.push(pairs);
            outcome.acquired.extend(loops.acquired);
            outcome.released.extend(loops.released);
            say("the store alone");
            let (_, loops) = kept.run(callers, duration / 4).await?;
            let took = replay.run(kept.written(), callers).await?;
            outcome.store.push(f64::from(loops.pairs) / took.as_secs_f64());
            say("one table in batches");
            let one_table = OneTable::new(workbench, &peer, SLOTS).await?;
            outcome.one_table.push(one_table.run(callers, duration / 4).await?);
        }
    }
    report(&outcomes);
    Ok(())
}

/// The actors with all slots idle.
struct Pool {
    tree: Tree,
    store: Arc<ObservedStore<Record>>,
    arbiter: Arbiter,
}

impl Pool {
    async fn start(workbench: &Workbench, database: &str, keeps: bool) -> Result<Self> {
        let journal = workbench.journal(database).await?;
        let lead = journal.validity();
        let store = Arc::new(ObservedStore::new(journal, Record::new(keeps)));
        store.commit(Record::FIRST, &samples::idle_slots(SLOTS)).await?;
        store.flush(Record::FIRST).await?;
        store.observer().forget();
        let rows = store.load().await?;
        ensure!(rows.slots.len() == SLOTS as usize, "{} slots are stored", rows.slots.len());
        let mut settings = samples::settings(SLOTS, [HostName::local()]);
        // All of them wait for the image.
        settings.pulls.waiters_max = SLOTS;
        let driver = Arc::new(Steady::pulling(Duration::MAX));
        let durable = Arc::clone(&store) as Arc<dyn Store>;
        let (tree, arbiter) = workbench.tree(durable, driver, lead, rows, settings).await?;
        let pool = Self { tree, store, arbiter };
        pool.run(1, WARM_UP).await?;
        Ok(pool)
    }

    /// What was written since the last call, in order, if that is kept.
    fn written(&self) -> Vec<Decision> {
        self.store.observer().forget()
    }

    /// All callers, each in a closed loop, for so long, and until the last slot is idle; pairs a second, and how long
    /// things took.
    async fn run(&self, callers: usize, duration: Duration) -> Result<(f64, Loops)> {
        let freed_before = self.store.observer().freed();
        let began = Instant::now();
        let caller = |_| tokio::spawn(call_until(self.tree.clone(), began + duration));
        let running: Vec<_> = (0..callers).map(caller).collect();
        let mut all = Loops::default();
        for caller in running {
            let loops = caller.await??;
            all.pairs += loops.pairs;
            all.acquired.extend(loops.acquired);
            all.released.extend(loops.released);
        }
        while self.store.observer().freed() < freed_before + u64::from(all.pairs) {
            ensure!(began.elapsed() < duration + ANSWER_LIMIT, "slots were not freed");
            sleep(LOOK).await;
        }
        Ok((f64::from(all.pairs) / began.elapsed().as_secs_f64(), all))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.arbiter.stop();
    }
}

async fn call_until(tree: Tree, end: Instant) -> Result<Loops> {
    let mut loops = Loops::default();
    while Instant::now() < end {
        let began = Instant::now();
        let created = create(&tree).await?;
        loops.acquired.add(began.elapsed());
        ensure!(created.bot.seat.is_some(), "a bot had to wait, with {SLOTS} slots");
        let began = Instant::now();
        let (reply, left) = oneshot::channel();
        tell(&tree.pool, LeaveBot { bot_id: created.bot.id, reason: EndReason::Cancelled, reply });
        timeout(ANSWER_LIMIT, left).await.context("a cancel was not answered")???;
        loops.released.add(began.elapsed());
        loops.pairs += 1;
    }
    Ok(loops)
}

async fn create(tree: &Tree) -> Result<Created> {
    let (reply, created) = oneshot::channel();
    tell(&tree.pool, CreateBot { spec: samples::spec(), user_id: UserId(1), idempotency: None, reply });
    Ok(timeout(ANSWER_LIMIT, created).await.context("a creation was not answered")???)
}

fn report(outcomes: &[Outcome; 2]) {
    let mut ratios = Vec::new();
    println!(
        "acquire: pairs of acquire and release a second, {SLOTS} slots, median of {}",
        outcomes[0].pairs.len()
    );
    for ((callers, outcome), target) in CALLERS.into_iter().zip(outcomes).zip(TARGETS) {
        let [ours, peer, store, one_table] =
            [&outcome.pairs, &outcome.peer, &outcome.store, &outcome.one_table].map(|runs| median(runs));
        let (ratio, share) = (ours / peer, ours / store);
        println!("  {callers} callers");
        println!("    Meeboter         {ours:8.0} pairs/s   runs {}", list(&outcome.pairs));
        println!(
            "    peer, best of    {peer:8.0} pairs/s   runs {}   connections {:?}",
            list(&outcome.peer),
            outcome.peer_connections
        );
        println!("    the store alone  {store:8.0} pairs/s   runs {}", list(&outcome.store));
        println!("    one table        {one_table:8.0} pairs/s   runs {}", list(&outcome.one_table));
        for (name, figures) in [
            ("acquire", &outcome.acquired),
            ("release", &outcome.released),
            ("peer's acquire", &outcome.peer_acquired),
        ] {
            let [p50, p99] = [figures.median(), figures.p99()].map(ms);
            println!("    {name:<16} p50 {p50:7.2} ms   p99 {p99:7.2} ms");
        }
        println!(
            "    {ratio:.1} × the peer, {:.0} % of the store alone; the store {:.1}, one table in batches {:.1} × the peer",
            share * 100.0,
            store / peer,
            one_table / peer
        );
        verdict(
            ratio >= target,
            &format!("{callers} callers: {ratio:.1} × the peer; the target is {target} ×"),
        );
        ratios.push((ratio, share));
    }
    let share = ratios[0].1;
    let worst = outcomes[0].acquired.p99().max(outcomes[0].released.p99());
    verdict(
        share >= STORE_SHARE_MIN,
        &format!("64 callers: {:.0} % of the store alone; the target is 60 %", share * 100.0),
    );
    verdict(worst <= P99_MAX, &format!("64 callers: p99 {:.1} ms; the target is 25 ms", ms(worst)));
    println!("ratio {:.1}", ratios[0].0);
}

fn list(runs: &[f64]) -> String {
    runs.iter().map(|run| format!("{run:.0}")).collect::<Vec<_>>().join(" ")
}

fn median(runs: &[f64]) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
