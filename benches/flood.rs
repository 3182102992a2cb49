//! What a server does with ten times the bots that it is set to take: creations over HTTP at a steady pace that does not
//! slow down with the server, first at the set rate, then at ten times that. Bots wait for a second, and end. Beside it:
//! the plainest answer there is, at the pace of the flood. `--quick` is a small run.

use actix_web::http::StatusCode;
use anyhow::{Context, Result, ensure};
use meeboter_benches::figures::{Figures, ms, ratio};
use meeboter_benches::memory::Memory;
use meeboter_benches::open_loop::{Offer, Outcome};
use meeboter_benches::server::Server;
use meeboter_benches::{cpu, progress, verdict};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// The rate that the server is set to.
const PER_SECOND: u32 = 200;
const TIMES: u32 = 10;
/// How long the last requests may take when no further one is sent.
const REST: Duration = Duration::from_secs(2);
/// Between two looks at the server's memory.
const LOOK: Duration = Duration::from_millis(250);
const MEMORY_MAX_MIB: f64 = 32.0;
const REFUSED_P99_MAX: Duration = Duration::from_millis(10);
const GOODPUT_MIN: f64 = 0.95;
/// A bound of the server's own histogram, in seconds, and the share of timers that must not be later.
const TIMER_LATE: (&str, f64) = ("0.02", 0.99);

#[actix_web::main]
async fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let [before, flood] = if quick { [4, 5] } else { [20, 60] }.map(Duration::from_secs);
    progress("starting the server");
    let server = Server::start(&[
        ("MEEBOTER_SERVER__CREATIONS_PER_S_MAX", &PER_SECOND.to_string()),
        ("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "0"),
        ("MEEBOTER_QUEUE__DEFAULT_TIMEOUT_MS", "1000"),
    ])
    .await?;
    let create = |number: u32| {
        let asked = server.create_bot(&format!("flood-{number}"), "host=admit");
        async move { Ok(asked.await?.0) }
    };
    let at = |per_second, duration| Offer { per_second, duration };
    progress(&format!("{PER_SECOND} bots a second for {} s", before.as_secs()));
    let peak = Load::of(&server, at(PER_SECOND, before), create).await?;
    let pace = PER_SECOND * TIMES;
    progress(&format!("{pace} plain requests a second for {} s", before.as_secs()));
    let plain = Load::of(&server, at(pace, before), |_| server.ask_alive()).await?;
    progress(&format!("{pace} bots a second for {} s", flood.as_secs()));
    let flood = Load::of(&server, at(pace, flood), create).await?;
    report(&peak, &plain, &flood)
}

/// Some load, and what the server was like under it.
struct Load {
    outcome: Outcome<StatusCode>,
    offer: Offer,
    /// RSS before and at most, in MiB.
    memory: [f64; 2],
    /// Shares of a core: the server's and this program's.
    used: [f64; 2],
    /// The share of the actors' timers that were no later than [`TIMER_LATE`] says.
    timely: f64,
}

impl Load {
    async fn of<F>(server: &Server, offer: Offer, work: impl FnMut(u32) -> F) -> Result<Self>
    where
        F: Future<Output = Result<StatusCode>> + 'static,
    {
        let pids = [u32::try_from(server.pid()?)?, std::process::id()];
        let rss = || Memory::of(server.pid()?)?.get("Rss");
        let (before, timers) = (rss()?, Timers::of(server).await?);
        let used = [cpu::used(pids[0])?, cpu::used(pids[1])?];
        let mut most = before;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let offered = offer.make(REST, work);
        tokio::pin!(offered);
        let outcome = loop {
            tokio::select! {
                outcome = &mut offered => break outcome?,
                _ = looks.tick() => most = most.max(rss()?),
            }
        };
        let share = |pid, before: Duration| -> Result<f64> {
            Ok((cpu::used(pid)? - before).as_secs_f64() / offer.duration.as_secs_f64())
        };
        let used = [share(pids[0], used[0])?, share(pids[1], used[1])?];
        let timely = Timers::of(server).await?.timely_since(&timers);
        Ok(Self { outcome, offer, memory: [before, most], used, timely })
    }

    /// Requests that got this status, a second.
    fn per_second(&self, wanted: StatusCode) -> f64 {
        self.took(wanted).count() as f64 / self.offer.duration.as_secs_f64()
    }

    fn took(&self, wanted: StatusCode) -> Figures {
        let mut took = Figures::default();
        for (duration, status) in &self.outcome.done {
            if *status == wanted {
                took.add(*duration);
            }
        }
        took
    }
}

/// The actors' timers so far.
struct Timers {
    timely: f64,
    all: f64,
}

impl Timers {
    async fn of(server: &Server) -> Result<Self> {
        let page = server.metrics().await?;
        let value = |name: &str| -> Result<f64> {
            let line = page.lines().find_map(|line| line.strip_prefix(name));
            Ok(line.with_context(|| format!("there is no {name}"))?.trim().parse()?)
        };
        Ok(Self {
            timely: value(&format!("meeboter_timer_late_seconds_bucket{{le=\"{}\"}}", TIMER_LATE.0))?,
            all: value("meeboter_timer_late_seconds_count")?,
        })
    }

    fn timely_since(&self, before: &Self) -> f64 {
        (self.timely - before.timely) / (self.all - before.all).max(1.0)
    }
}

fn report(peak: &Load, plain: &Load, flood: &Load) -> Result<()> {
    let (created, refused) = (StatusCode::CREATED, StatusCode::SERVICE_UNAVAILABLE);
    println!(
        "flood: a server set to {PER_SECOND} creations a second, {} offered for {} s",
        flood.offer.per_second,
        flood.offer.duration.as_secs()
    );
    for (name, load, status) in [
        ("at the rate, taken", peak, created),
        ("flood, taken", flood, created),
        ("flood, refused", flood, refused),
        ("plain answers", plain, StatusCode::OK),
    ] {
        let took = load.took(status);
        let [p50, p99, max] = [took.median(), took.p99(), took.max()].map(ms);
        println!(
            "  {name:<18} {:7.1} /s   p50 {p50:6.2} ms   p99 {p99:6.2} ms   max {max:7.2} ms",
            load.per_second(status)
        );
    }
    for (name, load) in [("at the rate", peak), ("flood", flood), ("plain answers", plain)] {
        let [[before, most], [server, own]] = [load.memory, load.used.map(|share| share * 100.0)];
        println!(
            "  {name:<18} RSS {before:.1}, at most {most:.1} MiB   server {server:.0} %, this program {own:.0} % of a core   sent late p99 {:.2} ms   unanswered {}",
            ms(load.outcome.late.p99()),
            load.outcome.undone.count()
        );
    }
    let others = flood.outcome.done.len() - flood.took(created).count() - flood.took(refused).count();
    ensure!(others == 0, "{others} requests were neither taken nor refused");
    let refusals = flood.took(refused).p99();
    println!(
        "  ratio              {:7.2} × a plain answer's p99 (refusals)",
        ratio(refusals, plain.took(StatusCode::OK).p99())
    );
    let grown = flood.memory[1] - flood.memory[0];
    verdict(grown <= MEMORY_MAX_MIB, &format!("{grown:.1} MiB more; the target is {MEMORY_MAX_MIB} MiB"));
    verdict(
        refusals <= REFUSED_P99_MAX && flood.outcome.undone.count() == 0,
        &format!("refusals p99 {:.1} ms, and all answered; the target is 10 ms", ms(refusals)),
    );
    let goodput = flood.per_second(created) / peak.per_second(created);
    verdict(
        goodput >= GOODPUT_MIN,
        &format!("{:.1} % of what is taken at the rate; the target is 95 %", goodput * 100.0),
    );
    verdict(
        flood.timely >= TIMER_LATE.1,
        &format!("{:.2} % of timers at most 20 ms late; the target is 99 %", flood.timely * 100.0),
    );
    Ok(())
}
