//! Operators' tools, over the API and as a program: who may, what each does, and what is refused in which words. The
//! bots are programs that never say a word, so they never get further than JOINING_CALL.

mod users;

use crate::support::client::{Answer, Visitor, answer};
use crate::support::server::{Server, silent_bot};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// A server of so many slots.
struct Installation {
    server: Server,
    _programs: tempfile::TempDir,
}

impl Installation {
    async fn start(slots: &str) -> Self {
        Self::start_with(slots, &[]).await
    }

    async fn start_with(slots: &str, further: &[(&str, &str)]) -> Self {
        let programs = tempfile::tempdir().unwrap();
        let bot = silent_bot(programs.path());
        let mut settings = vec![
            ("MEEBOTER_DRIVER__BOT_PROGRAM", bot.as_str()),
            ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", slots),
        ];
        settings.extend_from_slice(further);
        Self { server: Server::start(&settings).await, _programs: programs }
    }

    /// A refusal: its code and its words.
    async fn refused(&self, method: Method, path: &str, status: StatusCode) -> (String, String) {
        let (answered, body) = answer(self.server.request(method, path)).await;
        assert_eq!(answered, status, "{path}: {body}");
        let text = |name: &str| body["error"][name].as_str().unwrap().to_owned();
        assert_eq!(text("id").len(), 36, "{body}");
        (text("code"), text("message"))
    }

    async fn ask(&self, method: Method, path: &str) -> Value {
        let (status, body) = answer(self.server.request(method, path)).await;
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    /// Has a slot do something.
    async fn operate(&self, slot: &str, action: &str) -> Value {
        self.ask(Method::POST, &format!("/api/admin/slots/{slot}/{action}")).await
    }

    /// Sends a bot, and waits until the engine has started it.
    async fn started(&self, name: &str) -> i64 {
        let id = self.server.send_bot(name, "").await;
        self.server.wait_state(id, LIMIT, &["JOINING_CALL"]).await;
        id
    }

    /// Waits until a slot is as wanted; `Null`: there is none.
    async fn wait_slot(&self, name: &str, wanted: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let (status, body) = self.server.get(&format!("/api/admin/slots/{name}")).await;
            let slot = if status == StatusCode::NOT_FOUND { &Value::Null } else { &body };
            if wanted(slot) {
                return;
            }
            assert!(Instant::now() < deadline, "{slot}\n{}", self.server.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Runs the program as an operator does, the key in the data folder.
    fn tool(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meeboter"));
        command.env_clear().env("MEEBOTER_DATA_DIR", self.server.data_dir());
        command.env("MEEBOTER_URL", self.server.url("")).args(words).output().unwrap()
    }

    /// What the program prints where all goes well.
    fn printed(&self, words: &[&str]) -> String {
        let output = self.tool(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

const SLOT: &str = "pool-rehearsal-001";

#[tokio::test]
async fn only_operators_may_and_nobody_learns_more() {
    let here = Installation::start("1").await;
    let pool = here.server.pool().await;
    let other = here.server.visitor(&pool, "somebody").await;
    let bot = here.started("one").await;
    let routes = [
        (Method::GET, "slots".to_owned()),
        (Method::GET, format!("slots/{SLOT}")),
        (Method::POST, format!("slots/{SLOT}/end")),
        (Method::GET, "drains".to_owned()),
        (Method::POST, "drains/platforms/rehearsal".to_owned()),
        (Method::DELETE, "drains/hosts/local".to_owned()),
        (Method::GET, "queue".to_owned()),
        (Method::PATCH, format!("queue/{bot}")),
        (Method::GET, "users".to_owned()),
        (Method::POST, "users".to_owned()),
        (Method::PATCH, "users/somebody".to_owned()),
        (Method::POST, "users/admin/keys".to_owned()),
        (Method::GET, "bots".to_owned()),
        (Method::GET, format!("bots/{bot}")),
        (Method::POST, format!("bots/{bot}/end")),
        (Method::GET, "pulls".to_owned()),
        (Method::POST, "pulls".to_owned()),
        (Method::POST, "reconcile".to_owned()),
        (Method::POST, "recover".to_owned()),
        (Method::GET, format!("slots/{SLOT}/logs")),
        (Method::POST, format!("slots/{SLOT}/restart")),
        (Method::GET, "maintenance".to_owned()),
        (Method::POST, "maintenance".to_owned()),
        (Method::POST, "reload".to_owned()),
    ];
    for (method, route) in routes {
        let path = format!("/api/admin/{route}");
        let (status, body) = answer(here.server.bare(method.clone(), &path)).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::UNAUTHORIZED, &json!("unauthorized")),
            "{path}"
        );
        let (status, body) = answer(other.request(method, &path)).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::FORBIDDEN, &json!("operator_only")),
            "{path}"
        );
    }
    assert_eq!(here.server.bot(bot).await["state"], "JOINING_CALL", "nothing was done");
    for path in ["slots/pool-zoom-999", "bots/999999", "drains/rooms/local", "slots/a/dance"] {
        let method =
            if path.ends_with("dance") || path.starts_with("drains") { Method::POST } else { Method::GET };
        here.refused(method, &format!("/api/admin/{path}"), StatusCode::NOT_FOUND).await;
    }
    for path in
        ["slots/pool-zoom-999/retire", "bots/999999/end", "drains/hosts/moon", "drains/platforms/webex"]
    {
        let (code, message) =
            here.refused(Method::POST, &format!("/api/admin/{path}"), StatusCode::NOT_FOUND).await;
        assert_eq!(code, "not_found", "{message}");
    }
}

#[tokio::test]
async fn a_slot_is_seen_drained_kept_ended_and_retired() {
    let here = Installation::start("1").await;
    let bot = here.started("one").await;
    let slot = here.ask(Method::GET, &format!("/api/admin/slots/{SLOT}")).await;
    let seen = [&slot["status"], &slot["botId"], &slot["host"], &slot["draining"], &slot["reserved"]];
    assert_eq!(seen, [&json!("busy"), &json!(bot), &json!("local"), &json!(false), &json!(false)], "{slot}");
    let listed = here.ask(Method::GET, "/api/admin/slots").await;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed["data"][0]["name"], SLOT, "{listed}");

    // What would touch its bot is refused, with what to do instead.
    for (action, instead) in [("retire", "Drain it"), ("reset", "end it")] {
        let path = format!("/api/admin/slots/{SLOT}/{action}");
        let (code, message) = here.refused(Method::POST, &path, StatusCode::CONFLICT).await;
        assert!(code == "not_now" && message.contains("busy") && message.contains(instead), "{message}");
    }
    assert_eq!(here.operate(SLOT, "drain").await["draining"], true);
    assert_eq!(here.operate(SLOT, "undrain").await["draining"], false);

    // The bot is ended, its slot free; nothing is left to end.
    let ended = here.ask(Method::POST, &format!("/api/admin/bots/{bot}/end")).await;
    assert_eq!(
        (ended["state"].as_str(), ended["endReason"].as_str()),
        (Some("FATAL"), Some("internal")),
        "{ended}"
    );
    here.wait_slot(SLOT, |slot| slot["status"] == "idle").await;
    assert_eq!(here.server.bot_pids(), Vec::<i32>::new(), "nothing runs");
    let again = here.ask(Method::POST, &format!("/api/admin/bots/{bot}/end")).await;
    assert_eq!(again["endedAt"], ended["endedAt"], "it has ended once");
    let (code, message) =
        here.refused(Method::POST, &format!("/api/admin/slots/{SLOT}/end"), StatusCode::CONFLICT).await;
    assert!(code == "not_now" && message.contains("no bot"), "{message}");

    assert_eq!(here.operate(SLOT, "reset").await["status"], "idle", "nothing to recover from");
    assert_eq!(here.operate(SLOT, "retire").await["status"], "retired");
    here.wait_slot(SLOT, Value::is_null).await;
}

#[tokio::test]
async fn a_server_that_is_emptied_asks_its_bots_to_leave_and_stops() {
    let mut here = Installation::start_with("1", &[("MEEBOTER_BOTS__LEAVE_GRACE_MS", "1000")]).await;
    let bot = here.started("one").await;
    let begun = here.ask(Method::POST, "/api/admin/drains/server?withinMs=600000").await;
    assert_eq!((&begun["botsLeft"], &begun["deadlineAt"].is_string()), (&json!(1), &true), "{begun}");
    let (status, refused) = here.server.post("/api/bots", &here.server.bot_request("two", "")).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("draining")),
        "{refused}"
    );
    // Its bot reports to it by whatever follows this.
    assert_eq!(here.ask(Method::GET, "/readyz").await["status"], "draining");
    let drains = here.ask(Method::GET, "/api/admin/drains").await;
    assert_eq!(drains["drains"][0]["kind"], "server", "{drains}");
    here.ask(Method::DELETE, "/api/admin/drains/server").await;
    assert_eq!(here.ask(Method::GET, "/api/admin/drains").await["drains"], json!([]));
    assert_eq!(here.ask(Method::GET, "/readyz").await["status"], "ready");

    here.ask(Method::POST, "/api/admin/drains/server?withinMs=0").await;
    let status = here.server.ended(Duration::from_secs(120)).await;
    assert!(status.success(), "{status}, with bot {bot}");
}

#[tokio::test]
async fn a_platform_and_a_host_are_drained_and_taken_back() {
    let here = Installation::start("1").await;
    let bot = here.started("one").await;
    for path in ["/api/admin/drains/platforms/rehearsal", "/api/admin/drains/hosts/local"] {
        let begun = here.ask(Method::POST, path).await;
        assert_eq!((&begun["draining"], &begun["slotsLeft"]), (&json!(true), &json!(1)), "{begun}");
    }
    let drains = here.ask(Method::GET, "/api/admin/drains").await;
    let named = |drain: &Value| (drain["kind"].clone(), drain["name"].clone(), drain["slotsLeft"].clone());
    let all: Vec<_> = drains["drains"].as_array().unwrap().iter().map(named).collect();
    let expected =
        [(json!("platform"), json!("rehearsal"), json!(1)), (json!("host"), json!("local"), json!(1))];
    assert_eq!(all, expected, "{drains}");
    assert_eq!(drains["hosts"][0]["draining"], true, "{drains}");
    let (status, refused) = here.server.post("/api/bots", &here.server.bot_request("two", "")).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("platform_disabled"))
    );

    for path in ["/api/admin/drains/platforms/rehearsal", "/api/admin/drains/hosts/local"] {
        assert_eq!(here.ask(Method::DELETE, path).await["draining"], false);
    }
    assert_eq!(here.ask(Method::GET, "/api/admin/drains").await["drains"], json!([]));
    here.ask(Method::POST, &format!("/api/admin/bots/{bot}/end")).await;
    here.wait_slot(SLOT, |slot| slot["status"] == "idle").await;
}

#[tokio::test]
async fn a_bot_that_waits_is_moved_and_cancelled() {
    let here = Installation::start("1").await;
    let first = here.started("first").await;
    let pool = here.server.pool().await;
    let (ann, ben) = (here.server.visitor(&pool, "ann").await, here.server.visitor(&pool, "ben").await);
    let waiting = |visitor: &Visitor, name: &'static str| {
        let (request, body) = (visitor.request(Method::POST, "/api/bots"), visitor.bot_request(name));
        async move { answer(request.json(&body)).await.1["id"].as_i64().unwrap() }
    };
    let (second, third) = (waiting(&ann, "second").await, waiting(&ben, "third").await);
    let order = |queue: &Value| {
        let bots = queue["data"].as_array().unwrap().iter();
        bots.map(|queued| queued["botId"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let queue = here.ask(Method::GET, "/api/admin/queue").await;
    assert_eq!((order(&queue), &queue["total"]), (vec![second, third], &json!(2)), "{queue}");
    assert_eq!(queue["data"][1]["queuePosition"], 2, "{queue}");

    let path = |id: i64| format!("/api/admin/queue/{id}");
    let moves = |id: i64, priority: Value| {
        let request = here.server.request(Method::PATCH, &path(id));
        answer(request.json(&json!({ "priority": priority })))
    };
    let (status, moved) = moves(third, json!(10)).await;
    assert_eq!((status, &moved["queuePosition"]), (StatusCode::OK, &json!(1)), "{moved}");
    let queue = here.ask(Method::GET, "/api/admin/queue").await;
    assert_eq!((order(&queue), &queue["data"][0]["priority"]), (vec![third, second], &json!(10)), "{queue}");
    for (id, priority, status, code) in [
        (third, json!(-1), StatusCode::UNPROCESSABLE_ENTITY, "invalid_field"),
        (third, json!(40_000), StatusCode::UNPROCESSABLE_ENTITY, "invalid_field"),
        (first, json!(10), StatusCode::CONFLICT, "not_waiting"),
        (999_999, json!(10), StatusCode::NOT_FOUND, "not_found"),
    ] {
        let (answered, refused) = moves(id, priority).await;
        assert_eq!((answered, refused["error"]["code"].as_str()), (status, Some(code)), "{refused}");
    }

    // Ending one that waits takes it out of the line; whose it is does not matter.
    let ended = here.ask(Method::POST, &format!("/api/admin/bots/{third}/end")).await;
    assert_eq!(
        (ended["state"].as_str(), ended["endReason"].as_str()),
        (Some("DONE"), Some("cancelled")),
        "{ended}"
    );
    // Ending one that has the slot makes room for the next.
    here.ask(Method::POST, &format!("/api/admin/bots/{first}/end")).await;
    here.wait_slot(SLOT, |slot| slot["botId"] == second).await;
    let bots = here.ask(Method::GET, "/api/admin/bots?pageSize=2").await;
    assert_eq!((&bots["total"], &bots["data"][0]["id"]), (&json!(3), &json!(third)), "{bots}");
}

#[tokio::test]
async fn the_engine_is_asked_now() {
    let here = Installation::start("1").await;
    let pull = |host: &str, image: &str| {
        let request = here.server.request(Method::POST, "/api/admin/pulls");
        Answer::to(request.json(&json!({ "host": host, "image": image })))
    };
    let begun = pull("local", "example/bot:1").await;
    assert_eq!(
        (begun.status, &begun.body["image"]),
        (StatusCode::ACCEPTED, &json!("example/bot:1")),
        "{begun:?}"
    );
    let again = pull("local", "example/bot:1").await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{again:?}");
    let pulls = here.ask(Method::GET, "/api/admin/pulls").await;
    assert_eq!(pulls["data"][0]["host"], "local", "{pulls}");
    assert!(pulls["begun"].as_u64().unwrap() >= 1, "{pulls}");
    assert_eq!(pull("moon", "example/bot:1").await.status, StatusCode::NOT_FOUND);
    assert_eq!(pull("local", "").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(pull("local", "two words").await.status, StatusCode::UNPROCESSABLE_ENTITY);

    let asked = Answer::to(here.server.request(Method::POST, "/api/admin/reconcile")).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED, "{asked:?}");
    assert!(asked.body["hosts"].as_u64().unwrap() <= 1, "{asked:?}");
    assert_eq!(here.ask(Method::POST, "/api/admin/recover").await, json!({ "slots": 0 }));
}

#[tokio::test]
async fn the_tools_print_tables_for_people_and_json_for_programs() {
    let here = Installation::start("1").await;
    let bot = here.started("one").await;
    let waiting = here.server.send_bot("two", "").await.to_string();

    let table = here.printed(&["slots"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("slot ") && lines[2].starts_with(SLOT), "{table}");
    assert!(lines[2].contains("busy") && lines[2].contains(&bot.to_string()), "{table}");
    let listed: Value = serde_json::from_str(&here.printed(&["slots", "list", "--json"])).unwrap();
    assert_eq!(listed, here.ask(Method::GET, "/api/admin/slots").await);

    for (action, draining) in [("drain", "true"), ("undrain", "false")] {
        let facts = here.printed(&["slots", action, SLOT]);
        let fact = facts.lines().find(|line| line.starts_with("draining "));
        assert!(fact.is_some_and(|fact| fact.ends_with(draining)), "{facts}");
    }
    assert!(here.printed(&["queue"]).lines().any(|line| line.starts_with("1 ") && line.contains(&waiting)));
    let moved = here.printed(&["queue", "move", &waiting, "--priority", "10", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&moved).unwrap()["queuePosition"], 1, "{moved}");
    assert!(here.printed(&["drain", "host", "local"]).starts_with("host local drains; slots left: 1"));
    assert!(here.printed(&["drain"]).contains("local"));
    assert!(here.printed(&["drain", "host", "local", "--stop"]).starts_with("host local does not drain"));
    assert!(here.printed(&["pulls", "start", "local", "example/bot:1"]).contains("example/bot:1"));
    assert!(here.printed(&["pulls"]).contains("example/bot:1"));
    assert!(here.printed(&["reconcile"]).contains("listed"));
    assert!(here.printed(&["recover"]).ends_with(": 0\n"));
    assert!(here.printed(&["bots", "end", &waiting]).contains("cancelled"));
    assert!(here.printed(&["bots", "show", &waiting]).contains("DONE"));
    assert!(here.printed(&["bots"]).contains("JOINING_CALL"));

    // A refusal is the server's words on standard error, with the id that its log has.
    let refused = here.tool(&["slots", "retire", SLOT]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0), "{said}");
    assert!(said.contains("not_now") && said.contains("Drain it"), "{said}");
    let id = said.rsplit_once("(error ").unwrap().1.trim_end().trim_end_matches(')');
    // The log is written beside the answer.
    let deadline = Instant::now() + LIMIT;
    while !here.server.log().contains(id) {
        assert!(Instant::now() < deadline, "{said}");
        tokio::time::sleep(LOOK).await;
    }
    let away = here.tool(&["slots", "--server", "http://127.0.0.1:9"]);
    assert_eq!(away.status.code(), Some(1), "nobody answers there");
    let keyless = here.tool(&["slots", "--key", "mb_nobody"]);
    assert!(String::from_utf8(keyless.stderr).unwrap().contains("401 unauthorized"));
}
