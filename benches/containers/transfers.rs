//! What a registry sends: for one pull, for bots that all want the same new image, and for as many pulls that nobody
//! orders. Each on an engine that has nothing yet.

use crate::dockerd::Dockerd;
use crate::registry::Registry;
use crate::{Extent, scripted_bot, server_on};
use actix_web::http::StatusCode;
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use meeboter_benches::progress;
use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Of the image, beside the bot's program: what cannot be compressed.
const BALLAST_BYTES: u64 = 16 << 20;
const LIMIT: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(50);
const IMAGE: &str = "scripted-bot:new";

/// Bytes that were sent.
pub(crate) struct Transferred {
    one: u64,
    bots: u64,
    unordered: u64,
    count: u32,
}

impl Transferred {
    pub(crate) fn ratio(&self) -> f64 {
        self.bots as f64 / self.one as f64
    }

    pub(crate) fn show(&self) {
        println!(
            "{} bots of a new image: {} bytes; one pull {}; {:.3} ×; {} pulls at once that nobody orders {}, {:.3} ×",
            self.count,
            self.bots,
            self.one,
            self.ratio(),
            self.count,
            self.unordered,
            self.unordered as f64 / self.one as f64
        );
    }
}

/// Measures all three.
pub(crate) async fn measure(extent: Extent) -> Result<Transferred> {
    progress("starting a registry");
    let registry = Registry::start().await;
    let image = registry.reference(IMAGE);
    publish(&image).await?;
    let count = extent.pullers;

    progress("one pull");
    let dockerd = Dockerd::start().await;
    let before = registry.sent();
    dockerd.run(&["pull", "--quiet", &image]);
    let one = registry.sent() - before;
    drop(dockerd);

    progress(&format!("{count} pulls at once"));
    let dockerd = Dockerd::start().await;
    let before = registry.sent();
    let pull = || dockerd.docker().args(["pull", "--quiet", &image]).stdout(Stdio::null()).spawn();
    let pulls = (0..count).map(|_| pull()).collect::<std::io::Result<Vec<_>>>()?;
    for mut pull in pulls {
        ensure!(pull.wait()?.success(), "a pull failed");
    }
    let unordered = registry.sent() - before;
    drop(dockerd);

    progress(&format!("{count} bots at once"));
    let dockerd = Dockerd::start().await;
    let before = registry.sent();
    let server = server_on(&dockerd, &image, count).await?;
    let asked = (0..count).map(|number| server.create_bot(&format!("bot-{number}"), ""));
    for (status, bot) in try_join_all(asked).await? {
        ensure!(status == StatusCode::CREATED, "a bot was answered {status}: {bot}");
    }
    let deadline = Instant::now() + LIMIT;
    while (dockerd.run(&["ps", "--quiet"]).lines().count() as u32) < count {
        ensure!(Instant::now() < deadline, "the bots do not run:\n{}", server.log());
        tokio::time::sleep(LOOK).await;
    }
    Ok(Transferred { one, bots: registry.sent() - before, unordered, count })
}

/// Puts an image of some size into the registry.
async fn publish(image: &str) -> Result<()> {
    let dockerd = Dockerd::start().await;
    let folder = tempfile::tempdir()?;
    let (archive, ballast) = (folder.path().join("bot.tar"), folder.path().join("ballast"));
    fs::copy(scripted_bot::archive(), &archive)?;
    let mut noise = File::open("/dev/urandom")?.take(BALLAST_BYTES);
    std::io::copy(&mut noise, &mut File::create(&ballast)?)?;
    let mut tar = Command::new("tar");
    tar.arg("--append").arg("--file").arg(&archive).arg("--directory").arg(folder.path()).arg("ballast");
    ensure!(tar.status()?.success(), "tar failed");
    let archive = archive.to_str().context("a path")?;
    dockerd.run(&["import", "--change", "CMD [\"/bot\", \"stay\"]", archive, image]);
    dockerd.run(&["push", "--quiet", image]);
    Ok(())
}
