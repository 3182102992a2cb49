//! What the benchmarks share: the server as a process of its own in a folder that is thrown away, its private
//! PostgreSQL, the actors inside the benchmark, and how figures are told.

// Whoever reads a benchmark reads this too; nobody else uses it.
#![allow(missing_docs, reason = "not a library for others")]

pub mod bare;
pub mod cpu;
pub mod engine;
pub mod figures;
pub mod grants;
pub mod memory;
pub mod observed_store;
pub mod open_loop;
pub mod peer;
pub mod postgres;
pub mod samples;
pub mod server;
pub mod steady;
pub mod workbench;

use std::io::Write;

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Says on standard error what is going on.
pub fn progress(what: &str) {
    let mut out = std::io::stderr().lock();
    // Nobody reads it: nothing is lost.
    let _ = writeln!(out, "… {what}");
}

/// The line that a run is judged by.
pub fn verdict(passed: bool, sentence: &str) {
    println!("{}: {sentence}", if passed { "PASS" } else { "FAIL" });
}
