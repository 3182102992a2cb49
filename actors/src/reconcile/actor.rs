//! The reconciler's shell: lists each host on start and on a timer, tells slots what was seen, removes strays that were seen
//! twice in a row. A listing that failed, or is late, says nothing.

use super::plan::compare;
use crate::ids::{HostName, Operation};
use crate::ports::{Clock, Driver, ListedContainer, StopRequest};
use crate::slot::event::SlotEvent;
use crate::slot::handle::Directory;
use crate::supervision::DeathGuard;
use actix::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Time between two listings.
const INTERVAL: Duration = Duration::from_secs(60);
/// A listing that takes longer says nothing.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
/// How long a stray may take to end by itself.
const STRAY_GRACE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Host {
    /// What no slot wanted at the listing before.
    suspects: BTreeSet<ListedContainer>,
    listing: bool,
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

    fn list_all(&mut self, ctx: &mut Context<Self>) {
        for host in self.hosts.keys().cloned().collect::<Vec<_>>() {
            self.list(host, ctx);
        }
    }

    fn list(&mut self, host: HostName, ctx: &mut Context<Self>) {
        let Some(state) = self.hosts.get_mut(&host).filter(|state| !state.listing) else { return };
        state.listing = true;
        let (driver, on) = (Arc::clone(&self.driver), host.clone());
        let began_at = self.clock.now();
        let listing = async move { tokio::time::timeout(LIST_DEADLINE, driver.list(&on)).await };
        ctx.spawn(listing.into_actor(self).map(move |listed, act, ctx| {
            if let Some(state) = act.hosts.get_mut(&host) {
                state.listing = false;
            }
            match listed {
                Ok(Ok(listed)) => act.compare(&host, &listed, began_at, ctx),
                Ok(Err(error)) => {
                    slog::warn!(act.log, "listing failed; nothing is concluded"; "host" => %host, "error" => %error)
                }
                Err(_) => slog::warn!(act.log, "listing is late; nothing is concluded"; "host" => %host),
            }
        }));
    }

    fn compare(
        &mut self,
        host: &HostName,
        listed: &[ListedContainer],
        began_at: chrono::DateTime<chrono::Utc>,
        ctx: &mut Context<Self>,
    ) {
        let Some(state) = self.hosts.get_mut(host) else { return };
        let handles = self.directory.all();
        let slots: Vec<_> = handles.iter().map(|handle| handle.snapshot()).collect();
        let findings = compare(host, slots.iter().map(AsRef::as_ref), listed, &state.suspects);
        for (name, key, presence) in findings.observed {
            if let Some(handle) = handles.iter().find(|handle| *handle.name() == name) {
                drop(handle.send(SlotEvent::Observed { generation: key.generation, presence, began_at }));
            }
        }
        state.suspects = findings.suspects;
        for stray in findings.strays {
            self.remove(host, stray, ctx);
        }
    }

    fn remove(&self, host: &HostName, stray: ListedContainer, ctx: &mut Context<Self>) {
        slog::warn!(self.log, "removing a stray container";
            "host" => %host, "container" => %stray.container, "slot_id" => %stray.key.slot, "generation" => stray.key.generation.0);
        let driver = Arc::clone(&self.driver);
        let log = self.log.clone();
        let request = StopRequest {
            host: host.clone(),
            key: stray.key,
            container: Some(stray.container),
            operation: Operation(0),
            grace: STRAY_GRACE,
        };
        let remove = async move {
            if let Err(error) = driver.stop(request).await {
                slog::warn!(log, "a stray could not be removed; the next listing tries again"; "error" => %error);
            }
        };
        ctx.spawn(remove.into_actor(self));
    }
}

impl Actor for Reconciler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.list_all(ctx);
        ctx.run_interval(INTERVAL, Self::list_all);
    }
}
