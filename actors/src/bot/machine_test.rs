use super::*;
use crate::bot::Seat;
use crate::ids::{Generation, SlotName};
use crate::testing::sample;
use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

fn at(bot: &Bot) -> DateTime<Utc> {
    bot.created_at
}

fn report(bot: &Bot, seq: i64, body: ReportBody) -> Result<Taken, Gap> {
    take_report(bot, Report { seq, at: at(bot), body }, at(bot))
}

#[test]
fn a_host_whose_clock_is_wrong_dates_nothing_before_the_bots_start_or_after_now() {
    let began = at(&sample::bot(1));
    let bot = Bot { state: BotState::InCall, deployed_at: Some(began), ..sample::bot(1) };
    let now = began + TimeDelta::hours(1);
    for (said, dated) in [
        (now - TimeDelta::days(8), began),
        (began + TimeDelta::minutes(1), began + TimeDelta::minutes(1)),
        (now + TimeDelta::days(365), now),
    ] {
        let body = ReportBody::Ended(end(EndReason::MeetingEnded));
        let report = Report { seq: bot.report_seq + 1, at: said, body };
        let Ok(Taken::Advanced(next, changes)) = take_report(&bot, report, now) else { panic!("is taken") };
        assert_eq!(next.ended_at, Some(dated));
        let dates = changes.iter().filter_map(|change| match change {
            Change::InsertEvent(event) => Some(event.at),
            _ => None,
        });
        assert_eq!(dates.collect::<Vec<_>>(), [dated]);
    }
}

#[test]
fn life_goes_forward_only() {
    use BotState::*;
    for from in BotState::ALL {
        for to in BotState::ALL {
            let expected = !from.is_final() && (to > from || (from == Recording && to == InCall));
            assert_eq!(may_follow(from, to), expected, "{from:?} → {to:?}");
        }
    }
}

#[test]
fn what_moves_in_the_queue_keeps_its_place_when_a_slot_gives_it_back() {
    let waiting = sample::bot(1);
    let (moved, changes) = reprioritised(&waiting, 7);
    assert_eq!((moved.version, moved.spec.priority), (waiting.version + 1, 7));
    assert_eq!(changes, [Change::WriteBot(Box::new(moved.clone()))]);
    let (back, _) = returned(&moved, "no room".into(), false, at(&waiting));
    assert_eq!(QueueEntry::returned(&back).priority, 7);
}

#[test]
fn failed_starts_are_counted_over_slots_and_those_that_could_not_begin_are_not() {
    let mut bot = sample::bot(1);
    for (failed, count) in [(true, 1), (false, 1), (true, 2), (true, 3)] {
        (bot, _) = returned(&bot, "no room".into(), failed, at(&bot));
        assert_eq!(bot.failed_starts(), count);
    }
}

#[test]
fn final_states_stay() {
    let bot = sample::bot(1);
    let (done, _) = ended(&bot, end(EndReason::MeetingEnded), at(&bot));
    let (again, changes) = ended(&done, end(EndReason::Crashed), at(&bot));
    assert_eq!((again, changes.len()), (done, 0));
}

#[test]
fn reports_are_taken_in_order_and_once() {
    let bot = sample::bot(1);
    let Ok(Taken::Advanced(next, changes)) = report(&bot, 1, ReportBody::Entered(BotState::InCall)) else {
        panic!("the first report is taken");
    };
    assert_eq!((next.report_seq, next.state, changes.len()), (1, BotState::InCall, 2));
    assert!(next.joined_at.is_some());
    assert_eq!(report(&next, 1, ReportBody::Entered(BotState::InCall)), Ok(Taken::Repeated));
    assert_eq!(report(&next, 3, ReportBody::Entered(BotState::Leaving)), Err(Gap { expected: 2 }));
}

#[test]
fn a_step_back_counts_but_changes_nothing() {
    let mut bot = sample::bot(1);
    bot.state = BotState::Leaving;
    let Ok(Taken::Advanced(next, changes)) = report(&bot, 1, ReportBody::Entered(BotState::InCall)) else {
        panic!("its number is taken");
    };
    assert_eq!((next.state, next.report_seq, changes.len()), (BotState::Leaving, 1, 1));
}

#[test]
fn the_reason_for_leaving_wins_over_the_bots_word() {
    let mut bot = sample::bot(1);
    bot.leave = Some(EndReason::EndTime);
    let body = ReportBody::Ended(end(EndReason::LeftByRequest));
    let Ok(Taken::Advanced(next, _)) = report(&bot, 1, body) else { panic!("taken") };
    assert_eq!(next.end.map(|end| end.reason), Some(EndReason::EndTime));
}

#[test]
fn a_bot_that_comes_back_to_the_queue_keeps_nothing_of_its_seat() {
    let mut bot = sample::bot(1);
    bot.state = BotState::Deploying;
    bot.seat = Some(Seat { slot: SlotName("pool-zoom-001".into()), generation: Generation(1) });
    (bot.nonce, bot.deployed_at) = (Some(Uuid::from_u128(1)), Some(at(&bot)));
    let (back, _) = returned(&bot, "no such image".into(), true, at(&bot));
    assert_eq!((back.state, back.version), (BotState::Queued, 2));
    assert_eq!((back.seat, back.nonce, back.deployed_at), (None, None, None));
}

#[test]
fn it_has_joined_when_it_is_first_in_the_call() {
    let bot = sample::bot(1);
    let (waiting, _) = entered(&bot, BotState::InWaitingRoom, at(&bot));
    assert_eq!(waiting.joined_at, None);
    let (joined, _) = entered(&waiting, BotState::InCall, at(&bot));
    let (recording, _) = entered(&joined, BotState::Recording, at(&bot) + chrono::TimeDelta::minutes(1));
    assert_eq!((joined.joined_at, recording.joined_at), (Some(at(&bot)), Some(at(&bot))));
}

#[test]
fn who_leaves_the_scheduler_is_written_as_its_next_version() {
    let mut bot = sample::bot(1);
    let changes = left_schedule(&mut bot);
    assert_eq!((bot.version, changes), (2, vec![Change::WriteBot(Box::new(bot.clone()))]));
}

#[test]
fn a_bot_moves_only_to_times_in_order() {
    let bot = sample::bot(1);
    let later = |minutes| Some(at(&bot) + chrono::TimeDelta::minutes(minutes));
    let (start, changes) = moved(&bot, later(60), None).expect("moves");
    assert_eq!((start.spec.start_at, start.spec.end_at, start.version), (later(60), None, 2));
    assert_eq!(changes, [Change::WriteBot(Box::new(start.clone()))]);
    let (both, _) = moved(&start, later(70), later(90)).expect("moves");
    let (end, _) = moved(&both, None, later(71)).expect("moves");
    assert_eq!((end.spec.start_at, end.spec.end_at), (later(70), later(71)));
    for (start_at, end_at) in [(later(71), None), (later(90), None), (None, later(70)), (later(9), later(8))]
    {
        assert_eq!(moved(&end, start_at, end_at), Err(EndsBeforeStart));
    }
}

#[test]
fn names_round_trip() {
    for state in BotState::ALL {
        assert_eq!(BotState::parse(state.as_str()), Some(state));
    }
    for reason in EndReason::ALL {
        assert_eq!(EndReason::parse(reason.as_str()), Some(*reason));
    }
}

/// Something that is said of a bot.
#[derive(Debug, Clone)]
enum Said {
    /// By itself, in its turn or so many numbers off.
    Reported { off: i64, body: ReportBody },
    /// By the server: it is to leave, for this reason.
    AskedToLeave(EndReason),
    /// By the server: it has ended.
    Ended(EndReason),
}

fn said() -> impl Strategy<Value = Said> {
    let reason = || proptest::sample::select(EndReason::ALL);
    let state = proptest::sample::select(BotState::ALL.as_slice())
        .prop_filter("not final", |state| !state.is_final());
    let body = prop_oneof![
        4 => state.prop_map(ReportBody::Entered),
        1 => reason().prop_map(|reason| ReportBody::Ended(end(reason))),
        1 => Just(ReportBody::Happened { event_type: "LOG".into(), data: None }),
    ];
    let off = prop_oneof![6 => Just(0_i64), 1 => -3_i64..0, 1 => 1_i64..4];
    prop_oneof![
        10 => (off, body).prop_map(|(off, body)| Said::Reported { off, body }),
        1 => reason().prop_map(Said::AskedToLeave),
        1 => reason().prop_map(Said::Ended),
    ]
}

/// A life in the plainest words.
#[derive(Debug, Clone, PartialEq)]
struct Plain {
    states: Vec<BotState>,
    end: Option<EndReason>,
    reports: i64,
    joined_s: Option<i64>,
    ended_s: Option<i64>,
}

impl Plain {
    fn state(&self) -> BotState {
        *self.states.last().expect("it begins with one")
    }

    fn enter(&mut self, state: BotState, now_s: i64) {
        let rank = |state: BotState| BotState::ALL.iter().position(|known| *known == state);
        let forward = rank(state) > rank(self.state());
        let pauses = (self.state(), state) == (BotState::Recording, BotState::InCall);
        if self.end.is_some() || !(forward || pauses) {
            return;
        }
        self.states.push(state);
        if matches!(state, BotState::InCall | BotState::Recording) {
            self.joined_s.get_or_insert(now_s);
        }
    }

    fn end(&mut self, reason: EndReason, now_s: i64) {
        if self.end.is_none() {
            (self.end, self.ended_s) = (Some(reason), Some(now_s));
            self.states.push(reason.outcome().state());
        }
    }

    fn of(bot: &Bot, states: Vec<BotState>) -> Self {
        let seconds = |at: DateTime<Utc>| (at - bot.created_at).num_seconds();
        Self {
            states,
            end: bot.end.as_ref().map(|end| end.reason),
            reports: bot.report_seq,
            joined_s: bot.joined_at.map(seconds),
            ended_s: bot.ended_at.map(seconds),
        }
    }
}

proptest! {
    /// Whatever is said, in whatever order and however often: the life is that of the plain one, each step writes the
    /// bot once, one version on, and its history has a line for each state that it entered.
    #[test]
    fn a_life_is_what_plain_words_say(steps in proptest::collection::vec(said(), 0..40)) {
        let mut bot = sample::bot(1);
        let mut plain =
            Plain { states: vec![bot.state], end: None, reports: 0, joined_s: None, ended_s: None };
        let mut seen = vec![bot.state];
        for (now_s, step) in (1..).zip(steps) {
            let now = bot.created_at + TimeDelta::seconds(now_s);
            let before = bot.clone();
            let changes = match step {
                Said::AskedToLeave(reason) => {
                    bot.leave = Some(reason);
                    continue;
                }
                Said::Ended(reason) => {
                    plain.end(reason, now_s);
                    let (next, changes) = ended(&bot, end(reason), now);
                    bot = next;
                    changes
                }
                Said::Reported { off, body } => {
                    let seq = bot.report_seq + 1 + off;
                    let taken = take_report(&bot, Report { seq, at: now, body: body.clone() }, now);
                    if off == 0 {
                        plain.reports += 1;
                        match body {
                            ReportBody::Entered(state) => plain.enter(state, now_s),
                            ReportBody::Ended(end) if end.reason == EndReason::LeftByRequest => {
                                plain.end(bot.leave.unwrap_or(EndReason::LeftByRequest), now_s);
                            }
                            ReportBody::Ended(end) => plain.end(end.reason, now_s),
                            ReportBody::Happened { .. } => {}
                        }
                    }
                    match taken {
                        Ok(Taken::Advanced(next, changes)) => {
                            prop_assert_eq!(off, 0);
                            bot = *next;
                            changes
                        }
                        Ok(Taken::Repeated) => {
                            prop_assert!(off < 0);
                            vec![]
                        }
                        Err(gap) => {
                            prop_assert!(off > 0);
                            prop_assert_eq!(gap.expected, bot.report_seq + 1);
                            vec![]
                        }
                    }
                }
            };
            if bot.state != before.state {
                seen.push(bot.state);
            }
            prop_assert_eq!(&Plain::of(&bot, seen.clone()), &plain);
            let written: Vec<&Change> = changes.iter().filter(|change| matches!(change, Change::WriteBot(_))).collect();
            let steps = i64::from(!changes.is_empty());
            prop_assert_eq!((written.len() as i64, bot.version - before.version), (steps, steps));
            prop_assert!(changes.is_empty() || written == [&Change::WriteBot(Box::new(bot.clone()))]);
            let is_told = |change: &Change| matches!(change, Change::InsertEvent(event) if event.event_type == bot.state.as_str());
            prop_assert!(bot.state == before.state || changes.iter().any(is_told));
        }
    }
}
