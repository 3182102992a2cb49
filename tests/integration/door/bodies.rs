//! What a request may say: meetings that cannot be joined, bodies and fields that are wrong, names old and new.

use super::{changed, error, visitor};
use crate::support::client::{Visitor, answer};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn a_meeting_that_cannot_be_joined_is_refused() {
    let visitor = visitor("meetings").await;
    let good = visitor.bot_request("one");
    let post =
        |changes: &[(&str, Value)]| visitor.request(Method::POST, "/api/bots").json(&changed(&good, changes));
    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;

    let unknown = post(&[("/meetingInfo/platform", json!("webex"))]);
    let refused = error(unknown, unprocessable, "platform_unknown").await;
    let allowed = json!(["google-meet", "microsoft-teams", "zoom", "rehearsal"]);
    assert_eq!(refused["details"], json!({ "field": "meetingInfo.platform", "allowed": allowed }));
    for name in allowed.as_array().unwrap() {
        assert!(refused["message"].as_str().unwrap().contains(name.as_str().unwrap()), "{refused}");
    }

    for (name, key, url) in [
        ("google-meet", "google-meet", "https://meet.google.com/abc-defg-hij"),
        ("google", "google-meet", "https://meet.google.com/abc-defg-hij"),
        ("meet", "google-meet", "https://meet.google.com/abc-defg-hij"),
        ("microsoft-teams", "microsoft-teams", "https://teams.microsoft.com/l/meetup-join/1"),
        ("teams", "microsoft-teams", "https://teams.microsoft.com/l/meetup-join/1"),
        ("zoom", "zoom", "https://zoom.us/j/123456789"),
    ] {
        let changes = [("/meetingInfo/platform", json!(name)), ("/meetingInfo/meetingUrl", json!(url))];
        let refused = error(post(&changes), unprocessable, "platform_not_available").await;
        assert_eq!(refused["details"]["platform"], key, "{refused}");
    }

    let base = &visitor.base;
    for url in [
        String::new(),
        "one".to_owned(),
        "file:///rehearsal/one".to_owned(),
        "http://example.org/rehearsal/one".to_owned(),
        "http://127.0.0.1:1/rehearsal/one".to_owned(),
        base.clone(),
        format!("{base}/rehearsal/"),
        format!("{base}/rehearsal/one/two"),
        format!("{base}/api/bots"),
        format!("{base}/rehearsal/{}", "x".repeat(2_000)),
    ] {
        let refused =
            error(post(&[("/meetingInfo/meetingUrl", json!(url))]), unprocessable, "invalid_field").await;
        assert_eq!(refused["details"]["field"], "meetingInfo.meetingUrl", "{url}: {refused}");
    }
    assert_eq!(visitor.total().await, 0, "nothing is stored");
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused() {
    let visitor = visitor("bodies").await;
    let post = |body: &str| visitor.request(Method::POST, "/api/bots").body(body.to_owned());
    for body in ["", "{", "no json", "{\"meetingInfo\":}", "\u{0}"] {
        error(post(body), StatusCode::BAD_REQUEST, "invalid_json").await;
    }
    for size in [65_537, 200_000, 3_000_000] {
        let body = changed(&visitor.bot_request("large"), &[("/botDisplayName", json!("x".repeat(size)))]);
        let refused = error(post(&body.to_string()), StatusCode::PAYLOAD_TOO_LARGE, "body_too_large").await;
        assert_eq!(refused["details"], json!({ "maxBytes": 65_536 }));
    }
    assert_eq!(visitor.total().await, 0, "nothing is stored");
}

#[tokio::test]
async fn a_field_that_is_wrong_is_named() {
    let visitor = visitor("fields").await;
    let good = visitor.bot_request("one");
    let url = good["meetingInfo"]["meetingUrl"].clone();
    let earlier = (chrono::Utc::now() - chrono::TimeDelta::seconds(1)).to_rfc3339();
    let missed = (chrono::Utc::now() - chrono::TimeDelta::minutes(11)).to_rfc3339();
    let in_years = (chrono::Utc::now() + chrono::TimeDelta::days(400)).to_rfc3339();
    let cases = [
        // Unknown.
        ("/colour", json!("blue"), "invalid_field", "colour"),
        ("/meetingInfo/colour", json!("blue"), "invalid_field", "meetingInfo.colour"),
        ("/automaticLeave", json!({ "colour": 1 }), "invalid_field", "automaticLeave.colour"),
        // Twice, by its old and its new name.
        ("/meeting", good["meetingInfo"].clone(), "invalid_field", "meetingInfo"),
        // Of a wrong type.
        ("/meetingInfo", json!("rehearsal"), "invalid_field", "meetingInfo"),
        ("/meetingInfo", json!(["rehearsal", url, null, null]), "invalid_field", "meetingInfo"),
        ("/meetingInfo/platform", json!(1), "invalid_field", "meetingInfo.platform"),
        ("/meetingInfo/password", json!(1234), "invalid_field", "meetingInfo.password"),
        ("/botDisplayName", json!({}), "invalid_field", "botDisplayName"),
        ("/recordingEnabled", json!("yes"), "invalid_field", "recordingEnabled"),
        ("/queueTimeoutMs", json!("1000"), "invalid_field", "queueTimeoutMs"),
        ("/queueTimeoutMs", json!(1.5), "invalid_field", "queueTimeoutMs"),
        ("/queueTimeoutMs", json!(-1), "invalid_field", "queueTimeoutMs"),
        ("/endTime", json!("tomorrow"), "invalid_field", "endTime"),
        ("/endTime", json!(1_800_000_000), "invalid_field", "endTime"),
        ("/automaticLeave", json!([1000, 1000, 1000, 1000]), "invalid_field", "automaticLeave"),
        (
            "/automaticLeave",
            json!({ "inactivityTimeout": "5 min" }),
            "invalid_field",
            "automaticLeave.inactivityTimeout",
        ),
        // Missing.
        ("/meetingInfo", Value::Null, "invalid_field", "meetingInfo"),
        ("/meetingInfo/platform", Value::Null, "invalid_field", "meetingInfo.platform"),
        ("/meetingInfo/meetingUrl", Value::Null, "invalid_field", "meetingInfo.meetingUrl"),
        // Of a value that is not allowed.
        ("/startTime", json!(missed), "invalid_field", "startTime"),
        ("/startTime", json!(in_years), "invalid_field", "startTime"),
        ("/startTime", json!("at ten"), "invalid_field", "startTime"),
        ("/endTime", json!(earlier), "invalid_field", "endTime"),
        ("/queueTimeoutMs", json!(600_001), "invalid_field", "queueTimeoutMs"),
        ("/botDisplayName", json!(""), "invalid_field", "botDisplayName"),
        ("/botDisplayName", json!("  \t "), "invalid_field", "botDisplayName"),
        ("/botDisplayName", json!("a\u{7}b"), "invalid_field", "botDisplayName"),
        ("/botDisplayName", json!("x".repeat(101)), "invalid_field", "botDisplayName"),
        ("/meetingInfo/meetingId", json!("x".repeat(201)), "invalid_field", "meetingInfo.meetingId"),
        ("/meetingInfo/password", json!("x".repeat(201)), "invalid_field", "meetingInfo.password"),
        (
            "/automaticLeave",
            json!({ "waitingRoomTimeout": 0 }),
            "invalid_field",
            "automaticLeave.waitingRoomTimeout",
        ),
        (
            "/automaticLeave",
            json!({ "noOneJoinedTimeout": 999 }),
            "invalid_field",
            "automaticLeave.noOneJoinedTimeout",
        ),
        (
            "/automaticLeave",
            json!({ "everyoneLeftTimeout": 86_400_001 }),
            "invalid_field",
            "automaticLeave.everyoneLeftTimeout",
        ),
        (
            "/automaticLeave",
            json!({ "inactivityTimeout": -5 }),
            "invalid_field",
            "automaticLeave.inactivityTimeout",
        ),
    ];
    for (pointer, value, code, field) in cases {
        let body = changed(&good, &[(pointer, value)]);
        let request = visitor.request(Method::POST, "/api/bots").json(&body);
        let refused = error(request, StatusCode::UNPROCESSABLE_ENTITY, code).await;
        assert_eq!(refused["details"]["field"], field, "{body}: {refused}");
        assert!(refused["message"].as_str().unwrap().starts_with(field), "{refused}");
    }
    for body in [json!([]), json!("bot"), json!(1), json!(null), json!([good["meetingInfo"]])] {
        let request = visitor.request(Method::POST, "/api/bots").json(&body);
        error(request, StatusCode::UNPROCESSABLE_ENTITY, "invalid_field").await;
    }
    for key in ["", &"x".repeat(201), "caf\u{e9}"] {
        let request = visitor.request(Method::POST, "/api/bots").header("idempotency-key", key).json(&good);
        let refused = error(request, StatusCode::UNPROCESSABLE_ENTITY, "invalid_field").await;
        assert_eq!(refused["details"]["field"], "Idempotency-Key");
    }
    assert_eq!(visitor.total().await, 0, "nothing is stored");
}

#[tokio::test]
async fn the_newer_names_are_taken_and_every_field_is_kept() {
    let visitor = visitor("names").await;
    let end = (chrono::Utc::now() + chrono::TimeDelta::hours(1)).to_rfc3339();
    let body = json!({
        "meeting": {
            "platform": "rehearsal", "meetingUrl": format!("{}/rehearsal/one?guests=2", visitor.base),
            "meetingId": "42", "meetingPassword": "open",
        },
        "displayName": "  Ann’s bot ", "endTime": end, "recordingEnabled": false, "queueTimeoutMs": 600_000,
        "automaticLeave": { "waitingRoomTimeout": 1_000, "noOneJoinedTimeout": 86_400_000 },
    });
    let (status, bot) = visitor.post("/api/bots", &body).await;
    assert_eq!(status, StatusCode::CREATED, "{bot}");
    let (_, read) = visitor.get(&format!("/api/bots/{}", bot["id"])).await;
    for bot in [&bot, &read] {
        assert_eq!(bot["userId"], visitor.user.0);
        assert_eq!(bot["status"], "DEPLOYING", "queued bots show a documented status: {bot}");
        assert_eq!(bot["botDisplayName"], "Ann’s bot");
        assert_eq!(
            bot["meetingInfo"],
            json!({
                "platform": "rehearsal", "meetingUrl": body["meeting"]["meetingUrl"], "meetingId": "42",
                "password": "open",
            })
        );
        assert_eq!((&bot["recordingEnabled"], &bot["startTime"]), (&json!(false), &Value::Null));
        let kept: chrono::DateTime<chrono::Utc> = bot["endTime"].as_str().unwrap().parse().unwrap();
        assert!((kept - end.parse::<chrono::DateTime<chrono::Utc>>().unwrap()).num_milliseconds().abs() < 1);
        assert_eq!(
            bot["automaticLeave"],
            json!({
                "waitingRoomTimeout": 1_000, "noOneJoinedTimeout": 86_400_000, "everyoneLeftTimeout": 120_000,
                "inactivityTimeout": 900_000,
            })
        );
    }
}

#[tokio::test]
async fn one_idempotency_key_makes_one_bot() {
    let (visitor, other) = (visitor("idempotent").await, visitor("idempotent too").await);
    let post = |visitor: &Visitor, key: &str, name: &str| {
        visitor
            .request(Method::POST, "/api/bots")
            .header("idempotency-key", key)
            .json(&visitor.bot_request(name))
    };
    let (status, first) = answer(post(&visitor, "first", "one")).await;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    let (status, again) = answer(post(&visitor, "first", "one")).await;
    assert_eq!((status, &again["id"]), (StatusCode::OK, &first["id"]), "{again}");
    let reused = post(&visitor, "first", "two");
    error(reused, StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused").await;
    assert_eq!(visitor.total().await, 1);
    // A key is its user's.
    let (status, others) = answer(post(&other, "first", "one")).await;
    assert_eq!(status, StatusCode::CREATED, "{others}");
    assert_ne!(others["id"], first["id"]);

    let all = join_all((0..20).map(|_| answer(post(&visitor, "second", "many")))).await;
    let created: Vec<_> = all.iter().filter(|(status, _)| *status == StatusCode::CREATED).collect();
    assert_eq!(created.len(), 1, "{all:?}");
    for (status, body) in &all {
        match *status {
            StatusCode::CREATED | StatusCode::OK => assert_eq!(body["id"], created[0].1["id"]),
            StatusCode::CONFLICT => assert_eq!(body["error"]["code"], "idempotency_key_in_flight"),
            _ => panic!("{status}: {body}"),
        }
    }
    assert_eq!(visitor.total().await, 2);
    let (status, again) = answer(post(&visitor, "second", "many")).await;
    assert_eq!((status, &again["id"]), (StatusCode::OK, &created[0].1["id"]));
}
