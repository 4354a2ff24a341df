//! Faults by chance, from a seed: the same seed gives the same run.

use std::time::Duration;

/// How often what goes wrong, as chances from 0 to 1. By default nothing does.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// At each wait: the connection is lost.
    pub lose: f64,
    /// At each wait: the connection falls silent and is lost only after [`SILENCE`].
    pub hang: f64,
    /// At each wait: it takes up to [`Faults::delay_up_to`].
    pub delay: f64,
    /// The longest delay.
    pub delay_up_to: Duration,
    /// Between two parts of a chunk: the connection is lost.
    pub tear: f64,
    /// An acknowledgement never arrives.
    pub forget: f64,
}

/// How long a silent connection takes to be found out.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Chance from a seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The chance that `seed` gives.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when `end` is.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number().checked_rem(end).unwrap_or(0)
    }

    /// True with `probability`.
    pub fn happens(&mut self, probability: f64) -> bool {
        // A chance of nothing draws no number, so that a fault switched on moves no other.
        probability > 0.0 && ((self.number() >> 11) as f64 / (1_u64 << 53) as f64) < probability
    }
}

/// What happens at a wait.
pub(super) enum Fate {
    Nothing,
    Lost,
    Silent,
    Late(Duration),
}

impl Faults {
    pub(super) fn fate(&self, chance: &mut Chance) -> Fate {
        if chance.happens(self.lose) {
            Fate::Lost
        } else if chance.happens(self.hang) {
            Fate::Silent
        } else if chance.happens(self.delay) {
            let most = self.delay_up_to.as_micros() as u64;
            Fate::Late(Duration::from_micros(chance.below(most.saturating_add(1))))
        } else {
            Fate::Nothing
        }
    }
}
