//! What a listing of segments means. Pure.

use std::collections::BTreeMap;
use std::path::Path;

/// An object under the prefix of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its key.
    pub(super) key: String,
    /// Its size.
    pub(super) bytes: u64,
}

/// What one run of the recorder left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Run {
    /// Comes first; without it nothing of the run can be played.
    pub(super) init: Option<Listed>,
    /// In playing order. One that is missing leaves a gap in time, not the end: each carries its own.
    pub(super) media: Vec<Listed>,
}

impl Run {
    /// All pieces, in the order of the file they make.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Listed> {
        self.init.iter().chain(&self.media)
    }
}

/// Sorts a listing into runs; what has no place in a recording is left out.
pub(super) fn runs_of(prefix: &str, listed: Vec<Listed>) -> BTreeMap<u32, Run> {
    let mut runs: BTreeMap<u32, (Option<Listed>, BTreeMap<u32, Listed>)> = BTreeMap::new();
    for object in listed {
        let Some((run, part)) = place_of(prefix, &object.key) else { continue };
        let (init, media) = runs.entry(run).or_default();
        match part {
            Part::Init => *init = Some(object),
            Part::Media(index) => drop(media.insert(index, object)),
        }
    }
    let run = |(init, media): (_, BTreeMap<_, _>)| Run { init, media: media.into_values().collect() };
    runs.into_iter().map(|(number, parts)| (number, run(parts))).collect()
}

/// Whether a key is that of a media segment.
pub(super) fn is_media(prefix: &str, key: &str) -> bool {
    matches!(place_of(prefix, key), Some((_, Part::Media(_))))
}

/// The key of a piece that a bot left in a file; `None` where the file is no finished piece.
pub(super) fn piece_key(prefix: &str, run: u32, file: &Path) -> Option<String> {
    let key = format!("{prefix}{run:03}/{}", file.file_name()?.to_str()?);
    place_of(prefix, &key).map(|_| key)
}

enum Part {
    Init,
    Media(u32),
}

fn place_of(prefix: &str, key: &str) -> Option<(u32, Part)> {
    let (run, name) = key.strip_prefix(prefix)?.split_once('/')?;
    let part = match name.strip_suffix(".m4s") {
        Some(index) => Part::Media(index.parse().ok()?),
        None if name == "000000-init.mp4" => Part::Init,
        None => return None,
    };
    Some((run.parse().ok()?, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meeboter_bot::{SegmentPart, segment_key, segment_prefix};

    fn listed(key: String) -> Listed {
        Listed { key, bytes: 1 }
    }

    #[test]
    fn runs_are_in_playing_order_whatever_the_listing_says() {
        let prefix = segment_prefix(7, 2);
        let media = |run, index| segment_key(7, 2, run, SegmentPart::Media { index });
        let init = |run| segment_key(7, 2, run, SegmentPart::Init);
        let keys = [media(1, 1_000_001), media(1, 2), media(2, 1), init(1), media(1, 999_999)];
        let mut all: Vec<Listed> = keys.into_iter().map(listed).collect();
        all.push(listed(format!("{prefix}001/list.m3u8")));
        all.push(listed(format!("{prefix}x/000001.m4s")));
        let runs = runs_of(&prefix, all);
        let order: Vec<&str> = runs[&1].pieces().map(|piece| piece.key.as_str()).collect();
        assert_eq!(order, [init(1), media(1, 2), media(1, 999_999), media(1, 1_000_001)]);
        assert_eq!((runs.len(), &runs[&2].init), (2, &None));
    }

    #[test]
    fn only_media_counts() {
        let prefix = segment_prefix(7, 2);
        let file = |name: &str| piece_key(&prefix, 2, Path::new("/spool/002").join(name).as_path());
        assert_eq!(file("000010.m4s"), Some(segment_key(7, 2, 2, SegmentPart::Media { index: 10 })));
        assert_eq!(file("000000-init.mp4"), Some(segment_key(7, 2, 2, SegmentPart::Init)));
        assert_eq!((file("000011.m4s.tmp"), file("list.m3u8")), (None, None));
        assert!(is_media(&prefix, &segment_key(7, 2, 1, SegmentPart::Media { index: 1 })));
        assert!(!is_media(&prefix, &segment_key(7, 2, 1, SegmentPart::Init)));
        assert!(!is_media(&prefix, &segment_key(7, 21, 1, SegmentPart::Media { index: 1 })));
    }
}
