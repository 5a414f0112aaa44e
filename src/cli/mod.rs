//! The command line: one file per subcommand, no logic.
#![allow(clippy::print_stdout)] // This module and main are the only ones that print.
mod common;
mod data;
mod doctor;
mod eval;
mod import;
mod models;
mod print;
mod sample;
mod train;
mod upscale;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::engine::shield::located;
use crate::error::{Error, Report, Result};

/// Super-resolution with diffusion models on an engine of its own.
#[derive(Debug, Parser)]
#[command(name = "srk", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Upscale(upscale::Args),
    Train(train::Args),
    Sample(sample::Args),
    Eval(eval::Args),
    Data(data::Args),
    Models(models::Args),
    Doctor(doctor::Args),
}

const EXIT_CODES: &str = "Exit codes:
  0        everything asked for was done
  1        an input or a run failed
  2        the command line or a configuration is wrong; nothing was done
  3        a model is missing, unsupported or damaged
  4        the requested device cannot be used
  5        the work does not fit in memory
  6        a check said no, for example a loss that is not finite
  130 143  interrupted; what is worth keeping was saved";

/// Parses the arguments of the process, runs what they ask for and prints the error if it fails.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let result = located(|| run(command)).unwrap_or_else(|panic| Err(mistake(&panic)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::note(format_args!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<()> {
    // A log that is not read costs no training: that has said so itself.
    let trains = matches!(command, Command::Train(_));
    match command {
        Command::Upscale(args) => upscale::run(args),
        Command::Train(args) => train::run(args),
        Command::Sample(args) => sample::run(&args),
        Command::Eval(args) => eval::run(args),
        Command::Data(args) => data::run(args),
        Command::Models(args) => models::run(args),
        Command::Doctor(args) => doctor::run(args),
    }?;
    if trains { Ok(()) } else { print::check() }
}

/// The error that a panic, a mistake in srk, is for its user.
fn mistake(panic: &str) -> Error {
    let report = Report::new("srk made a mistake", panic);
    Error::Failed(report.help("report it with the command and the lines above"))
}
