//! A database that hangs, or dies, in the middle of meetings.

use super::{MINUTE, SECOND, check_tidy, check_whole_meeting, meeting, server};
use crate::support::client::Answer;
use crate::support::frozen::Frozen;
use crate::support::server::{Server, signal};
use crate::support::watcher::Watcher;
use reqwest::{Method, RequestBuilder, StatusCode};
use rustix::process::Signal;
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the database hangs.
const HANG: Duration = Duration::from_secs(20);
/// By when a server that hears nothing of its database knows that it may not lead, on a busy machine.
const LEAD_LOST: Duration = Duration::from_secs(4);
/// How long the server may take to answer when the database does again.
const BACK: Duration = Duration::from_secs(5);
/// How long a decision is waited for, by default, and what else an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5 + 2);
/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_database_that_hangs_stops_decisions_and_no_meeting() {
    let server = server("2").await;
    let long = server.send_bot("long", &meeting(32_000)).await;
    // Its meeting ends while nobody can write that down.
    let mut request = server.bot_request("short", &meeting(10_000));
    request["recordingEnabled"] = false.into();
    let (_, short) = server.post("/api/bots", &request).await;
    let short = short["id"].as_i64().unwrap();
    server.wait_state(long, MINUTE, &["RECORDING"]).await;
    server.wait_state(short, MINUTE, &["IN_CALL"]).await;

    let visitor = server.visitor(&server.pool().await, "watcher").await;
    let mut watcher = Watcher::connect(&visitor).await;
    let over = Cell::new(false);
    let ((uploaded, hung), (creates, reads, ticks)) = tokio::join!(
        async {
            let frozen = Frozen::cluster(&server.cluster(), server.postgres_pid().unwrap());
            let (began, before) = (tokio::time::Instant::now(), server.segments(long));
            let alive = Answer::to(server.bare(Method::GET, "/healthz")).await;
            assert!(alive.status == StatusCode::OK && alive.took < SECOND, "{alive:?}");
            Answer::to(server.bare(Method::GET, "/readyz")).await.check_later("unavailable");
            tokio::time::sleep_until(began + HANG).await;
            let uploaded = server.segments(long) - before;
            // Who may decide nothing does not lead, as far as the alert goes.
            let page = server.bare(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
            assert!(page.contains("meeboter_leads 0\n"), "{page}");
            // What it last knew of slots and bots that wait is nobody's to count.
            for gauge in ["meeboter_pool_slots_total{", "meeboter_queue_oldest_seconds{"] {
                assert!(!page.contains(gauge), "{gauge} is in\n{page}");
            }
            let hung = began + LEAD_LOST..tokio::time::Instant::now();
            drop(frozen);
            server.wait_bot(long, BACK, |_| true).await;
            // The load goes on until a report that waited has come through.
            server.wait_state(short, MINUTE, &["DONE"]).await;
            over.set(true);
            (uploaded, hung)
        },
        async {
            let watching = keep_watching(&mut watcher, &over);
            tokio::join!(keep_creating(&server, &over), keep_reading(&server, &over), watching)
        }
    );
    assert!(uploaded >= 6, "{uploaded} segments of two seconds in {HANG:?}");
    let refused = creates.values().any(|told| !matches!(told, Told::Created(_)));
    assert!(refused, "nothing was refused: {creates:?}");
    assert!(reads > 0, "no read was refused");
    // Who may not lead does not claim to be up to date either.
    assert!(!ticks.iter().any(|at| hung.contains(at)), "{hung:?}: {ticks:?}");

    // Every request that was acknowledged is there, one that was refused is not, and none makes a second bot when it is
    // repeated.
    for (key, told) in &creates {
        let again = Answer::to(server.create(&waiting_request(&server), key)).await;
        assert!(again.status.is_success(), "{again:?}");
        let id = again.body["id"].as_i64();
        let fits = match told {
            Told::Created(known) => again.status == StatusCode::OK && id == Some(*known),
            Told::Refused => again.status == StatusCode::CREATED,
            Told::Unknown => true,
        };
        assert!(fits, "{key}: {told:?}, and then {again:?}");
        let (_, bot) = server.post(&format!("/api/bots/{}/cancel", id.unwrap()), &Value::Null).await;
        assert_eq!(bot["id"].as_i64(), id);
    }
    assert_eq!(server.bot_count().await, 2 + u64::try_from(creates.len()).unwrap());

    let bot = server.bot(short).await;
    assert_eq!(bot["endReason"], "meeting_ended", "{bot}");
    let in_call = server.history(short).await;
    let in_call = (in_call.entered("LEAVING") - in_call.entered("IN_CALL")).as_seconds_f64();
    assert!((in_call - 10.0).abs() < 3.0, "{in_call} s: the bot's own times are kept");
    check_whole_meeting(&server, long, 32_000).await;
    check_tidy(&server, 2).await;
}

#[tokio::test]
async fn a_killed_database_is_started_again_and_all_goes_on() {
    let server = server("1").await;
    let id = server.send_bot("lasting", &meeting(15_000)).await;
    let next = server.send_bot("next", &meeting(2_000)).await;
    server.wait_state(id, MINUTE, &["RECORDING"]).await;
    let postmaster = server.postgres_pid().unwrap();

    signal(postmaster, Signal::KILL);
    check_whole_meeting(&server, id, 15_000).await;
    check_whole_meeting(&server, next, 2_000).await;
    assert!(server.postgres_pid().is_some_and(|pid| pid != postmaster), "it is a new one");
    check_tidy(&server, 1).await;
}

/// A commit can be read before it is safe from a crash: a request that is repeated is not told of it either.
#[tokio::test]
async fn nobody_is_told_by_a_read_what_may_still_be_lost() {
    let settings = [
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "0"),
        ("MEEBOTER_SERVER__DECISION_TIMEOUT_MS", "500"),
    ];
    let server = Server::start(&settings).await;
    let request = waiting_request(&server);
    let bot = acknowledged(&Answer::to(server.create(&request, "ends")).await).told().unwrap();
    // Nobody confirms a flush, so that none comes to its end; a process of PostgreSQL hears of that in its own time.
    server.edit("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    server.edit("SELECT pg_reload_conf()").await;
    let mut keys = (0..).map(|number: u32| format!("create {number}"));
    let (key, refused) = loop {
        let key = keys.next().unwrap();
        let answer = Answer::to(server.create(&request, &key)).await;
        if answer.status != StatusCode::CREATED {
            break (key, answer);
        }
    };
    refused.check_later("outcome_unknown");
    let cancel = format!("/api/bots/{bot}/cancel");
    Answer::to(server.request(Method::POST, &cancel)).await.check_later("outcome_unknown");
    server.wait_state(bot, BACK, &["DONE"]).await;
    Answer::to(server.request(Method::POST, &cancel)).await.check_later("outcome_unknown");
    Answer::to(server.create(&request, &key)).await.check_later("outcome_unknown");

    server.edit("ALTER SYSTEM RESET synchronous_standby_names").await;
    server.edit("SELECT pg_reload_conf()").await;
    let repeated: [&dyn Fn() -> RequestBuilder; 2] =
        [&|| server.request(Method::POST, &cancel), &|| server.create(&request, &key)];
    for repeat in repeated {
        let deadline = tokio::time::Instant::now() + MINUTE;
        while Answer::to(repeat()).await.status != StatusCode::OK {
            assert!(tokio::time::Instant::now() < deadline, "{}", server.log());
            tokio::time::sleep(PACE).await;
        }
    }
}

/// What a client was told of a bot that it asked for.
#[derive(Debug)]
enum Told {
    Created(i64),
    /// There is none.
    Refused,
    Unknown,
}

impl Told {
    fn told(self) -> Option<i64> {
        if let Self::Created(id) = self { Some(id) } else { None }
    }
}

/// Creates bots under keys until it is over: what was said of each.
async fn keep_creating(server: &Server, over: &Cell<bool>) -> BTreeMap<String, Told> {
    let mut creates = BTreeMap::new();
    let request = waiting_request(server);
    while !over.get() {
        let key = format!("create {}", creates.len());
        let answer = Answer::to(server.create(&request, &key)).await;
        assert!(answer.took < ANSWER_LIMIT, "{answer:?}");
        creates.insert(key, acknowledged(&answer));
        tokio::time::sleep(PACE).await;
    }
    creates
}

/// Reads until it is over: how often that was refused.
async fn keep_reading(server: &Server, over: &Cell<bool>) -> u32 {
    let mut refused = 0;
    while !over.get() {
        let answer = Answer::to(server.request(Method::GET, "/api/bots")).await;
        assert!(answer.took < ANSWER_LIMIT, "{answer:?}");
        if answer.status != StatusCode::OK {
            answer.check_later("unavailable");
            refused += 1;
        }
        tokio::time::sleep(PACE).await;
    }
    refused
}

/// Listens until it is over and the server has said so: when it gave signs of life without news.
async fn keep_watching(watcher: &mut Watcher, over: &Cell<bool>) -> Vec<tokio::time::Instant> {
    let mut ticks = vec![];
    loop {
        if watcher.hear().await["type"] == "tick" {
            ticks.push(tokio::time::Instant::now());
            if over.get() {
                return ticks;
            }
        }
    }
}

/// What the client knows now; where no bot was created, sees that the refusal says to come back.
fn acknowledged(answer: &Answer) -> Told {
    if answer.status == StatusCode::CREATED {
        return Told::Created(answer.body["id"].as_i64().unwrap());
    }
    if answer.body["error"]["code"] == "unavailable" {
        answer.check_later("unavailable");
        return Told::Refused;
    }
    answer.check_later("outcome_unknown");
    Told::Unknown
}

/// A bot that would wait in the line for as long as it may, and then be kept waiting by its host.
fn waiting_request(server: &Server) -> Value {
    let mut request = server.bot_request("waiting", "host=silent");
    request["queueTimeoutMs"] = u64::try_from((600 * SECOND).as_millis()).unwrap().into();
    request
}
