//! Tells the server at a steady pace that the bot is alive, and hears what it wants.

use std::time::Duration;

use slog::{Logger, warn};
use tokio::time::MissedTickBehavior;

use crate::client::BotClient;
use crate::orders::OrderBook;
use crate::telemetry::chain;

/// Shortest pace, whatever the assignment says.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Beats for ever; ends only when the bot is fenced. Run it as a task, and drop it when done.
pub(crate) async fn beat(client: BotClient, orders: OrderBook, interval: Duration, log: Logger) {
    let mut ticks = tokio::time::interval(interval.max(INTERVAL_MIN));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match client.heartbeat().await {
            Ok(()) => {}
            Err(error) if error.is_fence() => {
                warn!(log, "fenced: the server refuses this generation"; "error" => chain(&error));
                orders.fence();
                return;
            }
            Err(error) => warn!(log, "heartbeat failed"; "error" => chain(&error)),
        }
    }
}
