//! The running program, in a session of its own so that everything it started can be found.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use meeboter_bot::{
    ENV_SERVER, ENV_SLOT, ENV_TOKEN, ENV_WHEN_DONE, ENV_WORK_DIR, EXIT_NOTE_FILE, ExitNote, SPOOL_DIR,
};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::server::SLOT_TOKEN;
use super::wait_for;

/// The program; killed with everything it started when dropped.
pub(crate) struct Running {
    child: Child,
    work_dir: TempDir,
}

impl Running {
    /// Starts it for the server at `port`.
    pub(crate) fn start(port: u16, when_done: &str) -> Self {
        let work_dir = tempfile::tempdir().expect("a work folder");
        let log = std::fs::File::create(work_dir.path().join("log")).expect("a log file");
        let child = Command::new("setsid")
            .arg(env!("CARGO_BIN_EXE_meeboter-bot"))
            .env(ENV_SLOT, "6f1d3f0e-8a50-4dd7-9d0a-111111111111")
            .env(ENV_SERVER, format!("http://127.0.0.1:{port}/"))
            .env(ENV_TOKEN, SLOT_TOKEN)
            .env(ENV_WORK_DIR, work_dir.path())
            .env(ENV_WHEN_DONE, when_done)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        Self { child, work_dir }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("the program runs");
    }

    pub(crate) fn has_exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// Kills those of the program's children that have this name and this in their command line.
    pub(crate) fn kill(&self, name: &str, argument: &str) {
        let company = self.company();
        let has_argument = |pid: i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(argument)
        };
        let victims: Vec<i32> = company
            .iter()
            .filter(|(pid, found)| found.ends_with(name) && has_argument(*pid))
            .map(|(pid, _)| *pid)
            .collect();
        assert!(!victims.is_empty(), "no {name} {argument} among {company:?}");
        for pid in victims.into_iter().filter_map(Pid::from_raw) {
            // One may have gone with another.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }

    /// Waits for the exit and gives its code.
    pub(crate) fn exit_code(&mut self, limit: Duration) -> Option<i32> {
        wait_for("the program's exit", limit, || self.child.try_wait().expect("a child")).code()
    }

    pub(crate) fn exit_note(&self) -> ExitNote {
        let bytes = std::fs::read(self.work_dir.path().join(EXIT_NOTE_FILE)).expect("an exit note");
        serde_json::from_slice(&bytes).expect("an exit note")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.work_dir.path().join("log")).unwrap_or_default()
    }

    /// Takes the spool away, or puts it back: nothing in it can be read or written meanwhile.
    pub(crate) fn hide_spool(&self, hidden: bool) {
        let (there, away) = (self.work_dir.path().join(SPOOL_DIR), self.work_dir.path().join("elsewhere"));
        let (from, to) = if hidden { (there, away) } else { (away, there) };
        std::fs::rename(from, to).expect("a renamed folder");
    }

    /// Pieces that still lie in the spool.
    pub(crate) fn spooled(&self) -> usize {
        fn count(folder: &Path) -> usize {
            let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
            let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            let is_piece =
                |path: &PathBuf| path.extension().is_some_and(|ending| ending == "m4s" || ending == "mp4");
            paths.iter().filter(|path| is_piece(path)).count()
                + paths.iter().filter(|path| path.is_dir()).map(|path| count(path)).sum::<usize>()
        }
        count(&self.work_dir.path().join(SPOOL_DIR))
    }

    /// Everything alive in the program's session, or marked by its environment, but itself.
    pub(crate) fn company(&self) -> Vec<(i32, String)> {
        let session = self.pid();
        let mark = format!("{ENV_WORK_DIR}={}", self.work_dir.path().display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((name, rest)) = stat.rsplit_once(')') else { continue };
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let in_session = fields.get(3).and_then(|field| field.parse().ok()) == Some(session);
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let is_marked = environ.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes());
            if pid != session && fields.first() != Some(&"Z") && (in_session || is_marked) {
                found.push((pid, name.to_owned()));
            }
        }
        found
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the program ----\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for (pid, _) in self.company() {
            let _ = rustix::process::kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL);
        }
    }
}
