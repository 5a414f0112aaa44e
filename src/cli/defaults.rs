//! Defaults of options from a file of the user's.
//!
//! ```toml
//! color = "never"          # options of every command stand first
//! [upscale]
//! quality = 90
//! metadata = "icc"
//! [models.export]
//! license = "CC0-1.0"
//! ```
//! What the command line or the environment says counts more, and so does an option there that one of the file does not
//! go with.
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

use super::common::variable;
use crate::engine::files;
use crate::error::{Error, Report, Result};

/// The variable that names the file.
const FILE: &str = "SRK_CONFIG";

/// Options that a variable of the environment stands in for.
const FROM_ENVIRONMENT: [(&str, &str); 5] = [
    ("model", "SRK_MODEL"),
    ("model-name", "SRK_MODEL"),
    ("device", "SRK_DEVICE"),
    ("ram", "SRK_RAM"),
    ("threads", "SRK_THREADS"),
];

/// Sections of a training run, which is a file of another kind.
const OF_TRAINING: [&str; 5] = ["run", "optim", "loss", "diffusion", "ckpt"];

/// The file whose settings count, if there is one.
static USED: OnceLock<PathBuf> = OnceLock::new();

/// The options that it says and the command line does not, by their ids.
static SETTINGS: OnceLock<Vec<String>> = OnceLock::new();

/// Whether the option of this id has its value from the file.
pub(super) fn is_setting(id: &str) -> bool {
    SETTINGS.get().is_some_and(|ids| ids.iter().any(|known| known == id))
}

/// Commands that no setting changes, and that are to work whatever the file says.
const WITHOUT: [&str; 3] = ["help", "man", "completions"];

/// The file whose settings count, if there is one.
pub(super) fn used() -> Option<&'static Path> {
    USED.get().map(PathBuf::as_path)
}

/// Where the file is looked for: `$XDG_CONFIG_HOME/srk/config.toml`, or the same in `~/.config`.
pub(super) fn usual_place() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let windows = if cfg!(windows) { absolute("APPDATA") } else { None };
    let folder = absolute("XDG_CONFIG_HOME").or(windows);
    let folder = folder.or_else(|| Some(absolute("HOME")?.join(".config")));
    folder.map(|folder| folder.join("srk").join("config.toml"))
}

/// The file that `arguments` ask for: by `--config`, by the environment, or the usual one if it is there.
fn file_of(arguments: &[OsString]) -> Option<PathBuf> {
    let before = || arguments.iter().skip(1).take_while(|argument| *argument != "--");
    if before().any(|argument| argument == "--no-config") {
        return None;
    }
    let mut all = before();
    while let Some(argument) = all.next() {
        if argument == "--config" {
            return all.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    variable(FILE).map(PathBuf::from).or_else(|| usual_place().filter(|path| path.is_file()))
}

/// `arguments` with the settings of the file in them, where those do not say otherwise themselves.
///
/// # Errors
/// [`Error::Usage`] if the file cannot be read, or names what no command has. Not where help is asked for, or the
/// arguments are wrong by themselves: the file is not read then.
pub(super) fn filled(command: &Command, arguments: &[OsString]) -> Result<Vec<OsString>> {
    let Some(path) = file_of(arguments) else { return Ok(arguments.to_vec()) };
    let Ok(matches) = command.clone().try_get_matches_from(arguments) else {
        return Ok(arguments.to_vec());
    };
    if matches.subcommand_name().is_some_and(|name| WITHOUT.contains(&name)) {
        return Ok(arguments.to_vec());
    }
    let refuse = |cause: String, help: &str| {
        let report = Report::new(format!("cannot use the settings in {}", path.display()), cause);
        Err(Error::Usage(report.help(help)))
    };
    let text = match files::read_text(&path, 1 << 20) {
        Ok(text) => text,
        Err(e) => return refuse(e.to_string(), "name a file that is there, or --no-config"),
    };
    let table: Table = match text.parse() {
        Ok(table) => table,
        Err(e) => return refuse(e.to_string().trim_end().to_owned(), "correct it, or --no-config"),
    };
    if let Some(unknown) = unknown(command, &table, "") {
        let of_training = OF_TRAINING.iter().any(|section| table.contains_key(*section));
        return match of_training {
            true => refuse(
                "it is the configuration of a training run".into(),
                "srk train FILE.toml    takes that without an option",
            ),
            false => {
                refuse(unknown, "srk COMMAND --help    has the options; --no-config does without")
            }
        };
    }
    let _ = USED.set(path);
    let (mut found, mut ids) = (arguments.to_vec(), Vec::new());
    fill(command, (&matches, &table), 1, &mut found, &mut ids);
    let _ = SETTINGS.set(ids);
    Ok(found)
}

/// The option of `command` that has this name in the file.
fn option<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    let is_it = |arg: &&Arg| {
        let named = arg.get_long() == Some(key);
        named || arg.get_visible_aliases().is_some_and(|all| all.contains(&key))
    };
    let never = ["help", "version", "config", "no-config"];
    command.get_arguments().find(is_it).filter(|_| !never.contains(&key))
}

/// What `table` says that `command` does not have, or not of that kind.
fn unknown(command: &Command, table: &Table, before: &str) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = format!("{before}{key}");
        if let (Value::Table(inner), Some(below)) = (value, command.find_subcommand(key)) {
            return unknown(below, inner, &format!("{name}."));
        }
        let Some(arg) = option(command, key) else {
            let names = command.get_arguments().filter_map(Arg::get_long);
            let near = names.min_by_key(|other| strsim::damerau_levenshtein(other, key));
            let near = near.filter(|other| strsim::damerau_levenshtein(other, key) <= 2);
            let near = near.map_or(String::new(), |near| format!("; did you mean {before}{near}?"));
            return Some(format!("there is no option {name}{near}"));
        };
        let words = tokens(arg, key, value).err()?;
        Some(format!("{name} = {value} is {words}"))
    })
}

/// The arguments that a setting stands for.
fn tokens(arg: &Arg, key: &str, value: &Value) -> std::result::Result<Vec<OsString>, &'static str> {
    let of = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        _ => Err("neither a text nor a number"),
    };
    let flag = || OsString::from(format!("--{key}"));
    let set = |text: String| OsString::from(format!("--{key}={text}"));
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(on)) => Ok(on.then(flag).into_iter().collect()),
        (ArgAction::SetTrue, _) => Err("neither true nor false"),
        (ArgAction::Count, Value::Integer(count @ 0..=9)) => {
            Ok((0..*count).map(|_| flag()).collect())
        }
        (ArgAction::Count, _) => Err("no number from 0 to 9"),
        (ArgAction::Append, Value::Array(all)) => all.iter().map(|v| of(v).map(set)).collect(),
        (_, value) => of(value).map(|text| vec![set(text)]),
    }
}

/// Puts the settings of the table for `command` into `arguments`, whose name of it stands before place `at`, and the ids of
/// their options into `ids`.
fn fill(
    command: &Command,
    (matches, table): (&ArgMatches, &Table),
    at: usize,
    arguments: &mut Vec<OsString>,
    ids: &mut Vec<String>,
) {
    if let Some((name, inner)) = matches.subcommand()
        && let Some(below) = command.find_subcommand(name)
    {
        let names: Vec<&str> = below.get_all_aliases().chain([below.get_name()]).collect();
        let is_name = |argument: &OsString| names.iter().any(|name| argument == OsStr::new(name));
        let place = arguments.iter().skip(at).position(is_name);
        if let (Some(place), Some(Value::Table(settings))) = (place, table.get(name)) {
            fill(below, (inner, settings), at + place + 1, arguments, ids);
        }
    }
    let given =
        |arg: &Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let all: Vec<&Arg> = command.get_arguments().filter(|arg| given(arg)).collect();
    let fits = |arg: &Arg| {
        let against = |one: &Arg, other: &Arg| {
            command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
        };
        !all.iter().any(|other| {
            other.get_id() == arg.get_id() || against(arg, other) || against(other, arg)
        })
    };
    let mut more = Vec::new();
    for (key, value) in table {
        let Some(arg) = option(command, key).filter(|arg| fits(arg)) else { continue };
        let said = FROM_ENVIRONMENT.iter().any(|(k, v)| k == key && variable(v).is_some());
        if !said && let Ok(tokens) = tokens(arg, key, value) {
            more.extend(tokens);
            ids.push(arg.get_id().to_string());
        }
    }
    arguments.splice(at..at, more);
}
