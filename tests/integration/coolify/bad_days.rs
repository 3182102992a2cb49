//! Days when Coolify answers late, wrongly, or not at all, or is restarted in the middle.

use super::workshop::{Workshop, eventually, here, http, key, listed, start, started, stop};
use chrono::{TimeDelta, Utc};
use meeboter::coolify_emulator::{Emulator, Trouble};
use meeboter_actors::ids::BotId;
use meeboter_actors::ports::{Driver, Presence, StartRequest, StopRequest};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Every request of a bot's life, and what befalls it.
const ROUTES: [(&str, &str); 6] = [
    ("POST", "/applications/dockerimage"),
    ("PATCH", "/envs/bulk"),
    ("POST", "/deploy"),
    ("GET", "/deployments"),
    ("POST", "/stop"),
    ("GET", "/resources"),
];

/// A bot's life with a trouble at every step; at the end there is one application, and each generation was started once.
async fn lives_through(trouble: Trouble) {
    let mut shop = Workshop::new().await;
    shop.settings.pace.answer_limit = Duration::from_millis(400);
    for (method, path) in ROUTES {
        shop.fault(method, path, trouble, 1);
    }
    let driver = shop.driver();
    started(driver.start(start(1, 1)).await);
    assert_eq!(shop.running(key(1, 1)).len(), 1);
    driver.stop(stop(1, 1)).await.unwrap();
    assert_eq!(shop.containers.running(), []);
    for (method, path) in [("POST", "/deploy"), ("PATCH", "")] {
        shop.fault(method, path, trouble, 1);
    }
    started(driver.start(start(1, 2)).await);
    assert_eq!(shop.running(key(1, 2)).len(), 1);
    assert_eq!((shop.starts(key(1, 1)), shop.starts(key(1, 2))), (1, 1), "nothing is deployed twice");
    assert_eq!(shop.emulator.applications().len(), 1, "nothing is made twice");
    driver.stop(stop(1, 2)).await.unwrap();
}

#[tokio::test]
async fn a_500_at_every_step() {
    lives_through(Trouble::ServerError).await;
}

#[tokio::test]
async fn a_500_at_every_step_though_it_was_done() {
    lives_through(Trouble::ServerErrorAfter).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_at_every_step() {
    lives_through(Trouble::CutBefore).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_after_coolify_acted() {
    lives_through(Trouble::CutAfter).await;
}

#[tokio::test]
async fn no_answer_at_every_step() {
    lives_through(Trouble::Silence).await;
}

#[tokio::test]
async fn a_proxys_page_at_every_step() {
    lives_through(Trouble::ProxyPage).await;
}

/// Traefik answers so for everything until it has read its routes.
#[tokio::test]
async fn a_proxys_404_at_every_step() {
    lives_through(Trouble::ProxyNotFound).await;
}

/// Somebody who does not know Coolify's applications does not know that one is gone.
#[tokio::test]
async fn a_proxys_404_frees_no_slot() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    started(driver.start(start(1, 1)).await);
    for (method, path) in [("POST", "/stop"), ("GET", "")] {
        shop.fault(method, path, Trouble::ProxyNotFound, 1_000);
    }
    let error = driver.stop(stop(1, 1)).await.unwrap_err();
    assert!(!error.answered && error.retryable, "{error:?}");
    assert_eq!(shop.running(key(1, 1)).len(), 1);
    let looked = driver.inspect(&here(), key(1, 1)).await;
    assert!(looked.is_err(), "{looked:?}");
    shop.emulator.mend();
    assert_eq!(listed(&driver).await, [key(1, 1)]);
    driver.stop(stop(1, 1)).await.unwrap();
    assert_eq!(shop.containers.running(), []);
}

#[tokio::test]
async fn a_429_at_every_step() {
    lives_through(Trouble::TooManyRequests).await;
}

#[tokio::test]
async fn another_client_that_spends_the_limit_is_waited_for() {
    let mut shop = Workshop::with(|coolify| {
        (coolify.rate_limit, coolify.rate_window) = (60, Duration::from_secs(1));
    })
    .await;
    shop.settings.pace.rate_window = Duration::from_secs(1);
    let driver = shop.driver();
    started(driver.start(start(1, 1)).await);
    shop.emulator.exhaust_rate();
    let before = shop.emulator.requests().len();
    driver.stop(stop(1, 1)).await.unwrap();
    assert_eq!(shop.containers.running(), []);
    let refused = shop.emulator.requests()[before..].iter().filter(|request| request.status == 429).count();
    assert!((1..=3).contains(&refused), "Retry-After is heeded: {refused} refusals");
}

/// Whoever waits for a turn of its own has not been kept waiting by Coolify, and says so before anybody takes it for silence.
#[tokio::test]
async fn a_look_that_gets_no_turn_is_no_silence_of_coolifys() {
    let mut shop = Workshop::new().await;
    shop.settings.pace.look_patience = Duration::from_millis(300);
    let driver = shop.driver();
    started(driver.start(start(1, 1)).await);
    shop.emulator.exhaust_rate();
    let began = Instant::now();
    let host = here();
    let (list, inspect, logs) =
        tokio::join!(driver.list(&host), driver.inspect(&host, key(1, 1)), driver.logs(&host, key(1, 1), 5));
    for error in [list.map(drop), inspect.map(drop), logs.map(drop)].map(Result::unwrap_err) {
        assert!(error.answered && error.retryable && error.message.contains("not sent"), "{error:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{} ms", began.elapsed().as_millis());
}

#[tokio::test]
async fn a_storm_of_429s_loses_nobody() {
    let mut shop = Workshop::with(|coolify| {
        (coolify.rate_limit, coolify.rate_window) = (40, Duration::from_secs(1));
    })
    .await;
    shop.settings.pace.rate_window = Duration::from_secs(1);
    let driver = shop.driver();
    let starts = (1..9).map(|slot| {
        let driver = driver.clone();
        tokio::spawn(async move { driver.start(start(slot, 1)).await })
    });
    for outcome in starts.collect::<Vec<_>>() {
        started(outcome.await.unwrap());
    }
    assert_eq!(shop.containers.running().len(), 8);
    assert_eq!(shop.containers.started().len(), 8);
}

#[tokio::test]
async fn a_listing_that_fails_is_no_empty_one_and_deletes_nothing() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    started(driver.start(start(1, 1)).await);
    started(driver.start(start(2, 1)).await);
    driver.stop(stop(2, 1)).await.unwrap();
    let later = Utc::now() + TimeDelta::days(1);
    for trouble in [Trouble::ServerError, Trouble::ProxyPage, Trouble::CutAfter] {
        shop.fault("GET", "/applications", trouble, 6);
        assert!(driver.list(&here()).await.is_err());
        assert!(driver.sweep(&here(), &BTreeSet::new(), later).await.is_err());
        shop.emulator.mend();
        assert!(shop.emulator.applications().len() == 2 && shop.requests("DELETE", "") == 0);
    }
    shop.fault("GET", "/resources", Trouble::ServerError, 3);
    assert!(driver.inspect(&here(), key(1, 1)).await.is_err());
    shop.emulator.mend();
    assert_eq!(listed(&driver).await, [key(1, 1)]);
}

/// Its application is asked for by name before it counts as deleted.
#[tokio::test]
async fn a_listing_that_lacks_an_application_ends_no_bot() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    let container = started(driver.start(start(1, 1)).await);
    shop.fault("GET", "/applications", Trouble::EmptyList, 1);
    assert_eq!(listed(&driver).await, [key(1, 1)]);
    let new = shop.driver();
    shop.fault("GET", "/applications", Trouble::EmptyList, 1);
    let waited = tokio::time::timeout(Duration::from_millis(500), new.wait_exit(&here(), key(1, 1))).await;
    assert!(waited.is_err(), "also by a server that remembers nothing: {waited:?}");
    for (generation, stopping) in (1..).zip([driver.clone(), shop.driver()]) {
        started(driver.start(start(1, generation)).await);
        shop.fault("GET", "/applications", Trouble::EmptyList, 1_000);
        let container = Some(container.clone());
        stopping.stop(StopRequest { container, ..stop(1, generation) }).await.unwrap();
        assert_eq!(shop.containers.running(), [], "a stop looks at the application itself");
        shop.emulator.mend();
    }
}

/// What `container` names may be another slot's by now.
#[tokio::test]
async fn a_stop_by_the_containers_name_hits_only_what_it_meant() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    let container = started(driver.start(start(1, 1)).await);
    driver.stop(stop(1, 1)).await.unwrap();
    started(driver.start(start(1, 2)).await);
    for driver in [driver, shop.driver()] {
        let late = StopRequest { container: Some(container.clone()), ..stop(1, 1) };
        driver.stop(late).await.unwrap();
        assert_eq!(shop.running(key(1, 2)).len(), 1);
    }
}

/// Coolify's list of what is on the server may lack an application, or be of another server.
#[tokio::test]
async fn a_list_of_resources_without_an_application_does_not_mean_that_it_is_gone() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    started(driver.start(start(1, 1)).await);
    shop.fault("GET", "/resources", Trouble::EmptyList, 1);
    assert_eq!(driver.inspect(&here(), key(1, 1)).await, Ok(Presence::Running));
}

#[tokio::test]
async fn a_sweep_deletes_what_is_old_stopped_and_wanted_by_nobody() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    for slot in 1..4 {
        started(driver.start(start(slot, 1)).await);
    }
    driver.stop(stop(2, 1)).await.unwrap();
    driver.stop(stop(3, 1)).await.unwrap();
    let (ago, later) = (Utc::now() - TimeDelta::days(1), Utc::now() + TimeDelta::days(1));
    let wanted = BTreeSet::from([key(3, 1)]);
    // A server that remembers nothing: only Coolify's word counts.
    for driver in [driver, shop.driver()] {
        assert_eq!(driver.sweep(&here(), &wanted, ago).await, Ok(0));
    }
    let driver = shop.driver();
    assert_eq!(driver.sweep(&here(), &wanted, later).await, Ok(1));
    eventually("it is gone", || shop.emulator.applications().len() == 2).await;
    assert_eq!((shop.named("pool-zoom-002").len(), shop.running(key(1, 1)).len()), (0, 1));
}

#[tokio::test]
async fn coolify_is_restarted_in_the_middle() {
    let shop = Workshop::with(|coolify| coolify.pace.build = Duration::from_millis(600)).await;
    let driver = shop.driver();
    let starts: Vec<_> = (1..4)
        .map(|slot| {
            let driver = driver.clone();
            tokio::spawn(async move { driver.start(start(slot, 1)).await })
        })
        .collect();
    eventually("they are being deployed", || shop.emulator.active_deployments() >= 2).await;
    shop.emulator.restart();
    let mut failed = 0;
    for (slot, outcome) in (1..).zip(starts) {
        if let Err(error) = outcome.await.unwrap() {
            assert!(error.retryable, "{error}");
            failed += 1;
            started(driver.start(start(slot, 1)).await);
        }
    }
    assert!(failed >= 2, "{failed} starts were under way");
    assert_eq!(shop.containers.running().len(), 3);
}

#[tokio::test]
async fn an_ephemeral_application_that_could_not_be_deleted_is_deleted_later() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    started(driver.start(StartRequest { ephemeral: true, bot_id: BotId(5), ..start(1, 1) }).await);
    shop.fault("DELETE", "", Trouble::ServerError, 3);
    driver.stop(stop(1, 1)).await.unwrap();
    assert_eq!(shop.named("meeboter-bot-5").len(), 1);
    assert_eq!(listed(&driver).await, []);
    eventually("it is deleted", || shop.emulator.applications().is_empty()).await;
}

#[tokio::test]
async fn an_engine_that_is_away_has_not_answered() {
    let mut shop = Workshop::new().await;
    shop.settings.url = "http://127.0.0.1:1".to_owned();
    let driver = shop.driver();
    let began = Instant::now();
    let error = driver.list(&here()).await.unwrap_err();
    assert!(!error.answered && error.retryable && began.elapsed() < Duration::from_secs(20), "{error:?}");
    assert!(!error.message.contains("a-token-of-tests"), "{error}");
}

/// The emulator may be told to be bad from outside, as somebody does who tries Meeboter with it.
#[tokio::test]
async fn faults_are_switched_on_from_outside() {
    let shop = Workshop::new().await;
    let client = http();
    let url = |emulator: &Emulator, switch: &str| format!("{}/emulator/{switch}", emulator.url());
    let fault = serde_json::json!({ "method": "GET", "path": "/applications", "trouble": "server_error", "times": 9 });
    let switched = client.post(url(&shop.emulator, "faults")).json(&fault).send().await.unwrap();
    assert!(switched.status().is_success());
    assert!(shop.driver().list(&here()).await.is_err());
    client.delete(url(&shop.emulator, "faults")).send().await.unwrap();
    assert!(shop.driver().list(&here()).await.is_ok());
}
