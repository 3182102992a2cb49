//! The actors inside the benchmark, on the real store: a PostgreSQL of its own in a folder that is thrown away, with
//! fsync on.

use crate::bare::Bare;
use crate::postgres::Postgres;
use crate::samples;
use actix::Arbiter;
use anyhow::{Context, Result};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use meeboter::store::data_dir::DataDir;
use meeboter::store::embedded::{Durability, Embedded};
use meeboter::store::journal::{Claim, JournalConnection};
use meeboter_actors::ids::{BotId, Generation, SlotId};
use meeboter_actors::journal::Decision;
use meeboter_actors::maintenance::MaintenanceSettings;
use meeboter_actors::pool::PoolSettings;
use meeboter_actors::ports::{
    Artifacts, ArtifactsError, BatchNo, Clock, Driver, Lead, Rows, SlotIds, Store, Unmetered,
};
use meeboter_actors::recording::Joined;
use meeboter_actors::scale::ScaleSettings;
use meeboter_actors::schedule::ScheduleSettings;
use meeboter_actors::slot::{Slot, SlotTiming};
use meeboter_actors::tree::{Ports, Tree};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A new leader finds nobody in its way.
const LEAD_LIMIT: Duration = Duration::from_secs(2);

/// See the module.
pub struct Workbench {
    folder: TempDir,
    embedded: Embedded,
    log: slog::Logger,
    _data_dir: DataDir,
}

impl Workbench {
    /// Starts PostgreSQL.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("meeboter-bench-").tempdir()?;
        // PostgreSQL's own user has to get through.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let data_dir = DataDir::hold(folder.path())?;
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let runtime = tokio::runtime::Handle::current();
        let embedded = Embedded::start(&data_dir, Durability::Full, runtime, &log).await?;
        Ok(Self { folder, embedded, log, _data_dir: data_dir })
    }

    /// A journal on a database of this name, which is made where there is none.
    pub async fn journal(&self, database: &str) -> Result<JournalConnection> {
        let database = self.embedded.database(database).await?;
        Ok(JournalConnection::take_lead(&database, Claim::Within(LEAD_LIMIT), &self.log).await?)
    }

    /// The same, with these slots and their bots stored.
    pub async fn holding(&self, database: &str, slots: &[Slot]) -> Result<JournalConnection> {
        let journal = self.journal(database).await?;
        let decisions: Vec<Decision> = slots.iter().map(samples::stored).collect();
        journal.commit(BatchNo(1), &decisions).await?;
        journal.flush(BatchNo(1)).await?;
        Ok(journal)
    }

    /// How a server names a database of this name, which is made where there is none.
    pub async fn url(&self, database: &str) -> Result<String> {
        self.embedded.database(database).await?;
        Ok(self.postgres()?.url(database))
    }

    /// Where PostgreSQL is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How to connect to it as anybody may.
    pub fn postgres(&self) -> Result<Postgres> {
        Postgres::of(self.folder.path())
    }

    /// The actors on an arbiter of their own, as in the server.
    pub async fn tree(
        &self,
        store: Arc<dyn Store>,
        driver: Arc<dyn Driver>,
        lead: Arc<dyn Lead>,
        rows: Rows,
        settings: PoolSettings,
    ) -> Result<(Tree, Arbiter)> {
        let ports = Ports {
            store,
            driver,
            artifacts: Arc::new(NoArtifacts),
            archive: Arc::new(Bare),
            spools: Arc::new(Bare),
            disks: Arc::new(Bare),
            clock: Arc::new(SystemClock),
            lead,
            meter: Arc::new(Unmetered),
            slot_ids: Arc::new(RandomSlotIds),
            // Actors that died in the middle show as answers that never come.
            on_fatal: Arc::new(|_: &str| {}),
            log: self.log.clone(),
        };
        let arbiter = Arbiter::new();
        let (planted, tree) = oneshot::channel();
        arbiter.spawn_fn(move || {
            // The benchmark alone decides how many slots there are.
            let scale = ScaleSettings { enabled: false, ..ScaleSettings::default() };
            let (schedule, timing) = (ScheduleSettings::default(), SlotTiming::default());
            let maintenance = MaintenanceSettings::default();
            let tree = Tree::start(&ports, rows, settings, schedule, scale, maintenance, timing);
            drop(planted.send(tree));
        });
        Ok((tree.await.context("the actors did not start")?, arbiter))
    }

    /// Stops PostgreSQL.
    pub async fn stop(self) -> Result<()> {
        Ok(self.embedded.stop().await?)
    }
}

/// The system's.
pub struct SystemClock;

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

#[async_trait]
impl Artifacts for NoArtifacts {
    async fn count_segments(&self, _: BotId, _: Generation) -> Result<u32, ArtifactsError> {
        Ok(0)
    }

    async fn join(&self, _: BotId, _: Generation, _: &str) -> Result<Option<Joined>, ArtifactsError> {
        Ok(None)
    }

    async fn remove(&self, _: BotId) -> Result<u32, ArtifactsError> {
        Ok(0)
    }
}
