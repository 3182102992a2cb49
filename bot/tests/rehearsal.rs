//! The real program in a real browser against a fake server: whole lives in rehearsal meetings.

mod support;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use meeboter_bot::{WireEndReason, WireEventType, WireState};
use rustix::process::Signal;
use serde_json::json;

use support::recording::Recording;
use support::running::Running;
use support::server::{FakeServer, Report, State};
use support::wait_for;

/// Long enough for a slow machine that does other things too; nothing waits this long when all is well.
const LIMIT: Duration = Duration::from_secs(90);

/// Two browsers take all of a small machine, and a sound that is not played in time is a gap in the recording. What a recording
/// sounds like is therefore tested alone; everything else shares the machine.
static MACHINE: RwLock<()> = RwLock::new(());

fn shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

fn wait_for_state(server: &FakeServer, wanted: WireState) {
    wait_for(&format!("{wanted:?}"), LIMIT, || server.state().states().contains(&wanted).then_some(()));
}

fn wait_for_end(server: &FakeServer) -> (WireState, WireEndReason) {
    wait_for("the end", LIMIT, || server.state().end())
}

/// Has the server tell the bot to leave, and waits until it has.
fn leave_by_request(server: &FakeServer, bot: &mut Running) {
    server.state().should_leave = true;
    assert_eq!(wait_for_end(server), (WireState::Done, WireEndReason::LeftByRequest));
    assert_eq!(bot.exit_code(LIMIT), Some(0));
}

/// The pieces came in order, each once, the init piece first.
fn assert_pieces_in_order(state: &State) {
    let mut sorted = state.keys.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(state.keys, sorted);
    assert!(state.keys[0].ends_with("001/000000-init.mp4"), "{:?}", state.keys);
    assert!(state.keys.len() >= 2, "{:?}", state.keys);
}

fn assert_tone(recording: &Recording) {
    let amplitudes = recording.amplitudes(440.0);
    // The ends hold the beginning of the recording and the end screen.
    let middle = &amplitudes[3..amplitudes.len() - 3];
    for amplitude in middle {
        assert!((0.2..0.3).contains(amplitude), "-12 dBFS is 0.25: {amplitudes:?}");
    }
}

#[test]
fn a_meeting_is_attended_recorded_and_reported() {
    let _machine = alone();
    let server = FakeServer::start("admitAfterMs=1000&guests=2&guestJoinMs=1000&lengthMs=9000&end=ended");
    server.state().empty_claims = 2;
    let mut bot = Running::start(server.port, "exit");
    wait_for_state(&server, WireState::Recording);
    let began = Instant::now();
    wait_for_state(&server, WireState::Leaving);
    let recorded_s = began.elapsed().as_secs_f64();
    assert_eq!(bot.exit_code(LIMIT), Some(0));
    assert_eq!(bot.exit_note().code, 0);
    assert_eq!(bot.company(), []);
    assert_eq!(bot.spooled(), 0);

    let state = server.state();
    assert_eq!(state.end(), Some((WireState::Done, WireEndReason::MeetingEnded)));
    use WireState::{Done, InCall, InWaitingRoom, JoiningCall, Leaving, Recording as Rec};
    assert_eq!(state.states(), [JoiningCall, InWaitingRoom, InCall, Rec, Leaving, Done]);
    for guest in ["guest-1", "guest-2"] {
        let joined = Report::Event(WireEventType::ParticipantJoin, json!({ "participantId": guest }));
        assert!(state.reports.contains(&joined), "{:?}", state.reports);
    }
    assert!(state.heartbeats >= 10, "{}", state.heartbeats);
    assert_pieces_in_order(&state);

    let recording = Recording::join(&state.objects, "whole-life");
    let (video_s, audio_s) = (recording.length_s("v"), recording.length_s("a"));
    assert!((video_s - recorded_s).abs() < 2.0, "video {video_s} s, call {recorded_s} s");
    assert!((audio_s - video_s).abs() < 0.5, "video {video_s} s, audio {audio_s} s");
    let pictures = recording.pictures();
    assert!(pictures as f64 > video_s * 4.0, "{pictures} different pictures in {video_s} s");
    assert_tone(&recording);
}

#[test]
fn a_refusal_is_reported_and_nothing_recorded() {
    let _machine = shared();
    let server = FakeServer::start("host=deny&admitAfterMs=500");
    // The bot begins with a wrong number, and is told the right one.
    server.state().assignment.next_report_seq = 9;
    let mut bot = Running::start(server.port, "exit");
    assert_eq!(wait_for_end(&server), (WireState::Fatal, WireEndReason::Denied));
    assert_eq!(bot.exit_code(LIMIT), Some(0));
    assert_eq!(bot.company(), []);
    let state = server.state();
    assert_eq!(state.states(), [WireState::JoiningCall, WireState::InWaitingRoom, WireState::Fatal]);
    assert_eq!(state.keys, Vec::<String>::new());
}

#[test]
fn a_stop_in_the_call_finishes_the_recording() {
    let _machine = alone();
    let server = FakeServer::start("admitAfterMs=0&end=never");
    let mut bot = Running::start(server.port, "idle");
    wait_for_state(&server, WireState::Recording);
    wait_for("a second segment", LIMIT, || (server.state().keys.len() >= 3).then_some(()));
    bot.signal(Signal::TERM);
    assert_eq!(bot.exit_code(LIMIT), Some(0));
    assert_eq!(bot.company(), []);
    assert_eq!(bot.spooled(), 0);
    let state = server.state();
    assert_eq!(state.end(), Some((WireState::Done, WireEndReason::LeftByRequest)));
    assert_pieces_in_order(&state);
    let recording = Recording::join(&state.objects, "stopped");
    assert!(recording.length_s("v") > 4.0);
    assert_tone(&recording);
}

#[test]
fn a_server_that_was_away_gets_everything_in_order() {
    let _machine = shared();
    let mut server = FakeServer::start("admitAfterMs=0&guests=3&guestJoinMs=1500&lengthMs=12000&end=removed");
    server.state().refuses = Some(WireEventType::ParticipantLeave);
    let mut bot = Running::start(server.port, "exit");
    wait_for("the first segment", LIMIT, || (server.state().keys.len() >= 2).then_some(()));
    server.state().is_ill = true;
    wait_for("some refused requests", LIMIT, || (server.state().ill_answers >= 4).then_some(()));
    server.vanish();
    let spooled = wait_for("pieces in the spool", LIMIT, || Some(bot.spooled()).filter(|&count| count >= 3));
    server.state().is_ill = false;
    server.come_back();
    assert_eq!(wait_for_end(&server), (WireState::Done, WireEndReason::Removed));
    assert_eq!(bot.exit_code(LIMIT), Some(0));
    assert_eq!((bot.company(), bot.spooled()), (Vec::new(), 0));
    let state = server.state();
    assert!(state.keys.len() > spooled);
    assert_pieces_in_order(&state);
    let joins = state
        .reports
        .iter()
        .filter(|report| matches!(report, Report::Event(WireEventType::ParticipantJoin, _)));
    assert_eq!(joins.count(), 3);
    let recording = Recording::join(&state.objects, "away");
    assert!((recording.length_s("v") - 12.0).abs() < 2.5, "{} s", recording.length_s("v"));
}

#[test]
fn a_fenced_bot_leaves_and_idles_until_it_is_stopped() {
    let _machine = shared();
    let server = FakeServer::start("admitAfterMs=0&end=never");
    server.state().assignment.recording_enabled = false;
    let mut bot = Running::start(server.port, "idle");
    wait_for_state(&server, WireState::InCall);
    server.state().is_over = true;
    wait_for("an empty stage", LIMIT, || bot.company().is_empty().then_some(()));
    assert_eq!(bot.has_exited(), None);
    assert_eq!(server.state().end(), None);
    bot.signal(Signal::TERM);
    assert_eq!(bot.exit_code(LIMIT), Some(3));

    // A second program in the same slot joins nothing.
    server.state().is_over = false;
    let mut second = Running::start(server.port, "exit");
    assert_eq!(second.exit_code(LIMIT), Some(3));
    assert_eq!(server.state().states().iter().filter(|state| **state == WireState::JoiningCall).count(), 1);
}

#[test]
fn the_limits_and_the_server_end_a_life() {
    let _machine = shared();
    let server = FakeServer::start("admitAfterMs=0&guests=1&lengthMs=1500&end=everyone_left&sound=silent");
    server.state().assignment.automatic_leave.everyone_left_timeout = 1_000;
    server.state().assignment.recording_enabled = false;
    let mut bot = Running::start(server.port, "exit");
    assert_eq!(wait_for_end(&server), (WireState::Done, WireEndReason::EveryoneLeft));
    assert_eq!(bot.exit_code(LIMIT), Some(0));
    drop(bot);

    let server = FakeServer::start("admitAfterMs=0&end=never");
    server.state().assignment.recording_enabled = false;
    let mut bot = Running::start(server.port, "exit");
    wait_for_state(&server, WireState::InCall);
    leave_by_request(&server, &mut bot);
    drop(bot);

    let server = FakeServer::start("host=silent");
    server.state().assignment.automatic_leave.waiting_room_timeout = 1_000;
    let mut bot = Running::start(server.port, "exit");
    assert_eq!(wait_for_end(&server), (WireState::Done, WireEndReason::WaitingRoomTimeout));
    assert_eq!(bot.exit_code(LIMIT), Some(0));
    drop(bot);

    let server = FakeServer::start("admitAfterMs=0&end=never&sound=silent");
    server.state().assignment.recording_enabled = false;
    server.state().assignment.automatic_leave.inactivity_timeout = 1_500;
    let mut bot = Running::start(server.port, "exit");
    assert_eq!(wait_for_end(&server), (WireState::Done, WireEndReason::Inactivity));
    assert_eq!(bot.exit_code(LIMIT), Some(0));
}

#[test]
fn a_recorder_that_dies_begins_a_new_run() {
    let _machine = shared();
    let server = FakeServer::start("admitAfterMs=0&end=never");
    let mut bot = Running::start(server.port, "exit");
    wait_for("two segments", LIMIT, || (server.state().keys.len() >= 3).then_some(()));
    bot.kill("ffmpeg", "");
    let second_run = |key: &String| key.contains("/002/000001");
    wait_for("a second run", LIMIT, || server.state().keys.iter().any(second_run).then_some(()));
    server.state().should_leave = true;
    assert_eq!(bot.exit_code(LIMIT), Some(0));
    assert_eq!((bot.company(), bot.spooled()), (Vec::new(), 0));
    let state = server.state();
    assert_pieces_in_order(&state);
    use WireState::{Done, InCall, JoiningCall, Leaving, Recording as Rec};
    assert_eq!(state.states(), [JoiningCall, InCall, Rec, InCall, Rec, Leaving, Done]);
    assert!(state.reports.iter().any(|report| matches!(report, Report::Event(WireEventType::Log, _))));
}

#[test]
fn a_spool_that_fails_for_a_while_ends_no_meeting() {
    let _machine = shared();
    let server = FakeServer::start("admitAfterMs=0&end=never");
    let mut bot = Running::start(server.port, "exit");
    wait_for("two segments", LIMIT, || (server.state().keys.len() >= 3).then_some(()));
    server.state().is_ill = true;
    wait_for("pieces in the spool", LIMIT, || (bot.spooled() >= 2).then_some(()));
    bot.hide_spool(true);
    server.state().is_ill = false;
    // Past every check of the recorder, and some tries of both.
    wait_for("the failure", LIMIT, || (bot.log().matches("the spool cannot be").count() >= 4).then_some(()));
    bot.hide_spool(false);
    let later_run = |key: &String| key.contains("/002/000001") || key.contains("/003/000001");
    wait_for("another run", LIMIT, || server.state().keys.iter().any(later_run).then_some(()));
    leave_by_request(&server, &mut bot);
    assert_eq!(bot.company(), []);
    assert_pieces_in_order(&server.state());
}

#[test]
fn a_sound_server_that_dies_is_told_of_and_the_picture_goes_on() {
    let _machine = shared();
    let server = FakeServer::start("admitAfterMs=0&end=never");
    server.state().assignment.automatic_leave.inactivity_timeout = 1_000;
    let mut bot = Running::start(server.port, "exit");
    wait_for("two segments", LIMIT, || (server.state().keys.len() >= 3).then_some(()));
    bot.kill("pulseaudio", "");
    let told = |report: &Report| matches!(report, Report::Event(WireEventType::Log, data) if data.to_string().contains("sound"));
    wait_for("word of it", LIMIT, || server.state().reports.iter().any(told).then_some(()));
    let there = server.state().keys.len();
    wait_for("more segments", LIMIT, || (server.state().keys.len() >= there + 2).then_some(()));
    leave_by_request(&server, &mut bot);
    assert_eq!((bot.company(), bot.spooled()), (Vec::new(), 0));
    assert_pieces_in_order(&server.state());
}

#[test]
fn what_stands_before_the_server_ends_no_meeting_and_costs_no_report() {
    let _machine = shared();
    let server = FakeServer::start("admitAfterMs=0&guests=2&guestJoinMs=500&end=never");
    server.state().proxy_says = Some(404);
    let mut bot = Running::start(server.port, "exit");
    // Answers that the server never gave: to the claim, to reports, heartbeats and uploads.
    wait_for("a claim", LIMIT, || (server.state().proxy_answers >= 2).then_some(()));
    server.state().proxy_says = None;
    wait_for("two segments", LIMIT, || (server.state().keys.len() >= 3).then_some(()));
    for status in [404, 405, 409, 413] {
        let mut state = server.state();
        (state.proxy_says, state.proxy_answers) = (Some(status), 0);
        drop(state);
        wait_for("some answers", LIMIT, || (server.state().proxy_answers >= 4).then_some(()));
    }
    server.state().proxy_says = None;
    leave_by_request(&server, &mut bot);
    assert_eq!((bot.company(), bot.spooled()), (Vec::new(), 0));
    let state = server.state();
    assert_pieces_in_order(&state);
    use WireState::{Done, InCall, JoiningCall, Leaving, Recording as Rec};
    assert_eq!(state.states(), [JoiningCall, InCall, Rec, Leaving, Done]);
}

#[test]
fn a_page_that_is_not_there_yet_is_waited_for() {
    let _machine = shared();
    let server = FakeServer::start("admitAfterMs=0&end=never");
    server.state().assignment.recording_enabled = false;
    // Nobody listens there until the bot has tried for longer than a moment.
    let later = FakeServer::start("");
    let url =
        server.state().assignment.meeting_url.replace(&server.port.to_string(), &later.port.to_string());
    server.state().assignment.meeting_url = url;
    let mut later = later;
    later.vanish();
    let mut bot = Running::start(server.port, "exit");
    wait_for("tries", LIMIT, || (bot.log().matches("not joined, trying again").count() >= 6).then_some(()));
    later.come_back();
    wait_for_state(&server, WireState::InCall);
    leave_by_request(&server, &mut bot);
}

#[test]
fn a_browser_that_dies_ends_the_bot_and_keeps_the_recording() {
    let _machine = shared();
    for victim in ["--remote-debugging-port", "--type=renderer"] {
        let server = FakeServer::start("admitAfterMs=0&end=never");
        let mut bot = Running::start(server.port, "exit");
        wait_for("a segment", LIMIT, || (server.state().keys.len() >= 2).then_some(()));
        bot.kill("chromium", victim);
        assert_eq!(wait_for_end(&server), (WireState::Fatal, WireEndReason::Internal), "{victim}");
        assert_eq!(bot.exit_code(LIMIT), Some(0));
        assert_eq!((bot.company(), bot.spooled()), (Vec::new(), 0));
        assert_pieces_in_order(&server.state());
    }
}

#[test]
fn a_killed_program_leaves_nobody_behind() {
    let _machine = shared();
    let server = FakeServer::start("admitAfterMs=0&end=never");
    let mut bot = Running::start(server.port, "exit");
    wait_for_state(&server, WireState::Recording);
    bot.signal(Signal::KILL);
    assert_eq!(bot.exit_code(LIMIT), None);
    wait_for("an empty session", Duration::from_secs(15), || bot.company().is_empty().then_some(()));
}

#[test]
fn a_wrong_environment_is_told_at_once() {
    let _machine = shared();
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_meeboter-bot")).env_clear().output().expect("a start");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("POOL_SLOT_UUID"), "{said}");
}

#[test]
fn every_door_has_its_reason() {
    let _machine = shared();
    let doors = [
        ("not_found", WireEndReason::MeetingNotFound),
        ("sign_in", WireEndReason::SignInRequired),
        ("captcha", WireEndReason::Captcha),
        ("blocked", WireEndReason::JoinBlocked),
    ];
    for (door, reason) in doors {
        let server = FakeServer::start(&format!("door={door}"));
        let mut bot = Running::start(server.port, "exit");
        assert_eq!(wait_for_end(&server), (WireState::Fatal, reason), "{door}");
        assert_eq!(bot.exit_code(LIMIT), Some(0));
    }
}
