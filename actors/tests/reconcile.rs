//! When the Reconciler lists a host: at start, when the host appears, and when the engine's own word was interrupted.

use actix::{Actor, Addr, System};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use meeboter_actors::ids::{ContainerId, ContainerKey, Generation, HostName, SlotId};
use meeboter_actors::ports::{
    Clock, Driver, DriverError, EngineEvent, ImageDigest, ListedContainer, Presence, PullProgress,
    StartRequest, StopRequest,
};
use meeboter_actors::reconcile::actor::{HostsChanged, Observe, ReconcileSnapshot, Reconciler};
use meeboter_actors::slot::handle::Directory;
use meeboter_actors::supervision::{DeathGuard, tell};
use meeboter_actors::testing::sample;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

/// Lists nothing, tells what it is told to, until it is cut.
#[derive(Default)]
struct Engine {
    listed: Mutex<Vec<HostName>>,
    listener: Mutex<Option<mpsc::Sender<EngineEvent>>>,
    cut: Notify,
}

#[async_trait]
impl Driver for Engine {
    async fn list(&self, host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        self.listed.lock().expect("free").push(host.clone());
        Ok(vec![])
    }

    async fn watch(&self, _: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        *self.listener.lock().expect("free") = Some(events);
        self.cut.notified().await;
        Ok(())
    }

    async fn pull(&self, _: &HostName, _: &str, _: watch::Sender<PullProgress>) -> Result<(), DriverError> {
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

    async fn resolve(&self, _: &HostName, _: &str) -> Result<Option<ImageDigest>, DriverError> {
        unreachable!("nothing is resolved")
    }

    async fn logs(&self, _: &HostName, _: ContainerKey, _: u32) -> Result<Vec<String>, DriverError> {
        unreachable!("no logs are read")
    }

    async fn sweep(
        &self,
        _: &HostName,
        _: &BTreeSet<ContainerKey>,
        _: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        unreachable!("nothing is swept")
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

fn host(name: &str) -> HostName {
    HostName(name.to_owned())
}

async fn settled(reconciler: &Addr<Reconciler>) -> ReconcileSnapshot {
    // In virtual time: whatever is under way comes to its end first.
    tokio::time::sleep(Duration::from_millis(10)).await;
    reconciler.send(Observe).await.expect("answers")
}

fn run(test: impl AsyncFnOnce(Arc<Engine>, Addr<Reconciler>)) {
    let runner = System::with_tokio_rt(|| {
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime")
    });
    runner.block_on(async {
        let engine = Arc::new(Engine::default());
        let reconciler = Reconciler::new(
            [host("one")],
            Arc::clone(&engine) as Arc<dyn Driver>,
            Arc::new(Directory::default()),
            Arc::new(Noon),
            slog::Logger::root(slog::Discard, slog::o!()),
            DeathGuard::new(|| {}),
        )
        .start();
        test(engine, reconciler).await;
    });
}

#[test]
fn a_host_that_appears_is_listed_at_once_and_only_once() {
    run(async |engine, reconciler| {
        settled(&reconciler).await;
        for _ in 0..2 {
            tell(&reconciler, HostsChanged { hosts: vec![host("one"), host("two")] });
        }
        // One that is not named any more may still have slots.
        tell(&reconciler, HostsChanged { hosts: vec![host("two")] });
        assert_eq!(settled(&reconciler).await.hosts.len(), 2);
        assert_eq!(*engine.listed.lock().expect("free"), [host("one"), host("two")]);
    });
}

#[test]
fn after_a_gap_the_host_is_listed_and_heard_again() {
    run(async |engine, reconciler| {
        settled(&reconciler).await;
        engine.cut.notify_one();
        let line = settled(&reconciler).await.hosts[&host("one")].clone();
        assert_eq!((line.gaps, engine.listed.lock().expect("free").len()), (1, 1), "not at once");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(engine.listed.lock().expect("free").len(), 2);
        let key = ContainerKey { slot: SlotId(Uuid::from_u128(1)), generation: Generation(1) };
        let listener = engine.listener.lock().expect("free").clone().expect("listens");
        listener.send(EngineEvent::Vanished(key)).await.expect("is heard");
        assert_eq!(settled(&reconciler).await.hosts[&host("one")].events, 1);
    });
}
