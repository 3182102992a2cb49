//! What the benchmarks share: the server as a process of its own in a folder that is thrown away, its private
//! PostgreSQL, and how figures are told.
#![allow(dead_code, reason = "every benchmark uses its part")]

pub(crate) mod engine;
pub(crate) mod figures;
pub(crate) mod postgres;
pub(crate) mod server;
pub(crate) mod watched_store;

use std::io::Write;

/// Says on standard error what is going on.
pub(crate) fn progress(what: &str) {
    let mut out = std::io::stderr().lock();
    // Nobody reads it: nothing is lost.
    let _ = writeln!(out, "… {what}");
}

/// The line that a run is judged by.
pub(crate) fn verdict(passed: bool, sentence: &str) {
    println!("{}: {sentence}", if passed { "PASS" } else { "FAIL" });
}
