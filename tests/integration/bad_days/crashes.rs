//! Bots and servers that die, or stop, in the middle of a meeting.

use super::{LENGTH_TOLERANCE_S, MINUTE, SECOND, check_tidy, check_whole_meeting, meeting, server};
use crate::support::server::{Answer, Server, signal};
use reqwest::StatusCode;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long a slot may take to notice that its bot is dead.
const NOTICE: Duration = Duration::from_secs(3);
/// How long a server is away.
const AWAY: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_killed_bot_is_noticed_its_recording_kept_and_its_slot_used_again() {
    let server = server("1").await;
    let first = server.send_bot("first", &meeting(120_000)).await;
    let second = server.send_bot("second", &meeting(3_000)).await;
    server.wait_state(first, MINUTE, &["RECORDING"]).await;
    server.wait_segments(first, MINUTE, 3).await;
    let pids = server.bot_program_pids();
    assert_eq!(pids.len(), 1);

    let killed = Instant::now();
    signal(pids[0], Signal::KILL);
    let bot = server.wait_state(first, MINUTE, &["FATAL"]).await;
    let noticed = killed.elapsed();
    assert!(noticed < NOTICE, "noticed after {noticed:?}");
    assert_eq!(bot["endReason"], "crashed", "{bot}");
    assert!(bot["endDetail"].as_str().is_some_and(|detail| detail.contains("signal: 9")), "{bot}");

    // Segments of two seconds: at least three were uploaded, and at most the last one is lost.
    let recorded = server.history(first).await;
    let recorded = (recorded.entered("FATAL") - recorded.entered("RECORDING")).as_seconds_f64();
    let kept = server.recording(first).await.seconds;
    assert!(kept > 5.0 && kept > recorded - 2.0 - LENGTH_TOLERANCE_S, "{kept} s of {recorded} s are kept");

    check_whole_meeting(&server, second, 3_000).await;
    assert_eq!(server.bot(second).await["slotName"], bot["slotName"]);
    check_tidy(&server, 1).await;
}

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

fn programs(server: &Server) -> Vec<i32> {
    let mut pids = server.bot_program_pids();
    pids.sort_unstable();
    assert!(!pids.is_empty());
    pids
}
