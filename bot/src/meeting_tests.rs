//! Tables of lives: what is seen at which second, and what has to come of it.

use super::*;

const LIMITS: AutomaticLeave = AutomaticLeave {
    waiting_room_timeout: 600_000,
    no_one_joined_timeout: 300_000,
    everyone_left_timeout: 60_000,
    inactivity_timeout: 120_000,
};

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn meeting() -> Meeting {
    Meeting::new(LIMITS, true, at(0), at(0))
}

fn call(people: &[&str]) -> Observation {
    let people: BTreeSet<String> = people.iter().map(|id| (*id).to_owned()).collect();
    Observation::InCall(Call { others: Some(people.len()), people: Some(people) })
}

fn uncounted_call() -> Observation {
    Observation::InCall(Call::default())
}

fn in_call(people: &[&str]) -> Meeting {
    let mut meeting = meeting();
    meeting.observe(call(people), Some(true), at(10));
    meeting
}

#[track_caller]
fn end_of(actions: &[Action]) -> (WireEndReason, bool) {
    match actions.last() {
        Some(Action::End(end)) => (end.reason, end.inside),
        other => panic!("no end but {other:?}"),
    }
}

#[test]
fn a_quiet_life_reports_each_state_once() {
    let mut meeting = meeting();
    assert_eq!(meeting.observe(Observation::NotReady, None, at(1)), []);
    assert_eq!(meeting.observe(Observation::Unknown, None, at(2)), []);
    assert_eq!(
        meeting.observe(Observation::WaitingRoom, None, at(3)),
        [Action::Report(WireState::InWaitingRoom)]
    );
    assert_eq!(meeting.observe(Observation::WaitingRoom, None, at(4)), []);
    assert_eq!(
        meeting.observe(call(&["ada"]), Some(false), at(5)),
        [Action::Report(WireState::InCall), Action::StartRecorder, Action::PersonCame("ada".to_owned())]
    );
    assert_eq!(meeting.recorder_began(), [Action::Report(WireState::Recording)]);
    assert_eq!(meeting.observe(call(&["ada"]), Some(true), at(6)), []);
    let actions = meeting.observe(Observation::Over(Ending::MeetingEnded), Some(true), at(7));
    assert_eq!(actions[0], Action::Report(WireState::Leaving));
    assert_eq!(end_of(&actions), (WireEndReason::MeetingEnded, false));
    assert_eq!(meeting.observe(call(&["ada"]), None, at(8)), []);
    assert_eq!(meeting.recorder_began(), []);
    assert_eq!(meeting.leave_by_request("late"), []);
}

#[test]
fn without_recording_no_recorder_starts() {
    let mut meeting = Meeting::new(LIMITS, false, at(0), at(0));
    assert_eq!(meeting.observe(call(&[]), None, at(1)), [Action::Report(WireState::InCall)]);
}

#[test]
fn a_broken_recorder_goes_back_to_the_call() {
    let meeting = in_call(&["ada"]);
    assert_eq!(meeting.recorder_broke(), [Action::Report(WireState::InCall)]);
    assert_eq!(meeting.recorder_began(), [Action::Report(WireState::Recording)]);
}

#[test]
fn every_ending_of_a_page_has_its_reason() {
    let table = [
        (Ending::MeetingEnded, WireEndReason::MeetingEnded, WireEndReason::MeetingEnded),
        (Ending::Removed, WireEndReason::Denied, WireEndReason::Removed),
        (Ending::Denied, WireEndReason::Denied, WireEndReason::Removed),
        (Ending::NotFound, WireEndReason::MeetingNotFound, WireEndReason::MeetingNotFound),
        (Ending::SignInRequired, WireEndReason::SignInRequired, WireEndReason::SignInRequired),
        (Ending::Captcha, WireEndReason::Captcha, WireEndReason::Captcha),
        (Ending::Blocked, WireEndReason::JoinBlocked, WireEndReason::JoinBlocked),
    ];
    for (ending, outside, inside) in table {
        let actions = meeting().observe(Observation::Over(ending), None, at(1));
        assert_eq!(end_of(&actions), (outside, false), "{ending:?} before the call");
        assert_eq!(actions.len(), 1, "no LEAVING without a call: {actions:?}");
        let actions = in_call(&["ada"]).observe(Observation::Over(ending), None, at(11));
        assert_eq!(end_of(&actions), (inside, false), "{ending:?} in the call");
    }
}

#[test]
fn the_waiting_room_has_a_limit() {
    let mut meeting = meeting();
    meeting.observe(Observation::WaitingRoom, None, at(5));
    assert_eq!(meeting.observe(Observation::WaitingRoom, None, at(604)), []);
    let actions = meeting.observe(Observation::WaitingRoom, None, at(605));
    assert_eq!(end_of(&actions), (WireEndReason::WaitingRoomTimeout, true));
}

#[test]
fn put_back_into_the_waiting_room_the_state_stays_and_the_clock_runs() {
    let mut meeting = in_call(&["ada"]);
    assert_eq!(meeting.observe(Observation::WaitingRoom, None, at(20)), []);
    assert_eq!(meeting.observe(call(&["ada"]), None, at(500)), []);
    assert_eq!(meeting.observe(Observation::WaitingRoom, None, at(700)), []);
    let actions = meeting.observe(Observation::WaitingRoom, None, at(1_300));
    assert_eq!(end_of(&actions), (WireEndReason::WaitingRoomTimeout, true));
}

#[test]
fn alone_from_the_start_is_nobody_joined() {
    let mut meeting = in_call(&[]);
    assert_eq!(meeting.observe(call(&[]), Some(true), at(309)), []);
    assert_eq!(end_of(&meeting.observe(call(&[]), Some(true), at(310))), (WireEndReason::NobodyJoined, true));
}

#[test]
fn alone_after_others_is_everyone_left() {
    let mut meeting = in_call(&["ada"]);
    assert_eq!(meeting.observe(call(&[]), Some(true), at(20)), []);
    // Somebody comes back: the clock starts anew.
    assert_eq!(meeting.observe(call(&["ada"]), Some(true), at(70)), []);
    assert_eq!(meeting.observe(call(&[]), Some(true), at(80)), []);
    assert_eq!(meeting.observe(call(&[]), Some(true), at(139)), []);
    let actions = meeting.observe(call(&[]), Some(true), at(140));
    assert_eq!(end_of(&actions), (WireEndReason::EveryoneLeft, true));
}

#[test]
fn no_limit_runs_before_the_meeting_is_to_begin() {
    let early = || Meeting::new(LIMITS, true, at(0), at(3_600));
    // The last look that may not end the life, the first that must, and of what.
    let ends = |mut meeting: Meeting, seen: &Observation, audible, second, reason| {
        for before in [20, 3_600, second - 1] {
            let actions = meeting.observe(seen.clone(), audible, at(before));
            assert!(
                !actions.iter().any(|action| matches!(action, Action::End(_))),
                "{actions:?} at {before} s"
            );
        }
        assert_eq!(end_of(&meeting.observe(seen.clone(), audible, at(second))), (reason, true));
    };
    ends(early(), &Observation::WaitingRoom, None, 4_200, WireEndReason::WaitingRoomTimeout);
    ends(early(), &call(&[]), Some(true), 3_900, WireEndReason::NobodyJoined);
    ends(early(), &call(&["ada"]), Some(false), 3_720, WireEndReason::Inactivity);
    let mut left = early();
    left.observe(call(&["ada"]), Some(true), at(10));
    ends(left, &call(&[]), Some(true), 3_660, WireEndReason::EveryoneLeft);
    // Once it has begun the start changes nothing.
    let mut begun = early();
    begun.observe(call(&["ada"]), Some(true), at(3_700));
    assert_eq!(begun.observe(call(&[]), Some(true), at(3_800)), []);
    assert_eq!(begun.observe(call(&[]), Some(true), at(3_859)), []);
    let actions = begun.observe(call(&[]), Some(true), at(3_860));
    assert_eq!(end_of(&actions), (WireEndReason::EveryoneLeft, true));
}

#[test]
fn an_unknown_count_is_never_alone() {
    let mut meeting = in_call(&["ada"]);
    for second in 11..2_000 {
        assert_eq!(meeting.observe(uncounted_call(), Some(true), at(second)), []);
    }
}

#[test]
fn silence_ends_a_call_and_not_knowing_does_not() {
    let mut meeting = in_call(&["ada"]);
    assert_eq!(meeting.observe(call(&["ada"]), Some(false), at(20)), []);
    assert_eq!(meeting.observe(call(&["ada"]), None, at(100)), []);
    assert_eq!(meeting.observe(call(&["ada"]), Some(false), at(150)), []);
    assert_eq!(meeting.observe(call(&["ada"]), Some(true), at(200)), []);
    assert_eq!(meeting.observe(call(&["ada"]), Some(false), at(210)), []);
    assert_eq!(meeting.observe(call(&["ada"]), Some(false), at(329)), []);
    let actions = meeting.observe(call(&["ada"]), Some(false), at(330));
    assert_eq!(end_of(&actions), (WireEndReason::Inactivity, true));
}

#[test]
fn a_call_in_which_nothing_was_ever_heard_is_noted_once() {
    let mut meeting = meeting();
    meeting.observe(call(&["ada"]), Some(false), at(10));
    assert_eq!(meeting.observe(call(&["ada"]), Some(false), at(69)), []);
    assert!(matches!(meeting.observe(call(&["ada"]), Some(false), at(70))[..], [Action::Note(_)]));
    assert_eq!(meeting.observe(call(&["ada"]), Some(false), at(80)), []);

    let mut meeting = in_call(&["ada"]);
    for second in 11..100 {
        assert_eq!(meeting.observe(call(&["ada"]), Some(false), at(second)), [], "heard at the start");
    }
}

#[test]
fn people_are_gone_after_three_misses() {
    let mut meeting = in_call(&["ada", "grace"]);
    assert_eq!(meeting.observe(call(&["ada"]), None, at(11)), []);
    assert_eq!(meeting.observe(call(&["ada"]), None, at(12)), []);
    assert_eq!(meeting.observe(call(&["ada", "grace"]), None, at(13)), []);
    assert_eq!(meeting.observe(call(&["ada"]), None, at(14)), []);
    assert_eq!(meeting.observe(uncounted_call(), None, at(15)), []);
    assert_eq!(meeting.observe(call(&["ada"]), None, at(16)), []);
    assert_eq!(meeting.observe(call(&["ada"]), None, at(17)), [Action::PersonWent("grace".to_owned())]);
    assert_eq!(
        meeting.observe(call(&["ada", "grace"]), None, at(18)),
        [Action::PersonCame("grace".to_owned())]
    );
}

#[test]
fn a_call_gone_from_the_page_is_an_end_only_after_a_while() {
    let mut meeting = in_call(&["ada"]);
    for second in [11, 12, 40] {
        assert_eq!(meeting.observe(Observation::NotReady, None, at(second)), []);
    }
    // It comes back, as after a reconnect.
    assert_eq!(meeting.observe(call(&["ada"]), None, at(41)), []);
    // A single slow poll is no proof either.
    assert_eq!(meeting.observe(Observation::NotReady, None, at(50)), []);
    assert_eq!(meeting.observe(Observation::NotReady, None, at(85)), []);
    let actions = meeting.observe(Observation::NotReady, None, at(86));
    assert_eq!(end_of(&actions), (WireEndReason::Removed, false));
}

#[test]
fn a_page_that_does_not_answer_is_no_removal() {
    let mut meeting = in_call(&["ada"]);
    for second in 20..=139 {
        assert_eq!(meeting.observe(Observation::Unknown, None, at(second)), []);
    }
    assert_eq!(
        end_of(&meeting.observe(Observation::Unknown, None, at(140))),
        (WireEndReason::Internal, true)
    );
}

#[test]
fn joining_has_a_limit() {
    let mut meeting = meeting();
    assert_eq!(meeting.observe(Observation::NotReady, None, at(179)), []);
    let actions = meeting.observe(Observation::NotReady, None, at(180));
    assert_eq!(end_of(&actions), (WireEndReason::Internal, false));
}

#[test]
fn a_request_to_leave_presses_leave_only_where_there_is_something_to_leave() {
    let actions = meeting().leave_by_request("told so");
    assert_eq!(end_of(&actions), (WireEndReason::LeftByRequest, false));
    let actions = in_call(&["ada"]).leave_by_request("told so");
    assert_eq!(actions[0], Action::Report(WireState::Leaving));
    assert_eq!(end_of(&actions), (WireEndReason::LeftByRequest, true));
}

#[test]
fn the_first_reason_stays() {
    let mut meeting = in_call(&["ada"]);
    meeting.fail(WireEndReason::Internal, "the browser exited".to_owned());
    assert_eq!(meeting.leave_by_request("told so"), []);
    assert!(!meeting.is_in_call());
}
