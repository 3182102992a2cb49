//! How much is let in at a time.

use super::{LIMIT, LOOK};
use crate::support::client::Answer;
use crate::support::server::{Server, silent_bot};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Instant;

#[tokio::test]
async fn more_bots_than_the_rate_allows_are_sent_away_and_told_when_to_come_back() {
    let server = Server::start(&[
        ("MEEBOTER_SERVER__CREATIONS_PER_S_MAX", "2"),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "0"),
    ])
    .await;
    let ask = |number: u32| {
        let request = server.request(Method::POST, "/api/bots");
        Answer::to(request.json(&server.bot_request(&format!("wish-{number}"), "")))
    };
    // However slow this machine is: twice a second's worth and one more.
    let began = Instant::now();
    let answers = join_all((0..20).map(ask)).await;
    let (taken, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == StatusCode::CREATED);
    let allowed = 2.0 + 2.0 * began.elapsed().as_secs_f64();
    assert!(taken.len() >= 2 && taken.len() as f64 <= allowed, "{} were taken", taken.len());
    for answer in &refused {
        answer.check_later("rate_limited");
        assert_eq!(answer.retry_after, Some(1));
    }
    // Whoever comes back is taken; reading is not bounded.
    let deadline = Instant::now() + LIMIT;
    while ask(20).await.status != StatusCode::CREATED {
        assert!(Instant::now() < deadline, "nobody is taken any more");
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(server.bot_count().await, taken.len() as u64 + 1, "who was refused left nothing behind");
}

#[tokio::test]
async fn too_many_requests_at_a_time_are_sent_away_and_none_is_lost() {
    let programs = tempfile::tempdir().unwrap();
    let bot = silent_bot(programs.path());
    let server = Server::start(&[
        ("MEEBOTER_DRIVER__BOT_PROGRAM", bot.as_str()),
        ("MEEBOTER_SERVER__IN_FLIGHT_MAX", "1"),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "2"),
    ])
    .await;
    let wanted = 60;
    let keys: Vec<String> = (0..wanted).map(|number| format!("wish-{number}")).collect();
    let ask = |key: String| {
        let request = server.request(Method::POST, "/api/bots").header("idempotency-key", &key);
        let request = request.json(&server.bot_request(&key, ""));
        async move { (key, request.send().await.unwrap()) }
    };
    let (mut left, mut ids, mut sent_away) = (keys, vec![], 0);
    let deadline = Instant::now() + LIMIT;
    while !left.is_empty() {
        assert!(Instant::now() < deadline, "{} are still left", left.len());
        for (key, answer) in join_all(std::mem::take(&mut left).into_iter().map(ask)).await {
            let (status, retry) = (answer.status(), answer.headers().get("retry-after").cloned());
            let body: Value = answer.json().await.unwrap();
            if status == StatusCode::SERVICE_UNAVAILABLE {
                assert_eq!(body["error"]["code"], "overloaded", "{body}");
                assert_eq!(retry.unwrap(), "1");
                sent_away += 1;
                left.push(key);
            } else {
                assert_eq!(status, StatusCode::CREATED, "{body}");
                ids.push(body["id"].as_i64().unwrap());
            }
        }
    }
    assert!(sent_away > 0, "sixty requests at once, one at a time let in");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), wanted);
    let (_, page) = server.get("/api/bots").await;
    assert_eq!(page["total"], wanted, "each once");

    server.wait_slots(LIMIT, "busy", 2).await;
    let (_, pool) = server.get("/api/bots/pool/stats").await;
    for pool in [&pool, &pool["platforms"]["rehearsal"]] {
        assert_eq!((&pool["total"], &pool["busy"]), (&json!(2), &json!(2)), "{pool}");
    }
    assert_eq!((&pool["maxSize"], &pool["platforms"]["rehearsal"]["maxSize"]), (&json!(100), &json!(2)));
    let (_, queue) = server.get("/api/bots/queue/stats").await;
    for queue in [&queue, &queue["platforms"]["rehearsal"]] {
        assert_eq!(queue["length"], wanted - 2, "{queue}");
        let oldest: chrono::DateTime<chrono::Utc> =
            queue["oldestQueuedAt"].as_str().unwrap().parse().unwrap();
        let oldest_ms = (chrono::Utc::now() - oldest).num_milliseconds();
        let average_ms = queue["avgWaitMs"].as_i64().unwrap();
        assert!((0..=oldest_ms).contains(&average_ms), "{queue}");
    }
}
