//! The image of the scripted bot: one static program, built from `bot.rs` once a run of the tests.

use super::dockerd::Dockerd;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// What the bot can be told to do; each is an image of its own.
pub(crate) const SCRIPTS: [&str; 4] = ["attend", "stay", "fail", "record"];

/// The reference of a script's image on an engine that got them all. Its registry is nobody: such an image is either on
/// the host or nowhere.
pub(crate) fn reference(script: &str) -> String {
    format!("127.0.0.1:1/scripted-bot:{script}")
}

/// Gives an engine the image of every script.
pub(crate) fn import_all(dockerd: &Dockerd) {
    for script in SCRIPTS {
        import(dockerd, &reference(script), script);
    }
}

/// Gives an engine the image of a script under a name.
pub(crate) fn import(dockerd: &Dockerd, reference: &str, script: &str) {
    let command = format!("CMD [\"/bot\", \"{script}\"]");
    dockerd.run(&["import", "--change", &command, &archive().display().to_string(), reference]);
}

/// The program itself; it goes with the process.
pub(crate) fn program() -> PathBuf {
    archive().with_file_name("bot")
}

/// An archive of the program; it goes with the process.
pub(crate) fn archive() -> &'static Path {
    static ARCHIVE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bot.tar");
        let mut archive = tar::Builder::new(File::create(&path).unwrap());
        archive.append_path_with_name(build(folder.path()), "bot").unwrap();
        archive.finish().unwrap();
        (folder, path)
    };
    &ARCHIVE.get_or_init(make).1
}

fn build(folder: &Path) -> PathBuf {
    let (source, program) = (folder.join("bot.rs"), folder.join("bot"));
    std::fs::write(&source, include_str!("bot.rs")).unwrap();
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "opt-level=1", "-o"]);
    let output = rustc.arg(&program).arg(&source).output().expect("rustc, beside cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}
