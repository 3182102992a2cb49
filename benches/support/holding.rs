//! An engine whose containers are starting for as long as nobody stops them: a bot stays in *deploying*, and what is
//! measured is that it gets a slot and gives it back, no more.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use meeboter_actors::ids::{ContainerId, ContainerKey, HostName};
use meeboter_actors::ports::{
    Driver, DriverError, ImageDigest, ListedContainer, Presence, PullProgress, StartRequest, StopRequest,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use tokio::sync::{oneshot, watch};

#[derive(Default)]
pub struct Holding(Mutex<HashMap<ContainerKey, oneshot::Sender<()>>>);

impl Holding {
    fn starting(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerKey, oneshot::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Driver for Holding {
    async fn pull(&self, _: &HostName, _: &str, _: watch::Sender<PullProgress>) -> Result<(), DriverError> {
        Ok(())
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        let (stops, stopped) = oneshot::channel();
        self.starting().insert(request.key, stops);
        let _ = stopped.await;
        // The answer comes too late to mean anything; a failure would have the image looked for again.
        Ok(ContainerId(request.key.slot.0.to_string()))
    }

    async fn wait_exit(&self, _: &HostName, _: ContainerKey) -> Result<String, DriverError> {
        std::future::pending().await
    }

    async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        self.starting().remove(&request.key);
        Ok(())
    }

    async fn inspect(&self, _: &HostName, _: ContainerKey) -> Result<Presence, DriverError> {
        Ok(Presence::Gone)
    }

    async fn list(&self, _: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        Ok(Vec::new())
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
