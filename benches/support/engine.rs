//! An engine that does everything at once, and whose containers end when they are told to.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use meeboter_actors::ids::{ContainerId, ContainerKey, HostName};
use meeboter_actors::ports::{
    Driver, DriverError, ImageDigest, ListedContainer, Presence, PullProgress, Pulled, StartRequest,
    StopRequest,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Between two looks for a container that could end.
const LOOK: Duration = Duration::from_micros(200);

#[derive(Default)]
pub struct Engine(Mutex<Containers>);

#[derive(Default)]
struct Containers {
    running: BTreeMap<ContainerKey, ContainerId>,
    /// Those that are watched, longest first.
    watched: VecDeque<oneshot::Sender<()>>,
}

impl Engine {
    /// Containers whose end would be noticed.
    pub fn running(&self) -> usize {
        self.lock().watched.len()
    }

    /// The container that has run longest ends; waits for one where none runs.
    pub async fn end_one(&self) {
        loop {
            let watched = self.lock().watched.pop_front();
            match watched.map(|watched| watched.send(())) {
                Some(Ok(())) => return,
                // Nobody watches it any more: it has ended already.
                Some(Err(())) => {}
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Containers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Driver for Engine {
    async fn pull(
        &self,
        _: &HostName,
        _: &str,
        _: watch::Sender<PullProgress>,
    ) -> Result<Pulled, DriverError> {
        Ok(Pulled::Current)
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        let id = ContainerId(format!("{}/{}", request.slot_name, request.key.generation));
        self.lock().running.insert(request.key, id.clone());
        Ok(id)
    }

    async fn wait_exit(&self, _: &HostName, key: ContainerKey) -> Result<String, DriverError> {
        let (ends, ended) = oneshot::channel();
        self.lock().watched.push_back(ends);
        // Dropped where the engine itself is gone: then it has ended as well.
        let _ = ended.await;
        self.lock().running.remove(&key);
        Ok("it was over".to_owned())
    }

    async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        self.lock().running.remove(&request.key);
        Ok(())
    }

    async fn inspect(&self, _: &HostName, key: ContainerKey) -> Result<Presence, DriverError> {
        let runs = self.lock().running.contains_key(&key);
        Ok(if runs { Presence::Running } else { Presence::Gone })
    }

    async fn list(&self, _: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        let containers = self.lock();
        let listed = containers.running.iter();
        Ok(listed
            .map(|(key, id)| ListedContainer {
                key: *key,
                container: id.clone(),
                presence: Presence::Running,
            })
            .collect())
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
