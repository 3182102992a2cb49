//! When the Reconciler lists a host: at start, when the host appears, and when the engine's own word was interrupted.

use actix::{Actor, Addr, System};
use async_trait::async_trait;
use meeboter_actors::ids::{ContainerKey, Generation, HostName, SlotId};
use meeboter_actors::ports::{DriverError, EngineEvent, ListedContainer};
use meeboter_actors::reconcile::actor::{HostsChanged, Observe, ReconcileSnapshot, Reconciler};
use meeboter_actors::slot::handle::Directory;
use meeboter_actors::supervision::{DeathGuard, tell};
use meeboter_actors::testing::stub::{Noon, Stub, StubDriver};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

/// Lists nothing, tells what it is told to, until it is cut.
#[derive(Default)]
struct Engine {
    listed: Mutex<Vec<HostName>>,
    listener: Mutex<Option<mpsc::Sender<EngineEvent>>>,
    cut: Notify,
}

#[async_trait]
impl Stub for Engine {
    async fn list(&self, host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        self.listed.lock().expect("free").push(host.clone());
        Ok(vec![])
    }

    async fn watch(&self, _: &HostName, events: mpsc::Sender<EngineEvent>) -> Result<(), DriverError> {
        *self.listener.lock().expect("free") = Some(events);
        self.cut.notified().await;
        Ok(())
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
            Arc::new(StubDriver(Arc::clone(&engine))),
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
