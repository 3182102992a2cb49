//! Listening for the tone of a rehearsal: a sine of 440 Hz.

/// The frequency that the rehearsal page plays.
const TONE_HZ: f64 = 440.0;
/// Rate of the samples; what ffmpeg is asked for.
pub(super) const SAMPLE_RATE_HZ: u32 = 8_000;
/// Samples in one look, half a second: 440 Hz falls on a whole number of waves.
const BLOCK: usize = 4_000;
/// Mean square below which a block counts as silence (−50 dBFS).
const SILENCE: f64 = 1e-5;
/// Part of a block's energy that has to be the tone's.
const SHARE_MIN: f64 = 0.5;

/// The part of the blocks in which the tone is heard, 0 to 1.
pub(super) fn heard(samples: &[i16]) -> f64 {
    let blocks = samples.chunks_exact(BLOCK);
    let count = blocks.len();
    if count == 0 {
        return 0.0;
    }
    let with_tone = blocks.filter(|block| has_tone(block)).count();
    with_tone as f64 / count as f64
}

/// Samples from little-endian bytes.
pub(super) fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

fn has_tone(block: &[i16]) -> bool {
    let energy: f64 = block.iter().map(|&sample| normal(sample).powi(2)).sum();
    let length = block.len() as f64;
    if energy / length < SILENCE {
        return false;
    }
    // A pure sine gives 1: its power in the one bin is N²A²/4, its energy N·A²/2.
    2.0 * power_at(block, TONE_HZ) / (length * energy) >= SHARE_MIN
}

/// Goertzel's algorithm: the power of one frequency.
fn power_at(block: &[i16], frequency_hz: f64) -> f64 {
    let omega = 2.0 * std::f64::consts::PI * frequency_hz / f64::from(SAMPLE_RATE_HZ);
    let coefficient = 2.0 * omega.cos();
    let (mut last, mut before) = (0.0, 0.0);
    for &sample in block {
        (last, before) = (normal(sample) + coefficient * last - before, last);
    }
    last * last + before * before - coefficient * last * before
}

fn normal(sample: i16) -> f64 {
    f64::from(sample) / 32_768.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(frequency_hz: f64, level: f64, seconds: usize) -> Vec<i16> {
        let rate = f64::from(SAMPLE_RATE_HZ);
        let wave = |index: usize| (2.0 * std::f64::consts::PI * frequency_hz * index as f64 / rate).sin();
        (0..seconds * SAMPLE_RATE_HZ as usize).map(|index| (wave(index) * level * 32_767.0) as i16).collect()
    }

    #[test]
    fn hears_the_tone_at_its_level_and_far_below() {
        assert_eq!(heard(&sine(440.0, 0.25, 4)), 1.0);
        assert_eq!(heard(&sine(440.0, 0.02, 4)), 1.0);
    }

    #[test]
    fn hears_nothing_else() {
        assert_eq!(heard(&sine(1_000.0, 0.25, 4)), 0.0);
        assert_eq!(heard(&sine(430.0, 0.25, 4)), 0.0);
        assert_eq!(heard(&vec![0; 32_000]), 0.0);
        assert_eq!(heard(&[]), 0.0);
    }

    #[test]
    fn noise_is_no_tone_but_does_not_hide_one() {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as u16 as i16 / 16
        };
        let alone: Vec<i16> = (0..32_000).map(|_| noise()).collect();
        assert_eq!(heard(&alone), 0.0);
        let mixed: Vec<i16> = sine(440.0, 0.25, 4).iter().map(|sample| sample + noise()).collect();
        assert_eq!(heard(&mixed), 1.0);
    }

    #[test]
    fn counts_the_part_of_the_time() {
        let mut half = sine(440.0, 0.25, 2);
        half.extend(vec![0; 16_000]);
        assert_eq!(heard(&half), 0.5);
        assert_eq!(samples(&[1, 0, 255, 255, 9]), [1, -1]);
    }
}
