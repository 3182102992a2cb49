//! Images brought to the server ahead of need.

use super::workshop::{IMAGE, Workshop, eventually, here, listed, start, started, variable};
use meeboter_actors::ports::{Driver, PullProgress};
use tokio::sync::watch;

#[tokio::test]
async fn an_image_is_pulled_by_deploying_a_parked_application_once() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    let (progress, seen) = watch::channel(PullProgress::default());
    driver.pull(&here(), IMAGE, progress).await.unwrap();
    assert!(seen.borrow().done > 0, "it gets on");
    assert_eq!(shop.containers.pulled(), [IMAGE]);
    assert_eq!(shop.containers.running(), [], "it is parked");
    assert_eq!(listed(&driver).await, [], "and nobody's bot");
    let parked = shop.containers.started().remove(0);
    assert_eq!(variable(&parked, "POOL_SLOT_UUID").as_deref(), Some("00000000-0000-0000-0000-000000000000"));
    let applications = shop.emulator.applications();
    assert!(applications[0]["name"].as_str().unwrap().starts_with("meeboter-prewarm-zoom-bot-"));
    let (progress, _) = watch::channel(PullProgress::default());
    driver.pull(&here(), IMAGE, progress).await.unwrap();
    assert_eq!(shop.emulator.applications().len(), 1, "the same one every time");
}

#[tokio::test]
async fn an_image_that_a_bot_runs_on_is_there() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    started(driver.start(start(1, 1)).await);
    let (progress, _) = watch::channel(PullProgress::default());
    driver.pull(&here(), IMAGE, progress).await.unwrap();
    assert_eq!(shop.emulator.applications().len(), 1);
}

#[tokio::test]
async fn an_image_that_is_missing_fails_the_pull_and_leaves_nothing_running() {
    let shop = Workshop::new().await;
    shop.containers.lose_image(IMAGE);
    let driver = shop.driver();
    let (progress, _) = watch::channel(PullProgress::default());
    let error = driver.pull(&here(), IMAGE, progress).await.unwrap_err();
    assert!(error.message.contains("failed"), "{error}");
    assert_eq!(shop.containers.running(), []);
    eventually("nothing is under way", || shop.emulator.active_deployments() == 0).await;
}
