//! A rolling deploy: the new server starts beside the old one, is healthy as a standby, and leads when the old one is told
//! to stop. A proxy in front sends requests to both meanwhile, as the one of Coolify does; bots notice nothing.

use super::MINUTE;
use crate::support::client::answer;
use crate::support::dockerd::Dockerd;
use crate::support::postgres::{fresh_database, operators_key, url_of};
use crate::support::scripted_bot;
use crate::support::server::Server;
use futures_util::future::join_all;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LOOK: Duration = Duration::from_millis(20);
/// What the documents promise: from the old server's signal to stop until the new one decides.
const GAP_MAX: Duration = Duration::from_secs(1);
/// Clients that ask for bots without a pause.
const CLIENTS: usize = 4;
/// Bots that run throughout, and all slots that there are.
const BOTS: usize = 3;

/// Sends each connection to a server that takes it, in turns.
struct Balancer {
    url: String,
    ports: Arc<Mutex<Vec<u16>>>,
}

impl Balancer {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ports: Arc<Mutex<Vec<u16>>> = Arc::default();
        let shared = Arc::clone(&ports);
        tokio::spawn(async move {
            let mut turn = 0;
            while let Ok((mut client, _)) = listener.accept().await {
                let mut ports = shared.lock().unwrap().clone();
                turn += 1;
                let first = turn % ports.len().max(1);
                ports.rotate_left(first);
                tokio::spawn(async move {
                    for port in ports {
                        if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                            return;
                        }
                    }
                });
            }
        });
        Self { url, ports }
    }

    /// One more server gets connections from now on.
    fn add(&self, server: &Server) {
        self.ports.lock().unwrap().push(server.port());
    }
}

/// Whoever asks by the one address.
#[derive(Clone)]
struct Asker {
    url: String,
    key: String,
    client: Client,
}

impl Asker {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).header("x-api-key", &self.key)
    }

    async fn create_once(&self, key: &str) -> Option<(StatusCode, Value)> {
        let bot = json!({
            "meetingInfo": { "platform": "rehearsal", "meetingUrl": format!("{}/rehearsal/rolling", self.url) },
            "queueTimeoutMs": 600_000,
        });
        let request = self.request(Method::POST, "/api/bots").header("idempotency-key", key).json(&bot);
        let sent = request.send().await.ok()?;
        let status = sent.status();
        Some((status, sent.json().await.ok()?))
    }

    /// Asks for a bot until it is there, as a client does that was given no answer or told to come back.
    async fn create(&self, key: &str) -> i64 {
        let deadline = Instant::now() + MINUTE;
        loop {
            match self.create_once(key).await {
                Some((StatusCode::CREATED | StatusCode::OK, bot)) => return bot["id"].as_i64().unwrap(),
                Some((StatusCode::SERVICE_UNAVAILABLE, _)) | None => {}
                Some(other) => panic!("refused: {other:?}"),
            }
            assert!(Instant::now() < deadline, "nobody takes {key}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The bot, whichever server answers.
    async fn bot(&self, id: i64) -> Value {
        let (status, bot) = answer(self.request(Method::GET, &format!("/api/bots/{id}"))).await;
        assert_eq!(status, StatusCode::OK, "{bot}");
        bot
    }

    async fn wait_state(&self, id: i64, state: &str) {
        let deadline = Instant::now() + MINUTE;
        loop {
            let bot = self.bot(id).await;
            if bot["state"] == state {
                return;
            }
            assert!(Instant::now() < deadline, "{bot}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What a client was told, and when.
struct Acknowledged {
    key: String,
    id: i64,
    at: Instant,
}

/// Asks for one bot after the other until it is told to stop.
async fn ask_on(asker: Asker, number: usize, stop: Arc<AtomicBool>) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let key = format!("client-{number}-{}", acknowledged.len());
        let id = asker.create(&key).await;
        acknowledged.push(Acknowledged { key, id, at: Instant::now() });
        tokio::time::sleep(LOOK).await;
    }
    acknowledged
}

/// A request that never ends: a server that stops waits for it, and nobody else should have to.
async fn half_a_request(server: &Server) -> TcpStream {
    let mut slow = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let head = "POST /api/session HTTP/1.1\r\nHost: meeboter\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100", "the server waits for the body");
    slow
}

/// The containers that run.
fn containers(dockerd: &Dockerd) -> BTreeSet<String> {
    let listed = dockerd.run(&["ps", "--no-trunc", "--quiet"]);
    listed.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_deploy_loses_nothing_and_is_hardly_noticed() {
    let dockerd = Dockerd::start().await;
    scripted_bot::import_all(&dockerd);
    let (database, balancer) = (fresh_database().await, Balancer::start().await);
    let (url, slots, engine) = (url_of(&database), BOTS.to_string(), dockerd.host());
    let attend = scripted_bot::reference("attend");
    let settings: [(&str, &str); 9] = [
        ("DATABASE_URL", &url),
        ("NEXT_PUBLIC_APP_ORIGIN_URL", &balancer.url),
        ("MEEBOTER_DRIVER__KIND", "docker"),
        ("MEEBOTER_DOCKER__NETWORK", "host"),
        ("MEEBOTER_DRIVER__SERVER_URL", &balancer.url),
        ("MEEBOTER_HOSTS__LOCAL__DOCKER_URL", &engine),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", &slots),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__IMAGE", &attend),
        // However fast these machines are: nobody is sent away because too many wait.
        ("MEEBOTER_QUEUE__MAX", "100000"),
    ];
    let mut old = Server::start(&settings).await;
    balancer.add(&old);
    // A connection for each request, as the proxy in front makes them.
    let client =
        Client::builder().timeout(Duration::from_secs(20)).pool_max_idle_per_host(0).build().unwrap();
    let asker = Asker { url: balancer.url.clone(), key: operators_key(&database).await, client };
    let running =
        join_all((0..BOTS).map(async |number| asker.create(&format!("running-{number}")).await)).await;
    for id in &running {
        asker.wait_state(*id, "IN_CALL").await;
    }
    let before = containers(&dockerd);

    let stop = Arc::new(AtomicBool::new(false));
    let ask_on = |number| tokio::spawn(ask_on(asker.clone(), number, Arc::clone(&stop)));
    let clients: Vec<_> = (0..CLIENTS).map(ask_on).collect();
    let mut new = Server::spawned(&settings);
    new.wait_alive().await;
    balancer.add(&new);
    let (status, said) = answer(new.bare(Method::GET, "/readyz")).await;
    assert_eq!((status, &said["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("standby")));

    let _slow = half_a_request(&old).await;
    let signalled = Instant::now();
    let stopped = tokio::task::block_in_place(|| old.terminate());
    let gone = signalled.elapsed();
    assert!(stopped.success(), "{stopped}: {}", old.log());
    new.wait_ready().await;
    let after = asker.create("after").await;
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<Acknowledged> =
        join_all(clients).await.into_iter().flat_map(Result::unwrap).collect();

    let mut times: Vec<Instant> = acknowledged.iter().map(|one| one.at).collect();
    times.sort();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    println!(
        "rolling deploy: {} bots taken, the old server gone after {gone:?}, longest without one {longest:?}",
        acknowledged.len()
    );
    // The old one stays for its slow client; the clients that count went on long before it was gone.
    let last = times[times.len() - 1];
    assert!(times[0] < signalled && last > signalled + GAP_MAX, "asked throughout");
    assert!(longest <= GAP_MAX, "{longest:?} without an answer");
    for Acknowledged { key, id, .. } in &acknowledged {
        assert_eq!(asker.create(key).await, *id, "{key} is still that bot");
    }
    let ids: BTreeSet<i64> = acknowledged.iter().map(|one| one.id).chain([after]).collect();
    assert_eq!(ids.len(), acknowledged.len() + 1, "no bot is there twice");

    assert_eq!(containers(&dockerd), before, "the bots that ran are the same");
    for id in running {
        assert_eq!(asker.bot(id).await["state"], "IN_CALL");
        let path = format!("/api/bots/{id}/remove-from-call");
        let (status, said) = answer(asker.request(Method::POST, &path)).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        asker.wait_state(id, "DONE").await;
    }
}
