//! The state dict inside a checkpoint, under the names of the network alone.
use std::collections::BTreeMap;

use super::archive::Archive;
use super::detect;
use super::folding::{self, Ways};
use super::naming;
use super::pickle::{Id, Parsed};
use super::storage::Tensor;
use crate::models::Shapes;

/// Where checkpoints keep weights, the averaged ones first.
const CONTAINERS: [&str; 16] = [
    "params_ema",
    "params-ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema",
    "generator_state_dict",
    "state_dict",
    "model_state_dict",
    "model_state",
    "params",
    "model",
    "generator",
    "net_g",
    "net",
    "weights",
];

/// What wrappers put before the names of a network; of equally many the last.
const PREFIXES: [&str; 19] = [
    // Containers that became parts of names.
    "params.",
    "params-ema.",
    "params_ema.",
    "module.",
    "_orig_mod.",
    "_forward_module.",
    "_fsdp_wrapped_module.",
    "ema_model.",
    "model.",
    "netG.",
    "net_g_ema.",
    "net_g.",
    "generator.",
    "G.",
    "ema.",
    "denoise_fn.",
    "network.",
    "unet.",
    "net.",
];

/// Ends of names that checkpoints hold beside what is trained, and that srk computes itself.
const HARMLESS: [&str; 31] = [
    "relative_position_index",
    "attn_mask",
    "num_batches_tracked",
    "betas",
    "alphas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_alphas_cumprod_prev",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    // The Haar filters of a wavelet package, in its dwt and its inverse.
    "h0_col",
    "h0_row",
    "h1_col",
    "h1_row",
    "g0_col",
    "g0_row",
    "g1_col",
    "g1_row",
    "inv_freq",
    // SPAN's way to say that it sees colours as they are.
    "no_norm",
    // What wrappers that average count.
    "n_averaged",
    "initted",
    "step",
];

/// How names of what judges a network in training begin.
const JUDGES: [&str; 5] = ["discriminator.", "netD.", "net_d.", "disc.", "D."];

pub(super) fn is_harmless(name: &str) -> bool {
    // EDSR's shifts by the mean colour, which srk's network has as constants.
    let shift = ["sub_mean.", "add_mean."].iter().any(|part| name.contains(part));
    shift || HARMLESS.contains(&name.rsplit('.').next().unwrap_or(name))
}

/// The tensors of a network, and those beside it.
#[derive(Debug, Default)]
pub(super) struct StateDict {
    /// The key it was under; empty for the whole file.
    pub(super) key: String,
    /// What was cut off before each name.
    pub(super) prefix: String,
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// Tensors of the same dict that do not have the prefix.
    pub(super) beside: BTreeMap<String, Tensor>,
    /// What some tensors are to be made of, under their names without `.weight` and `.bias`.
    pub(super) folded: BTreeMap<String, Ways>,
}

impl StateDict {
    /// The one under `key`, or the one that is to be taken if there is no key.
    pub(super) fn find(archive: &Archive, key: Option<&str>) -> Parsed<Self> {
        // Where there are no weights, what the file wants instead is of interest.
        let (key, id) =
            choose(archive, key).map_err(|cause| match archive.tree.foreign.refused() {
                Some(refused) => format!("{cause}; {refused}"),
                None => cause,
            })?;
        let tensors: BTreeMap<String, Tensor> =
            archive.tensors(id, |name| !is_harmless(name))?.into_iter().collect();
        let bytes = |t: &Tensor| t.shape.iter().product::<usize>() * t.storage.element.width();
        // Shared numbers are few; many would ask for more memory than the file is long.
        let all = tensors.values().map(bytes).fold(0, usize::saturating_add) as u64;
        if all / 2 > archive.size {
            return Err(format!("its tensors take {all} bytes, the file has {}", archive.size));
        }
        Ok(Self { key, tensors, ..Self::default() })
    }

    /// Names and shapes, those beside the network too: it may have parts without the prefix.
    pub(super) fn shapes(&self, file: &str) -> Shapes {
        let all = self.beside.iter().chain(&self.tensors);
        let shapes = all.map(|(name, t)| (name.clone(), t.shape.clone())).collect();
        Shapes { shapes, file: file.to_owned() }
    }

    /// A tensor of the network, or one beside it.
    pub(super) fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name).or_else(|| self.beside.get(name))
    }

    /// Takes a tensor out.
    pub(super) fn take(&mut self, name: &str) -> Option<Tensor> {
        self.tensors.remove(name).or_else(|| self.beside.remove(name))
    }

    /// Whether a tensor beside the network is of what judges it in training.
    pub(super) fn is_of_judge(&self, name: &str) -> bool {
        self.beside.contains_key(name) && JUDGES.iter().any(|judge| name.starts_with(judge))
    }

    /// What the tensor `name` is to be made of, and whether it is the bias of that.
    pub(super) fn ways_of(&self, name: &str) -> Option<(&Ways, bool)> {
        let (stem, end) = name.rsplit_once('.')?;
        Some((self.folded.get(stem)?, end == "bias"))
    }

    /// Cuts off what wrappers put before the names, until a network is recognised.
    pub(super) fn unwrap(&mut self, wanted: Option<&detect::Known>, file: &str) {
        for _ in 0..5 {
            self.tensors = naming::translated(std::mem::take(&mut self.tensors));
            self.folded.append(&mut folding::take(&mut self.tensors));
            let shapes = self.shapes(file);
            let is_known = match wanted {
                Some(known) => known.config(&shapes).is_some(),
                None => detect::identify(&shapes).is_some(),
            };
            let with = |prefix: &str| self.tensors.keys().filter(|k| k.starts_with(prefix)).count();
            let most = PREFIXES.into_iter().map(|p| (with(p), p)).max_by_key(|(count, _)| *count);
            let Some((1.., prefix)) = most.filter(|_| !is_known) else { return };
            for (name, tensor) in std::mem::take(&mut self.tensors) {
                match name.strip_prefix(prefix) {
                    Some(rest) => self.tensors.insert(rest.to_owned(), tensor),
                    None => self.beside.insert(name, tensor),
                };
            }
            let stem = |(name, ways): (String, Ways)| {
                (name.strip_prefix(prefix).unwrap_or(&name).to_owned(), ways)
            };
            self.folded = std::mem::take(&mut self.folded).into_iter().map(stem).collect();
            self.prefix.push_str(prefix);
            // Beside the averages, what they are averages of.
            let averaged = match prefix {
                "ema_model." => "online_model.",
                "params_ema." | "params-ema." => "params.",
                _ => continue,
            };
            self.beside.retain(|name, _| !name.starts_with(averaged));
        }
    }
}

fn choose(archive: &Archive, key: Option<&str>) -> Parsed<(String, Id)> {
    let mut at = archive.root;
    let mut path: Vec<&str> = Vec::new();
    for _ in 0..3 {
        let entries = archive.tree.entries(at);
        if let Some(key) = key {
            let Some((_, id)) = entries.iter().find(|e| e.0 == key) else {
                let names: Vec<&str> = entries.iter().map(|e| e.0).take(20).collect();
                return Err(match archive.has_tensors(at) {
                    true => format!(
                        "it has no entry {key}: it is one state dict, {} ...",
                        names[..names.len().min(3)].join(", ")
                    ),
                    false => format!("it has no entry {key}, but {}", names.join(", ")),
                });
            };
            return match archive.has_tensors(*id) {
                true => Ok((key.to_owned(), *id)),
                false => Err(format!("its entry {key} holds no tensors")),
            };
        }
        let container = |name: &&str| entries.iter().find(|e| e.0 == *name).copied();
        let dict = |(_, id): &(&str, Id)| archive.has_tensors(*id) || nested(archive, *id);
        let mut found = CONTAINERS.iter().filter_map(container).find(dict);
        if found.is_none() && !archive.has_tensors(at) {
            let others = entries.iter().filter(|e| !e.0.contains("optim") && dict(e));
            let others: Vec<&(&str, Id)> = others.collect();
            if others.len() > 1 {
                let names: Vec<&str> = others.iter().map(|e| e.0).collect();
                return Err(format!("it holds several state dicts: {}", names.join(", ")));
            }
            found = others.first().map(|e| **e);
        }
        match found {
            Some((name, id)) => {
                path.push(name);
                at = id;
            }
            None if archive.has_tensors(at) => return Ok((path.join("."), at)),
            None => break,
        }
    }
    if archive.has_tensors(at) {
        return Ok((path.join("."), at));
    }
    let entries = archive.tree.entries(at);
    let names: Vec<&str> = entries.iter().map(|e| e.0).take(20).collect();
    let training = |n: &&str| n.contains("optim") || n.contains("sched") || *n == "param_groups";
    Err(match names.is_empty() {
        false if names.iter().any(training) => {
            format!("it is the state of a training without weights: {}", names.join(", "))
        }
        true => "it holds no dict of tensors; a whole module was saved, or nothing".to_owned(),
        false => format!("none of its entries holds tensors: {}", names.join(", ")),
    })
}

/// Whether a container lies in the dict.
fn nested(archive: &Archive, id: Id) -> bool {
    archive.has_nested(id, &CONTAINERS)
}
