//! The log: slog, structured; identifiers are fields, never in the sentence.

use crate::config::{Log, LogFormat, LogLevel};
use slog::{Drain, Level, Logger, o};
use std::error::Error;

/// A logger to standard error. Lines past a bound of waiting ones are dropped and counted rather than waited for.
pub fn logger(settings: &Log) -> Logger {
    let level = match settings.level {
        LogLevel::Trace => Level::Trace,
        LogLevel::Debug => Level::Debug,
        LogLevel::Info => Level::Info,
        LogLevel::Warning => Level::Warning,
        LogLevel::Error => Level::Error,
        LogLevel::Critical => Level::Critical,
    };
    match settings.format {
        LogFormat::Terminal => {
            let decorator = slog_term::TermDecorator::new().stderr().build();
            let drain = slog_term::FullFormat::new(decorator).use_utc_timestamp().build();
            asynchronous(drain.fuse(), level)
        }
        LogFormat::Json => asynchronous(slog_json::Json::default(std::io::stderr()).fuse(), level),
    }
}

fn asynchronous<D>(drain: D, level: Level) -> Logger
where
    D: Drain<Ok = (), Err = slog::Never> + Send + 'static,
{
    let drain = slog_async::Async::new(drain.filter_level(level).fuse()).chan_size(4096).build();
    Logger::root(drain.fuse(), o!())
}

/// An error with its causes, outermost first, as one line; a cause that only repeats its error is said once.
pub fn chain(error: &dyn Error) -> String {
    let mut said = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push(error.to_string());
        cause = error.source();
    }
    said.dedup();
    said.join(": ")
}
