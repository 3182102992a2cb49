//! The program: the server, the demonstration, and operators' tools.

use anyhow::Context;
use clap::{Parser, Subcommand};
use meeboter::app::Application;
use meeboter::{cli, config, demo, telemetry};
use std::path::PathBuf;
use std::process::ExitCode;

/// The actors make and drop many small values: with the system's allocator that was two fifths of their time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sends bots into meetings, from a pool of reusable slots.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve {
        /// Settings that override the defaults; `config/default.toml` shows them all.
        #[arg(long, env = "MEEBOTER_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Print the default settings, every key with its meaning.
    Config,
    /// Show it all: real bots in rehearsal meetings.
    Demo(demo::DemoOptions),
    #[command(flatten)]
    Operate(cli::Tool),
}

#[actix_web::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve { config } => serve(config).await,
        Command::Config => {
            print!("{}", config::DEFAULTS);
            Ok(())
        }
        Command::Demo(options) => demo::run(options).await.map_err(Into::into),
        Command::Operate(tool) => cli::run(tool).await.map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meeboter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(file: Option<PathBuf>) -> anyhow::Result<()> {
    let file = match file {
        Some(path) => {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Some((path.display().to_string(), text))
        }
        None => None,
    };
    let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    let loaded = config::load(
        file,
        std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))),
    )?;
    let log = telemetry::logger(&loaded.settings.log);
    for warning in &loaded.warnings {
        slog::warn!(log, "configuration"; "warning" => warning);
    }
    Application::start(loaded.settings, log).await?.run().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_is_well_formed() {
        Cli::command().debug_assert();
    }
}
