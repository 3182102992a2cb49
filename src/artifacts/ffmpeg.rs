//! ffmpeg and ffprobe: low in priority, with a deadline, ended with whoever waits for them.

use super::Failure;
use rustix::process::Signal;
use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Copying a recording is as fast as the disk.
const DEADLINE: Duration = Duration::from_secs(20 * 60);
/// The bots on this host come first.
const NICENESS: &str = "15";
/// The status with which ffmpeg ends after a signal that asked it to.
const ENDED_BY_SIGNAL: i32 = 255;
/// What the C library says of a full disk.
const NO_ROOM: &str = "No space left on device";
/// How much of a program's last words is kept.
const TAIL_BYTES: usize = 2 * 1024;

/// Rewrites fragmented MP4 as a plain one.
pub(super) async fn remux(input: &Path, output: &Path) -> Result<(), Failure> {
    // The format is stated and nothing but files is opened: what was uploaded decides nothing here.
    let mut command = ffmpeg();
    command.args(["-f", "mov", "-i"]).arg(input);
    copy(command, output).await
}

/// Joins plain MP4 files, named in a list for the concat demuxer, into one.
pub(super) async fn concat(list: &Path, output: &Path) -> Result<(), Failure> {
    let mut command = ffmpeg();
    command.args(["-f", "concat", "-safe", "0", "-i"]).arg(list);
    copy(command, output).await
}

fn ffmpeg() -> Command {
    let mut command = niced("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y", "-protocol_whitelist", "file"]);
    command
}

async fn copy(mut command: Command, output: &Path) -> Result<(), Failure> {
    command.args(["-map", "0", "-c", "copy", "-movflags", "+faststart"]).arg(output);
    run("ffmpeg", command).await.map(|_| ())
}

/// The length of a file.
pub(super) async fn duration_ms(file: &Path) -> Result<i64, Failure> {
    let mut command = niced("ffprobe");
    command.args(["-v", "error", "-protocol_whitelist", "file", "-show_entries", "format=duration"]);
    command.args(["-of", "default=noprint_wrappers=1:nokey=1"]).arg(file);
    let said = run("ffprobe", command).await?;
    match said.trim().parse::<f64>() {
        Ok(seconds) if seconds.is_finite() => Ok(Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|duration| i64::try_from(duration.as_millis()).ok())
            .unwrap_or_default()),
        _ => Err(Failure::ProgramFailed { program: "ffprobe", status: "no duration".to_owned(), tail: said }),
    }
}

fn niced(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", NICENESS]).arg(program).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // A terminal's signals are for the server, which lives on after a hangup.
    command.process_group(0);
    command
}

async fn run(program: &'static str, mut command: Command) -> Result<String, Failure> {
    let failed = |source| Failure::Program { program, source };
    let mut child = command.spawn().map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let all = async { tokio::join!(last_words(stdout), last_words(stderr), child.wait()) };
    let Ok((said, errors, status)) = tokio::time::timeout(DEADLINE, all).await else {
        return Err(Failure::Late { what: program, limit: DEADLINE });
    };
    let status = status.map_err(failed)?;
    if status.success() { Ok(said) } else { Err(failure(program, status, errors)) }
}

/// What the end of a program means: one that somebody ended, as the system does for its memory, or that found the disk
/// full, does better another time. One that crashes by itself does it again.
fn failure(program: &'static str, ended: ExitStatus, tail: String) -> Failure {
    let status = ended.to_string();
    let by_somebody = [Signal::HUP, Signal::INT, Signal::TERM, Signal::KILL];
    let was_ended = by_somebody.iter().any(|signal| ended.signal() == Some(signal.as_raw()));
    if was_ended || ended.code() == Some(ENDED_BY_SIGNAL) || tail.contains(NO_ROOM) {
        Failure::ProgramStopped { program, status, tail }
    } else {
        Failure::ProgramFailed { program, status, tail }
    }
}

/// Reads what a program says to the end, and keeps the last of it.
pub(crate) async fn last_words(source: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    if let Some(mut source) = source {
        let mut chunk = [0; TAIL_BYTES];
        while let Ok(read @ 1..) = source.read(&mut chunk).await {
            kept.extend_from_slice(&chunk[..read]);
            kept.drain(..kept.len().saturating_sub(TAIL_BYTES));
        }
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ended(script: &str) -> Failure {
        let mut command = niced("sh");
        command.args(["-c", script]);
        run("sh", command).await.expect_err("fails")
    }

    #[tokio::test]
    async fn what_was_killed_or_had_no_room_may_do_better_another_time() {
        for script in [
            "kill -9 $$",
            "kill -TERM $$",
            "exit 255",
            "echo 'av_interleaved_write_frame(): No space left on device' >&2; exit 228",
        ] {
            let failure = ended(script).await;
            assert!(failure.is_retryable(), "{failure}");
        }
        // A shell may have been told to ignore these.
        for signal in [Signal::HUP, Signal::INT] {
            let failure = failure("sh", ExitStatus::from_raw(signal.as_raw()), String::new());
            assert!(failure.is_retryable(), "{failure}");
        }
        let failure = ended("echo 'Invalid data found when processing input' >&2; exit 183").await;
        assert!(!failure.is_retryable(), "{failure}");
    }
}
