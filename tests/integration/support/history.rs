//! A bot's history, and what can be read from it.

use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::BTreeSet;

/// The lines, oldest first.
#[derive(Debug)]
pub(crate) struct History(pub(crate) Vec<Value>);

impl History {
    /// The states in the order of the lines, without what else happened.
    pub(crate) fn states(&self) -> Vec<&str> {
        let types = self.0.iter().filter_map(|line| line["eventType"].as_str());
        types.filter(|kind| !kind.starts_with("PARTICIPANT") && *kind != "LOG").collect()
    }

    /// When a state was entered.
    pub(crate) fn entered(&self, state: &str) -> DateTime<Utc> {
        let line = self.0.iter().find(|line| line["eventType"] == state);
        let line = line.unwrap_or_else(|| panic!("never {state}: {self:?}"));
        line["eventTime"].as_str().unwrap().parse().unwrap()
    }

    /// How long the bot says that it recorded.
    pub(crate) fn recorded_s(&self) -> f64 {
        let span = self.entered("LEAVING") - self.entered("RECORDING");
        span.as_seconds_f64()
    }

    /// Sees that a whole life in a meeting with two guests is there, every line once and in its order.
    pub(crate) fn check_whole(&self) {
        let wanted =
            ["DEPLOYING", "JOINING_CALL", "IN_WAITING_ROOM", "IN_CALL", "RECORDING", "LEAVING", "DONE"];
        assert_eq!(self.states(), wanted);
        let times: Vec<DateTime<Utc>> =
            wanted.iter().skip_while(|state| **state != "IN_WAITING_ROOM").map(|s| self.entered(s)).collect();
        assert!(times.is_sorted(), "{self:?}");
        let came: Vec<&Value> = self
            .0
            .iter()
            .filter(|line| line["eventType"] == "PARTICIPANT_JOIN")
            .map(|line| &line["data"])
            .collect();
        let who: BTreeSet<String> = came.iter().map(|data| data["participantId"].to_string()).collect();
        assert_eq!((who.len(), came.len()), (2, 2), "both guests came, once each: {self:?}");
    }
}
