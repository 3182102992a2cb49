//! How late the actors' timers are: a thread that is flooded with messages gets to its timers late, and with them to
//! every deadline.

use super::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Looks for as long as the thread lives that it runs on.
pub async fn watch(metrics: Arc<Metrics>) {
    loop {
        let due = Instant::now() + INTERVAL;
        sleep(INTERVAL).await;
        metrics.timer_fired(due.elapsed());
    }
}
