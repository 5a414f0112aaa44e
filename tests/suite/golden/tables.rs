//! Schedules and embeddings, in double precision.
use srk::diffusion::process::{InputScale, Process};
use srk::diffusion::sampler::resshift_posterior;
use srk::diffusion::schedule::{Betas, DdpmTable, EtaSchedule};
use srk::engine::device::DType;
use srk::ops::time_embedding::TimeEmbedding;

use super::Outcome;
use super::file::File;

const TOL: f64 = 1e-12;

pub fn run(file: &File) -> Outcome {
    match file.text("system") {
        "schedules" => schedules(file),
        "embeddings" => embeddings(file),
        other => Outcome::Unknown(format!("tables of \"{other}\"")),
    }
}

/// Notes a value further off than `TOL`, relative to the larger of it and 1.
fn near(what: &str, got: &[f64], stored: &[f64], failed: &mut Vec<String>) {
    if got.len() != stored.len() {
        return failed.push(format!("{what}: {} values, not {}", got.len(), stored.len()));
    }
    let error = |(a, b): (&f64, &f64)| (a - b).abs() / b.abs().max(1.0);
    let worst = got.iter().zip(stored).map(error).fold(0.0, |a: f64, b| if b <= a { a } else { b });
    if worst > TOL || worst.is_nan() {
        failed.push(format!("{what}: off by {worst:.1e}"));
    }
}

fn schedules(file: &File) -> Outcome {
    let (mut passed, mut failed) = (0, vec![]);
    for (name, table) in file.json("tables").as_object().unwrap() {
        let number = |key: &str| table[key].as_f64().unwrap_or_default();
        let (steps, start, end) = (number("T") as usize, number("start"), number("end"));
        let columns = match table["kind"].as_str().unwrap() {
            "linear" => ddpm(Betas::Linear { start, end }, steps),
            "quad" => ddpm(Betas::Quad { start, end }, steps),
            "const" => ddpm(Betas::Const { end }, steps),
            "warmup10" => ddpm(Betas::Warmup10 { start, end }, steps),
            "warmup50" => ddpm(Betas::Warmup50 { start, end }, steps),
            "jsd" => ddpm(Betas::Jsd, steps),
            "cosine" => {
                let offset = ["s", "offset"].iter().find_map(|key| table[*key].as_f64());
                ddpm(Betas::Cosine { offset: offset.unwrap_or(0.008) }, steps)
            }
            "official exponential" => {
                let (min_noise_level, power) = (number("min_noise_level"), number("power"));
                let end = number("etas_end");
                let eta = EtaSchedule::Official { min_noise_level, end, power };
                shift(eta, steps, number("kappa"), 1)
            }
            "seed001" => {
                let (first, last, power) = (number("eta_1"), number("eta_T"), number("power"));
                shift(EtaSchedule::Paper { first, last, power }, steps, number("kappa"), 0)
            }
            other => {
                failed.push(format!("{name}: unknown kind \"{other}\""));
                continue;
            }
        };
        let before = failed.len();
        for (column, values) in columns {
            if let Some(stored) = file.get(&format!("{name}.{column}")) {
                near(&format!("{name}.{column}"), &values, &stored.data, &mut failed);
                passed += 1;
            }
        }
        assert!(failed.len() > before || passed > 0, "{name} has no column that was compared");
    }
    if failed.is_empty() { Outcome::Passed(passed) } else { Outcome::Failed(failed) }
}

type Columns = Vec<(&'static str, Vec<f64>)>;

fn ddpm(betas: Betas, steps: usize) -> Columns {
    let t = DdpmTable::new(betas.betas(steps));
    let log = t.posterior_variance.iter().map(|v| v.max(1e-20).ln()).collect();
    vec![
        ("posterior_log_variance_clipped", log),
        ("beta", t.beta),
        ("alpha_bar", t.alpha_bar),
        ("posterior_mean_coef_x0", t.posterior_mean_x0),
        ("posterior_mean_coef_xt", t.posterior_mean_xt),
        ("posterior_variance", t.posterior_variance),
    ]
}

/// The ResShift tables; stored ones start at step `from`.
fn shift(schedule: EtaSchedule, steps: usize, kappa: f64, from: usize) -> Columns {
    let eta = schedule.etas(steps, kappa);
    let scale = |input_scale| {
        let eta = schedule;
        let chain = Process::ResShift { steps, kappa, eta, input_scale, first_t: 0 }.chain();
        (from..=steps).map(|t| chain.input_scale(t)).collect::<Vec<f64>>()
    };
    // Step 0 has no posterior; files that start there store zeros.
    let posterior = |f: &dyn Fn(srk::diffusion::sampler::Step) -> f64| {
        let at = |t: usize| match t {
            0 => 0.0,
            _ => f(resshift_posterior(kappa, eta[t], eta[t - 1])),
        };
        (from..=steps).map(at).collect::<Vec<f64>>()
    };
    let alpha = |t: usize| if t == 0 { 0.0 } else { eta[t] - eta[t - 1] };
    vec![
        ("posterior_mean_coef_x0", posterior(&|s| s.x0)),
        ("posterior_mean_coef_xt", posterior(&|s| s.x)),
        ("posterior_variance", posterior(&|s| s.noise * s.noise)),
        ("input_scale_latent", scale(InputScale::Latent)),
        ("input_scale_pixel", scale(InputScale::Pixel)),
        ("alpha", (from..=steps).map(alpha).collect()),
        ("sqrt_eta", (from..=steps).map(|t| eta[t].sqrt()).collect()),
        ("eta", (from..=steps).map(|t| eta[t]).collect()),
    ]
}

fn embeddings(file: &File) -> Outcome {
    let (mut passed, mut failed) = (0, vec![]);
    for name in file.names().filter(|n| n.contains('.')) {
        let (kind, rest) = name.split_once('.').unwrap();
        let formula = match kind {
            "E1" => TimeEmbedding::Interleaved,
            "E2" | "E6" => TimeEmbedding::SinCos,
            "E3" => TimeEmbedding::SinCosToEnd,
            "E4" => TimeEmbedding::CosSin,
            "E5" => TimeEmbedding::Raw,
            _ => {
                failed.push(format!("unknown embedding {name}"));
                continue;
            }
        };
        let dim = rest.trim_start_matches('D').parse().unwrap_or(1);
        let t = &file.array(if kind == "E2" { "noise_level" } else { "t" }).data;
        let stored = &file.array(name).data;
        near(
            name,
            &formula.of(t, dim, DType::F64).unwrap().to_f64_vec().unwrap(),
            stored,
            &mut failed,
        );
        let single = formula.of(t, dim, DType::F32).unwrap().to_f64_vec().unwrap();
        let worst = single.iter().zip(stored).map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
        let worst = worst.fold(0.0, f64::max);
        if worst > 1e-4 {
            failed.push(format!("{name} in f32: off by {worst:.1e}"));
        }
        passed += 1;
    }
    if failed.is_empty() { Outcome::Passed(passed) } else { Outcome::Failed(failed) }
}
