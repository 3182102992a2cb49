//! Whether a piece of fMP4 is whole: a sequence of boxes that ends where the piece ends. A piece that was cut short
//! would swallow the beginning of the next, and with it all the rest.

use std::io::{self, Read, Seek, SeekFrom};

/// The boxes an init section must have.
pub(super) const INIT: [[u8; 4]; 2] = [*b"ftyp", *b"moov"];
/// The boxes a media segment must have.
pub(super) const MEDIA: [[u8; 4]; 2] = [*b"moof", *b"mdat"];
/// More boxes than any piece has.
const BOXES_MAX: u32 = 10_000;

/// Whether the bytes from `start` to `end` are whole boxes, all of `wanted` among them.
pub(super) fn is_whole(
    file: &mut (impl Read + Seek),
    start: u64,
    end: u64,
    wanted: &[[u8; 4]],
) -> io::Result<bool> {
    let mut missing = wanted.to_vec();
    let mut at = start;
    for _ in 0..BOXES_MAX {
        if at == end {
            return Ok(missing.is_empty());
        }
        let Some((name, size)) = header(file, at, end)? else { return Ok(false) };
        missing.retain(|wanted| *wanted != name);
        match at.checked_add(size) {
            Some(next) if next <= end => at = next,
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// Name and size of the box at `at`; `None` where there is no room for one.
fn header(file: &mut (impl Read + Seek), at: u64, end: u64) -> io::Result<Option<([u8; 4], u64)>> {
    let room = end - at;
    if room < 8 {
        return Ok(None);
    }
    let mut head = [0; 8];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut head)?;
    let [s0, s1, s2, s3, n0, n1, n2, n3] = head;
    let size = match u32::from_be_bytes([s0, s1, s2, s3]) {
        // The size follows in 64 bits.
        1 if room >= 16 => {
            let mut large = [0; 8];
            file.read_exact(&mut large)?;
            u64::from_be_bytes(large)
        }
        // To the end of the file, which another piece will follow; or nonsense.
        size @ 0..8 => return Ok((size >= 8).then_some(([n0, n1, n2, n3], 0))),
        size => u64::from(size),
    };
    Ok((size >= 8).then_some(([n0, n1, n2, n3], size)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn boxes(of: &[(&[u8; 4], usize)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, content) in of {
            bytes.extend(u32::try_from(content + 8).expect("small").to_be_bytes());
            bytes.extend(*name);
            bytes.resize(bytes.len() + content, 0);
        }
        bytes
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: bool) {
        let end = u64::try_from(bytes.len()).expect("small");
        assert_eq!(is_whole(&mut Cursor::new(bytes), 0, end, &MEDIA).expect("read"), expected);
    }

    #[test]
    fn a_segment_is_whole_when_its_boxes_fill_it() {
        let whole = boxes(&[(b"styp", 4), (b"moof", 40), (b"mdat", 100)]);
        check(&whole, true);
        check(&whole[..whole.len() - 1], false);
        check(&[whole.as_slice(), b"x"].concat(), false);
        check(&boxes(&[(b"moof", 40)]), false);
        check(&[], false);
        check(b"<html>not a segment</html>", false);
    }

    #[test]
    fn a_large_box_has_its_size_behind_its_name() {
        let mut bytes = boxes(&[(b"moof", 8)]);
        bytes.extend([0, 0, 0, 1]);
        bytes.extend(b"mdat");
        bytes.extend(20_u64.to_be_bytes());
        bytes.extend([0; 4]);
        check(&bytes, true);
        check(&bytes[..bytes.len() - 4], false);
    }

    #[test]
    fn a_box_of_no_size_cannot_be_followed() {
        check(&[boxes(&[(b"moof", 8)]), vec![0, 0, 0, 0], b"mdat1234".to_vec()].concat(), false);
    }
}
