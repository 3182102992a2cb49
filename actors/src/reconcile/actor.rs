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
/// How long a stray may take to end by itself.
const STRAY_GRACE: Duration = Duration::from_secs(10);

/// Lists now what runs on each host, rather than when the timer rings; answers with how many hosts are asked. One that
/// is being listed already is not asked twice.
#[derive(Message)]
#[rtype(result = "usize")]
pub struct ReconcileNow;

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

    /// Lists each host that is not being listed; how many those are.
    fn list_all(&mut self, ctx: &mut Context<Self>) -> usize {
        let quiet = self.hosts.iter_mut().filter(|(_, state)| !state.listing);
        let hosts: Vec<HostName> = quiet
            .map(|(host, state)| {
                state.listing = true;
                host.clone()
            })
            .collect();
        let count = hosts.len();
        hosts.into_iter().for_each(|host| self.list(host, ctx));
        count
    }

    fn list(&mut self, host: HostName, ctx: &mut Context<Self>) {
        let (driver, on) = (Arc::clone(&self.driver), host.clone());
        let began_at = self.clock.now();
        let listing = async move { driver.list(&on).await };
        ctx.spawn(listing.into_actor(self).map(move |listed, act, ctx| {
            if let Some(state) = act.hosts.get_mut(&host) {
                state.listing = false;
            }
            match listed {
                Ok(listed) => act.compare(&host, &listed, began_at, ctx),
                Err(error) => {
                    slog::warn!(act.log, "listing failed; nothing is concluded"; "host" => %host, "error" => %error)
                }
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
        ctx.run_interval(INTERVAL, |act, ctx| {
            act.list_all(ctx);
        });
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
    use crate::ids::{ContainerId, ContainerKey};
    use crate::ports::{DriverError, Presence, PullProgress, StartRequest};
    use crate::testing::sample;
    use async_trait::async_trait;
    use chrono::{DateTime, Utc};
    use tokio::sync::{Semaphore, watch};

    /// Lists only, one listing for each permit.
    struct Slow {
        permits: Semaphore,
        begun: Semaphore,
    }

    #[async_trait]
    impl Driver for Slow {
        async fn list(&self, _: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
            self.begun.add_permits(1);
            self.permits.acquire().await.expect("open").forget();
            Ok(vec![])
        }

        async fn pull(
            &self,
            _: &HostName,
            _: &str,
            _: watch::Sender<PullProgress>,
        ) -> Result<(), DriverError> {
            unreachable!("nothing is pulled")
        }

        async fn start(&self, _: StartRequest) -> Result<ContainerId, DriverError> {
            unreachable!("nothing is started")
        }

        async fn wait_exit(&self, _: &HostName, _: ContainerKey) -> Result<String, DriverError> {
            unreachable!("nothing is watched")
        }

        async fn stop(&self, _: StopRequest) -> Result<(), DriverError> {
            unreachable!("nothing is stopped")
        }

        async fn inspect(&self, _: &HostName, _: ContainerKey) -> Result<Presence, DriverError> {
            unreachable!("nothing is looked at")
        }
    }

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> DateTime<Utc> {
            sample::now()
        }
    }

    #[test]
    fn a_listing_that_is_asked_for_begins_at_once_on_every_host_that_is_not_being_listed() {
        let driver = Arc::new(Slow { permits: Semaphore::new(0), begun: Semaphore::new(0) });
        System::new().block_on(async move {
            let reconciler = Reconciler::new(
                ["one", "two"].map(|name| HostName(name.to_owned())),
                Arc::clone(&driver) as Arc<dyn Driver>,
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
