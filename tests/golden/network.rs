//! Forward, input gradients and parameter gradients of whole networks, in f64 and in f32.
use srk::engine::device::DType;
use srk::engine::parameter::Parameter;
use srk::engine::tape::{Grads, Tape, Var};
use srk::engine::tensor::Tensor;
use srk::models::attention_unet::AttentionUNetConfig;
use srk::models::dual_domain_unet::DualDomainUNetConfig;
use srk::models::residual_unet::ResidualUNetConfig;
use srk::models::sr3_unet::Sr3UNetConfig;
use srk::models::{ModelConfig, Network, weights};

use crate::Outcome;
use crate::file::{File, nchw};

/// How a file holds the state and what the network sees beside it.
#[derive(Clone, Copy)]
pub enum Inputs {
    /// As two inputs of these names.
    Apart([&'static str; 2]),
    /// As one input `x`, the condition first; the state has this many channels.
    Joined(usize),
}

/// The network a file is about, and how the file holds its inputs.
pub fn build(file: &File) -> Option<(Box<dyn Network>, Inputs)> {
    use Inputs::{Apart, Joined};
    let config = file.json("config");
    let number = |key: &str| config[key].as_u64().map(|v| v as usize);
    // A list, or one number instead of a list of one.
    let numbers = |key: &str| -> Option<Vec<usize>> {
        let one = std::slice::from_ref(&config[key]);
        let values = config[key].as_array().map_or(one, Vec::as_slice);
        values.iter().map(|v| Some(v.as_u64()? as usize)).collect()
    };
    let (config, inputs) = match file.text("system") {
        "seed001 DualDomainUNet" => {
            let (base, time_dim) = (number("base_channels")?, number("time_dim")?);
            let config = DualDomainUNetConfig { base, time_dim, ..Default::default() };
            (ModelConfig::DualDomainUNet(config), Apart(["xt", "y0_aug"]))
        }
        "seed001 experiment ResidualDiffusionUNet" => {
            let config =
                ResidualUNetConfig { base: number("base_channels")?, ..Default::default() };
            (ModelConfig::ResidualUNet(config), Apart(["x", "cond"]))
        }
        "seed000 Unet" => {
            let outputs = number("output_channels")?;
            let config = AttentionUNetConfig {
                base: number("base_channels")?,
                attention: config["with_attn"].as_bool()?,
                time_dim: number("noise_emb_dim")?,
                input_channels: number("input_channels")?,
                output_channels: outputs,
                ..Default::default()
            };
            (ModelConfig::AttentionUNet(config), Joined(outputs))
        }
        "SR3 (Janspiry) UNet" => {
            let outputs = number("out_channel")?;
            let config = Sr3UNetConfig {
                base: number("inner_channel")?,
                multipliers: numbers("channel_mults")?,
                blocks: number("res_blocks")?,
                groups: number("norm_groups")?,
                attention: numbers("attn_res")?,
                image_size: number("image_size")?,
                input_channels: number("in_channel")?,
                output_channels: outputs,
                ..Default::default()
            };
            (ModelConfig::Sr3UNet(config), Joined(outputs))
        }
        _ => return None,
    };
    Some((config.build(0), inputs))
}

pub fn run(file: &File) -> Outcome {
    let Some((network, inputs)) = build(file) else {
        return Outcome::Unknown(format!("system \"{}\"", file.text("system")));
    };
    let mut failed = vec![];
    let count = network.parameter_count();
    if file.text("param_count") != count.to_string() {
        failed.push(format!("{count} parameters, not {}", file.text("param_count")));
    }
    for dtype in [DType::F64, DType::F32] {
        file.fill(network.parameters(), dtype);
        check_fill(file, network.parameters(), &mut failed);
        failed.extend(
            pass(file, &*network, inputs, dtype).into_iter().map(|r| format!("{dtype:?} {r}")),
        );
    }
    if failed.is_empty() { Outcome::Passed(2) } else { Outcome::Failed(failed) }
}

/// Bounds of output, input gradients and parameter gradients: in f64 two digits above the rounding of
/// stored values, in f32 those of the README. There the deep network with t = 1000 sinusoids has wider
/// ones, as does any network where t is large: rounding is amplified by its depth.
fn tolerances(file: &File, t: &[f64], dtype: DType) -> [f64; 3] {
    let deep = file.text("system") == "seed000 Unet";
    let late = t.iter().any(|&t| t > 500.0);
    if dtype == DType::F64 {
        return [1e-6, 1e-6, 2e-6];
    }
    [
        if deep || late { 3e-5 } else { 1e-5 },
        if deep { 3e-4 } else { 5e-5 },
        if deep && late { 5e-3 } else { 2e-4 },
    ]
}

fn pass(file: &File, network: &dyn Network, inputs: Inputs, dtype: DType) -> Vec<String> {
    let t = &file.get("input.t").unwrap_or_else(|| file.array("input.noise_level")).data;
    let [output_tol, input_tol, param_tol] = tolerances(file, t, dtype);
    // A tape that recomputes must agree too.
    let mut tape = if dtype == DType::F64 { Tape::training() } else { Tape::recomputing() };
    let mut variable = |name: &'static str| {
        let tensor = file.array(&format!("input.{name}")).tensor(dtype);
        (name, tape.variable(tensor))
    };
    let (vars, [state, condition]) = match inputs {
        Inputs::Apart(names) => {
            let vars = names.map(&mut variable);
            let parts = [vars[0].1.clone(), vars[1].1.clone()];
            (vars.to_vec(), parts)
        }
        Inputs::Joined(channels) => {
            let x = variable("x");
            let rest = x.1.shape()[3] - channels;
            let condition = tape.slice_channels(&x.1, 0, rest).unwrap();
            let state = tape.slice_channels(&x.1, rest, channels).unwrap();
            (vec![x], [state, condition])
        }
    };
    let t = Tensor::from_f64(t, &[t.len()], DType::F64);
    let y = network.forward(&mut tape, &state, &condition, &t).unwrap();
    let mut failed = vec![];
    compare("output", &nchw(y.value()), &file.array("output").data, output_tol, &mut failed);
    let w: Tensor = file.array("w").tensor(dtype);
    let grads = tape.backward(&y, w).unwrap();
    for (name, var) in &vars {
        let stored = &file.array(&format!("grad.input.{name}")).data;
        compare(
            &format!("grad.input.{name}"),
            &input_grad(&grads, var),
            stored,
            input_tol,
            &mut failed,
        );
    }
    let unused = unused(file);
    for p in network.parameters().iter().filter(|p| unused.iter().any(|name| name == p.name())) {
        if grads.of_parameter(p).is_some() {
            failed.push(format!("{} takes part in no output, yet has a gradient", p.name()));
        }
    }
    check_parameters(file, network.parameters(), "grad.param", param_tol, &mut failed, |p| {
        grads.of_parameter(p).map(|g| weights::to_file_layout(p.layout(), g).unwrap())
    });
    failed
}

/// The parameters that the original has, but no output depends on.
fn unused(file: &File) -> Vec<String> {
    let entries = file.json("params_without_gradient");
    let name = |entry: &serde_json::Value| entry[0].as_str().unwrap().to_owned();
    entries.as_array().map(|entries| entries.iter().map(name).collect()).unwrap_or_default()
}

fn input_grad(grads: &Grads, var: &Var) -> Vec<f64> {
    grads.of(var).map(nchw).unwrap_or_default()
}

/// Notes a relative L2 difference above `tol`.
pub fn compare(what: &str, got: &[f64], stored: &[f64], tol: f64, failed: &mut Vec<String>) {
    let error = srk::engine::op_case::relative_l2(got, stored);
    if got.len() != stored.len() {
        failed.push(format!("{what}: {} values, not {}", got.len(), stored.len()));
    } else if error > tol || error.is_nan() {
        failed.push(format!("{what}: relative L2 {error:.2e} > {tol:.0e}"));
    }
}

fn check_fill(file: &File, parameters: &[Parameter], failed: &mut Vec<String>) {
    check_parameters(file, parameters, "param", 1e-6, failed, |p| {
        Some(weights::to_file_layout(p.layout(), &p.value()).unwrap())
    });
}

/// Compares norm and samples of every parameter, or of something of its shape, with the rows
/// `{key}.norm` and `{key}.sample`; the error is `tol * norm_i + 1e-6 * max_j norm_j`.
pub fn check_parameters(
    file: &File,
    parameters: &[Parameter],
    key: &str,
    tol: f64,
    failed: &mut Vec<String>,
    values: impl Fn(&Parameter) -> Option<Vec<f32>>,
) {
    let names = file.json("param_names");
    let names: Vec<&str> = names.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    let (norms, samples) =
        (file.array(&format!("{key}.norm")), file.array(&format!("{key}.sample")));
    let index = file.array("param.index");
    let largest = norms.data.iter().fold(0.0f64, |a, &b| a.max(b));
    let per = index.shape[1];
    let unused = unused(file);
    let (idle, used): (Vec<&Parameter>, Vec<&Parameter>) =
        parameters.iter().partition(|p| unused.iter().any(|name| name == p.name()));
    for p in &used {
        let Some(row) = names.iter().position(|n| *n == p.name()) else {
            failed.push(format!("{key}: the original has no parameter {}", p.name()));
            continue;
        };
        let Some(got) = values(p) else {
            failed.push(format!("{key}: {} has no value", p.name()));
            continue;
        };
        let norm = got.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let allowed = tol * norms.data[row] + 1e-6 * largest;
        let mut worst = (norm - norms.data[row]).abs();
        for j in 0..per {
            let at = index.data[row * per + j] as usize;
            worst = worst.max((f64::from(got[at]) - samples.data[row * per + j]).abs());
        }
        if worst > allowed || worst.is_nan() {
            failed.push(format!("{key} {}: off by {worst:.2e} > {allowed:.2e}", p.name()));
        }
    }
    let (got, wanted) = ([used.len(), idle.len()], [names.len(), unused.len()]);
    if got != wanted {
        failed.push(format!(
            "{key}: {got:?} used and unused parameters, the original has {wanted:?}"
        ));
    }
}
