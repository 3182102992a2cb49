//! The dashboard's websocket: who may open it, and what it says to whom.

use crate::support::client::Visitor;
use crate::support::server::{Server, silent_bot};
use crate::support::watcher::{Watcher, connect};
use chrono::{TimeDelta, Utc};
use futures_util::{SinkExt, StreamExt, stream};
use meeboter::auth::Tokens;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

const LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// A server with one slot, whose bots never say a word.
async fn start() -> (Server, tempfile::TempDir) {
    let programs = tempfile::tempdir().unwrap();
    let bot = silent_bot(programs.path());
    let settings = [
        ("MEEBOTER_DRIVER__BOT_PROGRAM", bot.as_str()),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "1"),
    ];
    (Server::start(&settings).await, programs)
}

fn refused(answer: Result<WebSocketStream<TcpStream>, Error>) -> (StatusCode, Value) {
    let Err(Error::Http(answer)) = answer else { panic!("{answer:?} is no refusal") };
    let body = answer.body().as_deref().unwrap_or_default();
    (answer.status().as_u16().try_into().unwrap(), serde_json::from_slice(body).unwrap_or_default())
}

#[tokio::test]
async fn only_the_servers_own_page_may_open_it() {
    let (server, _programs) = start().await;
    let visitor = server.visitor(&server.pool().await, "visitor").await;
    let cookie = visitor.cookie().await;
    let own = Some(visitor.base.as_str());
    for cookie in [None, Some("meeboter_session=1.1.00"), Some("other=1")] {
        let (status, body) = refused(connect(&visitor, cookie, own).await);
        assert_eq!((status, &body["error"]["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")));
    }
    for origin in [None, Some("http://example.org"), Some("null"), Some("http://127.0.0.1")] {
        let (status, body) = refused(connect(&visitor, Some(&cookie), origin).await);
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::FORBIDDEN, &json!("forbidden")),
            "{origin:?}"
        );
    }
    connect(&visitor, Some(&cookie), own).await.unwrap();
    // A request that is no handshake is no reason to break.
    let plain = visitor.bare(Method::GET, "/ws").header("cookie", &cookie).header("origin", &visitor.base);
    assert!(plain.send().await.unwrap().status().is_client_error());
}

#[tokio::test]
async fn everybody_sees_every_slot_and_only_their_own_bots() {
    let (server, _programs) = start().await;
    let pool = server.pool().await;
    let (ann, ben) = (server.visitor(&pool, "ann").await, server.visitor(&pool, "ben").await);
    let (mut ann_sees, mut ben_sees) = (Watcher::connect(&ann).await, Watcher::connect(&ben).await);
    let snapshot = &ann_sees.said[0];
    for part in ["slots", "bots", "queues", "recordings"] {
        assert_eq!(snapshot[part], json!([]), "{snapshot}");
    }
    assert_eq!(snapshot["maxSize"], 100, "{snapshot}");

    let first = ann.send_bot("secret-of-ann").await;
    let busy = |watcher: &Watcher| watcher.slots.values().any(|slot| slot["status"] == "busy");
    ann_sees
        .hear_until("her bot in its slot", |watcher| busy(watcher) && watcher.bots.contains_key(&first))
        .await;
    ben_sees.hear_until("the slot", busy).await;
    let slot = &ann_sees.slots["pool-rehearsal-001"];
    assert_eq!((&slot["botId"], &slot["othersBot"]), (&json!(first), &json!(false)), "{slot}");
    let slot = &ben_sees.slots["pool-rehearsal-001"];
    assert_eq!((&slot["botId"], &slot["othersBot"]), (&Value::Null, &json!(true)), "{slot}");

    // Ben's bot waits behind another of Ann's; each sees how long the line is, and who of it is theirs.
    let second = ann.send_bot("secret-too").await;
    let third = ben.send_bot("secret-of-ben").await;
    let line = |watcher: &Watcher| watcher.queue["length"] == 2;
    ann_sees.hear_until("the line", line).await;
    ben_sees.hear_until("the line", line).await;
    for (watcher, bot, place) in [(&ann_sees, second, 1), (&ben_sees, third, 2)] {
        let queue = &watcher.queue;
        assert_eq!((&queue["bots"], &queue["places"]), (&json!([bot]), &json!([place])), "{queue}");
    }
    assert_eq!(ben_sees.bots.keys().collect::<Vec<_>>(), [&third]);
    assert_eq!(ann_sees.bots.keys().collect::<Vec<_>>(), [&first, &second]);
    let said = serde_json::to_string(&ben_sees.said).unwrap();
    assert!(!said.contains("secret-of-ann") && !said.contains("secret-too"), "{said}");

    // Whoever comes later finds the same.
    let late = Watcher::connect(&ben).await;
    assert_eq!(late.bots.keys().collect::<Vec<_>>(), [&third]);
    assert_eq!(late.slots, ben_sees.slots);
    assert_eq!(late.queue, ben_sees.queue);
}

#[tokio::test]
async fn a_client_that_does_not_read_for_a_while_gets_the_latest_state() {
    let (server, _programs) = start().await;
    let visitor = server.visitor(&server.pool().await, "slow").await;
    let mut watcher = Watcher::connect(&visitor).await;
    let blocker = visitor.send_bot("blocker").await;
    watcher.hear_until("the first bot", |watcher| watcher.bots.contains_key(&blocker)).await;

    // Nothing is read while forty bots come and go, one after another.
    let before = watcher.said.len();
    let mut ids = vec![];
    for number in 0..40 {
        let id = visitor.send_bot(&format!("bot-{number}")).await;
        let (status, bot) = visitor.post(&format!("/api/bots/{id}/cancel"), &json!({})).await;
        assert_eq!((status, &bot["endReason"]), (StatusCode::OK, &json!("cancelled")), "{bot}");
        ids.push(id);
    }
    let last = visitor.send_bot("last").await;
    watcher.hear_until("the last bot", |watcher| watcher.state(last) == "QUEUED").await;
    let messages = &watcher.said[before..];
    let changes = messages.iter().filter(|message| message["type"] == "changes").count();
    assert!(changes <= 4, "{changes} messages for what one can say");
    for id in &ids {
        assert_eq!(watcher.bots[id]["endReason"], "cancelled", "{}", watcher.bots[id]);
    }
    watcher.hear_until("the line", |watcher| watcher.queue["bots"] == json!([last])).await;

    // Awake again, it hears of what happens at once.
    let (status, _) = visitor.post(&format!("/api/bots/{last}/cancel"), &json!({})).await;
    assert_eq!(status, StatusCode::OK);
    watcher.hear_until("the end", |watcher| watcher.bots[&last]["endReason"] == "cancelled").await;
}

#[tokio::test]
async fn a_server_that_stops_says_so_and_does_not_wait_for_its_watchers() {
    let (mut server, _programs) = start().await;
    let pool = server.pool().await;
    let visitor = server.visitor(&pool, "watcher").await;
    let watcher = Watcher::connect(&visitor).await;
    drop(pool);
    let asked = Instant::now();
    let status = server.terminate();
    // Requests under way are given 5 s.
    assert!(
        status.success() && asked.elapsed() < Duration::from_secs(4),
        "{status} after {:?}",
        asked.elapsed()
    );
    assert_eq!(watcher.goodbye().await.code, CloseCode::Restart);
}

#[tokio::test]
async fn a_line_ends_with_the_key_that_it_was_opened_with() {
    let (server, _programs) = start().await;
    let pool = server.pool().await;
    let (ann, ben) = (server.visitor(&pool, "ann").await, server.visitor(&pool, "ben").await);
    let (ann_sees, mut ben_sees) = (Watcher::connect(&ann).await, Watcher::connect(&ben).await);
    let key = pool.list_api_keys(ann.user).await.unwrap().remove(0);
    assert!(pool.revoke_api_key(ann.user, key.id).await.unwrap());
    assert_eq!(ann_sees.goodbye().await.code, CloseCode::Policy);
    let told = ben_sees.said.len();
    ben_sees.hear_until("a sign of life", |watcher| watcher.said.len() > told).await;
}

#[tokio::test]
async fn a_line_ends_with_its_session() {
    let secret = "a secret of this installation, known to this test";
    let server = Server::start(&[("AUTH_SECRET", secret)]).await;
    let pool = server.pool().await;
    let visitor = server.visitor(&pool, "ann").await;
    let key = pool.list_api_keys(visitor.user).await.unwrap().remove(0);
    let until = Utc::now() + TimeDelta::seconds(4);
    let token = Tokens::new(secret).session(visitor.user, key.id, until);
    let watcher = Watcher::connect_with(&visitor, &format!("meeboter_session={token}")).await;
    assert_eq!(watcher.goodbye().await.code, CloseCode::Policy);
    assert!(Utc::now() >= until);
}

/// What one message may hold, and bots beyond that.
const TOPICS_MAX: usize = 1_000;
const MANY: usize = 3_500;

#[tokio::test]
async fn a_large_snapshot_comes_in_parts_and_nothing_is_missing() {
    let (server, _programs) = start().await;
    let pool = server.pool().await;
    let (ann, ben) = (server.visitor(&pool, "ann").await, server.visitor(&pool, "ben").await);
    let mut request = ann.bot_request("scheduled");
    request["startTime"] = json!(Utc::now() + TimeDelta::days(2));
    let create = |_| ann.post("/api/bots", &request);
    let created: Vec<_> = stream::iter(0..MANY).map(create).buffer_unordered(32).collect().await;
    let id = |(status, bot): &(StatusCode, Value)| {
        assert_eq!(*status, StatusCode::CREATED, "{bot}");
        bot["id"].as_i64().unwrap()
    };
    let ids: BTreeSet<i64> = created.iter().map(id).collect();
    let own = ben.send_bot("own").await;

    let mut watcher = Watcher::connect(&ann).await;
    assert_eq!(watcher.bots.keys().copied().collect::<BTreeSet<_>>(), ids);
    assert!(watcher.said.len() > MANY / TOPICS_MAX, "{} parts", watcher.said.len());
    for part in &watcher.said {
        let held = ["slots", "bots", "queues", "recordings"].map(|list| part[list].as_array().unwrap().len());
        assert!(held.iter().sum::<usize>() <= TOPICS_MAX, "{held:?}");
    }
    let last = *ids.last().unwrap();
    let (status, _) = ann.post(&format!("/api/bots/{last}/cancel"), &json!({})).await;
    assert_eq!(status, StatusCode::OK);
    watcher.hear_until("what changes later", |watcher| watcher.state(last) == "DONE").await;

    // What is not for somebody costs no message.
    let watcher = Watcher::connect(&ben).await;
    assert!(watcher.bots.keys().eq([&own]) && watcher.said.len() <= 2, "{:?}", watcher.said);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_dropped_and_told_so() {
    let (server, _programs) = start().await;
    let visitor = server.visitor(&server.pool().await, "deaf").await;
    let watcher = Watcher::connect(&visitor).await;
    check_dropped(&server).await;
    let frame = watcher.goodbye().await;
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Policy, "too slow"));
}

#[tokio::test]
async fn a_client_that_asks_and_reads_nothing_is_dropped() {
    let (server, _programs) = start().await;
    let visitor = server.visitor(&server.pool().await, "deaf").await;
    let cookie = visitor.cookie().await;
    let mut socket = connect(&visitor, Some(&cookie), Some(&visitor.base)).await.unwrap();
    // Until the answers fill every buffer on the way, and nothing is taken from this side either.
    let ping = Message::Ping(vec![7; 125].into());
    while timeout(LIMIT / 10, socket.send(ping.clone())).await.is_ok_and(|sent| sent.is_ok()) {}
    check_dropped(&server).await;
}

/// Waits until the one websocket there is was dropped as too slow.
async fn check_dropped(server: &Server) {
    let began = Instant::now();
    loop {
        let page = server.bare(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        if page.contains("meeboter_websocket_clients 0\n") && server.log().contains("too slow") {
            return;
        }
        assert!(began.elapsed() < 4 * LIMIT, "{}", server.log());
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test]
async fn so_many_lines_are_open_at_a_time_and_no_more() {
    let settings =
        [("MEEBOTER_SERVER__WEBSOCKETS_MAX", "3"), ("MEEBOTER_SERVER__WEBSOCKETS_PER_USER_MAX", "2")];
    let server = Server::start(&settings).await;
    let pool = server.pool().await;
    let (ann, ben) = (server.visitor(&pool, "ann").await, server.visitor(&pool, "ben").await);
    let _first = Watcher::connect(&ann).await;
    let second = Watcher::connect(&ann).await;
    check_overloaded(&ann).await;
    let _third = Watcher::connect(&ben).await;
    check_overloaded(&ben).await;

    // Whoever goes makes room.
    drop(second);
    let cookie = ben.cookie().await;
    let began = Instant::now();
    while connect(&ben, Some(&cookie), Some(&ben.base)).await.is_err() {
        assert!(began.elapsed() < LIMIT, "{}", server.log());
        tokio::time::sleep(LOOK).await;
    }
}

/// Sees that this user may open no more, and is told when to try again.
async fn check_overloaded(visitor: &Visitor) {
    let cookie = visitor.cookie().await;
    let answer = connect(visitor, Some(&cookie), Some(&visitor.base)).await;
    let Err(Error::Http(refusal)) = &answer else { panic!("{answer:?} is no refusal") };
    assert!(refusal.headers().contains_key("retry-after"), "{refusal:?}");
    let (status, body) = refused(answer);
    assert_eq!((status, &body["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("overloaded")));
}
