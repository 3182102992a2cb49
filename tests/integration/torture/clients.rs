//! Who asks the servers meanwhile, and writes down what they are told: clients that create bots and end them, and an
//! operator who looks at the slots. All of them know both servers, and ask the one that answers; whoever is not
//! answered asks again, as the documentation has it.

use super::history::Entry;
use chrono::Utc;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::sleep;

/// Bots that a client has at a time.
const BOTS_AT_A_TIME: usize = 3;
/// How long a client waits for an answer: one that is frozen gives none.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before a client that was sent away asks again, or looks again.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two looks of the operator.
const LOOK: Duration = Duration::from_millis(100);
/// What servers call themselves, so that a bot's meeting is one of theirs.
pub(super) const ADDRESS: &str = "http://meeboter.example";

/// What a client knows after a request.
enum Heard {
    Done(Value),
    /// 503 `unavailable`: nothing was done, and nothing will be.
    NotDone,
    /// "Not now", "unknown", or no word.
    Nothing,
}

/// What everybody shares.
pub(super) struct Witness {
    servers: [String; 2],
    key: String,
    client: Client,
    entries: Mutex<Vec<Entry>>,
    /// Who answered last.
    answers: AtomicUsize,
    /// Wishes that were acknowledged.
    acknowledged: AtomicUsize,
    over: AtomicBool,
}

impl Witness {
    pub(super) fn new(servers: [String; 2], key: String) -> Self {
        let client = Client::builder().timeout(PATIENCE).build().unwrap();
        Self {
            servers,
            key,
            client,
            entries: Mutex::default(),
            answers: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// Clients finish what they have begun, and begin nothing more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, entry: Entry) {
        self.entries().push(entry);
    }

    pub(super) fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn request(&self, server: usize, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.servers[server % 2]);
        self.client.request(method, url).header("x-api-key", &self.key)
    }

    /// Asks one server after the other until one says what it knows.
    async fn insist(&self, what: &str, ask: impl Fn(usize) -> RequestBuilder) -> Value {
        loop {
            if let Heard::Done(body) = self.ask_once(what, &ask).await {
                return body;
            }
        }
    }

    /// Asks the server that answered last.
    async fn ask_once(&self, what: &str, ask: impl Fn(usize) -> RequestBuilder) -> Heard {
        let server = self.answers.load(Ordering::Relaxed);
        let heard = self.heard(what, ask(server)).await;
        if !matches!(heard, Heard::Done(_)) {
            // Only one of those that were sent away by this server turns to the other.
            let _ = self.answers.compare_exchange(server, server + 1, Ordering::Relaxed, Ordering::Relaxed);
            sleep(PAUSE).await;
        }
        heard
    }

    async fn heard(&self, what: &str, request: RequestBuilder) -> Heard {
        let Ok(answer) = request.send().await else { return Heard::Nothing };
        let status = answer.status();
        if status.is_success() {
            // The answer may be cut off in the middle.
            return answer.json().await.map_or(Heard::Nothing, Heard::Done);
        }
        let body: Value = answer.json().await.unwrap_or_default();
        let code = body["error"]["code"].as_str();
        if status != StatusCode::SERVICE_UNAVAILABLE && code != Some("idempotency_key_in_flight") {
            self.note(Entry::Strange { what: format!("{what}: {status} {body}") });
        }
        if code == Some("unavailable") { Heard::NotDone } else { Heard::Nothing }
    }

    /// Has a bot made. Where the first word on a key is that nothing was done, another key is taken: were there a bot of
    /// the first one, nobody would be told of it.
    async fn create(&self, name: &str) -> i64 {
        let body = json!({
            "meetingInfo": { "platform": "rehearsal", "meetingUrl": format!("{ADDRESS}/rehearsal/torture") },
            "queueTimeoutMs": 600_000,
        });
        let mut tries = 0;
        loop {
            let (begun, key) = (Utc::now(), format!("{name}-{tries}"));
            let ask = |server| {
                let request = self.request(server, Method::POST, "/api/bots");
                request.header("idempotency-key", &key).json(&body)
            };
            let made = match self.ask_once("create", ask).await {
                Heard::Done(made) => made,
                Heard::Nothing => self.insist("create", ask).await,
                Heard::NotDone => {
                    tries += 1;
                    continue;
                }
            };
            let bot = made["id"].as_i64().unwrap();
            self.note(Entry::Created { key, bot, begun, acknowledged: Utc::now() });
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            return bot;
        }
    }

    async fn read(&self, bot: i64) -> String {
        let begun = Utc::now();
        let path = format!("/api/bots/{bot}");
        let read = self.insist("read", |server| self.request(server, Method::GET, &path)).await;
        let state = read["state"].as_str().unwrap().to_owned();
        self.note(Entry::Read { bot, state: state.clone(), begun });
        state
    }

    async fn finish(&self, bot: i64) {
        let begun = Utc::now();
        let path = format!("/api/admin/bots/{bot}/end");
        self.insist("end", |server| self.request(server, Method::POST, &path)).await;
        self.note(Entry::Ended { bot, begun, acknowledged: Utc::now() });
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.read(bot).await;
    }
}

/// A client: has bots made, waits until each has a slot, and ends it. Of every four it gives up one that waits.
pub(super) async fn ask_until_over(witness: &Witness, client: usize) {
    for turn in 0_usize.. {
        if witness.is_over() {
            return;
        }
        let mut bots = Vec::new();
        for number in 0..BOTS_AT_A_TIME {
            bots.push(witness.create(&format!("{client}-{turn}-{number}")).await);
        }
        for (number, bot) in bots.into_iter().enumerate() {
            let patient = !(turn + number + client).is_multiple_of(4);
            while patient && witness.read(bot).await == "QUEUED" {
                sleep(PAUSE).await;
            }
            witness.finish(bot).await;
        }
    }
}

/// An operator who looks at the slots of both servers.
pub(super) async fn look_until_over(witness: &Witness) {
    for server in (0..2).cycle() {
        if witness.is_over() {
            return;
        }
        let answer = witness.request(server, Method::GET, "/api/admin/slots").send().await;
        // A standby has none to show; one that is frozen says nothing.
        if let Ok(answer) = answer
            && answer.status() == StatusCode::OK
            && let Ok(listed) = answer.json::<Value>().await
        {
            for slot in listed["data"].as_array().into_iter().flatten() {
                if let (Some(name), Some(generation), Some(bot)) =
                    (slot["name"].as_str(), slot["generation"].as_i64(), slot["botId"].as_i64())
                {
                    witness.note(Entry::Seen { slot: name.to_owned(), generation, bot });
                }
            }
        }
        sleep(LOOK).await;
    }
}
