//! How long the server takes from its start on an existing data folder until it is ready. Beside it: PostgreSQL alone,
//! the same program on the same files, until it accepts a connection.

use anyhow::Result;
use meeboter_benches::figures::{Figures, ms, ratio};
use meeboter_benches::server::Server;
use meeboter_benches::{progress, verdict};
use std::time::Duration;

const ROUNDS: u32 = 5;
const TARGET_OVER: Duration = Duration::from_millis(500);

#[actix_web::main]
async fn main() -> Result<()> {
    progress("making the data folder");
    let mut server = Server::start(&[]).await?;
    let postgres = server.postgres()?;
    server.stop().await?;
    let (mut whole, mut alone) = (Figures::default(), Figures::default());
    for round in 0..ROUNDS {
        progress(&format!("start {} of {ROUNDS}: PostgreSQL alone, then the server", round + 1));
        alone.add(postgres.time_a_start().await?);
        whole.add(server.start_again().await?);
        server.stop().await?;
    }
    let (server, postgres) = (whole.median(), alone.median());
    println!("start: {ROUNDS} starts of each on the same data folder");
    println!("  server to ready    median {:7.1} ms   (all: {whole})", ms(server));
    println!("  PostgreSQL alone   median {:7.1} ms   (all: {alone})", ms(postgres));
    println!("  ratio              {:.2} ×", ratio(server, postgres));
    let over = ms(server) - ms(postgres);
    let sentence = format!("{over:.0} ms more than PostgreSQL alone; the target is 500 ms");
    verdict(server <= postgres + TARGET_OVER, &sentence);
    Ok(())
}
