//! Servers that die, or stop, at the worst moments.

use super::{MINUTE, SECOND, check_tidy, check_whole_meeting, meeting, server};
use crate::support::client::Answer;
use crate::support::server::{Server, signal};
use reqwest::StatusCode;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a server is away.
const AWAY: Duration = Duration::from_secs(4);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_killed_server_finds_its_bots_again_and_nothing_is_missing() {
    let mut server = server("2").await;
    let lengths = [16_000, 24_000];
    let running = [
        server.send_bot("first", &meeting(lengths[0])).await,
        server.send_bot("second", &meeting(lengths[1])).await,
    ];
    let waiting =
        [server.bot_request("third", &meeting(2_000)), server.bot_request("fourth", &meeting(2_000))];
    let mut queued = Vec::new();
    for (index, request) in waiting.iter().enumerate() {
        let answer = Answer::to(server.create(request, &format!("key {index}"))).await;
        assert_eq!(
            (answer.status, &answer.body["queuePosition"]),
            (StatusCode::CREATED, &(index + 1).into())
        );
        queued.push(answer.body["id"].as_i64().unwrap());
    }
    for id in running {
        server.wait_state(id, MINUTE, &["RECORDING"]).await;
        server.wait_segments(id, MINUTE, 1).await;
    }
    let before = programs(&server);

    server.kill();
    tokio::time::sleep(AWAY).await;
    server.spawn();
    server.wait_ready().await;
    assert_eq!(programs(&server), before, "the same processes go on");
    for id in running {
        assert_eq!(server.bot(id).await["state"], "RECORDING");
    }
    for (index, request) in waiting.iter().enumerate() {
        assert_eq!(server.bot(queued[index]).await["state"], "QUEUED");
        let again = Answer::to(server.create(request, &format!("key {index}"))).await;
        assert_eq!(
            (again.status, again.body["id"].as_i64()),
            (StatusCode::OK, Some(queued[index])),
            "{again:?}"
        );
    }
    assert_eq!(server.bot_count().await, 4);

    for (id, length_ms) in running.into_iter().zip(lengths) {
        check_whole_meeting(&server, id, length_ms).await;
    }
    for id in &queued {
        check_whole_meeting(&server, *id, 2_000).await;
    }
    let (third, fourth) = (server.history(queued[0]).await, server.history(queued[1]).await);
    assert!(third.entered("DEPLOYING") < fourth.entered("DEPLOYING"), "in the order that they came");
    assert_eq!(server.bot_count().await, 4);
    check_tidy(&server, 2).await;
}

#[tokio::test]
async fn a_server_told_to_stop_stops_and_its_bots_go_on() {
    let mut server = server("1").await;
    let id = server.send_bot("lasting", &meeting(14_000)).await;
    server.wait_state(id, MINUTE, &["RECORDING"]).await;
    let before = programs(&server);

    let asked = Instant::now();
    let status = server.terminate();
    assert!(status.success() && asked.elapsed() < 8 * SECOND, "{status} after {:?}", asked.elapsed());
    assert_eq!(server.postgres_pid(), None, "the private PostgreSQL is stopped");
    assert_eq!(programs(&server), before, "bots go on without the server");

    server.spawn();
    server.wait_ready().await;
    assert_eq!(programs(&server), before, "the same process goes on");
    check_whole_meeting(&server, id, 14_000).await;
    check_tidy(&server, 1).await;
    server.terminate();
    assert_eq!(server.remains(), Vec::<i32>::new());
}

#[tokio::test]
async fn a_second_signal_ends_the_wait_for_a_request_that_never_ends() {
    let mut server = Server::start(&[]).await;
    let mut slow = TcpStream::connect(server.url("").trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /api/bots HTTP/1.1\r\nHost: meeboter\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n",
        server.key()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100", "the server waits for the body");
    let pid = i32::try_from(server.pid()).unwrap();
    let asked = Instant::now();
    signal(pid, Signal::TERM);
    while !server.log().contains("bots go on without the server") {
        assert!(asked.elapsed() < 4 * SECOND, "{}", server.log());
        tokio::time::sleep(LOOK).await;
    }
    assert!(server.runs(), "a request under way is given 5 s");
    signal(pid, Signal::TERM);
    let status = server.ended(4 * SECOND).await;
    assert!(status.success() && asked.elapsed() < 4 * SECOND, "{status} after {:?}", asked.elapsed());
    assert!(server.log().contains("told to stop again"), "{}", server.log());
}

#[tokio::test]
async fn a_server_killed_while_it_deploys_starts_every_bot_once() {
    let mut server = server("4").await;
    let mut bots = Vec::new();
    // From "just committed" to "the process has begun to claim".
    for after_ms in [0, 20, 60, 150] {
        let mut request = server.bot_request("new", &meeting(4_000));
        request["recordingEnabled"] = false.into();
        let (status, bot) = server.post("/api/bots", &request).await;
        assert_eq!(status, StatusCode::CREATED, "{bot}");
        bots.push(bot["id"].as_i64().unwrap());
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        server.kill();
        server.spawn();
        server.wait_ready().await;
        assert!(server.bot_program_pids().len() <= bots.len(), "{:?}", server.bot_program_pids());
    }
    let mut slots = BTreeSet::new();
    for id in bots {
        let bot = server.wait_state(id, MINUTE, &["DONE", "FATAL"]).await;
        assert_eq!(bot["endReason"], "meeting_ended", "{bot}");
        let life = ["DEPLOYING", "JOINING_CALL", "IN_WAITING_ROOM", "IN_CALL", "LEAVING", "DONE"];
        assert_eq!(server.history(id).await.states(), life);
        slots.insert(bot["slotName"].to_string());
    }
    assert_eq!(slots.len(), 4, "each in a slot of its own: {slots:?}");
    check_tidy(&server, 4).await;
}

#[tokio::test]
async fn a_server_killed_at_the_end_of_a_meeting_loses_nothing_of_it() {
    let mut server = server("1").await;
    // The bot is leaving, or has left and its recording is not made yet.
    for last_words in [&["LEAVING", "DONE"][..], &["DONE"]] {
        let id = server.send_bot("leaving", &meeting(3_000)).await;
        server.wait_state(id, MINUTE, last_words).await;
        server.kill();
        server.spawn();
        server.wait_ready().await;
        check_whole_meeting(&server, id, 3_000).await;
        check_tidy(&server, 1).await;
    }
}

fn programs(server: &Server) -> Vec<i32> {
    let mut pids = server.bot_program_pids();
    pids.sort_unstable();
    assert!(!pids.is_empty());
    pids
}

#[tokio::test]
async fn a_scheduled_bot_starts_on_time_after_a_crash_and_one_that_is_too_late_says_so() {
    let settings = [
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "1"),
        ("MEEBOTER_SCHEDULE__LEAD_MS", "1000"),
        ("MEEBOTER_SCHEDULE__LATENESS_MS", "100"),
    ];
    let mut server = Server::start(&settings).await;
    let begun = chrono::Utc::now();
    let starts = [begun + chrono::TimeDelta::seconds(30), begun + chrono::TimeDelta::seconds(6)];
    let mut ids = Vec::new();
    for (start_at, name) in starts.into_iter().zip(["in time", "missed"]) {
        let mut request = server.bot_request(name, &meeting(2_000));
        request["startTime"] = serde_json::json!(start_at);
        let (status, bot) = server.post("/api/bots", &request).await;
        assert_eq!((status, bot["state"].as_str()), (StatusCode::CREATED, Some("SCHEDULED")), "{bot}");
        ids.push(bot["id"].as_i64().unwrap());
    }
    server.kill();
    let away = starts[1] + chrono::TimeDelta::seconds(1) - chrono::Utc::now();
    tokio::time::sleep(away.to_std().unwrap_or_default()).await;
    server.spawn();
    server.wait_ready().await;

    let missed = server.wait_state(ids[1], 5 * SECOND, &["FATAL"]).await;
    assert_eq!(missed["endReason"], "start_missed", "{missed}");
    assert_eq!(server.bot(ids[0]).await["state"], "SCHEDULED", "its time has not come");
    check_whole_meeting(&server, ids[0], 2_000).await;
    let bot = server.bot(ids[0]).await;
    let deployed_at: chrono::DateTime<chrono::Utc> = bot["deployedAt"].as_str().unwrap().parse().unwrap();
    let ahead_ms = (starts[0] - deployed_at).num_milliseconds();
    assert!((500..=1_400).contains(&ahead_ms), "{ahead_ms} ms ahead of its start: {bot}");
    check_tidy(&server, 1).await;
}
