//! A driver whose calls are counted and timed. Waits for an exit are not: they last as long as the meeting.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use meeboter_actors::ids::{BotId, ContainerId, ContainerKey, HostName};
use meeboter_actors::ports::{
    CallOutcome, Driver, DriverError, EngineEvent, ImageDigest, ListedContainer, Measure, Meter,
    PrepareRequest, Presence, PullProgress, Pulled, StartRequest, StopRequest,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// See the module.
pub struct MeteredDriver {
    driver: Arc<dyn Driver>,
    meter: Arc<dyn Meter>,
}

impl MeteredDriver {
    /// Counts the calls to `driver`.
    pub fn new(driver: Arc<dyn Driver>, meter: Arc<dyn Meter>) -> Self {
        Self { driver, meter }
    }

    async fn timed<T>(
        &self,
        call: &'static str,
        outcome: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        let began = Instant::now();
        let outcome = outcome.await;
        let came_of_it = match &outcome {
            Ok(_) => CallOutcome::Done,
            Err(DriverError { answered: true, .. }) => CallOutcome::Refused,
            Err(DriverError { answered: false, .. }) => CallOutcome::Unanswered,
        };
        self.meter.record(Measure::DriverCalled { call, outcome: came_of_it, took: began.elapsed() });
        outcome
    }
}

#[async_trait]
impl Driver for MeteredDriver {
    async fn pull(
        &self,
        host: &HostName,
        image: &str,
        progress: watch::Sender<PullProgress>,
    ) -> Result<Pulled, DriverError> {
        self.timed("pull", self.driver.pull(host, image, progress)).await
    }

    fn prepares(&self, host: &HostName) -> bool {
        self.driver.prepares(host)
    }

    fn start_wait(&self, bot: BotId) -> Option<Duration> {
        self.driver.start_wait(bot)
    }

    async fn prepare(&self, request: PrepareRequest) -> Result<ContainerId, DriverError> {
        self.timed("prepare", self.driver.prepare(request)).await
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        self.timed("start", self.driver.start(request)).await
    }

    async fn wait_exit(&self, host: &HostName, key: ContainerKey) -> Result<String, DriverError> {
        self.driver.wait_exit(host, key).await
    }

    async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        self.timed("stop", self.driver.stop(request)).await
    }

    async fn inspect(&self, host: &HostName, key: ContainerKey) -> Result<Presence, DriverError> {
        self.timed("inspect", self.driver.inspect(host, key)).await
    }

    async fn list(&self, host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        self.timed("list", self.driver.list(host)).await
    }

    async fn resolve(&self, host: &HostName, image: &str) -> Result<Option<ImageDigest>, DriverError> {
        self.timed("resolve", self.driver.resolve(host, image)).await
    }

    async fn logs(&self, host: &HostName, key: ContainerKey, lines: u32) -> Result<Vec<String>, DriverError> {
        self.timed("logs", self.driver.logs(host, key, lines)).await
    }

    async fn sweep(
        &self,
        host: &HostName,
        wanted: &BTreeSet<ContainerKey>,
        before: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        self.timed("sweep", self.driver.sweep(host, wanted, before)).await
    }

    /// Lasts as long as the engine has something to say: neither counted nor timed.
    async fn watch(&self, host: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        self.driver.watch(host, events).await
    }
}
