//! An engine in which every container that anybody asks about runs, and goes on running. It counts what is stopped and
//! what is pulled; and where that is wanted, whoever waits for a container's end panics when it is told to.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use meeboter_actors::ids::{ContainerId, ContainerKey, HostName};
use meeboter_actors::ports::{
    Driver, DriverError, ImageDigest, ListedContainer, Presence, PullProgress, Pulled, StartRequest,
    StopRequest,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

#[derive(Default)]
pub struct Steady {
    running: Vec<ContainerKey>,
    stops: AtomicUsize,
    listings: AtomicUsize,
    watches: AtomicUsize,
    /// How long a pull takes.
    pull: Duration,
    pulls: AtomicUsize,
    fuses: Option<Fuses>,
}

/// Those who wait for a container's end, and may be made to panic.
struct Fuses {
    lit: Mutex<BTreeMap<ContainerKey, oneshot::Sender<()>>>,
    /// Told whenever somebody waits for a container's end.
    watched: mpsc::UnboundedSender<(ContainerKey, Instant)>,
}

impl Steady {
    /// One in which these run.
    pub fn new(running: Vec<ContainerKey>) -> Self {
        Self { running, ..Self::default() }
    }

    /// One in which nothing runs, and a pull takes so long; `Duration::MAX`: no image ever arrives, so that a bot stays in
    /// *deploying* with nothing started.
    pub fn pulling(pull: Duration) -> Self {
        Self { pull, ..Self::default() }
    }

    /// One in which these run, and which says when somebody begins to wait for the end of one.
    pub fn fused(running: Vec<ContainerKey>) -> (Self, mpsc::UnboundedReceiver<(ContainerKey, Instant)>) {
        let (watched, told) = mpsc::unbounded_channel();
        let fuses = Fuses { lit: Mutex::default(), watched };
        (Self { running, fuses: Some(fuses), ..Self::default() }, told)
    }

    /// Has the one who waits for this container's end panic; says whether there is one.
    pub fn blow(&self, key: ContainerKey) -> bool {
        let fuses = self.fuses.as_ref();
        let lit =
            fuses.and_then(|fuses| fuses.lit.lock().unwrap_or_else(PoisonError::into_inner).remove(&key));
        lit.is_some_and(|fuse| fuse.send(()).is_ok())
    }

    /// Images that were pulled.
    pub fn pulls(&self) -> usize {
        self.pulls.load(Ordering::Relaxed)
    }

    /// Containers that were to be stopped.
    pub fn stops(&self) -> usize {
        self.stops.load(Ordering::Relaxed)
    }

    /// Listings that were asked for.
    pub fn listings(&self) -> usize {
        self.listings.load(Ordering::Relaxed)
    }

    /// Containers whose end is waited for.
    pub fn watches(&self) -> usize {
        self.watches.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Driver for Steady {
    async fn pull(
        &self,
        _: &HostName,
        _: &str,
        _: watch::Sender<PullProgress>,
    ) -> Result<Pulled, DriverError> {
        self.pulls.fetch_add(1, Ordering::Relaxed);
        if !self.pull.is_zero() {
            tokio::time::sleep(self.pull).await;
        }
        Ok(Pulled::Current)
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        Ok(ContainerId(request.key.slot.0.to_string()))
    }

    async fn wait_exit(&self, _: &HostName, key: ContainerKey) -> Result<String, DriverError> {
        self.watches.fetch_add(1, Ordering::Relaxed);
        if let Some(fuses) = &self.fuses {
            let (fuse, blown) = oneshot::channel();
            fuses.lit.lock().unwrap_or_else(PoisonError::into_inner).insert(key, fuse);
            // Nobody listens any more: the benchmark is over.
            let _ = fuses.watched.send((key, Instant::now()));
            assert!(blown.await.is_err(), "as a bug in a slot's handler would");
        }
        std::future::pending().await
    }

    async fn stop(&self, _: StopRequest) -> Result<(), DriverError> {
        self.stops.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn inspect(&self, _: &HostName, _: ContainerKey) -> Result<Presence, DriverError> {
        Ok(Presence::Running)
    }

    async fn list(&self, _: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        self.listings.fetch_add(1, Ordering::Relaxed);
        let listed = |key: &ContainerKey| ListedContainer {
            key: *key,
            container: ContainerId(key.slot.0.to_string()),
            presence: Presence::Running,
        };
        Ok(self.running.iter().map(listed).collect())
    }

    async fn resolve(&self, _: &HostName, _: &str) -> Result<Option<ImageDigest>, DriverError> {
        Ok(None)
    }

    async fn logs(&self, _: &HostName, _: ContainerKey, _: u32) -> Result<Vec<String>, DriverError> {
        Ok(vec![])
    }

    async fn sweep(
        &self,
        _: &HostName,
        _: &BTreeSet<ContainerKey>,
        _: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        Ok(0)
    }
}
