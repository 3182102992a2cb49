//! The demonstration: real bots in rehearsal meetings, through the public API.
//!
//! `meeboter demo` starts this same program as a server with a data folder of its own, sends more bots than there are
//! slots, follows them as any client would, and then checks what they brought home: every recording is fetched
//! through its signed link, measured, and listened to. Whatever happens, the server is stopped at the end.

mod api;
pub mod engine;
mod folder;
mod logs;
mod progress;
mod recording;
mod server;
mod table;
mod tone;
mod watch;

use self::api::{Api, ApiError};
use self::engine::{Engine, EngineOptions};
use self::folder::Folder;
use self::progress::Display;
use self::server::Server;
use self::watch::Watched;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

/// How long the bots may take to get out of their meetings, and the slots to be clean again, before the server ends.
const TIDY_LIMIT: Duration = Duration::from_secs(30);

/// Show what Meeboter does: send bots into rehearsal meetings and check their recordings.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoOptions {
    /// How many bots to send.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=50))]
    pub bots: u16,
    /// How many slots they share; with fewer slots than bots some have to queue.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=20))]
    pub slots: u16,
    /// An empty or new folder for the server's data, the logs and the recordings; by default one of the system's
    /// temporary folder.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u64).range(10..=3600))]
    pub timeout: u64,
    /// What runs the bots.
    #[command(flatten)]
    pub engine: EngineOptions,
}

/// Why a demonstration did not succeed.
#[derive(Debug, Error)]
pub enum DemoError {
    /// ffmpeg or ffprobe is missing.
    #[error("{tool} cannot be run; recordings are joined and checked with it: please install ffmpeg")]
    Tool {
        /// The program's name.
        tool: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The folder holds something already.
    #[error("{} is not empty; the demo wants a folder of its own: give a new one with --data-dir", path.display())]
    FolderTaken {
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be used.
    #[error("{} cannot be used as the demo's folder; give another with --data-dir", path.display())]
    Folder {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No free port, no signals, no such program: the system refused something basic.
    #[error("{what} failed")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("the server ended ({status}); its log is {}\n{tail}", log.display())]
    ServerEnded {
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// The server did not become ready.
    #[error("the server was not ready within {} s; its log is {}\n{tail}", limit.as_secs(), log.display())]
    NotReady {
        /// How long was waited.
        limit: Duration,
        /// The server's log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// The server made no key.
    #[error("the API key that the server writes at its first start cannot be read from {}", path.display())]
    Key {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A request failed.
    #[error("the server did not do what was asked")]
    Api(#[from] ApiError),
    /// It took too long.
    #[error("not finished within {seconds} s; allow more with --timeout")]
    Timeout {
        /// How long was allowed.
        seconds: u64,
    },
    /// Somebody stopped the demonstration.
    #[error("stopped by {signal}")]
    Interrupted {
        /// The signal's name.
        signal: &'static str,
    },
    /// Some bots did not do what they should.
    #[error("{failed} of {bots} bots did not do what they should; the reasons are listed above")]
    Bots {
        /// How many.
        failed: usize,
        /// Of how many.
        bots: usize,
    },
}

/// Runs the demonstration. It has to be called within an actix runtime.
pub async fn run(options: DemoOptions) -> Result<(), DemoError> {
    recording::find_tools().await?;
    let mut signals = Signals::listen()?;
    let folder = Folder::prepare(options.data_dir.as_deref())?;
    let engine = Engine::start(&options.engine, folder.root()).await?;
    let mut server = Server::start(&folder, options.slots, &engine)?;
    println!("The demo's server, its logs and the recordings are in {}", folder.root().display());
    println!("Dashboard: {}/ with the key in {}", server.base(), folder.key().display());
    let mut play = Play::new(&options, folder.clone(), server.base());

    let limit = Duration::from_secs(options.timeout);
    let outcome = tokio::select! {
        biased;
        signal = signals.next() => Err(DemoError::Interrupted { signal }),
        status = server.ended() => Err(DemoError::ServerEnded {
            status,
            log: folder.server_log(),
            tail: logs::tail(&folder.server_log()),
        }),
        () = sleep(limit) => Err(DemoError::Timeout { seconds: options.timeout }),
        outcome = play.perform() => outcome,
    };
    play.display.finish();
    play.print_table();
    match &outcome {
        Ok(()) => play.print_complaints(),
        // Whoever stopped it knows why.
        Err(DemoError::Interrupted { .. }) => {}
        Err(_) => {
            play.bots.iter_mut().for_each(Watched::note_unfinished);
            play.print_complaints();
        }
    }
    tokio::select! {
        biased;
        _ = signals.next() => {}
        () = play.tidy() => {}
    }
    server.stop(&play.display).await;
    engine.end().await;
    outcome?;
    play.verdict()
}

/// The bots of one demonstration and what became of them; kept apart from the flow, so that an interrupted one can
/// still be told about.
struct Play {
    bots_wanted: u16,
    queue_limit: Duration,
    folder: Folder,
    base: String,
    api: Option<Api>,
    bots: Vec<Watched>,
    display: Display,
}

impl Play {
    fn new(options: &DemoOptions, folder: Folder, base: &str) -> Self {
        Self {
            bots_wanted: options.bots,
            queue_limit: Duration::from_secs(options.timeout.min(600)),
            folder,
            base: base.to_owned(),
            api: None,
            bots: Vec::new(),
            display: Display::new(),
        }
    }

    async fn perform(&mut self) -> Result<(), DemoError> {
        self.display.note("The server starts");
        server::wait_until_ready(&self.base, &self.folder).await?;
        let key = self.folder.read_key()?;
        let api = self.api.insert(Api::new(&self.base, &key));
        for number in 1..=self.bots_wanted {
            let url = meeting_url(&self.base, number);
            let bot = api.send_bot(&format!("Demo bot {number}"), &url, self.queue_limit).await?;
            self.bots.push(Watched::new(bot));
        }
        self.display.note("The bots are at work");
        watch::until_settled(api, &mut self.bots, &mut self.display).await?;
        self.display.note("The recordings are checked");
        for bot in &mut self.bots {
            bot.check(api, &self.folder).await;
        }
        Ok(())
    }

    fn print_table(&self) {
        if !self.bots.is_empty() {
            println!("\n{}", table::render(self.bots.iter().map(Watched::row)));
        }
    }

    /// Prints what is wrong with whom.
    fn print_complaints(&self) {
        for line in self.bots.iter().flat_map(|bot| bot.complaint(&self.folder)) {
            println!("{line}");
        }
    }

    /// Bots outlive a server: whoever is still in a meeting is told to leave, and the slots get time to clear up.
    async fn tidy(&mut self) {
        let Some(api) = &self.api else { return };
        self.display.line("Clearing the slots and stopping the server…");
        for bot in self.bots.iter().filter(|bot| !bot.has_ended()) {
            if let Err(error) = api.dismiss(bot.id(), bot.state()).await {
                self.display.line(&format!("bot {} could not be told to leave: {error}", bot.id()));
            }
        }
        let quiet = async {
            while !matches!(api.pool_is_quiet().await, Ok(true) | Err(_)) {
                sleep(Duration::from_millis(300)).await;
            }
        };
        if tokio::time::timeout(TIDY_LIMIT, quiet).await.is_err() {
            self.display.line("Not every slot became idle in time; the server's log says which.");
        }
    }

    fn verdict(&self) -> Result<(), DemoError> {
        let failed = self.bots.iter().filter(|bot| !bot.is_fine()).count();
        if failed > 0 {
            return Err(DemoError::Bots { failed, bots: self.bots.len() });
        }
        println!("All {} bots did what they should.", self.bots.len());
        Ok(())
    }
}

/// A meeting of 15 to 20 seconds: the host lets the bot in after 2 s, two guests make a tone, the host ends it.
fn meeting_url(base: &str, number: u16) -> String {
    let length_ms = 15_000 + u32::from(number % 6) * 1_000;
    let options = format!("host=admit&admitAfterMs=2000&guests=2&lengthMs={length_ms}&end=ended");
    format!("{base}/rehearsal/demo-{number}?{options}")
}

/// What a person or the system may stop the demonstration by.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, DemoError> {
        let listen =
            |kind| signal(kind).map_err(|source| DemoError::System { what: "listening for signals", source });
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meetings_last_fifteen_to_twenty_seconds() {
        for number in 1..=50 {
            let url = url::Url::parse(&meeting_url("http://127.0.0.1:3000", number)).expect("an address");
            assert_eq!(url.path(), format!("/rehearsal/demo-{number}"));
            let length =
                url.query_pairs().find(|(name, _)| name == "lengthMs").expect("given").1.into_owned();
            assert!((15_000..=20_000).contains(&length.parse::<u32>().expect("a number")));
        }
    }
}
