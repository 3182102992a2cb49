//! Many at once.

use super::workshop::{LIMIT, Workshop, here, key, start, started, stop};
use meeboter_actors::ports::Driver;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const BOTS: u32 = 50;

/// Coolify does two at a time and drops what is past its queue without a word; here nobody is dropped.
#[tokio::test]
async fn fifty_bots_asked_for_at_once_on_a_fresh_pool_all_run() {
    let shop = Workshop::new().await;
    let driver = shop.driver();
    let starts: Vec<_> = (1..=BOTS)
        .map(|slot| {
            let driver = driver.clone();
            tokio::spawn(async move { driver.start(start(slot, 1)).await })
        })
        .collect();
    let mut waiting_most = 0;
    let watch = async {
        loop {
            waiting_most = waiting_most.max(shop.emulator.active_deployments());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let all = async {
        for outcome in starts {
            started(outcome.await.unwrap());
        }
    };
    tokio::select! {
        () = all => {}
        () = watch => unreachable!(),
    }
    let running: BTreeSet<_> = shop.containers.running().into_iter().map(|spec| spec.application).collect();
    assert_eq!(running.len(), BOTS as usize, "each has an application of its own");
    assert_eq!(shop.containers.started().len(), BOTS as usize, "none was started twice");
    for slot in 1..=BOTS {
        assert_eq!(shop.running(key(slot, 1)).len(), 1, "bot {slot}");
    }
    let refused: Vec<_> =
        shop.emulator.requests().into_iter().filter(|request| request.status >= 400).collect();
    assert_eq!(refused, [], "Coolify refused nothing");
    assert!(waiting_most <= 3, "never more than fit: {waiting_most} were there");
    let stops: Vec<_> = (1..=BOTS)
        .map(|slot| {
            let driver = driver.clone();
            tokio::spawn(async move { driver.stop(stop(slot, 1)).await })
        })
        .collect();
    for outcome in stops {
        outcome.await.unwrap().unwrap();
    }
    assert_eq!(shop.containers.running(), []);
}

/// A whole pool is watched with one request a look.
#[tokio::test]
async fn many_waits_share_one_look() {
    let mut shop = Workshop::new().await;
    shop.settings.pace.status_poll = Duration::from_millis(200);
    let driver = shop.driver();
    for slot in 1..11 {
        started(driver.start(start(slot, 1)).await);
    }
    let before = shop.requests("GET", "/resources");
    let began = Instant::now();
    let waits: Vec<_> = (1..11)
        .map(|slot| {
            let driver = driver.clone();
            tokio::spawn(async move { driver.wait_exit(&here(), key(slot, 1)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let looks = shop.requests("GET", "/resources") - before;
    let rounds = usize::try_from(began.elapsed().as_millis() / 200).unwrap() + 2;
    assert!((2..=rounds).contains(&looks), "{looks} looks in {rounds} rounds");
    waits.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The budget is shared by everything, and stops come first.
#[tokio::test]
async fn a_stop_is_not_held_up_by_looks() {
    let mut shop = Workshop::with(|coolify| coolify.rate_limit = 40).await;
    shop.settings.pace.requests_per_minute = 40;
    shop.settings.pace.status_poll = Duration::from_millis(20);
    shop.settings.pace.deployment_poll = Duration::from_millis(150);
    let driver = shop.driver();
    started(driver.start(start(1, 1)).await);
    started(driver.start(start(2, 1)).await);
    let watching = tokio::spawn({
        let driver = driver.clone();
        async move { driver.wait_exit(&here(), key(2, 1)).await }
    });
    let spent = || shop.emulator.requests().len();
    let deadline = Instant::now() + LIMIT;
    while spent() < 28 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(spent(), 28, "looks leave three tenths of the limit free");
    let began = Instant::now();
    driver.stop(stop(1, 1)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "the stop took {} ms", began.elapsed().as_millis());
    assert_eq!(shop.running(key(1, 1)), []);
    assert!(shop.emulator.requests().iter().all(|request| request.status != 429));
    watching.abort();
}
