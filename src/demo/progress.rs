//! What is shown while the bots are at work: bars on a terminal, else a line for each change.

use super::watch::Watched;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use meeboter_actors::bot::BotState;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Steps of a bar: the states up to DONE, and the recording.
const STEPS: u64 = 8;
const SPINNER_TICK: Duration = Duration::from_millis(120);
/// Bars count seconds.
const BAR_TICK: Duration = Duration::from_secs(1);

/// Where progress goes.
pub(super) enum Display {
    /// To somebody who watches.
    Bars {
        /// All bars.
        screen: MultiProgress,
        /// The line on top: what is being done.
        note: ProgressBar,
        /// One for each bot, by its id.
        bots: HashMap<i64, ProgressBar>,
    },
    /// To a file or a pipe.
    Lines {
        /// When it began.
        began: Instant,
        /// What was last said of each bot.
        said: HashMap<i64, String>,
    },
}

impl Display {
    /// Bars where both outputs are a terminal.
    pub(super) fn new() -> Self {
        if !(std::io::stderr().is_terminal() && std::io::stdout().is_terminal()) {
            return Self::Lines { began: Instant::now(), said: HashMap::new() };
        }
        let screen = MultiProgress::new();
        let note = screen.add(ProgressBar::new_spinner());
        note.set_style(style("{spinner:.blue} {msg}"));
        note.enable_steady_tick(SPINNER_TICK);
        Self::Bars { screen, note, bots: HashMap::new() }
    }

    /// Says what is being done now.
    pub(super) fn note(&self, text: &str) {
        match self {
            Self::Bars { note, .. } => note.set_message(format!("{text}…")),
            Self::Lines { began, .. } => println!("{} {text}…", clock(*began)),
        }
    }

    /// A line that stays.
    pub(super) fn line(&self, text: &str) {
        match self {
            // While bars are drawn, lines go above them; where none are, the screen would swallow it.
            Self::Bars { screen, note, .. } if !note.is_finished() => {
                if screen.println(text).is_err() {
                    println!("{text}");
                }
            }
            Self::Bars { .. } => println!("{text}"),
            Self::Lines { began, .. } => println!("{} {text}", clock(*began)),
        }
    }

    /// Shows where a bot is.
    pub(super) fn bot(&mut self, bot: &Watched) {
        let words = bot.words();
        match self {
            Self::Bars { screen, bots, .. } => {
                let bar = bots.entry(bot.id()).or_insert_with(|| new_bar(screen, bot.id()));
                bar.set_position(position(bot));
                bar.set_message(words);
                if bot.is_settled() && !bar.is_finished() {
                    bar.abandon();
                }
            }
            Self::Lines { began, said } => {
                if said.get(&bot.id()) != Some(&words) {
                    println!("{} bot {}: {words}", clock(*began), bot.id());
                    said.insert(bot.id(), words);
                }
            }
        }
    }

    /// Leaves the bars as they stand.
    pub(super) fn finish(&mut self) {
        if let Self::Bars { note, bots, .. } = self {
            note.finish_and_clear();
            bots.values().filter(|bar| !bar.is_finished()).for_each(ProgressBar::abandon);
        }
    }
}

fn new_bar(screen: &MultiProgress, id: i64) -> ProgressBar {
    let bar = screen.add(ProgressBar::new(STEPS));
    bar.set_style(style("{prefix:>8} {bar:24.blue/black.bright} {elapsed:>4} {msg}").progress_chars("━╸─"));
    bar.set_prefix(format!("bot {id}"));
    bar.enable_steady_tick(BAR_TICK);
    bar
}

/// The templates are constants; one that cannot be read falls back to the plain bar.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn position(bot: &Watched) -> u64 {
    match bot.state() {
        BotState::Scheduled | BotState::Queued => 0,
        BotState::Deploying => 1,
        BotState::JoiningCall => 2,
        BotState::InWaitingRoom => 3,
        BotState::InCall => 4,
        BotState::Recording => 5,
        BotState::Leaving => 6,
        BotState::Done if bot.is_settled() => STEPS,
        BotState::Done | BotState::Fatal => 7,
    }
}

fn clock(began: Instant) -> String {
    format!("{:>5.1} s", began.elapsed().as_secs_f64())
}
