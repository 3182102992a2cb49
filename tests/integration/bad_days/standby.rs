//! Two servers on one database: one leads, the other stands by and takes over.

use super::MINUTE;
use crate::support::client::{Answer, answer};
use crate::support::postgres::{fresh_database, log, operators_key, url_of};
use crate::support::server::{Server, signal};
use meeboter::store::journal::{Claim, JournalConnection};
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

/// What both servers call themselves: a client knows one address, whoever leads.
const ADDRESS: &str = "http://meeboter.example";
/// How long a leader may take to doubt its lead: 2.5 s, on a machine that is busy with other tests.
const DOUBT: Duration = Duration::from_secs(20);
/// Time between two looks while waiting.
const LOOK: Duration = Duration::from_millis(50);

struct Pair {
    leader: Server,
    standby: Server,
    key: String,
}

impl Pair {
    /// A leader without a slot, so that bots wait, and its standby.
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with further settings of the standby.
    async fn start_with(of_standby: &[(&str, &str)]) -> Self {
        let database = fresh_database().await;
        let url = url_of(&database);
        let settings = [
            ("DATABASE_URL", url.as_str()),
            ("NEXT_PUBLIC_APP_ORIGIN_URL", ADDRESS),
            ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "0"),
        ];
        let leader = Server::start(&settings).await;
        let mut standby = Server::spawned(&[&settings, of_standby].concat());
        standby.wait_alive().await;
        let key = operators_key(&database).await;
        Self { leader, standby, key }
    }

    async fn ask(&self, server: &Server, method: Method, path: &str) -> (StatusCode, Value) {
        answer(server.bare(method, path).header("x-api-key", &self.key)).await
    }

    async fn create(&self, server: &Server) -> (StatusCode, Value) {
        let bot = json!({
            "meetingInfo": { "platform": "rehearsal", "meetingUrl": format!("{ADDRESS}/rehearsal/standby") },
            "queueTimeoutMs": 600_000,
        });
        let request = server.bare(Method::POST, "/api/bots").header("x-api-key", &self.key);
        answer(request.header("idempotency-key", "one").json(&bot)).await
    }

    /// The bot that the one leader took is the other's now.
    async fn check_taken_over(&self, id: &Value) {
        let (status, again) = self.create(&self.standby).await;
        assert_eq!((status, &again["id"]), (StatusCode::OK, id), "no second bot: {again}");
        let (status, bot) = self.ask(&self.standby, Method::GET, &format!("/api/bots/{id}")).await;
        assert_eq!((status, bot["state"].as_str()), (StatusCode::OK, Some("QUEUED")), "{bot}");
        let (status, bot) = self.ask(&self.standby, Method::POST, &format!("/api/bots/{id}/cancel")).await;
        assert_eq!((status, bot["state"].as_str()), (StatusCode::OK, Some("DONE")), "{bot}");
    }
}

#[tokio::test]
async fn a_standby_serves_reads_and_takes_over_from_a_killed_leader() {
    let mut pair = Pair::start().await;
    let (status, created) = pair.create(&pair.leader).await;
    assert_eq!((status, created["queued"].as_bool()), (StatusCode::CREATED, Some(true)), "{created}");

    let (status, said) = answer(pair.standby.bare(Method::GET, "/readyz")).await;
    assert_eq!((status, said["error"]["code"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("standby")));
    let (status, bot) = pair.ask(&pair.standby, Method::GET, &format!("/api/bots/{}", created["id"])).await;
    assert_eq!((status, bot["state"].as_str()), (StatusCode::OK, Some("QUEUED")), "{bot}");
    let path = format!("/api/bots/{}/cancel", created["id"]);
    let (status, refused) = pair.ask(&pair.standby, Method::POST, &path).await;
    assert_eq!(
        (status, refused["error"]["code"].as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("standby"))
    );

    for (server, leads) in [(&pair.leader, true), (&pair.standby, false)] {
        let (status, session) = pair.ask(server, Method::GET, "/api/session").await;
        assert_eq!((status, &session["leads"]), (StatusCode::OK, &json!(leads)), "{session}");
    }

    // An operator sees the queue there, and moves nobody.
    let (status, queue) = pair.ask(&pair.standby, Method::GET, "/api/admin/queue").await;
    assert_eq!((status, &queue["data"][0]["botId"]), (StatusCode::OK, &created["id"]), "{queue}");
    let (status, users) = pair.ask(&pair.standby, Method::GET, "/api/admin/users").await;
    assert_eq!((status, &users["data"][0]["name"]), (StatusCode::OK, &json!("admin")), "{users}");
    for (method, path) in [
        (Method::GET, "slots"),
        (Method::POST, "recover"),
        (Method::POST, "reconcile"),
        (Method::POST, "users/admin/keys"),
    ] {
        let (status, refused) = pair.ask(&pair.standby, method, &format!("/api/admin/{path}")).await;
        assert_eq!(
            (status, refused["error"]["code"].as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, Some("standby"))
        );
    }

    pair.leader.kill();
    pair.standby.wait_ready().await;
    pair.check_taken_over(&created["id"]).await;
}

#[tokio::test]
async fn a_server_whose_rows_are_not_read_at_once_reads_them_again() {
    let database = fresh_database().await;
    let schema = JournalConnection::take_lead(&database, Claim::Within(Duration::ZERO), &log()).await;
    drop(schema.unwrap());
    let (client, connection) = database.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // Whoever reads the drains waits for this session; whoever only prepares to does not.
    let gate = "CREATE FUNCTION gate() RETURNS boolean LANGUAGE plpgsql AS \
                'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN true; END'; \
                INSERT INTO pool_drains (subject) VALUES ('platform zoom'); \
                ALTER TABLE pool_drains RENAME TO drains_behind_the_gate; \
                CREATE VIEW pool_drains AS SELECT * FROM drains_behind_the_gate WHERE gate(); \
                SELECT pg_advisory_lock(7)";
    client.batch_execute(gate).await.unwrap();
    let mut server = Server::spawned(&[("DATABASE_URL", url_of(&database).as_str())]);
    // The session that reads is cut off, as by a database that is restarted.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while client.execute(cut, &[]).await.unwrap() == 0 {
        assert!(server.runs(), "{}", server.log());
        tokio::task::yield_now().await;
    }
    client.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    server.wait_ready().await;
}

#[tokio::test]
async fn a_leader_that_may_decide_nothing_is_not_ready_though_reads_are_answered() {
    let database = fresh_database().await;
    let mut server = Server::start(&[("DATABASE_URL", url_of(&database).as_str())]).await;
    let name = database.config().get_dbname().unwrap();
    // Whoever closes a database is connected to another.
    let mut beside = database.config().clone();
    let (client, connection) = beside.dbname("postgres").connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let allowed = |allowed: bool| format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}");
    // Connections that stand go on, but for the one by which it leads: that is cut, and no other can be made.
    client.batch_execute(&allowed(false)).await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
               AND database = (SELECT oid FROM pg_database WHERE datname = $1)";
    assert_eq!(client.execute(cut, &[&name]).await.unwrap(), 1, "one leads");
    let deadline = tokio::time::Instant::now() + DOUBT;
    let refused = loop {
        let answer = Answer::to(server.bare(Method::GET, "/readyz")).await;
        if answer.status != StatusCode::OK {
            break answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "{answer:?}\n{}", server.log());
        tokio::time::sleep(LOOK).await;
    };
    refused.check_later("lead_in_doubt");
    client.batch_execute(&allowed(true)).await.unwrap();
    server.wait_ready().await;
}

#[tokio::test]
async fn a_frozen_leader_is_replaced_and_ends_when_it_wakes() {
    let mut pair = Pair::start().await;
    let (_, created) = pair.create(&pair.leader).await;
    let leader = i32::try_from(pair.leader.pid()).unwrap();
    signal(leader, Signal::STOP);
    pair.standby.wait_ready().await;
    pair.check_taken_over(&created["id"]).await;
    signal(leader, Signal::CONT);
    let status = pair.leader.ended(MINUTE).await;
    assert_eq!(status.code(), Some(1), "{}", pair.leader.log());
    assert!(pair.leader.log().contains("this server no longer leads"), "{}", pair.leader.log());
    assert!(
        pair.standby.log().contains("the leader is silent; ending its session"),
        "{}",
        pair.standby.log()
    );
}

#[tokio::test]
async fn settings_that_are_read_while_a_standby_takes_over_count() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.toml");
    let allow = |slots: u32| fs::write(&file, format!("[pool]\nmax_size = {slots}\n")).unwrap();
    allow(1);
    let mut pair = Pair::start_with(&[("MEEBOTER_CONFIG", file.to_str().unwrap())]).await;
    pair.leader.kill();
    // Before it leads, as it begins to, and after: whichever was read last counts.
    let mut slots = 1;
    loop {
        slots += 1;
        allow(slots);
        let (status, reloaded) = pair.ask(&pair.standby, Method::POST, "/api/admin/reload").await;
        assert_eq!((status, &reloaded["applied"]), (StatusCode::OK, &json!(["pool.max_size"])), "{reloaded}");
        let (status, pool) = pair.ask(&pair.standby, Method::GET, "/api/bots/pool/stats").await;
        if status == StatusCode::OK {
            break assert_eq!(pool["maxSize"], slots, "{pool}");
        }
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{pool}");
        assert!(slots < 100_000, "it does not lead:\n{}", pair.standby.log());
    }
}
