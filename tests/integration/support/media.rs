//! What is in a recording, by the word of ffprobe and ffmpeg.

use serde_json::Value;
use std::io::Write;
use std::process::Command;

/// See the module.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) seconds: f64,
    pub(crate) has_picture: bool,
    pub(crate) has_sound: bool,
    /// What a player that plays all of it complains about.
    pub(crate) complaints: String,
}

impl Media {
    /// Looks into a file of these bytes, and plays it.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let probe = Command::new("ffprobe")
            .args(["-v", "error", "-show_entries", "stream=codec_type:format=duration", "-of", "json"])
            .arg(file.path())
            .output()
            .unwrap();
        let found: Value = serde_json::from_slice(&probe.stdout).unwrap();
        let streams = found["streams"].as_array().cloned().unwrap_or_default();
        let has = |kind: &str| streams.iter().any(|stream| stream["codec_type"] == kind);
        let play = Command::new("ffmpeg")
            .args(["-v", "error", "-i"])
            .arg(file.path())
            .args(["-f", "null", "-"])
            .output()
            .unwrap();
        Self {
            seconds: found["format"]["duration"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0.0),
            has_picture: has("video"),
            has_sound: has("audio"),
            complaints: String::from_utf8_lossy(&play.stderr).into_owned(),
        }
    }
}
