//! What a bot recorded while no server was there, and did not live to upload.

use super::{MINUTE, SECOND, check_tidy, meeting};
use crate::support::server::{Server, signal};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Segments that the bot makes for nobody.
const SPOOLED: usize = 3;
/// Length of a segment, in seconds, as the server of a test has it.
const SEGMENT_S: f64 = 2.0;

#[tokio::test]
async fn what_a_bot_recorded_for_nobody_is_collected_joined_and_later_removed() {
    let mut server = Server::start(&[
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "1"),
        ("MEEBOTER_MAINTENANCE__KEEP_RECORDINGS_DAYS", "30"),
        ("MEEBOTER_MAINTENANCE__KEEP_BOTS_DAYS", "60"),
    ])
    .await;
    let id = server.send_bot("abandoned", &meeting(120_000)).await;
    server.wait_state(id, MINUTE, &["RECORDING"]).await;
    server.wait_segments(id, MINUTE, 1).await;
    server.kill();
    let begun = Instant::now();
    while spooled(&server).len() < SPOOLED {
        assert!(begun.elapsed() < MINUTE, "{:?}", spooled(&server));
        tokio::time::sleep(SECOND / 10).await;
    }
    server.bot_program_pids().into_iter().for_each(|pid| signal(pid, Signal::KILL));
    // One may be in its spool and at its place already; they are numbered from 1.
    let made = spooled(&server).iter().map(|segment| number(segment)).max().unwrap();
    server.spawn();
    server.wait_ready().await;

    let bot = server.wait_state(id, MINUTE, &["FATAL"]).await;
    assert_eq!(bot["endReason"], "crashed", "{bot}");
    server.wait_segments(id, MINUTE, made).await;
    let least_s = SEGMENT_S * (made - 1) as f64;
    let begun = Instant::now();
    while server.recording(id).await.seconds < least_s {
        assert!(begun.elapsed() < MINUTE, "the recording is not joined again\n{}", server.log());
        tokio::time::sleep(SECOND / 2).await;
    }
    assert_eq!(spooled(&server), Vec::<PathBuf>::new(), "nothing is left to collect");
    check_tidy(&server, 1).await;

    // Long ago, but not so long that the bot itself goes.
    server.edit("UPDATE bots SET ended_at = ended_at - interval '31 days'").await;
    let run = server.maintain().await;
    assert_eq!(run["steps"][3]["done"]["recordings"], 1, "{run}");
    assert_eq!(server.segments(id), 0, "no object is left");
    let (_, bot) = server.get(&format!("/api/bots/{id}")).await;
    assert_eq!((&bot["state"], &bot["recordingState"]), (&json!("FATAL"), &json!(null)), "{bot}");
    assert!(!server.history(id).await.states().is_empty(), "its history is kept");

    server.edit("UPDATE bots SET ended_at = ended_at - interval '31 days'").await;
    let run = server.maintain().await;
    assert_eq!(run["steps"][3]["done"]["bots"], 1, "{run}");
    assert!(run["steps"][3]["done"]["events"].as_u64() > Some(3), "{run}");
    assert_eq!(server.get(&format!("/api/bots/{id}")).await.0, 404);
}

/// The media segments in bots' spools.
fn spooled(server: &Server) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![server.data_dir().join("bots")]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if is_segment(&path) {
                found.push(path);
            } else if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

fn number(segment: &Path) -> usize {
    segment.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "m4s")
}
