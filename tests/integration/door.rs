//! The HTTP door: what is let in, what is refused and how, and that a refusal leaves nothing behind. One server serves
//! most of these tests, each as a user of its own; its bots are programs that never say a word.

use crate::support::postgres::Janitor;
use crate::support::server::{Answer, Server, Visitor, answer, silent_bot};
use futures_util::future::join_all;
use meeboter::store::pool::Pool;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

const LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// A server that lives as long as this process, at the log level that is the default.
struct Shared {
    server: Server,
    pool: Pool,
    _programs: tempfile::TempDir,
    _janitor: Janitor,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

async fn shared() -> &'static Shared {
    let start = || async {
        let programs = tempfile::tempdir().unwrap();
        let bot = silent_bot(programs.path());
        let settings = [
            ("MEEBOTER_DRIVER__BOT_PROGRAM", bot.as_str()),
            ("MEEBOTER_LOG_LEVEL", "info"),
            ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "2"),
        ];
        let server = Server::start(&settings).await;
        let janitor = Janitor::watch(server.data_dir());
        let pool = server.pool().await;
        Shared { server, pool, _programs: programs, _janitor: janitor }
    };
    SHARED.get_or_init(start).await
}

async fn visitor(name: &str) -> Visitor {
    let shared = shared().await;
    shared.server.visitor(&shared.pool, name).await
}

/// Waits until the shared server's log holds a text.
async fn logged(text: &str) {
    let server = &shared().await.server;
    let deadline = Instant::now() + LIMIT;
    while !server.log().contains(text) {
        assert!(Instant::now() < deadline, "{text} is not in the log:\n{}", server.log());
        tokio::time::sleep(LOOK).await;
    }
}

/// The error of an answer: of the documented shape, its id in the log.
async fn error(request: RequestBuilder, status: StatusCode, code: &str) -> Value {
    let (answered, body) = answer(request).await;
    assert_eq!(answered, status, "{body}");
    let error = &body["error"];
    assert_eq!(error["code"], code, "{body}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    let id = error["id"].as_str().unwrap_or_default();
    assert_eq!(id.len(), 36, "an id: {body}");
    logged(id).await;
    error.clone()
}

/// A body with changes: JSON pointers and what goes there; null takes the member away.
fn changed(body: &Value, changes: &[(&str, Value)]) -> Value {
    let mut body = body.clone();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let members = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Value::Null => drop(members.remove(name)),
            value => drop(members.insert(name.to_owned(), value.clone())),
        }
    }
    body
}

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
async fn without_a_key_nothing_is_told() {
    let visitor = visitor("keys").await;
    let id = visitor.send_bot("keys").await;
    let routes = [
        (Method::POST, "/api/bots".to_owned()),
        (Method::GET, "/api/bots".to_owned()),
        (Method::GET, "/api/bots/pool/stats".to_owned()),
        (Method::GET, "/api/bots/queue/stats".to_owned()),
        (Method::GET, format!("/api/bots/{id}")),
        (Method::PATCH, format!("/api/bots/{id}")),
        (Method::GET, format!("/api/bots/{id}/events")),
        (Method::GET, format!("/api/bots/{id}/recording")),
        (Method::POST, format!("/api/bots/{id}/cancel")),
        (Method::POST, format!("/api/bots/{id}/remove-from-call")),
        (Method::GET, "/api/session".to_owned()),
        (Method::GET, "/ws".to_owned()),
    ];
    let wrong_key = format!("mb_{}", "0".repeat(64));
    for (method, path) in &routes {
        let ask = || visitor.bare(method.clone(), path).json(&visitor.bot_request("none"));
        error(ask(), StatusCode::UNAUTHORIZED, "unauthorized").await;
        for key in ["", wrong_key.as_str(), &visitor.key[..40]] {
            error(ask().header("x-api-key", key), StatusCode::UNAUTHORIZED, "unauthorized").await;
        }
        let forged =
            ask().header("cookie", "meeboter_session=1.9999999999.00").header("origin", &visitor.base);
        error(forged, StatusCode::UNAUTHORIZED, "unauthorized").await;
    }
    // What bots' programs ask takes no user's key.
    for (method, path, body) in [
        (Method::POST, format!("/api/bots/{id}/heartbeat"), json!({ "generation": 1 })),
        (
            Method::POST,
            format!("/api/bots/{id}/segments"),
            json!({ "generation": 1, "run": 1, "part": { "kind": "init" } }),
        ),
    ] {
        let (status, body) = answer(visitor.request(method, &path).json(&body)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}: {body}");
    }
    assert_eq!(visitor.total().await, 1, "nothing is stored");
    let (_, bot) = visitor.get(&format!("/api/bots/{id}")).await;
    assert_eq!(bot["endReason"], Value::Null, "the bot was left alone: {bot}");
}

#[tokio::test]
async fn a_revoked_key_stops_working() {
    let (shared, visitor) = (shared().await, visitor("revoked").await);
    assert_eq!(visitor.get("/api/bots").await.0, StatusCode::OK);
    let key = shared.pool.list_api_keys(visitor.user).await.unwrap().remove(0);
    assert!(shared.pool.revoke_api_key(visitor.user, key.id).await.unwrap());
    let deadline = Instant::now() + LIMIT;
    while visitor.get("/api/bots").await.0 != StatusCode::UNAUTHORIZED {
        assert!(Instant::now() < deadline, "a revoked key still works");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test]
async fn anothers_bot_does_not_exist() {
    let (owner, stranger) = (visitor("owner").await, visitor("stranger").await);
    let id = owner.send_bot("mine").await;
    for (method, path) in [
        (Method::GET, format!("/api/bots/{id}")),
        (Method::GET, format!("/api/bots/{id}/events")),
        (Method::GET, format!("/api/bots/{id}/recording")),
        (Method::POST, format!("/api/bots/{id}/remove-from-call")),
        (Method::POST, format!("/api/bots/{id}/cancel")),
    ] {
        let refused =
            error(stranger.request(method.clone(), &path), StatusCode::NOT_FOUND, "not_found").await;
        // The very answer that a bot gets which never was.
        let never = path.replace(&id.to_string(), "987654321");
        let unknown = error(stranger.request(method, &never), StatusCode::NOT_FOUND, "not_found").await;
        let said = refused["message"].as_str().unwrap().replace(&id.to_string(), "987654321");
        assert_eq!(unknown["message"], said);
    }
    assert_eq!(stranger.total().await, 0);
    let (_, bot) = owner.get(&format!("/api/bots/{id}")).await;
    assert_eq!((&bot["id"], &bot["endReason"]), (&json!(id), &Value::Null), "it was left alone");
    let refused = owner.request(Method::GET, &format!("/api/bots/{id}/recording"));
    error(refused, StatusCode::NOT_FOUND, "recording_not_ready").await;
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
async fn a_browser_gets_a_cookie_that_only_its_own_pages_can_use() {
    let visitor = visitor("cookies").await;
    let answered = visitor.sign_in().await;
    assert_eq!(answered.status(), StatusCode::NO_CONTENT);
    let set = answered.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(set.split("; ").any(|given| given == part), "{set} has no {part}");
    }
    assert!(!set.contains(&visitor.key) && !set.contains("Secure"), "{set}");

    let cookie = visitor.cookie().await;
    let ask = |method, path| visitor.bare(method, path).header("cookie", &cookie);
    let (status, session) = answer(ask(Method::GET, "/api/session")).await;
    assert_eq!((status, &session["userName"]), (StatusCode::OK, &json!("cookies")), "{session}");
    assert_eq!(session["userId"], visitor.user.0);
    let platforms: Vec<_> = session["platforms"].as_array().unwrap().iter().collect();
    assert!(platforms.contains(&&json!({ "key": "rehearsal", "available": true })), "{session}");
    assert!(platforms.contains(&&json!({ "key": "zoom", "available": false })), "{session}");

    let post = || ask(Method::POST, "/api/bots").json(&visitor.bot_request("one"));
    let foreign = ["http://example.org", "null", "http://127.0.0.1", "http://127.0.0.1.example.org"];
    for origin in foreign {
        error(post().header("origin", origin), StatusCode::FORBIDDEN, "forbidden").await;
        let sign_in = visitor.bare(Method::POST, "/api/session").json(&json!({ "apiKey": visitor.key }));
        error(sign_in.header("origin", origin), StatusCode::FORBIDDEN, "forbidden").await;
        let sign_out = ask(Method::DELETE, "/api/session").header("origin", origin);
        error(sign_out, StatusCode::FORBIDDEN, "forbidden").await;
    }
    error(post(), StatusCode::FORBIDDEN, "forbidden").await;
    assert_eq!(visitor.total().await, 0, "nothing is stored");
    let (status, bot) = answer(post().header("origin", &visitor.base)).await;
    assert_eq!(status, StatusCode::CREATED, "{bot}");

    let wrong = visitor.bare(Method::POST, "/api/session").json(&json!({ "apiKey": "mb_wrong" }));
    error(wrong, StatusCode::UNAUTHORIZED, "unauthorized").await;
    let sign_out = ask(Method::DELETE, "/api/session").header("origin", &visitor.base).send().await.unwrap();
    let cleared = sign_out.headers()["set-cookie"].to_str().unwrap();
    assert!(cleared.starts_with("meeboter_session=;") && cleared.contains("Max-Age=0"), "{cleared}");
}

#[tokio::test]
async fn keys_are_kept_as_hashes_and_the_first_one_in_a_private_file() {
    let shared = shared().await;
    let file = shared.server.data_dir().join("api-key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let key = shared.server.key();
    assert!(key.len() >= 40, "{key}");
    let socket = shared.server.data_dir().join("postgres/run").display().to_string();
    let config = format!("host={socket} user=meeboter dbname=meeboter");
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let tables = client
        .query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'", &[])
        .await
        .unwrap();
    let mut keys = 0;
    for table in tables {
        let table: String = table.get(0);
        let rows = client.query(&format!("SELECT t::text FROM \"{table}\" t"), &[]).await.unwrap();
        keys += if table == "api_keys" { rows.len() } else { 0 };
        for row in rows {
            let row: String = row.get(0);
            assert!(!row.contains(&key) && !row.contains(&key[9..]), "{table} holds the key: {row}");
        }
    }
    assert!(keys >= 1);
    assert!(!shared.server.log().contains(&key), "the log holds the key");
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
