//! What the kernel says that a process has used.

use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// The time between two of the kernel's ticks, on every Linux of today (`getconf CLK_TCK`).
const TICK: Duration = Duration::from_millis(10);

/// The processor time of a process so far, in user and in kernel mode.
pub fn used(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("{path} could not be read"))?;
    // The name may hold spaces; what follows it does not. Fields 14 and 15 of proc(5).
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let [user, system] =
        [11, 12].map(|index| fields.get(index).and_then(|field| field.parse::<u32>().ok()).unwrap_or(0));
    Ok(TICK * (user + system))
}
