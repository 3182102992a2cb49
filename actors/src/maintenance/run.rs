//! One run of maintenance, step by step. A step that fails in part goes on with the rest; what could not be done is
//! counted, and the next run tries again. Everything it asks for may be asked for again, and every wait ends.

use super::plan::{Refresh, images_in_use, refreshes};
use super::retention::Sweeper;
use super::{HostImage, Images, MaintenanceSettings, Run, Step, StepReport};
use crate::image_pull::PullKey;
use crate::image_pull::actor::ImagePullActor;
use crate::image_pull::anew::{pull_anew, refresh_slots};
use crate::journal::actor::Journal;
use crate::pool::actor::PoolSupervisor;
use crate::pool::message::{self as pool, Recover};
use crate::ports::{Archive, Artifacts, Clock, Disks, Driver};
use crate::reconcile::actor::{ReconcileNow, Reconciler};
use crate::slot::handle::Directory;
use crate::slot::{Slot, held_containers};
use crate::supervision::tell;
use actix::prelude::*;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

/// How long an actor may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// How long a registry may take to say what a reference means.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(60);
/// How long an image may take to be made present; its pull goes on. A cold one takes about 7 minutes.
const PULL_DEADLINE: Duration = Duration::from_secs(1_800);
/// Between two tries to begin a listing, and how many there are: a listing ends within half a minute.
const LISTING_INTERVAL: Duration = Duration::from_secs(2);
const LISTING_TRIES_MAX: u32 = 30;
/// Why nothing is removed for its age.
const LEAPT: &str = "left out: the clock has leapt ahead by more than an hour within the last day";
/// How long a host may take to remove what is old.
const SWEEP_DEADLINE: Duration = Duration::from_secs(600);

/// What maintenance is connected to.
#[derive(Clone)]
pub struct MaintenanceLinks {
    /// The writer.
    pub journal: Journal,
    /// Slots in error, and hosts.
    pub pool: Addr<PoolSupervisor>,
    /// Images.
    pub pulls: Addr<ImagePullActor>,
    /// Listings.
    pub reconciler: Addr<Reconciler>,
    /// Slots.
    pub directory: Arc<Directory>,
    /// The engine.
    pub driver: Arc<dyn Driver>,
    /// Recordings.
    pub artifacts: Arc<dyn Artifacts>,
    /// Rows of ended bots.
    pub archive: Arc<dyn Archive>,
    /// Disks.
    pub disks: Arc<dyn Disks>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The log.
    pub log: slog::Logger,
}

/// How far a run is, for those who look.
pub(super) struct Progress(watch::Sender<Run>);

impl Progress {
    pub(super) fn new(run: Run) -> (Self, watch::Receiver<Run>) {
        let (sender, receiver) = watch::channel(run);
        (Self(sender), receiver)
    }

    /// Counts what was done in the present step.
    pub(super) fn did(&self, what: &str, count: u64) {
        self.note(|report| report.did(what, count));
    }

    /// Counts what could not be done in the present step.
    pub(super) fn failed(&self, why: impl Into<String>) {
        self.note(|report| report.failed(why));
    }

    fn note(&self, note: impl FnOnce(&mut StepReport)) {
        self.0.send_modify(|run| {
            if let Some(report) = run.steps.last_mut() {
                note(report);
            }
        });
    }
}

/// Waits for an answer no longer than that; a failure is a sentence.
pub(super) async fn bounded<T, E: std::fmt::Display>(
    limit: Duration,
    whose: &str,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(limit, answer).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("{whose} did not answer within {} s", limit.as_secs())),
    }
}

/// The clock as it was trusted when a run began. How old things are goes by that and the time that has passed since: a
/// clock that leaps while the run is under way makes nothing older.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trusted {
    pub(super) now: DateTime<Utc>,
    pub(super) at: Instant,
}

impl Trusted {
    fn now(self) -> DateTime<Utc> {
        self.now + self.at.elapsed()
    }
}

/// See the module.
pub(super) struct Work {
    pub(super) settings: MaintenanceSettings,
    pub(super) links: MaintenanceLinks,
    /// `None`: the clock has leapt ahead lately, and nothing is removed for its age.
    pub(super) trusted: Option<Trusted>,
    pub(super) images: Images,
    pub(super) progress: Progress,
}

impl Work {
    /// All steps, in their order; answers with the run as it ended and what images mean now.
    pub(super) async fn run(mut self) -> (Run, Images) {
        for step in Step::ALL {
            self.progress.0.send_modify(|run| run.steps.push(StepReport::begin(step)));
            match step {
                Step::Recover => self.recover().await,
                Step::Refresh => self.refresh().await,
                Step::Orphans => self.look_for_orphans().await,
                Step::Retention | Step::Logs => match self.trusted.map(Trusted::now) {
                    None => self.progress.failed(LEAPT),
                    Some(now) if step == Step::Retention => self.sweep_store(now).await,
                    Some(now) => self.sweep_hosts(now).await,
                },
            }
            let now = self.links.clock.now();
            self.progress.note(|report| report.ended_at = Some(now));
        }
        let now = self.links.clock.now();
        self.progress.0.send_modify(|run| run.ended_at = Some(now));
        let run = self.progress.0.borrow().clone();
        (run, self.images)
    }

    async fn recover(&self) {
        let (reply, answer) = oneshot::channel();
        tell(&self.links.pool, Recover { reply });
        match bounded(ANSWER_DEADLINE, "the pool", answer).await {
            Ok(slots) => self.progress.did("slots", slots as u64),
            Err(why) => self.progress.failed(why),
        }
    }

    // --- images ------------------------------------------------------------------------------------------------

    async fn refresh(&mut self) {
        let slots = self.slots();
        let in_use = images_in_use(slots.iter().map(AsRef::as_ref));
        let means = self.resolve(&in_use).await;
        let wanted = refreshes(
            slots.iter().map(AsRef::as_ref),
            &self.images,
            &means,
            self.settings.refresh_idle,
            self.links.clock.now(),
        );
        let mut known: Images = in_use
            .into_iter()
            .filter_map(|image| {
                let digest = means.get(&image).or_else(|| self.images.get(&image))?.clone();
                Some((image, digest))
            })
            .collect();
        for Refresh { image, moved } in wanted {
            let HostImage { host, image: reference } = &image;
            slog::info!(self.links.log, "an image is made present anew"; "host" => %host, "image" => reference,
                "moved" => moved);
            let key = PullKey { host: host.clone(), image: reference.clone() };
            match self.pull(&key).await {
                Ok(()) => {
                    self.progress.did("images", 1);
                    self.progress.did("slots", refresh_slots(&self.links.directory, &key).await);
                }
                Err(why) => {
                    // What it meant before still stands, so that the next run sees the move again.
                    match self.images.get(&image) {
                        Some(digest) => known.insert(image.clone(), digest.clone()),
                        None => known.remove(&image),
                    };
                    self.progress.failed(format!("{reference} on {host}: {why}"));
                }
            }
        }
        self.images = known;
    }

    /// What each reference means now; one that cannot be told is left out.
    async fn resolve(&self, images: &[HostImage]) -> Images {
        let mut means = Images::new();
        for image in images {
            let HostImage { host, image: reference } = image;
            let answer = self.links.driver.resolve(host, reference);
            match bounded(RESOLVE_DEADLINE, "the engine", answer).await {
                Ok(Some(digest)) => drop(means.insert(image.clone(), digest)),
                Ok(None) => self.progress.failed(format!("{reference} on {host}: there is no such image")),
                Err(why) => self.progress.failed(format!("{reference} on {host}: {why}")),
            }
        }
        means
    }

    async fn pull(&self, key: &PullKey) -> Result<(), String> {
        let pulled = pull_anew(&self.links.pulls, key);
        bounded(PULL_DEADLINE, "the pull", pulled).await?.map_err(|failure| failure.to_string())
    }

    // --- what nobody wants any more ----------------------------------------------------------------------------

    /// A stray is removed after two listings in a row. The second begins only when the first has ended.
    async fn look_for_orphans(&self) {
        let mut listings = 0;
        for _ in 0..LISTING_TRIES_MAX {
            match bounded(ANSWER_DEADLINE, "the Reconciler", self.links.reconciler.send(ReconcileNow)).await {
                Ok(0) => {}
                Ok(hosts) => {
                    listings += 1;
                    self.progress.did("listings", hosts as u64);
                }
                Err(why) => return self.progress.failed(why),
            }
            if listings == 2 {
                return;
            }
            sleep(LISTING_INTERVAL).await;
        }
        self.progress.failed("the hosts could not be listed twice");
    }

    async fn sweep_store(&self, now: DateTime<Utc>) {
        let MaintenanceLinks { journal, archive, artifacts, .. } = &self.links;
        let (retention, progress) = (self.settings.retention, &self.progress);
        Sweeper { retention, now, journal, archive, artifacts, progress }.sweep().await;
    }

    async fn sweep_hosts(&self, now: DateTime<Utc>) {
        let Some(before) = self.settings.retention.logs.and_then(|kept| now.checked_sub_signed(kept)) else {
            return;
        };
        let hosts = match bounded(ANSWER_DEADLINE, "the pool", self.links.pool.send(pool::Observe)).await {
            Ok(snapshot) => snapshot.hosts,
            Err(why) => return self.progress.failed(why),
        };
        for host in hosts.into_keys() {
            let wanted = held_containers(self.slots().iter().map(AsRef::as_ref));
            let swept = self.links.driver.sweep(&host, &wanted, before);
            match bounded(SWEEP_DEADLINE, "the engine", swept).await {
                Ok(folders) => self.progress.did("folders", u64::from(folders)),
                Err(why) => self.progress.failed(format!("{host}: {why}")),
            }
        }
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        self.links.directory.all().iter().map(|handle| handle.snapshot()).collect()
    }
}
