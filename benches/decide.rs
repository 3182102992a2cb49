//! How long the decision takes which slot gets a bot, whatever the size of the pool. No database, no actor: the pool's
//! index alone. Beside it: the decision by going through a list of all slots, as a plain program would.

use anyhow::{Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use meeboter_actors::ids::{HostName, Platform, SlotName};
use meeboter_actors::pool::index::{Placement, SlotIndex};
use meeboter_actors::slot::preparation::Preparation;
use meeboter_actors::slot::{Slot, SlotState, SlotStatus};
use meeboter_benches::{progress, samples, verdict};
use std::hint::black_box;
use std::time::{Duration, Instant};

const SIZES: [u32; 4] = [100, 1_000, 10_000, 100_000];
const RUNS: usize = 5;
/// Grants timed in a run, in rounds of [`ROUND`]: what is granted in a round is given back before the next one.
const GRANTS: usize = 200_000;
const ROUND: usize = 50;
const RATIO_MAX: f64 = 1.5;

fn main() -> Result<()> {
    progress("making the pools");
    let mut pools = SIZES.map(Pool::new);
    let mut runs = SIZES.map(|_| Vec::with_capacity(RUNS));
    // In turns: what slows the machine down for a while slows all sizes down.
    for run in 0..=RUNS {
        progress(&format!("run {run} of {RUNS}"));
        for (pool, runs) in pools.iter_mut().zip(&mut runs) {
            let took = pool.run(GRANTS)?;
            // The first one only warms up.
            if run > 0 {
                runs.push(took);
            }
        }
    }
    println!("decide: a grant out of slots that are half of them busy, median of {RUNS}");
    let mut medians = Vec::new();
    for ((size, pool), runs) in SIZES.into_iter().zip(&pools).zip(&mut runs) {
        let all = runs.iter().map(|run| format!("{run:.1}")).collect::<Vec<_>>().join(" ");
        runs.sort_by(f64::total_cmp);
        let median = runs.get(RUNS / 2).copied().unwrap_or_default();
        println!("  {size:>7} slots     {median:7.1} ns   (list: {:>11.1} ns)   runs {all}", pool.by_list());
        medians.push(median);
    }
    let (least, most) =
        medians.iter().fold((f64::MAX, 0.0_f64), |(least, most), run| (least.min(*run), most.max(*run)));
    let ratio = most / least;
    verdict(
        ratio <= RATIO_MAX,
        &format!("the slowest size takes {ratio:.2} × the quickest; the target is {RATIO_MAX} ×"),
    );
    println!("ratio {ratio:.2}");
    Ok(())
}

/// A pool of one platform on twenty hosts, in steady use.
struct Pool {
    platform: Platform,
    index: SlotIndex,
    slots: Vec<Slot>,
    now: DateTime<Utc>,
}

impl Pool {
    fn new(size: u32) -> Self {
        let platform = samples::platform();
        let hosts = (1..=20).map(|host| HostName(format!("host-{host}")));
        let settings = samples::settings(size, hosts);
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        // Neighbours by name were not used one after the other.
        let slots = (1..=size).map(|number| slot(number, now - TimeDelta::milliseconds(scattered(number))));
        let mut pool = Self { index: SlotIndex::new(&settings), slots: slots.collect(), platform, now };
        let busy = samples::busy_slot(1, HostName::local(), now).state;
        for slot in &mut pool.slots {
            if slot.name.number() % 2 == 0 {
                slot.state = busy.clone();
            }
            pool.index.put(slot);
        }
        pool
    }

    /// Nanoseconds a grant.
    fn run(&mut self, grants: usize) -> Result<f64> {
        let mut took = Duration::ZERO;
        let mut granted = Vec::with_capacity(ROUND);
        for _ in 0..grants / ROUND {
            let began = Instant::now();
            for _ in 0..ROUND {
                granted.push(self.index.take(black_box(&self.platform)));
            }
            took += began.elapsed();
            for placement in granted.drain(..) {
                let Placement::Slot(name) = placement else {
                    ensure!(false, "the pool is full");
                    continue;
                };
                self.give_back(&name);
            }
        }
        Ok(took.as_secs_f64() * 1e9 / grants as f64)
    }

    /// The bot has left: the slot is the one used last.
    fn give_back(&mut self, name: &SlotName) {
        self.now += TimeDelta::milliseconds(1);
        if let Some(slot) = self.slots.get_mut(name.number() as usize - 1) {
            slot.state = SlotState::Idle { last_used_at: Some(self.now), ahead: Preparation::Absent };
            self.index.put(slot);
        }
        self.index.reserve(name, false);
    }

    /// Nanoseconds for the same choice by going through all slots.
    fn by_list(&self) -> f64 {
        let lines = self.index.lines();
        let rounds = (2_000_000 / lines.len()).max(1);
        let began = Instant::now();
        for _ in 0..rounds {
            let free = lines.iter().filter(|line| {
                line.platform == self.platform && line.status == Some(SlotStatus::Idle) && !line.reserved
            });
            black_box(free.min_by_key(|line| (line.image != samples::IMAGE, line.last_used_at, &line.name)));
        }
        began.elapsed().as_secs_f64() * 1e9 / rounds as f64
    }
}

fn slot(number: u32, used: DateTime<Utc>) -> Slot {
    samples::idle_slot(number, HostName(format!("host-{}", number % 20 + 1)), used)
}

/// A number below 2^31 that looks like chance: a multiplicative hash.
fn scattered(number: u32) -> i64 {
    i64::from(number.wrapping_mul(2_654_435_761) >> 1)
}
