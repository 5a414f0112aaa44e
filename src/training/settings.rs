//! Reading a configuration: a recipe or a file, then `--set`, then its own checks; and comparing it with the
//! one a run was started with. The same for every kind of run.
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::engine::document;
use crate::engine::spelling;
use crate::error::{Error, Report, Result};
use crate::models::run_folder;

/// A configuration whose sections and defaults its type knows.
pub trait Settings: Serialize + DeserializeOwned {
    /// Refuses values that no run can have; exit code 2.
    fn check(&self) -> Result<()>;
}

/// What a run may go on with when it is different: more steps, data elsewhere, another rate; the name is that of its
/// folder, which then was renamed.
const MAY_CHANGE: [&str; 8] = [
    "run.name",
    "run.steps",
    "data.train.paths",
    "data.train.low",
    "data.val.paths",
    "data.paths",
    "optim.lr",
    "optim.on_nan",
];

/// What keys that count at the start of a run alone begin with.
const ONLY_AT_START: &str = "run.init";

/// What is a name, or false.
const NAME_OR_OFF: [&str; 1] = ["ckpt.best"];

/// Sections that do not change the weights.
const FREE: [&str; 6] = ["log.", "ckpt.", "val.", "sample.", "data.val.", "data.cache"];

/// Reads `text`, called `name` in messages, with every `a.b=v` of `overrides` applied to it.
///
/// Unknown keys are refused with the nearest known one; wrong types and impossible values with
/// the key they belong to. All are exit code 2. What an override brings in is said of that, not of the text.
pub fn read<C: Settings>(text: &str, name: &str, overrides: &[String]) -> Result<C> {
    let wrong = |what: String, cause: String| Error::Usage(Report::new(what, cause).help(KEYS));
    let of_text = || format!("cannot read {name}");
    let given: Table = text
        .parse()
        .map_err(|e: toml::de::Error| wrong(of_text(), e.to_string().trim_end().to_owned()))?;
    // Types of existing keys decide how an override is read: 12 may be a name.
    let known = resolve::<C>(&given).ok().map(|c| to_table(&c));
    let all: Vec<&String> = overrides.iter().collect();
    let table = with(&given, known.as_ref(), &all)?;
    let config: C = resolve(&table).map_err(|cause| {
        // The one without which the rest would do, where the text does.
        let is_guilty = |&i: &usize| {
            let rest: Vec<_> = all[..i].iter().chain(&all[i + 1..]).copied().collect();
            with(&given, known.as_ref(), &rest).is_ok_and(|t| resolve::<C>(&t).is_ok())
        };
        let guilty = known.as_ref().and_then(|_| (0..all.len()).find(is_guilty));
        wrong(guilty.map_or_else(of_text, |i| of_override(all[i])), cause)
    })?;
    refuse_unknown(&table, &to_table(&config), (name, overrides))?;
    config.check()?;
    Ok(config)
}

/// Where users find what keys there are.
const KEYS: &str =
    "docs/configuration.md has all keys, their values and defaults; srk train --schema prints them";

fn of_override(setting: &str) -> String {
    format!("cannot apply --set {setting}")
}

/// `given` with all `overrides` applied.
fn with(given: &Table, known: Option<&Table>, overrides: &[&String]) -> Result<Table> {
    let mut table = given.clone();
    for setting in overrides {
        set(&mut table, known, setting)?;
    }
    Ok(table)
}

/// The configuration of `table`, or what is wrong with which key.
fn resolve<C: Settings>(table: &Table) -> std::result::Result<C, String> {
    document::from_toml(table)
}

/// The text under the dotted `key` of the configuration `text`, if it has one.
pub fn text_at(text: &str, key: &str) -> Option<String> {
    let table: Table = text.parse().ok()?;
    let path: Vec<&str> = key.split('.').collect();
    find(&table, &path)?.as_str().map(str::to_owned)
}

/// The configuration with every default written out.
pub fn to_toml(config: &impl Settings) -> String {
    document::to_toml(config).unwrap_or_else(|e| format!("# {e}\n"))
}

fn to_table(config: &impl Settings) -> Table {
    to_toml(config).parse().unwrap_or_default()
}

/// The dotted keys in which two configurations differ, with both values, leaving out what does not
/// change the weights: `log`, `ckpt`, `val`, `sample`, `data.cache`, and `data.val` but for its split.
pub fn differences<C: Settings>(one: &C, other: &C) -> Vec<String> {
    let free = |key: &str| key != "data.val.split" && FREE.iter().any(|p| key.starts_with(p));
    let all = all_differences(one, other).into_iter().filter(|(key, _)| !free(key));
    all.map(|(_, text)| text).collect()
}

/// Every dotted key in which two configurations differ, with a text that has both values.
fn all_differences<C: Settings>(one: &C, other: &C) -> Vec<(String, String)> {
    let (a, b) = (flat(&to_table(one)), flat(&to_table(other)));
    let find = |list: &[(String, Value)], key: &str| {
        list.iter().find(|(k, _)| k == key).map_or("absent".to_owned(), |(_, v)| v.to_string())
    };
    let mut keys: Vec<&String> = a.iter().chain(&b).map(|(k, _)| k).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .map(|key| (key, find(&a, key), find(&b, key)))
        .filter(|(_, old, new)| old != new)
        .map(|(key, old, new)| (key.clone(), format!("{key} = {old}, now {new}")))
        .collect()
}

/// What is different from the configuration that the run in `folder`, if it saved a step, was started with, or went on with
/// last, and may be: `run.name`, `run.steps`, the paths of data, `optim.lr`, and what does not change the weights.
///
/// # Errors
/// Exit code 2 with the keys that differ and may not.
pub fn compare_with_existing<C: Settings>(config: &C, folder: &Path) -> Result<Vec<String>> {
    let path = folder.join("config.toml");
    // Nothing that another configuration would go on with.
    if !run_folder::has_saved(folder) {
        return Ok(Vec::new());
    }
    let Ok(text) = fs::read_to_string(&path) else { return Ok(Vec::new()) };
    let before: C = read(&text, &path.display().to_string(), &[])?;
    let may = |key: &str| {
        let of_data = key != "data.val.split" && FREE.iter().any(|p| key.starts_with(p));
        of_data || MAY_CHANGE.contains(&key) || key.starts_with(ONLY_AT_START)
    };
    let (allowed, refused): (Vec<_>, Vec<_>) =
        all_differences(&before, config).into_iter().partition(|(key, _)| may(key));
    let texts = |all: Vec<(String, String)>| all.into_iter().map(|(_, text)| text);
    if refused.is_empty() {
        let silent = |key: &str| {
            key.starts_with(ONLY_AT_START) || ["log.", "ckpt."].iter().any(|p| key.starts_with(p))
        };
        let told = allowed.into_iter().filter(|(key, _)| !silent(key));
        return Ok(texts(told.collect()).collect());
    }
    let what = format!("{} was started with another configuration", folder.display());
    let report = Report::new(what, texts(refused).collect::<Vec<_>>().join("; "));
    let help = "--set run.name=OTHER --resume RUN    starts a new run where this one is, --from RUN from its weights \
                alone; the old values continue it";
    Err(Error::Usage(report.help(help)))
}

/// Applies `a.b=v`. `known` is the resolved configuration before it, if it resolves.
fn set(table: &mut Table, known: Option<&Table>, setting: &str) -> Result<()> {
    let wrong = |cause: String| {
        let report = Report::new(of_override(setting), cause);
        Err(Error::Usage(report.help("--set optim.lr=2e-4    is the form")))
    };
    let Some((key, text)) = setting.split_once('=') else {
        return wrong("there is no =".into());
    };
    let (key, text) = (key.trim(), text.trim());
    let path: Vec<&str> = key.split('.').collect();
    if path.iter().any(|part| part.is_empty()) {
        return wrong(format!("{key:?} is not a dotted key"));
    }
    let old = known.and_then(|t| find(t, &path));
    let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let value = match (old, parsed) {
        (Some(Value::String(_)), Some(Value::String(v))) => Value::String(v),
        (Some(Value::String(_)), _) | (_, None) => Value::String(text.to_owned()),
        (_, Some(value)) => value,
    };
    let differs = |old: &&Value| !same_type(old, &value) && !NAME_OR_OFF.contains(&key);
    if let Some(old) = old.filter(differs) {
        return wrong(format!("{key} is {}, not {}", kind(old), kind(&value)));
    }
    let mut at = table;
    for part in &path[..path.len() - 1] {
        let next = at.entry((*part).to_owned()).or_insert_with(|| Value::Table(Table::new()));
        // A switch that is on may become a section whose keys are on.
        if *next == Value::Boolean(true) {
            *next = Value::Table(Table::new());
        }
        match next {
            Value::Table(inner) => at = inner,
            other => return wrong(format!("{part} is {}, not a section", kind(other))),
        }
    }
    at.insert(path[path.len() - 1].to_owned(), value);
    Ok(())
}

fn find<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    match (table.get(*first)?, rest) {
        (value, []) => Some(value),
        (Value::Table(inner), rest) => find(inner, rest),
        _ => None,
    }
}

/// Whether `new` may stand for `old`: whole numbers and fractions are judged by the section itself.
fn same_type(old: &Value, new: &Value) -> bool {
    let number = |v: &Value| matches!(v, Value::Integer(_) | Value::Float(_));
    // A switch may become a section, and back.
    let switch = |v: &Value| matches!(v, Value::Boolean(_) | Value::Table(_));
    old.same_type(new) || (number(old) && number(new)) || (switch(old) && switch(new))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

/// Every leaf under its dotted key, sorted.
fn flat(table: &Table) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => all.extend(
                flat(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)),
            ),
            value => all.push((key.clone(), value.clone())),
        }
    }
    all
}

/// Refuses keys of `given` that `resolved`, the same configuration written out in full, lacks; they came with one of
/// `overrides`, or from what is called `name`.
fn refuse_unknown(
    given: &Table,
    resolved: &Table,
    (name, overrides): (&str, &[String]),
) -> Result<()> {
    let known: Vec<String> = flat(resolved).into_iter().map(|(key, _)| key).collect();
    for (key, _) in flat(given) {
        if known.contains(&key) {
            continue;
        }
        let nearest = spelling::nearest_of(&key, &known);
        let brings = |setting: &&String| {
            let set = setting.split('=').next().unwrap_or_default().trim();
            key == set || key.starts_with(&format!("{set}."))
        };
        let what = match overrides.iter().rfind(brings) {
            Some(setting) => of_override(setting),
            None => format!("cannot read {name}"),
        };
        let report = Report::new(what, format!("unknown key {key}"));
        let help = nearest.map_or_else(|| KEYS.to_owned(), |k| format!("did you mean {k}?"));
        return Err(Error::Usage(report.help(help)));
    }
    Ok(())
}
