//! Whole servers whose bots are containers.

use crate::support::dockerd::Dockerd;
use crate::support::scripted_bot;
use crate::support::server::Server;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// A server on an engine of its own, with so many slots for bots that attend until they are told to leave.
async fn server_on(dockerd: &Dockerd, slots: &str) -> Server {
    scripted_bot::import_all(dockerd);
    Server::start(&[
        ("MEEBOTER_DRIVER__KIND", "docker"),
        ("MEEBOTER_DOCKER__NETWORK", "host"),
        ("MEEBOTER_HOSTS__LOCAL__DOCKER_URL", &dockerd.host()),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", slots),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__IMAGE", &scripted_bot::reference("attend")),
        // These bots do not hear a signal: whoever must be stopped is killed.
        ("MEEBOTER_BOTS__STOP_GRACE_MS", "200"),
        ("MEEBOTER_BOTS__RECOVERY_DELAY_MS", "500"),
    ])
    .await
}

pub(super) async fn send(server: &Server, count: usize) -> Vec<i64> {
    join_all((0..count).map(async |number| server.send_bot(&format!("meeting-{number}"), "").await)).await
}

pub(super) async fn wait_all(server: &Server, ids: &[i64], states: &[&str]) {
    for id in ids {
        server.wait_state(*id, 2 * MINUTE, states).await;
    }
}

pub(super) async fn leave(server: &Server, ids: &[i64]) {
    let told = ids
        .iter()
        .map(async |id| server.post(&format!("/api/bots/{id}/remove-from-call"), &json!({})).await.0);
    assert!(join_all(told).await.into_iter().all(|status| status == StatusCode::OK));
    wait_all(server, ids, &["DONE", "FATAL"]).await;
    for id in ids {
        let bot = server.bot(*id).await;
        assert_eq!((&bot["state"], &bot["endReason"]), (&json!("DONE"), &json!("left_by_request")), "{bot}");
    }
}

/// The ids of the containers in a state.
pub(super) fn containers(dockerd: &Dockerd, state: &str) -> BTreeSet<String> {
    let filter = format!("status={state}");
    let listed = dockerd.run(&["ps", "--all", "--no-trunc", "--quiet", "--filter", &filter]);
    listed.lines().map(str::to_owned).collect()
}

/// Waits until every slot is free and has the container for its next bot, and sees that there are no others.
pub(super) async fn wait_tidy(server: &Server, dockerd: &Dockerd, slots: u64) {
    server.wait_slots(2 * MINUTE, "idle", slots).await;
    let deadline = Instant::now() + MINUTE;
    loop {
        let all = dockerd.run(&["ps", "--all", "--quiet"]).lines().count() as u64;
        if all == slots && containers(dockerd, "created").len() as u64 == slots {
            return;
        }
        let shown = dockerd.run(&["ps", "--all"]);
        assert!(Instant::now() < deadline, "not one prepared container a slot:\n{shown}\n{}", server.log());
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test]
async fn fifty_slots_are_churned_at_once() {
    let dockerd = Dockerd::start().await;
    let server = server_on(&dockerd, "50").await;
    let mut seen = BTreeSet::new();
    for round in 0..2 {
        let ids = send(&server, 50).await;
        wait_all(&server, &ids, &["IN_CALL"]).await;
        let running = containers(&dockerd, "running");
        assert_eq!(running.len(), 50, "round {round}");
        assert!(seen.is_disjoint(&running), "a container had two bots");
        seen.extend(running);
        leave(&server, &ids).await;
        wait_tidy(&server, &dockerd, 50).await;
    }
}

#[tokio::test]
async fn a_killed_server_adopts_every_container_and_leaves_none_over() {
    let dockerd = Dockerd::start().await;
    let mut server = server_on(&dockerd, "20").await;
    let ids = send(&server, 20).await;
    wait_all(&server, &ids, &["IN_CALL"]).await;
    let before = containers(&dockerd, "running");
    server.kill();
    server.spawn();
    server.wait_ready().await;
    for id in &ids {
        assert_eq!(server.bot(*id).await["state"], "IN_CALL");
    }
    // A recovery, which lists everything, stops none.
    let (listed, _) = server.post("/api/admin/reconcile", &json!({})).await;
    assert!(listed.is_success(), "{listed}");
    assert_eq!(containers(&dockerd, "running"), before, "the same containers go on");
    leave(&server, &ids).await;
    wait_tidy(&server, &dockerd, 20).await;
}

#[tokio::test]
async fn bots_run_on_while_their_engine_is_away_and_it_is_used_again_when_it_is_back() {
    let mut dockerd = Dockerd::start().await;
    let server = server_on(&dockerd, "6").await;
    let ids = send(&server, 4).await;
    wait_all(&server, &ids, &["IN_CALL"]).await;
    let before = containers(&dockerd, "running");
    dockerd.stop().await;
    let late = send(&server, 2).await;
    for id in &ids {
        assert_eq!(server.bot(*id).await["state"], "IN_CALL");
    }
    dockerd.start_again().await;
    wait_all(&server, &late, &["IN_CALL"]).await;
    assert!(before.is_subset(&containers(&dockerd, "running")), "the same containers go on");
    let all: Vec<i64> = ids.into_iter().chain(late).collect();
    leave(&server, &all).await;
    wait_tidy(&server, &dockerd, 6).await;
}

#[tokio::test]
async fn what_a_lost_host_leaves_behind_is_forgotten_and_should_it_come_back_is_removed() {
    let mut dockerd = Dockerd::start().await;
    let server = server_on(&dockerd, "1").await;
    let bot = send(&server, 1).await[0];
    wait_all(&server, &[bot], &["IN_CALL"]).await;
    let container = containers(&dockerd, "running");
    let forget = "/api/admin/slots/pool-rehearsal-001/forget";
    let (status, refused) = server.post(forget, &json!({})).await;
    assert_eq!((status, &refused["error"]["code"]), (StatusCode::CONFLICT, &json!("not_now")), "{refused}");
    assert!(refused.to_string().contains("Host local answers"), "{refused}");
    dockerd.stop().await;
    let (status, ended) = server.post(&format!("/api/admin/bots/{bot}/end"), &json!({})).await;
    assert_eq!((status, &ended["state"]), (StatusCode::OK, &json!("FATAL")), "{ended}");

    // It takes some calls without an answer until the host counts as away.
    let deadline = Instant::now() + 2 * MINUTE;
    loop {
        let (status, answer) = server.post(forget, &json!({})).await;
        if status == StatusCode::OK {
            break assert_eq!(answer["status"], "retired", "{answer}");
        }
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::CONFLICT, &json!("not_now")), "{answer}");
        assert!(Instant::now() < deadline, "{answer}\n{}", server.log());
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(server.get("/api/admin/slots").await.1["data"], json!([]));
    dockerd.start_again().await;
    // The place is free for the next one, and what still ran there is no slot's any more.
    let next = send(&server, 1).await;
    wait_all(&server, &next, &["IN_CALL"]).await;
    leave(&server, &next).await;
    wait_tidy(&server, &dockerd, 1).await;
    assert!(container.is_disjoint(&containers(&dockerd, "created")));
}

#[tokio::test]
async fn a_container_that_somebody_kills_is_a_crash_and_its_slot_is_used_again() {
    let dockerd = Dockerd::start().await;
    let server = server_on(&dockerd, "1").await;
    for command in [["kill"].as_slice(), &["rm", "--force"]] {
        let ids = send(&server, 1).await;
        wait_all(&server, &ids, &["IN_CALL"]).await;
        let container = containers(&dockerd, "running").pop_first().unwrap();
        dockerd.run(&[command, &[container.as_str()]].concat());
        let bot = server.wait_state(ids[0], MINUTE, &["DONE", "FATAL"]).await;
        assert_eq!((&bot["state"], &bot["endReason"]), (&json!("FATAL"), &json!("crashed")), "{bot}");
        wait_tidy(&server, &dockerd, 1).await;
    }
}

#[tokio::test]
async fn an_image_that_is_nowhere_ends_its_bot_with_the_engines_words() {
    let dockerd = Dockerd::start().await;
    let server = Server::start(&[
        ("MEEBOTER_DRIVER__KIND", "docker"),
        ("MEEBOTER_DOCKER__NETWORK", "host"),
        ("MEEBOTER_HOSTS__LOCAL__DOCKER_URL", &dockerd.host()),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__IMAGE", "127.0.0.1:1/nobody:1"),
        ("MEEBOTER_BOTS__START_ELSEWHERE_MAX", "0"),
    ])
    .await;
    let id = server.send_bot("nowhere", "").await;
    let bot: Value = server.wait_state(id, MINUTE, &["DONE", "FATAL"]).await;
    assert_eq!((&bot["state"], &bot["endReason"]), (&json!("FATAL"), &json!("deploy_failed")), "{bot}");
    let words = bot.to_string();
    assert!(words.contains("127.0.0.1:1/nobody:1") && words.contains("connection refused"), "{words}");
}
