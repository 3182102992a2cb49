//! An engine in memory. It carries out what it was told even after the server that told it has crashed; it refuses,
//! is slow, never answers, and says that it failed where it did not. It keeps the one promise of the port: after a
//! stop was acknowledged, no start of that generation runs anything.

use super::program::Program;
use super::world::{Happening, Shared, World};
use crate::ids::{BotId, ContainerId, ContainerKey, Generation, HostName};
use crate::ports::{
    Artifacts, ArtifactsError, Driver, DriverError, EngineEvent, ListedContainer, Presence, PullProgress,
    StartRequest, StopRequest,
};
use crate::recording::Joined;
use async_trait::async_trait;
use chrono::TimeDelta;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What runs, and what never will again.
#[derive(Debug, Default)]
pub struct Containers {
    /// Running containers.
    pub running: BTreeMap<ContainerKey, ContainerId>,
    /// Where each was told to run.
    hosts: BTreeMap<ContainerKey, HostName>,
    fenced: BTreeSet<ContainerKey>,
    exit_notes: BTreeMap<ContainerKey, String>,
}

/// Something that the engine was told and carries out in its own time.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Run a container.
    Start(ContainerKey, BotId),
    /// Stop and remove it.
    Stop(ContainerKey),
}

impl World {
    /// A host's engine answers nobody for some minutes.
    pub fn engine_goes_away(&mut self, host: HostName) {
        let until = self.now + self.between(30_000, 600_000);
        self.count("engine goes away");
        self.note(format!("engine: {host} answers nobody until {until}"));
        self.engines_away.insert(host, until);
    }

    /// Carries out a deed.
    pub fn carry_out(&mut self, deed: Deed) {
        match deed {
            Deed::Start(key, bot_id) => {
                if self.containers.fenced.contains(&key) || self.containers.running.contains_key(&key) {
                    return;
                }
                self.note(format!("engine: {} g{} runs", name(key), key.generation));
                self.containers.running.insert(key, ContainerId(format!("c-{}", key.generation)));
                self.tell(EngineEvent::Appeared(key), key);
                let program = Program::new(self, key, bot_id);
                self.programs.insert(key, program);
                let after = self.between(100, 5_000);
                self.plan(after, Happening::Program(key));
            }
            Deed::Stop(key) => {
                self.containers.fenced.insert(key);
                if self.containers.running.contains_key(&key) {
                    super::invariants::before_stop(self, key);
                    self.exit(key, "stopped");
                }
            }
        }
    }

    /// The engine tells whoever listens to the container's host.
    fn tell(&mut self, event: EngineEvent, key: ContainerKey) {
        self.listeners.retain(|(_, events)| !events.is_closed());
        let host = self.containers.hosts.get(&key);
        let told = self.listeners.iter().filter(|(of, _)| Some(of) == host);
        let count = told.filter(|(_, events)| events.try_send(event).is_ok()).count();
        if count > 0 {
            self.count("engine tells");
        }
    }

    /// A container is gone.
    pub fn exit(&mut self, key: ContainerKey, note: &str) {
        if self.containers.running.remove(&key).is_some() {
            self.note(format!("engine: {} g{} gone ({note})", name(key), key.generation));
            self.containers.exit_notes.insert(key, note.to_owned());
            self.programs.remove(&key);
            self.tell(EngineEvent::Vanished(key), key);
        }
    }
}

/// The slot's short name in traces.
pub fn name(key: ContainerKey) -> String {
    format!("slot-{:x}", key.slot.0.as_u128())
}

/// The engine of one incarnation.
pub struct FakeEngine(pub Shared);

impl FakeEngine {
    /// Draws what becomes of a call: the deed, done in time or later, and the answer to give.
    async fn call(&self, what: &str, host: &HostName, deed: Deed) -> Result<(), DriverError> {
        self.0.boundary(&format!("before {what}")).await;
        self.reach(host).await?;
        let (panics, hangs, refuses, torn) = {
            let mut world = self.0.lock();
            let faults = world.faults;
            (
                world.chance(&format!("{what} panics"), faults.panic),
                world.chance(&format!("{what} hangs"), faults.hang),
                world.chance(&format!("{what} refused"), faults.refuse),
                world.chance(&format!("{what} torn"), faults.torn),
            )
        };
        if panics {
            // Without the hook: an injected panic is no news.
            std::panic::resume_unwind(Box::new("injected panic"));
        }
        if refuses {
            self.0.delay(1, 2_000).await;
            let retryable = self.0.lock().rng.u8(0..4) > 0;
            return Err(DriverError { message: format!("{what} refused"), answered: true, retryable });
        }
        let done_after = {
            let mut world = self.0.lock();
            let done_after = world.between(1, if hangs { 200_000 } else { 3_000 });
            // A call that is never answered was heard, or was not.
            if !hangs || world.rng.bool() {
                world.plan(done_after, Happening::Engine(deed));
            }
            done_after
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        if torn {
            self.0.delay(1, 5_000).await;
            return Err(DriverError {
                message: format!("{what}: no answer"),
                answered: false,
                retryable: true,
            });
        }
        // Strictly after the deed.
        let wait = done_after + TimeDelta::milliseconds(1);
        tokio::time::sleep(wait.to_std().unwrap_or_default()).await;
        self.0.boundary(&format!("after {what}")).await;
        Ok(())
    }

    /// Fails while the host's engine is away.
    async fn reach(&self, host: &HostName) -> Result<(), DriverError> {
        let is_away = {
            let mut world = self.0.lock();
            let now = world.now;
            let is_away = world.engines_away.get(host).is_some_and(|until| now < *until);
            if is_away {
                world.count("call to an engine that is away");
            }
            is_away
        };
        if !is_away {
            return Ok(());
        }
        self.0.delay(1, 3_000).await;
        Err(DriverError { message: format!("no way to {host}"), answered: false, retryable: true })
    }

    async fn look(&self, host: &HostName) -> Result<(), DriverError> {
        self.reach(host).await?;
        self.0.delay(1, 500).await;
        let mut world = self.0.lock();
        let blind = world.faults.blind;
        if world.chance("look fails", blind) {
            return Err(DriverError { message: "no answer".to_owned(), answered: false, retryable: true });
        }
        Ok(())
    }
}

#[async_trait]
impl Driver for FakeEngine {
    async fn pull(
        &self,
        host: &HostName,
        image: &str,
        progress: watch::Sender<PullProgress>,
    ) -> Result<(), DriverError> {
        self.reach(host).await?;
        let (fails, hangs, steps) = {
            let mut world = self.0.lock();
            let faults = world.faults;
            world.count("pull");
            world.note(format!("engine: pulls {image} to {host}"));
            (
                world.chance("pull fails", faults.refuse),
                world.chance("pull hangs", faults.hang),
                world.rng.u64(1..4),
            )
        };
        for done in 1..=steps {
            self.0.delay(1, 1_000).await;
            progress.send_replace(PullProgress { done, total: steps });
        }
        if hangs {
            std::future::pending::<()>().await;
        }
        if fails {
            let retryable = self.0.lock().rng.u8(0..4) > 0;
            return Err(DriverError { message: "registry away".to_owned(), answered: true, retryable });
        }
        Ok(())
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        {
            let mut world = self.0.lock();
            world.containers.hosts.insert(request.key, request.host.clone());
            if request.limits != super::simulation::limits(&request.image) {
                world.violated(format!("{} was to start with {:?}", request.slot_name, request.limits));
            }
        }
        self.call("start", &request.host, Deed::Start(request.key, request.bot_id)).await?;
        let world = self.0.lock();
        match world.containers.running.get(&request.key) {
            Some(id) => Ok(id.clone()),
            None if world.containers.fenced.contains(&request.key) => {
                Err(DriverError { message: "was stopped".to_owned(), answered: true, retryable: false })
            }
            // It ran, and is gone already.
            None => Ok(ContainerId("gone".to_owned())),
        }
    }

    async fn wait_exit(&self, host: &HostName, key: ContainerKey) -> Result<String, DriverError> {
        self.look(host).await?;
        loop {
            {
                let world = self.0.lock();
                if !world.containers.running.contains_key(&key) {
                    let note = world.containers.exit_notes.get(&key).cloned();
                    return Ok(note.unwrap_or_else(|| "not there".to_owned()));
                }
            }
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    }

    async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        self.call("stop", &request.host, Deed::Stop(request.key)).await
    }

    async fn inspect(&self, host: &HostName, key: ContainerKey) -> Result<Presence, DriverError> {
        self.look(host).await?;
        let running = self.0.lock().containers.running.contains_key(&key);
        Ok(if running { Presence::Running } else { Presence::Gone })
    }

    async fn list(&self, host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        self.look(host).await?;
        let world = self.0.lock();
        let containers = &world.containers;
        let listed = containers.running.iter().filter(|(key, _)| containers.hosts.get(key) == Some(host));
        Ok(listed.map(|(key, id)| ListedContainer { key: *key, container: id.clone() }).collect())
    }

    async fn watch(&self, host: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        self.reach(host).await?;
        let cut_after = {
            let mut world = self.0.lock();
            world.listeners.push((host.clone(), events));
            let is_cut = world.faults.blind > 0 && !world.calm;
            is_cut.then(|| world.between(10_000, 900_000))
        };
        let Some(cut_after) = cut_after else { return std::future::pending().await };
        tokio::time::sleep(cut_after.to_std().unwrap_or_default()).await;
        let mut world = self.0.lock();
        world.count("engine's word interrupted");
        world.listeners.retain(|(of, _)| of != host);
        Err(DriverError { message: "the connection was cut".to_owned(), answered: false, retryable: true })
    }
}

/// Recordings in memory: every generation has three segments.
pub struct FakeArtifacts(pub Shared);

#[async_trait]
impl Artifacts for FakeArtifacts {
    async fn count_segments(&self, _: BotId, _: Generation) -> Result<u32, ArtifactsError> {
        self.0.delay(1, 100).await;
        let mut world = self.0.lock();
        let blind = world.faults.blind;
        if world.chance("segments not listed", blind) {
            return Err(ArtifactsError { message: "no answer".to_owned(), retryable: true });
        }
        Ok(3)
    }

    async fn join(&self, bot: BotId, _: Generation, key: &str) -> Result<Option<Joined>, ArtifactsError> {
        self.0.boundary("before join").await;
        self.0.delay(100, 2_000).await;
        let mut world = self.0.lock();
        let refuse = world.faults.refuse;
        if world.chance("join fails", refuse) {
            return Err(ArtifactsError { message: "disk full".to_owned(), retryable: true });
        }
        world.note(format!("joined bot {bot} to {key}"));
        Ok(Some(Joined { key: key.to_owned(), duration_ms: 1, bytes: 1 }))
    }
}
