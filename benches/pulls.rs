//! How often images are pulled when 500 bots want one at the same time: on 20 hosts, 3 images, so that 60 pulls are
//! enough. Beside it: one pull, since all of them run side by side.

use actix::Actor;
use anyhow::{Context, Result};
use meeboter_actors::ids::HostName;
use meeboter_actors::image_pull::actor::{EnsureImage, ImagePullActor};
use meeboter_actors::image_pull::machine::{PullSettings, Want};
use meeboter_actors::ports::Unmetered;
use meeboter_actors::supervision::{DeathGuard, tell};
use meeboter_benches::figures::{ms, ratio};
use meeboter_benches::steady::Steady;
use meeboter_benches::verdict;
use meeboter_benches::workbench::SystemClock;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const REQUESTS: usize = 500;
const HOSTS: usize = 20;
const IMAGES: usize = 3;
/// How long the engine takes for one.
const A_PULL: Duration = Duration::from_millis(200);

#[actix_web::main]
async fn main() -> Result<()> {
    let engine = Arc::new(Steady::pulling(A_PULL));
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let guard = DeathGuard::new(|| {});
    let settings = PullSettings::default();
    let (clock, meter) = (Arc::new(SystemClock), Arc::new(Unmetered));
    let pulls = ImagePullActor::new(Arc::clone(&engine) as _, clock, settings, meter, log, guard).start();
    let began = Instant::now();
    let mut answers = Vec::new();
    for request in 0..REQUESTS {
        let (reply, answer) = oneshot::channel();
        let host = HostName(format!("host-{}", request % HOSTS));
        let image = format!("image:{}", request % IMAGES);
        tell(&pulls, EnsureImage { host, image, want: Want::Bot, reply });
        answers.push(answer);
    }
    for answer in answers {
        answer.await.context("a request was not answered")??;
    }
    let (took, pulled) = (began.elapsed(), engine.pulls());
    println!("pulls: {REQUESTS} requests at once, {HOSTS} hosts × {IMAGES} images");
    println!("  pulls              {pulled}");
    println!("  all answered after {:6.1} ms", ms(took));
    println!("  one pull takes     {:6.1} ms", ms(A_PULL));
    println!("  ratio              {:6.2} ×", ratio(took, A_PULL));
    verdict(pulled == HOSTS * IMAGES, &format!("{pulled} pulls; the target is exactly {}", HOSTS * IMAGES));
    Ok(())
}
