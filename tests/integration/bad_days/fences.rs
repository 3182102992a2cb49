//! Programs that are not, or no longer, who they say.

use super::{MINUTE, check_tidy, check_whole_meeting, meeting};
use crate::support::client::answer;
use crate::support::frozen::Frozen;
use crate::support::server::{Server, environment, silent_bot};
use meeboter::auth::Tokens;
use meeboter_actors::ids::{BotId, Generation};
use meeboter_bot::{
    ENV_SLOT, ENV_TOKEN, ENV_WHEN_DONE, ENV_WORK_DIR, TOKEN_HEADER, assignment_path, heartbeat_path,
    status_path,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::process::Command;
use uuid::Uuid;

const SECRET: &str = "a secret of at least 32 characters";
const STALE: (StatusCode, &str) = (StatusCode::CONFLICT, "stale_generation");
const IN_DOUBT: (StatusCode, &str) = (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown");
const CARRY_ON: (StatusCode, &str) = (StatusCode::OK, "");
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

#[tokio::test]
async fn only_the_process_that_claimed_a_generation_speaks_for_its_bot() {
    let settings = [("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "1"), ("AUTH_SECRET", SECRET)];
    let server = Server::start(&settings).await;
    let tokens = Tokens::new(SECRET);
    let past = server.send_bot("past", "host=deny&admitAfterMs=200").await;
    let present = server.send_bot("present", &meeting(8_000)).await;

    server.wait_state(past, MINUTE, &["JOINING_CALL", "IN_WAITING_ROOM"]).await;
    let old = slot_of_the_program(&server);
    server.wait_state(present, MINUTE, &["IN_CALL", "RECORDING"]).await;
    let new = slot_of_the_program(&server);
    assert_eq!(old.0, new.0, "the same slot");
    assert_ne!(old.1, new.1, "another generation");

    // The slot's assignment: for nobody else.
    let claim = async |slot: Uuid, token: &str| {
        let request = server.bare(Method::POST, &assignment_path(slot)).header(TOKEN_HEADER, token);
        outcome(answer(request.json(&json!({ "nonce": Uuid::new_v4() }))).await)
    };
    assert_eq!(claim(new.0, &new.1).await, (StatusCode::CONFLICT, "claimed".to_owned()));
    assert_eq!(claim(old.0, &old.1).await, owned(STALE));
    assert_eq!(claim(new.0, "guessed").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(claim(Uuid::new_v4(), &new.1).await.0, StatusCode::UNAUTHORIZED);

    // What is said of a bot: by itself, in its generation.
    let speak = async |bot: i64, token: String, generation: i64| {
        let request = server.bare(Method::POST, &heartbeat_path(bot)).header(TOKEN_HEADER, token);
        outcome(answer(request.json(&json!({ "generation": generation }))).await)
    };
    let token = |bot: i64, generation: i64| tokens.bot(BotId(bot), Generation(generation));
    assert_eq!(speak(present, token(present, 2), 2).await.0, StatusCode::OK);
    assert_eq!(speak(present, token(past, 2), 2).await, (StatusCode::FORBIDDEN, "forbidden".to_owned()));
    assert_eq!(speak(present, new.1.clone(), 2).await.0, StatusCode::FORBIDDEN);
    assert_eq!(speak(present, "guessed".to_owned(), 2).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(speak(present, token(present, 1), 1).await, owned(STALE));
    assert_eq!(speak(present, token(present, 2), 1).await, owned(STALE));
    assert_eq!(speak(past, token(past, 1), 1).await, owned(STALE));

    // A second program in the same slot joins nothing.
    let mut second = Command::new(bot_program());
    let folder = tempfile::tempdir().unwrap();
    let variables = environment(server.bot_program_pids()[0]);
    let variables = variables.iter().filter_map(|variable| variable.split_once('='));
    second.env_clear().envs(variables.filter(|(name, _)| *name != "MEEBOTER_MARKER"));
    second.env(ENV_WORK_DIR, folder.path()).env(ENV_WHEN_DONE, "exit").kill_on_drop(true);
    let ended = tokio::time::timeout(MINUTE, second.output()).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(3), "{}", String::from_utf8_lossy(&ended.stdout));

    check_whole_meeting(&server, present, 8_000).await;
    check_tidy(&server, 1).await;
}

#[tokio::test]
async fn a_server_in_doubt_of_its_lead_tells_no_program_that_its_time_is_over() {
    let programs = tempfile::tempdir().unwrap();
    let program = silent_bot(programs.path());
    let settings = [
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "1"),
        ("MEEBOTER_DRIVER__BOT_PROGRAM", program.as_str()),
        ("AUTH_SECRET", SECRET),
    ];
    let server = Server::start(&settings).await;
    let bot = server.send_bot("present", "").await;
    server.wait_state(bot, MINUTE, &["JOINING_CALL"]).await;
    let token = Tokens::new(SECRET).bot(BotId(bot), Generation(7));
    let speak = async |method: Method, path: String, body: &Value| {
        outcome(answer(server.bare(method, &path).header(TOKEN_HEADER, &token).json(body)).await)
    };
    let beat = json!({ "generation": 7 });
    let report = json!({ "generation": 7, "seq": 1, "at": "2026-01-01T00:00:00Z", "status": "IN_CALL" });
    // What a program of another generation is told: by its heartbeats, and by its reports.
    let told = async |heartbeats: (StatusCode, &str), reports: (StatusCode, &str)| {
        let deadline = Instant::now() + MINUTE;
        loop {
            let told = [
                speak(Method::POST, heartbeat_path(bot), &beat).await,
                speak(Method::PATCH, status_path(bot), &report).await,
            ];
            if told == [owned(heartbeats), owned(reports)] {
                return;
            }
            assert!(Instant::now() < deadline, "{told:?}");
            tokio::time::sleep(LOOK).await;
        }
    };
    told(STALE, STALE).await;
    let frozen = Frozen::cluster(&server.cluster(), server.postgres_pid().unwrap());
    told(CARRY_ON, IN_DOUBT).await;
    drop(frozen);
    told(STALE, STALE).await;
    assert_eq!(server.bot(bot).await["state"], "JOINING_CALL", "nothing happened to the bot");
}

/// The slot that the one running bot is in, and the token that was given to it.
fn slot_of_the_program(server: &Server) -> (Uuid, String) {
    let pids = server.bot_program_pids();
    assert_eq!(pids.len(), 1);
    let variables = environment(pids[0]);
    let variable = |name: &str| {
        let mut values =
            variables.iter().filter_map(|variable| variable.strip_prefix(name)?.strip_prefix('='));
        values.next().unwrap().to_owned()
    };
    (variable(ENV_SLOT).parse().unwrap(), variable(ENV_TOKEN))
}

fn bot_program() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_BIN_EXE_meeboter")).with_file_name("meeboter-bot")
}

fn outcome((status, body): (StatusCode, Value)) -> (StatusCode, String) {
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn owned((status, code): (StatusCode, &str)) -> (StatusCode, String) {
    (status, code.to_owned())
}
