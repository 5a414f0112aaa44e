//! What all commands say and how: flags for it, lines for people on standard error, JSON for programs.
use std::fmt::Display;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::print;
use crate::error::Error;

/// Flags of every command.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(next_help_heading = "Every command")]
pub(super) struct Voice {
    /// Report as JSON lines on standard output, errors too
    #[arg(long, global = true)]
    json: bool,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more of what is done; twice also where a mistake in srk came from
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Voice {
    /// Before the arguments are understood.
    pub(super) fn early(json: bool) -> Self {
        Self { json, ..Self::default() }
    }
}

static VOICE: OnceLock<Voice> = OnceLock::new();

/// Whether standard output is for a picture.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Sets how this process speaks, once.
pub(super) fn set(voice: Voice) {
    let _ = VOICE.set(voice);
}

fn voice() -> Voice {
    VOICE.get().copied().unwrap_or_default()
}

/// Whether programs are to read the report.
pub(super) fn json() -> bool {
    voice().json
}

/// Whether nothing but errors is to be said.
pub(super) fn quiet() -> bool {
    voice().quiet
}

/// How often more was asked for.
pub(super) fn verbosity() -> u8 {
    voice().verbose
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
    if !quiet() {
        print::note(text);
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
