//! Operators' tools: `meeboter slots`, `queue`, `bots`, `users`, `drain`, `pulls`, `reconcile`, `recover`, `scale`,
//! `maintenance`, `reload`.
//! Each asks a running server one thing over its API and prints the answer: as a table for people, or as it came for programs.

mod request;
mod screen;

use self::request::Request;
use crate::client::{Client, ClientError, Sent};
use crate::config::default_data_dir;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use meeboter_actors::queue::Plan;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why a tool did not do what it was asked.
#[derive(Debug, Error)]
pub enum CliError {
    /// There is no key to ask with.
    #[error("no API key: give one with --key or MEEBOTER_API_KEY; {} cannot be read", path.display())]
    NoKey {
        /// The file of the first key.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server is not asked over plain HTTP.
    #[error("--server {0}: it takes an address such as http://127.0.0.1:3000")]
    Server(String),
    /// The server's answer, or none.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer is no JSON.
    #[error("the answer is not what the API promises")]
    Unreadable(#[from] serde_json::Error),
    /// Nobody reads what is printed.
    #[error("the answer cannot be printed")]
    Print(#[from] io::Error),
}

/// Which server is asked, by whom, and how its answer is shown.
#[derive(Debug, Clone, clap::Args)]
pub struct Remote {
    /// The server.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "MEEBOTER_URL",
        default_value = "http://127.0.0.1:3000"
    )]
    server: String,
    /// An operator's API key; by default the one in the file api-key of this machine's data folder.
    #[arg(long, global = true, value_name = "KEY", env = "MEEBOTER_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Print the answer as it comes, for programs.
    #[arg(long, global = true)]
    json: bool,
}

/// A part of a long list.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct PageOptions {
    /// Which page.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    page: u32,
    /// How many lines it has.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    page_size: u32,
}

impl Default for PageOptions {
    fn default() -> Self {
        Self { page: 1, page_size: 100 }
    }
}

/// What an operator may ask a running server.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Tool {
    /// Slots: list them, look at one, have one do something.
    Slots {
        /// Which server, and how the answer is shown.
        #[command(flatten)]
        remote: Remote,
        /// What to do.
        #[command(subcommand)]
        action: Option<SlotsAction>,
    },
    /// The queue: who waits, and moving a bot.
    Queue {
        /// Which server, and how the answer is shown.
        #[command(flatten)]
        remote: Remote,
        /// What to do.
        #[command(subcommand)]
        action: Option<QueueAction>,
    },
    /// Everybody's bots: list them, look at one, end one.
    Bots {
        /// Which server, and how the answer is shown.
        #[command(flatten)]
        remote: Remote,
        /// What to do.
        #[command(subcommand)]
        action: Option<BotsAction>,
    },
    /// Users: list them, make one, set its plan or make it an operator, give it a further API key.
    Users {
        /// Which server, and how the answer is shown.
        #[command(flatten)]
        remote: Remote,
        /// What to do.
        #[command(subcommand)]
        action: Option<UsersAction>,
    },
    /// Empty a platform, a host or the server: it gets nothing new, and its slots go when they are free.
    Drain {
        /// Which server, and how the answer is shown.
        #[command(flatten)]
        remote: Remote,
        /// What to do.
        #[command(subcommand)]
        action: Option<DrainAction>,
    },
    /// Images: which are on which host or being pulled, and pulling one now.
    Pulls {
        /// Which server, and how the answer is shown.
        #[command(flatten)]
        remote: Remote,
        /// What to do.
        #[command(subcommand)]
        action: Option<PullsAction>,
    },
    /// Compare now what runs on the hosts with what should.
    Reconcile {
        /// Which server, and how the answer is shown.
        #[command(flatten)]
        remote: Remote,
    },
    /// Have every slot in error recover now.
    Recover {
        /// Which server, and how the answer is shown.
        #[command(flatten)]
        remote: Remote,
    },
    /// How the pool follows the load: what it sees of each platform, what it did, and who is scheduled.
    Scale {
        /// Which server, and how the answer is shown.
        #[command(flatten)]
        remote: Remote,
    },
    /// What is done once a night: how it is, and doing it now.
    Maintenance {
        /// Which server, and how the answer is shown.
        #[command(flatten)]
        remote: Remote,
        /// What to do.
        #[command(subcommand)]
        action: Option<MaintenanceAction>,
    },
    /// Have the server read its settings again, and say which count at once.
    Reload {
        /// Which server, and how the answer is shown.
        #[command(flatten)]
        remote: Remote,
    },
}

/// `meeboter slots`
#[derive(Debug, Clone, clap::Subcommand)]
pub enum SlotsAction {
    /// All slots; the default.
    List,
    /// One slot with everything known of it.
    Show {
        /// Its name, such as pool-zoom-001.
        name: String,
    },
    /// Recover from an error now; nothing that runs is touched.
    Reset {
        /// Its name, such as pool-zoom-001.
        name: String,
    },
    /// Take no new bot, and be deleted when free.
    Drain {
        /// Its name, such as pool-zoom-001.
        name: String,
        /// Ask bots that are still there to leave after that long, such as 90s, 30m or 2h. Without it they stay for as
        /// long as they like.
        #[arg(long, value_parser = duration)]
        within: Option<Duration>,
    },
    /// Take bots again.
    Undrain {
        /// Its name, such as pool-zoom-001.
        name: String,
    },
    /// Be deleted now; only an idle slot can.
    Retire {
        /// Its name, such as pool-zoom-001.
        name: String,
    },
    /// Be deleted though its container could not be removed: its host is lost for good. Only while the host is away, or no
    /// longer in the settings.
    Forget {
        /// Its name, such as pool-zoom-001.
        name: String,
    },
    /// Stop its container and start another for the same bot; only while the bot is not in its meeting.
    Restart {
        /// Its name, such as pool-zoom-001.
        name: String,
    },
    /// The last lines that its container printed.
    Logs {
        /// Its name, such as pool-zoom-001.
        name: String,
        /// How many lines.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        lines: u32,
    },
}

/// `meeboter maintenance`
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub enum MaintenanceAction {
    /// When it is due, what it did last, and how full the disks are; the default.
    Show,
    /// Do it now.
    Run,
}

/// `meeboter queue`
#[derive(Debug, Clone, clap::Subcommand)]
pub enum QueueAction {
    /// Who waits, in order; the default.
    List {
        /// Which part of the list.
        #[command(flatten)]
        page: PageOptions,
    },
    /// Move a bot to another priority, behind its user's others there.
    Move {
        /// Its number.
        bot: i64,
        /// Lower comes first: enterprise 10, professional 50, standard 100, free 200.
        #[arg(long, value_parser = clap::value_parser!(i16).range(0..))]
        priority: i16,
    },
}

/// `meeboter bots`
#[derive(Debug, Clone, clap::Subcommand)]
pub enum BotsAction {
    /// The latest bots; the default.
    List {
        /// Which part of the list.
        #[command(flatten)]
        page: PageOptions,
    },
    /// One bot.
    Show {
        /// Its number.
        id: i64,
    },
    /// End a bot as FATAL and free its slot; one that waits is cancelled.
    End {
        /// Its number.
        id: i64,
    },
}

/// `meeboter users`
#[derive(Debug, Clone, clap::Subcommand)]
pub enum UsersAction {
    /// All users, in the order in which they were made; the default.
    List {
        /// Which part of the list.
        #[command(flatten)]
        page: PageOptions,
    },
    /// Make a user. Its first API key is printed, this once.
    Add {
        /// Its name; nobody else may have it.
        name: String,
        /// Says who comes first in the queue: enterprise, professional, standard, free. Without it: standard.
        #[arg(long, value_parser = plans(), hide_possible_values = true)]
        plan: Option<String>,
        /// Make it an operator, who may ask for what concerns every user.
        #[arg(long)]
        operator: bool,
    },
    /// Change a user.
    #[command(group = clap::ArgGroup::new("change").args(["plan", "operator"]).required(true).multiple(true))]
    Set {
        /// Its name.
        name: String,
        /// Another plan, for the bots that it asks for from now on: enterprise, professional, standard, free.
        #[arg(long, value_parser = plans(), hide_possible_values = true)]
        plan: Option<String>,
        /// Whether it is an operator, who may ask for what concerns every user. The last one stays one.
        #[arg(long, value_name = "yes|no", value_parser = yes_or_no(), hide_possible_values = true)]
        operator: Option<bool>,
    },
    /// Make a further API key for a user. It is printed, this once; those that the user has stay good.
    Key {
        /// Its name.
        name: String,
    },
}

/// `meeboter drain`
#[derive(Debug, Clone, clap::Subcommand)]
pub enum DrainAction {
    /// What is being emptied, and what each host holds; the default.
    List,
    /// A platform.
    Platform {
        /// Its key, such as zoom.
        name: String,
        /// Ask bots that are still there to leave after that long, such as 90s, 30m or 2h. Without it they stay for as
        /// long as they like.
        #[arg(long, value_parser = duration)]
        within: Option<Duration>,
        /// End the drain: take bots again.
        #[arg(long, conflicts_with = "within")]
        stop: bool,
    },
    /// A host.
    Host {
        /// Its name, as the configuration has it.
        name: String,
        /// Ask bots that are still there to leave after that long, such as 90s, 30m or 2h. Without it they stay for as
        /// long as they like.
        #[arg(long, value_parser = duration)]
        within: Option<Duration>,
        /// End the drain: get slots again.
        #[arg(long, conflicts_with = "within")]
        stop: bool,
    },
    /// The whole server: it takes no new bots, and stops when none is left. Those that wait are for the next server.
    Server {
        /// Ask bots that are still there to leave after that long, such as 90s, 30m or 2h. Without it they stay for as
        /// long as they like.
        #[arg(long, value_parser = duration)]
        within: Option<Duration>,
        /// End the drain: serve again.
        #[arg(long, conflicts_with = "within")]
        stop: bool,
    },
}

/// `meeboter pulls`
#[derive(Debug, Clone, clap::Subcommand)]
pub enum PullsAction {
    /// Images and pulls; the default.
    List,
    /// Pull an image to a host now, also one that is there, whose tag may have moved.
    Start {
        /// The host, as the configuration names it.
        host: String,
        /// The image's reference.
        image: String,
    },
}

/// The name of a plan.
fn plans() -> PossibleValuesParser {
    PossibleValuesParser::new(Plan::ALL.map(Plan::as_str))
}

fn yes_or_no() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["yes", "no"]).map(|word| word == "yes")
}

/// A number of seconds, minutes or hours.
fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.len().saturating_sub(1);
    let seconds = match text.get(unit_at..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        _ => return Err("it takes a whole number with its unit, such as 90s, 30m or 2h".to_owned()),
    };
    let number: u32 = text[..unit_at].parse().map_err(|error| format!("{text}: {error}"))?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

impl Tool {
    fn remote(&self) -> &Remote {
        match self {
            Self::Slots { remote, .. }
            | Self::Queue { remote, .. }
            | Self::Bots { remote, .. }
            | Self::Users { remote, .. }
            | Self::Drain { remote, .. }
            | Self::Pulls { remote, .. }
            | Self::Reconcile { remote }
            | Self::Recover { remote }
            | Self::Scale { remote }
            | Self::Maintenance { remote, .. }
            | Self::Reload { remote } => remote,
        }
    }
}

impl Remote {
    fn client(&self) -> Result<Client, CliError> {
        if !self.server.starts_with("http://") {
            return Err(CliError::Server(self.server.clone()));
        }
        Ok(Client::new(&self.server, &self.key()?))
    }

    fn key(&self) -> Result<String, CliError> {
        if let Some(key) = self.key.as_ref().filter(|key| !key.is_empty()) {
            return Ok(key.clone());
        }
        let folder = std::env::var_os("MEEBOTER_DATA_DIR").filter(|folder| !folder.is_empty());
        let path = folder.map_or_else(default_data_dir, PathBuf::from).join("api-key");
        let key = std::fs::read_to_string(&path).map_err(|source| CliError::NoKey { path, source })?;
        Ok(key.trim().to_owned())
    }
}

/// Asks the server, and prints its answer.
pub async fn run(tool: Tool) -> Result<(), CliError> {
    let client = tool.remote().client()?;
    let Request { method, path, body, screen } = Request::of(&tool);
    let answer = client.fetch(method, &path, Sent { body: body.as_ref(), idempotency_key: None }).await?;
    let mut out = io::stdout().lock();
    if tool.remote().json {
        out.write_all(&answer)?;
        out.write_all(b"\n")?;
    } else {
        writeln!(out, "{}", screen(&serde_json::from_slice(&answer)?))?;
    }
    Ok(())
}
