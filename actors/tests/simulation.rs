//! The whole actor tree through seeded faults and crashes.

use meeboter_actors::testing::coverage::{Coverage, EXEMPT};
use meeboter_actors::testing::edges::edges;
use meeboter_actors::testing::scenario::Scenario;
use meeboter_actors::testing::simulation::{Report, run};

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

#[test]
fn seeds_of_faults_and_crashes() {
    let mut coverage = Coverage::default();
    // The last ones once failed.
    for seed in (1..=200).chain([244, 400, 993, 2140, 5915]) {
        let report = check(&Scenario::drawn(seed));
        coverage.add(&report.counts, &report.edges);
    }
    assert_eq!(coverage.missed(), Vec::<String>::new(), "never reached; reached:\n{}", coverage.table());
}

#[test]
fn days_of_faults_and_crashes() {
    for seed in 1..=2 {
        check(&Scenario::long(seed, 12));
    }
}

/// An edge that is exempt exists, and has a reason.
#[test]
fn what_is_exempt_is_an_edge() {
    let edges = edges();
    for (edge, why) in EXEMPT {
        assert!(edges.contains(edge) && !why.is_empty(), "{edge}");
    }
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
fn a_silent_bot_is_noticed_whatever_the_clock_does() {
    let mut lost = 0;
    for seed in 1..=5 {
        lost += check(&Scenario::silent(seed)).counts.get("end heartbeat_lost").copied().unwrap_or(0);
    }
    assert!(lost >= 10, "only {lost} bots were lost");
}

#[test]
fn a_crash_at_every_boundary() {
    for prepares in [false, true] {
        let scenario = |crash_at| Scenario { prepares, ..Scenario::quiet(crash_at) };
        let boundaries = check(&scenario(None)).boundaries;
        assert!(boundaries > 50, "only {boundaries} boundaries");
        for boundary in 1..=boundaries {
            check(&scenario(Some(boundary)));
        }
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
