//! A driver that acts only while this server is known to lead: a server that was cut off or asleep does not know
//! whether another has the slots by now, so what it was about to do waits until the database has spoken.

use crate::ids::{BotId, ContainerId, ContainerKey, HostName};
use crate::ports::{
    Driver, DriverError, EngineEvent, ImageDigest, Lead, ListedContainer, PrepareRequest, Presence,
    PullProgress, Pulled, StartRequest, StopRequest,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long a call waits for the lead to be proven; its caller tries again.
const PROOF_DEADLINE: Duration = Duration::from_secs(30);

/// See the module.
pub struct LeadingDriver {
    driver: Arc<dyn Driver>,
    lead: Arc<dyn Lead>,
}

impl LeadingDriver {
    /// Lets calls that change something through to `driver` while `lead` holds.
    pub fn new(driver: Arc<dyn Driver>, lead: Arc<dyn Lead>) -> Self {
        Self { driver, lead }
    }

    async fn allowed(&self) -> Result<(), DriverError> {
        tokio::time::timeout(PROOF_DEADLINE, self.lead.proven()).await.map_err(|_| DriverError {
            message: "nothing is started or stopped while it is not known who leads; is the database there?"
                .to_owned(),
            answered: false,
            retryable: true,
        })
    }
}

#[async_trait]
impl Driver for LeadingDriver {
    async fn pull(
        &self,
        host: &HostName,
        image: &str,
        progress: watch::Sender<PullProgress>,
    ) -> Result<Pulled, DriverError> {
        self.allowed().await?;
        self.driver.pull(host, image, progress).await
    }

    fn prepares(&self, host: &HostName) -> bool {
        self.driver.prepares(host)
    }

    fn start_wait(&self, bot: BotId) -> Option<Duration> {
        self.driver.start_wait(bot)
    }

    async fn prepare(&self, request: PrepareRequest) -> Result<ContainerId, DriverError> {
        self.allowed().await?;
        self.driver.prepare(request).await
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        self.allowed().await?;
        self.driver.start(request).await
    }

    async fn wait_exit(&self, host: &HostName, key: ContainerKey) -> Result<String, DriverError> {
        self.driver.wait_exit(host, key).await
    }

    async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        self.allowed().await?;
        self.driver.stop(request).await
    }

    async fn inspect(&self, host: &HostName, key: ContainerKey) -> Result<Presence, DriverError> {
        self.driver.inspect(host, key).await
    }

    async fn list(&self, host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        self.driver.list(host).await
    }

    async fn resolve(&self, host: &HostName, image: &str) -> Result<Option<ImageDigest>, DriverError> {
        self.driver.resolve(host, image).await
    }

    async fn logs(&self, host: &HostName, key: ContainerKey, lines: u32) -> Result<Vec<String>, DriverError> {
        self.driver.logs(host, key, lines).await
    }

    async fn sweep(
        &self,
        host: &HostName,
        wanted: &BTreeSet<ContainerKey>,
        before: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        self.allowed().await?;
        self.driver.sweep(host, wanted, before).await
    }

    async fn watch(&self, host: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        self.driver.watch(host, events).await
    }
}
