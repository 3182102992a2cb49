//! Many writers, and a PostgreSQL that is killed, frozen and cut off at random moments: what was acknowledged is there,
//! once. `./dev torture ROUNDS` runs more of it.

use super::*;
use crate::support::chance::{self, Chance};
use crate::support::postgres::{TestServer, runtime};
use actix::prelude::*;
use meeboter::store::embedded::Durability;
use meeboter_actors::bot::BotEvent;
use meeboter_actors::ids::BotId;
use meeboter_actors::journal::CommitError;
use meeboter_actors::journal::actor::{Journal, JournalActor};
use meeboter_actors::ports::Unmetered;
use meeboter_actors::supervision::DeathGuard;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Instant;

/// Faults, unless `MEEBOTER_TORTURE_ROUNDS` says otherwise.
const ROUNDS: u32 = 20;
const WRITERS: usize = 32;
/// Each bot is written as often.
const VERSIONS: i64 = 3;
/// Acknowledgements between two faults, so that each fault meets a journal at work.
const BETWEEN: i64 = 200;
/// For a database to be started again and the Journal to find it.
const RECOVERY: Duration = Duration::from_secs(90);

/// What the writers were told.
#[derive(Default)]
struct History {
    /// The last version of each bot that was acknowledged.
    acknowledged: Mutex<BTreeMap<i64, i64>>,
    count: AtomicI64,
    next_id: AtomicI64,
    wrong: Mutex<Vec<String>>,
    over: AtomicBool,
}

async fn write_until_over(journal: Journal, history: Arc<History>) {
    while !history.over.load(Ordering::Relaxed) {
        let id = history.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        for version in 1..=VERSIONS {
            let bot = Bot { version, ..sample::bot(id) };
            let event = BotEvent {
                bot_id: BotId(id),
                event_type: format!("VERSION_{version}"),
                at: sample::now(),
                data: None,
            };
            match journal.submit(vec![write_bot(&bot), Change::InsertEvent(event)]).await {
                Ok(()) => {
                    history.acknowledged.lock().expect("whole").insert(id, version);
                    history.count.fetch_add(1, Ordering::Relaxed);
                }
                Err(error @ (CommitError::Conflict(_) | CommitError::Deposed)) => {
                    history
                        .wrong
                        .lock()
                        .expect("whole")
                        .push(format!("bot {id}, version {version}: {error}"));
                    return;
                }
            }
        }
    }
}

async fn strike(chance: Chance, round: u32, server: &TestServer) {
    match chance.drawn(round, 1, 4) {
        0 => server.kill(),
        1 => server.kill_a_session(chance.drawn(round, 2, u32::MAX)),
        2 => {
            let frozen = server.freeze();
            tokio::time::sleep(Duration::from_millis(chance.drawn(round, 3, 1_500).into())).await;
            drop(frozen);
        }
        _ => {
            let database = server.embedded.database("torture").await.expect("is there");
            let connected = database.config().connect(tokio_postgres::NoTls).await;
            let Ok((client, connection)) = connected else { return };
            let connection = tokio::spawn(connection);
            let text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                        WHERE datname = current_database() AND pid <> pg_backend_pid()";
            let _ = client.execute(text, &[]).await;
            connection.abort();
        }
    }
}

#[test]
fn what_was_acknowledged_survives_whatever_happens_to_postgresql() {
    let (rounds, seed) = (chance::rounds().unwrap_or(ROUNDS), chance::seed());
    println!("{rounds} rounds, seed {seed}");
    System::new().block_on(torture(rounds, Chance::new(seed)));
    println!("nothing to complain of");
}

async fn torture(rounds: u32, chance: Chance) {
    let server = runtime().spawn(TestServer::start(Durability::Full)).await.expect("PostgreSQL");
    let database = server.embedded.database("torture").await.expect("a database");
    let store = Arc::new(lead(&database).await);
    let deposed = Arc::new(|| {});
    let actor = JournalActor::new(store, deposed, Arc::new(Unmetered), DeathGuard::new(|| {}));
    let (journal, history) = (Journal::new(actor.start()), Arc::new(History::default()));
    let writers: Vec<_> =
        (0..WRITERS).map(|_| tokio::spawn(write_until_over(journal.clone(), Arc::clone(&history)))).collect();
    for round in 0..rounds {
        let (began, before) = (Instant::now(), history.count.load(Ordering::Relaxed));
        while history.count.load(Ordering::Relaxed) < before + BETWEEN {
            assert!(began.elapsed() < RECOVERY, "round {round}: the Journal does not come back");
            // A postmaster that was killed is started again, as the server does.
            server.embedded.ensure_running().await.expect("starts");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Somewhere within a batch.
        tokio::time::sleep(Duration::from_micros(u64::from(chance.drawn(round, 4, 20_000)))).await;
        strike(chance, round, &server).await;
    }
    history.over.store(true, Ordering::Relaxed);
    let last = async {
        for writer in writers {
            writer.await.expect("ends");
        }
    };
    let keep_running = async {
        loop {
            server.embedded.ensure_running().await.expect("starts");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = last => {}
        () = keep_running => {}
        () = tokio::time::sleep(RECOVERY) => panic!("the writers do not come to an end"),
    }
    check(&database, &history).await;
}

async fn check(database: &Database, history: &History) {
    assert_eq!(*history.wrong.lock().expect("whole"), Vec::<String>::new());
    let client = connected(database).await;
    let text = "SELECT id, version, (SELECT count(*) FROM events WHERE bot_id = bots.id) FROM bots";
    let rows = client.query(text, &[]).await.expect("reads");
    let stored: BTreeMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(
        stored,
        *history.acknowledged.lock().expect("whole"),
        "what is stored is what was acknowledged"
    );
    for row in &rows {
        let (id, version, events): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(events, version, "bot {id}: each decision was written once");
    }
}

/// A connection; the last strike may not be over yet.
async fn connected(database: &Database) -> tokio_postgres::Client {
    let began = Instant::now();
    loop {
        match database.config().connect(tokio_postgres::NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(error) => assert!(began.elapsed() < RECOVERY, "PostgreSQL does not come back: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
