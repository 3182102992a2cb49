//! When maintenance is due: a cron expression in a time zone. Pure: it is asked for the first time after a moment, and
//! knows no clock.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use std::fmt;

/// An expression or a zone that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimetableError {
    /// Not five fields of a cron expression.
    #[error("{expression:?} is no cron expression of five fields (minute hour day month weekday): {problem}")]
    Expression {
        /// As read.
        expression: String,
        /// In the parser's words.
        problem: String,
    },
    /// There is no such time: 30 February.
    #[error("{0:?} never comes")]
    Never(String),
    /// No name of the IANA database.
    #[error("{0:?} is no time zone of the IANA database, such as UTC or Europe/Berlin")]
    Zone(String),
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    expression: String,
    cron: Cron,
    zone: Tz,
}

/// The expression and the zone, as they were given.
impl fmt::Display for Timetable {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} {}", self.expression, self.zone)
    }
}

impl Timetable {
    /// The times that `expression` names on the clocks of `zone`.
    pub fn parse(expression: &str, zone: &str) -> Result<Self, TimetableError> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| TimetableError::Expression {
            expression: expression.to_owned(),
            problem: error.to_string(),
        })?;
        let zone = zone.parse().map_err(|_| TimetableError::Zone(zone.to_owned()))?;
        let timetable = Self { expression: expression.to_owned(), cron, zone };
        match timetable.next_after(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(timetable),
            None => Err(TimetableError::Never(expression.to_owned())),
        }
    }

    /// The first time after `at`. `None` past the end of the calendar.
    pub fn next_after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = self.cron.find_next_occurrence(&at.with_timezone(&self.zone), false).ok()?;
        Some(next.with_timezone(&Utc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeDelta, Timelike};
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn next(expression: &str, zone: &str, after: &str) -> DateTime<Utc> {
        Timetable::parse(expression, zone).expect("good").next_after(at(after)).expect("comes")
    }

    #[test]
    fn the_hour_is_that_of_the_zone_in_summer_and_in_winter() {
        assert_eq!(next("0 3 * * *", "UTC", "2026-07-01T03:00:00Z"), at("2026-07-02T03:00:00Z"));
        assert_eq!(next("0 3 * * *", "Europe/Berlin", "2026-07-01T03:00:00Z"), at("2026-07-02T01:00:00Z"));
        assert_eq!(next("0 3 * * *", "Europe/Berlin", "2026-01-01T03:00:00Z"), at("2026-01-02T02:00:00Z"));
        assert_eq!(
            next("30 4 * * SUN", "America/New_York", "2026-07-01T00:00:00Z"),
            at("2026-07-05T08:30:00Z")
        );
    }

    #[test]
    fn an_hour_that_the_clocks_skip_or_repeat_is_one_run() {
        // 29 March 2026: 02:00 to 03:00 is not there in Berlin. 25 October: 02:00 to 03:00 is there twice.
        for (from, days) in [("2026-03-27T12:00:00Z", 4), ("2026-10-23T12:00:00Z", 4)] {
            let timetable = Timetable::parse("30 2 * * *", "Europe/Berlin").expect("good");
            let (mut last, mut runs) = (at(from), 0);
            while let Some(next) =
                timetable.next_after(last).filter(|next| *next < at(from) + TimeDelta::days(days))
            {
                assert!(next > last);
                (last, runs) = (next, runs + 1);
            }
            assert_eq!(runs, days, "from {from}");
        }
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let refused = |expression, zone| Timetable::parse(expression, zone).expect_err("refused").to_string();
        for wrong in ["", "daily", "0 3 * *", "0 25 * * *", "0 0 3 * * *", "61 3 * * *"] {
            assert!(refused(wrong, "UTC").contains("five fields"), "{wrong:?}: {}", refused(wrong, "UTC"));
        }
        assert!(refused("0 0 30 2 *", "UTC").contains("never comes"));
        assert!(refused("0 3 * * *", "Mars/Olympus").contains("Mars/Olympus"));
    }

    proptest! {
        /// A plain reference: the next minute that shows these hands.
        #[test]
        fn the_next_time_is_the_first_minute_that_shows_it(
            minute in 0_u32..60, hour in 0_u32..24, start in 0_i64..2_000_000_000,
        ) {
            let timetable = Timetable::parse(&format!("{minute} {hour} * * *"), "UTC").expect("good");
            let start = DateTime::from_timestamp(start, 0).expect("a time");
            let mut expected = start.with_second(0).expect("a minute");
            loop {
                expected += TimeDelta::minutes(1);
                if (expected.hour(), expected.minute()) == (hour, minute) {
                    break;
                }
            }
            prop_assert_eq!(timetable.next_after(start), Some(expected));
        }
    }
}
