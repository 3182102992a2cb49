//! Who watches the dashboard's websocket, as the page does.

use super::client::Visitor;
use futures_util::StreamExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// How long a message may take: the server speaks every 5 s, and a test may keep it from that for 20 s.
const LIMIT: Duration = Duration::from_secs(40);

/// A client that puts the messages together, as the page does.
pub(crate) struct Watcher {
    socket: WebSocketStream<TcpStream>,
    /// What was said, in order.
    pub(crate) said: Vec<Value>,
    number: u64,
    pub(crate) bots: BTreeMap<i64, Value>,
    pub(crate) slots: BTreeMap<String, Value>,
    pub(crate) queue: Value,
    pub(crate) max_size: u64,
}

impl Watcher {
    /// Opens it with a session of the visitor's own, and takes the snapshot.
    pub(crate) async fn connect(visitor: &Visitor) -> Self {
        Self::connect_with(visitor, &visitor.cookie().await).await
    }

    /// Opens it with this cookie, and takes the snapshot.
    pub(crate) async fn connect_with(visitor: &Visitor, cookie: &str) -> Self {
        let socket = connect(visitor, Some(cookie), Some(&visitor.base)).await.unwrap();
        let mut watcher = Self {
            socket,
            said: vec![],
            number: 0,
            bots: BTreeMap::new(),
            slots: BTreeMap::new(),
            queue: Value::Null,
            max_size: 0,
        };
        while watcher.hear().await["complete"] != true {}
        assert_eq!(watcher.said[0]["type"], "snapshot", "{}", watcher.said[0]);
        watcher
    }

    /// The next message that is none of the protocol's own.
    pub(crate) async fn hear(&mut self) -> Value {
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
            // A new size is on no board, and has no number.
            "changes" if message["maxSize"].is_u64() => assert!(number == self.number, "{message}"),
            "changes" => assert!(number > self.number, "after {}: {message}", self.number),
            "tick" => assert!(number == self.number, "a tick brings nothing: {message}"),
            _ => panic!("{message}"),
        }
        self.number = number;
        self.max_size = message["maxSize"].as_u64().unwrap_or(self.max_size);
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

    /// What the server says as it closes the line.
    pub(crate) async fn goodbye(mut self) -> CloseFrame {
        let last = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(frame))) => return frame,
                    Some(Ok(_)) => {}
                    gone => panic!("no word of goodbye: {gone:?}"),
                }
            }
        };
        tokio::time::timeout(LIMIT, last).await.expect("a word in time").expect("a reason")
    }

    /// Hears on until it is as wanted.
    pub(crate) async fn hear_until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !wanted(self) {
            assert!(Instant::now() < deadline, "{what} does not come; said: {:#?}", self.said);
            self.hear().await;
        }
    }

    /// A bot's state; empty where nothing was said of it.
    pub(crate) fn state(&self, bot: i64) -> &str {
        self.bots.get(&bot).and_then(|bot| bot["state"].as_str()).unwrap_or_default()
    }
}

/// Opens the websocket as a browser would that has this cookie and shows a page of this origin.
pub(crate) async fn connect(
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
