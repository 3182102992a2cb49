//! The process driver, with shell scripts as bots.

use meeboter::driver::process::{ProcessDriver, ProcessSettings};
use meeboter_actors::ids::{
    BotId, ContainerId, ContainerKey, Generation, HostName, Operation, Platform, SlotId, SlotName,
};
use meeboter_actors::ports::{Driver, DriverError, Presence, ResourceLimits, StartRequest, StopRequest};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

/// Nothing here takes this long, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(30);
/// How soon an exit must be noticed.
const NOTICED: Duration = Duration::from_secs(3);

/// The only host that a process driver has.
fn here() -> HostName {
    HostName::local()
}

/// A host with one slot and a script for a bot. What a test leaves running is ended with it.
struct Bench {
    root: TempDir,
    installation: Uuid,
    slot: SlotId,
}

impl Bench {
    fn new(script: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let bench = Self { root, installation: Uuid::new_v4(), slot: SlotId(Uuid::new_v4()) };
        let text = bench.root.path().join("script");
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        // Not written by this process: a child forked meanwhile would hold the file open, and "text file busy" follow.
        let installed = Command::new("install").args(["-m", "755"]).arg(&text).arg(bench.program()).status();
        assert!(installed.unwrap().success());
        bench
    }

    fn program(&self) -> PathBuf {
        self.root.path().join("bot")
    }

    fn driver(&self) -> Arc<ProcessDriver> {
        self.driver_of(self.installation)
    }

    /// Every call is another server that works on the same host.
    fn driver_of(&self, installation: Uuid) -> Arc<ProcessDriver> {
        let settings = ProcessSettings {
            bot_program: self.program(),
            work_root: self.root.path().join("bots"),
            installation,
            server_url: "http://127.0.0.1:9".to_owned(),
            bots_max: 3,
            folders_kept: 50,
        };
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let tokens = Arc::new(|slot, generation| format!("token of {slot} {generation}"));
        Arc::new(ProcessDriver::new(settings, tokens, log))
    }

    fn key(&self, generation: i64) -> ContainerKey {
        ContainerKey { slot: self.slot, generation: Generation(generation) }
    }

    fn start(&self, generation: i64) -> StartRequest {
        StartRequest {
            host: here(),
            key: self.key(generation),
            slot_name: SlotName("pool-rehearsal-001".to_owned()),
            image: "none".to_owned(),
            limits: ResourceLimits::default(),
            operation: Operation(1),
            bot_id: BotId(1),
            platform: Platform("rehearsal".to_owned()),
            ephemeral: false,
        }
    }

    fn stop(&self, generation: i64, grace: Duration) -> StopRequest {
        StopRequest {
            host: here(),
            key: self.key(generation),
            container: None,
            operation: Operation(2),
            grace,
        }
    }

    fn folder(&self, generation: i64) -> PathBuf {
        self.root.path().join("bots").join(self.slot.to_string()).join(generation.to_string())
    }

    /// The text of a file the bot writes, as soon as it ends in a line's end.
    async fn written(&self, generation: i64, name: &str) -> String {
        let path = self.folder(generation).join(name);
        let mut text = String::new();
        eventually(&format!("{name} is written"), || {
            text = fs::read_to_string(&path).unwrap_or_default();
            text.ends_with('\n')
        })
        .await;
        text
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let marker = format!("MEEBOTER_MARKER={}/", self.installation);
        for pid in pids() {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            if environ.split(|byte| *byte == 0).any(|variable| variable.starts_with(marker.as_bytes())) {
                kill(pid, "KILL");
            }
        }
    }
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn kill(pid: i32, signal: &str) {
    let signal = format!("-{signal}");
    let _ = Command::new("kill").args([&signal, &pid.to_string()]).status();
}

fn pid_of(container: &ContainerId) -> i32 {
    container.0.split(':').next().unwrap().parse().unwrap()
}

/// Whether a process of this number runs; zombies do not.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, fields)| !fields.trim_start().starts_with('Z'))
}

fn session_of(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(3).unwrap().parse().unwrap()
}

/// Looks until it is so.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn within<T>(outcome: impl Future<Output = Result<T, DriverError>>) -> Result<T, DriverError> {
    tokio::time::timeout(LIMIT, outcome).await.unwrap()
}

const PATIENT: &str = "trap 'exit 0' TERM; echo ready > ready; while :; do sleep 60 & wait $!; done";

#[tokio::test]
async fn a_bot_leads_its_own_session_and_knows_what_it_should() {
    let bench = Bench::new("env | sort > env.part; mv env.part env; exec sleep 600");
    let driver = bench.driver();
    let container = within(driver.start(bench.start(4))).await.unwrap();
    let env = bench.written(4, "env").await;
    let value = |name: &str| env.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    assert_eq!(value("POOL_SLOT_UUID"), Some(bench.slot.to_string().as_str()));
    assert_eq!(value("MILO_URL"), Some("http://127.0.0.1:9"));
    assert_eq!(value("MILO_AUTH_TOKEN"), Some(format!("token of {} 4", bench.slot).as_str()));
    assert_eq!(value("MEEBOTER_WORK_DIR"), bench.folder(4).to_str());
    assert_eq!(value("MEEBOTER_WHEN_DONE"), Some("exit"));
    assert_eq!(value("CARGO_MANIFEST_DIR"), None, "the rest of the server's environment stays here");
    let pid = pid_of(&container);
    assert_eq!(session_of(pid), pid);
    within(driver.stop(bench.stop(4, Duration::ZERO))).await.unwrap();
    assert!(!runs(pid));
}

#[tokio::test]
async fn starting_again_finds_the_running_one_also_from_another_server_and_without_a_record() {
    let bench = Bench::new(PATIENT);
    let first = bench.driver();
    let container = within(first.start(bench.start(1))).await.unwrap();
    assert_eq!(within(first.start(bench.start(1))).await.unwrap(), container);
    bench.written(1, "ready").await;
    drop(first);
    let second = bench.driver();
    assert_eq!(within(second.start(bench.start(1))).await.unwrap(), container);
    // The crash came between the spawn and its record.
    fs::remove_file(bench.folder(1).join("process")).unwrap();
    assert_eq!(within(second.start(bench.start(1))).await.unwrap(), container);
    assert_eq!(within(second.inspect(&here(), bench.key(1))).await.unwrap(), Presence::Running);
    let listed = within(second.list(&here())).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].key, &listed[0].container), (bench.key(1), &container));
    within(second.stop(bench.stop(1, LIMIT))).await.unwrap();
    assert_eq!(within(second.inspect(&here(), bench.key(1))).await.unwrap(), Presence::Gone);
    assert_eq!(within(second.list(&here())).await.unwrap(), []);
}

#[tokio::test]
async fn a_killed_bot_is_noticed_at_once_adopted_or_not() {
    for is_adopted in [false, true] {
        let bench = Bench::new(PATIENT);
        let mut driver = bench.driver();
        let container = within(driver.start(bench.start(1))).await.unwrap();
        bench.written(1, "ready").await;
        if is_adopted {
            driver = bench.driver();
        }
        let waiting = tokio::spawn({
            let (driver, key) = (Arc::clone(&driver), bench.key(1));
            async move { driver.wait_exit(&here(), key).await }
        });
        // Gives the wait its chance to be wrong.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished());
        kill(pid_of(&container), "KILL");
        let note = tokio::time::timeout(NOTICED, waiting).await.unwrap().unwrap().unwrap();
        let expected = if is_adopted { "no exit note" } else { "signal: 9 (SIGKILL), no exit note" };
        assert_eq!(note, expected);
    }
}

#[tokio::test]
async fn an_exit_note_tells_why() {
    let note = r#"{"code": 3, "reason": "The page fell over.", "at": "2026-01-01T00:00:00Z"}"#;
    let bench = Bench::new(&format!("echo '{note}' > exit.json; exit 3"));
    let driver = bench.driver();
    within(driver.start(bench.start(1))).await.unwrap();
    let note = within(driver.wait_exit(&here(), bench.key(1))).await.unwrap();
    assert_eq!(note, "The page fell over (code 3)");
    let without = Bench::new("exit 7");
    let driver = without.driver();
    within(driver.start(without.start(1))).await.unwrap();
    let note = within(driver.wait_exit(&here(), without.key(1))).await.unwrap();
    assert_eq!(note, "exit status: 7, no exit note");
}

#[tokio::test]
async fn a_bot_may_leave_in_its_own_time() {
    let bench = Bench::new(
        "trap 'echo left > left; kill $!; exit 0' TERM; echo ready > ready; while :; do sleep 60 & wait $!; done",
    );
    let driver = bench.driver();
    within(driver.start(bench.start(1))).await.unwrap();
    bench.written(1, "ready").await;
    let began = Instant::now();
    within(driver.stop(bench.stop(1, LIMIT))).await.unwrap();
    assert!(began.elapsed() < LIMIT / 2, "it is not kept waiting");
    assert_eq!(bench.written(1, "left").await, "left\n");
}

#[tokio::test]
async fn helpers_in_other_sessions_or_without_the_marker_go_too() {
    let bench = Bench::new(
        "env -u MEEBOTER_MARKER sleep 601 & echo $! > in-session; \
         setsid sleep 602 & \
         setsid sh -c 'env -u MEEBOTER_MARKER sleep 603 & echo $! > below; wait' & \
         trap '' TERM; echo ready > ready; while :; do sleep 60; done",
    );
    let driver = bench.driver();
    let container = within(driver.start(bench.start(1))).await.unwrap();
    bench.written(1, "ready").await;
    let helpers: Vec<i32> = [bench.written(1, "in-session").await, bench.written(1, "below").await]
        .iter()
        .map(|text| text.trim().parse().unwrap())
        .collect();
    assert!(helpers.iter().all(|helper| runs(*helper)));
    within(driver.stop(bench.stop(1, Duration::from_millis(200)))).await.unwrap();
    assert!(!runs(pid_of(&container)), "it ignores TERM, not KILL");
    assert!(helpers.iter().all(|helper| !runs(*helper)));
    assert_eq!(within(driver.list(&here())).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_dead_bot_left_is_listed_and_ended_by_another_server() {
    let bench = Bench::new(
        "env -u MEEBOTER_MARKER sleep 601 & echo $! > hidden; setsid sleep 602 & echo ready > ready; \
         while :; do sleep 60; done",
    );
    let container = within(bench.driver().start(bench.start(1))).await.unwrap();
    bench.written(1, "ready").await;
    let hidden: i32 = bench.written(1, "hidden").await.trim().parse().unwrap();
    kill(pid_of(&container), "KILL");
    let driver = bench.driver();
    within(driver.wait_exit(&here(), bench.key(1))).await.unwrap();
    assert_eq!(within(driver.inspect(&here(), bench.key(1))).await.unwrap(), Presence::Gone);
    assert_eq!(within(driver.list(&here())).await.unwrap().len(), 1, "someone has to stop it");
    within(driver.stop(bench.stop(1, LIMIT))).await.unwrap();
    assert!(!runs(hidden));
    assert_eq!(within(driver.list(&here())).await.unwrap(), []);
}

#[tokio::test]
async fn a_stopped_generation_never_starts_again_and_the_next_does() {
    let bench = Bench::new(PATIENT);
    let driver = bench.driver();
    within(driver.stop(bench.stop(1, LIMIT))).await.unwrap();
    for driver in [&driver, &bench.driver()] {
        let refused = within(driver.start(bench.start(1))).await.unwrap_err();
        assert!(refused.answered && !refused.retryable, "{refused}");
    }
    assert!(!bench.folder(1).exists());
    let container = within(driver.start(bench.start(2))).await.unwrap();
    within(driver.stop(bench.stop(1, LIMIT))).await.unwrap();
    assert!(runs(pid_of(&container)), "a late stop hits only what it meant");
    within(driver.stop(bench.stop(2, Duration::ZERO))).await.unwrap();
    assert!(!runs(pid_of(&container)));
}

#[tokio::test]
async fn a_disk_that_takes_no_fence_keeps_no_bot_running_and_the_stop_is_not_said_to_be_done() {
    let bench = Bench::new(PATIENT);
    let driver = bench.driver();
    let container = within(driver.start(bench.start(1))).await.unwrap();
    // What is written in its place cannot be.
    let in_the_way = bench.folder(1).with_file_name("fence.new");
    fs::create_dir(&in_the_way).unwrap();
    let failed = within(driver.stop(bench.stop(1, Duration::ZERO))).await.unwrap_err();
    assert!(failed.answered && failed.message.contains("fence"), "{failed}");
    assert!(!runs(pid_of(&container)));
    fs::remove_dir(&in_the_way).unwrap();
    within(driver.stop(bench.stop(1, Duration::ZERO))).await.unwrap();
    within(driver.start(bench.start(1))).await.unwrap_err();
}

#[tokio::test]
async fn stops_and_starts_at_once_end_with_nothing() {
    let bench = Bench::new(PATIENT);
    let driver = bench.driver();
    let (started, first, second) = tokio::join!(
        within(driver.start(bench.start(1))),
        within(driver.stop(bench.stop(1, Duration::ZERO))),
        within(driver.stop(bench.stop(1, LIMIT))),
    );
    first.unwrap();
    second.unwrap();
    assert_eq!(within(driver.list(&here())).await.unwrap(), []);
    assert!(started.is_err() || !runs(pid_of(&started.unwrap())));
}

#[tokio::test]
async fn a_start_whose_caller_died_is_carried_out() {
    let bench = Bench::new(PATIENT);
    let driver = bench.driver();
    let mut start = Box::pin(driver.start(bench.start(1)));
    assert!(futures_util::poll!(&mut start).is_pending());
    drop(start);
    let container = within(driver.start(bench.start(1))).await.unwrap();
    let listed = within(driver.list(&here())).await.unwrap();
    assert_eq!(listed.iter().map(|listed| &listed.container).collect::<Vec<_>>(), [&container]);
    within(driver.stop(bench.stop(1, Duration::ZERO))).await.unwrap();
}

#[tokio::test]
async fn another_installations_bots_are_not_seen() {
    let bench = Bench::new(PATIENT);
    let driver = bench.driver();
    let container = within(driver.start(bench.start(1))).await.unwrap();
    let stranger = bench.driver_of(Uuid::new_v4());
    assert_eq!(within(stranger.list(&here())).await.unwrap(), []);
    assert!(runs(pid_of(&container)));
    within(driver.stop(bench.stop(1, Duration::ZERO))).await.unwrap();
}

#[tokio::test]
async fn a_full_host_and_a_missing_program_say_so() {
    let bench = Bench::new(PATIENT);
    let driver = bench.driver();
    let other_slot = |number: u128| {
        let mut request = bench.start(1);
        request.key.slot = SlotId(Uuid::from_u128(number));
        request
    };
    for number in 1..=3 {
        within(driver.start(other_slot(number))).await.unwrap();
    }
    let full = within(driver.start(other_slot(4))).await.unwrap_err();
    assert!(full.retryable, "{full}");
    fs::remove_file(bench.program()).unwrap();
    let missing = within(driver.pull(&here(), "none", watch::Sender::default())).await.unwrap_err();
    assert!(!missing.retryable && missing.message.contains("cargo build"), "{missing}");
    for number in 1..=3 {
        let key = other_slot(number).key;
        let stop = StopRequest { key, ..bench.stop(1, Duration::ZERO) };
        within(driver.stop(stop)).await.unwrap();
    }
}

#[tokio::test]
async fn ended_bots_leave_no_zombies() {
    let bench = Bench::new("exit 0");
    let driver = bench.driver();
    let container = within(driver.start(bench.start(1))).await.unwrap();
    within(driver.wait_exit(&here(), bench.key(1))).await.unwrap();
    let path = PathBuf::from(format!("/proc/{}", pid_of(&container)));
    eventually("the process is collected", || !path.exists()).await;
}
