//! The dashboard in a real browser, against the real server, with real bots.

use crate::support::browser::Browser;
use crate::support::frozen::Frozen;
use crate::support::postgres::{fresh_database, operators_key, url_of};
use crate::support::server::Server;
use reqwest::StatusCode;
use serde_json::json;

const SLOT: &str = "slot-pool-rehearsal-001";
/// Notes every state that the tiles and the bots show.
const WATCH: &str = "(() => {
    window.seen = [];
    const note = () => {
        for (const part of document.querySelectorAll('.tile, #bot-rows .row')) {
            const state = `${part.dataset.testid} ${part.dataset.status ?? part.dataset.state}`;
            if (!seen.includes(state)) seen.push(state);
        }
    };
    note();
    new MutationObserver(note).observe(document.body, { subtree: true, childList: true, attributes: true });
})()";

/// Sees that these were shown, in this order.
async fn saw(browser: &Browser, states: &[String]) {
    let seen: Vec<String> = browser.look("window.seen").await.unwrap();
    let places: Vec<_> = states.iter().map(|state| seen.iter().position(|shown| shown == state)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{states:?} in {seen:?}");
}

async fn sign_in(browser: &Browser, server: &Server) {
    browser.open(&server.url("/")).await;
    browser.wait_text("sign-in", "Sign in to Meeboter").await;
    browser.pictures("door").await;
    browser.type_into("api-key", "mb_wrong").await;
    browser.press("sign-in-submit").await;
    browser.wait_text("sign-in-error", "not known").await;
    // What was wrong is selected: what is typed takes its place.
    browser.wait("document.activeElement.id === 'api-key'").await;
    browser.insert(&server.key()).await;
    browser.press("sign-in-submit").await;
    wait_live(browser).await;
    browser.wait_text("connection", "Live").await;
    browser.wait_text("user-name", "admin").await;
}

async fn wait_live(browser: &Browser) {
    browser.wait_attribute("connection", "data-state", "live").await;
}

/// Types a key at the door.
async fn enter(browser: &Browser, key: &str) {
    browser.type_into("api-key", key).await;
    browser.press("sign-in-submit").await;
}

/// Waits until the table has these rows, no more and no fewer.
async fn wait_rows(browser: &Browser, ids: &[i64]) {
    let shown = "[...document.querySelectorAll('#bot-rows .row')].map((row) => row.dataset.testid).join()";
    let wanted: Vec<String> = ids.iter().map(|id| format!("bot-{id}")).collect();
    browser.wait(&format!("{shown} === '{}'", wanted.join(","))).await;
}

/// Waits until a row shows a state.
async fn wait_row(browser: &Browser, bot: i64, state: &str) {
    browser.wait_attribute(&format!("bot-{bot}"), "data-state", state).await;
}

#[tokio::test]
async fn the_dashboard_follows_bots_and_comes_back_after_a_crash() {
    let mut server = Server::start(&[("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "2")]).await;
    let browser = Browser::start("dashboard").await;
    sign_in(&browser, &server).await;
    browser.pictures("empty").await;
    browser.look::<()>(WATCH).await;

    // A first bot by the rehearsal that the dialog offers, a second one by an address.
    browser.press("send-bot").await;
    browser.press("rehearsal-preset").await;
    browser.pictures("send").await;
    browser.press("send-submit").await;
    browser.wait("!document.querySelector('#send').open").await;
    browser.wait_attribute(SLOT, "data-status", "busy").await;
    browser.press("send-bot").await;
    browser
        .type_into("send-url", &server.meeting("second", "admitAfterMs=500&guests=2&lengthMs=600000"))
        .await;
    browser.press("send-submit").await;
    wait_row(&browser, 1, "RECORDING").await;
    wait_row(&browser, 2, "RECORDING").await;
    for state in ["deploying", "busy"].map(|status| format!("{SLOT} {status}")).windows(2) {
        saw(&browser, state).await;
    }
    let life = ["DEPLOYING", "JOINING_CALL", "IN_WAITING_ROOM", "IN_CALL", "RECORDING"];
    saw(&browser, &life.map(|state| format!("bot-1 {state}"))).await;

    // A third one waits behind somebody else's, until it is called back.
    let other = server.visitor(&server.pool().await, "somebody").await;
    let others_bot = other.send_bot("not-yours").await;
    let third = server.send_bot("third", "").await;
    browser.wait_text("queue-length", "2").await;
    browser.wait_text("queue-others-rehearsal", "and one more, somebody else’s").await;
    browser.wait_text(&format!("queued-{third}"), "2").await;
    browser.wait(&format!("!document.body.innerText.includes('not-yours') && {others_bot} > 0")).await;
    browser.pictures("busy").await;
    browser.resize(390, 844).await;
    browser.pictures("narrow").await;
    browser.resize(1280, 900).await;
    browser.press(&format!("queue-cancel-{third}")).await;
    browser.wait_text(&format!("bot-{third}"), "Cancelled").await;
    // It was never in the meeting: what it did not record is no failure.
    browser.wait_attribute(&format!("bot-{third}"), "data-recording-state", "failed").await;
    browser.wait("!document.body.innerText.includes('Recording failed')").await;
    let (status, _) = other.post(&format!("/api/bots/{others_bot}/cancel"), &json!({})).await;
    assert!(status.is_success());
    browser.wait_text("queue-length", "0").await;

    // The first leaves when asked to, and its recording can be played.
    browser.press("leave-1").await;
    wait_row(&browser, 1, "DONE").await;
    browser.wait_attribute("bot-1", "data-recording-state", "ready").await;
    browser.wait_text("bot-1", "Left when asked to").await;
    browser.press("recording-1").await;
    let plays = "document.querySelector('video')?.duration > 1";
    browser.wait_tab("/meeboter-recordings/bots/1/recordings/", plays).await;
    browser.press("detail-1").await;
    browser.wait("document.querySelector('[data-event=\"RECORDING\"]') !== null").await;
    browser.pictures("detail").await;
    browser.look::<()>("document.querySelector('#detail').close()").await;

    // The server crashes. The page says so, and comes back by itself with everything that was there.
    server.kill();
    browser.wait_attribute("board", "data-fresh", "no").await;
    browser.wait_text("connection", "Reconnecting").await;
    browser.wait_text("connection", "last news").await;
    browser.pictures("reconnecting").await;
    server.spawn();
    server.wait_ready().await;
    browser.wait_attribute("board", "data-fresh", "yes").await;
    browser.wait_text("connection", "Live").await;
    browser.wait_attribute("bot-1", "data-recording-state", "ready").await;
    wait_row(&browser, 2, "RECORDING").await;
    browser.press("leave-2").await;
    wait_row(&browser, 2, "DONE").await;
    browser.wait_attribute("bot-2", "data-recording-state", "ready").await;
    assert_eq!(browser.faults().await, Vec::<String>::new());

    // Who comes now for the first time sees the same.
    browser.open(&server.url("/")).await;
    browser.wait_text("connection", "Live").await;
    for bot in [1, 2] {
        browser.wait_attribute(&format!("bot-{bot}"), "data-recording-state", "ready").await;
    }
    browser.pictures("ended").await;
    assert_eq!(browser.faults().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_server_that_stands_by_says_so_and_claims_nothing() {
    let database = fresh_database().await;
    let url = url_of(&database);
    let settings = [("DATABASE_URL", url.as_str()), ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "0")];
    let mut leader = Server::start(&settings).await;
    let mut standby = Server::spawned(&settings);
    standby.wait_alive().await;
    leader.send_bot("waiting", "").await;

    let browser = Browser::start("standby").await;
    browser.open(&standby.url("/")).await;
    enter(&browser, &operators_key(&database).await).await;
    browser.wait_attribute("connection", "data-state", "standby").await;
    browser.wait_text("connection", "This server stands by").await;
    browser.wait_text("queue-length", "–").await;
    browser.pictures("standby").await;
    for nothing in ["no-queue", "no-slots", "no-bots"] {
        browser.wait(&format!("document.querySelector('#{nothing}').hidden")).await;
    }
    leader.kill();
    wait_live(&browser).await;
    browser.wait_text("queue-length", "1").await;
    assert_eq!(browser.faults().await, Vec::<String>::new());
}

/// Older bots than those the page keeps by itself.
const OLDER: i64 = 1_250;

#[tokio::test]
async fn older_bots_are_shown_page_by_page_as_far_as_there_are_any() {
    let server = Server::start(&[("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "0")]).await;
    let first = server.send_bot("first", "").await;
    let (status, bot) = server.post(&format!("/api/bots/{first}/cancel"), &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{bot}");
    server
        .edit(&format!(
            "INSERT INTO bots SELECT (jsonb_populate_record(bots, jsonb_build_object('id', 1000 + number))).* \
             FROM bots, generate_series(1, {OLDER}) AS number WHERE id = {first}"
        ))
        .await;
    // Newest first.
    let all: Vec<i64> = (1_001..=1_000 + OLDER).rev().chain([first]).collect();
    let browser = Browser::start("older").await;
    browser.open(&server.url("/")).await;
    enter(&browser, &server.key()).await;
    wait_live(&browser).await;
    for shown in [200, 300] {
        browser.press("more-bots").await;
        wait_rows(&browser, &all[..shown]).await;
    }

    // Who comes next begins anew.
    browser.press("sign-out").await;
    enter(&browser, &server.key()).await;
    wait_live(&browser).await;
    wait_rows(&browser, &all[..100]).await;
    browser.look::<()>("performance.clearResourceTimings()").await;
    let mut shown = 100;
    while shown < all.len() {
        browser.press("more-bots").await;
        shown = all.len().min(shown + 100);
        wait_rows(&browser, &all[..shown]).await;
    }
    browser.wait("document.querySelector('#more-bots').hidden").await;
    let asked =
        "performance.getEntriesByType('resource').filter(({ name }) => name.includes('?page=')).length";
    let asked: usize = browser.look(asked).await.unwrap();
    assert_eq!(asked, all.len().div_ceil(100) - 1, "a page of the list for each press");
    assert_eq!(browser.faults().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_dead_line_is_noticed_whatever_becomes_of_the_browsers_clock() {
    let server = Server::start(&[]).await;
    let browser = Browser::start("clock").await;
    browser.open(&server.url("/")).await;
    enter(&browser, &server.key()).await;
    wait_live(&browser).await;
    browser
        .look::<()>("(() => { const now = Date.now.bind(Date); Date.now = () => now() - 3_600_000; })()")
        .await;
    let frozen = Frozen::process(i32::try_from(server.pid()).unwrap());
    browser.wait_attribute("connection", "data-state", "stale").await;
    browser.wait_text("connection", "last news 1").await;
    browser.wait_attribute("connection", "data-state", "waiting").await;
    drop(frozen);
    wait_live(&browser).await;
}
