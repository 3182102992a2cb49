//! The closing table.

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
    fn cells(&self) -> [&str; 7] {
        let Self { bot, slot, waited, joined, recorded, ended, recording } = self;
        [bot, slot, waited, joined, recorded, ended, recording]
    }
}

/// The rows under their headings, in columns as wide as needed.
pub(super) fn render(rows: &[Row]) -> String {
    let head = ["bot", "slot", "waited", "joined after", "recorded", "ended", "recording"];
    let lines: Vec<[&str; 7]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text: Vec<String> = lines.iter().map(|cells| line(cells, &widths)).collect();
    let rule = widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("  ");
    text.insert(1, rule);
    text.join("\n")
}

fn line(cells: &[&str; 7], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// Seconds with one decimal, or a dash.
pub(super) fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |bot: &str, ended: &str| Row {
            bot: bot.to_owned(),
            slot: "pool-rehearsal-001".to_owned(),
            waited: seconds(Some(0.04)),
            joined: seconds(Some(6.25)),
            recorded: seconds(None),
            ended: ended.to_owned(),
            recording: "–".to_owned(),
        };
        let text = render(&[row("7", "meeting_ended"), row("1234", "denied")]);
        let expected = "\
bot   slot                waited  joined after  recorded  ended          recording
────  ──────────────────  ──────  ────────────  ────────  ─────────────  ─────────
7     pool-rehearsal-001  0.0 s   6.2 s         –         meeting_ended  –
1234  pool-rehearsal-001  0.0 s   6.2 s         –         denied         –";
        assert_eq!(text, expected);
    }
}
