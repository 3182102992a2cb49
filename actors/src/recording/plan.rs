//! What to do with a recording whose bot has ended. Pure: the listing and the outcome of a join are arguments.

use super::{Joined, Recording, RecordingState};
use crate::ids::BotId;
use std::time::Duration;

/// How long segments of an ended bot are still accepted (and joined again).
pub const LATE_SEGMENTS: Duration = Duration::from_mins(15);
/// Joins that fail before the recording is given up; its segments are kept.
pub const JOIN_ATTEMPTS_MAX: u32 = 5;

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
    let mut next = recording.clone();
    next.version += 1;
    next.segments = segments;
    if segments == 0 {
        next.state = RecordingState::Failed { reason: "Nothing was recorded.".to_owned() };
        return Step::Settle(next);
    }
    next.attempts += 1;
    next.state = RecordingState::Joining { previous };
    let key = joined_key(recording.bot_id, next.attempts);
    Step::Join { next, key }
}

/// The recording after a join.
pub fn joined(recording: &Recording, outcome: Result<Option<Joined>, String>) -> Recording {
    let mut next = recording.clone();
    next.version += 1;
    let previous = match &recording.state {
        RecordingState::Joining { previous } => previous.clone(),
        RecordingState::Open | RecordingState::Ready(_) | RecordingState::Failed { .. } => None,
    };
    next.state = match (outcome, previous) {
        (Ok(Some(joined)), _) => RecordingState::Ready(joined),
        (_, Some(previous)) => RecordingState::Ready(previous),
        (Ok(None), None) => RecordingState::Failed { reason: "Nothing was recorded.".to_owned() },
        (Err(reason), None) => RecordingState::Failed { reason },
    };
    next
}

/// Whether a join that failed is worth another.
pub fn retry_join(recording: &Recording, retryable: bool) -> bool {
    retryable && recording.attempts < JOIN_ATTEMPTS_MAX
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

    fn ready(recording: &Recording) -> Recording {
        let joined = Joined { key: "k".into(), duration_ms: 1, bytes: 1 };
        super::joined(recording, Ok(Some(joined)))
    }

    #[test]
    fn nothing_recorded_is_an_end_too() {
        let Step::Settle(next) = step(&Recording::open(BotId(1)), 0) else { panic!("settles") };
        assert_eq!((next.state.as_str(), next.version), ("failed", 2));
    }

    #[test]
    fn late_segments_join_again_to_a_new_key_and_keep_the_old_meanwhile() {
        let Step::Join { next, key } = step(&Recording::open(BotId(1)), 3) else { panic!("joins") };
        let done = ready(&next);
        assert_eq!(step(&done, 3), Step::Rest);
        let Step::Join { next: again, key: new_key } = step(&done, 4) else { panic!("joins again") };
        assert_eq!([key, new_key], ["bots/1/recordings/01.mp4", "bots/1/recordings/02.mp4"]);
        let kept = joined(&again, Err("disk full".into()));
        assert_eq!(
            [next, done.clone(), again, kept.clone()].map(|recording| recording.version),
            [2, 3, 4, 5]
        );
        assert_eq!(kept.state, done.state, "a join that fails takes nothing away");
    }

    #[test]
    fn a_join_cut_off_by_a_crash_is_done_again() {
        let Step::Join { next, .. } = step(&Recording::open(BotId(1)), 3) else { panic!("joins") };
        assert!(matches!(step(&next, 3), Step::Join { .. }));
    }

    #[test]
    fn a_join_is_tried_five_times_where_that_may_help() {
        for attempts in 1..=6 {
            let recording = Recording { attempts, ..Recording::open(BotId(1)) };
            assert_eq!(retry_join(&recording, true), attempts < 5);
            assert!(!retry_join(&recording, false));
        }
    }

    #[test]
    fn segments_after_nothing_was_recorded_still_count() {
        let Step::Settle(failed) = step(&Recording::open(BotId(1)), 0) else { panic!("settles") };
        assert!(matches!(step(&failed, 2), Step::Join { .. }));
    }

    proptest! {
        /// However segments arrive, joins fail and servers die: no key is used twice, what was playable stays playable
        /// until something newer is, and nothing is done where nothing is new.
        #[test]
        fn a_recording_only_gets_better(
            steps in proptest::collection::vec((0_u32..3, 0_u8..4), 1..30)
        ) {
            let mut recording = Recording::open(BotId(1));
            let (mut keys, mut there, mut playable) = (BTreeSet::new(), 0_u32, None::<Joined>);
            for (arrived, outcome) in steps {
                let new = arrived > 0 || !matches!(recording.state, RecordingState::Ready(_) | RecordingState::Failed { .. });
                there += arrived;
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
                        prop_assert_eq!(next.segments, there);
                        recording = next;
                        let file = Joined { key, duration_ms: i64::from(there), bytes: 1 };
                        let outcome = match outcome {
                            0 => Ok(Some(file)),
                            1 => Ok(None),
                            2 => Err("disk full".to_owned()),
                            // The server dies: what is stored is all that is known.
                            _ => continue,
                        };
                        if let Ok(Some(file)) = &outcome {
                            playable = Some(file.clone());
                        }
                        recording = joined(&recording, outcome);
                        prop_assert_eq!(recording.version, before + 2);
                    }
                }
                match (&recording.state, &playable) {
                    (RecordingState::Ready(file), Some(newest)) => prop_assert_eq!(file, newest),
                    (RecordingState::Failed { .. }, None) => {}
                    (state, _) => prop_assert!(false, "{state:?}, and {playable:?} was playable"),
                }
            }
        }
    }
}
