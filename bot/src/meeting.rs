//! The life of a bot in its meeting, as a pure machine: observations, limits and time in, actions out.
//!
//! No I/O, no clock, no randomness may live here. Time is a [`Duration`] since the bot began; the shell in
//! `session.rs` polls the page, hands in what it saw and carries out the actions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meeboter_bot::{AutomaticLeave, WireEndReason, WireState};

/// Longest time from the start until the page shows a waiting room or a call.
pub(crate) const JOIN_LIMIT: Duration = Duration::from_secs(180);
/// How long the call may be gone from a page that answers before the bot counts as out.
pub(crate) const ABSENCE_LIMIT: Duration = Duration::from_secs(30);
/// How many polls in a row must miss the call, however slow they are.
pub(crate) const ABSENCE_POLLS: u32 = 3;
/// How long a page may fail to answer at all.
pub(crate) const UNKNOWN_LIMIT: Duration = Duration::from_secs(120);
/// Silence from the start of a call after which it is worth a note: more often a broken sound than a quiet meeting.
const UNHEARD_NOTE: Duration = Duration::from_secs(60);
/// Polls in a row without a participant before they count as gone: lists are redrawn under our eyes.
const PERSON_MISSES: u32 = 3;
/// Most participants that are followed one by one.
const PEOPLE_MAX: usize = 1_000;

/// What one look at the page says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Observation {
    /// The page did not answer, or the look failed: no evidence of anything.
    Unknown,
    /// The page answered and shows neither waiting room nor call.
    NotReady,
    /// Asked to join, not yet let in.
    WaitingRoom,
    /// In the call.
    InCall(Call),
    /// The page says that it is over.
    Over(Ending),
}

impl Observation {
    /// True where the page shows what came of asking to join.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self, Self::WaitingRoom | Self::InCall(_) | Self::Over(_))
    }
}

/// What a look at a call says of it; `None` where the page did not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Call {
    /// Ids of the other participants.
    pub(crate) people: Option<BTreeSet<String>>,
    /// How many others there are.
    pub(crate) others: Option<usize>,
}

/// The ways in which a page says that it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The host ended the meeting.
    MeetingEnded,
    /// A host removed the bot.
    Removed,
    /// A host refused the bot.
    Denied,
    /// No such meeting.
    NotFound,
    /// The meeting wants an account.
    SignInRequired,
    /// A captcha stands in the way.
    Captcha,
    /// The platform does not let this client join.
    Blocked,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Report this state.
    Report(WireState),
    /// Start the recorder.
    StartRecorder,
    /// Report that this participant came.
    PersonCame(String),
    /// Report that this participant went.
    PersonWent(String),
    /// Report a line worth keeping.
    Note(&'static str),
    /// Finish; said once.
    End(End),
}

/// How the meeting ended for the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// The reason on the wire.
    pub(crate) reason: WireEndReason,
    /// A sentence for people.
    pub(crate) detail: String,
    /// True: the bot is still in the meeting (or its waiting room) and has to leave it.
    pub(crate) inside: bool,
}

/// The state a reason ends in.
pub(crate) fn final_state(reason: WireEndReason) -> WireState {
    use WireEndReason as R;
    match reason {
        R::MeetingEnded
        | R::EveryoneLeft
        | R::LeftByRequest
        | R::WaitingRoomTimeout
        | R::NobodyJoined
        | R::Inactivity
        | R::Removed => WireState::Done,
        R::Denied
        | R::MeetingNotFound
        | R::SignInRequired
        | R::Captcha
        | R::JoinBlocked
        | R::UploadFailed
        | R::Internal => WireState::Fatal,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining,
    Waiting,
    InCall,
    Ended,
}

/// The machine; see the module.
#[derive(Debug)]
pub(crate) struct Meeting {
    limits: AutomaticLeave,
    /// When the meeting is to begin: no limit's clock starts before.
    begins_at: Duration,
    recording_enabled: bool,
    phase: Phase,
    /// When the present phase began.
    phase_since: Duration,
    /// Since when the host keeps the bot waiting.
    waiting_since: Option<Duration>,
    absent_since: Option<(Duration, u32)>,
    unknown_since: Option<Duration>,
    /// Participants, and how many polls in a row missed each.
    people: BTreeMap<String, u32>,
    others_seen: bool,
    alone_since: Option<Duration>,
    quiet_since: Option<Duration>,
    /// Something was heard, or it was noted that nothing was.
    sound_settled: bool,
}

impl Meeting {
    /// A bot that is about to open the page of a meeting that is to begin then.
    pub(crate) fn new(
        limits: AutomaticLeave,
        recording_enabled: bool,
        at: Duration,
        begins_at: Duration,
    ) -> Self {
        Self {
            limits,
            begins_at,
            recording_enabled,
            phase: Phase::Joining,
            phase_since: at,
            waiting_since: None,
            absent_since: None,
            unknown_since: None,
            people: BTreeMap::new(),
            others_seen: false,
            alone_since: None,
            quiet_since: None,
            sound_settled: false,
        }
    }

    /// True from the first sight of the call until the end.
    pub(crate) fn is_in_call(&self) -> bool {
        self.phase == Phase::InCall
    }

    /// Takes in one look at the page; `audible` says whether there was sound since the look before, where known.
    pub(crate) fn observe(&mut self, seen: Observation, audible: Option<bool>, at: Duration) -> Vec<Action> {
        if self.phase == Phase::Ended {
            return Vec::new();
        }
        let mut actions = Vec::new();
        if seen != Observation::Unknown {
            self.unknown_since = None;
        }
        match seen {
            Observation::Over(ending) => self.end_by_page(ending, &mut actions),
            Observation::InCall(call) => self.see_call(call, audible, at, &mut actions),
            Observation::WaitingRoom => self.see_waiting_room(at, &mut actions),
            Observation::NotReady => self.see_nothing(at, &mut actions),
            Observation::Unknown => self.see_unknown(at, &mut actions),
        }
        actions
    }

    /// The recorder takes in pictures.
    pub(crate) fn recorder_began(&self) -> Vec<Action> {
        if self.is_in_call() { vec![Action::Report(WireState::Recording)] } else { Vec::new() }
    }

    /// The recorder broke off in the middle of the call.
    pub(crate) fn recorder_broke(&self) -> Vec<Action> {
        if self.is_in_call() { vec![Action::Report(WireState::InCall)] } else { Vec::new() }
    }

    /// The server, or a signal, wants the bot out.
    pub(crate) fn leave_by_request(&mut self, detail: &str) -> Vec<Action> {
        self.end_once(WireEndReason::LeftByRequest, detail.to_owned(), self.phase != Phase::Joining)
    }

    /// Something the bot cannot go on without failed.
    pub(crate) fn fail(&mut self, reason: WireEndReason, detail: String) -> Vec<Action> {
        self.end_once(reason, detail, self.phase != Phase::Joining)
    }

    fn end_once(&mut self, reason: WireEndReason, detail: String, inside: bool) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase != Phase::Ended {
            self.end(reason, detail, inside, &mut actions);
        }
        actions
    }

    fn end(&mut self, reason: WireEndReason, detail: String, inside: bool, actions: &mut Vec<Action>) {
        if self.phase == Phase::InCall {
            actions.push(Action::Report(WireState::Leaving));
        }
        self.phase = Phase::Ended;
        actions.push(Action::End(End { reason, detail, inside }));
    }

    fn enter(&mut self, phase: Phase, state: WireState, at: Duration, actions: &mut Vec<Action>) {
        self.phase = phase;
        self.phase_since = at;
        actions.push(Action::Report(state));
    }

    fn end_by_page(&mut self, ending: Ending, actions: &mut Vec<Action>) {
        let in_call = self.is_in_call();
        let (reason, detail) = match ending {
            Ending::MeetingEnded => (WireEndReason::MeetingEnded, "the host ended the meeting"),
            // Platforms use one wording for both; whether the bot had been let in decides.
            Ending::Removed | Ending::Denied if in_call => {
                (WireEndReason::Removed, "a host removed the bot from the meeting")
            }
            Ending::Removed | Ending::Denied => (WireEndReason::Denied, "a host did not let the bot in"),
            Ending::NotFound => {
                (WireEndReason::MeetingNotFound, "the page says that there is no such meeting")
            }
            Ending::SignInRequired => (WireEndReason::SignInRequired, "the meeting asks for an account"),
            Ending::Captcha => (WireEndReason::Captcha, "the page asks for a captcha"),
            Ending::Blocked => (WireEndReason::JoinBlocked, "the platform did not let this client join"),
        };
        self.end(reason, detail.to_owned(), false, actions);
    }

    fn see_call(&mut self, call: Call, audible: Option<bool>, at: Duration, actions: &mut Vec<Action>) {
        self.absent_since = None;
        self.waiting_since = None;
        if self.phase != Phase::InCall {
            self.enter(Phase::InCall, WireState::InCall, at, actions);
            self.quiet_since = Some(at.max(self.begins_at));
            if self.recording_enabled {
                actions.push(Action::StartRecorder);
            }
        }
        if let Some(people) = &call.people {
            self.follow_people(people, actions);
        }
        let others = call.others.or_else(|| call.people.as_ref().map(BTreeSet::len));
        self.check_company(others, at, actions);
        if self.is_in_call() {
            self.check_sound(audible, at, actions);
        }
    }

    fn follow_people(&mut self, present: &BTreeSet<String>, actions: &mut Vec<Action>) {
        for id in present {
            if !self.people.contains_key(id) && self.people.len() >= PEOPLE_MAX {
                continue;
            }
            if self.people.insert(id.clone(), 0).is_none() {
                actions.push(Action::PersonCame(id.clone()));
            }
        }
        self.people.retain(|id, misses| {
            if present.contains(id) {
                return true;
            }
            *misses += 1;
            if *misses >= PERSON_MISSES {
                actions.push(Action::PersonWent(id.clone()));
            }
            *misses < PERSON_MISSES
        });
    }

    fn check_company(&mut self, others: Option<usize>, at: Duration, actions: &mut Vec<Action>) {
        // An unknown count is never "alone": it neither starts the clock nor lets it run out.
        let Some(others) = others else { return };
        if others > 0 {
            self.others_seen = true;
            self.alone_since = None;
            return;
        }
        let since = *self.alone_since.get_or_insert(at.max(self.begins_at));
        let (limit, reason, detail) = if self.others_seen {
            (self.limits.everyone_left_timeout, WireEndReason::EveryoneLeft, "everybody else left")
        } else {
            (self.limits.no_one_joined_timeout, WireEndReason::NobodyJoined, "nobody else came")
        };
        if at.saturating_sub(since) >= Duration::from_millis(limit) {
            self.end(reason, format!("{detail}; waited {limit} ms"), true, actions);
        }
    }

    fn check_sound(&mut self, audible: Option<bool>, at: Duration, actions: &mut Vec<Action>) {
        match audible {
            Some(true) => {
                self.quiet_since = None;
                self.sound_settled = true;
            }
            // Not knowing is no silence: the clock starts anew.
            None => self.quiet_since = None,
            Some(false) => {
                if self.others_seen
                    && !self.sound_settled
                    && at.saturating_sub(self.phase_since) >= UNHEARD_NOTE
                {
                    self.sound_settled = true;
                    actions.push(Action::Note("nothing has been heard in this call so far"));
                }
                let limit = self.limits.inactivity_timeout;
                let since = *self.quiet_since.get_or_insert(at.max(self.begins_at));
                if at.saturating_sub(since) >= Duration::from_millis(limit) {
                    self.end(WireEndReason::Inactivity, format!("silence for {limit} ms"), true, actions);
                }
            }
        }
    }

    fn see_waiting_room(&mut self, at: Duration, actions: &mut Vec<Action>) {
        self.absent_since = None;
        if self.phase == Phase::Joining {
            self.enter(Phase::Waiting, WireState::InWaitingRoom, at, actions);
        }
        // A host may also put somebody back from the call; the reported state stays, the clock runs.
        let since = *self.waiting_since.get_or_insert(at.max(self.begins_at));
        let limit = self.limits.waiting_room_timeout;
        if at.saturating_sub(since) >= Duration::from_millis(limit) {
            let detail = format!("not let in within {limit} ms");
            self.end(WireEndReason::WaitingRoomTimeout, detail, true, actions);
        }
    }

    fn see_nothing(&mut self, at: Duration, actions: &mut Vec<Action>) {
        if self.phase == Phase::Joining {
            if at.saturating_sub(self.phase_since) >= JOIN_LIMIT {
                let seconds = JOIN_LIMIT.as_secs();
                let detail = format!("the page showed neither waiting room nor call within {seconds} s");
                self.end(WireEndReason::Internal, detail, false, actions);
            }
            return;
        }
        let (since, polls) = self.absent_since.map_or((at, 1), |(since, polls)| (since, polls + 1));
        self.absent_since = Some((since, polls));
        if polls >= ABSENCE_POLLS && at.saturating_sub(since) >= ABSENCE_LIMIT {
            let (reason, place) = match self.phase {
                Phase::InCall => (WireEndReason::Removed, "call"),
                Phase::Joining | Phase::Waiting | Phase::Ended => (WireEndReason::Denied, "waiting room"),
            };
            let detail = format!("the {place} was gone from the page for {} s", ABSENCE_LIMIT.as_secs());
            self.end(reason, detail, false, actions);
        }
    }

    fn see_unknown(&mut self, at: Duration, actions: &mut Vec<Action>) {
        let since = *self.unknown_since.get_or_insert(at);
        if at.saturating_sub(since) >= UNKNOWN_LIMIT {
            let detail = format!("the page did not answer for {} s", UNKNOWN_LIMIT.as_secs());
            self.end(WireEndReason::Internal, detail, true, actions);
        }
    }
}

#[cfg(test)]
#[path = "meeting_tests.rs"]
mod tests;
