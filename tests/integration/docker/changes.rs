//! What changes under a server that runs: an image's tag, and the hosts that there are.

use super::registry::publish;
use super::server::{LOOK, MINUTE, containers, leave, send, wait_all, wait_tidy};
use crate::support::client::answer;
use crate::support::dockerd::Dockerd;
use crate::support::registry::Registry;
use crate::support::scripted_bot;
use crate::support::server::Server;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

/// The images of the containers in a state.
fn images(dockerd: &Dockerd, state: &str) -> BTreeSet<String> {
    let image = |id: &String| dockerd.run(&["inspect", "--format", "{{.Image}}", id]).trim().to_owned();
    containers(dockerd, state).iter().map(image).collect()
}

/// The image that a reference means on an engine.
fn meaning(dockerd: &Dockerd, reference: &str) -> String {
    dockerd.run(&["image", "inspect", "--format", "{{.Id}}", reference]).trim().to_owned()
}

#[tokio::test]
async fn a_tag_that_moved_is_what_free_slots_have_at_once_and_busy_ones_after_their_bots() {
    let (registry, dockerd) = (Registry::start().await, Dockerd::start().await);
    let image = registry.reference("scripted-bot:1");
    publish(&dockerd, &image, "attend");
    let server = Server::start(&[
        ("MEEBOTER_DRIVER__KIND", "docker"),
        ("MEEBOTER_DOCKER__NETWORK", "host"),
        ("MEEBOTER_HOSTS__LOCAL__DOCKER_URL", &dockerd.host()),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "2"),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__IMAGE", &image),
        ("MEEBOTER_BOTS__STOP_GRACE_MS", "200"),
    ])
    .await;
    // One slot is free and one is busy when the tag moves.
    let ids = send(&server, 2).await;
    wait_all(&server, &ids, &["IN_CALL"]).await;
    leave(&server, &ids[..1]).await;
    server.wait_slots(MINUTE, "idle", 1).await;
    let first = server.maintain().await;
    assert_eq!(first["steps"][1]["done"]["images"], json!(1), "nobody knows what was pulled: {first}");
    let seen = server.maintain().await;
    assert_eq!(seen["steps"][1]["done"], json!({}), "nothing has moved yet: {seen}");
    let before = meaning(&dockerd, &image);
    publish(&dockerd, &image, "attend");
    let moved = server.maintain().await;
    assert_eq!(moved["steps"][1]["done"]["images"], json!(1), "{moved}");

    let deadline = Instant::now() + MINUTE;
    let after = loop {
        let prepared = images(&dockerd, "created");
        if prepared.len() == 1 && !prepared.contains(&before) {
            break meaning(&dockerd, &image);
        }
        let shown = dockerd.run(&["ps", "--all"]);
        assert!(Instant::now() < deadline, "the free slot keeps its old image:\n{shown}\n{}", server.log());
        tokio::time::sleep(LOOK).await;
    };
    assert_eq!(images(&dockerd, "created"), BTreeSet::from([after.clone()]));
    assert_eq!(
        images(&dockerd, "running"),
        BTreeSet::from([before]),
        "a bot goes on with what it began with"
    );

    leave(&server, &ids[1..]).await;
    wait_tidy(&server, &dockerd, 2).await;
    let next = send(&server, 2).await;
    wait_all(&server, &next, &["IN_CALL"]).await;
    assert_eq!(images(&dockerd, "running"), BTreeSet::from([after]));
    leave(&server, &next).await;
}

#[tokio::test]
async fn a_tag_that_moved_and_cannot_be_pulled_is_tried_again_in_the_next_run() {
    let (registry, dockerd) = (Registry::start().await, Dockerd::start().await);
    let image = registry.reference("scripted-bot:1");
    publish(&dockerd, &image, "attend");
    let server = Server::start(&[
        ("MEEBOTER_DRIVER__KIND", "docker"),
        ("MEEBOTER_DOCKER__NETWORK", "host"),
        ("MEEBOTER_HOSTS__LOCAL__DOCKER_URL", &dockerd.host()),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__IMAGE", &image),
        ("MEEBOTER_BOTS__STOP_GRACE_MS", "200"),
    ])
    .await;
    let ids = send(&server, 1).await;
    wait_all(&server, &ids, &["IN_CALL"]).await;
    let first = server.maintain().await;
    assert_eq!(first["steps"][1]["done"]["images"], json!(1), "{first}");
    let before = meaning(&dockerd, &image);
    // Another engine puts it there: this one has nothing of it.
    publish(&Dockerd::start().await, &image, "fail");
    registry.withhold(true);
    let failed = server.maintain().await;
    let step = &failed["steps"][1];
    assert_eq!((&step["done"], &step["failures"]), (&json!({}), &json!(1)), "{failed}");
    assert!(step["firstFailure"].as_str().is_some_and(|why| why.contains("cannot be pulled")), "{failed}");
    assert_eq!(meaning(&dockerd, &image), before, "bots start from what is there");
    registry.withhold(false);
    let mended = server.maintain().await;
    assert_eq!(mended["steps"][1]["done"]["images"], json!(1), "{mended}");
    assert_ne!(meaning(&dockerd, &image), before);
    leave(&server, &ids).await;
}

#[tokio::test]
async fn a_host_that_is_added_takes_the_bots_that_wait() {
    let (first, second) = (Dockerd::start().await, Dockerd::start().await);
    scripted_bot::import_all(&first);
    scripted_bot::import_all(&second);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.toml");
    let host = |name: &str, dockerd: &Dockerd| {
        format!("[hosts.{name}]\ncapacity = 1\ndocker_url = \"{}\"\n", dockerd.host())
    };
    fs::write(&file, host("local", &first)).unwrap();
    let server = Server::start(&[
        ("MEEBOTER_CONFIG", file.to_str().unwrap()),
        ("MEEBOTER_DRIVER__KIND", "docker"),
        ("MEEBOTER_DOCKER__NETWORK", "host"),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__IMAGE", &scripted_bot::reference("attend")),
        ("MEEBOTER_BOTS__STOP_GRACE_MS", "200"),
    ])
    .await;
    let first_bot = send(&server, 1).await;
    wait_all(&server, &first_bot, &["IN_CALL"]).await;
    let second_bot = send(&server, 1).await;
    assert_eq!(server.bot(second_bot[0]).await["state"], "QUEUED", "the only host is full");

    fs::write(&file, host("local", &first) + &host("second", &second)).unwrap();
    let (status, reloaded) = answer(server.request(Method::POST, "/api/admin/reload")).await;
    let applied = json!(["hosts.second.capacity", "hosts.second.docker_url"]);
    assert_eq!((status, &reloaded["applied"]), (StatusCode::OK, &applied), "{reloaded}");
    let ids = [first_bot, second_bot].concat();
    wait_all(&server, &ids, &["IN_CALL"]).await;
    for dockerd in [&first, &second] {
        assert_eq!(containers(dockerd, "running").len(), 1);
    }
    leave(&server, &ids).await;
}
