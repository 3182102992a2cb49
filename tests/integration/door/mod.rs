//! The HTTP door: what is let in, what is refused and how, and that a refusal leaves nothing behind. One server serves
//! most of these tests, each as a user of its own; its bots are programs that never say a word.

mod answers;
mod bodies;
mod keys;
mod limits;

use crate::support::client::{Visitor, answer};
use crate::support::postgres::Janitor;
use crate::support::server::{Server, silent_bot};
use meeboter::store::pool::Pool;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

const LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// A server that lives as long as this process, at the log level that is the default.
struct Shared {
    server: Server,
    pool: Pool,
    _programs: tempfile::TempDir,
    _janitor: Janitor,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

async fn shared() -> &'static Shared {
    let start = || async {
        let programs = tempfile::tempdir().unwrap();
        let bot = silent_bot(programs.path());
        let settings = [
            ("MEEBOTER_DRIVER__BOT_PROGRAM", bot.as_str()),
            ("MEEBOTER_LOG_LEVEL", "info"),
            ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "2"),
        ];
        let server = Server::start(&settings).await;
        let janitor = Janitor::watch(server.data_dir());
        let pool = server.pool().await;
        Shared { server, pool, _programs: programs, _janitor: janitor }
    };
    SHARED.get_or_init(start).await
}

async fn visitor(name: &str) -> Visitor {
    let shared = shared().await;
    shared.server.visitor(&shared.pool, name).await
}

/// Waits until the shared server's log holds a text.
async fn logged(text: &str) {
    let server = &shared().await.server;
    let deadline = Instant::now() + LIMIT;
    while !server.log().contains(text) {
        assert!(Instant::now() < deadline, "{text} is not in the log:\n{}", server.log());
        tokio::time::sleep(LOOK).await;
    }
}

/// The error of an answer: of the documented shape, its id in the log.
async fn error(request: RequestBuilder, status: StatusCode, code: &str) -> Value {
    let (answered, body) = answer(request).await;
    assert_eq!(answered, status, "{body}");
    let error = &body["error"];
    assert_eq!(error["code"], code, "{body}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    let id = error["id"].as_str().unwrap_or_default();
    assert_eq!(id.len(), 36, "an id: {body}");
    logged(id).await;
    error.clone()
}

/// A body with changes: JSON pointers and what goes there; null takes the member away.
fn changed(body: &Value, changes: &[(&str, Value)]) -> Value {
    let mut body = body.clone();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let members = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Value::Null => drop(members.remove(name)),
            value => drop(members.insert(name.to_owned(), value.clone())),
        }
    }
    body
}
