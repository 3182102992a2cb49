//! Looking into a recording: its streams, its length, and whether the tone is there.

use super::{DemoError, tone};
use serde::Deserialize;
use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use thiserror::Error;
use tokio::process::Command;
use tokio::time::timeout;

const TOOL_LIMIT: Duration = Duration::from_secs(30);
/// Longest piece that is listened to, in seconds.
const LISTEN_S: &str = "120";
/// How far the length may be from what the events say.
const LENGTH_TOLERANCE_S: f64 = 2.0;
/// The tone has to be heard in this part of the time: the guests come a moment after the bot.
const TONE_SHARE_MIN: f64 = 0.5;

/// A tool could not look.
#[derive(Debug, Error)]
pub(super) enum LookError {
    /// It could not be run.
    #[error("{tool} cannot be run on its recording: {detail}")]
    Run {
        /// The tool.
        tool: &'static str,
        /// What it or the system said.
        detail: String,
    },
    /// It said something unexpected.
    #[error("what ffprobe says about its recording cannot be read: {source}")]
    Answer {
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// What is in a recording.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) seconds: Option<f64>,
    has_picture: bool,
    has_sound: bool,
    tone_share: f64,
}

impl Found {
    /// What is wrong, given how long the bot says that it recorded.
    pub(super) fn problems(&self, expected_s: Option<f64>) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.has_picture {
            problems.push("its recording has no picture".to_owned());
        }
        if !self.has_sound {
            problems.push("its recording has no sound".to_owned());
        } else if self.tone_share < TONE_SHARE_MIN {
            let percent = self.tone_share * 100.0;
            problems.push(format!("the tone of 440 Hz is heard in only {percent:.0} % of its recording"));
        }
        match (self.seconds, expected_s) {
            (None, _) => problems.push("its recording has no length".to_owned()),
            (_, None) => problems.push("its events do not say how long it recorded".to_owned()),
            (Some(found), Some(expected)) if (found - expected).abs() > LENGTH_TOLERANCE_S => {
                problems
                    .push(format!("its recording is {found:.1} s long, but it recorded for {expected:.1} s"));
            }
            _ => {}
        }
        problems
    }
}

#[derive(Deserialize)]
struct Probe {
    #[serde(default)]
    streams: Vec<ProbeStream>,
    format: Option<ProbeFormat>,
}

#[derive(Deserialize)]
struct ProbeStream {
    codec_type: Option<String>,
}

#[derive(Deserialize)]
struct ProbeFormat {
    duration: Option<String>,
}

/// Makes sure that the tools are there, before anything is started.
pub(super) async fn find_tools() -> Result<(), DemoError> {
    for tool in ["ffmpeg", "ffprobe"] {
        let mut command = Command::new(tool);
        command.arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().await.map_err(|source| DemoError::Tool { tool, source })?;
    }
    Ok(())
}

/// Measures a recording and listens to it.
pub(super) async fn look_into(path: &Path) -> Result<Found, LookError> {
    let mut probe = Command::new("ffprobe");
    probe
        .args(["-v", "error", "-show_entries", "stream=codec_type:format=duration", "-of", "json"])
        .arg(path);
    let answer = read_probe(&run("ffprobe", probe).await?)?;
    let has = |kind: &str| answer.streams.iter().any(|stream| stream.codec_type.as_deref() == Some(kind));
    let has_sound = has("audio");
    let duration = answer.format.as_ref().and_then(|format| format.duration.as_deref());
    Ok(Found {
        seconds: duration.and_then(|text| text.parse().ok()),
        has_picture: has("video"),
        has_sound,
        tone_share: if has_sound { tone::heard(&tone::samples(&listen(path).await?)) } else { 0.0 },
    })
}

async fn listen(path: &Path) -> Result<Vec<u8>, LookError> {
    let mut decode = Command::new("ffmpeg");
    decode.args(["-v", "error", "-nostdin", "-t", LISTEN_S, "-i"]).arg(path);
    decode.args([
        "-map",
        "0:a:0",
        "-ac",
        "1",
        "-ar",
        &tone::SAMPLE_RATE_HZ.to_string(),
        "-f",
        "s16le",
        "pipe:1",
    ]);
    run("ffmpeg", decode).await
}

async fn run(tool: &'static str, mut command: Command) -> Result<Vec<u8>, LookError> {
    let failed = |detail: String| LookError::Run { tool, detail };
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output: io::Result<Output> =
        timeout(TOOL_LIMIT, command.output()).await.map_err(|_| failed("it does not end".to_owned()))?;
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(failed(words.lines().last().unwrap_or("it says nothing").to_owned()))
}

fn read_probe(bytes: &[u8]) -> Result<Probe, LookError> {
    serde_json::from_slice(bytes).map_err(|source| LookError::Answer { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Found {
        Found { seconds: Some(16.0), has_picture: true, has_sound: true, tone_share: 0.9 }
    }

    #[test]
    fn a_good_recording_has_no_problems() {
        assert_eq!(good().problems(Some(17.9)), Vec::<String>::new());
    }

    #[test]
    fn whatever_is_wrong_is_said() {
        let silent = Found { has_sound: false, tone_share: 0.0, ..good() };
        assert_eq!(silent.problems(Some(16.0)), ["its recording has no sound"]);
        let toneless = Found { tone_share: 0.1, ..good() };
        assert_eq!(
            toneless.problems(Some(16.0)),
            ["the tone of 440 Hz is heard in only 10 % of its recording"]
        );
        assert_eq!(good().problems(Some(20.0)), ["its recording is 16.0 s long, but it recorded for 20.0 s"]);
        let blind = Found { has_picture: false, seconds: None, ..good() };
        assert_eq!(blind.problems(None).len(), 2);
    }

    #[test]
    fn ffprobe_is_understood() {
        let probe = read_probe(
            br#"{"programs": [], "streams": [{"codec_type": "video"}], "format": {"duration": "15.5"}}"#,
        );
        let probe = probe.expect("readable");
        assert_eq!(probe.streams.len(), 1);
        assert_eq!(probe.format.and_then(|format| format.duration).as_deref(), Some("15.5"));
    }
}
