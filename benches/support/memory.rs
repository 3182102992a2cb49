//! What the kernel says of a process's memory, in MiB.

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs;

/// See the module.
pub struct Memory(HashMap<String, f64>);

impl Memory {
    /// That of a process.
    pub fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("{path} could not be read"))?;
        let lines = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let kib: f64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some((name.to_owned(), kib / 1024.0))
        });
        Ok(Self(lines.collect()))
    }

    /// A line of it, such as `Rss`.
    pub fn get(&self, name: &str) -> Result<f64> {
        self.0.get(name).copied().with_context(|| format!("the kernel does not tell {name}"))
    }
}
