//! Pools and lines that are full.

use super::{MINUTE, SECOND, check_tidy, server};
use crate::support::client::Answer;
use crate::support::server::Server;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio_postgres::NoTls;

#[tokio::test]
async fn a_platform_that_is_switched_off_takes_no_bots() {
    let server = Server::start(&[("MEEBOTER_POOL__PLATFORMS__REHEARSAL__ENABLED", "false")]).await;
    let (status, refused) = server.post("/api/bots", &server.bot_request("nobody", "host=silent")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    assert_eq!(refused["error"]["code"], "platform_disabled", "{refused}");
    assert_eq!(server.bot_count().await, 0, "nothing is stored");
}

#[tokio::test]
async fn who_finds_no_slot_waits_as_long_as_it_wants_and_no_longer() {
    let settings = [("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "1"), ("MEEBOTER_QUEUE__MAX", "1")];
    let server = Server::start(&settings).await;
    let first = server.send_bot("first", "host=silent").await;
    let mut request = server.bot_request("impatient", "host=silent");

    request["queueTimeoutMs"] = 1_500.into();
    let (_, impatient) = server.post("/api/bots", &request).await;
    let bot = server.wait_state(impatient["id"].as_i64().unwrap(), 10 * SECOND, &["FATAL"]).await;
    let waited_ms = (time(&bot["endedAt"]) - time(&bot["createdAt"])).num_milliseconds();
    assert_eq!((bot["endReason"].as_str(), &bot["slotName"]), (Some("queue_timeout"), &Value::Null), "{bot}");
    assert!((1_500..=2_500).contains(&waited_ms), "waited for {waited_ms} ms");

    request["queueTimeoutMs"] = 0.into();
    Answer::to(server.request(Method::POST, "/api/bots").json(&request)).await.check_later("pool_full");
    assert_eq!(server.bot_count().await, 2, "nothing is stored");

    request["queueTimeoutMs"] = 60_000.into();
    let (_, patient) = server.post("/api/bots", &request).await;
    let patient = patient["id"].as_i64().unwrap();
    Answer::to(server.request(Method::POST, "/api/bots").json(&request)).await.check_later("queue_full");
    assert_eq!(server.bot_count().await, 3, "nothing is stored");

    // Out of the line by request; out of the waiting room too.
    server.post(&format!("/api/bots/{patient}/cancel"), &Value::Null).await;
    let bot = server.wait_state(patient, 5 * SECOND, &["DONE"]).await;
    assert_eq!(bot["endReason"], "cancelled", "{bot}");
    server.wait_state(first, MINUTE, &["IN_WAITING_ROOM"]).await;
    server.post(&format!("/api/bots/{first}/remove-from-call"), &Value::Null).await;
    let bot = server.wait_state(first, MINUTE, &["DONE", "FATAL"]).await;
    assert_eq!(bot["endReason"], "left_by_request", "{bot}");
    check_tidy(&server, 1).await;
}

#[tokio::test]
async fn a_burst_of_requests_right_after_the_start_is_taken_whole() {
    // More than the bot ids that are fetched at a time.
    const BOTS: usize = 400;
    let server = server("1").await;
    let request = server.bot_request("one of many", "host=silent");
    let requests = (0..BOTS).map(|_| Answer::to(server.request(Method::POST, "/api/bots").json(&request)));
    let answers = join_all(requests).await;
    let refused = answers.iter().find(|answer| answer.status != StatusCode::CREATED);
    assert!(refused.is_none(), "{refused:?}");
    let ids: BTreeSet<i64> = answers.iter().filter_map(|answer| answer.body["id"].as_i64()).collect();
    let places: BTreeSet<u64> =
        answers.iter().filter_map(|answer| answer.body["queuePosition"].as_u64()).collect();
    assert_eq!((ids.len(), places), (BOTS, (1..BOTS as u64).collect()));
    assert_eq!(server.bot_count().await, BOTS as u64);
}

#[tokio::test]
async fn a_better_plan_comes_first_and_everybody_knows_their_place() {
    let server = Server::start(&[("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "1")]).await;
    server.send_bot("first", "host=silent").await;
    let pool = server.pool().await;
    let (free, enterprise) = (server.visitor(&pool, "free").await, server.visitor(&pool, "enterprise").await);
    let (client, connection) = tokio_postgres::connect(&server.database_url(), NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.execute("UPDATE users SET plan = name WHERE name IN ('free', 'enterprise')", &[]).await.unwrap();
    assert!(client.execute("UPDATE users SET plan = 'gold'", &[]).await.is_err(), "there is no such plan");

    let (_, last) = free.post("/api/bots", &free.bot_request("last")).await;
    let (_, middle) = server.post("/api/bots", &server.bot_request("middle", "")).await;
    let (_, first) = enterprise.post("/api/bots", &enterprise.bot_request("first")).await;
    // Each was alone when it came, or came first.
    for created in [&last, &middle, &first] {
        assert_eq!((&created["queued"], &created["queuePosition"]), (&json!(true), &json!(1)), "{created}");
    }
    let (last, middle, first) = (
        free.get(&format!("/api/bots/{}", last["id"])).await.1,
        server.bot(middle["id"].as_i64().unwrap()).await,
        enterprise.get(&format!("/api/bots/{}", first["id"])).await.1,
    );
    for (bot, place) in [(&first, 1), (&middle, 2), (&last, 3)] {
        assert_eq!(bot["queuePosition"], place, "{bot}");
        assert_eq!(bot["estimatedWaitMs"], place * 30_000, "nothing has moved yet: {bot}");
    }
    let (_, stats) = server.get("/api/bots/queue/stats").await;
    assert_eq!(stats["platforms"]["rehearsal"]["estimatedWaitMs"], 4 * 30_000, "{stats}");
    drop(client);
    connection.await.unwrap().unwrap();
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}
