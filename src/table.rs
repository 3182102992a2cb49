//! Tables for people: cells under headings, in columns as wide as needed.

/// The rows under their headings.
pub(crate) fn render<const COLUMNS: usize>(head: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let head = head.map(str::to_owned);
    let lines: Vec<&[String; COLUMNS]> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut text: Vec<String> = lines.iter().map(|cells| line(&cells[..], &widths)).collect();
    let rule = widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("  ");
    text.insert(1, rule);
    text.join("\n")
}

/// Names and what they are, without headings.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    facts.iter().map(|(name, what)| format!("{name:<width$}  {what}")).collect::<Vec<_>>().join("\n")
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let text = render(
            ["bot", "slot", "ended"],
            &[row(["7", "pool-zoom-001", "–"]), row(["1234", "–", "denied"])],
        );
        let expected = "\
bot   slot           ended
────  ─────────────  ──────
7     pool-zoom-001  –
1234  –              denied";
        assert_eq!(text, expected);
    }

    #[test]
    fn facts_stand_in_line() {
        let text = facts(&[("bot", "7".to_owned()), ("state", "DONE".to_owned())]);
        assert_eq!(text, "bot    7\nstate  DONE");
    }
}
