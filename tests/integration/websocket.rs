//! The dashboard's websocket: who may open it, and what it says to whom.

use crate::support::client::Visitor;
use crate::support::server::{Server, silent_bot};
use futures_util::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

const LIMIT: Duration = Duration::from_secs(30);

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

/// A client that puts the messages together, as the page does.
struct Watcher {
    socket: WebSocketStream<TcpStream>,
    /// What was said, in order.
    said: Vec<Value>,
    number: u64,
    bots: BTreeMap<i64, Value>,
    slots: BTreeMap<String, Value>,
    queue: Value,
}

impl Watcher {
    async fn connect(visitor: &Visitor) -> Self {
        let cookie = visitor.cookie().await;
        let socket = connect(visitor, Some(&cookie), Some(&visitor.base)).await.unwrap();
        let (bots, slots) = (BTreeMap::new(), BTreeMap::new());
        let mut watcher = Self { socket, said: vec![], number: 0, bots, slots, queue: Value::Null };
        let snapshot = watcher.hear().await;
        assert_eq!(snapshot["type"], "snapshot", "{snapshot}");
        watcher
    }

    /// The next message that is none of the protocol's own.
    async fn hear(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(LIMIT, self.socket.next()).await.expect("a message in time");
            if let Message::Text(text) = message.unwrap().unwrap() {
                let message: Value = serde_json::from_str(&text).unwrap();
                self.take(&message);
                return message;
            }
        }
    }

    fn take(&mut self, message: &Value) {
        let number = message["number"].as_u64().unwrap();
        assert!(message["now"].is_string(), "{message}");
        match message["type"].as_str().unwrap() {
            "snapshot" => assert!(self.said.is_empty(), "the first message alone: {message}"),
            "changes" => assert!(number > self.number, "after {}: {message}", self.number),
            "tick" => assert!(number == self.number, "a tick brings nothing: {message}"),
            _ => panic!("{message}"),
        }
        self.number = number;
        for bot in message["bots"].as_array().into_iter().flatten() {
            self.bots.insert(bot["id"].as_i64().unwrap(), bot.clone());
        }
        for slot in message["slots"].as_array().into_iter().flatten() {
            self.slots.insert(slot["name"].as_str().unwrap().to_owned(), slot.clone());
        }
        for queue in message["queues"].as_array().into_iter().flatten() {
            self.queue = queue.clone();
        }
        self.said.push(message.clone());
    }

    async fn hear_until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !wanted(self) {
            assert!(Instant::now() < deadline, "{what} does not come; said: {:#?}", self.said);
            self.hear().await;
        }
    }

    fn state(&self, bot: i64) -> &str {
        self.bots.get(&bot).and_then(|bot| bot["state"].as_str()).unwrap_or_default()
    }
}

async fn connect(
    visitor: &Visitor,
    cookie: Option<&str>,
    origin: Option<&str>,
) -> Result<WebSocketStream<TcpStream>, Error> {
    let host = visitor.base.strip_prefix("http://").unwrap();
    let mut request = format!("ws://{host}/ws").into_client_request().unwrap();
    for (name, value) in [("cookie", cookie), ("origin", origin)] {
        if let Some(value) = value {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
    }
    let stream = TcpSocket::new_v4().unwrap().connect(host.parse().unwrap()).await.unwrap();
    Ok(client_async(request, stream).await?.0)
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
    let mut watcher = Watcher::connect(&visitor).await;
    drop(pool);
    let asked = Instant::now();
    let status = server.terminate();
    // Requests under way are given 5 s.
    assert!(
        status.success() && asked.elapsed() < Duration::from_secs(4),
        "{status} after {:?}",
        asked.elapsed()
    );
    let last = tokio::time::timeout(LIMIT, async {
        loop {
            match watcher.socket.next().await {
                Some(Ok(Message::Close(frame))) => return frame,
                Some(Ok(_)) => {}
                gone => panic!("no word of goodbye: {gone:?}"),
            }
        }
    });
    let frame = last.await.expect("a word in time").expect("a reason");
    assert_eq!(frame.code, CloseCode::Restart);
}
