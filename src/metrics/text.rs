//! One family of values in the text format of Prometheus.

use std::fmt;

/// What the page is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// See the module.
pub(super) struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Vec<(String, f64)>,
}

impl Family {
    pub(super) fn new(name: &'static str, kind: &'static str, help: &'static str) -> Self {
        Self { name, kind, help, samples: Vec::new() }
    }

    /// Adds a value under labels.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.samples.push((labels, value));
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# HELP {} {}\n# TYPE {} {}", self.name, self.help, self.name, self.kind)?;
        self.samples.iter().try_for_each(|(labels, value)| writeln!(f, "{}{labels} {value}", self.name))
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut family = Family::new("m", "gauge", "Some.");
        family.add(&[("a", "x\"y\\z")], 1.5);
        assert_eq!(family.to_string(), "# HELP m Some.\n# TYPE m gauge\nm{a=\"x\\\"y\\\\z\"} 1.5\n");
    }
}
