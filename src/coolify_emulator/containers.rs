//! What runs the emulator's applications. Simulated containers live here; processes of the host are in `processes`.

use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Container logs that simulated containers keep, in lines.
const SIMULATED_LOG: &str = "simulated container started";

/// What a container is made from: what Coolify writes into its compose file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Its name, a new one for every deployment.
    pub name: String,
    /// The application that it belongs to.
    pub application: String,
    /// Image name with its tag.
    pub image: String,
    /// Its environment, in the order of the keys.
    pub environment: Vec<(String, String)>,
    /// `limits_memory` as Coolify has it, such as `2048m`; "0": none.
    pub memory: String,
    /// `limits_cpus`, such as `1.5`; "0": none.
    pub cpus: String,
    /// `custom_docker_run_options`.
    pub run_options: String,
}

/// Whether a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// It runs.
    Running,
    /// Its program ended. An engine that restarts it by itself never says so.
    Exited,
    /// There is no such container.
    Absent,
}

/// Runs containers for the emulator. Errors are the engine's own words.
#[async_trait]
pub trait Containers: Send + Sync + 'static {
    /// Makes the image present; cheap where it is.
    async fn pull(&self, image: &str) -> Result<(), String>;
    /// Makes and starts a container; one that exited is started again.
    async fn start(&self, spec: &ContainerSpec) -> Result<(), String>;
    /// Stops a container, after the grace by force, and removes it; one that is not there is no error.
    async fn stop(&self, name: &str, grace: Duration) -> Result<(), String>;
    /// Looks at a container.
    async fn state(&self, name: &str) -> ContainerState;
    /// The last lines that it printed.
    async fn logs(&self, name: &str, lines: usize) -> String;
}

/// Containers that exist in memory only: they run until somebody says otherwise.
#[derive(Default)]
pub struct SimulatedContainers {
    inner: Mutex<Simulated>,
}

#[derive(Default)]
struct Simulated {
    containers: BTreeMap<String, (ContainerSpec, ContainerState)>,
    /// Every start, in order.
    started: Vec<ContainerSpec>,
    /// Every pull, in order.
    pulled: Vec<String>,
    /// Images that the registry does not have.
    missing: BTreeSet<String>,
}

impl SimulatedContainers {
    /// Those that run, by name.
    pub fn running(&self) -> Vec<ContainerSpec> {
        let inner = self.lock();
        let runs = inner.containers.values().filter(|(_, state)| *state == ContainerState::Running);
        runs.map(|(spec, _)| spec.clone()).collect()
    }

    /// Every container that was ever started, in order; restarts count.
    pub fn started(&self) -> Vec<ContainerSpec> {
        self.lock().started.clone()
    }

    /// Every pull that was asked for, in order.
    pub fn pulled(&self) -> Vec<String> {
        self.lock().pulled.clone()
    }

    /// Lets the program in a container end.
    pub fn exit(&self, name: &str) {
        if let Some((_, state)) = self.lock().containers.get_mut(name) {
            *state = ContainerState::Exited;
        }
    }

    /// Takes an image from the registry.
    pub fn lose_image(&self, image: &str) {
        self.lock().missing.insert(image.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, Simulated> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Containers for SimulatedContainers {
    async fn pull(&self, image: &str) -> Result<(), String> {
        let mut inner = self.lock();
        inner.pulled.push(image.to_owned());
        if inner.missing.contains(image) {
            return Err(format!(
                "Error response from daemon: manifest for {image} not found: manifest unknown"
            ));
        }
        Ok(())
    }

    async fn start(&self, spec: &ContainerSpec) -> Result<(), String> {
        let mut inner = self.lock();
        inner.started.push(spec.clone());
        inner.containers.insert(spec.name.clone(), (spec.clone(), ContainerState::Running));
        Ok(())
    }

    async fn stop(&self, name: &str, _grace: Duration) -> Result<(), String> {
        self.lock().containers.remove(name);
        Ok(())
    }

    async fn state(&self, name: &str) -> ContainerState {
        self.lock().containers.get(name).map_or(ContainerState::Absent, |(_, state)| *state)
    }

    async fn logs(&self, name: &str, lines: usize) -> String {
        let known = self.lock().containers.contains_key(name);
        if known && lines > 0 { SIMULATED_LOG.to_owned() } else { String::new() }
    }
}
