//! Numbers that look like chance, and are the same again for the same seed.

/// How many rounds of torture are wanted, where anybody says so.
pub(crate) fn rounds() -> Option<u32> {
    setting("MEEBOTER_TORTURE_ROUNDS")
}

/// The seed of the torture: 1, unless somebody wants another.
pub(crate) fn seed() -> u32 {
    setting("MEEBOTER_TORTURE_SEED").unwrap_or(1)
}

fn setting(name: &str) -> Option<u32> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// One seed's numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chance {
    seed: u32,
}

impl Chance {
    pub(crate) fn new(seed: u32) -> Self {
        Self { seed }
    }

    /// The number of this name in this round: any below that.
    pub(crate) fn drawn(&self, round: u32, name: u32, below: u32) -> u32 {
        let mut number = round.wrapping_add(1).wrapping_mul(2_654_435_761)
            ^ name.wrapping_mul(0x9E37_79B9)
            ^ self.seed.wrapping_mul(0xC2B2_AE35);
        number ^= number >> 15;
        number = number.wrapping_mul(0x85EB_CA6B);
        number ^= number >> 13;
        (number.wrapping_mul(0x27D4_EB2F) ^ (number >> 16)) % below.max(1)
    }
}
