//! Whole servers whose bots are applications of an emulated Coolify, which runs them as processes or as containers.

use crate::support::dockerd::Dockerd;
use crate::support::scripted_bot;
use crate::support::server::{Server, refused, script_bot};
use futures_util::future::join_all;
use meeboter::coolify_emulator::{
    Containers, DockerContainers, Emulator, EmulatorSettings, Fault, Pace, ProcessContainers, Trouble,
};
use reqwest::StatusCode;
use serde_json::json;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MINUTE: Duration = Duration::from_secs(60);
const TOKEN: &str = "1|a-token-of-tests";

/// A Coolify whose applications attend until they are told to leave.
async fn coolify(folder: &TempDir) -> Emulator {
    let attend = format!("exec {} attend", scripted_bot::program().display());
    let program = script_bot(folder.path(), "attending-bot", &attend);
    let containers = ProcessContainers::new(program.into(), folder.path().to_owned());
    emulator(Pace::quick(), Arc::new(containers)).await
}

async fn emulator(pace: Pace, containers: Arc<dyn Containers>) -> Emulator {
    let mut settings = EmulatorSettings::new(TOKEN, pace);
    settings.rate_limit = 100_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Emulator::start(listener, settings, containers).await.unwrap()
}

fn settings(coolify: &Emulator) -> Vec<(&'static str, String)> {
    let site = meeboter::coolify_emulator::Site::default();
    vec![
        ("MEEBOTER_DRIVER__KIND", "coolify".to_owned()),
        ("MEEBOTER_DRIVER__SERVER_URL", "http://127.0.0.1:{port}".to_owned()),
        ("COOLIFY_API_URL", format!("{}/api/v1", coolify.url())),
        ("COOLIFY_API_TOKEN", TOKEN.to_owned()),
        ("COOLIFY_PROJECT_UUID", site.project),
        ("COOLIFY_SERVER_UUID", site.server),
        ("MEEBOTER_COOLIFY__REQUESTS_PER_MINUTE", "100000".to_owned()),
        ("MEEBOTER_COOLIFY__DEPLOYMENT_POLL_MS", "50".to_owned()),
        ("MEEBOTER_COOLIFY__STATUS_POLL_MS", "200".to_owned()),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "5".to_owned()),
        ("MEEBOTER_BOTS__STOP_GRACE_MS", "1000".to_owned()),
    ]
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    settings.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

/// Has bots leave, and sees that they did.
async fn leave(server: &Server, ids: &[i64]) {
    let told = ids
        .iter()
        .map(async |id| server.post(&format!("/api/bots/{id}/remove-from-call"), &json!({})).await.0);
    assert!(join_all(told).await.into_iter().all(|status| status == StatusCode::OK));
    for id in ids {
        server.wait_state(*id, 2 * MINUTE, &["DONE", "FATAL"]).await;
        let bot = server.bot(*id).await;
        assert_eq!((&bot["state"], &bot["endReason"]), (&json!("DONE"), &json!("left_by_request")), "{bot}");
    }
}

#[tokio::test]
async fn bots_attend_survive_a_crash_of_the_server_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let coolify = coolify(&folder).await;
    let mut server = Server::start(&borrowed(&settings(&coolify))).await;
    let ids =
        join_all((0..5).map(async |number| server.send_bot(&format!("meeting-{number}"), "").await)).await;
    for id in &ids {
        server.wait_state(*id, 2 * MINUTE, &["IN_CALL", "RECORDING"]).await;
    }
    let deployments = coolify.deployments().len();
    server.kill();
    server.spawn();
    server.wait_ready().await;
    leave(&server, &ids).await;
    server.wait_slots(MINUTE, "idle", 5).await;
    assert_eq!(coolify.deployments().len(), deployments, "nothing was deployed again");
    // One for each slot, and the one that holds the image.
    assert_eq!(coolify.applications().len(), 6);
    assert!(!server.log().contains("a-token-of-tests"), "tokens are in no log");
    coolify.end().await;
}

/// Coolify is updated, and the proxy in front of it has nobody to ask for a while.
#[tokio::test]
async fn bots_wait_while_coolify_is_behind_a_gateways_502() {
    let folder = tempfile::tempdir().unwrap();
    let coolify = coolify(&folder).await;
    let mut settings = settings(&coolify);
    settings.push(("MEEBOTER_BREAKER__PROBE_FIRST_MS", "200".to_owned()));
    settings.push(("MEEBOTER_BREAKER__PROBE_LAST_MS", "500".to_owned()));
    let server = Server::start(&borrowed(&settings)).await;
    let first = server.send_bot("before", "").await;
    server.wait_state(first, 2 * MINUTE, &["IN_CALL", "RECORDING"]).await;
    coolify.fault(Fault { method: None, path: String::new(), trouble: Trouble::ProxyPage, times: u32::MAX });
    let second = server.send_bot("meanwhile", "").await;
    let deadline = Instant::now() + MINUTE;
    while !server.log().contains("an engine does not answer") {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.wait_state(second, MINUTE, &["QUEUED"]).await;
    coolify.mend();
    server.wait_state(second, 2 * MINUTE, &["IN_CALL", "RECORDING"]).await;
    leave(&server, &[first, second]).await;
    coolify.end().await;
}

/// A container is there, and its bot claims its slot, a good while before Coolify calls the deployment finished.
#[tokio::test]
async fn slots_are_used_again_and_again_in_real_containers() {
    let dockerd = Dockerd::start().await;
    scripted_bot::import_all(&dockerd);
    let containers = DockerContainers::connect(dockerd.host().trim_start_matches("unix://")).await.unwrap();
    let slow = Pace { build: Duration::from_secs(2), ..Pace::quick() };
    let coolify = emulator(slow, Arc::new(containers)).await;
    let mut settings = settings(&coolify);
    settings.push(("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "2".to_owned()));
    settings.push(("MEEBOTER_POOL__PLATFORMS__REHEARSAL__IMAGE", scripted_bot::reference("attend")));
    let server = Server::start(&borrowed(&settings)).await;
    let mut ids = Vec::new();
    for number in 0..6 {
        // One after the other: they are served in this order.
        ids.push(server.send_bot(&format!("meeting-{number}"), "").await);
    }
    for pair in ids.chunks(2) {
        for id in pair {
            server.wait_state(*id, 2 * MINUTE, &["IN_CALL", "DONE", "FATAL"]).await;
        }
        // A program's first word may come before the engine has noted that its container runs.
        let running = || dockerd.run(&["ps", "--quiet"]).lines().count();
        let deadline = Instant::now() + MINUTE;
        while running() < 2 {
            assert!(Instant::now() < deadline, "{}", server.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(running(), 2, "{}", server.log());
        leave(&server, pair).await;
    }
    server.wait_slots(MINUTE, "idle", 2).await;
    assert_eq!(dockerd.run(&["ps", "--all", "--quiet"]), "", "nothing is left over");
    coolify.end().await;
}

/// Five starts, of which Coolify gets three at a time.
#[tokio::test]
async fn a_bot_says_how_long_coolify_lets_its_start_wait() {
    let folder = tempfile::tempdir().unwrap();
    let program = script_bot(folder.path(), "silent-bot", "exec sleep 600");
    let containers = ProcessContainers::new(program.into(), folder.path().to_owned());
    let slow = Pace { build: Duration::from_secs(8), ..Pace::quick() };
    let coolify = emulator(slow, Arc::new(containers)).await;
    let server = Server::start(&borrowed(&settings(&coolify))).await;
    let ids =
        join_all((0..5).map(async |number| server.send_bot(&format!("meeting-{number}"), "").await)).await;
    let deadline = Instant::now() + MINUTE;
    let waiting = loop {
        let bots = join_all(ids.iter().map(|id| server.bot(*id))).await;
        let waiting: Vec<_> = bots.into_iter().filter(|bot| bot["estimatedWaitMs"].is_u64()).collect();
        if waiting.len() == 2 {
            break waiting;
        }
        assert!(Instant::now() < deadline, "{} wait: {}", waiting.len(), server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for bot in waiting {
        assert_eq!((&bot["state"], bot.get("queuePosition")), (&json!("DEPLOYING"), None), "{bot}");
        // The only deployment so far, that of the image, took its eight seconds and the looks at it.
        let wait = bot["estimatedWaitMs"].as_u64().unwrap();
        assert!((8_000..60_000).contains(&wait), "{wait}");
    }
    coolify.end().await;
}

#[tokio::test]
async fn a_server_with_a_wrong_token_says_which_and_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let coolify = coolify(&folder).await;
    let mut settings = settings(&coolify);
    settings.push(("COOLIFY_API_TOKEN", "1|another-token".to_owned()));
    settings.push(("MEEBOTER_DRIVER__SERVER_URL", "http://127.0.0.1:9".to_owned()));
    let (status, log) = refused(&borrowed(&settings)).await;
    assert!(!status.success());
    assert!(log.contains("COOLIFY_API_TOKEN") && log.contains("Keys & Tokens"), "{log}");
    assert!(!log.contains("another-token"), "{log}");
}
