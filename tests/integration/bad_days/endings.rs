//! Ends that users choose.

use super::{LENGTH_TOLERANCE_S, MINUTE, check_tidy, meeting, server};
use chrono::{TimeDelta, Utc};
use reqwest::StatusCode;
use serde_json::Value;

#[tokio::test]
async fn a_bot_leaves_when_it_is_told_to_and_at_its_end_time() {
    let server = server("2").await;
    let told = server.send_bot("told", &meeting(600_000)).await;
    let mut request = server.bot_request("timed", &meeting(600_000));
    let end_at = Utc::now() + TimeDelta::seconds(20);
    request["endTime"] = end_at.to_rfc3339().into();
    let (status, timed) = server.post("/api/bots", &request).await;
    assert_eq!(status, StatusCode::CREATED, "{timed}");
    let timed = timed["id"].as_i64().unwrap();

    server.wait_state(told, MINUTE, &["RECORDING"]).await;
    server.wait_segments(told, MINUTE, 2).await;
    let (status, bot) = server.post(&format!("/api/bots/{told}/remove-from-call"), &Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{bot}");
    for (id, reason) in [(told, "left_by_request"), (timed, "end_time")] {
        let bot = server.wait_state(id, MINUTE, &["DONE", "FATAL"]).await;
        assert_eq!((bot["state"].as_str(), bot["endReason"].as_str()), (Some("DONE"), Some(reason)), "{bot}");
        let (history, recording) = (server.history(id).await, server.recording(id).await);
        history.check_whole();
        let recorded = history.recorded_s();
        assert!((recording.seconds - recorded).abs() < LENGTH_TOLERANCE_S, "{recording:?}, not {recorded} s");
    }
    let late = (server.history(timed).await.entered("LEAVING") - end_at).as_seconds_f64();
    assert!((0.0..3.0).contains(&late), "left {late} s after its time");
    // Who has left is not told twice.
    let (status, bot) = server.post(&format!("/api/bots/{told}/remove-from-call"), &Value::Null).await;
    assert_eq!((status, &bot["endReason"]), (StatusCode::OK, &"left_by_request".into()));
    check_tidy(&server, 2).await;
}

#[tokio::test]
async fn a_bot_that_is_not_to_record_does_not() {
    let server = server("1").await;
    let mut request = server.bot_request("shy", &meeting(3_000));
    request["recordingEnabled"] = false.into();
    let (_, bot) = server.post("/api/bots", &request).await;
    let id = bot["id"].as_i64().unwrap();
    let bot = server.wait_state(id, MINUTE, &["DONE", "FATAL"]).await;
    assert_eq!(
        (bot["endReason"].as_str(), &bot["recordingState"]),
        (Some("meeting_ended"), &Value::Null),
        "{bot}"
    );
    assert!(!server.history(id).await.states().contains(&"RECORDING"));
    assert_eq!(server.segments(id), 0);
    let (status, answer) = server.get(&format!("/api/bots/{id}/recording")).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::NOT_FOUND, &"recording_not_ready".into()));
    check_tidy(&server, 1).await;
}
