//! The simulation as a program: many seeds on all cores, or one with its trace.

use meeboter_actors::testing::coverage::Coverage;
use meeboter_actors::testing::scenario::Scenario;
use meeboter_actors::testing::simulation::{Report, run};
use std::any::Any;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

const USAGE: &str =
    "usage: meeboter-sim [--seeds N] [--first SEED] [--hours H] | --seed SEED [--hours H] [--trace]";
/// Virtual hours of all seeds together from which on everything must have been reached.
const REACHED_FROM_HOURS: f64 = 1_000.0;

/// What the command line asks for.
struct Arguments {
    seed: Option<u64>,
    first: u64,
    seeds: u64,
    /// Virtual hours of a seed; `None`: the short scenarios of the tests.
    hours: Option<u32>,
    trace: bool,
}

fn main() -> ExitCode {
    match arguments(std::env::args().skip(1)) {
        Ok(Arguments { seed: Some(seed), hours, trace, .. }) => one(seed, hours, trace),
        Ok(arguments) => many(&arguments),
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { seed: None, first: 1, seeds: 200, hours: None, trace: false };
    while let Some(name) = given.next() {
        if name == "--trace" {
            arguments.trace = true;
            continue;
        }
        let mut number = || {
            let value = given.next().ok_or_else(|| format!("{name} takes a number"))?;
            value.parse::<u64>().map_err(|_| format!("{name} takes a number, not {value:?}"))
        };
        match name.as_str() {
            "--seed" => arguments.seed = Some(number()?),
            "--seeds" => arguments.seeds = number()?,
            "--first" => arguments.first = number()?,
            "--hours" => {
                let hours = u32::try_from(number()?).ok().filter(|hours| (1..=240).contains(hours));
                arguments.hours = Some(hours.ok_or("--hours takes 1 to 240")?);
            }
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(arguments)
}

fn scenario(seed: u64, hours: Option<u32>, traced: bool) -> Scenario {
    let scenario = hours.map_or_else(|| Scenario::drawn(seed), |hours| Scenario::long(seed, hours));
    Scenario { traced, ..scenario }
}

fn one(seed: u64, hours: Option<u32>, trace: bool) -> ExitCode {
    let report = run(&scenario(seed, hours, trace));
    report.trace.iter().for_each(|line| println!("{line}"));
    report.violations.iter().for_each(|what| println!("VIOLATION {what}"));
    println!("seed {seed}: {} boundaries, {} violations", report.boundaries, report.violations.len());
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let mut coverage = Coverage::default();
    let (mut failed, mut virtual_hours) = (0_u64, 0.0);
    for (seed, report) in shared_out(arguments) {
        virtual_hours += hours_of(&scenario(seed, arguments.hours, false));
        let violation = match report {
            Ok(report) => {
                coverage.add(&report.counts, &report.edges);
                report.violations.into_iter().next()
            }
            Err(why) => Some(why),
        };
        if let Some(violation) = violation {
            let hours = arguments.hours.map(|hours| format!(" --hours {hours}")).unwrap_or_default();
            println!("seed {seed}: {violation}\n  again: ./dev sim --seed {seed}{hours} --trace");
            failed += 1;
        }
    }
    println!("{}", coverage.table());
    let is_enough = virtual_hours >= REACHED_FROM_HOURS;
    let missed: Vec<String> = coverage.missed().into_iter().chain(coverage.missed_edges()).collect();
    let missed = if is_enough { missed } else { Vec::new() };
    missed.iter().for_each(|what| println!("NEVER REACHED {what}"));
    let took = began.elapsed().as_secs_f64();
    println!(
        "{} seeds passed, {failed} failed; {virtual_hours:.0} virtual hours in {took:.1} s, {:.1} seeds/s",
        arguments.seeds - failed,
        arguments.seeds as f64 / took,
    );
    if failed == 0 && missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn hours_of(scenario: &Scenario) -> f64 {
    scenario.ends().1.num_seconds() as f64 / 3_600.0
}

/// Runs the seeds, shared out over a thread a core; each seed has its actors' System for itself.
fn shared_out(arguments: &Arguments) -> impl Iterator<Item = (u64, Result<Report, String>)> + use<> {
    let (first, seeds, hours) = (arguments.first, arguments.seeds, arguments.hours);
    let taken = std::sync::Arc::new(AtomicU64::new(0));
    let (reports, done) = mpsc::channel();
    for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        let (taken, reports) = (std::sync::Arc::clone(&taken), reports.clone());
        std::thread::spawn(move || {
            loop {
                let number = taken.fetch_add(1, Ordering::Relaxed);
                if number >= seeds {
                    return;
                }
                let seed = first.saturating_add(number);
                let report = catch_unwind(|| run(&scenario(seed, hours, false)));
                if reports.send((seed, report.map_err(|panic| said(panic.as_ref())))).is_err() {
                    return;
                }
            }
        });
    }
    done.into_iter()
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a word"))
}
