//! The program: the server, the demonstration, backups, and operators' tools.

use clap::{Parser, Subcommand};
use meeboter::app::Application;
use meeboter::config::Source;
use meeboter::{backup, cli, config, coolify_emulator, demo, telemetry};
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
    /// Backups of the database in the object store: create, list, restore.
    Backup(backup::BackupOptions),
    /// Run an emulator of the part of Coolify's API that Meeboter uses, to try it without a Coolify.
    CoolifyEmulator(coolify_emulator::EmulatorOptions),
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
        Command::Backup(options) => backup::run(options).await.map_err(Into::into),
        Command::CoolifyEmulator(options) => coolify_emulator::run(options).await.map_err(Into::into),
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
    let source = Source { file };
    let loaded = source.load()?;
    let log = telemetry::logger(&loaded.settings.log);
    for warning in &loaded.warnings {
        slog::warn!(log, "configuration"; "warning" => warning);
    }
    Application::start(source, loaded, log).await?.run().await?;
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
