//! Settings that are read again while the server runs, and platforms that the configuration adds.

use crate::support::client::answer;
use crate::support::server::{Server, signal, silent_bot};
use crate::support::watcher::Watcher;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

fn settings(max_size: u32, session_hours: u32, own: &str) -> String {
    format!(
        "[server]\nsession_hours = {session_hours}\n[pool]\nmax_size = {max_size}\n\
         [pool.platforms.my-video]\nprewarm = 0\nmax_size = 2\n{own}\n"
    )
}

async fn reload(server: &Server) -> (StatusCode, Value) {
    answer(server.request(Method::POST, "/api/admin/reload")).await
}

async fn create(server: &Server, platform: &str) -> (StatusCode, Value) {
    let mut request = server.bot_request("one", "");
    request["meetingInfo"] =
        json!({ "platform": platform, "meetingUrl": "https://video.example.org/room/1" });
    server.post("/api/bots", &request).await
}

#[tokio::test]
async fn settings_are_read_again_and_a_platform_of_ones_own_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (bot, file) = (silent_bot(folder.path()), folder.path().join("own.toml"));
    fs::write(&file, settings(5, 12, "")).unwrap();
    let server = Server::start(&[
        ("MEEBOTER_DRIVER__BOT_PROGRAM", bot.as_str()),
        ("MEEBOTER_CONFIG", file.to_str().unwrap()),
    ])
    .await;
    assert!(counts_ends(&server, "my-video").await, "before any bot of it has ended");
    let mut watcher = Watcher::connect(&server.visitor(&server.pool().await, "watcher").await).await;
    assert_eq!(watcher.max_size, 5);
    let max_size = async || server.get("/api/bots/pool/stats").await.1["maxSize"].clone();
    assert_eq!(max_size().await, 5);

    // A platform of one's own has slots of its own.
    let (status, bot) = create(&server, "my-video").await;
    assert_eq!((status, &bot["slotName"]), (StatusCode::CREATED, &json!("pool-my-video-001")), "{bot}");
    let id = bot["id"].as_i64().unwrap();
    server.wait_state(id, LIMIT, &["JOINING_CALL"]).await;
    let (status, refused) = create(&server, "their-video").await;
    let code = &refused["error"]["code"];
    assert_eq!((status, code), (StatusCode::UNPROCESSABLE_ENTITY, &json!("platform_unknown")), "{refused}");
    let known = refused["error"]["details"]["allowed"].as_array().unwrap();
    assert!(known.contains(&json!("my-video")), "{refused}");

    // What may change counts at once, what may not is named.
    fs::write(&file, settings(7, 24, "enabled = false")).unwrap();
    let (status, reloaded) = reload(&server).await;
    let expected = json!({
        "applied": ["pool.max_size", "pool.platforms.my-video.enabled"],
        "needsRestart": ["server.session_hours"],
    });
    assert_eq!((status, &reloaded), (StatusCode::OK, &expected));
    assert_eq!(max_size().await, 7);
    watcher.hear_until("the new size", |watcher| watcher.max_size == 7).await;
    let (status, refused) = create(&server, "my-video").await;
    let code = &refused["error"]["code"];
    assert_eq!((status, code), (StatusCode::UNPROCESSABLE_ENTITY, &json!("platform_disabled")), "{refused}");
    assert_eq!(server.bot(id).await["state"], "JOINING_CALL", "the one that runs goes on");
    let (_, again) = reload(&server).await;
    assert_eq!(again, json!({ "applied": [], "needsRestart": ["server.session_hours"] }));

    // A mistake changes nothing and says what is wrong.
    fs::write(&file, settings(0, 12, "")).unwrap();
    let (status, refused) = reload(&server).await;
    let message = refused["error"]["message"].as_str().unwrap();
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    assert!(message.contains("pool.max_size") && message.contains("from 1 to"), "{message}");
    assert_eq!(max_size().await, 7);

    // A signal does the same.
    fs::write(&file, settings(9, 12, "enabled = true")).unwrap();
    signal(i32::try_from(server.pid()).unwrap(), Signal::HUP);
    let deadline = Instant::now() + LIMIT;
    while max_size().await != 9 {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(create(&server, "my-video").await.0, StatusCode::CREATED);

    // A platform that comes in is served, and counted from 0.
    assert!(!counts_ends(&server, "new-video").await);
    let own = "[pool.platforms.new-video]\nprewarm = 0\nmax_size = 1\n";
    fs::write(&file, settings(9, 12, own)).unwrap();
    assert_eq!(reload(&server).await.0, StatusCode::OK);
    assert!(counts_ends(&server, "new-video").await);
}

/// Whether both ends of a platform's bots are counted, with none of them yet.
async fn counts_ends(server: &Server, platform: &str) -> bool {
    let page = server.bare(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let line =
        |status| format!("meeboter_bot_completions_total{{platform=\"{platform}\",status=\"{status}\"}} 0\n");
    ["done", "fatal"].into_iter().all(|status| page.contains(&line(status)))
}

#[tokio::test]
async fn a_signal_to_read_the_settings_that_comes_during_a_start_does_not_end_it() {
    let mut server = Server::spawned(&[("MEEBOTER_POOL__PREWARM_ON_STARTUP", "false")]);
    let deadline = Instant::now() + LIMIT;
    while server.log().is_empty() {
        assert!(Instant::now() < deadline, "it says nothing");
        tokio::time::sleep(LOOK).await;
    }
    signal(i32::try_from(server.pid()).unwrap(), Signal::HUP);
    server.wait_ready().await;
    let deadline = Instant::now() + LIMIT;
    while !server.log().contains("settings are read again") {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(LOOK).await;
    }
}
