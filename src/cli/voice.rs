//! What all commands say and how: flags for it, lines for people on standard error, JSON for programs.
use std::ffi::OsString;
use std::fmt::Display;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::print;
use crate::error::{Error, Result};

/// Flags of every command.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Every command")]
pub(super) struct Voice {
    /// Report as JSON lines on standard output, errors too
    #[arg(long, global = true)]
    json: bool,
    /// Print errors, and results that were asked for, only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more of what is done; twice also where a mistake in srk came from
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Colours in messages: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(long, global = true, value_enum, value_name = "WHEN", hide_possible_values = true)]
    color: Option<Color>,
    /// How far the work is: auto (a bar on a terminal, elsewhere a line now and then), bar (on a terminal alone),
    /// plain (lines) or none
    #[arg(long, global = true, value_enum, value_name = "HOW", hide_possible_values = true)]
    progress: Option<Shown>,
    /// Also write all messages into this file, behind what it holds
    #[arg(long, global = true, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Take defaults of options from this file [default: SRK_CONFIG, or ~/.config/srk/config.toml if it is there]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "no_config")]
    config: Option<PathBuf>,
    /// Take no defaults of options from a file
    #[arg(long, global = true)]
    no_config: bool,
}

/// A value of `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// A value of `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Shown {
    #[default]
    Auto,
    Bar,
    Plain,
    None,
}

impl Voice {
    /// Before the arguments are understood.
    pub(super) fn early(arguments: &[OsString]) -> Self {
        let json = arguments.iter().any(|argument| argument == "--json");
        Self { json, color: Some(Color::among(arguments)), ..Self::default() }
    }
}

impl Color {
    /// What arguments say that are not understood yet: their own error is to have colours, or none.
    pub(super) fn among(arguments: &[OsString]) -> Self {
        let texts: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
        let given =
            texts.iter().enumerate().find_map(|(i, text)| match text.strip_prefix("--color")? {
                "" => texts.get(i + 1).copied(),
                value => value.strip_prefix('='),
            });
        given.and_then(|value| clap::ValueEnum::from_str(value, false).ok()).unwrap_or_default()
    }

    /// The same for the parser of the arguments.
    pub(super) fn choice(self) -> clap::ColorChoice {
        match self {
            Self::Auto => clap::ColorChoice::Auto,
            Self::Always => clap::ColorChoice::Always,
            Self::Never => clap::ColorChoice::Never,
        }
    }

    fn is_on(self) -> bool {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => std::io::stderr().is_terminal() && !set("NO_COLOR") && !dumb,
        }
    }
}

static VOICE: OnceLock<Voice> = OnceLock::new();

/// Whether standard output is for a picture.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Sets how this process speaks, once; the files that are `read`, which a log alone asks for, take none.
///
/// # Errors
/// If the file of `--log` cannot be written.
pub(super) fn set(voice: Voice, read: &dyn Fn() -> Vec<PathBuf>) -> Result<()> {
    print::color(voice.color.unwrap_or_default().is_on());
    let log = voice.log.clone();
    let _ = VOICE.set(voice);
    match log {
        Some(path) => print::log_into(&path, &read()),
        None => Ok(()),
    }
}

fn voice() -> Option<&'static Voice> {
    VOICE.get()
}

/// Whether programs are to read the report.
pub(super) fn json() -> bool {
    voice().is_some_and(|voice| voice.json)
}

/// Whether nothing but errors is to be said.
pub(super) fn quiet() -> bool {
    voice().is_some_and(|voice| voice.quiet)
}

/// How often more was asked for.
pub(super) fn verbosity() -> u8 {
    voice().map_or(0, |voice| voice.verbose)
}

/// How progress is to be shown.
pub(super) fn progress() -> Shown {
    voice().and_then(|voice| voice.progress).unwrap_or_default()
}

/// From now on standard output is for a picture alone.
pub(super) fn leave_stdout() {
    TAKEN.store(true, Ordering::Relaxed);
}

/// Whether a picture goes to standard output.
pub(super) fn stdout_is_taken() -> bool {
    TAKEN.load(Ordering::Relaxed)
}

/// A JSON line, if those were asked for: on standard output, unless a picture goes there.
pub(super) fn event(event: &Value) {
    match (json(), stdout_is_taken()) {
        (false, _) => {}
        (true, false) => drop(print::line(event)),
        (true, true) => print::note(event),
    }
}

/// The last JSON line of a command that is done, with what it made.
pub(super) fn done(mut made: Value) {
    made["event"] = "done".into();
    event(&made);
}

/// A line for people.
pub(super) fn say(text: impl Display) {
    match quiet() {
        false => print::note(text),
        // A log is for those who look later.
        true => print::log(text),
    }
}

/// A line for people who want to know more.
pub(super) fn detail(text: impl Display) {
    if verbosity() > 0 {
        print::note(text);
    }
}

/// A line of a result: on standard output for people, nothing where programs read.
pub(super) fn result(text: impl Display) {
    if !json() {
        print::line(text);
    }
}

/// A line on what was written: as a result, but nothing where no more than errors are to be said.
pub(super) fn status(text: impl Display) {
    match quiet() {
        false => result(text),
        true => print::log(text),
    }
}

/// The fields by which programs know an error.
pub(super) fn fields(error: &Error) -> Value {
    let mut fields = json!({"code": error.code(), "exit": error.exit_code()});
    match error.report() {
        Some(report) => {
            fields["error"] = report.what.as_str().into();
            fields["cause"] = report.cause.as_str().into();
            fields["help"] = report.help.as_str().into();
        }
        None => fields["error"] = error.to_string().into(),
    }
    fields
}

/// `record` with the fields of `error`.
pub(super) fn with_error(mut record: Value, error: &Error) -> Value {
    if let (Some(record), Value::Object(fields)) = (record.as_object_mut(), fields(error)) {
        record.extend(fields);
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_known_before_all_else_is() {
        let of = |arguments: &[&str]| {
            Color::among(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
        };
        assert_eq!(of(&["srk", "upscale", "--color", "never"]), Color::Never);
        assert_eq!(of(&["srk", "--color=always"]), Color::Always);
        for arguments in [&["srk", "--color-fix", "none"][..], &["srk", "--color"], &["srk"]] {
            assert_eq!(of(arguments), Color::Auto, "{arguments:?}");
        }
    }
}
