//! Bots that die in the middle of a meeting.

use super::{LENGTH_TOLERANCE_S, MINUTE, check_tidy, check_whole_meeting, meeting, server};
use crate::support::server::signal;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long a slot may take to notice that its bot is dead.
const NOTICE: Duration = Duration::from_secs(3);

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
async fn a_bot_that_dies_without_a_server_is_noticed_by_the_next() {
    let mut server = server("1").await;
    let id = server.send_bot("alone", &meeting(120_000)).await;
    server.wait_segments(id, MINUTE, 2).await;
    let pids = server.bot_program_pids();
    server.kill();
    pids.iter().for_each(|pid| signal(*pid, Signal::KILL));

    server.spawn();
    server.wait_ready().await;
    let bot = server.wait_state(id, NOTICE, &["FATAL"]).await;
    assert_eq!(bot["endReason"], "crashed", "{bot}");
    let kept = server.recording(id).await.seconds;
    assert!(kept > 3.0, "{kept} s are kept");
    let next = server.send_bot("next", &meeting(2_000)).await;
    check_whole_meeting(&server, next, 2_000).await;
    check_tidy(&server, 1).await;
}
