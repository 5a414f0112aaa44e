//! Lists of data in text files: a file or a folder a line.
//!
//! Paths are relative to the folder of the list. Empty lines, and those that start with `#`, say nothing.
use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::files;
use crate::error::{Error, Report, Result};

/// No list is longer, in bytes.
const LONGEST: u64 = 64 << 20;

/// Whether `path` is a list: its name ends in `.txt`, and it is no folder.
pub fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("txt")) && !path.is_dir()
}

/// What the list `path` names, in its order.
///
/// # Errors
/// [`Error::Usage`] if it cannot be read or names nothing, or an entry is not there or a list itself; list, line and
/// entry are named.
pub fn read(path: &Path) -> Result<Vec<PathBuf>> {
    let text = files::read_text(path, LONGEST).map_err(|e| {
        let report = Report::new(format!("cannot read the list {}", path.display()), e);
        Error::Usage(report.code("not_found").help("a list is a text file with a path a line"))
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut entries = Vec::new();
    for (i, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = folder.join(line);
        let place = format!("line {} of {}", i + 1, path.display());
        if is_list(&entry) {
            let report = Report::new(format!("{place} names another list"), line);
            return Err(Error::Usage(
                report.help("name pictures, idx files and folders in a list"),
            ));
        }
        if let Err(e) = fs::metadata(&entry) {
            let what = format!("{place} names what is not there");
            let report = Report::new(what, format!("{}: {e}", entry.display()));
            let help =
                "paths are relative to the folder of the list; # at its start leaves a line out";
            return Err(Error::Usage(report.code("not_found").help(help)));
        }
        entries.push(entry);
    }
    if entries.is_empty() {
        let report = Report::new(format!("the list {} names nothing", path.display()), "");
        return Err(Error::Usage(report.help("a list is a text file with a path a line")));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_what_is_beside_it_and_its_lines_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/a.png"), "").unwrap();
        fs::write(at("list.txt"), "\u{feff}# all\r\n\r\n  sub/a.png \r\nsub\r\n").unwrap();
        assert!(is_list(&at("list.txt")) && is_list(&at("LIST.TXT")) && !is_list(&at("sub")));
        assert_eq!(read(&at("list.txt")).unwrap(), [at("sub/a.png"), at("sub")]);
        for (text, word) in [
            ("sub\n\nsub/b.png\n", "line 3 of"),
            ("sub\nlist.txt", "line 2 of"),
            ("# nothing\n", "names nothing"),
        ] {
            fs::write(at("list.txt"), text).unwrap();
            let error = read(&at("list.txt")).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("list.txt"), "{text}: {error}");
        }
    }
}
