//! What a slot goes through on an ordinary day.

use super::workshop::{
    IMAGE, Workshop, eventually, here, key, listed, slot_name, start, started, stop, token, variable,
};
use meeboter::config::Secret;
use meeboter_actors::ids::{BotId, Operation, Platform};
use meeboter_actors::ports::{Driver, Presence, ResourceLimits, StartRequest, StopRequest};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

#[tokio::test]
async fn a_slot_is_one_application_and_a_generation_one_deployment_of_it() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    for generation in 1..3 {
        let container = started(driver.start(start(1, generation)).await);
        let running = shop.running(key(1, generation));
        assert_eq!(running.len(), 1);
        assert_eq!(running[0].application, container.0);
        assert_eq!(running[0].image, IMAGE);
        assert_eq!(variable(&running[0], "POOL_SLOT_UUID"), Some(key(1, generation).slot.to_string()));
        assert_eq!(variable(&running[0], "MILO_URL").as_deref(), Some("http://127.0.0.1:9"));
        assert_eq!(running[0].environment.len(), 3, "nothing else");
        assert_eq!(listed(&driver).await, [key(1, generation)]);
        assert_eq!(driver.inspect(&here(), key(1, generation)).await, Ok(Presence::Running));
        assert_eq!(driver.start(start(1, generation)).await, Ok(container), "it runs already");
        driver.stop(stop(1, generation)).await.unwrap();
        assert_eq!(shop.containers.running(), []);
        assert_eq!(listed(&driver).await, []);
        assert_eq!(driver.inspect(&here(), key(1, generation)).await, Ok(Presence::Gone));
    }
    assert_eq!(shop.emulator.applications().len(), 1);
    assert_eq!(shop.containers.started().len(), 2);
}

#[tokio::test]
async fn people_read_in_coolify_what_the_slot_does() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    let reads = |text: &str| {
        let description = shop.application("pool-zoom-001")["description"].as_str().unwrap().to_owned();
        assert!(description.ends_with(&format!(" · {}/1", key(1, 1).slot)), "{description}");
        description.starts_with(text)
    };
    started(driver.start(start(1, 1)).await);
    eventually("it is busy", || reads("[BUSY] Bot #101 - 2")).await;
    driver.stop(stop(1, 1)).await.unwrap();
    eventually("it is idle", || reads("[IDLE] Available - Last used: 2")).await;
    let written = shop
        .emulator
        .requests()
        .iter()
        .filter(|request| request.method == "PATCH" && request.body.get("description").is_some())
        .count();
    assert_eq!(written, 2, "once for each change; the first is part of the creation");
}

#[tokio::test]
async fn limits_tag_and_labels_go_where_coolify_takes_them() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    let limits = ResourceLimits { cpu_millis: Some(1_500), memory_mib: Some(2_048), shm_mib: Some(256) };
    started(driver.start(StartRequest { limits, ..start(1, 1) }).await);
    let container = &shop.running(key(1, 1))[0];
    let got = (container.memory.as_str(), container.cpus.as_str(), container.run_options.as_str());
    assert_eq!(got, ("2048m", "1.500", "--shm-size=256m"));
    driver.stop(stop(1, 1)).await.unwrap();
    let image = "localhost:5000/other/bot:v2".to_owned();
    started(driver.start(StartRequest { image: image.clone(), ..start(1, 2) }).await);
    let container = &shop.running(key(1, 2))[0];
    assert_eq!((container.image.as_str(), container.memory.as_str()), (image.as_str(), "0"));
    assert_eq!(container.run_options, "", "limits that are gone are taken back");
    driver.stop(stop(1, 2)).await.unwrap();
    let image = format!("other/bot@sha256:{}", "0".repeat(64));
    started(driver.start(StartRequest { image: image.clone(), ..start(1, 3) }).await);
    assert_eq!(shop.running(key(1, 3))[0].image, image);
    let row = shop.application("pool-zoom-001");
    assert_eq!(row["fqdn"], json!(null), "bots have no domain");
}

#[tokio::test]
async fn a_start_behind_a_stop_makes_nothing() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    driver.stop(stop(1, 1)).await.unwrap();
    let error = driver.start(start(1, 1)).await.unwrap_err();
    assert!(error.message.contains("was stopped") && !error.retryable, "{error}");
    assert_eq!(shop.emulator.applications().len(), 0);
    started(driver.start(StartRequest { operation: Operation(16), ..start(1, 1) }).await);
}

#[tokio::test]
async fn a_late_stop_hits_only_what_it_meant() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    started(driver.start(start(1, 1)).await);
    driver.stop(stop(1, 1)).await.unwrap();
    started(driver.start(start(1, 2)).await);
    driver.stop(StopRequest { operation: Operation(12), ..stop(1, 1) }).await.unwrap();
    assert_eq!(shop.running(key(1, 2)).len(), 1);
}

#[tokio::test]
async fn a_stop_ends_a_start_that_is_under_way() {
    let shop = Workshop::with(|coolify| coolify.pace.build = Duration::from_secs(20)).await;
    let driver = shop.driver();
    let starting = tokio::spawn({
        let driver = driver.clone();
        async move { driver.start(start(1, 1)).await }
    });
    eventually("it is being deployed", || shop.emulator.active_deployments() == 1).await;
    driver.stop(stop(1, 1)).await.unwrap();
    let error = starting.await.unwrap().unwrap_err();
    assert!(error.message.contains("was stopped"), "{error}");
    assert_eq!(shop.emulator.active_deployments(), 0, "what was under way is cancelled");
    assert_eq!((shop.containers.running(), listed(&driver).await), (vec![], vec![]));
}

#[tokio::test]
async fn a_server_that_starts_anew_adopts_what_runs() {
    let shop = Workshop::new().await;
    let old = shop.driver();
    started(old.start(start(1, 1)).await);
    started(old.start(start(2, 7)).await);
    old.stop(stop(2, 7)).await.unwrap();
    drop(old);
    let new = shop.driver();
    assert_eq!(listed(&new).await, [key(1, 1)]);
    let container = started(new.start(start(1, 1)).await);
    assert_eq!(shop.running(key(1, 1))[0].application, container.0);
    assert_eq!(shop.starts(key(1, 1)), 1, "it is not deployed again");
    new.stop(stop(1, 1)).await.unwrap();
    assert_eq!(shop.containers.running(), []);
}

#[tokio::test]
async fn a_server_that_starts_anew_waits_for_what_its_predecessor_deployed() {
    let shop = Workshop::with(|coolify| coolify.pace.build = Duration::from_millis(700)).await;
    let old = shop.driver();
    let starting = tokio::spawn(async move { old.start(start(1, 1)).await });
    eventually("it is being deployed", || shop.emulator.active_deployments() == 1).await;
    starting.abort();
    started(shop.driver().start(start(1, 1)).await);
    assert_eq!((shop.running(key(1, 1)).len(), shop.starts(key(1, 1))), (1, 1));
}

#[tokio::test]
async fn two_installations_on_one_coolify_ignore_each_other() {
    let mut shop = Workshop::new().await;
    let one = shop.driver();
    started(one.start(start(1, 1)).await);
    shop.settings.installation = uuid::Uuid::new_v4();
    let other = shop.driver();
    assert_eq!(listed(&other).await, []);
    other.stop(stop(1, 1)).await.unwrap();
    started(other.start(start(2, 1)).await);
    assert_eq!((listed(&one).await, listed(&other).await), (vec![key(1, 1)], vec![key(2, 1)]));
    assert_eq!(shop.containers.running().len(), 2);
}

#[tokio::test]
async fn an_ephemeral_bot_has_an_application_of_its_own() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    started(driver.start(StartRequest { ephemeral: true, bot_id: BotId(42), ..start(1, 1) }).await);
    assert_eq!(shop.named("meeboter-bot-42").len(), 1);
    assert_eq!(shop.named(&slot_name(1).0).len(), 0);
    let created =
        shop.emulator.requests().into_iter().find(|request| request.path == "/applications/dockerimage");
    assert_eq!(created.unwrap().body["instant_deploy"], json!(false), "its environment comes first");
    driver.stop(stop(1, 1)).await.unwrap();
    eventually("it is deleted", || shop.emulator.applications().is_empty()).await;
    assert_eq!(shop.containers.running(), []);
}

/// Its application is found by the bot's name, whatever slot the bot is in.
#[tokio::test]
async fn a_slow_stop_leaves_the_same_bot_in_another_slot_alone() {
    let shop = Workshop::with(|coolify| coolify.pace.stop = Duration::from_secs(1)).await;
    let driver = shop.driver();
    let of_bot_5 = |slot| StartRequest { ephemeral: true, bot_id: BotId(5), ..start(slot, 1) };
    started(driver.start(of_bot_5(1)).await);
    let stopping = tokio::spawn({
        let driver = driver.clone();
        async move { driver.stop(stop(1, 1)).await }
    });
    eventually("it is being stopped", || shop.requests("POST", "/stop") == 1).await;
    started(driver.start(of_bot_5(2)).await);
    stopping.await.unwrap().unwrap();
    driver.stop(StopRequest { operation: Operation(16), ..stop(1, 1) }).await.unwrap();
    eventually("nothing of the first is left", || shop.emulator.applications().len() == 1).await;
    assert_eq!((shop.running(key(1, 1)), shop.running(key(2, 1)).len()), (vec![], 1));
    assert_eq!(listed(&driver).await, [key(2, 1)]);
}

#[tokio::test]
async fn bots_of_the_older_design_get_storage_keys_where_that_is_wished() {
    let mut shop = Workshop::new().await;
    let secret = ("S3_SECRET_KEY".to_owned(), Secret::from("$ecret"));
    shop.settings.legacy_environment = BTreeMap::from([(Platform("zoom".to_owned()), vec![secret])]);
    let driver = shop.driver();
    started(driver.start(start(1, 1)).await);
    assert_eq!(variable(&shop.running(key(1, 1))[0], "S3_SECRET_KEY").as_deref(), Some("$ecret"));
    let platform = Platform("google-meet".to_owned());
    started(driver.start(StartRequest { platform, ..start(2, 1) }).await);
    assert_eq!(variable(&shop.running(key(2, 1))[0], "S3_SECRET_KEY"), None);
    assert_eq!(variable(&shop.running(key(2, 1))[0], "MILO_AUTH_TOKEN"), Some(token(key(2, 1))));
}

#[tokio::test]
async fn storage_keys_are_taken_back_where_they_are_not_wished_any_more() {
    let mut shop = Workshop::new().await;
    let secret = ("S3_SECRET_KEY".to_owned(), Secret::from("$ecret"));
    shop.settings.legacy_environment = BTreeMap::from([(Platform("zoom".to_owned()), vec![secret])]);
    let driver = shop.driver();
    let application = started(driver.start(start(1, 1)).await);
    driver.stop(stop(1, 1)).await.unwrap();
    shop.settings.legacy_environment.clear();
    let driver = shop.driver();
    for generation in 2..4 {
        started(driver.start(start(1, generation)).await);
        let running = shop.running(key(1, generation));
        assert_eq!((running.len(), variable(&running[0], "S3_SECRET_KEY")), (1, None));
        driver.stop(stop(1, generation)).await.unwrap();
    }
    assert_eq!(shop.requests("GET", "/envs"), 1, "it is asked once");
    let path = format!("/applications/{}/envs", application.0);
    let left = shop.by_hand(reqwest::Method::GET, &path).await;
    assert!(left.as_array().unwrap().iter().all(|row| row["key"] != "S3_SECRET_KEY"), "{left}");
}

#[tokio::test]
async fn logs_are_there_while_the_container_runs() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    assert_eq!(driver.logs(&here(), key(1, 1), 5).await, Ok(vec![]));
    started(driver.start(start(1, 1)).await);
    assert_eq!(driver.logs(&here(), key(1, 1), 5).await, Ok(vec!["simulated container started".to_owned()]));
    driver.stop(stop(1, 1)).await.unwrap();
    assert_eq!(driver.logs(&here(), key(1, 1), 5).await, Ok(vec![]));
}
