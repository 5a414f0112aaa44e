//! The recipes in the binary: `srk train --recipe NAME`.
use crate::error::{Error, Report, Result};

/// A configuration that is known to work.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// What `--recipe` calls it.
    pub name: &'static str,
    /// The TOML text, comments included.
    pub text: &'static str,
}

// All recipes, by name: build.rs lists the folder.
include!(concat!(env!("OUT_DIR"), "/recipes.rs"));

impl Recipe {
    /// What it is: the first line of its text.
    pub fn summary(&self) -> &'static str {
        self.text.lines().next().unwrap_or("").trim_start_matches(['#', ' '])
    }
}

/// The recipe called `name`; exit code 2 with the nearest one if there is none.
pub fn find(name: &str) -> Result<Recipe> {
    ALL.iter().copied().find(|r| r.name == name).ok_or_else(|| {
        let distance = |r: &&Recipe| strsim::damerau_levenshtein(r.name, name);
        let nearest = ALL.iter().min_by_key(distance).map_or("", |r| r.name);
        let report = Report::new(format!("there is no recipe {name}"), "");
        let help = format!("did you mean {nearest}? srk train --list-recipes    shows all");
        Error::Usage(report.help(help))
    })
}
