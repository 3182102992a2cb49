//! The reconciler's shell: lists each host on start, on a timer, and when its engine's own word was interrupted; tells slots
//! what was seen, removes strays that were seen twice in a row. A listing that failed, or is late, says nothing.

use super::plan::compare;
use crate::backoff::{Backoff, spread};
use crate::ids::{HostName, Operation};
use crate::ports::{Clock, Driver, DriverError, EngineEvent, ListedContainer, Presence, StopRequest};
use crate::slot::event::SlotEvent;
use crate::slot::handle::Directory;
use crate::supervision::DeathGuard;
use actix::prelude::*;
use chrono::{DateTime, Utc};
use futures_util::stream;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Time between two listings.
const INTERVAL: Duration = Duration::from_secs(60);
/// Events that may wait to be heard; past that the engine's word counts as interrupted.
const EVENTS_MAX: usize = 256;
/// Waits before an engine is listened to again; they grow while it says nothing in between.
const REWATCH: Backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_secs(60) };
/// How long a stray may take to end by itself.
const STRAY_GRACE: Duration = Duration::from_secs(10);

/// Lists now what runs on each host, rather than when the timer rings; answers with how many hosts are asked. One that
/// is being listed already is not asked twice.
#[derive(Message)]
#[rtype(result = "usize")]
pub struct ReconcileNow;

/// Slots may be on these hosts: those that are new are listed at once, and from then on. A host that is not named any
/// more may still have slots, so it is asked all the same, and says nothing until it is named again.
#[derive(Message)]
#[rtype(result = "()")]
pub struct HostsChanged {
    /// All of them.
    pub hosts: Vec<HostName>,
}

/// The reconciliation as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReconcileSnapshot {
    /// By host.
    pub hosts: BTreeMap<HostName, ReconcileLine>,
}

/// What was seen on a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReconcileLine {
    /// It is being listed.
    pub listing: bool,
    /// When the last listing that succeeded began.
    pub listed_at: Option<DateTime<Utc>>,
    /// Containers of this installation that it had.
    pub containers: usize,
    /// Those of them that no slot wants; what is still there at the next listing is removed.
    pub suspects: usize,
    /// Strays removed so far.
    pub removed: u64,
    /// Why the last listing failed, where it did.
    pub failure: Option<String>,
    /// Events that the engine told of so far.
    pub events: u64,
    /// How often its word was interrupted, so that the host was listed.
    pub gaps: u64,
}

/// Asks for a [`ReconcileSnapshot`].
#[derive(Message)]
#[rtype(result = "ReconcileSnapshot")]
pub struct Observe;

#[derive(Default)]
struct Host {
    /// What no slot wanted at the listing before.
    suspects: BTreeSet<ListedContainer>,
    /// Gaps in a row without an event in between.
    silent_gaps: u32,
    /// The engine was interrupted while a listing was under way, which may have missed something.
    again: bool,
    line: ReconcileLine,
}

/// See the module.
pub struct Reconciler {
    driver: Arc<dyn Driver>,
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    log: slog::Logger,
    hosts: BTreeMap<HostName, Host>,
    _guard: DeathGuard,
}

impl Reconciler {
    /// Compares `directory` with what `driver` lists on `hosts`.
    pub fn new(
        hosts: impl IntoIterator<Item = HostName>,
        driver: Arc<dyn Driver>,
        directory: Arc<Directory>,
        clock: Arc<dyn Clock>,
        log: slog::Logger,
        guard: DeathGuard,
    ) -> Self {
        let hosts = hosts.into_iter().map(|host| (host, Host::default())).collect();
        Self { driver, directory, clock, log, hosts, _guard: guard }
    }

    /// Lists each host that is not being listed; how many those are.
    fn list_all(&mut self, ctx: &mut Context<Self>) -> usize {
        let quiet = self.hosts.iter().filter(|(_, state)| !state.line.listing);
        let hosts: Vec<HostName> = quiet.map(|(host, _)| host.clone()).collect();
        let count = hosts.len();
        hosts.into_iter().for_each(|host| self.list(host, ctx));
        count
    }

    fn add(&mut self, hosts: impl IntoIterator<Item = HostName>, ctx: &mut Context<Self>) {
        for host in hosts {
            if !self.hosts.contains_key(&host) {
                self.hosts.insert(host.clone(), Host::default());
                self.list(host.clone(), ctx);
                self.watch(host, ctx);
            }
        }
    }

    fn list(&mut self, host: HostName, ctx: &mut Context<Self>) {
        if let Some(state) = self.hosts.get_mut(&host) {
            (state.line.listing, state.again) = (true, false);
        }
        let (driver, on) = (Arc::clone(&self.driver), host.clone());
        let began_at = self.clock.now();
        let listing = async move { driver.list(&on).await };
        ctx.spawn(listing.into_actor(self).map(move |listed, act, ctx| {
            let Some(state) = act.hosts.get_mut(&host) else { return };
            state.line.listing = false;
            state.line.failure = listed.as_ref().err().map(ToString::to_string);
            let again = state.again;
            match listed {
                Ok(listed) => {
                    (state.line.listed_at, state.line.containers) = (Some(began_at), listed.len());
                    act.compare(&host, &listed, began_at);
                }
                Err(error) => {
                    slog::warn!(act.log, "listing failed; nothing is concluded"; "host" => %host, "error" => %error)
                }
            }
            if again {
                act.list(host, ctx);
            }
        }));
    }

    // --- the engine's own word ---------------------------------------------------------------------------------

    /// Listens to what the engine says by itself.
    fn watch(&mut self, host: HostName, ctx: &mut Context<Self>) {
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        let (driver, on) = (Arc::clone(&self.driver), host.clone());
        let of = host.clone();
        let told = stream::poll_fn(move |cx| events.poll_recv(cx));
        ctx.spawn(told.into_actor(self).map(move |event, act, _| act.heard(&of, event)).finish());
        let watched = async move { driver.watch(&on, sender).await };
        ctx.spawn(watched.into_actor(self).map(move |ended, act, ctx| act.gap(host, ended.err(), ctx)));
    }

    fn heard(&mut self, host: &HostName, event: EngineEvent) {
        let Some(state) = self.hosts.get_mut(host) else { return };
        state.silent_gaps = 0;
        state.line.events += 1;
        let (key, presence) = match event {
            EngineEvent::Appeared(key) => (key, Presence::Running),
            EngineEvent::Vanished(key) => (key, Presence::Gone),
        };
        // What no slot wants is for the listings.
        if let Some(handle) = self.directory.slot(key.slot) {
            let (generation, began_at) = (key.generation, self.clock.now());
            drop(handle.send(SlotEvent::Observed { generation, presence, began_at }));
        }
    }

    /// Whatever happened meanwhile was not told: only a listing says.
    fn gap(&mut self, host: HostName, why: Option<DriverError>, ctx: &mut Context<Self>) {
        let Some(state) = self.hosts.get_mut(&host) else { return };
        state.line.gaps += 1;
        state.silent_gaps += 1;
        slog::info!(self.log, "an engine's word was interrupted; its host is listed"; "host" => %host,
            "reason" => why.map_or_else(|| "it ended".to_owned(), |why| why.to_string()));
        let wait = REWATCH.wait(state.silent_gaps, spread(host.0.bytes(), state.silent_gaps));
        // First the ear, then the look: nothing falls between the two.
        ctx.run_later(wait.to_std().unwrap_or_default(), move |act, ctx| {
            act.watch(host.clone(), ctx);
            match act.hosts.get_mut(&host) {
                Some(state) if state.line.listing => state.again = true,
                _ => act.list(host, ctx),
            }
        });
    }

    fn compare(&mut self, host: &HostName, listed: &[ListedContainer], began_at: DateTime<Utc>) {
        let Some(state) = self.hosts.get_mut(host) else { return };
        let handles = self.directory.all();
        let slots: Vec<_> = handles.iter().map(|handle| handle.snapshot()).collect();
        let findings = compare(host, slots.iter().map(AsRef::as_ref), listed, &state.suspects);
        for (name, key, presence) in findings.observed {
            if let Some(handle) = handles.iter().find(|handle| *handle.name() == name) {
                drop(handle.send(SlotEvent::Observed { generation: key.generation, presence, began_at }));
            }
        }
        state.line.suspects = findings.suspects.len();
        state.line.removed += findings.strays.len() as u64;
        state.suspects = findings.suspects;
        for stray in findings.strays {
            self.remove(host, stray);
        }
    }

    fn remove(&self, host: &HostName, stray: ListedContainer) {
        slog::warn!(self.log, "removing a stray container";
            "host" => %host, "container" => %stray.container, "slot_id" => %stray.key.slot, "generation" => stray.key.generation.0);
        let driver = Arc::clone(&self.driver);
        let log = self.log.clone();
        let request = StopRequest {
            host: host.clone(),
            key: stray.key,
            container: Some(stray.container),
            operation: Operation::LAST,
            grace: STRAY_GRACE,
        };
        let remove = async move {
            if let Err(error) = driver.stop(request).await {
                slog::warn!(log, "a stray could not be removed; the next listing tries again"; "error" => %error);
            }
        };
        // On its own: what breaks off over a stray must not take the Reconciler with it.
        drop(actix::spawn(remove));
    }
}

impl Actor for Reconciler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let hosts = std::mem::take(&mut self.hosts);
        self.add(hosts.into_keys(), ctx);
        ctx.run_interval(INTERVAL, |act, ctx| {
            act.list_all(ctx);
        });
    }
}

impl Handler<HostsChanged> for Reconciler {
    type Result = ();

    fn handle(&mut self, message: HostsChanged, ctx: &mut Self::Context) {
        self.add(message.hosts, ctx);
    }
}

impl Handler<Observe> for Reconciler {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let hosts = self.hosts.iter().map(|(host, state)| (host.clone(), state.line.clone()));
        MessageResult(ReconcileSnapshot { hosts: hosts.collect() })
    }
}

impl Handler<ReconcileNow> for Reconciler {
    type Result = usize;

    fn handle(&mut self, _: ReconcileNow, ctx: &mut Self::Context) -> Self::Result {
        self.list_all(ctx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stub::{Noon, Stub, StubDriver};
    use async_trait::async_trait;
    use tokio::sync::Semaphore;

    /// Lists only, one listing for each permit.
    struct Slow {
        permits: Semaphore,
        begun: Semaphore,
    }

    #[async_trait]
    impl Stub for Slow {
        async fn list(&self, _: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
            self.begun.add_permits(1);
            self.permits.acquire().await.expect("open").forget();
            Ok(vec![])
        }
    }

    #[test]
    fn a_listing_that_is_asked_for_begins_at_once_on_every_host_that_is_not_being_listed() {
        let driver = Arc::new(Slow { permits: Semaphore::new(0), begun: Semaphore::new(0) });
        System::new().block_on(async move {
            let reconciler = Reconciler::new(
                ["one", "two"].map(|name| HostName(name.to_owned())),
                Arc::new(StubDriver(Arc::clone(&driver))),
                Arc::new(Directory::default()),
                Arc::new(Noon),
                slog::Logger::root(slog::Discard, slog::o!()),
                DeathGuard::new(|| {}),
            )
            .start();
            driver.begun.acquire_many(2).await.expect("the first listings").forget();
            assert_eq!(reconciler.send(ReconcileNow).await.expect("answers"), 0, "both are being listed");
            driver.permits.add_permits(1);
            while reconciler.send(ReconcileNow).await.expect("answers") == 0 {
                tokio::task::yield_now().await;
            }
            driver.begun.acquire().await.expect("one more listing").forget();
            assert_eq!(driver.begun.available_permits(), 0, "the other host is not listed twice at a time");
        });
    }
}
