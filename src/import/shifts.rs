//! EDSR's shifts by the mean colour, in its authors' code convolutions of one tap around the network, which alone tell the
//! range and the mean that it was trained with.
//!
//! ```text
//! sub_mean   weight 1 / std of each colour, bias -range mean / std          add_mean   the same, bias +range mean / std
//! ```
use super::archive::Archive;
use super::state_dict::StateDict;
use super::storage::{Element, Parsed, Tensor};
use crate::models::ModelConfig;
use crate::models::edsr::EdsrConfig;
use crate::models::span::DIV2K_MEAN;

/// Gives an EDSR the range and the mean of the shifts in its file, which are taken out of `state`; the keys that they tell.
///
/// # Errors
/// If they do not go together, or do what srk's EDSR does not.
pub(super) fn adopt(
    model: &mut ModelConfig,
    state: &mut StateDict,
    archive: &mut Archive,
) -> Parsed<&'static [&'static str]> {
    let ModelConfig::Edsr(config) = model else { return Ok(&[]) };
    let taken_off = shift(state, archive, "sub_mean", -1.0)?;
    let added = shift(state, archive, "add_mean", 1.0)?;
    if let (Some((off, _)), Some((on, _))) = (&taken_off, &added)
        && off.iter().zip(on).any(|(off, on)| (off - on).abs() > 0.01 * off.max(*on))
    {
        return Err(format!("its sub_mean takes off {off:?}, but its add_mean adds {on:?}"));
    }
    match taken_off.or(added) {
        Some(shift) => set(config, shift),
        None => Ok(&[]),
    }
}

/// What the convolution `name` shifts colours by, without its `sign`, and what it is stored in.
fn shift(
    state: &mut StateDict,
    archive: &mut Archive,
    name: &str,
    sign: f64,
) -> Parsed<Option<([f64; 3], Element)>> {
    let mut read = |end: &str, shape: &[usize]| -> Parsed<Option<(Vec<f64>, Tensor)>> {
        let Some(tensor) = state.take(&format!("{name}.{end}")) else { return Ok(None) };
        if tensor.shape != shape {
            return Err(format!("its {name}.{end} is {:?}, not {shape:?}", tensor.shape));
        }
        let values = archive.read(&tensor).map_err(|e| format!("{name}.{end}: {e}"))?;
        Ok(Some((values.into_iter().map(f64::from).collect(), tensor)))
    };
    let weight = read("weight", &[3, 3, 1, 1])?;
    let bias = read("bias", &[3])?;
    if let Some((weight, _)) = weight
        && (0..9).any(|i| weight[i] != f64::from(u8::from(i % 4 == 0)))
    {
        let cause =
            "other deviations than 1, or colours into each other, which srk's EDSR does not";
        return Err(format!("its {name}.weight turns {weight:?}: {cause}"));
    }
    let Some((bias, Tensor { storage, .. })) = bias else { return Ok(None) };
    let shift = [0, 1, 2].map(|i| sign * bias[i]);
    // Not below 0, and a number.
    match shift.iter().all(|&s| (0.0..=255.0).contains(&s)) {
        true => Ok(Some((shift, storage.element))),
        false => {
            Err(format!("its {name}.bias is {bias:?}, which no mean colour times 1 or 255 gives"))
        }
    }
}

fn set(
    config: &mut EdsrConfig,
    (shift, element): ([f64; 3], Element),
) -> Parsed<&'static [&'static str]> {
    let most = shift.iter().copied().fold(0.0, f64::max);
    // No pictures are so dark that their mean is below a 255th.
    let range = if most <= 1.0 { 1.0 } else { 255.0 };
    let precision = match element {
        Element::Bf16 => 1.0 / 256.0,
        Element::F16 => 1.0 / 2048.0,
        _ => 1e-6,
    };
    config.mean = std::array::from_fn(|i| {
        let (mean, usual) = (shift[i] / range, DIV2K_MEAN[i]);
        // What was meant before it was stored.
        let is_usual = (mean - usual).abs() <= usual * precision;
        if is_usual { usual } else { (mean * 1e7).round() / 1e7 }
    });
    if most == 0.0 {
        return Ok(&["mean"]);
    }
    config.range = range;
    Ok(&["range", "mean"])
}
