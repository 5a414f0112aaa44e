//! Which files the arguments name: `--log` adds lines to none of them.
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::defaults;
use crate::engine::files;

/// No configuration is longer, in bytes.
const LONGEST: u64 = 16 << 20;

/// What is there of all that `arguments` name but the log itself: they, what stands behind their `=`, the texts in
/// configurations among them, and the file of settings.
pub(super) fn files(arguments: &[OsString]) -> Vec<PathBuf> {
    let mut named: Vec<String> = Vec::new();
    let mut texts = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    while let Some(text) = texts.next() {
        match text {
            "--log" => _ = texts.next(),
            _ if text.starts_with("--log=") => {}
            _ => {
                named.push(text.to_owned());
                named.extend(
                    text.split_once('=').into_iter().flat_map(|(_, value)| value_of(value)),
                );
            }
        }
    }
    let of_configurations: Vec<String> = named
        .iter()
        .filter(|name| name.ends_with(".toml"))
        .flat_map(|name| texts_in(name))
        .collect();
    let all = named.into_iter().chain(of_configurations).map(PathBuf::from);
    all.chain(defaults::used().map(Path::to_owned)).filter(|path| path.is_file()).collect()
}

/// The texts of a value of `--set`, which may be a list, or the value itself.
fn value_of(value: &str) -> Vec<String> {
    let mut found = vec![value.to_owned()];
    if let Ok(table) = format!("v = {value}").parse::<Table>() {
        collect(&Value::Table(table), &mut found);
    }
    found
}

fn texts_in(configuration: &str) -> Vec<String> {
    let path = Path::new(configuration);
    let text = path.is_file().then(|| files::read_text(path, LONGEST).ok()).flatten();
    let mut found = Vec::new();
    if let Some(table) = text.and_then(|text| text.parse::<Table>().ok()) {
        collect(&Value::Table(table), &mut found);
    }
    found
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|value| collect(value, found)),
        Value::Table(all) => all.values().for_each(|value| collect(value, found)),
        _ => {}
    }
}
