//! What the images are built from where no registry can be asked: a Debian of the test's own, made once and kept outside of
//! the clone, and in place of Rust's image one whose cargo has compiled already.

use crate::support::dockerd::Dockerd;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian as the Dockerfile wants it, by the name that it wants it by.
pub(super) const DEBIAN: &str = "debian:trixie-slim";
/// What stands in for Rust's image.
pub(super) const RUST: &str = "meeboter-test/rust";
/// How Debian is made; another script makes another archive.
const SCRIPT: &str = include_str!("debian.sh");
/// Takes the place of cargo: sees that it is asked for what is shipped, and hands out what is compiled.
const CARGO: &str = r#"#!/bin/sh
set -eu
[ "$*" = "build --release --locked --package meeboter --package meeboter-bot --bins" ]
ls Cargo.toml Cargo.lock actors benches bot config dashboard migrations src >/dev/null
[ ! -e .git ] && [ ! -e tests ] && [ ! -e docs ]
mkdir -p target/release
cp /compiled/* target/release/
"#;

/// Tells whoever waits for the tests: this takes its time.
pub(super) fn say(what: &str) {
    let _ = writeln!(io::stderr(), "shipping: {what}");
}

/// Gives an engine both.
pub(super) fn import(dockerd: &Dockerd) {
    dockerd.run(&["import", &debian().display().to_string(), DEBIAN]);
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let server = Path::new(env!("CARGO_BIN_EXE_meeboter"));
    for (program, name) in [(server, "meeboter"), (&server.with_file_name("meeboter-bot"), "meeboter-bot")] {
        // As they are shipped: without what debuggers read.
        let stripped = Command::new("strip").arg(program).arg("-o").arg(place(name)).status();
        assert!(stripped.unwrap().success(), "{} is not there: build the workspace", program.display());
    }
    fs::write(place("cargo"), CARGO).unwrap();
    let dockerfile = format!(
        "FROM {DEBIAN}\nCOPY meeboter meeboter-bot /compiled/\nCOPY cargo /usr/local/bin/\nRUN chmod 755 /usr/local/bin/cargo\n"
    );
    fs::write(place("Dockerfile"), dockerfile).unwrap();
    dockerd.run(&["build", "--quiet", "--network=host", "--tag", RUST, &folder.path().display().to_string()]);
}

/// The archive of Debian, made where it is missing.
fn debian() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty());
    let cache =
        cache.map_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
    let (_, suite) = DEBIAN.split_once(':').unwrap();
    let suite = suite.trim_end_matches("-slim");
    let version = SCRIPT.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    let archive = cache.join("meeboter").join(format!("debian-{suite}-{version:08x}.tar"));
    if !archive.exists() {
        say(&format!("making {DEBIAN} (a minute) …"));
        let made =
            Command::new("sh").args(["-c", SCRIPT, "debian.sh", suite]).arg(&archive).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    }
    archive
}
