//! What the real Coolify does that nobody would expect, one test each: without its handling, each fails.

use super::workshop::{IMAGE, LIMIT, Workshop, eventually, here, key, listed, start, started, stop};
use meeboter::coolify_emulator::{Token, Trouble};
use meeboter::driver::coolify::CoolifyDriver;
use meeboter_actors::ports::{Driver, Presence};
use reqwest::Method;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Deploys a slot's stopped application by hand; its environment is that of the generation before.
async fn deploy_by_hand(shop: &Workshop, application: &str) {
    shop.by_hand(Method::POST, &format!("/deploy?uuid={application}")).await;
    eventually("it is being deployed", || shop.emulator.active_deployments() == 1).await;
}

/// `POST /deploy` answers "already queued" with the id of nothing, and what is queued knows nothing of the environment
/// that was just set.
#[tokio::test]
async fn a_skipped_deployment_is_seen_through_and_done_again() {
    let shop = Workshop::with(|coolify| coolify.pace.build = Duration::from_millis(400)).await;
    let driver = shop.driver();
    let application = started(driver.start(start(1, 1)).await);
    driver.stop(stop(1, 1)).await.unwrap();
    deploy_by_hand(&shop, &application.0).await;
    started(driver.start(start(1, 2)).await);
    assert_eq!(shop.running(key(1, 2)).len(), 1, "it runs with its own token");
    assert_eq!(shop.containers.running().len(), 1, "and alone");
}

/// A full queue is 429 with Retry-After, and no spent budget: nothing else waits for it.
#[tokio::test]
async fn a_full_queue_is_waited_out() {
    let shop = Workshop::with(|coolify| {
        (coolify.site.concurrent_builds, coolify.site.queue_limit) = (1, 1);
        (coolify.full_retry_after_s, coolify.pace.build) = (1, Duration::from_millis(300));
    })
    .await;
    let driver = shop.driver();
    let mut others = Vec::new();
    for slot in 1..3 {
        others.push(started(driver.start(start(slot, 1)).await));
        driver.stop(stop(slot, 1)).await.unwrap();
    }
    for other in &others {
        shop.by_hand(Method::POST, &format!("/deploy?uuid={}", other.0)).await;
    }
    let began = Instant::now();
    started(driver.start(start(3, 1)).await);
    assert!(began.elapsed() >= Duration::from_secs(1), "Coolify is left alone as long as it asked for");
    let refused = shop.emulator.requests().iter().filter(|request| request.status == 429).count();
    assert_eq!(refused, 1, "it is not asked meanwhile");
    assert_eq!(shop.running(key(3, 1)).len(), 1);
}

/// Statuses are as old as Coolify's last look.
#[tokio::test]
async fn an_old_status_ends_no_bot() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    shop.emulator.freeze_statuses(true);
    let application = started(driver.start(start(1, 1)).await);
    assert_eq!(shop.application("pool-zoom-001")["status"], "exited:unhealthy");
    assert_eq!(listed(&driver).await, [key(1, 1)]);
    tokio::time::sleep(shop.settings.pace.status_lag).await;
    assert_eq!(
        listed(&driver).await,
        [key(1, 1)],
        "also when the status should be new: the container is asked for"
    );
    assert_eq!(driver.inspect(&here(), key(1, 1)).await, Ok(Presence::Running));
    let new = shop.driver();
    assert_eq!(listed(&new).await, [key(1, 1)], "and by a server that remembers nothing");
    let waited = tokio::time::timeout(Duration::from_millis(500), driver.wait_exit(&here(), key(1, 1))).await;
    assert!(waited.is_err(), "{waited:?}");
    shop.emulator.set_status(&application.0, "running (healthy)");
    assert_eq!(listed(&driver).await, [key(1, 1)], "the older spelling");
}

/// Coolify says "not running" also where its SSH failed: one such word ends no bot.
#[tokio::test]
async fn one_word_that_a_container_does_not_run_ends_no_bot() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    shop.emulator.freeze_statuses(true);
    started(driver.start(start(1, 1)).await);
    let waiting = tokio::spawn({
        let driver = driver.clone();
        async move { driver.wait_exit(&here(), key(1, 1)).await }
    });
    for _ in 0..3 {
        let before = shop.requests("GET", "/logs");
        shop.fault("GET", "/logs", Trouble::NotRunning, 1);
        eventually("it is asked for again", || shop.requests("GET", "/logs") > before + 2).await;
    }
    assert!(!waiting.is_finished(), "{:?}", waiting.await);
    shop.fault("GET", "/logs", Trouble::NotRunning, 2);
    let note = tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap().unwrap();
    assert!(note.contains("no longer runs"), "two of them are believed: {note}");
    shop.fault("GET", "/logs", Trouble::NotRunning, 1);
    assert_eq!(listed(&driver).await, [key(1, 1)]);
    shop.fault("GET", "/logs", Trouble::NotRunning, 1);
    assert_eq!(driver.inspect(&here(), key(1, 1)).await, Ok(Presence::Running));
    shop.fault("GET", "/logs", Trouble::NotRunning, 2);
    assert_eq!(driver.inspect(&here(), key(1, 1)).await, Ok(Presence::Gone));
}

/// So a stop is not over at the first such word either: Coolify may not have reached its server to stop anything.
#[tokio::test]
async fn one_word_that_a_container_does_not_run_ends_no_stop() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    shop.emulator.freeze_statuses(true);
    started(driver.start(start(1, 1)).await);
    shop.fault("POST", "/stop", Trouble::IgnoredSilently, 1);
    shop.fault("GET", "/logs", Trouble::NotRunning, 1);
    driver.stop(stop(1, 1)).await.unwrap();
    assert_eq!(shop.containers.running(), []);
}

/// Somebody pressed "Clone", or a creation was carried out after it was given up: two applications say that they are one
/// container, and either may come first.
#[tokio::test]
async fn a_twin_ends_no_bot_and_hides_none_from_a_stop() {
    for (twin, name) in [
        ("000000000000000000000000", "pool-zoom-001"),
        ("zzzzzzzzzzzzzzzzzzzzzzzz", "pool-zoom-001"),
        ("000000000000000000000000", "clone-of-pool-zoom-001"),
        ("zzzzzzzzzzzzzzzzzzzzzzzz", "clone-of-pool-zoom-001"),
    ] {
        let shop = Workshop::new().await;
        let application = started(shop.driver().start(start(1, 1)).await);
        eventually("its status is known", || {
            shop.application("pool-zoom-001")["status"] == "running:unknown"
        })
        .await;
        shop.emulator.clone_application(&application.0, twin, name);
        // A server that starts anew knows no better than what Coolify says.
        let driver = shop.driver();
        assert_eq!(listed(&driver).await, [key(1, 1)]);
        assert_eq!(driver.inspect(&here(), key(1, 1)).await, Ok(Presence::Running));
        let waited =
            tokio::time::timeout(Duration::from_millis(300), driver.wait_exit(&here(), key(1, 1))).await;
        assert!(waited.is_err(), "{waited:?}");
        assert_eq!(driver.start(start(1, 1)).await, Ok(application), "it runs already");
        assert!(driver.logs(&here(), key(1, 1), 5).await.is_ok_and(|lines| !lines.is_empty()));
        driver.stop(stop(1, 1)).await.unwrap();
        assert_eq!((shop.containers.running(), listed(&driver).await), (vec![], vec![]));
    }
}

/// Coolify fails at its own restart whatever it deployed, also where the container is up already.
#[tokio::test]
async fn a_bot_whose_deployment_is_called_failed_is_not_missing() {
    let shop = Workshop::with(|coolify| coolify.pace.build = Duration::from_secs(4)).await;
    let driver = shop.driver();
    let starting = tokio::spawn({
        let driver = driver.clone();
        async move { driver.start(start(1, 1)).await }
    });
    eventually("its container is up", || shop.running(key(1, 1)).len() == 1).await;
    shop.emulator.restart();
    assert!(starting.await.unwrap().is_err());
    assert_eq!(listed(&driver).await, [key(1, 1)]);
    driver.stop(stop(1, 1)).await.unwrap();
    assert_eq!((shop.containers.running(), listed(&driver).await), (vec![], vec![]));
}

/// A container that was stopped, of which a look says something that is stored late and stays.
async fn stopped_with_an_old_status(status: &str) -> (Workshop, Arc<CoolifyDriver>) {
    let mut shop = Workshop::new().await;
    shop.settings.pace.status_lag = LIMIT;
    let driver = shop.driver();
    let application = started(driver.start(start(1, 1)).await);
    driver.stop(stop(1, 1)).await.unwrap();
    shop.emulator.freeze_statuses(true);
    shop.emulator.set_status(&application.0, status);
    (shop, driver)
}

/// `running` is stored as long for what is gone.
#[tokio::test]
async fn an_old_status_keeps_nobody_alive() {
    let (_shop, driver) = stopped_with_an_old_status("running:healthy").await;
    assert_eq!(listed(&driver).await, []);
    assert_eq!(driver.inspect(&here(), key(1, 1)).await, Ok(Presence::Gone));
}

/// A look that was under way while the container before this one was stopped is stored late.
#[tokio::test]
async fn an_old_word_of_a_restart_ends_no_bot() {
    let (_shop, driver) = stopped_with_an_old_status("restarting:unknown").await;
    started(driver.start(start(1, 2)).await);
    let waited = tokio::time::timeout(Duration::from_millis(500), driver.wait_exit(&here(), key(1, 2))).await;
    assert!(waited.is_err(), "{waited:?}");
    assert_eq!(listed(&driver).await, [key(1, 2)]);
}

/// The status reads "exited" at the moment of a stop already, as nobody has looked since the start: the container has to
/// be gone as well.
#[tokio::test]
async fn a_stop_is_done_when_the_container_is_gone() {
    let shop = Workshop::with(|coolify| coolify.pace.stop = Duration::from_millis(400)).await;
    let driver = shop.driver();
    shop.emulator.freeze_statuses(true);
    started(driver.start(start(1, 1)).await);
    driver.stop(stop(1, 1)).await.unwrap();
    assert_eq!(shop.containers.running(), []);
}

/// A stop that cannot reach its server says nothing.
#[tokio::test]
async fn a_stop_without_effect_is_repeated() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    started(driver.start(start(1, 1)).await);
    eventually("its status is known", || shop.application("pool-zoom-001")["status"] == "running:unknown")
        .await;
    shop.fault("POST", "/stop", Trouble::IgnoredSilently, 2);
    driver.stop(stop(1, 1)).await.unwrap();
    assert_eq!(shop.containers.running(), []);
    assert_eq!(shop.requests("POST", "/stop"), 3);
}

/// The usual stop prunes images; ours must not.
#[tokio::test]
async fn no_stop_and_no_deletion_cleans_images_up() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    started(driver.start(meeboter_actors::ports::StartRequest { ephemeral: true, ..start(1, 1) }).await);
    driver.stop(stop(1, 1)).await.unwrap();
    let requests = shop.emulator.requests();
    let ends = |request: &&meeboter::coolify_emulator::RecordedRequest| {
        request.path.ends_with("/stop") || request.method == "DELETE"
    };
    let ends: Vec<_> = requests.iter().filter(ends).collect();
    assert_eq!(ends.len(), 2);
    for request in ends {
        assert!(request.query.contains(&("docker_cleanup".to_owned(), "false".to_owned())), "{request:?}");
    }
}

/// Versions before 4.3.7 answer every cancellation with 500, though they cancel.
#[tokio::test]
async fn a_cancellation_that_says_500_counts_if_it_was_done() {
    let shop = Workshop::with(|coolify| coolify.pace.build = Duration::from_secs(20)).await;
    let driver = shop.driver();
    let starting = tokio::spawn({
        let driver = driver.clone();
        async move { driver.start(start(1, 1)).await }
    });
    eventually("it is being deployed", || shop.emulator.active_deployments() == 1).await;
    shop.fault("POST", "/cancel", Trouble::ServerErrorAfter, 1);
    driver.stop(stop(1, 1)).await.unwrap();
    assert!(starting.await.unwrap().is_err());
    assert_eq!((shop.containers.running(), shop.emulator.active_deployments()), (vec![], 0));
}

/// A bot may claim its slot before Coolify calls its deployment finished, and whoever waits for its end asks from then on.
/// Until the deployment is seen to its end nothing that Coolify says of the container means that it is gone.
#[tokio::test]
async fn a_deployment_that_is_under_way_ends_no_bot() {
    let shop = Workshop::with(|coolify| coolify.pace.build = Duration::from_secs(1)).await;
    let (driver, host) = (shop.driver(), here());
    for generation in 1..3 {
        let starting = tokio::spawn({
            let driver = driver.clone();
            async move { driver.start(start(1, generation)).await }
        });
        eventually("it is deployed", || shop.requests("POST", "/deploy") == generation as usize).await;
        assert_eq!(driver.inspect(&host, key(1, generation)).await, Ok(Presence::Running));
        tokio::select! {
            note = driver.wait_exit(&host, key(1, generation)) => panic!("ended while it is started: {note:?}"),
            outcome = starting => started(outcome.unwrap()),
        };
        driver.stop(stop(1, generation)).await.unwrap();
        let note = tokio::time::timeout(LIMIT, driver.wait_exit(&host, key(1, generation))).await.unwrap();
        assert!(note.is_ok(), "{note:?}");
    }
}

/// Docker restarts whatever exits: the new program is not the bot.
#[tokio::test]
async fn a_program_that_is_started_again_means_that_the_bot_is_lost() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    for generation in 1..3 {
        started(driver.start(start(1, generation)).await);
        let name = shop.running(key(1, generation))[0].name.clone();
        let waiting = tokio::spawn({
            let driver = driver.clone();
            async move { driver.wait_exit(&here(), key(1, generation)).await }
        });
        shop.containers.exit(&name);
        eventually("it is started again", || shop.starts(key(1, generation)) == 2).await;
        // What the Reconciler does once a minute: only whole rows say how often.
        let watching = async {
            loop {
                drop(listed(&driver).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let note = tokio::select! {
            note = tokio::time::timeout(LIMIT, waiting) => note.unwrap().unwrap().unwrap(),
            () = watching => unreachable!(),
        };
        assert!(note.contains("started it anew"), "{note}");
        assert_eq!(listed(&driver).await, [key(1, generation)], "somebody has to stop it");
        driver.stop(stop(1, generation)).await.unwrap();
        assert_eq!(shop.containers.running(), []);
    }
}

#[tokio::test]
async fn a_container_that_is_stopped_by_hand_is_noticed() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    let application = started(driver.start(start(1, 1)).await);
    shop.by_hand(Method::POST, &format!("/applications/{}/stop", application.0)).await;
    let note = tokio::time::timeout(LIMIT, driver.wait_exit(&here(), key(1, 1))).await.unwrap().unwrap();
    assert!(note.contains("no longer runs"), "{note}");
}

#[tokio::test]
async fn an_application_that_is_deleted_by_hand_is_made_anew() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    let application = started(driver.start(start(1, 1)).await);
    shop.by_hand(Method::DELETE, &format!("/applications/{}", application.0)).await;
    eventually("it is deleted", || shop.emulator.applications().is_empty()).await;
    driver.stop(stop(1, 1)).await.unwrap();
    let other = started(driver.start(start(1, 2)).await);
    shop.by_hand(Method::DELETE, &format!("/applications/{}", other.0)).await;
    eventually("it is deleted", || shop.emulator.applications().is_empty()).await;
    started(driver.start(start(1, 3)).await);
    assert_eq!(shop.running(key(1, 3)).len(), 1);
}

/// The words of a failed deployment are shown to tokens with `read:sensitive` only.
#[tokio::test]
async fn a_failed_deployment_fails_in_coolifys_own_words() {
    for reads in [true, false] {
        let shop = Workshop::with(|coolify| {
            if reads {
                coolify.tokens = vec![Token {
                    abilities: vec![meeboter::coolify_emulator::Ability::Root],
                    ..coolify.tokens[0].clone()
                }];
            }
        })
        .await;
        shop.containers.lose_image(IMAGE);
        let driver = shop.driver();
        let error = driver.start(start(1, 1)).await.unwrap_err();
        assert!(error.answered && error.retryable, "{error:?}");
        assert_eq!(error.message.contains("manifest unknown"), reads, "{error}");
        assert!(error.message.contains("pool-zoom-001"), "{error}");
        eventually("people see it", || {
            let row = shop.application("pool-zoom-001");
            let description = row["description"].as_str().unwrap();
            assert!(description.chars().count() <= 255, "{description}");
            description.starts_with("[ERROR] Coolify: the deployment of pool-zoom-001 failed")
        })
        .await;
        driver.stop(stop(1, 1)).await.unwrap();
    }
}
