//! The whole actor tree through seeded faults and crashes.

use std::collections::BTreeMap;

use meeboter_actors::testing::simulation::{Report, Scenario, run};

fn check(scenario: &Scenario) -> Report {
    let report = run(scenario);
    let tail = report.trace.len().saturating_sub(60);
    assert!(
        report.violations.is_empty(),
        "{:#?}\nlast lines of the trace:\n{}\nreplay: ./dev sim --seed {} --trace   ({scenario:?})",
        report.violations,
        report.trace[tail..].join("\n"),
        scenario.seed,
    );
    report
}

/// What the drawn scenarios must have reached, or they prove nothing.
const REACHED: &[&str] = &[
    "pull",
    "start goes elsewhere",
    "start declined",
    "engine goes away",
    "engine tells",
    "engine's word interrupted",
    "call to an engine that is away",
    "breaker opens",
    "pull fails",
    "pull hangs",
    "slot panics while committing",
    "crash",
    "commit arrived after crash",
    "commit lost",
    "commit torn",
    "store away",
    "start panics",
    "start hangs",
    "start refused",
    "start torn",
    "stop panics",
    "stop hangs",
    "stop refused",
    "stop torn",
    "look fails",
    "segments not listed",
    "join fails",
    "report doubled",
    "bot crashes",
    "bot falls silent",
    "bot is stubborn",
    "served from the queue",
    "refused at the door",
    "queue full",
    "queue timeout",
    "move taken",
    "move refused",
    "bot reprioritised",
    "leave taken",
    "slot idle",
    "slot deploying",
    "slot busy",
    "slot error",
    "bot QUEUED",
    "bot DEPLOYING",
    "bot JOINING_CALL",
    "bot LEAVING",
    "end meeting_ended",
    "end left_by_request",
    "end cancelled",
    "end queue_timeout",
    "end denied",
    "end deploy_failed",
    "end heartbeat_lost",
    "end crashed",
    "slot retired",
    "bot SCHEDULED",
    "bot moved",
    "handed over",
    "move taken",
    "move too late",
    "scheduled bot cancelled",
    "end start_missed",
    "end internal",
    "image changed",
    "slot drains",
    "grace extended",
    "slot prewarmed",
    "prewarm without its image",
    "prewarm found no room",
    "recover all",
    "drain begun",
    "asked to leave at a drain's deadline",
    "drain ended",
    "Reset taken",
    "Reset refused",
    "Drain taken",
    "Undrain taken",
    "Retire taken",
    "Retire refused",
    "End taken",
    "End refused",
    "scaler grows",
    "scaler retires",
];

#[test]
fn seeds_of_faults_and_crashes() {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    // The last three once failed.
    for seed in (1..=50).chain([993, 2140, 5915]) {
        for (what, count) in check(&Scenario::drawn(seed)).counts {
            *counts.entry(what).or_default() += count;
        }
    }
    let missed: Vec<_> = REACHED.iter().filter(|what| !counts.contains_key(**what)).collect();
    assert!(missed.is_empty(), "never reached: {missed:?}\nreached: {counts:#?}");
}

#[test]
fn a_flood_is_refused_at_once_and_those_let_in_wait_as_long_as_they_asked() {
    for seed in 1..=5 {
        let counts = check(&Scenario::flooded(seed)).counts;
        for (what, least) in [("queue full", 100), ("queue timeout", 5), ("move taken", 5)] {
            let count = counts.get(what).copied().unwrap_or(0);
            assert!(count >= least, "seed {seed}: {what} {count} times, not {least}");
        }
    }
}

#[test]
fn a_crash_at_every_boundary() {
    let boundaries = check(&Scenario::quiet(None)).boundaries;
    assert!(boundaries > 50, "only {boundaries} boundaries");
    for boundary in 1..=boundaries {
        check(&Scenario::quiet(Some(boundary)));
    }
}

#[test]
fn on_a_quiet_day_every_scheduled_bot_is_handed_over_in_time() {
    for seed in 1..=5 {
        let report = check(&Scenario::on_time(seed));
        assert!(report.counts.get("handed over").is_some_and(|count| *count > 30), "{:#?}", report.counts);
        assert_eq!(report.counts.get("handed over late"), None, "{:#?}", report.trace);
        assert_eq!(report.counts.get("end start_missed"), None, "{:#?}", report.trace);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let scenario = Scenario::drawn(11);
    let (first, second) = (run(&scenario).trace, run(&scenario).trace);
    let difference = first.iter().zip(&second).position(|(a, b)| a != b);
    if let Some(at) = difference {
        let from = at.saturating_sub(10);
        panic!("the traces part at line {at}:\n{:#?}\n{:#?}", &first[from..=at + 5], &second[from..=at + 5]);
    }
    assert_eq!(first.len(), second.len());
}

#[test]
fn a_bot_does_not_queue_where_there_is_room() {
    let report = check(&Scenario { clients: 1, ..Scenario::quiet(None) });
    assert_eq!(report.counts.get("bot QUEUED"), None, "{:#?}", report.trace);
    assert!(
        report.counts.contains_key("bot DONE") || report.counts.contains_key("bot FATAL"),
        "{:#?}",
        report.trace
    );
}
