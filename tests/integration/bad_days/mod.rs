//! Bad days: what must hold when processes die, the database hangs, the pool is full or somebody lies. Every part is
//! the real one.

mod crashes;
mod database;
mod endings;
mod fences;
mod organs;
mod restarts;
mod rolling_deploy;
mod spools;
mod standby;
mod starts;
mod waiting;

use crate::support::server::Server;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// How far a recording's length may be from what the bot says that it recorded, in seconds.
const LENGTH_TOLERANCE_S: f64 = 2.0;

/// A server with so many slots.
async fn server(slots: &str) -> Server {
    Server::start(&[("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", slots)]).await
}

/// A meeting of a length that its host ends.
fn meeting(length_ms: u32) -> String {
    format!("host=admit&admitAfterMs=1500&guestJoinMs=500&lengthMs={length_ms}&end=ended")
}

/// Sees that a bot ended with its meeting, and that its recording is all of it.
async fn check_whole_meeting(server: &Server, id: i64, length_ms: u32) {
    let bot = server.wait_state(id, MINUTE, &["DONE", "FATAL"]).await;
    assert_eq!(
        (bot["state"].as_str(), bot["endReason"].as_str()),
        (Some("DONE"), Some("meeting_ended")),
        "{bot}"
    );
    let history = server.history(id).await;
    history.check_whole();
    let in_call = (history.entered("LEAVING") - history.entered("IN_CALL")).as_seconds_f64();
    let length = f64::from(length_ms) / 1000.0;
    assert!((in_call - length).abs() < 3.0, "{in_call} s in a call of {length} s");
    let (recording, recorded) = (server.recording(id).await, history.recorded_s());
    assert!(
        (recording.seconds - recorded).abs() < LENGTH_TOLERANCE_S && recorded > in_call - 4.0,
        "{recording:?}, but it recorded for {recorded} s of {in_call} s"
    );
}

/// Sees that the slots are free again and nothing runs that nobody wants.
async fn check_tidy(server: &Server, slots: u64) {
    server.wait_slots(MINUTE, "idle", slots).await;
    assert_eq!(server.bot_pids(), Vec::<i32>::new(), "nothing runs that nobody wants");
}
