//! The reconciler's shell: lists on start and on a timer, tells slots what was seen, removes strays that were seen
//! twice in a row. A listing that failed, or is late, says nothing.

use super::plan::compare;
use crate::ids::Operation;
use crate::ports::{Clock, Driver, ListedContainer, StopRequest};
use crate::slot::event::SlotEvent;
use crate::slot::handle::Directory;
use crate::supervision::DeathGuard;
use actix::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Time between two listings.
const INTERVAL: Duration = Duration::from_secs(60);
/// A listing that takes longer says nothing.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
/// How long a stray may take to end by itself.
const STRAY_GRACE: Duration = Duration::from_secs(10);

/// See the module.
pub struct Reconciler {
    driver: Arc<dyn Driver>,
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    log: slog::Logger,
    /// What no slot wanted at the listing before.
    suspects: BTreeSet<ListedContainer>,
    listing: bool,
    _guard: DeathGuard,
}

impl Reconciler {
    /// Compares `directory` with what `driver` lists.
    pub fn new(
        driver: Arc<dyn Driver>,
        directory: Arc<Directory>,
        clock: Arc<dyn Clock>,
        log: slog::Logger,
        guard: DeathGuard,
    ) -> Self {
        Self { driver, directory, clock, log, suspects: BTreeSet::new(), listing: false, _guard: guard }
    }

    fn list(&mut self, ctx: &mut Context<Self>) {
        if self.listing {
            return;
        }
        self.listing = true;
        let driver = Arc::clone(&self.driver);
        let began_at = self.clock.now();
        let listing = async move { tokio::time::timeout(LIST_DEADLINE, driver.list()).await };
        ctx.spawn(listing.into_actor(self).map(move |listed, act, ctx| {
            act.listing = false;
            match listed {
                Ok(Ok(listed)) => act.compare(&listed, began_at, ctx),
                Ok(Err(error)) => {
                    slog::warn!(act.log, "listing failed; nothing is concluded"; "error" => %error)
                }
                Err(_) => slog::warn!(act.log, "listing is late; nothing is concluded"),
            }
        }));
    }

    fn compare(
        &mut self,
        listed: &[ListedContainer],
        began_at: chrono::DateTime<chrono::Utc>,
        ctx: &mut Context<Self>,
    ) {
        let handles = self.directory.all();
        let slots: Vec<_> = handles.iter().map(|handle| handle.snapshot()).collect();
        let findings = compare(slots.iter().map(AsRef::as_ref), listed, &self.suspects);
        for (name, key, presence) in findings.observed {
            if let Some(handle) = handles.iter().find(|handle| *handle.name() == name) {
                drop(handle.send(SlotEvent::Observed { generation: key.generation, presence, began_at }));
            }
        }
        self.suspects = findings.suspects;
        for stray in findings.strays {
            self.remove(stray, ctx);
        }
    }

    fn remove(&self, stray: ListedContainer, ctx: &mut Context<Self>) {
        slog::warn!(self.log, "removing a stray container";
            "container" => %stray.container, "slot_id" => %stray.key.slot, "generation" => stray.key.generation.0);
        let driver = Arc::clone(&self.driver);
        let log = self.log.clone();
        let request = StopRequest {
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
        self.list(ctx);
        ctx.run_interval(INTERVAL, Self::list);
    }
}
