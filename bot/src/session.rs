//! One bot's time in its meeting: sets the stage, joins, follows, leaves, and hands over what the meeting machine and
//! the recorder say to the outbox. What happens when is decided in `meeting.rs`; here it is carried out.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use meeboter_bot::{Assignment, SPOOL_DIR, WireEndReason, WireEventType, WireState};
use slog::{Logger, error, info, warn};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::backoff::Backoff;
use crate::client::BotClient;
use crate::meeting::{Action, End, JOIN_LIMIT, Meeting, final_state};
use crate::orders::OrderBook;
use crate::platform::{Platform, PlatformError, platform_of};
use crate::process::Spawner;
use crate::recorder::{Recorder, RecorderEvent};
use crate::reports::{Outbox, drained, send_all};
use crate::spool::Spool;
use crate::stage::Stage;
use crate::telemetry::chain;
use crate::upload::{UploadError, Uploader};

/// How often the page is looked at.
const POLL: Duration = Duration::from_millis(500);
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Waits before a page that could not be opened, or not be asked on, is tried again.
const REOPEN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// What a session needs.
pub(crate) struct Session {
    /// The bot's configuration.
    pub(crate) assignment: Assignment,
    /// The server.
    pub(crate) client: BotClient,
    /// What the bot is told.
    pub(crate) orders: OrderBook,
    /// Starts children.
    pub(crate) spawner: Spawner,
    /// Where the spool goes.
    pub(crate) work_dir: PathBuf,
    /// The log, with the bot's ids.
    pub(crate) log: Logger,
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum SessionEnd {
    /// The server knows the end.
    Reported(String),
    /// The server could not be told.
    Unreported(String),
    /// The slot belongs to somebody else.
    Fenced,
}

impl Session {
    /// The whole of it.
    pub(crate) async fn run(self) -> SessionEnd {
        let outbox = Outbox::default();
        // Dropped, and with it ended, at the end of this function.
        let mut tasks = JoinSet::new();
        let interval = Duration::from_millis(self.assignment.heartbeat_interval_ms);
        tasks.spawn(crate::heartbeat::beat(
            self.client.clone(),
            self.orders.clone(),
            interval,
            self.log.clone(),
        ));
        let first_seq = self.assignment.next_report_seq;
        let sender =
            send_all(outbox.clone(), self.client.clone(), self.orders.clone(), first_seq, self.log.clone());
        tasks.spawn(sender);
        outbox.status(WireState::JoiningCall);

        let end = match Spool::open(self.work_dir.join(SPOOL_DIR)) {
            Ok(spool) => self.attend(&outbox, spool).await,
            Err(error) => internal(format!("the spool cannot be made: {error}")),
        };
        let state = final_state(end.reason);
        info!(self.log, "the meeting is over for this bot"; "reason" => ?end.reason, "detail" => &end.detail);
        outbox.end(state, end.reason, &end.detail);
        let summary = format!("{:?}: {}", end.reason, end.detail);
        let all_taken = tokio::select! {
            taken = drained(&outbox, &self.orders, self.client.reach()) => taken,
            () = self.orders.until(|orders| orders.stops > 1) => false,
        };
        match (self.orders.now().fenced, all_taken) {
            (true, _) => SessionEnd::Fenced,
            (false, true) => SessionEnd::Reported(summary),
            (false, false) => SessionEnd::Unreported(summary),
        }
    }

    /// From the first window to the last uploaded piece.
    async fn attend(&self, outbox: &Outbox, spool: Spool) -> End {
        let uploader = Uploader::start(spool.clone(), self.client.clone(), self.log.clone());
        let mut platform = match platform_of(&self.assignment) {
            Ok(platform) => platform,
            Err(error) => return self.refused(&error),
        };
        let stage = tokio::select! {
            biased;
            () = self.orders.until(|orders| orders.must_leave()) => return self.ordered_out(),
            stage = Stage::start(&self.spawner, &self.work_dir, platform.browser_flags()) => stage,
        };
        let mut stage = match stage {
            Ok(stage) => stage,
            Err(error) => {
                error!(self.log, "the stage cannot be set"; "error" => chain(&error));
                return internal(chain(&error));
            }
        };
        info!(self.log, "stage set"; "display" => stage.display.name());
        let (end, recorder) = Attendance::new(self, outbox, &mut stage, platform.as_mut(), spool).run().await;

        let leave = async {
            if end.inside {
                let left = tokio::time::timeout(LEAVE_TIMEOUT, platform.leave(&stage.browser.page())).await;
                if let Ok(Err(error)) = left {
                    warn!(self.log, "could not leave politely"; "error" => chain(&error));
                }
            }
        };
        let finish = async {
            if let Some(recorder) = recorder {
                recorder.stop().await;
            }
        };
        tokio::join!(leave, finish);
        stage.stop().await;
        self.finish_upload(uploader, end, outbox).await
    }

    async fn finish_upload(&self, uploader: Uploader, end: End, outbox: &Outbox) -> End {
        let result = tokio::select! {
            result = uploader.finish() => result,
            () = self.orders.until(|orders| orders.stops > 1) => {
                warn!(self.log, "told twice to stop: the rest of the recording stays in the spool");
                return end;
            }
        };
        match result {
            Ok(pieces) => {
                info!(self.log, "recording uploaded"; "pieces" => pieces);
                end
            }
            Err(error @ UploadError::Fenced) => {
                warn!(self.log, "upload ended"; "error" => chain(&error));
                end
            }
            Err(error) => {
                error!(self.log, "upload failed"; "error" => chain(&error));
                if final_state(end.reason) == WireState::Fatal {
                    outbox.log(&chain(&error));
                    return end;
                }
                End { reason: WireEndReason::UploadFailed, detail: chain(&error), inside: false }
            }
        }
    }

    fn refused(&self, error: &PlatformError) -> End {
        error!(self.log, "this meeting cannot be joined"; "error" => chain(error));
        End { reason: WireEndReason::JoinBlocked, detail: chain(error), inside: false }
    }

    fn ordered_out(&self) -> End {
        let detail = order_detail(&self.orders).to_owned();
        End { reason: WireEndReason::LeftByRequest, detail, inside: false }
    }
}

fn internal(detail: String) -> End {
    End { reason: WireEndReason::Internal, detail, inside: false }
}

fn order_detail(orders: &OrderBook) -> &'static str {
    let orders = orders.now();
    if orders.fenced {
        "the server gave the slot to somebody else"
    } else if orders.stops > 0 {
        "the program was told to stop"
    } else {
        "the server asked the bot to leave"
    }
}

/// The part of a session that needs the stage.
struct Attendance<'a> {
    session: &'a Session,
    outbox: &'a Outbox,
    stage: &'a mut Stage,
    platform: &'a mut dyn Platform,
    spool: Spool,
    meeting: Meeting,
    began: Instant,
    recorder: Option<Recorder>,
    /// The sound server is gone.
    is_silent: bool,
}

impl<'a> Attendance<'a> {
    fn new(
        session: &'a Session,
        outbox: &'a Outbox,
        stage: &'a mut Stage,
        platform: &'a mut dyn Platform,
        spool: Spool,
    ) -> Self {
        let assignment = &session.assignment;
        let begins_at = Duration::from_millis(assignment.starts_in_ms);
        let (limits, records) = (assignment.automatic_leave, assignment.recording_enabled);
        let meeting = Meeting::new(limits, records, Duration::ZERO, begins_at);
        let began = Instant::now();
        Self { session, outbox, stage, platform, spool, meeting, began, recorder: None, is_silent: false }
    }

    async fn run(mut self) -> (End, Option<Recorder>) {
        if let Some(detail) = self.enter().await {
            warn!(self.session.log, "joining failed"; "detail" => &detail);
            let actions = self.meeting.fail(WireEndReason::Internal, detail);
            if let Some(end) = self.carry_out(actions) {
                return (end, None);
            }
        }
        let end = self.follow().await;
        (end, self.recorder)
    }

    /// Opens the page and asks to join, until the page shows what came of it, or the bot has to leave. Why it could not
    /// be done in time, where it could not.
    async fn enter(&mut self) -> Option<String> {
        let (page, session) = (self.stage.browser.page(), self.session);
        let mut last = None;
        let limit = tokio::time::sleep(JOIN_LIMIT);
        tokio::pin!(limit);
        let mut backoff = Backoff::new(REOPEN.0, REOPEN.1);
        loop {
            let joined = tokio::select! {
                biased;
                () = session.orders.until(|orders| orders.must_leave()) => return None,
                () = &mut limit => break,
                joined = join(self.platform, &page, session) => joined,
            };
            let Err(error) = joined else { return None };
            let error = chain(&error);
            if self.stage.browser.is_gone() {
                return Some(error);
            }
            warn!(session.log, "not joined, trying again"; "error" => &error);
            last = Some(error);
            tokio::select! {
                () = session.orders.until(|orders| orders.must_leave()) => return None,
                () = &mut limit => break,
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
            // A step that failed may have been taken all the same, and the page may say why it was not.
            if self.platform.observe(&page).await.is_settled() {
                return None;
            }
        }
        if self.platform.observe(&page).await.is_settled() {
            return None;
        }
        let detail = format!("asking to join took longer than {} s", JOIN_LIMIT.as_secs());
        Some(last.map_or(detail.clone(), |last| format!("{detail}: {last}")))
    }

    /// Looks, again and again, until the machine says that it is over.
    async fn follow(&mut self) -> End {
        let page = self.stage.browser.page();
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let actions = tokio::select! {
                biased;
                () = self.session.orders.until(|orders| orders.must_leave()) => {
                    self.meeting.leave_by_request(order_detail(&self.session.orders))
                }
                event = next_event(&mut self.recorder) => self.hear_recorder(event),
                seen = async { ticks.tick().await; self.platform.observe(&page).await } => {
                    self.watch_sound();
                    let audible = self.stage.sound.take_audible();
                    let mut actions = self.meeting.observe(seen, audible, self.began.elapsed());
                    if self.stage.browser.is_gone() {
                        actions.extend(self.meeting.fail(WireEndReason::Internal, "the browser or its page crashed".to_owned()));
                    }
                    actions
                }
            };
            if let Some(end) = self.carry_out(actions) {
                return end;
            }
        }
    }

    /// Says, once, that the sound server died: the picture goes on, and silence counts for nothing any more.
    fn watch_sound(&mut self) {
        if !self.is_silent && self.stage.sound.is_gone() {
            self.is_silent = true;
            error!(self.session.log, "the sound server died");
            self.outbox.log("the sound server died; the recording goes on without sound");
        }
    }

    fn hear_recorder(&mut self, event: RecorderEvent) -> Vec<Action> {
        let log = &self.session.log;
        match event {
            RecorderEvent::Began { run } => {
                info!(log, "recording"; "run" => run);
                self.meeting.recorder_began()
            }
            RecorderEvent::Broke { detail } => {
                self.outbox.log(&format!("the recorder broke off, and begins anew: {detail}"));
                self.meeting.recorder_broke()
            }
            RecorderEvent::Full { detail } => {
                error!(log, "recording pauses"; "detail" => &detail);
                self.outbox.log(&format!("nothing is recorded until there is room again: {detail}"));
                self.meeting.recorder_broke()
            }
            // A bot that is there to record and cannot has no business in the meeting.
            RecorderEvent::GaveUp { detail } => {
                self.meeting.fail(WireEndReason::Internal, format!("the recorder gave up: {detail}"))
            }
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) -> Option<End> {
        let mut end = None;
        for action in actions {
            match action {
                Action::Report(state) => {
                    info!(self.session.log, "state"; "state" => ?state);
                    self.outbox.status(state);
                }
                Action::StartRecorder => self.start_recorder(),
                Action::PersonCame(id) => self.outbox.participant(WireEventType::ParticipantJoin, &id),
                Action::PersonWent(id) => self.outbox.participant(WireEventType::ParticipantLeave, &id),
                Action::Note(text) => {
                    warn!(self.session.log, "note"; "text" => text);
                    self.outbox.log(text);
                }
                Action::End(reached) => end = Some(reached),
            }
        }
        end
    }

    fn start_recorder(&mut self) {
        let (session, stage) = (self.session, &self.stage);
        let (spool, segment_ms) = (self.spool.clone(), session.assignment.segment_ms);
        let log = session.log.clone();
        self.recorder =
            Some(Recorder::start(&session.spawner, &stage.display, &stage.sound, spool, segment_ms, log));
    }
}

/// Opens the meeting's page anew and asks to join.
async fn join(
    platform: &mut dyn Platform,
    page: &crate::browser::Page,
    session: &Session,
) -> Result<(), PlatformError> {
    platform.open(page).await?;
    info!(session.log, "page opened");
    platform.join(page, &session.assignment.display_name).await
}

/// The recorder's next event; does not resolve where there is no recorder.
async fn next_event(recorder: &mut Option<Recorder>) -> RecorderEvent {
    match recorder {
        Some(recorder) => recorder.event().await,
        None => std::future::pending().await,
    }
}
