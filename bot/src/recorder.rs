//! The recorder: ffmpeg takes picture and sound and leaves HLS segments (fMP4) in the spool.
//!
//! A task watches it: where ffmpeg dies or stalls a new run begins, and again for as long as the meeting goes on; where
//! the spool is full recording pauses until there is room.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use meeboter_bot::SegmentPart;
use rustix::process::Signal;
use slog::{Logger, info, warn};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::backoff::Backoff;
use crate::display::{Display, HEIGHT, WIDTH};
use crate::process::{Child, SpawnError, Spawner};
use crate::sound::{MONITOR, Sound};
use crate::spool::{LIST_FILE, SPOOL_MAX_BYTES, Spool, file_name};
use crate::telemetry::chain;

/// Pictures a second.
const FRAME_RATE: u32 = 15;
/// Time without a new picture after which ffmpeg counts as stalled.
const STALL_LIMIT: Duration = Duration::from_secs(30);
const QUIT_TIMEOUT: Duration = Duration::from_secs(15);
const INTERRUPT_TIMEOUT: Duration = Duration::from_secs(5);
const SPOOL_CHECK: Duration = Duration::from_secs(2);

/// A recorder that could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecorderError {
    /// ffmpeg did not start.
    #[error("the recorder cannot be started")]
    Spawn(#[from] SpawnError),
    /// The spool cannot be used.
    #[error("the spool cannot be used")]
    Spool(#[from] std::io::Error),
    /// All numbers are taken.
    #[error("the recorder was restarted too often")]
    TooManyRuns,
}

/// What the recorder tells while it works.
#[derive(Debug)]
pub(crate) enum RecorderEvent {
    /// Pictures come in.
    Began {
        /// The run, from 1.
        run: u32,
    },
    /// It broke off; another run is on its way. Said once until pictures come in again.
    Broke {
        /// Why.
        detail: String,
    },
    /// Nothing is recorded until there is room for it again.
    Full {
        /// How much there is.
        detail: String,
    },
    /// No more will be recorded: the recorder does not work here.
    GaveUp {
        /// Why.
        detail: String,
    },
}

/// The running recorder.
#[derive(Debug)]
pub(crate) struct Recorder {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    events: mpsc::Receiver<RecorderEvent>,
    is_over: bool,
}

impl Recorder {
    /// Starts recording `display` and `sound` into `spool`.
    pub(crate) fn start(
        spawner: &Spawner,
        display: &Display,
        sound: &Sound,
        spool: Spool,
        segment_ms: u64,
        log: Logger,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (sender, events) = mpsc::channel(16);
        let mut blueprint = Command::new("ffmpeg");
        sound.lend_to_recorder(&mut blueprint);
        let environment = blueprint.as_std().get_envs();
        let environment =
            environment.filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
        let watcher = Watcher {
            spawner: spawner.clone(),
            display: display.name(),
            environment,
            spool,
            segment_ms: segment_ms.max(1_000),
            stopped,
            events: sender,
            is_broken: false,
            log,
        };
        Self { stop, task: tokio::spawn(watcher.watch()), events, is_over: false }
    }

    /// The next event; does not resolve where none can come any more.
    pub(crate) async fn event(&mut self) -> RecorderEvent {
        if self.is_over {
            return std::future::pending().await;
        }
        let event = self.events.recv().await;
        let event = event.unwrap_or(RecorderEvent::GaveUp { detail: "its task broke off".to_owned() });
        self.is_over = matches!(event, RecorderEvent::GaveUp { .. });
        event
    }

    /// Finishes the last segment and ends.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        let limit = QUIT_TIMEOUT + INTERRUPT_TIMEOUT + Duration::from_secs(5);
        // Past the limit the task is dropped, and ffmpeg is killed with it.
        let _ = tokio::time::timeout(limit, &mut self.task).await;
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum RunEnd {
    Stopped,
    Full,
    Broke(String),
}

struct Watcher {
    spawner: Spawner,
    display: String,
    environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    spool: Spool,
    segment_ms: u64,
    stopped: watch::Receiver<bool>,
    events: mpsc::Sender<RecorderEvent>,
    /// It was told that nothing is recorded, and nothing was since.
    is_broken: bool,
    log: Logger,
}

impl Watcher {
    async fn watch(mut self) {
        if let Err(error) = self.watch_runs().await {
            self.tell(RecorderEvent::GaveUp { detail: chain(&error) }).await;
        }
    }

    async fn watch_runs(&mut self) -> Result<(), RecorderError> {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        loop {
            let began = Instant::now();
            let end = match self.next_run().await {
                Err(error @ RecorderError::TooManyRuns) => return Err(error),
                // A disk that is full, or too many processes: that passes, and the meeting goes on.
                Err(error) => RunEnd::Broke(chain(&error)),
                Ok(end) => end,
            };
            match end {
                RunEnd::Stopped => return Ok(()),
                RunEnd::Full => {
                    let detail = format!("the spool is full ({SPOOL_MAX_BYTES} bytes)");
                    self.tell_broken(RecorderEvent::Full { detail }).await;
                    if self.stopped_before_there_is_room().await {
                        return Ok(());
                    }
                }
                RunEnd::Broke(detail) => {
                    warn!(self.log, "recorder broke off"; "detail" => &detail);
                    self.tell_broken(RecorderEvent::Broke { detail }).await;
                }
            }
            if began.elapsed() > Duration::from_secs(60) {
                backoff.reset();
            }
            let mut stopped = self.stopped.clone();
            if tokio::time::timeout(backoff.next_delay(), raised(&mut stopped)).await.is_ok() {
                return Ok(());
            }
        }
    }

    async fn next_run(&mut self) -> Result<RunEnd, RecorderError> {
        let (run, folder) = self.spool.begin_run()?.ok_or(RecorderError::TooManyRuns)?;
        Ok(match self.one_run(run, &folder).await? {
            RunEnd::Broke(why) => RunEnd::Broke(format!("run {run}: {why}")),
            end => end,
        })
    }

    /// Waits until half of the spool is free.
    async fn stopped_before_there_is_room(&self) -> bool {
        let mut stopped = self.stopped.clone();
        let mut check = tokio::time::interval(SPOOL_CHECK);
        loop {
            tokio::select! {
                biased;
                () = raised(&mut stopped) => return true,
                _ = check.tick() => if self.spool.bytes().is_ok_and(|bytes| bytes < SPOOL_MAX_BYTES / 2) {
                    return false;
                }
            }
        }
    }

    async fn one_run(&mut self, run: u32, folder: &Path) -> Result<RunEnd, RecorderError> {
        let mut command = self.spawner.command("ffmpeg");
        command.args(arguments(&self.display, self.segment_ms, folder));
        command.envs(self.environment.iter().cloned()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut ffmpeg = self.spawner.spawn("ffmpeg", command)?;
        let Some(stdout) = ffmpeg.take_stdout() else {
            return Ok(RunEnd::Broke("no progress pipe".to_owned()));
        };
        let mut progress = Progress { lines: BufReader::new(stdout).lines(), frames: 0 };
        let mut last_frame = Instant::now();
        let mut check = tokio::time::interval(SPOOL_CHECK);
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                biased;
                () = raised(&mut stopped) => {
                    quit(ffmpeg).await;
                    info!(self.log, "recorder finished"; "run" => run, "frames" => progress.frames);
                    return Ok(RunEnd::Stopped);
                }
                frames = progress.next() => match frames {
                    Some(frames) => {
                        last_frame = Instant::now();
                        if frames.is_first {
                            self.is_broken = false;
                            self.tell(RecorderEvent::Began { run }).await;
                        }
                    }
                    None => {
                        let status = tokio::time::timeout(INTERRUPT_TIMEOUT, ffmpeg.wait()).await;
                        let status = status.ok().and_then(Result::ok).map_or("closed".to_owned(), |s| s.to_string());
                        let said = ffmpeg.last_words();
                        return Ok(RunEnd::Broke(format!("ffmpeg ended by itself ({status}): {said}")));
                    }
                },
                _ = check.tick() => {
                    if last_frame.elapsed() >= STALL_LIMIT {
                        ffmpeg.stop(Signal::KILL, Duration::ZERO).await;
                        return Ok(RunEnd::Broke(format!("no picture for {} s", STALL_LIMIT.as_secs())));
                    }
                    // Not to know how much there is ends no recording.
                    if self.spool.bytes().is_ok_and(|bytes| bytes >= SPOOL_MAX_BYTES) {
                        quit(ffmpeg).await;
                        return Ok(RunEnd::Full);
                    }
                }
            }
        }
    }

    async fn tell_broken(&mut self, event: RecorderEvent) {
        if !std::mem::replace(&mut self.is_broken, true) {
            self.tell(event).await;
        }
    }

    async fn tell(&self, event: RecorderEvent) {
        // Nobody listens any more once the meeting is over.
        let _ = self.events.send(event).await;
    }
}

/// Resolves when the recorder has to stop, or nobody is left to tell it.
async fn raised(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Lets ffmpeg finish its last segment: by its own key, then by an interrupt, then not at all.
async fn quit(mut ffmpeg: Child) {
    if let Some(mut stdin) = ffmpeg.take_stdin() {
        let _ = stdin.write_all(b"q").await;
        let _ = stdin.flush().await;
        if tokio::time::timeout(QUIT_TIMEOUT, ffmpeg.wait()).await.is_ok() {
            return;
        }
    }
    ffmpeg.stop(Signal::INT, INTERRUPT_TIMEOUT).await;
}

/// The growing number of frames, from what `-progress` writes.
struct Progress {
    lines: Lines<BufReader<ChildStdout>>,
    frames: u64,
}

struct Frames {
    is_first: bool,
}

impl Progress {
    /// Resolves when the number has grown; `None` when ffmpeg closed the pipe. May be dropped at any time.
    async fn next(&mut self) -> Option<Frames> {
        loop {
            let line = self.lines.next_line().await.ok()??;
            let Some(frames) = line.strip_prefix("frame=").and_then(|count| count.trim().parse::<u64>().ok())
            else {
                continue;
            };
            if frames > self.frames {
                let is_first = self.frames == 0;
                self.frames = frames;
                return Some(Frames { is_first });
            }
        }
    }
}

fn arguments(display: &str, segment_ms: u64, folder: &Path) -> Vec<String> {
    let segment_s = format!("{}.{:03}", segment_ms / 1000, segment_ms % 1000);
    let file = |name: &str| -> PathBuf { folder.join(name) };
    let mut list: Vec<String> = Vec::new();
    let mut add = |line: &str| list.extend(line.split_whitespace().map(str::to_owned));
    add("-hide_banner -loglevel warning -nostats -progress pipe:1 -stats_period 0.5");
    add(&format!("-f x11grab -framerate {FRAME_RATE} -video_size {WIDTH}x{HEIGHT} -draw_mouse 0"));
    add(&format!("-thread_queue_size 512 -i {display}"));
    // Without a fragment size the monitor of a null sink delivers in lumps of up to two seconds.
    add(&format!(
        "-f pulse -sample_rate 48000 -channels 2 -fragment_size 3840 -thread_queue_size 1024 -i {MONITOR}"
    ));
    add("-map 0:v -map 1:a");
    // A constant rate repeats pictures that came late, so that the length stays that of the clock on the wall.
    add(&format!(
        "-vsync cfr -r {FRAME_RATE} -c:v libx264 -preset ultrafast -crf 27 -pix_fmt yuv420p -threads 1"
    ));
    add(&format!("-sc_threshold 0 -g 600 -force_key_frames expr:gte(t,n_forced*{segment_s})"));
    // Gaps in the sound are filled, so that it keeps step with the picture; never stretched, which would be heard.
    add("-af aresample=async=1:first_pts=0 -c:a aac -b:a 96k -ar 48000 -ac 2");
    add(&format!("-f hls -hls_time {segment_s} -hls_segment_type fmp4 -hls_list_size 0 -start_number 1"));
    add("-hls_flags temp_file+independent_segments -hls_fmp4_init_filename");
    // Paths may hold blanks: they go in as they are.
    list.push(file_name(SegmentPart::Init));
    list.push("-hls_segment_filename".to_owned());
    list.push(file("%06d.m4s").to_string_lossy().into_owned());
    list.push(file(LIST_FILE).to_string_lossy().into_owned());
    list
}
