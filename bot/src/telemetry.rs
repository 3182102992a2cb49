//! Logging: slog to stderr, JSON lines in a file or pipe, plain lines on a terminal; the level can change while the
//! program runs. Ids are fields, tokens are never logged.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

/// Changes the level of a running logger.
#[derive(Debug, Clone)]
pub(crate) struct LevelSwitch {
    level: Arc<AtomicUsize>,
}

impl LevelSwitch {
    /// Takes `trace`, `debug`, `info`, `warn` or `error`; false where the word is none of these.
    pub(crate) fn set(&self, word: &str) -> bool {
        let level = match word {
            "trace" => Level::Trace,
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" => Level::Warning,
            "error" => Level::Error,
            _ => return false,
        };
        self.level.store(level.as_usize(), Ordering::Relaxed);
        true
    }
}

struct Leveled<D> {
    inner: D,
    level: Arc<AtomicUsize>,
}

impl<D: Drain<Ok = (), Err = Never>> Drain for Leveled<D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if record.level().as_usize() <= self.level.load(Ordering::Relaxed) {
            self.inner.log(record, values)
        } else {
            Ok(())
        }
    }
}

/// The program's logger and the switch of its level, which begins at `info`.
pub(crate) fn logger() -> (Logger, LevelSwitch) {
    let level = Arc::new(AtomicUsize::new(Level::Info.as_usize()));
    let switch = LevelSwitch { level: level.clone() };
    let root = if std::io::stderr().is_terminal() {
        let plain = slog_term::FullFormat::new(slog_term::TermDecorator::new().stderr().build()).build();
        Logger::root(Leveled { inner: Mutex::new(plain.ignore_res()).ignore_res(), level }, o!())
    } else {
        let json = slog_json::Json::default(std::io::stderr());
        Logger::root(Leveled { inner: Mutex::new(json.ignore_res()).ignore_res(), level }, o!())
    };
    (root, switch)
}

/// An error with all its causes, for one line of a log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
