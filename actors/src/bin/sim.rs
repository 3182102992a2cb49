//! The simulation as a program: many seeds, or one with its trace.

use meeboter_actors::testing::simulation::{Scenario, run};
use std::collections::BTreeMap;
use std::process::ExitCode;

const USAGE: &str = "usage: meeboter-sim [--seeds N] [--first SEED] | --seed SEED [--trace]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| -> Result<Option<u64>, String> {
        let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
        let value = arguments.get(at + 1).ok_or_else(|| format!("{name} takes a number"))?;
        value.parse().map(Some).map_err(|_| format!("{name} takes a number, not {value:?}"))
    };
    let parsed = (|| Ok::<_, String>((number("--seed")?, number("--seeds")?, number("--first")?)))();
    match parsed {
        Ok((Some(seed), _, _)) => one(seed, arguments.iter().any(|argument| argument == "--trace")),
        Ok((None, seeds, first)) => many(first.unwrap_or(1), seeds.unwrap_or(200)),
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let report = run(&Scenario::drawn(seed));
    if trace {
        report.trace.iter().for_each(|line| println!("{line}"));
    }
    report.violations.iter().for_each(|what| println!("VIOLATION {what}"));
    println!("seed {seed}: {} boundaries, {} violations", report.boundaries, report.violations.len());
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(first: u64, seeds: u64) -> ExitCode {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in first..first.saturating_add(seeds) {
        let report = run(&Scenario::drawn(seed));
        for (what, count) in report.counts {
            *counts.entry(what).or_default() += count;
        }
        if let Some(violation) = report.violations.first() {
            println!("seed {seed}: {violation}\n  replay: ./dev sim --seed {seed} --trace");
            failed.push(seed);
        }
    }
    println!("reached:");
    counts.iter().for_each(|(what, count)| println!("{count:>9}  {what}"));
    println!("{} seeds passed, {} failed", seeds - failed.len() as u64, failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
