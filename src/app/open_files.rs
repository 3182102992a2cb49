//! How many files this process may have open: every connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slog::{Logger, warn};

/// More than the connections that two HTTP threads take (25,600 each, actix-web's default). Not the million that some
/// systems allow: what a server starts inherits this, and some programs go through every possible file when they start.
const ENOUGH: u64 = 65_536;

/// Raises the limit to what the system lets this process have, up to [`ENOUGH`]: a login's 1,024 is kept low for
/// programs that use `select`, and this is none. Where it cannot be raised the server goes on with what it has.
pub(super) fn raise_limit(log: &Logger) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        warn!(log, "connections are limited by the files that may be open";
            "open_files_max" => current, "error" => %error);
    }
}
