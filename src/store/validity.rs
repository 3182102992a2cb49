//! How long a leader may act on what it has decided, by its own clock.
//!
//! A leader that was cut off, or asleep, cannot know whether another one leads by now. It counts from before it last
//! asked the database and got its answer, by a clock that goes on while the machine is suspended; past that it starts
//! nothing and judges nobody, until the database has said again that it leads.

use async_trait::async_trait;
use meeboter_actors::ports::Lead;
use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Silence after which a standby ends the leader's session. Everything else here follows from it.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);
/// What clocks and the way to the database may differ by.
const MARGIN: Duration = Duration::from_millis(500);

/// See the module.
pub struct Validity {
    /// Milliseconds since the machine's start, suspension counted; 0: never proven.
    proven_at_ms: AtomicU64,
    /// The lead was given back: no proof counts any more.
    resigned: AtomicBool,
    proofs: watch::Sender<()>,
}

/// A moment of the machine's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Now, by a clock that counts suspension.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Self(seconds * 1_000 + u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0))
    }
}

impl Default for Validity {
    fn default() -> Self {
        let (proven_at_ms, resigned) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { proven_at_ms, resigned, proofs: watch::Sender::new(()) }
    }
}

impl Validity {
    /// The database has answered a question that was sent at this moment, as it answers a leader.
    pub fn prove(&self, sent: Moment) {
        self.proven_at_ms.fetch_max(sent.0, Ordering::AcqRel);
        self.proofs.send_replace(());
    }

    /// It does not hold from now on, whatever the database still answers.
    pub fn resign(&self) {
        self.resigned.store(true, Ordering::Release);
    }

    fn holds_at(&self, now: Moment) -> bool {
        let limit = u64::try_from((SILENCE_MAX - MARGIN).as_millis()).unwrap_or(0);
        let proven = self.proven_at_ms.load(Ordering::Acquire);
        let resigned = self.resigned.load(Ordering::Acquire);
        !resigned && proven > 0 && now.0.saturating_sub(proven) < limit
    }
}

#[async_trait]
impl Lead for Validity {
    fn holds(&self) -> bool {
        self.holds_at(Moment::now())
    }

    async fn proven(&self) {
        let mut proofs = self.proofs.subscribe();
        while !self.holds() {
            if proofs.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_holds_from_the_question_to_the_margin_before_the_silence() {
        let validity = Validity::default();
        assert!(!validity.holds_at(Moment(10_000)), "never proven");
        validity.prove(Moment(10_000));
        for (now, holds) in [(10_000, true), (12_499, true), (12_500, false), (60_000, false)] {
            assert_eq!(validity.holds_at(Moment(now)), holds, "at {now}");
        }
        // An answer that comes late counts from its own question.
        validity.prove(Moment(9_000));
        assert!(!validity.holds_at(Moment(12_500)));
        // Given back is given back, also where an answer comes after that.
        validity.resign();
        validity.prove(Moment(12_400));
        assert!(!validity.holds_at(Moment(12_500)));
    }

    #[test]
    fn the_clock_goes_on() {
        assert!(Moment::now() > Moment(0) && Moment::now() >= Moment::now().min(Moment::now()));
    }

    #[tokio::test]
    async fn whoever_waits_for_proof_goes_on_with_it() {
        let validity = Validity::default();
        tokio::join!(validity.proven(), async { validity.prove(Moment::now()) });
        assert!(validity.holds());
    }
}
