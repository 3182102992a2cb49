//! How long creating a bot takes, from the moment a client wanted it to the durable answer, at a steady rate that
//! does not slow down with the server. Beside it: the commit of one row on the same PostgreSQL.

use actix_web::http::StatusCode;
use anyhow::{Result, ensure};
use meeboter_benches::figures::{Figures, ms, ratio};
use meeboter_benches::open_loop::Offer;
use meeboter_benches::server::Server;
use meeboter_benches::{progress, verdict};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Client;

const PER_SECOND: u32 = 200;
/// Between two requests, or commits.
const PACE: Duration = Duration::from_millis(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Windows with load and without take turns, so that both see the same machine.
const WINDOWS: u32 = 4;
/// Requests, or commits, in a window: 5 s.
const A_WINDOW: u32 = 1000;
const WARM_UP: u32 = 400;
const TARGET: Duration = Duration::from_millis(25);
const TARGET_RATIO: f64 = 6.0;

#[actix_web::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let bot = folder.path().join("bot");
    fs::write(&bot, "#!/bin/sh\nexec sleep 600\n")?;
    fs::set_permissions(&bot, Permissions::from_mode(0o755))?;
    progress("starting the server");
    let server = Server::start(&[
        ("MEEBOTER_DRIVER__BOT_PROGRAM", &bot.display().to_string()),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "1"),
        ("MEEBOTER_QUEUE__MAX", "20000"),
        ("MEEBOTER_QUEUE__DEFAULT_TIMEOUT_MS", "600000"),
    ])
    .await?;
    let client = server.postgres()?.connect("postgres").await?;
    let setting =
        client.query_one("SELECT current_setting('fsync') || current_setting('synchronous_commit')", &[]);
    let setting: String = setting.await?.try_get(0)?;
    ensure!(
        setting == "onon",
        "this PostgreSQL does not wait for the disk: fsync and synchronous_commit are {setting}"
    );
    client.batch_execute("CREATE TABLE bench (id bigint PRIMARY KEY, name text NOT NULL)").await?;
    progress("warming up");
    let mut created = Created::default();
    created.load(&server, WARM_UP).await?;
    let mut bare = Figures::default();
    commit(&client, &mut bare, 0, WARM_UP).await?;
    (created, bare) = Default::default();
    for window in 0..WINDOWS {
        progress(&format!(
            "window {} of {WINDOWS}: 5 s of creating bots, then 5 s of bare commits",
            window + 1
        ));
        created.load(&server, A_WINDOW).await?;
        commit(&client, &mut bare, WARM_UP + window * A_WINDOW, A_WINDOW).await?;
    }
    report(&created, &bare);
    Ok(())
}

#[derive(Default)]
struct Created {
    /// From the time a request was due to its answer.
    answered: Figures,
    /// From the time a request was due to its sending: what of the above is this program's own.
    late: Figures,
    refused: Vec<String>,
}

impl Created {
    /// Sends so many requests when they are due, whether or not earlier ones are answered.
    async fn load(&mut self, server: &Server, count: u32) -> Result<()> {
        let offer = Offer { per_second: PER_SECOND, duration: PACE * count };
        let outcome = offer.make(ANSWER_LIMIT, |_| server.create_bot("bench", "host=admit")).await?;
        ensure!(outcome.undone.count() == 0, "{} requests were not answered", outcome.undone.count());
        self.late.extend(outcome.late);
        for (took, (status, body)) in outcome.done {
            self.answered.add(took);
            if status != StatusCode::CREATED {
                self.refused.push(format!("{status}: {body}"));
            }
        }
        Ok(())
    }
}

/// Commits one row at a time at the same pace, or as fast as it goes where that is slower.
async fn commit(client: &Client, figures: &mut Figures, first: u32, count: u32) -> Result<()> {
    let insert = client.prepare("INSERT INTO bench (id, name) VALUES ($1, $2)").await?;
    let start = Instant::now();
    for number in 0..count {
        sleep_until(start + PACE * number).await;
        let begun = Instant::now();
        client.execute(&insert, &[&i64::from(first + number), &"a bot that waits for a slot"]).await?;
        figures.add(begun.elapsed());
    }
    Ok(())
}

fn report(created: &Created, bare: &Figures) {
    let answered = &created.answered;
    println!("create: {} bots at 200 a second, and {} bare commits", answered.count(), bare.count());
    for (name, figures) in
        [("create a bot", answered), ("bare commit", bare), ("of it, sent late", &created.late)]
    {
        let [median, p99, max] = [figures.median(), figures.p99(), figures.max()].map(ms);
        println!("  {name:<18} p50 {median:7.2} ms   p99 {p99:7.2} ms   max {max:7.2} ms");
    }
    let (median, p99) = (ratio(answered.median(), bare.median()), ratio(answered.p99(), bare.p99()));
    println!("  ratio              p50 {median:7.2} ×    p99 {p99:7.2} ×");
    if let Some(first) = created.refused.first() {
        println!("  {} were refused, the first with {first}", created.refused.len());
    }
    let passed = created.refused.is_empty() && (answered.p99() <= TARGET || p99 <= TARGET_RATIO);
    let sentence = format!(
        "p99 is {:.1} ms, {p99:.1} × the bare commit's; the target is 25 ms or 6 ×, and no refusal",
        ms(answered.p99())
    );
    verdict(passed, &sentence);
}
