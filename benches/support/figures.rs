//! Durations, sorted, and how they are written.

use std::fmt;
use std::time::Duration;

/// Durations of one kind.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<Duration>);

impl Figures {
    pub fn add(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// Adds all of another one's.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest one that at least this share is not above; zero where there is none.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        // Both are small and positive.
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    pub fn p99(&self) -> Duration {
        self.quantile(0.99)
    }

    pub fn max(&self) -> Duration {
        self.quantile(1.0)
    }
}

/// All figures, in milliseconds, in the order they came.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(|duration| format!("{:.1}", ms(*duration))).collect();
        f.write_str(&all.join(" "))
    }
}

/// Milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// How many times the other one is in this one.
pub fn ratio(this: Duration, other: Duration) -> f64 {
    this.as_secs_f64() / other.as_secs_f64().max(1e-9)
}
