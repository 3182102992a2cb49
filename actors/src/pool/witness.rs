//! A driver that tells the pool whether the engine answers, and that ends calls which get no answer in time. All actors
//! call the engine through it, so that whatever anybody learns of a host counts for its breaker.

use super::actor::PoolSupervisor;
use super::breaker::BreakerEvent;
use super::message::EngineHeard;
use crate::ids::{BotId, ContainerId, ContainerKey, HostName};
use crate::ports::{
    Clock, Driver, DriverError, EngineEvent, ImageDigest, Lead, ListedContainer, PrepareRequest, Presence,
    PullProgress, Pulled, StartRequest, StopRequest,
};
use crate::supervision::tell;
use actix::Addr;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long a look may take. One that is late says nothing.
pub const LOOK_DEADLINE: Duration = Duration::from_secs(30);
/// What a stop may take beyond its grace.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// See the module.
pub struct WitnessedDriver {
    driver: Arc<dyn Driver>,
    pool: Addr<PoolSupervisor>,
    clock: Arc<dyn Clock>,
    lead: Arc<dyn Lead>,
    /// The longest start.
    start_deadline: Duration,
}

impl WitnessedDriver {
    /// Tells `pool` of the calls to `driver`.
    pub fn new(
        driver: Arc<dyn Driver>,
        pool: Addr<PoolSupervisor>,
        clock: Arc<dyn Clock>,
        lead: Arc<dyn Lead>,
        start_deadline: Duration,
    ) -> Self {
        Self { driver, pool, clock, lead, start_deadline }
    }

    async fn witness<T>(
        &self,
        host: &HostName,
        outcome: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        let began_at = self.clock.now();
        let outcome = outcome.await;
        let heard = match &outcome {
            Err(DriverError { answered: false, .. }) => BreakerEvent::Unanswered { began_at },
            _ => BreakerEvent::Answered,
        };
        // A server that may not act is refused by itself: that is no word of the engine.
        if heard == BreakerEvent::Answered || self.lead.holds() {
            tell(&self.pool, EngineHeard { host: host.clone(), heard });
        }
        outcome
    }
}

/// A call with a last deadline, for engines that forget their own.
async fn within<T>(
    limit: Duration,
    call: &str,
    outcome: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, DriverError> {
    tokio::time::timeout(limit, outcome).await.unwrap_or_else(|_| {
        Err(DriverError {
            message: format!("{call}: no answer within {} s", limit.as_secs()),
            answered: false,
            retryable: true,
        })
    })
}

#[async_trait]
impl Driver for WitnessedDriver {
    /// Has no deadline here: it lasts as long as it gets on.
    async fn pull(
        &self,
        host: &HostName,
        image: &str,
        progress: watch::Sender<PullProgress>,
    ) -> Result<Pulled, DriverError> {
        self.witness(host, self.driver.pull(host, image, progress)).await
    }

    fn prepares(&self, host: &HostName) -> bool {
        self.driver.prepares(host)
    }

    fn start_wait(&self, bot: BotId) -> Option<Duration> {
        self.driver.start_wait(bot)
    }

    /// No longer than a start, of which it is a part.
    async fn prepare(&self, request: PrepareRequest) -> Result<ContainerId, DriverError> {
        let host = request.host.clone();
        self.witness(&host, within(self.start_deadline, "prepare", self.driver.prepare(request))).await
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        let host = request.host.clone();
        self.witness(&host, within(self.start_deadline, "start", self.driver.start(request))).await
    }

    /// Has no deadline: it lasts as long as the meeting.
    async fn wait_exit(&self, host: &HostName, key: ContainerKey) -> Result<String, DriverError> {
        self.witness(host, self.driver.wait_exit(host, key)).await
    }

    async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        let host = request.host.clone();
        let limit = request.grace + STOP_DEADLINE;
        self.witness(&host, within(limit, "stop", self.driver.stop(request))).await
    }

    async fn inspect(&self, host: &HostName, key: ContainerKey) -> Result<Presence, DriverError> {
        self.witness(host, within(LOOK_DEADLINE, "inspect", self.driver.inspect(host, key))).await
    }

    async fn list(&self, host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        self.witness(host, within(LOOK_DEADLINE, "list", self.driver.list(host))).await
    }

    /// Has no deadline here: it asks a registry, and who asks knows how long that may take.
    async fn resolve(&self, host: &HostName, image: &str) -> Result<Option<ImageDigest>, DriverError> {
        self.witness(host, self.driver.resolve(host, image)).await
    }

    async fn logs(&self, host: &HostName, key: ContainerKey, lines: u32) -> Result<Vec<String>, DriverError> {
        self.witness(host, within(LOOK_DEADLINE, "logs", self.driver.logs(host, key, lines))).await
    }

    /// Has no deadline here: it lasts as long as there is something to remove.
    async fn sweep(
        &self,
        host: &HostName,
        wanted: &BTreeSet<ContainerKey>,
        before: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        self.witness(host, self.driver.sweep(host, wanted, before)).await
    }

    /// Has no deadline: it lasts as long as the engine has something to say.
    async fn watch(&self, host: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        self.witness(host, self.driver.watch(host, events)).await
    }
}
