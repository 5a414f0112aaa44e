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

/// All recipes.
pub const ALL: [Recipe; 24] = [
    Recipe { name: "srk-x4", text: include_str!("../../recipes/srk-x4.toml") },
    Recipe { name: "srk-photo-x4", text: include_str!("../../recipes/srk-photo-x4.toml") },
    Recipe {
        name: "srk-photo-x4-first",
        text: include_str!("../../recipes/srk-photo-x4-first.toml"),
    },
    Recipe { name: "dual-domain-grid", text: include_str!("../../recipes/dual-domain-grid.toml") },
    Recipe { name: "resshift-dual", text: include_str!("../../recipes/resshift-dual.toml") },
    Recipe { name: "resshift", text: include_str!("../../recipes/resshift.toml") },
    Recipe { name: "resshift-4", text: include_str!("../../recipes/resshift-4.toml") },
    Recipe {
        name: "resshift-experiment",
        text: include_str!("../../recipes/resshift-experiment.toml"),
    },
    Recipe { name: "sr3", text: include_str!("../../recipes/sr3.toml") },
    Recipe { name: "sr3-div2k", text: include_str!("../../recipes/sr3-div2k.toml") },
    Recipe { name: "sr3-mnist", text: include_str!("../../recipes/sr3-mnist.toml") },
    Recipe { name: "sr3-miniplaces", text: include_str!("../../recipes/sr3-miniplaces.toml") },
    Recipe { name: "laplacian", text: include_str!("../../recipes/laplacian.toml") },
    Recipe { name: "srddpm", text: include_str!("../../recipes/srddpm.toml") },
    Recipe { name: "srgan", text: include_str!("../../recipes/srgan.toml") },
    Recipe { name: "rrdb", text: include_str!("../../recipes/rrdb.toml") },
    Recipe { name: "realesrgan", text: include_str!("../../recipes/realesrgan.toml") },
    Recipe { name: "span", text: include_str!("../../recipes/span.toml") },
    Recipe { name: "srdiff", text: include_str!("../../recipes/srdiff.toml") },
    Recipe { name: "gan", text: include_str!("../../recipes/gan.toml") },
    Recipe { name: "dcgan", text: include_str!("../../recipes/dcgan.toml") },
    Recipe { name: "wgan-gp", text: include_str!("../../recipes/wgan-gp.toml") },
    Recipe { name: "vae", text: include_str!("../../recipes/vae.toml") },
    Recipe { name: "ddpm", text: include_str!("../../recipes/ddpm.toml") },
];

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
