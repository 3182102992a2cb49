//! Writes the whole state × event table to `docs/slot-machine.md`, and fails where the committed page differs, so
//! that the page cannot drift from the machine.

use super::event::SlotEvent;
use super::machine::{Notice, Rejection, transition};
use super::{Slot, SlotState, SlotTiming};
use crate::slot::effects::effects_of;
use crate::testing::edges::{events, states};
use crate::testing::sample;
use chrono::TimeDelta;
use std::fmt::Write;

/// Every deadline has passed.
fn past() -> chrono::DateTime<chrono::Utc> {
    sample::now() - TimeDelta::seconds(1)
}

fn cell(slot: &Slot, event: SlotEvent) -> String {
    match transition(slot, event, &SlotTiming::default(), sample::now()) {
        Err(Rejection::Stale { .. }) => "stale".to_owned(),
        Err(Rejection::Illegal { .. }) => "–".to_owned(),
        Err(Rejection::Fenced) => "fenced".to_owned(),
        Err(Rejection::Gap { .. }) => "gap".to_owned(),
        Ok(transition) if transition.changes.is_empty() => "·".to_owned(),
        Ok(transition) => {
            let ended = transition.notices.iter().find_map(|notice| match notice {
                Notice::BotEnded(bot) => bot.end.as_ref().map(|end| format!(" ({})", end.reason.as_str())),
                Notice::BotReturned { .. } => Some(" (back to the queue)".to_owned()),
            });
            format!("**{}**{}", transition.next.step(), ended.unwrap_or_default())
        }
    }
}

fn page() -> String {
    let mut page = String::from(
        "# The slot machine\n\n\
         Written by a test from `actors/src/slot/machine.rs`; do not edit. `./dev test` says when it is out of date,\n\
         and `UPDATE_DOCS=1 ./dev test` writes it anew.\n\n\
         Each cell says what an event leads to: a **state** (with the reason where a bot ends), `·` taken and nothing\n\
         changes, `stale` or `fenced` refused because it belongs to the past or to another process, `–` cannot happen.\n\
         All deadlines of the states shown here have passed, and outcomes carry the present generation and operation,\n\
         unless the line says otherwise.\n",
    );
    let states = states(past());
    for group in states.chunks(4) {
        let _ = write!(page, "\n| event |");
        for (name, _) in group {
            let _ = write!(page, " {name} |");
        }
        let _ = write!(page, "\n|---|{}\n", "---|".repeat(group.len()));
        let names: Vec<&str> = events(&group[0].1).into_iter().map(|(name, _)| name).collect();
        for (row, name) in names.iter().enumerate() {
            let _ = write!(page, "| {name} |");
            for (_, slot) in group {
                let event = events(slot).swap_remove(row).1;
                let _ = write!(page, " {} |", cell(slot, event));
            }
            page.push('\n');
        }
    }
    page.push_str("\n## What is under way in each state\n\n| state | effects |\n|---|---|\n");
    for (name, slot) in &states {
        let effects: Vec<String> = effects_of(slot)
            .iter()
            .map(|effect| format!("{effect:?}").chars().take_while(|c| c.is_alphanumeric()).collect())
            .collect();
        let _ = writeln!(
            page,
            "| {name} | {} |",
            if effects.is_empty() { "none".into() } else { effects.join(", ") }
        );
    }
    page
}

#[test]
fn the_page_is_what_the_machine_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/slot-machine.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).expect("docs/slot-machine.md can be written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/slot-machine.md is out of date: UPDATE_DOCS=1 ./dev test writes it anew"
    );
}

#[test]
fn every_transition_keeps_the_rules() {
    for (name, slot) in states(past()) {
        for (event_name, event) in events(&slot) {
            let Ok(transition) = transition(&slot, event, &SlotTiming::default(), sample::now()) else {
                continue;
            };
            let (before, after) = (&slot, &transition.next);
            let context = format!("{name} + {event_name}");
            let grew = after.generation.0 - before.generation.0;
            let assigns =
                event_name == "Assigned" || (before.step(), after.step()) == ("restarting", "pulling");
            assert_eq!(grew, i64::from(assigns), "{context}: generation grows at assignments only");
            assert!(after.operation >= before.operation, "{context}: operations are counted up");
            let new_operation = effects_of(after).iter().any(|effect| {
                !effects_of(before).contains(effect) && format!("{effect:?}").contains("operation")
            });
            assert!(
                !new_operation || after.operation > before.operation,
                "{context}: a new effect has a new number"
            );
            if after.step() == "idle" && before.step() != "idle" {
                // Of a generation that waits for its image there never was a container.
                let is_known_gone = event_name == "Stopped" || before.step() == "pulling";
                assert!(is_known_gone, "{context}: idle only when the container is known gone");
            }
            if matches!(after.state, SlotState::Error { .. })
                && before.bot().is_some_and(|bot| !bot.state.is_final())
            {
                assert!(
                    !transition.notices.is_empty(),
                    "{context}: the commit that enters error ends the bot or gives it back"
                );
            }
        }
    }
}
