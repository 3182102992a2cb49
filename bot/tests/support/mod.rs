//! What the tests of the program stand on: a fake server in this process, and the running program.

pub(crate) mod recording;
pub(crate) mod running;
pub(crate) mod server;

use std::time::{Duration, Instant};

/// Polls until `look` finds something; panics with `what` when time is up.
#[expect(clippy::disallowed_methods, reason = "a test's own thread, polling with a deadline")]
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "waited {} s in vain for: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}
