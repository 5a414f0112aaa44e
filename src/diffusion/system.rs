//! A system: a network with the process it was trained for, as one weights file holds it.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use super::latent;
use super::sampler::Diffusion;
use crate::engine::device::{DType, Device};
use crate::engine::document;
use crate::error::{Error, Report, Result};
use crate::models::damage::Damage;
use crate::models::weights::WeightsFile;
use crate::models::{ModelConfig, Network, most_numbers, run_folder};
use crate::nn::init;
use crate::ops::bf16::{Products, with_products};

/// The models that the binary carries, and the names they go by.
const EMBEDDED: [(&str, &[u8]); 2] = [
    ("srk-photo-x4", include_bytes!("../../weights/srk-photo-x4.safetensors")),
    (System::CLEAN, include_bytes!("../../weights/srk-x4.safetensors")),
];

/// The key of the metadata with the preset of damage that a model was trained on.
pub const DEGRADE: &str = "srk.degrade";

/// What a weights file says about itself: JSON under `srk.config` and `srk.diffusion` and a number
/// under `srk.default_steps` and `srk.deblock` in its metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct SystemConfig {
    /// The network and its sizes.
    pub model: ModelConfig,
    /// The process it was trained for.
    pub diffusion: Diffusion,
    /// Calls of the network a picture takes unless the user says otherwise; all T if absent.
    pub default_steps: Option<usize>,
    /// How much of a JPEG's blocks is taken out of a picture before the network sees it, see
    /// [`deblocked`](crate::imaging::deblock::deblocked); 0 is nothing.
    pub deblock: f32,
}

/// A network ready to run.
pub struct System {
    /// The model's name or the file it came from.
    pub name: String,
    /// What its weights are called, whatever file they are in.
    pub label: String,
    /// Its network, with weights.
    pub network: Box<dyn Network>,
    /// Its process and sizes.
    pub config: SystemConfig,
    /// The metadata of its file.
    pub metadata: BTreeMap<String, String>,
    /// What its users should know of how it was found.
    pub notes: Vec<String>,
    /// Whether the CPU multiplies in bf16.
    pub in_bf16: bool,
}

impl System {
    /// The embedded model for pictures without noise or compression.
    pub const CLEAN: &str = "srk-x4";

    /// The names of the models that the binary carries: for pictures as they are, and for clean ones.
    pub fn embedded() -> [&'static str; 2] {
        EMBEDDED.map(|(name, _)| name)
    }

    /// The bytes of the embedded model of that name.
    pub fn embedded_bytes(model: &str) -> Option<&'static [u8]> {
        EMBEDDED.iter().find(|(name, _)| *name == model).map(|(_, bytes)| *bytes)
    }

    /// Opens a model by the name of an embedded one, as a file, or as the folder of a training run: its
    /// best checkpoint if that was looked for, else its newest.
    ///
    /// # Errors
    /// [`Error::Model`] if there is none of that name, or the file is damaged or does not fit.
    pub fn open(model: &str) -> Result<Self> {
        if let Some((name, bytes)) = EMBEDDED.iter().find(|(name, _)| *name == model) {
            return Self::from_file(&WeightsFile::parse(bytes, name)?, model);
        }
        if !Path::new(model).exists() {
            let names = Self::embedded().join(", ");
            let cause = format!("it is neither a model of this binary ({names}) nor a file");
            let report = Report::new(format!("there is no model {model}"), cause);
            return Err(Error::Model(report.help(
                "srk models list    shows the models that are there; others are files: -m FILE.pth",
            )));
        }
        let mut notes = Vec::new();
        let file = read_noting(Path::new(model), &mut notes)?;
        Ok(Self { notes, ..Self::from_file(&file, model)? })
    }

    /// An embedded model with zeros for weights, which take no memory: for those who ask for its sizes alone.
    ///
    /// # Errors
    /// [`Error::Model`] if there is none of that name.
    pub fn outline(model: &str) -> Result<Self> {
        let bytes = Self::embedded_bytes(model).unwrap_or_default();
        let file = WeightsFile::header(bytes, model)?;
        let config = SystemConfig::of(&file, model)?;
        let network = init::blank(|| config.model.build(0));
        let (name, label, metadata) = (model.to_owned(), label(&file), file.metadata);
        Ok(Self { name, label, network, config, metadata, notes: Vec::new(), in_bf16: false })
    }

    /// The system that `file` describes; messages call it `name`.
    pub fn from_file(file: &WeightsFile, name: &str) -> Result<Self> {
        let config = SystemConfig::of(file, name)?;
        let built = init::blank(|| config.model.build_within(0, most_numbers(file)));
        let network = built.map_err(|unbuilt| unbuilt.of_file(name))?;
        latent::check(&*network, &config.diffusion)?;
        file.apply(&network.state(), name)?;
        let (name, label, metadata) = (name.to_owned(), label(file), file.metadata.clone());
        Ok(Self { name, label, network, config, metadata, notes: Vec::new(), in_bf16: false })
    }

    /// The same system with its weights on `device`, as `dtype` there. On the CPU weights stay F32; with BF16 products of
    /// convolutions are of numbers rounded to it.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn on(&self, device: &Device, dtype: DType) -> Result<Self> {
        let network = init::blank(|| self.config.model.build(0));
        for (to, from) in network.state().iter().zip(self.network.state()) {
            to.set(from.value());
        }
        let in_bf16 = *device == Device::Cpu && dtype == DType::BF16;
        network.to_device(device, if in_bf16 { DType::F32 } else { dtype })?;
        let (config, metadata) = (self.config.clone(), self.metadata.clone());
        let (name, label, notes) = (self.name.clone(), self.label.clone(), self.notes.clone());
        Ok(Self { name, label, network, config, metadata, notes, in_bf16 })
    }

    /// What it computes in.
    pub fn dtype(&self) -> DType {
        if self.in_bf16 { DType::BF16 } else { self.network.dtype() }
    }

    /// Runs `body`, whose calls of the network multiply as this system does.
    pub fn computing<R>(&self, body: impl FnOnce() -> R) -> R {
        let products = if self.in_bf16 { Products::Bf16 } else { Products::F32 };
        with_products(products, body)
    }

    /// The factor between low and high resolution.
    pub fn scale(&self) -> usize {
        self.config.model.scale()
    }

    /// Whether the network was trained on damaged pictures and told how damaged they are.
    pub fn knows_damage(&self) -> bool {
        let clean = self.metadata.get(DEGRADE).is_some_and(|preset| preset == "bicubic");
        self.network.takes_damage() && !clean
    }

    /// What the network is told of a picture that shows the damage `seen`: nothing but what it met in training.
    pub fn told(&self, seen: Damage) -> Damage {
        if self.knows_damage() { seen } else { Damage::CLEAN }
    }

    /// Calls of the network a picture takes unless the user says otherwise.
    pub fn default_steps(&self) -> usize {
        let trained = self.config.diffusion.process.steps();
        self.config.default_steps.unwrap_or(trained).min(trained)
    }
}

/// The name that `file` holds, of the recipe it was trained by; else its kind of network and eight digits that follow
/// from its tensors.
fn label(file: &WeightsFile) -> String {
    // What was imported has the name of a file there.
    let named = file.metadata.get("srk.recipe").filter(|name| !name.contains(char::is_whitespace));
    if let Some(name) = named {
        return name.clone();
    }
    let mut sum = flate2::Crc::new();
    for (name, (shape, values)) in &file.tensors {
        sum.update(format!("{name} {shape:?} ").as_bytes());
        sum.update(bytemuck::cast_slice(values));
    }
    let arch = file.metadata.get("srk.arch").map_or("model", String::as_str);
    format!("{arch}-{:08x}", sum.sum())
}

/// What reads the weights in files of others.
static OTHERS: OnceLock<fn(&Path) -> Result<WeightsFile>> = OnceLock::new();

/// From now on [`read`] takes files of others too, as `reader` reads them.
pub fn read_others_by(reader: fn(&Path) -> Result<WeightsFile>) {
    let _ = OTHERS.set(reader);
}

/// What names of models begin with that Hugging Face's programs have downloaded.
pub const HUB: &str = "hf:";

/// Whether `path` is the name of a model and no file: one of the binary, or of [`HUB`].
pub fn is_name(path: &Path) -> bool {
    let name = path.to_str().unwrap_or_default();
    System::embedded_bytes(name).is_some() || name.starts_with(HUB)
}

/// Reads weights to start from: a file of srk or of others, the averaged weights of a training run, or those of a model
/// by its [name](is_name).
///
/// # Errors
/// [`Error::Model`] if there are none, or the file is damaged.
pub fn read(path: &Path) -> Result<WeightsFile> {
    let name = path.to_str().unwrap_or_default();
    if let Some(bytes) = System::embedded_bytes(name) {
        return WeightsFile::parse(bytes, name);
    }
    if let Some(others) = OTHERS.get().filter(|_| is_name(path)) {
        return others(path);
    }
    let found = read_noting(path, &mut Vec::new());
    let is_own = |file: &WeightsFile| file.metadata.keys().any(|key| key.starts_with("srk."));
    let Some(others) = OTHERS.get().filter(|_| path.is_file()) else { return found };
    match found {
        Ok(file) if is_own(&file) => Ok(file),
        // Names of others in a file that says nothing of itself.
        Ok(file) => Ok(others(path).unwrap_or(file)),
        Err(error) if path.extension().is_some_and(|ending| ending == "safetensors") => Err(error),
        Err(_) => others(path),
    }
}

fn read_noting(path: &Path, notes: &mut Vec<String>) -> Result<WeightsFile> {
    match path.is_dir() {
        true => Ok(run_folder::averages(path, notes)?.0),
        false => WeightsFile::read(path),
    }
}

impl SystemConfig {
    /// A network and a process, without what else a file may say.
    pub const fn new(model: ModelConfig, diffusion: Diffusion) -> Self {
        Self { model, diffusion, default_steps: None, deblock: 0.0 }
    }

    /// What `file` says about itself; messages call it `name`.
    pub fn of(file: &WeightsFile, name: &str) -> Result<Self> {
        let refuse = |cause: String| {
            let report = Report::new(format!("cannot load the model {name}"), cause);
            Error::Model(report.help("srk models info FILE    shows what a file holds"))
        };
        let Some(model) = file.metadata.get("srk.config") else {
            let first = file.tensors.keys().next().map_or("none", String::as_str);
            let count = file.tensors.len();
            return Err(refuse(format!(
                "its metadata has no srk.config ({count} tensors, first \"{first}\")"
            )));
        };
        let Some(diffusion) = file.metadata.get("srk.diffusion") else {
            let arch = file.metadata.get("srk.arch").map_or("not stated", String::as_str);
            let cause =
                format!("its kind is {arch}: there is no process of super-resolution in it");
            let report = Report::new(format!("{name} enlarges nothing"), cause);
            let help =
                "srk sample FILE -o grid.png    draws from a gan, dcgan, wgan-gp, vae or ddpm";
            return Err(Error::Model(report.help(help)));
        };
        let model = document::from_json_text(model)
            .map_err(|e| refuse(format!("its srk.config is wrong: {e}")))?;
        let diffusion: Diffusion = document::from_json_text(diffusion)
            .map_err(|e| refuse(format!("its srk.diffusion is wrong: {e}")))?;
        diffusion.check().map_err(|e| refuse(e.to_string()))?;
        let default_steps = file.metadata.get("srk.default_steps").and_then(|s| s.parse().ok());
        let deblock = match file.metadata.get("srk.deblock") {
            None => 0.0,
            Some(text) => {
                let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
                let wrong = || refuse(format!("its srk.deblock is \"{text}\", not 0 to 1"));
                share.ok_or_else(wrong)?
            }
        };
        Ok(Self { model, diffusion, default_steps, deblock })
    }

    /// The metadata of a weights file of this system, with `extra` beside what srk needs itself.
    pub fn metadata(&self, extra: &[(&str, String)]) -> BTreeMap<String, String> {
        let model = document::to_json(&self.model);
        let diffusion = document::to_json(&self.diffusion);
        let arch = model["kind"].as_str().unwrap_or_default().to_owned();
        let mut metadata: BTreeMap<String, String> = [
            ("format", "pt".to_owned()),
            ("srk.arch", arch),
            ("srk.config", model.to_string()),
            ("srk.diffusion", diffusion.to_string()),
            ("srk.scale", self.model.scale().to_string()),
            ("srk.version", env!("CARGO_PKG_VERSION").to_owned()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        if let Some(steps) = self.default_steps {
            metadata.insert("srk.default_steps".to_owned(), steps.to_string());
        }
        if self.deblock > 0.0 {
            metadata.insert("srk.deblock".to_owned(), self.deblock.to_string());
        }
        metadata.extend(extra.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_deblocking_lies_between_0_and_1() {
        let bytes = System::embedded_bytes("srk-photo-x4").unwrap();
        let mut file = WeightsFile::header(bytes, "a").unwrap();
        for wrong in ["NaN", "-1", "1e9", "much", ""] {
            file.metadata.insert("srk.deblock".to_owned(), wrong.to_owned());
            let refused = SystemConfig::of(&file, "a").unwrap_err().to_string();
            assert!(refused.contains("srk.deblock"), "{wrong}: {refused}");
        }
        file.metadata.remove("srk.deblock");
        assert!(SystemConfig::of(&file, "a").unwrap().deblock == 0.0);
    }
}
