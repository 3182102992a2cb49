//! Parts of a bot that die under it.

use super::{LENGTH_TOLERANCE_S, MINUTE, check_tidy, meeting, server};
use crate::support::server::{Server, signal};
use rustix::process::Signal;
use std::fs;

#[tokio::test]
async fn a_recorder_that_dies_is_started_again() {
    let server = server("1").await;
    let id = server.send_bot("cut", &meeting(12_000)).await;
    server.wait_segments(id, MINUTE, 2).await;
    let recorders = parts(&server, "ffmpeg");
    assert_eq!(recorders.len(), 1);
    signal(recorders[0], Signal::KILL);

    let bot = server.wait_state(id, MINUTE, &["DONE", "FATAL"]).await;
    assert_eq!(bot["endReason"], "meeting_ended", "{bot}");
    let (history, recording) = (server.history(id).await, server.recording(id).await);
    let told = history.0.iter().filter_map(|line| line["data"]["message"].as_str());
    assert!(
        told.clone().any(|line| line.contains("the recorder broke off, and begins anew: run 1: ffmpeg")),
        "{history:?}"
    );
    // The segment that was being written is lost, and so is the time to begin again.
    let recorded = history.recorded_s();
    assert!(
        recording.seconds > recorded - 4.0 && recording.seconds < recorded + LENGTH_TOLERANCE_S,
        "{recording:?} of {recorded} s"
    );
    check_tidy(&server, 1).await;
}

#[tokio::test]
async fn a_browser_that_dies_ends_its_bot_and_the_recording_is_kept() {
    let server = server("1").await;
    let id = server.send_bot("blind", &meeting(120_000)).await;
    server.wait_segments(id, MINUTE, 2).await;
    let browsers = parts(&server, "chrom");
    assert!(!browsers.is_empty());
    browsers.into_iter().for_each(|pid| signal(pid, Signal::KILL));

    let bot = server.wait_state(id, MINUTE, &["DONE", "FATAL"]).await;
    assert_eq!(
        (bot["state"].as_str(), bot["endReason"].as_str()),
        (Some("FATAL"), Some("internal")),
        "{bot}"
    );
    assert!(bot["endDetail"].as_str().is_some_and(|detail| detail.contains("browser")), "{bot}");
    let (recorded, recording) = (server.history(id).await.recorded_s(), server.recording(id).await);
    assert!((recording.seconds - recorded).abs() < LENGTH_TOLERANCE_S, "{recording:?} of {recorded} s");
    check_tidy(&server, 1).await;
}

/// The processes of the bots whose program's name begins like this.
fn parts(server: &Server, name: &str) -> Vec<i32> {
    let is_part =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(name));
    server.bot_pids().into_iter().filter(is_part).collect()
}
