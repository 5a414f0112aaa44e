//! What failed in an earlier run, by its `--json` report.
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::engine::files;
use crate::error::{Error, Report, Result};

/// No report is longer, in bytes.
const LONGEST: u64 = 1 << 30;

/// Input and output of the pictures that failed, each once, in the order of the report.
///
/// # Errors
/// [`Error::Usage`] if the file cannot be read, or is no such report.
pub(super) fn failures(report: &Path) -> Result<Vec<[PathBuf; 2]>> {
    let refuse = |cause: String| {
        let what = format!("cannot read the report {}", report.display());
        let help = "srk upscale ... --json > report.jsonl    writes one";
        Error::Usage(Report::new(what, cause).help(help))
    };
    let text = files::read_text(report, LONGEST).map_err(|e| refuse(e.to_string()))?;
    let (mut failed, mut events) = (Vec::new(), 0);
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let event: Value = serde_json::from_str(line)
            .map_err(|e| refuse(format!("line {} is no JSON object: {e}", i + 1)))?;
        events += usize::from(event["event"].is_string());
        let path = |key: &str| event[key].as_str().map(PathBuf::from);
        if let ("file", "failed", Some(input), Some(output)) = (
            event["event"].as_str().unwrap_or_default(),
            event["status"].as_str().unwrap_or_default(),
            path("input"),
            path("output"),
        ) && !failed.contains(&[input.clone(), output.clone()])
        {
            failed.push([input, output]);
        }
    }
    match events {
        0 => Err(refuse("it holds no event of srk".into())),
        _ => Ok(failed),
    }
}
