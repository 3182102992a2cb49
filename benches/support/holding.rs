//! An engine whose images never arrive: a bot stays in *deploying* with nothing started, and what is measured is that it
//! gets a slot and gives it back, no more.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use meeboter_actors::ids::{ContainerId, ContainerKey, HostName};
use meeboter_actors::ports::{
    Driver, DriverError, ImageDigest, ListedContainer, Presence, PullProgress, StartRequest, StopRequest,
};
use std::collections::BTreeSet;
use tokio::sync::watch;

pub struct Holding;

#[async_trait]
impl Driver for Holding {
    async fn pull(&self, _: &HostName, _: &str, _: watch::Sender<PullProgress>) -> Result<(), DriverError> {
        std::future::pending().await
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        Ok(ContainerId(request.key.slot.0.to_string()))
    }

    async fn wait_exit(&self, _: &HostName, _: ContainerKey) -> Result<String, DriverError> {
        std::future::pending().await
    }

    async fn stop(&self, _: StopRequest) -> Result<(), DriverError> {
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
