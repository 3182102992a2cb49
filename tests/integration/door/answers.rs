//! What is answered: pages, ends, addresses that there are not, numbers of a pool.

use super::{error, visitor};
use crate::support::client::answer;
use crate::support::server::Server;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn lists_come_in_pages() {
    let visitor = visitor("pages").await;
    let (_, empty) = visitor.get("/api/bots").await;
    assert_eq!(
        empty,
        json!({
            "data": [], "total": 0, "pageCount": 0, "hasNextPage": false, "hasPreviousPage": false,
            "nextCursor": null,
        })
    );
    let mut ids = vec![];
    for number in 0..11 {
        ids.push(visitor.send_bot(&format!("page-{number}")).await);
    }
    ids.reverse();
    for (query, shown, page_count, next, previous, cursor) in [
        ("", &ids[..10], 2, true, false, json!(2)),
        ("?page=2", &ids[10..], 2, false, true, Value::Null),
        ("?page=2&pageSize=4", &ids[4..8], 3, true, true, json!(3)),
        ("?page=3&pageSize=4", &ids[8..], 3, false, true, Value::Null),
        ("?pageSize=100", &ids[..], 1, false, false, Value::Null),
        ("?page=9", &ids[..0], 2, false, true, Value::Null),
        ("?page=1000000&pageSize=100", &ids[..0], 1, false, true, Value::Null),
    ] {
        let (status, page) = visitor.get(&format!("/api/bots{query}")).await;
        assert_eq!(status, StatusCode::OK, "{query}: {page}");
        let got: Vec<_> = page["data"].as_array().unwrap().iter().map(|bot| bot["id"].clone()).collect();
        assert_eq!(json!(got), json!(shown), "{query}");
        assert_eq!((&page["total"], &page["pageCount"]), (&json!(11), &json!(page_count)), "{query}");
        assert_eq!((&page["hasNextPage"], &page["hasPreviousPage"]), (&json!(next), &json!(previous)));
        assert_eq!(page["nextCursor"], cursor, "{query}");
    }
    for path in ["/api/bots".to_owned(), format!("/api/bots/{}/events", ids[0])] {
        for (query, field) in [
            ("page=0", "page"),
            ("page=1000001", "page"),
            ("pageSize=0", "pageSize"),
            ("pageSize=101", "pageSize"),
            ("page=-1", "page"),
            ("page=two", "page"),
            ("pageSize=99999999999", "pageSize"),
        ] {
            let request = visitor.request(Method::GET, &format!("{path}?{query}"));
            let refused = error(request, StatusCode::UNPROCESSABLE_ENTITY, "invalid_field").await;
            assert_eq!(refused["details"]["field"], field, "{query}: {refused}");
        }
    }
    visitor.post(&format!("/api/bots/{}/cancel", ids[0]), &json!({})).await;
    let (_, events) = visitor.get(&format!("/api/bots/{}/events?pageSize=1", ids[0])).await;
    assert_eq!(events["data"][0]["botId"], ids[0], "{events}");
    assert!(events["data"][0]["eventType"].is_string() && events["data"][0]["eventTime"].is_string());
}

#[tokio::test]
async fn a_bot_is_cancelled_once() {
    let visitor = visitor("cancels").await;
    // Both slots are taken, by whomever: this one waits.
    for number in 0..2 {
        visitor.send_bot(&format!("fill-{number}")).await;
    }
    let (_, bot) = visitor.post("/api/bots", &visitor.bot_request("waits")).await;
    assert_eq!((&bot["queued"], &bot["state"]), (&json!(true), &json!("QUEUED")), "{bot}");
    assert!(bot["queuePosition"].as_u64().is_some_and(|position| position >= 1), "{bot}");
    assert!(bot["estimatedWaitMs"].is_u64(), "{bot}");
    let path = format!("/api/bots/{}", bot["id"]);
    let (status, ended) = visitor.post(&format!("{path}/cancel"), &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{ended}");
    assert!(["DONE", "FATAL"].contains(&ended["state"].as_str().unwrap()), "{ended}");
    assert_eq!(ended["endReason"], "cancelled", "{ended}");
    for action in ["cancel", "remove-from-call"] {
        let (status, again) = visitor.post(&format!("{path}/{action}"), &json!({})).await;
        assert_eq!(status, StatusCode::OK, "{again}");
        assert_eq!(again["endedAt"], ended["endedAt"], "it ended once");
    }
    assert_eq!(visitor.get(&path).await.1["endedAt"], ended["endedAt"]);
}

#[tokio::test]
async fn unknown_addresses_are_answered_in_the_shape_of_errors() {
    let visitor = visitor("addresses").await;
    for (method, path) in [
        (Method::GET, "/nowhere"),
        (Method::GET, "/api/nowhere"),
        (Method::POST, "/api/trpc/bots.createBot"),
        (Method::GET, "/dashboard/nowhere.js"),
        (Method::GET, "/dashboard/..%2fCargo.toml"),
        (Method::GET, "/api/bots/seven"),
        (Method::GET, "/api/bots/99999999999999999999"),
        (Method::POST, "/api/slots/no-uuid/assignment"),
    ] {
        error(visitor.request(method, path), StatusCode::NOT_FOUND, "not_found").await;
    }
    for path in ["/healthz", "/readyz", "/", "/dashboard/main.js", "/rehearsal/", "/rehearsal/any"] {
        let answer = visitor.bare(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path} needs no key");
    }
}

#[tokio::test]
async fn an_empty_pool_in_numbers_and_no_rehearsals_where_they_are_off() {
    let server = Server::start(&[("MEEBOTER_REHEARSAL__ENABLED", "false"), ("MAX_POOL_SIZE", "7")]).await;
    let (status, pool) = server.get("/api/bots/pool/stats").await;
    assert_eq!(status, StatusCode::OK, "{pool}");
    let counts = |max_size: u32| json!({ "total": 0, "idle": 0, "deploying": 0, "busy": 0, "error": 0, "maxSize": max_size });
    let mut wanted = counts(7);
    wanted["platforms"] =
        json!({ "google-meet": counts(100), "microsoft-teams": counts(50), "zoom": counts(50) });
    assert_eq!(pool, wanted);
    let (status, queue) = server.get("/api/bots/queue/stats").await;
    assert_eq!(status, StatusCode::OK, "{queue}");
    assert_eq!(queue, json!({ "length": 0, "oldestQueuedAt": null, "avgWaitMs": 0, "platforms": {} }));

    for path in ["/rehearsal", "/rehearsal/", "/rehearsal/any", "/rehearsal/meeting.js"] {
        let (status, body) = answer(server.bare(Method::GET, path)).await;
        assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{path}");
    }
    let (status, body) = server.post("/api/bots", &server.bot_request("one", "")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    assert_eq!(body["error"]["details"]["allowed"], json!(["google-meet", "microsoft-teams", "zoom"]));
    let (_, session) = server.get("/api/session").await;
    assert_eq!((&session["rehearsal"], session["platforms"].as_array().unwrap().len()), (&json!(false), 3));
}
