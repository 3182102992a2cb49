//! Bots with a start time, asked for, moved and cancelled over HTTP.

use crate::support::client::{Answer, Visitor, answer};
use crate::support::server::{Server, silent_bot};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

/// A server with one slot, whose bots never say a word; room for two scheduled bots.
async fn server(lead_ms: &str) -> (Server, TempDir) {
    let programs = tempfile::tempdir().unwrap();
    let bot = silent_bot(programs.path());
    let settings = [
        ("MEEBOTER_DRIVER__BOT_PROGRAM", bot.as_str()),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "1"),
        ("MEEBOTER_SCHEDULE__LEAD_MS", lead_ms),
        ("MEEBOTER_SCHEDULE__LATENESS_MS", "3000"),
        ("MEEBOTER_SCHEDULE__MAX", "2"),
    ];
    (Server::start(&settings).await, programs)
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap_or_else(|| panic!("no time: {value}")).parse().unwrap()
}

fn request(server: &Server, name: &str, start_at: DateTime<Utc>) -> Value {
    let mut request = server.bot_request(name, "host=silent");
    request["startTime"] = json!(start_at);
    request
}

async fn patch(server: &Server, id: i64, body: &Value) -> (StatusCode, Value) {
    answer(server.request(Method::PATCH, &format!("/api/bots/{id}")).json(body)).await
}

fn check_refused(refused: &(StatusCode, Value), status: StatusCode, code: &str, field: &Value) {
    let (answered, body) = refused;
    assert_eq!(
        (*answered, &body["error"]["code"], &body["error"]["details"]["field"]),
        (status, &json!(code), field),
        "{body}"
    );
}

#[tokio::test]
async fn a_bot_waits_for_its_start_and_can_be_moved_and_cancelled() {
    let (server, _programs) = server("300000").await;
    let in_minutes = |minutes| Utc::now() + TimeDelta::minutes(minutes);

    let start_at = in_minutes(60);
    let (status, bot) = answer(server.create(&request(&server, "later", start_at), "once")).await;
    assert_eq!((status, &bot["queued"]), (StatusCode::CREATED, &json!(false)), "{bot}");
    let id = bot["id"].as_i64().unwrap();
    let (status, again) = answer(server.create(&request(&server, "later", start_at), "once")).await;
    assert_eq!((status, again["id"].as_i64()), (StatusCode::OK, Some(id)));
    for bot in [bot, again, server.bot(id).await] {
        assert_eq!((&bot["state"], &bot["status"]), (&json!("SCHEDULED"), &json!("DEPLOYING")), "{bot}");
        assert!((time(&bot["startTime"]) - start_at).abs() < TimeDelta::milliseconds(1), "{bot}");
    }

    let (_, scale) = server.get("/api/admin/scale").await;
    // A lead, its jitter and a window before its start.
    let ahead = start_at - time(&scale["nextDueAt"]);
    assert_eq!(scale["scheduled"], 1, "{scale}");
    assert!((TimeDelta::minutes(5)..=TimeDelta::seconds(390)).contains(&ahead), "{ahead} ahead: {scale}");

    let (start_at, end_at) = (in_minutes(90), in_minutes(120));
    let (status, moved) = patch(&server, id, &json!({ "startTime": start_at, "endTime": end_at })).await;
    assert_eq!((status, &moved["state"]), (StatusCode::OK, &json!("SCHEDULED")), "{moved}");
    for bot in [moved, server.bot(id).await] {
        assert!((time(&bot["startTime"]) - start_at).abs() < TimeDelta::milliseconds(1), "{bot}");
        assert!((time(&bot["endTime"]) - end_at).abs() < TimeDelta::milliseconds(1), "{bot}");
    }

    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    for (body, field) in [
        (json!({}), "startTime"),
        (json!({ "startTime": in_minutes(-1) }), "startTime"),
        (json!({ "startTime": in_minutes(60 * 24 * 400) }), "startTime"),
        (json!({ "startTime": "soon" }), "startTime"),
        (json!({ "endTime": in_minutes(-1) }), "endTime"),
        // Each alone is good; together with what the bot has they are not in order.
        (json!({ "startTime": in_minutes(121) }), "endTime"),
        (json!({ "endTime": in_minutes(80) }), "endTime"),
        (json!({ "queueTimeoutMs": 1 }), "queueTimeoutMs"),
    ] {
        check_refused(&patch(&server, id, &body).await, unprocessable, "invalid_field", &json!(field));
    }

    let pool = server.pool().await;
    let stranger: Visitor = server.visitor(&pool, "stranger").await;
    let theirs = stranger.request(Method::PATCH, &format!("/api/bots/{id}"));
    let refused = answer(theirs.json(&json!({ "startTime": start_at }))).await;
    check_refused(&refused, StatusCode::NOT_FOUND, "not_found", &Value::Null);

    // The bound: one more than two is told when to come back, and leaves nothing behind.
    let second = answer(server.create(&request(&server, "second", start_at), "second")).await;
    assert_eq!(second.0, StatusCode::CREATED, "{second:?}");
    let third = request(&server, "third", start_at);
    Answer::to(server.create(&third, "third")).await.check_later("schedule_full");
    assert_eq!(server.bot_count().await, 2);

    let (status, cancelled) = server.post(&format!("/api/bots/{id}/cancel"), &Value::Null).await;
    assert_eq!(
        (status, &cancelled["state"], &cancelled["endReason"]),
        (StatusCode::OK, &json!("DONE"), &json!("cancelled")),
        "{cancelled}"
    );
    let refused = patch(&server, id, &json!({ "startTime": in_minutes(40) })).await;
    check_refused(&refused, StatusCode::CONFLICT, "already_started", &Value::Null);
    let third = answer(server.create(&third, "third")).await;
    assert_eq!(third.0, StatusCode::CREATED, "there is room again: {third:?}");
}

#[tokio::test]
async fn a_bot_starts_in_time_and_finds_a_slot_or_waits_for_one() {
    let (server, _programs) = server("1000").await;
    let start_at = Utc::now() + TimeDelta::seconds(4);
    let first = answer(server.create(&request(&server, "first", start_at), "first")).await.1;
    assert_eq!(first["state"], "SCHEDULED", "{first}");
    let first = first["id"].as_i64().unwrap();
    let bot = server.wait_bot(first, LIMIT, |bot| bot["slotName"] == "pool-rehearsal-001").await;
    // A lead of 1 s, its jitter of 0.1 s, a window of 0.2 s.
    let ahead = start_at - time(&bot["deployedAt"]);
    let expected = TimeDelta::milliseconds(700)..=TimeDelta::milliseconds(1_400);
    assert!(expected.contains(&ahead), "{ahead} ahead of its start: {bot}");
    let refused = patch(&server, first, &json!({ "startTime": Utc::now() + TimeDelta::hours(1) })).await;
    check_refused(&refused, StatusCode::CONFLICT, "already_started", &Value::Null);

    // The slot is taken: one waits in the queue from its start time on, one does not wait and is tried for a while.
    let start_at = Utc::now() + TimeDelta::seconds(3);
    let mut queues = request(&server, "queues", start_at);
    queues["queueTimeoutMs"] = json!(1_500);
    let mut insists = request(&server, "insists", start_at);
    insists["queueTimeoutMs"] = json!(0);
    let queues = answer(server.create(&queues, "queues")).await.1["id"].as_i64().unwrap();
    let insists = answer(server.create(&insists, "insists")).await.1["id"].as_i64().unwrap();
    server.wait_state(queues, LIMIT, &["QUEUED"]).await;
    let bot = server.wait_state(queues, LIMIT, &["FATAL"]).await;
    let waited = time(&bot["endedAt"]) - start_at;
    assert_eq!(bot["endReason"], "queue_timeout", "{bot}");
    assert!((1_500..2_500).contains(&waited.num_milliseconds()), "{waited} after its start: {bot}");
    let bot = server.wait_state(insists, LIMIT, &["FATAL"]).await;
    let tried = time(&bot["endedAt"]) - start_at;
    assert_eq!(bot["endReason"], "start_missed", "{bot}");
    assert!(bot["endDetail"].as_str().unwrap().contains("no slot is free"), "{bot}");
    assert!((3_000..4_000).contains(&tried.num_milliseconds()), "{tried} after its start: {bot}");
}

#[tokio::test]
async fn a_bot_that_is_early_waits_in_its_meeting_for_the_start() {
    let server = Server::start(&[]).await;
    let start_at = Utc::now() + TimeDelta::seconds(12);
    let mut early = request(&server, "early", start_at);
    early["automaticLeave"] = json!({ "waitingRoomTimeout": 1_000 });
    let id = answer(server.create(&early, "early")).await.1["id"].as_i64().unwrap();
    let bot = server.wait_state(id, LIMIT, &["DONE", "FATAL"]).await;
    assert_eq!(bot["endReason"], "waiting_room_timeout", "{bot}");
    assert!(time(&bot["endedAt"]) >= start_at + TimeDelta::seconds(1), "{bot}");
}
