//! Images that come from a registry: a real one, behind a proxy that counts what it sends.

use super::workshop::{LIMIT, Workshop, here, made};
use crate::support::dockerd::Dockerd;
use crate::support::registry::Registry;
use crate::support::scripted_bot;
use meeboter::driver::docker::RegistryAccess;
use meeboter_actors::ids::ContainerKey;
use meeboter_actors::ports::{Driver, DriverError, PullProgress, Pulled, StartRequest};
use std::fs;
use tokio::sync::watch;
use tokio::time::timeout;

/// An engine with a registry that has one image, which the engine does not.
async fn stocked(registry: &Registry) -> (Dockerd, String) {
    let dockerd = Dockerd::start().await;
    let image = registry.reference("scripted-bot:1");
    publish(&dockerd, &image, "stay");
    (dockerd, image)
}

/// Puts a script's image into the registry under a reference.
pub(super) fn publish(dockerd: &Dockerd, reference: &str, script: &str) {
    scripted_bot::import(dockerd, reference, script);
    dockerd.run(&["push", "--quiet", reference]);
    dockerd.run(&["rmi", reference]);
}

/// Pulls, and says how far it was at the end.
async fn pull(driver: &impl Driver, image: &str) -> Result<PullProgress, DriverError> {
    let (sender, progress) = watch::channel(PullProgress::default());
    let pulled = timeout(LIMIT, driver.pull(&here(), image, sender)).await.expect("pulled in time")?;
    assert_eq!(pulled, Pulled::Current, "it came from the registry");
    let reached = *progress.borrow();
    Ok(reached)
}

/// Pulls what cannot be pulled and is there, and says why it could not.
async fn kept(driver: &impl Driver, image: &str) -> String {
    let pulled = timeout(LIMIT, driver.pull(&here(), image, watch::Sender::default())).await;
    match pulled.expect("pulled in time").expect("it is there") {
        Pulled::Kept { reason } => reason,
        Pulled::Current => panic!("it was pulled"),
    }
}

#[tokio::test]
async fn an_image_comes_once_and_says_how_far_it_is() {
    let registry = Registry::start().await;
    let (dockerd, image) = stocked(&registry).await;
    let workshop = Workshop::on(&dockerd);
    let driver = workshop.driver();
    let before = registry.sent();
    let progress = pull(driver.as_ref(), &image).await.unwrap();
    assert!(progress.total > 100_000 && progress.done == progress.total, "{progress:?}");
    let first = registry.sent() - before;
    assert!(first >= progress.total, "{first} bytes came of {}", progress.total);
    pull(driver.as_ref(), &image).await.unwrap();
    let second = registry.sent() - before - first;
    assert!(second * 20 < first, "{second} bytes came again, after {first}");

    made(driver.start(StartRequest { image, ..workshop.start(1, "stay") }).await);
    driver.stop(workshop.stop(1)).await.unwrap();
}

#[tokio::test]
async fn a_tag_that_moved_is_noticed_by_its_digest() {
    let registry = Registry::start().await;
    let (dockerd, image) = stocked(&registry).await;
    let driver = Workshop::on(&dockerd).driver();
    let before = driver.resolve(&here(), &image).await.unwrap().expect("known");
    assert_eq!(driver.resolve(&here(), &image).await.unwrap().as_ref(), Some(&before));
    publish(&dockerd, &image, "fail");
    let after = driver.resolve(&here(), &image).await.unwrap().expect("known");
    assert_ne!(before, after);
    pull(driver.as_ref(), &image).await.unwrap();
    let digests = dockerd.run(&["inspect", "--format", "{{.RepoDigests}}", &image]);
    assert!(digests.contains(&after.0), "{digests} is not {after:?}");
    let unknown = registry.reference("scripted-bot:2");
    assert_eq!(driver.resolve(&here(), &unknown).await, Ok(None));
}

#[tokio::test]
async fn a_registry_that_is_away_stops_only_what_is_not_there() {
    let mut registry = Registry::start().await;
    let (dockerd, image) = stocked(&registry).await;
    let workshop = Workshop::on(&dockerd);
    let driver = workshop.driver();
    pull(driver.as_ref(), &image).await.unwrap();
    registry.stop();
    let why = kept(driver.as_ref(), &image).await;
    assert!(why.contains(&image) && why.contains("cannot be pulled"), "{why}");
    assert!(driver.resolve(&here(), &image).await.is_err(), "nobody can say");
    let missing = registry.reference("scripted-bot:2");
    let error = pull(driver.as_ref(), &missing).await.unwrap_err();
    assert!(error.answered && error.retryable, "{error:?}");
    for part in [missing.as_str(), "cannot be pulled"] {
        assert!(error.message.contains(part), "{part} is not in {error}");
    }
}

#[tokio::test]
async fn a_registry_is_told_who_asks_and_nobody_else_is() {
    let registry = Registry::with_password().await;
    let dockerd = Dockerd::start().await;
    let image = registry.reference("scripted-bot:1");
    scripted_bot::import(&dockerd, &image, "stay");
    let login = ["login", "--username", Registry::USER, "--password", Registry::PASSWORD, registry.server()];
    dockerd.run(&login);
    dockerd.run(&["push", "--quiet", &image]);
    dockerd.run(&["logout", registry.server()]);
    dockerd.run(&["rmi", &image]);

    let mut workshop = Workshop::on(&dockerd);
    let access = |server: &str, password: &str| RegistryAccess {
        server: server.to_owned(),
        username: Registry::USER.to_owned(),
        password: password.into(),
    };
    for accesses in
        [vec![], vec![access("ghcr.io", Registry::PASSWORD)], vec![access(registry.server(), "not-the-word")]]
    {
        workshop.registries = accesses;
        let error = pull(workshop.driver().as_ref(), &image).await.unwrap_err();
        assert!(error.answered && !error.message.contains("not-the-word"), "{error:?}");
    }
    workshop.registries = vec![access(registry.server(), Registry::PASSWORD)];
    pull(workshop.driver().as_ref(), &image).await.unwrap();
    assert!(workshop.driver().resolve(&here(), &image).await.unwrap().is_some());
}

#[tokio::test]
async fn a_full_disk_is_called_that() {
    let registry = Registry::start().await;
    let dockerd = Dockerd::start_with_disk(24).await;
    let image = registry.reference("scripted-bot:1");
    publish(&dockerd, &image, "stay");
    let workshop = Workshop::on(&dockerd);
    let driver = workshop.driver();
    pull(driver.as_ref(), &image).await.unwrap();
    let ballast = dockerd.data_root().join("ballast");
    // Until nothing fits any more.
    let filled = std::io::copy(&mut std::io::repeat(7), &mut fs::File::create(&ballast).unwrap());
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let error =
        driver.start(StartRequest { image: image.clone(), ..workshop.start(1, "stay") }).await.unwrap_err();
    assert!(error.answered && error.retryable, "{error:?}");
    assert!(error.message.contains("disk of local is full"), "{error}");
    fs::remove_file(&ballast).unwrap();
    made(driver.start(StartRequest { image, ..workshop.start(1, "stay") }).await);
    let key: ContainerKey = workshop.key(1);
    assert_eq!(driver.list(&here()).await.unwrap()[0].key, key);
    driver.stop(workshop.stop(1)).await.unwrap();
}
