//! What an idle server keeps in memory. Beside it: its private PostgreSQL.

use anyhow::Result;
use meeboter_benches::memory::Memory;
use meeboter_benches::server::Server;
use meeboter_benches::{progress, verdict};
use std::fs;
use std::time::Duration;

const IDLE: Duration = Duration::from_secs(10);
const TARGET_MIB: f64 = 60.0;

#[actix_web::main]
async fn main() -> Result<()> {
    progress("starting the server");
    let server = Server::start(&[]).await?;
    progress("leaving it idle for 10 s");
    tokio::time::sleep(IDLE).await;
    let pid = server.pid()?;
    let own = Memory::of(pid)?;
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?.count();
    let mut postgres_pss = 0.0;
    let postgres = server.postgres()?.pids();
    for pid in &postgres {
        // A worker that has ended since it was listed has no memory.
        if let Ok(memory) = Memory::of(*pid) {
            postgres_pss += memory.get("Pss")?;
        }
    }
    let (rss, pss) = (own.get("Rss")?, own.get("Pss")?);
    println!("memory: idle for {} s", IDLE.as_secs());
    println!("  server             RSS {rss:6.1} MiB   PSS {pss:6.1} MiB   ({threads} threads)");
    println!(
        "    of its PSS       {:.1} MiB of its own (heap, stacks), {:.1} MiB of files (program, libraries)",
        own.get("Pss_Anon")?,
        own.get("Pss_File")?,
    );
    println!(
        "  PostgreSQL                          PSS {postgres_pss:6.1} MiB   ({} processes)",
        postgres.len()
    );
    println!("  ratio              {:.2} × (PSS)", pss / postgres_pss);
    let sentence = format!("RSS is {rss:.1} MiB; the target is {TARGET_MIB} MiB");
    verdict(rss <= TARGET_MIB, &sentence);
    Ok(())
}
