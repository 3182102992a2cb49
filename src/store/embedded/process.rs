//! PostgreSQL's processes on this host, told by what they are (`postgres`) and where they stand (in the cluster's
//! folder), so that a pid that now belongs to somebody else is never mistaken for ours.

use rustix::process::{Pid, Signal, kill_process};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The cluster's processes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Processes {
    /// None are left.
    None,
    /// The one that its pid file names runs.
    Postmaster(i32),
    /// That one is gone; some of its children are still ending.
    Orphans(Vec<i32>),
}

/// Looks at what runs in `cluster`.
pub(super) fn look(cluster: &Path) -> Processes {
    let named = pid_in_file(cluster);
    if let Some(pid) = named.filter(|pid| is_in(cluster, *pid)) {
        return Processes::Postmaster(pid);
    }
    let orphans: Vec<i32> = all_pids().filter(|pid| is_in(cluster, *pid)).collect();
    if orphans.is_empty() { Processes::None } else { Processes::Orphans(orphans) }
}

/// The pid in `postmaster.pid`.
pub(super) fn pid_in_file(cluster: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(pid_file(cluster)).ok()?;
    text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 0)
}

pub(super) fn pid_file(cluster: &Path) -> PathBuf {
    cluster.join("postmaster.pid")
}

/// Whether some process has this pid.
pub(super) fn is_alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Sends a signal to a postmaster that was seen just now.
pub(super) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // One that is gone meanwhile is what the caller looks for next.
        let _ = kill_process(pid, signal);
    }
}

fn all_pids() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process that has ended but was not reaped has no working folder, and does not count. Where we may not see another
/// user's working folder (root in a container has no `CAP_SYS_PTRACE`), the postmaster is told by its command line; its
/// children cannot be told then, and a new postmaster refuses to start beside them.
fn is_in(cluster: &Path, pid: i32) -> bool {
    let is_there = match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(folder) => folder == cluster,
        Err(error) => error.kind() == ErrorKind::PermissionDenied && is_started_on(cluster, pid),
    };
    is_there
        && std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "postgres")
}

/// Whether the command line says `-D <cluster>`.
fn is_started_on(cluster: &Path, pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    arguments.windows(2).any(|pair| pair == [b"-D", cluster.as_os_str().as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn a_postmaster_is_told_by_its_command_line_where_its_folder_cannot_be_seen() {
        let mut child = Command::new("sh")
            .args(["-c", "echo; read -r _", "sh", "-D", "/srv/cluster"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh runs");
        // Its command line is there only when it runs, a moment after it was spawned.
        let said = child.stdout.as_mut().expect("a pipe").read(&mut [0]).expect("sh speaks");
        assert_eq!(said, 1);
        let pid = i32::try_from(child.id()).expect("a pid");
        let (ours, another) = (Path::new("/srv/cluster"), Path::new("/srv/clus"));
        let told = (is_started_on(ours, pid), is_started_on(another, pid));
        drop(child.stdin.take());
        child.wait().expect("sh ends");
        assert_eq!(told, (true, false));
    }
}
