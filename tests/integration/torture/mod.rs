//! The whole server under torture: two servers on one PostgreSQL, which they reach by a network that loses answers;
//! clients who ask meanwhile; and at random moments one of them is killed, frozen or cut off. What anybody was told is
//! written down, and compared with what is stored in the end: no bot that was acknowledged is lost, no generation of a
//! slot had two bots, and the line kept its order. `./dev torture ROUNDS [SEED]` runs more of it.

mod clients;
mod faults;
mod history;

use crate::support::chance::{self, Chance};
use crate::support::postgres::{TestServer, operators_key, runtime};
use crate::support::proxy::Proxy;
use crate::support::server::{Server, script_bot};
use clients::Witness;
use faults::Fault;
use history::{Entry, Grant, Stored, StoredBot, complaints};
use meeboter::store::database::Database;
use meeboter::store::embedded::Durability;
use reqwest::{Method, StatusCode};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::sleep;

/// Faults, unless `MEEBOTER_TORTURE_ROUNDS` says otherwise: two of each, and some more.
const ROUNDS: u32 = 20;
const CLIENTS: usize = 6;
const SLOTS: &str = "6";
/// Wishes that must be acknowledged between two faults, so that each meets servers at work.
const BETWEEN: usize = 20;
/// For everything to work again after a fault.
const RECOVERY: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
const DATABASE: &str = "torture";

/// Everything that faults can befall.
struct Scene {
    postgresql: TestServer,
    proxy: Proxy,
    servers: [Server; 2],
    database: Database,
    _programs: TempDir,
}

impl Scene {
    async fn start() -> Self {
        let postgresql = runtime().spawn(TestServer::start(Durability::Full)).await.unwrap();
        let database = postgresql.embedded.database(DATABASE).await.unwrap();
        let proxy = Proxy::before(&database).await;
        let programs = tempfile::tempdir().unwrap();
        let bot = script_bot(programs.path(), "idle-bot", "exec sleep 600");
        let settings = [
            ("DATABASE_URL", proxy.url()),
            ("NEXT_PUBLIC_APP_ORIGIN_URL", clients::ADDRESS),
            ("MEEBOTER_DRIVER__BOT_PROGRAM", bot.as_str()),
            ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", SLOTS),
        ];
        let leader = Server::start(&settings).await;
        let mut standby = Server::spawned(&settings);
        standby.wait_alive().await;
        Self { postgresql, proxy, servers: [leader, standby], database, _programs: programs }
    }

    /// Starts what has ended, as whoever runs servers does.
    async fn keep_running(&mut self) {
        self.postgresql.embedded.ensure_running().await.unwrap();
        for server in &mut self.servers {
            if !server.runs() {
                server.spawn();
            }
        }
    }

    async fn leads(server: &Server) -> bool {
        let answer = server.bare(Method::GET, "/readyz").timeout(Duration::from_secs(1)).send().await;
        answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    async fn leader(&mut self) -> &mut Server {
        let number = usize::from(!Self::leads(&self.servers[0]).await);
        &mut self.servers[number]
    }

    async fn standby(&mut self) -> &mut Server {
        let number = usize::from(Self::leads(&self.servers[0]).await);
        &mut self.servers[number]
    }

    async fn stored(&self) -> Stored {
        let (client, connection) = self.database.config().connect(tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        // Events are never changed: the transaction that wrote the row is the grant's commit.
        let text = "SELECT bots.id, state, slot_name, generation, event_time, writer FROM bots LEFT JOIN LATERAL \
                    (SELECT event_time, events.xmin::text::bigint AS writer FROM events \
                    WHERE bot_id = bots.id AND event_type = 'DEPLOYING' ORDER BY id LIMIT 1) AS granted ON true";
        let mut stored = Stored::default();
        for row in client.query(text, &[]).await.unwrap() {
            let seat = Option::zip(row.get(2), row.get(3));
            let granted = Option::zip(row.get(4), row.get(5)).map(|(at, commit)| Grant { at, commit });
            stored.bots.insert(row.get(0), StoredBot { state: row.get(1), seat, granted });
        }
        let keys = client.query("SELECT key, bot_id FROM idempotency_keys", &[]).await.unwrap();
        stored.keys = keys.iter().map(|row| (row.get(0), row.get(1))).collect();
        connection.abort();
        stored
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_servers_acknowledged_holds_whatever_happens_to_them() {
    let (rounds, seed) = (chance::rounds().unwrap_or(ROUNDS), chance::seed());
    let mut scene = Scene::start().await;
    let key = operators_key(&scene.database).await;
    let servers = [0, 1].map(|number: usize| scene.servers[number].url(""));
    let witness = Arc::new(Witness::new(servers, key));
    let asking: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let witness = Arc::clone(&witness);
            tokio::spawn(async move { clients::ask_until_over(&witness, client).await })
        })
        .collect();
    let looking = {
        let witness = Arc::clone(&witness);
        tokio::spawn(async move { clients::look_until_over(&witness).await })
    };
    let kept = |said: &str, stored: &Stored| {
        let file = keep(&witness, stored, seed);
        format!("{said}; seed {seed}; the history is in {}", file.display())
    };
    for round in 0..rounds {
        let recovered = recover(&mut scene, &witness).await;
        assert!(
            recovered,
            "{}",
            kept(&format!("round {round}: the servers do not come back"), &Stored::default())
        );
        let chance = Chance::new(seed);
        sleep(Duration::from_micros(chance.drawn(round, 1, 50_000).into())).await;
        let fault = Fault::drawn(chance, round);
        witness.note(Entry::Struck { round, what: format!("{fault:?}"), at: chrono::Utc::now() });
        fault.strike(&mut scene).await;
    }
    witness.end();
    let deadline = Instant::now() + RECOVERY;
    while asking.iter().any(|client| !client.is_finished()) {
        let waits = Instant::now() < deadline;
        assert!(waits, "{}", kept("clients are not answered any more", &Stored::default()));
        scene.keep_running().await;
        sleep(LOOK).await;
    }
    futures_util::future::try_join_all(asking).await.unwrap();
    looking.await.unwrap();
    let stored = scene.stored().await;
    let complaints = complaints(&witness.entries(), &stored);
    assert!(complaints.is_empty(), "{}", kept(&complaints.join("\n"), &stored));
    report(&witness, &stored, rounds, seed, &scene);
}

/// Waits until the servers have acknowledged so much again, and both run; false where they do not.
async fn recover(scene: &mut Scene, witness: &Witness) -> bool {
    let (began, before) = (Instant::now(), witness.acknowledged());
    while witness.acknowledged() < before + BETWEEN {
        if began.elapsed() > RECOVERY {
            return false;
        }
        scene.keep_running().await;
        sleep(LOOK).await;
    }
    true
}

/// Writes the history and what is stored to a file that stays.
fn keep(witness: &Witness, stored: &Stored, seed: u32) -> PathBuf {
    let path = std::env::temp_dir().join(format!("meeboter-torture-{seed}-{}.jsonl", std::process::id()));
    let mut file = std::fs::File::create(&path).unwrap();
    for entry in witness.entries().iter() {
        writeln!(file, "{}", serde_json::to_string(entry).unwrap()).unwrap();
    }
    writeln!(file, "{}", serde_json::to_string(stored).unwrap()).unwrap();
    path
}

fn report(witness: &Witness, stored: &Stored, rounds: u32, seed: u32, scene: &Scene) {
    let granted = stored.bots.values().filter(|bot| bot.granted.is_some()).count();
    println!(
        "{rounds} rounds, seed {seed}: {} bots made, {granted} of them given a slot, {} answers acknowledged, {} connections cut at a commit; nothing to complain of",
        stored.bots.len(),
        witness.acknowledged(),
        scene.proxy.cut()
    );
}
