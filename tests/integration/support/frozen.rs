//! Processes that are stopped in their tracks, as on a machine that hangs, and go on when this is dropped.

use super::server::{pids, signal};
use rustix::process::Signal;
use std::fs;
use std::path::Path;

/// See the module.
pub(crate) struct Frozen(Vec<i32>);

impl Frozen {
    /// Freezes every PostgreSQL process of a cluster: the one that makes others first.
    pub(crate) fn cluster(folder: &Path, postmaster: i32) -> Self {
        let mut frozen = Self(Vec::new());
        frozen.add(postmaster);
        // Listed again until a listing shows nobody new: a child may have been on its way.
        loop {
            let new: Vec<i32> =
                cluster_pids(folder).into_iter().filter(|pid| !frozen.0.contains(pid)).collect();
            if new.is_empty() {
                return frozen;
            }
            new.into_iter().for_each(|pid| frozen.add(pid));
        }
    }

    /// Freezes one process.
    pub(crate) fn process(pid: i32) -> Self {
        let mut frozen = Self(Vec::new());
        frozen.add(pid);
        frozen
    }

    fn add(&mut self, pid: i32) {
        signal(pid, Signal::STOP);
        self.0.push(pid);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.iter().for_each(|pid| signal(*pid, Signal::CONT));
    }
}

/// PostgreSQL's processes that stand in a cluster's folder.
pub(crate) fn cluster_pids(folder: &Path) -> Vec<i32> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let stands_there =
        |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place == folder);
    pids().filter(stands_there).collect()
}
