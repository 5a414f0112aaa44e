//! From the arguments of the process to its exit code.
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use serde_json::json;

use super::arguments::{Cli, Command};
use super::{
    bench, compare, data, defaults, doctor, eval, habits, manual, models, print, reads, refusal,
    sample, train, upscale, voice,
};
use crate::diffusion::system;
use crate::engine::interrupt;
use crate::engine::shield::located;
use crate::error::{Error, Report, Result};
use crate::import::open;

/// Parses the arguments of the process, runs what they ask for and prints the error if it fails.
pub fn main() -> ExitCode {
    interrupt::survive_limits_of_files();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if let Err(error) = voice::set(cli.voice, &|| reads::files(&arguments)) {
        return failed(&error);
    }
    train::hear_of_checkpoints();
    system::read_others_by(open::weights);
    let result = located(|| run(cli.command)).unwrap_or_else(|panic| Err(mistake(&panic)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// The arguments, or how the process ends without any work.
fn parse(arguments: &[OsString]) -> std::result::Result<Cli, ExitCode> {
    // What is wrong with the arguments is said before they are understood.
    let early = || drop(voice::set(voice::Voice::early(arguments), &|| reads::files(arguments)));
    if let Some(error) = habits::before(arguments, &Cli::command()) {
        early();
        return Err(failed(&error));
    }
    let command = Cli::command().color(voice::Color::among(arguments).choice());
    let filled = defaults::filled(&command, arguments).map_err(|error| {
        early();
        failed(&error)
    })?;
    let matches = command.try_get_matches_from(&filled);
    if let (Err(error), true) = (&matches, filled != arguments) {
        early();
        let file = defaults::used().map_or_else(String::new, |path| path.display().to_string());
        let what = format!("cannot use the settings in {file}");
        let report = Report::new(
            what,
            refusal::of(error, arguments, &Cli::command()).to_string().replace('\n', "; "),
        );
        return Err(failed(&Error::Usage(report.help("correct it, or --no-config"))));
    }
    let cli = matches.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    cli.map_err(|error| {
        if !error.use_stderr() {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        early();
        if let Some(answer) = habits::after(&error, arguments) {
            return failed(&answer);
        }
        let _ = error.print();
        let record = json!({"event": "error"});
        voice::event(&voice::with_error(record, &refusal::of(&error, arguments, &Cli::command())));
        ExitCode::from(2)
    })
}

/// Says why the command failed, to people and programs.
fn failed(error: &Error) -> ExitCode {
    voice::event(&voice::with_error(json!({"event": "error"}), error));
    print::note(format_args!("error: {error}"));
    ExitCode::from(error.exit_code())
}

fn run(command: Command) -> Result<()> {
    // A log that is not read costs no training: that has said so itself.
    let trains = matches!(command, Command::Train(_));
    match command {
        Command::Upscale(args) => upscale::run(*args),
        Command::Train(args) => train::run(args),
        Command::Sample(args) => sample::run(&args),
        Command::Eval(args) => eval::run(args),
        Command::Compare(args) => compare::run(&args),
        Command::Data(args) => data::run(args),
        Command::Models(args) => models::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Completions(args) => manual::completions(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command()),
    }?;
    if trains { Ok(()) } else { print::check() }
}

/// The error that a panic, a mistake in srk, is for its user.
fn mistake(panic: &str) -> Error {
    let report = Report::new("srk made a mistake", panic).code("bug");
    Error::Failed(report.help("report it with the command and the lines above"))
}
