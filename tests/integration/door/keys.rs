//! Who is let in: keys, cookies, and what of them is stored.

use super::{LIMIT, LOOK, error, shared, visitor};
use crate::support::client::answer;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

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
    let cookie = visitor.cookie().await;
    let by_key = || visitor.request(Method::GET, "/api/bots");
    let by_cookie = || visitor.bare(Method::GET, "/api/bots").header("cookie", &cookie);
    let asks: [&dyn Fn() -> RequestBuilder; 2] = [&by_key, &by_cookie];
    for ask in asks {
        assert_eq!(answer(ask()).await.0, StatusCode::OK);
    }
    let key = shared.pool.list_api_keys(visitor.user).await.unwrap().remove(0);
    assert!(shared.pool.revoke_api_key(visitor.user, key.id).await.unwrap());
    let deadline = Instant::now() + LIMIT;
    for ask in asks {
        while answer(ask()).await.0 != StatusCode::UNAUTHORIZED {
            assert!(Instant::now() < deadline, "a revoked key still works");
            tokio::time::sleep(LOOK).await;
        }
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
