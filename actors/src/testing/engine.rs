//! An engine in memory. It carries out what it was told even after the server that told it has crashed; it refuses,
//! is slow, never answers, and says that it failed where it did not. It keeps the promises of the port: a generation has
//! one container, and whoever acts late does nothing to what a later operation did.

use super::disaster::Disaster;
use super::program::Program;
use super::world::{Happening, Shared, World};
use crate::ids::{BotId, ContainerId, ContainerKey, Generation, HostName, Operation};
use crate::ports::{
    Artifacts, ArtifactsError, Driver, DriverError, EngineEvent, ImageDigest, ListedContainer,
    PrepareRequest, Presence, PullProgress, Pulled, ResourceLimits, StartRequest, StopRequest,
};
use crate::recording::Joined;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};

/// What runs, and what never will again.
#[derive(Debug, Default)]
pub struct Containers {
    /// Running containers.
    pub running: BTreeMap<ContainerKey, ContainerId>,
    /// Those that were made and not started.
    pub prepared: BTreeMap<ContainerKey, PreparedContainer>,
    /// Where each was told to be.
    hosts: BTreeMap<ContainerKey, HostName>,
    /// The last operation that made or started each.
    made_by: BTreeMap<ContainerKey, Operation>,
    /// The last operation that stopped each: what came before does nothing any more.
    stopped_by: BTreeMap<ContainerKey, Operation>,
    /// Rings when a container is gone, or a host.
    pub changed: Arc<Notify>,
    /// What is known of those that ran and are gone.
    pub exit_notes: BTreeMap<ContainerKey, String>,
    /// How often any tag came to mean another image.
    tags_moved: u64,
    /// Images that were pulled, by host.
    images: BTreeSet<(HostName, String)>,
}

/// A container that does not run yet.
#[derive(Debug, Clone)]
pub struct PreparedContainer {
    /// Its id.
    pub id: ContainerId,
    /// Of which image it was made.
    pub image: String,
    /// What it may use.
    pub limits: ResourceLimits,
}

impl Containers {
    /// What is on a host, running or prepared.
    pub fn on(&self, host: &HostName) -> Vec<ContainerKey> {
        let keys = self.running.keys().chain(self.prepared.keys());
        let keys: BTreeSet<ContainerKey> =
            keys.filter(|key| self.hosts.get(key) == Some(host)).copied().collect();
        keys.into_iter().collect()
    }

    /// One that has run on a host since before the test.
    pub fn hold(&mut self, host: HostName, key: ContainerKey) {
        self.hosts.insert(key, host);
        self.running.insert(key, ContainerId("held".to_owned()));
    }

    /// Whether something of an operation comes too late.
    fn is_stopped(&self, key: ContainerKey, operation: Operation) -> bool {
        self.stopped_by.get(&key).is_some_and(|stopped_by| *stopped_by > operation)
    }

    fn made(&mut self, key: ContainerKey, operation: Operation) {
        let made_by = self.made_by.entry(key).or_insert(operation);
        *made_by = operation.max(*made_by);
    }

    /// The id of a container, running or prepared.
    fn id(&self, key: ContainerKey) -> Option<ContainerId> {
        let prepared = self.prepared.get(&key).map(|prepared| &prepared.id);
        self.running.get(&key).or(prepared).cloned()
    }
}

/// Something that the engine was told and carries out in its own time.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Make a container.
    Prepare(PrepareRequest),
    /// Run one.
    Start(StartRequest),
    /// Stop and remove it.
    Stop(ContainerKey, Operation),
    /// Somebody removes one that was prepared.
    Lose(ContainerKey),
}

impl World {
    /// Carries out a deed.
    pub fn carry_out(&mut self, deed: Deed) {
        match deed {
            Deed::Prepare(request) => self.prepare(request),
            Deed::Start(request) => self.start(request),
            Deed::Stop(key, operation) => {
                let made_by = self.containers.made_by.get(&key);
                if made_by.is_some_and(|made_by| *made_by > operation) {
                    return self.count("stop came too late");
                }
                let stopped_by = self.containers.stopped_by.entry(key).or_insert(operation);
                *stopped_by = operation.max(*stopped_by);
                if self.containers.id(key).is_some() {
                    super::invariants::before_stop(self, key);
                    self.exit(key, "stopped");
                }
            }
            Deed::Lose(key) => {
                if self.containers.prepared.contains_key(&key) && !self.calm {
                    self.count("prepared container lost");
                    self.exit(key, "somebody removed it");
                }
            }
        }
    }

    /// Whether the container's host is dead.
    fn is_lost(&self, key: ContainerKey) -> bool {
        let host = self.containers.hosts.get(&key);
        host.is_some_and(|host| self.hosts_away.get(host) == Some(&true))
    }

    fn prepare(&mut self, PrepareRequest { key, image, limits, operation, .. }: PrepareRequest) {
        if self.is_lost(key) {
            return self.count("preparation lost with its host");
        }
        if self.containers.is_stopped(key, operation) {
            return self.count("preparation came too late");
        }
        self.containers.made(key, operation);
        if self.containers.id(key).is_some() {
            return self.count("prepared already");
        }
        self.note(format!("engine: {} g{} is prepared", name(key), key.generation));
        let id = ContainerId(format!("c-{}", key.generation));
        self.containers.prepared.insert(key, PreparedContainer { id, image, limits });
        let likely = self.faults.lose_prepared;
        if self.chance("prepared container is to be lost", likely) {
            let after = self.between(100, 900_000);
            self.plan(after, Happening::Engine(Deed::Lose(key)));
        }
    }

    fn start(&mut self, StartRequest { key, image, operation, bot_id, .. }: StartRequest) {
        if self.is_lost(key) {
            return self.count("start lost with its host");
        }
        if self.containers.is_stopped(key, operation) {
            return;
        }
        self.containers.made(key, operation);
        if self.containers.running.contains_key(&key) {
            return;
        }
        self.note(format!("engine: {} g{} runs", name(key), key.generation));
        if let Some(prepared) = self.containers.prepared.remove(&key) {
            self.count("prepared container started");
            if prepared.image != image {
                self.violated(format!("{} was prepared from {}, not {image}", name(key), prepared.image));
            }
        }
        self.containers.running.insert(key, ContainerId(format!("c-{}", key.generation)));
        self.tell(EngineEvent::Appeared(key), key);
        let program = Program::new(self, key, bot_id);
        self.programs.insert(key, program);
        let after = self.between(100, 5_000);
        self.plan(after, Happening::Program(key));
    }

    /// The engine tells whoever listens to the container's host.
    fn tell(&mut self, event: EngineEvent, key: ContainerKey) {
        self.listeners.retain(|(_, events)| !events.is_closed());
        let host = self.containers.hosts.get(&key);
        let (before, mut told) = (self.listeners.len(), 0);
        // Where an event is dropped the word has come to an end.
        self.listeners.retain(|(of, events)| {
            let is_theirs = Some(of) == host;
            let is_told = is_theirs && events.try_send(event).is_ok();
            told += usize::from(is_told);
            is_told || !is_theirs
        });
        if told > 0 {
            self.count("engine tells");
        }
        if self.listeners.len() < before {
            self.containers.changed.notify_waiters();
        }
    }

    /// A container is gone.
    pub fn exit(&mut self, key: ContainerKey, note: &str) {
        let (ran, prepared) = (self.containers.running.remove(&key), self.containers.prepared.remove(&key));
        if ran.is_some() || prepared.is_some() {
            self.note(format!("engine: {} g{} gone ({note})", name(key), key.generation));
            self.containers.exit_notes.insert(key, note.to_owned());
            self.containers.changed.notify_waiters();
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
        let fault = self.0.lock().draw_fault(what);
        if fault == Fault::Panics {
            let mut world = self.0.lock();
            let now = world.now;
            world.trouble(now);
            drop(world);
            // Without the hook: an injected panic is no news.
            std::panic::resume_unwind(Box::new("injected panic"));
        }
        if fault == Fault::Refuses {
            self.0.delay(1, 2_000).await;
            let retryable = self.0.lock().rng.u8(0..4) > 0;
            return Err(DriverError { message: format!("{what} refused"), answered: true, retryable });
        }
        let done_after = {
            let mut world = self.0.lock();
            let done_after = world.between(1, if fault == Fault::Hangs { 200_000 } else { 3_000 });
            let host_dies = world.faults.host_dies;
            let makes = matches!(what, "prepare" | "start");
            if makes && world.chance("host dies over a start", host_dies) {
                world.plan(TimeDelta::zero(), Happening::Disaster(Disaster::HostDies(host.clone())));
            }
            // A call that is never answered was heard, or was not.
            if fault != Fault::Hangs || world.rng.bool() {
                world.plan(done_after, Happening::Engine(deed));
            }
            done_after
        };
        match fault {
            Fault::Hangs => std::future::pending::<()>().await,
            Fault::Torn => {
                self.0.delay(1, 5_000).await;
                return Err(unanswered(format!("{what}: no answer")));
            }
            Fault::Lies => {
                self.0.delay(1, 5_000).await;
                let (message, retryable) = (format!("{what} failed"), self.0.lock().rng.bool());
                return Err(DriverError { message, answered: true, retryable });
            }
            Fault::Late => self.0.delay(20_000, 120_000).await,
            Fault::None | Fault::Panics | Fault::Refuses => {}
        }
        // Strictly after the deed.
        let wait = done_after + TimeDelta::milliseconds(1);
        tokio::time::sleep(wait.to_std().unwrap_or_default()).await;
        self.0.boundary(&format!("after {what}")).await;
        Ok(())
    }

    /// Gets no answer from a host that is away.
    async fn reach(&self, host: &HostName) -> Result<(), DriverError> {
        let away = {
            let mut world = self.0.lock();
            let away = world.hosts_away.contains_key(host);
            if away {
                world.count("call to a host that is away");
            }
            away
        };
        if away {
            self.0.delay(100, 10_000).await;
            return Err(unanswered(format!("host {host} does not answer")));
        }
        Ok(())
    }

    /// What containers may use follows from their image, here; and where they are is known from then on.
    fn is_meant(&self, host: &HostName, key: ContainerKey, image: &str, limits: &ResourceLimits) {
        let mut world = self.0.lock();
        world.containers.hosts.insert(key, host.clone());
        if limits.memory_mib != super::scenario::limits(image).memory_mib {
            world.violated(format!("{} was to be made with {limits:?}", name(key)));
        }
    }

    /// What a call that made or started a container is answered with.
    fn made(&self, key: ContainerKey, operation: Operation) -> Result<ContainerId, DriverError> {
        let world = self.0.lock();
        match world.containers.id(key) {
            Some(id) => Ok(id),
            None if world.containers.is_stopped(key, operation) => {
                Err(DriverError { message: "was stopped".to_owned(), answered: true, retryable: false })
            }
            // It was there, and is gone already.
            None => Ok(ContainerId("gone".to_owned())),
        }
    }

    async fn look(&self, host: &HostName) -> Result<(), DriverError> {
        self.reach(host).await?;
        self.0.delay(1, 500).await;
        let mut world = self.0.lock();
        let blind = world.faults.blind;
        if world.chance("look fails", blind) {
            return Err(unanswered("no answer".to_owned()));
        }
        Ok(())
    }
}

fn unanswered(message: String) -> DriverError {
    DriverError { message, answered: false, retryable: true }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Panics,
    Hangs,
    Refuses,
    Torn,
    Lies,
    Late,
}

impl World {
    fn draw_fault(&mut self, what: &str) -> Fault {
        let faults = self.faults;
        let kinds = [
            (Fault::Panics, "panics", faults.panic),
            (Fault::Hangs, "hangs", faults.hang),
            (Fault::Refuses, "refused", faults.refuse),
            (Fault::Torn, "torn", faults.torn),
            (Fault::Lies, "denied though done", faults.lie),
            (Fault::Late, "answered late", faults.late),
        ];
        // Somebody may look at what is wrong.
        let looks = self.chance("operator looks", faults.refuse / 2);
        let drawn = kinds.into_iter().find(|(_, how, likely)| self.chance(&format!("{what} {how}"), *likely));
        if looks {
            let after = self.between(0, 4_000);
            self.plan(after, Happening::Operator);
        }
        drawn.map_or(Fault::None, |(fault, _, _)| fault)
    }
}

#[async_trait]
impl Driver for FakeEngine {
    async fn pull(
        &self,
        host: &HostName,
        image: &str,
        progress: watch::Sender<PullProgress>,
    ) -> Result<Pulled, DriverError> {
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
        let mut world = self.0.lock();
        let pulled = (host.clone(), image.to_owned());
        if fails {
            let message = "registry away".to_owned();
            // Somebody may have removed it.
            if world.containers.images.contains(&pulled) && world.rng.bool() {
                world.count("image kept");
                return Ok(Pulled::Kept { reason: message });
            }
            let retryable = world.rng.u8(0..4) > 0;
            return Err(DriverError { message, answered: true, retryable });
        }
        world.containers.images.insert(pulled);
        Ok(Pulled::Current)
    }

    fn prepares(&self, _: &HostName) -> bool {
        self.0.lock().engine_prepares
    }

    async fn prepare(&self, request: PrepareRequest) -> Result<ContainerId, DriverError> {
        let (host, key, operation) = (request.host.clone(), request.key, request.operation);
        self.is_meant(&host, key, &request.image, &request.limits);
        self.call("prepare", &host, Deed::Prepare(request)).await?;
        self.made(key, operation)
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        let (host, key, operation) = (request.host.clone(), request.key, request.operation);
        self.is_meant(&host, key, &request.image, &request.limits);
        self.call("start", &host, Deed::Start(request)).await?;
        self.made(key, operation)
    }

    async fn wait_exit(&self, host: &HostName, key: ContainerKey) -> Result<String, DriverError> {
        self.look(host).await?;
        let changes = Arc::clone(&self.0.lock().containers.changed);
        loop {
            let changed = changes.notified();
            {
                let world = self.0.lock();
                if world.hosts_away.contains_key(host) {
                    return Err(unanswered(format!("host {host} does not answer any more")));
                }
                if !world.containers.running.contains_key(&key) {
                    let note = world.containers.exit_notes.get(&key).cloned();
                    return Ok(note.unwrap_or_else(|| "not there".to_owned()));
                }
            }
            changed.await;
            self.0.delay(1, 700).await;
        }
    }

    async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        self.call("stop", &request.host, Deed::Stop(request.key, request.operation)).await
    }

    async fn inspect(&self, host: &HostName, key: ContainerKey) -> Result<Presence, DriverError> {
        self.look(host).await?;
        let world = self.0.lock();
        if world.containers.running.contains_key(&key) {
            return Ok(Presence::Running);
        }
        let is_prepared = world.containers.prepared.contains_key(&key);
        Ok(if is_prepared { Presence::Prepared } else { Presence::Gone })
    }

    async fn list(&self, host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        self.look(host).await?;
        let mut world = self.0.lock();
        let partial = world.faults.partial;
        let mut keys = world.containers.on(host);
        if !keys.is_empty() && world.chance("listing is partial", partial) {
            keys.retain(|_| world.rng.bool());
        }
        let containers = &world.containers;
        let listed = keys.into_iter().filter_map(|key| {
            let is_prepared = containers.prepared.contains_key(&key);
            let presence = if is_prepared { Presence::Prepared } else { Presence::Running };
            containers.id(key).map(|container| ListedContainer { key, container, presence })
        });
        Ok(listed.collect())
    }

    /// Now and then a tag has moved.
    async fn resolve(&self, host: &HostName, image: &str) -> Result<Option<ImageDigest>, DriverError> {
        self.look(host).await?;
        let mut world = self.0.lock();
        if world.rng.u8(0..8) == 0 {
            world.count("tag moved");
            world.containers.tags_moved += 1;
        }
        Ok(Some(ImageDigest(format!("{image}@{}", world.containers.tags_moved))))
    }

    async fn logs(&self, host: &HostName, key: ContainerKey, _: u32) -> Result<Vec<String>, DriverError> {
        self.look(host).await?;
        Ok(self.0.lock().containers.exit_notes.get(&key).cloned().into_iter().collect())
    }

    async fn sweep(
        &self,
        host: &HostName,
        wanted: &BTreeSet<ContainerKey>,
        _: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        self.look(host).await?;
        let mut world = self.0.lock();
        let before = world.containers.exit_notes.len();
        let Containers { running, exit_notes, .. } = &mut world.containers;
        exit_notes.retain(|key, _| running.contains_key(key) || wanted.contains(key));
        Ok(u32::try_from(before - exit_notes.len()).unwrap_or(u32::MAX))
    }

    async fn watch(&self, host: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        self.reach(host).await?;
        let (changes, cut_after) = {
            let mut world = self.0.lock();
            world.listeners.push((host.clone(), events.clone()));
            let is_cut = world.faults.blind > 0 && !world.calm;
            let cut_after = is_cut.then(|| world.between(10_000, 900_000));
            (Arc::clone(&world.containers.changed), cut_after)
        };
        let is_told = |(_, listener): &(HostName, mpsc::Sender<EngineEvent>)| listener.same_channel(&events);
        let lost = async {
            loop {
                let changed = changes.notified();
                if !self.0.lock().listeners.iter().any(is_told) {
                    return;
                }
                changed.await;
            }
        };
        match cut_after {
            Some(after) => drop(tokio::time::timeout(after.to_std().unwrap_or_default(), lost).await),
            None => lost.await,
        }
        let mut world = self.0.lock();
        world.count("engine's word interrupted");
        world.listeners.retain(|listener| !is_told(listener));
        Err(unanswered("the connection was cut".to_owned()))
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

    async fn remove(&self, _: BotId) -> Result<u32, ArtifactsError> {
        self.0.delay(1, 100).await;
        Ok(4)
    }
}
