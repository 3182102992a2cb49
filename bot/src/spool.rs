//! The spool: a folder in which the recorder leaves finished pieces and the uploader takes them away.
//!
//! `<run>/000000-init.mp4`, `<run>/000001.m4s` … as in the keys of the recording, and `<run>/list.m3u8`, the recorder's
//! own list: a segment is finished once it is listed there.

use std::io;
use std::path::{Path, PathBuf};

use meeboter_bot::{SegmentPart, segment_key, segment_prefix};

/// Most bytes that wait here for a server.
pub(crate) const SPOOL_MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// The recorder's list in a run's folder.
pub(crate) const LIST_FILE: &str = "list.m3u8";
/// Highest number of a run; its folder has three digits.
const RUN_MAX: u32 = 999;

/// One finished piece on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The recorder's run.
    pub(crate) run: u32,
    /// Which piece of it.
    pub(crate) part: SegmentPart,
    /// The file.
    pub(crate) path: PathBuf,
}

/// The spool of one bot.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    root: PathBuf,
}

impl Spool {
    /// Opens the spool in `root`, which is made where it is missing.
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&root)?;
        Ok(Self { root })
    }

    /// Makes the folder of the next run; `None` after the last number.
    pub(crate) fn begin_run(&self) -> io::Result<Option<(u32, PathBuf)>> {
        let run = self.runs()?.last().map_or(1, |last| last + 1);
        if run > RUN_MAX {
            return Ok(None);
        }
        let folder = self.root.join(format!("{run:03}"));
        std::fs::create_dir(&folder)?;
        Ok(Some((run, folder)))
    }

    /// All finished pieces that are still here, in the order of their upload.
    pub(crate) fn finished(&self) -> io::Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        for run in self.runs()? {
            let folder = self.root.join(format!("{run:03}"));
            let list = match std::fs::read_to_string(folder.join(LIST_FILE)) {
                Ok(list) => list,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let indices = listed(&list);
            if indices.is_empty() {
                continue;
            }
            let media = indices.into_iter().map(|index| SegmentPart::Media { index });
            for part in std::iter::once(SegmentPart::Init).chain(media) {
                let path = folder.join(file_name(part));
                if path.exists() {
                    pieces.push(Piece { run, part, path });
                }
            }
        }
        Ok(pieces)
    }

    /// Bytes that lie here, finished or not.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        let mut sum = 0;
        for run in self.runs()? {
            for entry in std::fs::read_dir(self.root.join(format!("{run:03}")))? {
                // A file that was taken away meanwhile no longer counts.
                sum += entry?.metadata().map_or(0, |metadata| metadata.len());
            }
        }
        Ok(sum)
    }

    fn runs(&self) -> io::Result<Vec<u32>> {
        let mut runs = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            runs.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        runs.sort_unstable();
        Ok(runs)
    }
}

/// The file of a piece within its run's folder: the end of its object key.
pub(crate) fn file_name(part: SegmentPart) -> String {
    let key = segment_key(0, 0, 1, part);
    let within = key.strip_prefix(&segment_prefix(0, 0)).unwrap_or(&key);
    Path::new(within).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The numbers of the segments in an HLS list.
fn listed(list: &str) -> Vec<u32> {
    let lines = list.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.strip_suffix(".m4s")?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_list_names_is_finished() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let spool = Spool::open(folder.path().join("spool")).expect("spool");
        let (run, path) = spool.begin_run().expect("folder").expect("first run");
        assert_eq!(run, 1);
        for name in ["000000-init.mp4", "000001.m4s", "000002.m4s", "000003.m4s.tmp"] {
            std::fs::write(path.join(name), "0123456789").expect("file");
        }
        assert_eq!(spool.finished().expect("spool"), []);
        let list = "#EXTM3U\n#EXT-X-MAP:URI=\"000000-init.mp4\"\n#EXTINF:4.0,\n000001.m4s\n";
        std::fs::write(path.join(LIST_FILE), list).expect("list");
        let parts: Vec<SegmentPart> =
            spool.finished().expect("spool").into_iter().map(|piece| piece.part).collect();
        assert_eq!(parts, [SegmentPart::Init, SegmentPart::Media { index: 1 }]);
        assert_eq!(spool.bytes().expect("spool"), 40 + list.len() as u64);

        std::fs::remove_file(path.join("000000-init.mp4")).expect("taken away");
        let parts: Vec<SegmentPart> =
            spool.finished().expect("spool").into_iter().map(|piece| piece.part).collect();
        assert_eq!(parts, [SegmentPart::Media { index: 1 }]);
        assert_eq!(spool.begin_run().expect("folder").map(|(run, _)| run), Some(2));
    }

    #[test]
    fn files_are_named_like_the_keys() {
        assert_eq!(file_name(SegmentPart::Init), "000000-init.mp4");
        assert_eq!(file_name(SegmentPart::Media { index: 12 }), "000012.m4s");
    }
}
