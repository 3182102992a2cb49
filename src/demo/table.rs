//! The closing table.

use crate::table;

/// One bot's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) bot: String,
    pub(super) slot: String,
    pub(super) waited: String,
    pub(super) joined: String,
    pub(super) recorded: String,
    pub(super) ended: String,
    pub(super) recording: String,
}

impl Row {
    fn cells(self) -> [String; 7] {
        let Self { bot, slot, waited, joined, recorded, ended, recording } = self;
        [bot, slot, waited, joined, recorded, ended, recording]
    }
}

/// The rows under their headings.
pub(super) fn render(rows: impl Iterator<Item = Row>) -> String {
    let head = ["bot", "slot", "waited", "joined after", "recorded", "ended", "recording"];
    table::render(head, &rows.map(Row::cells).collect::<Vec<_>>())
}

/// Seconds with one decimal, or a dash.
pub(super) fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bot_is_a_line_under_the_headings() {
        let row = Row {
            bot: "7".to_owned(),
            slot: "pool-rehearsal-001".to_owned(),
            waited: seconds(Some(0.04)),
            joined: seconds(Some(6.25)),
            recorded: seconds(None),
            ended: "denied".to_owned(),
            recording: "–".to_owned(),
        };
        let expected = "\
bot  slot                waited  joined after  recorded  ended   recording
───  ──────────────────  ──────  ────────────  ────────  ──────  ─────────
7    pool-rehearsal-001  0.0 s   6.2 s         –         denied  –";
        assert_eq!(render([row].into_iter()), expected);
    }
}
