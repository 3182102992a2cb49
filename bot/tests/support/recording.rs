//! Joins uploaded segments and measures the recording.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A joined recording.
pub(crate) struct Recording {
    file: PathBuf,
    _folder: TempDir,
}

impl Recording {
    /// Joins the pieces of run 1. With `KEEP_RECORDINGS=<folder>` a copy stays there, to be looked at.
    pub(crate) fn join(objects: &BTreeMap<String, Vec<u8>>, name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let raw = folder.path().join("raw.mp4");
        let bytes: Vec<u8> = objects.values().flatten().copied().collect();
        std::fs::write(&raw, bytes).expect("the joined pieces");
        let file = folder.path().join(format!("{name}.mp4"));
        let copy = ["-map", "0", "-c", "copy", "-movflags", "+faststart", "-y"];
        ffmpeg(&raw, &copy, Some(&file));
        if let Some(keep) = std::env::var_os("KEEP_RECORDINGS") {
            std::fs::copy(&file, Path::new(&keep).join(format!("{name}.mp4"))).expect("a copy");
        }
        Self { file, _folder: folder }
    }

    /// Length in seconds of the `v`ideo or `a`udio stream.
    pub(crate) fn length_s(&self, stream: &str) -> f64 {
        let arguments =
            ["-v", "error", "-select_streams", stream, "-show_entries", "stream=duration", "-of", "csv=p=0"];
        let output = Command::new("ffprobe").args(arguments).arg(&self.file).output().expect("ffprobe");
        let text = String::from_utf8_lossy(&output.stdout).trim().trim_end_matches(',').to_owned();
        text.parse().unwrap_or_else(|_| {
            panic!("no {stream} stream: {text:?} {}", String::from_utf8_lossy(&output.stderr))
        })
    }

    /// How many different pictures it has.
    pub(crate) fn pictures(&self) -> usize {
        let output = ffmpeg(&self.file, &["-map", "0:v", "-f", "framemd5"], None);
        let text = String::from_utf8_lossy(&output).into_owned();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.rsplit(',').next()).collect::<BTreeSet<_>>().len()
    }

    /// Amplitude (0 to 1) of a frequency in each whole half second.
    pub(crate) fn amplitudes(&self, frequency_hz: f64) -> Vec<f64> {
        const RATE: usize = 8_000;
        let bytes =
            ffmpeg(&self.file, &["-map", "0:a", "-af", "pan=mono|c0=c0", "-ar", "8000", "-f", "f32le"], None);
        let samples: Vec<f64> = bytes
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]).into())
            .collect();
        samples.chunks_exact(RATE / 2).map(|window| goertzel(window, frequency_hz, RATE as f64)).collect()
    }
}

fn ffmpeg(input: &Path, arguments: &[&str], output: Option<&Path>) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-i"]).arg(input).args(arguments);
    command.arg(output.unwrap_or(Path::new("-")));
    let output = command.output().expect("ffmpeg");
    assert!(output.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The amplitude of one frequency in some samples.
fn goertzel(samples: &[f64], frequency_hz: f64, rate_hz: f64) -> f64 {
    let omega = 2.0 * std::f64::consts::PI * frequency_hz / rate_hz;
    let (mut real, mut imaginary) = (0.0, 0.0);
    for (index, sample) in samples.iter().enumerate() {
        let angle = omega * index as f64;
        real += sample * angle.cos();
        imaginary += sample * angle.sin();
    }
    2.0 * (real * real + imaginary * imaginary).sqrt() / samples.len() as f64
}
