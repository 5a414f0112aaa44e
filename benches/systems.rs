//! One call of the network of every recipe, at its full width: one image of 64x64 pixels (of 256x256
//! where the network works on latents of a quarter of that). What a denoising step costs on this machine.
//!
//! `cargo bench --bench systems -- NAME` runs one; the peak of memory it prints is that of the process, so
//! it is of one network only then.
use criterion::{Criterion, criterion_group, criterion_main};
use srk::diffusion::latent;
use srk::diffusion::walk::condition;
use srk::engine::device::DType;
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::models::ModelConfig;
use srk::models::vq::{Vq, VqConfig};
use srk::training::config::Config;
use srk::training::tasks::teaching;
use srk::training::{recipes, settings};

/// High-resolution pixels a side.
const SIDE: usize = 64;

fn tensor(shape: &[usize]) -> Tensor {
    let len: usize = shape.iter().product();
    let values = (0..len).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
    Tensor::from_vec(values, shape)
}

/// The network of a recipe for super-resolution.
fn model(text: &str) -> Option<ModelConfig> {
    let kind = settings::text_at(text, "model.kind")?;
    if teaching::KINDS.contains(&kind.as_str()) {
        return None;
    }
    Some(Config::read(text, "recipe", &[]).ok()?.model)
}

fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("systems");
    group.sample_size(10);
    for recipe in recipes::ALL {
        let Some(model) = model(recipe.text) else { continue };
        group.bench_function(recipe.name, |b| {
            // Built here, so that a filter builds no other.
            let network = model.build(1);
            let (scale, channels) = (model.scale(), network.channels());
            let latent = network.first_stage().map_or(1, |vq| vq.config().factor());
            let high = SIDE * latent;
            let low = tensor(&[1, high / scale, high / scale, channels]);
            let y0 = tensor(&[1, high, high, channels]);
            let state = tensor(&[1, high / latent, high / latent, 3.min(channels)]);
            let t = Tensor::from_f64(&[3.0], &[1], DType::F32);
            let seen = condition(&*network, &low, &y0, None).expect("memory");
            b.iter(|| {
                let mut tape = Tape::inference();
                let x = tape.input(state.try_clone().expect("memory"));
                let seen = tape.input(seen.clone());
                network.forward(&mut tape, &x, &seen, &t).expect("it runs")
            });
        });
        eprintln!("{}: {} of memory at most so far", recipe.name, peak());
    }
    group.finish();
}

/// The peak of resident memory, where the system says so.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".into(), |text| text.trim().to_owned())
}

/// The two ways between images of 256x256 and their latents.
fn first_stage(c: &mut Criterion) {
    let mut group = c.benchmark_group("first-stage");
    group.sample_size(10);
    let sizes = VqConfig::default();
    let (image, side) = (tensor(&[1, 256, 256, 3]), 256 / sizes.factor());
    let latent = tensor(&[1, side, side, 3]);
    group.bench_function("encode", |b| {
        let vq = Vq::new(&sizes, 1);
        b.iter(|| latent::encode(Some(&vq), &image).expect("memory"));
    });
    group.bench_function("decode", |b| {
        let vq = Vq::new(&sizes, 1);
        b.iter(|| latent::decode(Some(&vq), latent.try_clone().expect("memory")).expect("memory"));
    });
    group.finish();
    eprintln!("first stage: {} of memory at most so far", peak());
}

criterion_group!(benches, calls, first_stage);
criterion_main!(benches);
