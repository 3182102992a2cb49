//! What keeps an installation as it is: maintenance, container logs, restarts; and the words of refusals on the way.

use crate::support::client::answer;
use crate::support::server::{Server, script_bot, silent_bot};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
const SLOT: &str = "pool-rehearsal-001";

async fn ask(server: &Server, method: Method, path: &str) -> Value {
    let (status, body) = answer(server.request(method, path)).await;
    assert!(status.is_success(), "{path}: {status} {body}\n{}", server.log());
    body
}

async fn wait_slot(server: &Server, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let slot = ask(server, Method::GET, &format!("/api/admin/slots/{SLOT}")).await;
        if wanted(&slot) {
            return slot;
        }
        assert!(Instant::now() < deadline, "{slot}\n{}", server.log());
        tokio::time::sleep(LOOK).await;
    }
}

fn printed(server: &Server, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meeboter"));
    command.env_clear().env("MEEBOTER_DATA_DIR", server.data_dir()).env("MEEBOTER_URL", server.url(""));
    let output = command.args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn maintenance_refreshes_what_moved_warns_of_disks_and_survives_a_crash() {
    let programs = tempfile::tempdir().unwrap();
    let bot = silent_bot(programs.path());
    let mut server = Server::start(&[
        ("MEEBOTER_DRIVER__BOT_PROGRAM", bot.as_str()),
        ("MEEBOTER_MAINTENANCE__DISK_FREE_PERCENT", "99"),
    ])
    .await;
    let id = server.send_bot("one", "").await;
    server.wait_state(id, LIMIT, &["JOINING_CALL"]).await;
    ask(&server, Method::POST, &format!("/api/admin/bots/{id}/end")).await;
    wait_slot(&server, |slot| slot["status"] == "idle").await;

    let first = server.maintain().await;
    let steps: Vec<&str> =
        first["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["recover", "refresh", "orphans", "retention", "logs"], "{first}");
    assert_eq!((&first["trigger"], &first["attempt"]), (&json!("operator"), &json!(1)), "{first}");
    let refreshed = json!({ "images": 1, "slots": 1 });
    assert_eq!(first["steps"][1]["done"], refreshed, "nobody knows what the host pulled: {first}");
    assert_eq!(first["steps"][2]["done"]["listings"], 2, "{first}");
    assert_eq!(server.maintain().await["steps"][1]["done"], json!({}), "it is known now");
    let before = wait_slot(&server, |slot| slot["status"] == "idle").await;

    // Another program is another image; the slot is told, and told once.
    script_bot(programs.path(), "silent-bot", "exec sleep 600");
    let moved = server.maintain().await;
    assert_eq!(moved["steps"][1]["done"], refreshed, "{moved}");
    let after = wait_slot(&server, |slot| slot["status"] == "idle").await;
    assert_ne!(before["changedAt"], after["changedAt"], "{after}");
    assert_eq!(server.maintain().await["steps"][1]["done"], json!({}));

    // No disk of a machine that works is all but empty.
    let ready = ask(&server, Method::GET, "/readyz").await;
    assert_eq!(ready["status"], "ready");
    assert!(ready["warnings"][0].as_str().unwrap().contains("disk data is nearly full"), "{ready}");
    let shown = printed(&server, &["maintenance"]);
    assert!(shown.contains("listings: 2") && shown.contains("(operator)"), "{shown}");
    let page = server.bare(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    for metric in
        ["meeboter_disk_free_percent{disk=\"data\"} ", "meeboter_maintenance_end_timestamp_seconds "]
    {
        assert!(page.contains(metric), "{metric} is not in\n{page}");
    }

    // The nights of a week without a server are one run.
    server.kill();
    server.spawn();
    server.wait_ready().await;
    assert_eq!(ask(&server, Method::GET, "/api/admin/maintenance").await["last"]["trigger"], "operator");
    server.edit("UPDATE maintenance SET due_from = due_from - interval '7 days'").await;
    server.kill();
    server.spawn();
    server.wait_ready().await;
    let deadline = Instant::now() + LIMIT;
    let mut last = Value::Null;
    while last["trigger"] != "made_up" || last["endedAt"].is_null() {
        assert!(Instant::now() < deadline, "{last}");
        tokio::time::sleep(LOOK).await;
        last = ask(&server, Method::GET, "/api/admin/maintenance").await["last"].clone();
    }
    assert_eq!(last["attempt"], 1, "{last}");
}

#[tokio::test]
async fn a_container_is_read_and_started_again_while_its_bot_is_not_in_its_meeting() {
    let programs = tempfile::tempdir().unwrap();
    let talk = "i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo \"line $i\"; done; exec sleep 600";
    let bot = script_bot(programs.path(), "talking-bot", talk);
    let server = Server::start(&[("MEEBOTER_DRIVER__BOT_PROGRAM", bot.as_str())]).await;
    let id = server.send_bot("one", "").await;
    let before = wait_slot(&server, |slot| slot["step"] == "running").await;
    let logs = format!("/api/admin/slots/{SLOT}/logs");
    let deadline = Instant::now() + LIMIT;
    loop {
        let read = ask(&server, Method::GET, &format!("{logs}?lines=2")).await;
        if read["lines"] == json!(["line 4", "line 5"]) {
            break;
        }
        assert!(Instant::now() < deadline, "{read}");
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(printed(&server, &["slots", "logs", SLOT, "--lines", "1"]), "line 5\n");
    let (status, _) = server.get(&format!("{logs}?lines=0")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);

    let processes = server.bot_pids();
    let stopping = ask(&server, Method::POST, &format!("/api/admin/slots/{SLOT}/restart")).await;
    assert_eq!((&stopping["step"], &stopping["botId"]), (&json!("restarting"), &json!(id)), "{stopping}");
    let generation = before["generation"].as_i64().unwrap();
    let anew =
        wait_slot(&server, |slot| slot["generation"] == generation + 1 && slot["step"] == "running").await;
    assert_eq!(anew["botId"], id, "the same bot: {anew}");
    let now = server.bot_pids();
    assert!(!now.is_empty() && processes.iter().all(|pid| !now.contains(pid)), "{processes:?} {now:?}");
    assert_eq!(server.bot(id).await["state"], "JOINING_CALL");

    ask(&server, Method::POST, &format!("/api/admin/bots/{id}/end")).await;
    wait_slot(&server, |slot| slot["status"] == "idle").await;
    let (status, refused) =
        answer(server.request(Method::POST, &format!("/api/admin/slots/{SLOT}/restart"))).await;
    assert_eq!((status, &refused["error"]["code"]), (StatusCode::CONFLICT, &json!("not_now")), "{refused}");
    assert_eq!(
        ask(&server, Method::GET, &logs).await["lines"].as_array().map(Vec::len),
        Some(5),
        "it is kept"
    );
}

#[tokio::test]
async fn a_known_address_says_which_methods_it_takes() {
    let server = Server::start(&[]).await;
    for (method, path, allowed) in [
        (Method::GET, "/api/admin/recover", "POST"),
        (Method::DELETE, "/api/bots", "POST, GET"),
        (Method::PUT, "/api/bots/7", "GET, PATCH"),
        (Method::POST, "/healthz", "GET"),
        (Method::DELETE, "/api/admin/users", "GET, POST"),
        (Method::GET, "/api/admin/users/admin", "PATCH"),
        (Method::GET, "/api/admin/users/admin/keys", "POST"),
        (Method::PUT, "/api/admin/drains/hosts/local", "POST, DELETE"),
    ] {
        let refused = server.request(method, path).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(refused.headers()["allow"], allowed, "{path}");
        let body: Value = refused.json().await.unwrap();
        assert_eq!(body["error"]["code"], "method_not_allowed", "{body}");
    }
    for (method, path) in [(Method::GET, "/api/nothing"), (Method::POST, "/api/admin/slots/a/b/c")] {
        assert_eq!(answer(server.request(method, path)).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}
