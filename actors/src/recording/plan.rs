//! What to do with a recording whose bot has ended. Pure: the listing and the outcome of a join are arguments.

use super::{Joined, Recording, RecordingState};
use crate::backoff::{Backoff, spread};
use crate::ids::BotId;
use std::time::Duration;

/// How long segments of an ended bot are still accepted (and joined again).
pub const LATE_SEGMENTS: Duration = Duration::from_mins(15);
/// Waits after looks and joins that failed and may succeed yet: a disk may be full, and a store away, for days.
const RETRY: Backoff = Backoff { first: Duration::from_secs(5), last: Duration::from_mins(10) };

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing new.
    Rest,
    /// Write this, then join into `key`.
    Join {
        /// The recording, joining.
        next: Recording,
        /// The object to write.
        key: String,
    },
    /// Write this.
    Settle(Recording),
}

/// The step for a bot that has ended, of whose generation `segments` are there.
pub fn step(recording: &Recording, segments: u32) -> Step {
    let previous = match &recording.state {
        RecordingState::Ready(_) | RecordingState::Failed { .. } if segments <= recording.segments => {
            return Step::Rest;
        }
        RecordingState::Ready(joined) => Some(joined.clone()),
        RecordingState::Joining { previous } => previous.clone(),
        RecordingState::Open | RecordingState::Failed { .. } => None,
    };
    if segments == 0 {
        return Step::Settle(joined(recording, segments, Ok(None)));
    }
    let mut next = recording.clone();
    next.version += 1;
    next.attempts += 1;
    next.state = RecordingState::Joining { previous };
    let key = joined_key(recording.bot_id, next.attempts);
    Step::Join { next, key }
}

/// The recording after a join of so many segments that succeeded, or that no further try can mend. What was there before
/// stays as it was, and so does the number of segments in it.
pub fn joined(recording: &Recording, segments: u32, outcome: Result<Option<Joined>, String>) -> Recording {
    let mut next = recording.clone();
    next.version += 1;
    let previous = match &recording.state {
        RecordingState::Joining { previous } => previous.clone(),
        RecordingState::Open | RecordingState::Ready(_) | RecordingState::Failed { .. } => None,
    };
    (next.state, next.segments) = match (outcome, previous) {
        (Ok(Some(joined)), _) => (RecordingState::Ready(joined), segments),
        (_, Some(previous)) => (RecordingState::Ready(previous), recording.segments),
        (Ok(None), None) => (RecordingState::Failed { reason: "Nothing was recorded.".to_owned() }, 0),
        (Err(reason), None) => (RecordingState::Failed { reason }, segments),
    };
    next
}

/// How long a recording is left alone after so many looks and joins in a row that failed and may succeed yet.
pub fn patience(bot: BotId, failures: u32) -> Duration {
    RETRY.wait(failures, spread(bot.0.to_le_bytes(), failures)).to_std().unwrap_or(RETRY.last)
}

/// The object of the `attempt`-th join.
pub fn joined_key(bot: BotId, attempt: u32) -> String {
    format!("{}{attempt:02}.mp4", joined_prefix(bot))
}

/// The prefix of all joins of a bot's recording.
pub fn joined_prefix(bot: BotId) -> String {
    format!("bots/{bot}/recordings/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ready(recording: &Recording, segments: u32) -> Recording {
        let joined = Joined { key: "k".into(), duration_ms: 1, bytes: 1 };
        super::joined(recording, segments, Ok(Some(joined)))
    }

    #[test]
    fn nothing_recorded_is_an_end_too() {
        let Step::Settle(next) = step(&Recording::open(BotId(1)), 0) else { panic!("settles") };
        assert_eq!((next.state.as_str(), next.version), ("failed", 2));
    }

    #[test]
    fn late_segments_join_again_to_a_new_key_and_keep_the_old_meanwhile() {
        let Step::Join { next, key } = step(&Recording::open(BotId(1)), 3) else { panic!("joins") };
        let done = ready(&next, 3);
        assert_eq!(step(&done, 3), Step::Rest);
        let Step::Join { next: again, key: new_key } = step(&done, 4) else { panic!("joins again") };
        assert_eq!([key, new_key], ["bots/1/recordings/01.mp4", "bots/1/recordings/02.mp4"]);
        let kept = joined(&again, 4, Err("too large".into()));
        assert_eq!(
            [next, done.clone(), again.clone(), kept.clone()].map(|recording| recording.version),
            [2, 3, 4, 5]
        );
        assert_eq!(kept.state, done.state, "a join that fails takes nothing away");
        assert_eq!((done.segments, again.segments, kept.segments), (3, 3, 3), "the fourth is in no file");
        assert!(matches!(step(&kept, 4), Step::Join { .. }), "it is tried again when it is looked at again");
    }

    #[test]
    fn what_was_joined_stays_where_its_segments_are_gone() {
        let Step::Join { next, .. } = step(&Recording::open(BotId(1)), 3) else { panic!("joins") };
        let done = ready(&next, 3);
        let Step::Join { next, .. } = step(&done, 4) else { panic!("joins again") };
        let Step::Settle(kept) = step(&next, 0) else { panic!("settles") };
        assert_eq!((kept.state, kept.segments), (done.state, 3));
    }

    #[test]
    fn a_join_cut_off_by_a_crash_is_done_again() {
        let Step::Join { next, .. } = step(&Recording::open(BotId(1)), 3) else { panic!("joins") };
        assert!(matches!(step(&next, 3), Step::Join { .. }));
    }

    #[test]
    fn a_join_that_fails_for_good_is_not_tried_again_without_more_segments() {
        let Step::Join { next, .. } = step(&Recording::open(BotId(1)), 3) else { panic!("joins") };
        let failed = joined(&next, 3, Err("too large".into()));
        assert_eq!((failed.state.as_str(), failed.segments), ("failed", 3));
        assert_eq!(step(&failed, 3), Step::Rest);
        assert!(matches!(step(&failed, 4), Step::Join { .. }));
    }

    #[test]
    fn patience_grows_to_some_minutes_and_differs_from_bot_to_bot() {
        let waits: Vec<Duration> = (1..200).map(|failures| patience(BotId(1), failures)).collect();
        assert!(waits[0] <= Duration::from_secs(5), "{waits:?}");
        assert!(waits.windows(2).take(6).all(|pair| pair[0] < pair[1]), "{waits:?}");
        let last = Duration::from_secs(450)..=Duration::from_secs(600);
        assert!(waits.iter().skip(7).all(|wait| last.contains(wait)), "{waits:?}");
        let others: BTreeSet<Duration> = (1..20).map(|bot| patience(BotId(bot), 9)).collect();
        assert!(others.len() > 10, "{others:?}");
    }

    #[test]
    fn segments_after_nothing_was_recorded_still_count() {
        let Step::Settle(failed) = step(&Recording::open(BotId(1)), 0) else { panic!("settles") };
        assert!(matches!(step(&failed, 2), Step::Join { .. }));
    }

    proptest! {
        /// However segments arrive, joins fail and servers die: no key is used twice, what was playable stays playable
        /// until something newer is, the row says how much is in it, and nothing is done where nothing is new.
        #[test]
        fn a_recording_only_gets_better(
            steps in proptest::collection::vec((0_u32..3, 0_u8..4), 1..30)
        ) {
            let mut recording = Recording::open(BotId(1));
            let (mut keys, mut there, mut playable) = (BTreeSet::new(), 0_u32, None::<Joined>);
            for (arrived, outcome) in steps {
                there += arrived;
                let settled = matches!(recording.state, RecordingState::Ready(_) | RecordingState::Failed { .. });
                let new = there > recording.segments || !settled;
                let before = recording.version;
                match step(&recording, there) {
                    Step::Rest => {
                        prop_assert!(!new, "{recording:?} rests with {there}");
                        continue;
                    }
                    Step::Settle(next) => {
                        prop_assert_eq!((there, next.state.as_str()), (0, "failed"));
                        recording = next;
                    }
                    Step::Join { next, key } => {
                        prop_assert!(new && there > 0 && keys.insert(key.clone()), "{key} again");
                        prop_assert_eq!(next.segments, recording.segments);
                        recording = next;
                        let file = Joined { key, duration_ms: i64::from(there), bytes: 1 };
                        let outcome = match outcome {
                            0 => Ok(Some(file)),
                            1 => Ok(None),
                            2 => Err("too large".to_owned()),
                            // The disk is full, or the server dies: what is stored is all that is known.
                            _ => continue,
                        };
                        if let Ok(Some(file)) = &outcome {
                            playable = Some(file.clone());
                        }
                        recording = joined(&recording, there, outcome);
                        prop_assert_eq!(recording.version, before + 2);
                    }
                }
                match (&recording.state, &playable) {
                    (RecordingState::Ready(file), Some(newest)) => {
                        prop_assert_eq!(file, newest);
                        prop_assert_eq!(i64::from(recording.segments), file.duration_ms);
                    }
                    (RecordingState::Failed { .. }, None) => {}
                    (state, _) => prop_assert!(false, "{state:?}, and {playable:?} was playable"),
                }
            }
        }
    }
}
