//! How long it takes from a slot's release until the next bot of a long line has it for good. The actors run in this
//! program, on the real store and an engine that does everything at once. Beside it: how long the commits themselves
//! take. `--quick` is a small run that only shows that it works.

mod support;

use actix::Arbiter;
use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use meeboter::store::data_dir::DataDir;
use meeboter::store::embedded::{Durability, Embedded};
use meeboter::store::journal::{Claim, JournalConnection};
use meeboter_actors::bot::BotSpec;
use meeboter_actors::ids::{HostName, Platform, SlotId};
use meeboter_actors::pool::{HostSettings, PlatformSettings, PoolSettings};
use meeboter_actors::ports::{
    Artifacts, ArtifactsError, Clock, Lead, ResourceLimits, Rows, SlotIds, Store, Unmetered,
};
use meeboter_actors::queue::Plan;
use meeboter_actors::recording::Joined;
use meeboter_actors::scale::ScaleSettings;
use meeboter_actors::schedule::ScheduleSettings;
use meeboter_actors::slot::SlotTiming;
use meeboter_actors::testing::sample;
use meeboter_actors::tree::{Ports, Tree};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::engine::Engine;
use support::figures::{Figures, ms, ratio};
use support::postgres::Postgres;
use support::watched_store::WatchedStore;
use support::{progress, verdict};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::types::Json;

const PLATFORM: &str = "zoom";
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
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let data_dir = DataDir::hold(folder.path())?;
    let log = slog::Logger::root(slog::Discard, slog::o!());
    progress("starting PostgreSQL");
    let runtime = tokio::runtime::Handle::current();
    let embedded = Embedded::start(&data_dir, Durability::Full, runtime, &log).await?;
    let outcome = run(&embedded, folder.path(), waiting, releases, log).await;
    embedded.stop().await?;
    outcome
}

async fn run(
    embedded: &Embedded,
    folder: &Path,
    waiting: i64,
    releases: u32,
    log: slog::Logger,
) -> Result<()> {
    let database = embedded.database("bench").await?;
    let journal =
        JournalConnection::take_lead(&database, Claim::Within(Duration::from_secs(2)), &log).await?;
    progress(&format!("{waiting} bots of {USERS} users join the line"));
    fill(&Postgres::of(folder)?, waiting).await?;
    let rows = journal.load().await?;
    ensure!(rows.queue.len() == usize::try_from(waiting)?, "{} bots wait", rows.queue.len());
    let lead = journal.validity();
    let store = Arc::new(WatchedStore::new(journal, &rows.queue));
    measure(&store, lead, rows, releases, log).await
}

async fn measure(
    store: &Arc<WatchedStore>,
    lead: Arc<dyn Lead>,
    rows: Rows,
    releases: u32,
    log: slog::Logger,
) -> Result<()> {
    let engine = Arc::new(Engine::default());
    let actors = Arbiter::new();
    let ports = ports(Arc::clone(store) as Arc<dyn Store>, Arc::clone(&engine), lead, log);
    let (planted, tree) = tokio::sync::oneshot::channel();
    actors.spawn_fn(move || {
        let (schedule, scale) = (ScheduleSettings::default(), ScaleSettings::default());
        let tree = Tree::start(&ports, rows, settings(), schedule, scale, SlotTiming::default());
        drop(planted.send(tree));
    });
    let _tree = tree.await.context("the actors did not start")?;
    progress(&format!("{SLOTS} slots take the first bots"));
    let deadline = Instant::now() + FILL_LIMIT;
    while engine.running() < SLOTS as usize {
        ensure!(Instant::now() < deadline, "only {} of {SLOTS} slots run", engine.running());
        sleep(LOOK).await;
    }
    store.forget();
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
    while store.granted() < releases as usize {
        ensure!(Instant::now() < deadline, "only {} of {releases} were served", store.granted());
        sleep(LOOK).await;
    }
    actors.stop();
    report(store, &late);
    Ok(())
}

/// Bots of four plans, as rows: user after user, turn after turn.
async fn fill(postgres: &Postgres, waiting: i64) -> Result<()> {
    let client = postgres.connect("bench").await?;
    let spec =
        BotSpec { platform: Platform(PLATFORM.to_owned()), recording_enabled: false, ..sample::spec() };
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
            &[&waiting, &USERS, &PLATFORM, &Json(&spec)],
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

fn settings() -> PoolSettings {
    let platform = PlatformSettings {
        max_size: SLOTS,
        image: "bench:1".to_owned(),
        enabled: true,
        prewarm: 0,
        ephemeral: false,
        limits: ResourceLimits::default(),
    };
    PoolSettings {
        platforms: [(Platform(PLATFORM.to_owned()), platform)].into(),
        hosts: [(HostName::local(), HostSettings { capacity: SLOTS })].into(),
        max_size: SLOTS,
        queue_max: 1_000_000,
        ..PoolSettings::default()
    }
}

fn ports(store: Arc<dyn Store>, engine: Arc<Engine>, lead: Arc<dyn Lead>, log: slog::Logger) -> Ports {
    Ports {
        store,
        driver: engine,
        artifacts: Arc::new(NoArtifacts),
        clock: Arc::new(SystemClock),
        lead,
        meter: Arc::new(Unmetered),
        slot_ids: Arc::new(RandomSlotIds),
        // Actors that died in the middle show as releases that nobody is served by.
        on_fatal: Arc::new(|_: &str| {}),
        log,
    }
}

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

struct RandomSlotIds;

impl SlotIds for RandomSlotIds {
    fn next(&self) -> SlotId {
        SlotId(uuid::Uuid::new_v4())
    }
}

/// These bots do not record.
struct NoArtifacts;

#[async_trait::async_trait]
impl Artifacts for NoArtifacts {
    async fn count_segments(
        &self,
        _: meeboter_actors::ids::BotId,
        _: meeboter_actors::ids::Generation,
    ) -> Result<u32, ArtifactsError> {
        Ok(0)
    }

    async fn join(
        &self,
        _: meeboter_actors::ids::BotId,
        _: meeboter_actors::ids::Generation,
        _: &str,
    ) -> Result<Option<Joined>, ArtifactsError> {
        Ok(None)
    }
}

fn report(store: &WatchedStore, late: &Figures) {
    let seen = store.seen();
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
