//! The Docker driver's contract, on a real engine.

use super::workshop::{LIMIT, LOOK, NOTICED, Workshop, here, made, shared, until_present};
use crate::support::scripted_bot;
use meeboter_actors::ids::Operation;
use meeboter_actors::ports::{
    Driver, DriverError, EngineEvent, PrepareRequest, Presence, ResourceLimits, StartRequest, StopRequest,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

#[tokio::test]
async fn a_container_is_made_ahead_started_once_and_removed_after_its_use() {
    let dockerd = shared().await;
    let workshop = Workshop::on(dockerd);
    let (driver, key) = (workshop.driver(), workshop.key(3));
    assert!(driver.prepares(&here()));
    let prepared = made(driver.prepare(workshop.prepare(3, "stay")).await);
    assert_eq!(made(driver.prepare(workshop.prepare(3, "stay")).await), prepared, "prepared twice");
    assert_eq!(driver.inspect(&here(), key).await, Ok(Presence::Prepared));
    let listed = driver.list(&here()).await.unwrap();
    assert_eq!((listed.len(), listed[0].key, listed[0].presence), (1, key, Presence::Prepared));

    let started = made(driver.start(workshop.start(3, "stay")).await);
    assert_eq!(started, prepared, "another container was started");
    assert_eq!(driver.inspect(&here(), key).await, Ok(Presence::Running));
    let (another, began) = (workshop.driver(), Instant::now());
    assert_eq!(made(another.start(workshop.start(3, "stay")).await), started, "another server's");
    assert!(began.elapsed() < LIMIT);

    let waited = tokio::spawn({
        let driver = Arc::clone(&driver);
        async move { driver.wait_exit(&here(), key).await }
    });
    driver.stop(workshop.stop(3)).await.unwrap();
    assert!(timeout(NOTICED, waited).await.unwrap().unwrap().is_ok());
    assert_eq!(driver.inspect(&here(), key).await, Ok(Presence::Gone));
    assert_eq!(driver.list(&here()).await.unwrap(), []);
    let label = format!("label=meeboter.installation={}", workshop.installation);
    assert_eq!(dockerd.run(&["ps", "--all", "--quiet", "--filter", &label]), "", "something is left");
    driver.stop(workshop.stop(3)).await.unwrap();
}

#[tokio::test]
async fn two_servers_that_start_at_once_start_one() {
    let workshop = Workshop::on(shared().await);
    let (one, other) = (workshop.driver(), workshop.driver());
    let starts = (0..8).map(|number| {
        let driver = if number % 2 == 0 { &one } else { &other };
        driver.start(workshop.start(1, "stay"))
    });
    let started = futures_util::future::join_all(starts).await;
    let ids: Vec<String> = started.into_iter().map(made).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(one.list(&here()).await.unwrap().len(), 1);
    one.stop(workshop.stop(1)).await.unwrap();
}

#[tokio::test]
async fn a_container_is_what_was_configured() {
    let dockerd = shared().await;
    let workshop = Workshop::on(dockerd);
    let driver = workshop.driver();
    let limits = ResourceLimits { cpu_millis: Some(500), memory_mib: Some(64), shm_mib: Some(32) };
    let id = made(driver.prepare(PrepareRequest { limits, ..workshop.prepare(2, "stay") }).await);
    let inspected: Value = serde_json::from_str(&dockerd.run(&["inspect", &id])).unwrap();
    let host = &inspected[0]["HostConfig"];
    assert_eq!(host["NanoCpus"], json!(500_000_000));
    assert_eq!((&host["Memory"], &host["MemorySwap"]), (&json!(64 << 20), &json!(64 << 20)));
    assert_eq!(host["ShmSize"], json!(32 << 20));
    assert_eq!(host["NetworkMode"], json!("host"));
    assert_eq!(host["RestartPolicy"]["Name"], json!("no"));
    assert_eq!(host["LogConfig"]["Config"]["max-size"], json!("2048k"));
    let config = &inspected[0]["Config"];
    assert_eq!(config["Labels"]["meeboter.slot-name"], json!("pool-zoom-001"));
    let environment = config["Env"].to_string();
    for expected in [
        format!("POOL_SLOT_UUID={}", workshop.slot),
        "MILO_URL=http://127.0.0.1:9".to_owned(),
        format!("MILO_AUTH_TOKEN=token-of-{}-2", workshop.slot),
    ] {
        assert!(environment.contains(&expected), "{expected} is not in {environment}");
    }
    driver.stop(workshop.stop(2)).await.unwrap();
}

#[tokio::test]
async fn an_order_from_before_a_stop_makes_nothing() {
    let workshop = Workshop::on(shared().await);
    let driver = workshop.driver();
    driver.prepare(workshop.prepare(4, "stay")).await.unwrap();
    driver.stop(workshop.stop(4)).await.unwrap();
    for refused in [
        driver.start(workshop.start(4, "stay")).await,
        driver.prepare(PrepareRequest { operation: Operation(2), ..workshop.prepare(4, "stay") }).await,
    ] {
        let error = refused.unwrap_err();
        assert!(error.answered && !error.retryable && error.message.contains("stopped"), "{error:?}");
    }
    assert_eq!(driver.list(&here()).await.unwrap(), []);
    // What was prepared was removed, and is made again for the same generation.
    let later = PrepareRequest { operation: Operation(3), ..workshop.prepare(4, "stay") };
    driver.prepare(later).await.unwrap();
    driver.stop(StopRequest { operation: Operation(4), ..workshop.stop(4) }).await.unwrap();
}

#[tokio::test]
async fn what_an_engine_refuses_is_told_in_its_own_words() {
    let dockerd = shared().await;
    let workshop = Workshop::on(dockerd);
    let driver = workshop.driver();
    let told = |error: DriverError, parts: &[&str]| {
        assert!(error.answered && !error.retryable, "{error:?}");
        for part in parts {
            assert!(error.message.contains(part), "{part} is not in {error}");
        }
    };
    let missing = StartRequest { image: "127.0.0.1:1/nobody:1".to_owned(), ..workshop.start(1, "stay") };
    told(
        driver.start(missing).await.unwrap_err(),
        &["127.0.0.1:1/nobody:1", "not on local", "No such image"],
    );

    let name = format!("meeboter-{}-1", workshop.slot);
    dockerd.run(&["create", "--name", &name, &scripted_bot::reference("stay")]);
    told(driver.start(workshop.start(1, "stay")).await.unwrap_err(), &[&name, "taken", "remove or rename"]);
    driver.stop(workshop.stop(1)).await.unwrap();
    dockerd.run(&["rm", &name]);

    let elsewhere =
        StartRequest { host: meeboter_actors::ids::HostName("far".into()), ..workshop.start(2, "stay") };
    told(driver.start(elsewhere).await.unwrap_err(), &["far", "[hosts.far]"]);
}

#[tokio::test]
async fn an_end_is_told_with_its_code_and_is_not_begun_again() {
    let workshop = Workshop::on(shared().await);
    let (driver, key) = (workshop.driver(), workshop.key(1));
    driver.start(workshop.start(1, "fail")).await.unwrap();
    let note = timeout(LIMIT, driver.wait_exit(&here(), key)).await.unwrap().unwrap();
    assert!(note.contains("exit code 7"), "{note}");
    assert_eq!(driver.inspect(&here(), key).await, Ok(Presence::Gone));
    let listed = driver.list(&here()).await.unwrap();
    assert_eq!((listed.len(), listed[0].presence), (1, Presence::Gone), "what is left is to be removed");
    let error = driver.start(workshop.start(1, "fail")).await.unwrap_err();
    assert!(!error.retryable && error.message.contains("exit code 7"), "{error:?}");
    driver.stop(workshop.stop(1)).await.unwrap();
    assert_eq!(driver.list(&here()).await.unwrap(), []);
}

/// Waits for an event, and ignores others.
async fn told(events: &mut mpsc::Receiver<EngineEvent>, wanted: EngineEvent) {
    let wait = async { while events.recv().await.expect("the stream goes on") != wanted {} };
    timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{wanted:?} is not told"));
}

#[tokio::test]
async fn what_people_do_by_hand_is_noticed() {
    let dockerd = shared().await;
    let workshop = Workshop::on(dockerd);
    let driver = workshop.driver();
    let (sender, mut events) = mpsc::channel(64);
    let watching = tokio::spawn({
        let driver = Arc::clone(&driver);
        async move { driver.watch(&here(), sender).await }
    });
    // The watch has begun when a first event is told.
    let mut generation = 0;
    let began = Instant::now();
    loop {
        generation += 1;
        let first = made(driver.start(workshop.start(generation, "stay")).await);
        dockerd.run(&["kill", &first]);
        driver.stop(workshop.stop(generation)).await.unwrap();
        if timeout(LOOK * 10, events.recv()).await.is_ok() {
            break;
        }
        assert!(began.elapsed() < LIMIT, "nothing is told");
    }

    let (killed, removed, paused) = (workshop.key(101), workshop.key(102), workshop.key(103));
    let id = made(driver.start(workshop.start(101, "stay")).await);
    told(&mut events, EngineEvent::Appeared(killed)).await;
    dockerd.run(&["kill", &id]);
    let note = timeout(NOTICED, driver.wait_exit(&here(), killed)).await.unwrap().unwrap();
    assert!(note.contains("137"), "killed: {note}");

    let id = made(driver.start(workshop.start(102, "stay")).await);
    dockerd.run(&["rm", "--force", &id]);
    told(&mut events, EngineEvent::Vanished(removed)).await;
    assert!(driver.wait_exit(&here(), removed).await.unwrap().contains("removed"));

    let id = made(driver.start(workshop.start(103, "stay")).await);
    dockerd.run(&["pause", &id]);
    assert_eq!(driver.inspect(&here(), paused).await, Ok(Presence::Running), "one that is paused is there");
    for generation in [101, 102, 103] {
        driver.stop(workshop.stop(generation)).await.unwrap();
        assert_eq!(driver.inspect(&here(), workshop.key(generation)).await, Ok(Presence::Gone));
    }
    drop(events);
    assert_eq!(timeout(LIMIT, watching).await.unwrap().unwrap(), Ok(()), "nobody listens any more");
}

#[tokio::test]
async fn one_that_somebody_started_for_nobody_is_made_anew() {
    let dockerd = shared().await;
    let workshop = Workshop::on(dockerd);
    let (driver, key) = (workshop.driver(), workshop.key(5));
    let first = made(driver.prepare(workshop.prepare(5, "fail")).await);
    dockerd.run(&["start", &first]);
    until_present(&driver, key, Presence::Gone).await;
    let second = made(driver.prepare(workshop.prepare(5, "fail")).await);
    assert_ne!(first, second);
    assert_eq!(driver.inspect(&here(), key).await, Ok(Presence::Prepared));
    driver.stop(workshop.stop(5)).await.unwrap();
}

#[tokio::test]
async fn two_installations_on_one_engine_ignore_each_other() {
    let dockerd = shared().await;
    let workshop = Workshop::on(dockerd);
    let (own, other) = (workshop.driver(), workshop.driver_of(Uuid::new_v4()));
    own.start(workshop.start(1, "stay")).await.unwrap();
    assert_eq!(other.list(&here()).await.unwrap(), []);
    assert_eq!(other.inspect(&here(), workshop.key(1)).await, Ok(Presence::Gone));
    other.stop(workshop.stop(1)).await.unwrap();
    assert_eq!(own.inspect(&here(), workshop.key(1)).await, Ok(Presence::Running), "another's was stopped");
    own.stop(workshop.stop(1)).await.unwrap();
}
