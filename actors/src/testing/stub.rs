//! An engine that does only what a test has it do, and a clock that stands still: for tests of one actor alone.

use super::sample;
use crate::ids::{ContainerId, ContainerKey, HostName};
use crate::ports::{
    Clock, Driver, DriverError, EngineEvent, ImageDigest, ListedContainer, Presence, PullProgress, Pulled,
    StartRequest, StopRequest,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What a test has its engine do. Whatever else the engine is asked for fails the test.
#[async_trait]
pub trait Stub: Send + Sync + 'static {
    /// See [`Driver::pull`].
    async fn pull(&self, host: &HostName, image: &str) -> Result<Pulled, DriverError> {
        unexpected(&format!("a pull of {image} to {host}"))
    }

    /// See [`Driver::list`].
    async fn list(&self, host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        unexpected(&format!("a listing of {host}"))
    }

    /// See [`Driver::watch`]; says nothing by itself.
    async fn watch(&self, host: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        let _ = (host, events);
        std::future::pending().await
    }
}

/// The engine that a [`Stub`] is.
pub struct StubDriver<S>(pub Arc<S>);

fn unexpected<T>(call: &str) -> T {
    panic!("this test's engine was asked for {call}")
}

#[async_trait]
impl<S: Stub> Driver for StubDriver<S> {
    async fn pull(
        &self,
        host: &HostName,
        image: &str,
        _: watch::Sender<PullProgress>,
    ) -> Result<Pulled, DriverError> {
        self.0.pull(host, image).await
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        unexpected(&format!("{request:?}"))
    }

    async fn wait_exit(&self, _: &HostName, key: ContainerKey) -> Result<String, DriverError> {
        unexpected(&format!("the exit of {key:?}"))
    }

    async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        unexpected(&format!("{request:?}"))
    }

    async fn inspect(&self, _: &HostName, key: ContainerKey) -> Result<Presence, DriverError> {
        unexpected(&format!("a look at {key:?}"))
    }

    async fn list(&self, host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        self.0.list(host).await
    }

    async fn resolve(&self, _: &HostName, image: &str) -> Result<Option<ImageDigest>, DriverError> {
        unexpected(&format!("what {image} means"))
    }

    async fn logs(&self, _: &HostName, key: ContainerKey, _: u32) -> Result<Vec<String>, DriverError> {
        unexpected(&format!("the logs of {key:?}"))
    }

    async fn sweep(
        &self,
        host: &HostName,
        _: &BTreeSet<ContainerKey>,
        _: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        unexpected(&format!("a sweep of {host}"))
    }

    async fn watch(&self, host: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        self.0.watch(host, events).await
    }
}

/// It is always the samples' noon.
pub struct Noon;

impl Clock for Noon {
    fn now(&self) -> DateTime<Utc> {
        sample::now()
    }
}
