//! Engines that are away, and come back.

use super::workshop::{LIMIT, LOOK, Workshop, here, made};
use crate::support::dockerd::Dockerd;
use crate::support::scripted_bot;
use meeboter::driver::docker::EngineAddress;
use meeboter_actors::ports::{Driver, DriverError, Presence};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::time::timeout;

#[track_caller]
fn away(error: &DriverError) {
    assert!(!error.answered && error.retryable, "{error:?}");
    assert!(error.message.contains("away") && error.message.contains("hosts.local.docker_url"), "{error}");
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_named_and_nothing_is_known_of_its_containers() {
    for nowhere in ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"] {
        let workshop = Workshop::at(nowhere.to_owned());
        let driver = workshop.driver();
        away(&driver.list(&here()).await.unwrap_err());
        away(&driver.inspect(&here(), workshop.key(1)).await.unwrap_err());
        away(&driver.start(workshop.start(1, "stay")).await.unwrap_err());
        away(&driver.stop(workshop.stop(1)).await.unwrap_err());
        let (events, _told) = mpsc::channel(1);
        away(&driver.watch(&here(), events).await.unwrap_err());
    }
}

#[tokio::test]
async fn an_engine_behind_tls_is_used_with_a_certificate_and_not_without() {
    let (dockerd, address, folder) = Dockerd::start_with_tls().await;
    scripted_bot::import_all(&dockerd);
    let url = address.clone();
    let mut workshop = Workshop::at(address);
    workshop.tls_dir = Some(folder.clone());
    let driver = workshop.driver();
    made(driver.start(workshop.start(1, "stay")).await);
    assert_eq!(driver.inspect(&here(), workshop.key(1)).await, Ok(Presence::Running));
    driver.stop(workshop.stop(1)).await.unwrap();

    // Files that were renewed under their names count once the settings are read again.
    let hosts = BTreeMap::from([(here(), EngineAddress { url, tls_dir: Some(folder.clone()) })]);
    let renewed = std::fs::read(folder.join("cert.pem")).unwrap();
    std::fs::copy(folder.join("server-cert.pem"), folder.join("cert.pem")).unwrap();
    assert!(driver.list(&here()).await.is_ok(), "those of before");
    driver.configure(hosts.clone()).unwrap();
    driver.list(&here()).await.unwrap_err();
    std::fs::write(folder.join("cert.pem"), renewed).unwrap();
    driver.configure(hosts).unwrap();
    driver.list(&here()).await.unwrap();

    workshop.tls_dir = None;
    let error = workshop.driver().list(&here()).await.unwrap_err();
    assert!(error.message.contains("HTTPS server") || !error.answered, "{error:?}");
    std::fs::remove_file(folder.join("key.pem")).unwrap();
    let hosts = BTreeMap::from([(
        here(),
        EngineAddress { url: "tcp://127.0.0.1:1".to_owned(), tls_dir: Some(folder.clone()) },
    )]);
    let refused = driver.configure(hosts).unwrap_err().to_string();
    assert!(refused.contains("key.pem") && refused.contains(&folder.display().to_string()), "{refused}");
}

#[tokio::test]
async fn containers_outlive_their_engine_and_are_the_same_when_it_is_back() {
    let mut dockerd = Dockerd::start().await;
    scripted_bot::import_all(&dockerd);
    let workshop = Workshop::on(&dockerd);
    let (driver, key) = (workshop.driver(), workshop.key(1));
    let id = made(driver.start(workshop.start(1, "stay")).await);
    let waited = tokio::spawn({
        let driver = Arc::clone(&driver);
        async move { driver.wait_exit(&here(), key).await }
    });
    let (events, _told) = mpsc::channel(8);
    let watched = tokio::spawn({
        let driver = Arc::clone(&driver);
        async move { driver.watch(&here(), events).await }
    });
    // Both wait at the engine, as the engine's own look at it shows.
    let deadline = Instant::now() + LIMIT;
    while driver.list(&here()).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(LOOK).await;
    }

    dockerd.kill().await;
    away(&driver.list(&here()).await.unwrap_err());
    let waited = timeout(LIMIT, waited).await.expect("an engine that is gone ends a wait").unwrap();
    assert!(!waited.unwrap_err().answered, "that the engine is gone says nothing of the bot");
    // Whether it says so or just ends: what was missed shows in a listing.
    let _ = timeout(LIMIT, watched).await.expect("an engine that is gone ends a watch").unwrap();

    dockerd.start_again().await;
    assert_eq!(driver.inspect(&here(), key).await, Ok(Presence::Running));
    assert_eq!(made(driver.start(workshop.start(1, "stay")).await), id);
    driver.stop(workshop.stop(1)).await.unwrap();
    assert_eq!(driver.list(&here()).await.unwrap(), []);
}
