//! Forward, input gradients and parameter gradients of whole networks, in f64 and in f32.
use srk::engine::device::DType;
use srk::engine::parameter::Parameter;
use srk::engine::tape::{Grads, Tape, Var};
use srk::engine::tensor::Tensor;
use srk::models::dual_domain_unet::DualDomainUNetConfig;
use srk::models::residual_unet::ResidualUNetConfig;
use srk::models::{ModelConfig, Network, weights};

use crate::Outcome;
use crate::file::{File, nchw};

/// The network a file is about, and the names of its two inputs.
pub fn build(file: &File) -> Option<(Box<dyn Network>, [&'static str; 2])> {
    let config = file.json("config");
    let number = |key: &str| config[key].as_u64().map(|v| v as usize);
    let (config, inputs) = match file.text("system") {
        "seed001 DualDomainUNet" => {
            let (base, time_dim) = (number("base_channels")?, number("time_dim")?);
            let config = DualDomainUNetConfig { base, time_dim, ..Default::default() };
            (ModelConfig::DualDomainUNet(config), ["xt", "y0_aug"])
        }
        "seed001 experiment ResidualDiffusionUNet" => {
            let config =
                ResidualUNetConfig { base: number("base_channels")?, ..Default::default() };
            (ModelConfig::ResidualUNet(config), ["x", "cond"])
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

fn pass(file: &File, network: &dyn Network, inputs: [&str; 2], dtype: DType) -> Vec<String> {
    // Stored values are f32: two digits above their rounding in f64, the README's bounds in f32.
    let [output_tol, input_tol, param_tol] = match dtype {
        DType::F64 => [1e-6, 1e-6, 2e-6],
        _ => [1e-5, 5e-5, 2e-4],
    };
    let mut tape = Tape::training();
    let vars = inputs.map(|name| {
        let tensor = file.array(&format!("input.{name}")).tensor(dtype);
        tape.variable(tensor)
    });
    let t = &file.array("input.t").data;
    let t = Tensor::from_f64(t, &[t.len()], DType::F64);
    let y = network.forward(&mut tape, &vars[0], &vars[1], &t).unwrap();
    let mut failed = vec![];
    compare("output", &nchw(y.value()), &file.array("output").data, output_tol, &mut failed);
    let w: Tensor = file.array("w").tensor(dtype);
    let grads = tape.backward(&y, w).unwrap();
    for (name, var) in inputs.iter().zip(&vars) {
        let stored = &file.array(&format!("grad.input.{name}")).data;
        compare(
            &format!("grad.input.{name}"),
            &input_grad(&grads, var),
            stored,
            input_tol,
            &mut failed,
        );
    }
    check_parameters(file, network.parameters(), "grad.param", param_tol, &mut failed, |p| {
        grads.of_parameter(p).map(|g| weights::to_file_layout(p.layout(), g).unwrap())
    });
    failed
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
    for p in parameters {
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
    if names.len() != parameters.len() {
        failed.push(format!(
            "{key}: {} parameters, the original has {}",
            parameters.len(),
            names.len()
        ));
    }
}
