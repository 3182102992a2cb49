//! What Meeboter adds to a Docker engine: the start of a container that was made ahead, one at a time and fifty at once,
//! beside the engine's own start of containers that were made just so; and the bytes that twenty bots of a new image
//! have their registry send, beside those of one pull, and of twenty that nobody orders. Engine, registry and server are
//! the benchmark's own. `--quick` is a small run.

#[path = "../../tests/integration/support/dockerd.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "it is the tests' own")]
mod dockerd;
mod events;
#[path = "../../tests/integration/support/registry.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "it is the tests' own")]
mod registry;
#[path = "../../tests/integration/support/scripted_bot/mod.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "it is the tests' own")]
mod scripted_bot;
mod starts;
mod transfers;

use anyhow::Result;
use meeboter_benches::server::Server;
use meeboter_benches::verdict;

/// How much of a run is done.
#[derive(Clone, Copy)]
struct Extent {
    /// Starts one after another.
    singles: u32,
    /// Containers started at once.
    at_once: u32,
    /// How often those.
    rounds: u32,
    /// Bots that want a new image at once.
    pullers: u32,
}

const WHOLE: Extent = Extent { singles: 30, at_once: 50, rounds: 5, pullers: 20 };
const QUICK: Extent = Extent { singles: 3, at_once: 5, rounds: 1, pullers: 4 };

#[actix_web::main]
async fn main() -> Result<()> {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let extent = if is_quick { QUICK } else { WHOLE };
    let started = starts::measure(extent).await?;
    let transferred = transfers::measure(extent).await?;
    println!();
    started.show();
    transferred.show();
    verdict(started.single_ratio() <= 1.2, "a warm start takes at most 1.2 times the engine's own");
    verdict(started.at_once_ratio() <= 1.2, "so do many at once");
    // What the registry says beside an image's bytes is not always the same.
    verdict(transferred.ratio() <= 1.02, "many bots of a new image transfer it once");
    Ok(())
}

/// A server whose bots are containers of an engine; they never say a word.
async fn server_on(dockerd: &dockerd::Dockerd, image: &str, slots: u32) -> Result<Server> {
    let (host, slots) = (dockerd.host(), slots.to_string());
    Server::start(&[
        ("MEEBOTER_DRIVER__KIND", "docker"),
        ("MEEBOTER_DOCKER__NETWORK", "host"),
        ("MEEBOTER_HOSTS__LOCAL__DOCKER_URL", host.as_str()),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", slots.as_str()),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__IMAGE", image),
        ("MEEBOTER_BOTS__LEAVE_GRACE_MS", "1000"),
        ("MEEBOTER_BOTS__STOP_GRACE_MS", "100"),
    ])
    .await
}
