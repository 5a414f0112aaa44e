//! What every network promises, whichever it is: the tests go through the list of `src/models/mod.rs`, so that a
//! line there is all that a new one needs. Narrow versions stand for the wider ones.
//!
//! Others go through the same list: `import.rs` (checkpoints under other programs' names), `dead_on_gpu.rs` (a call
//! with gradients and the upscaler, on a device that counts) and `tests/memory_estimates.rs`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss)]
use crate::common;
use crate::launches::Counting;

use std::collections::BTreeSet;
use std::sync::Arc;

use srk::diffusion::process::{InputScale, Process};
use srk::diffusion::sampler::{Diffusion, Space};
use srk::diffusion::schedule::EtaSchedule;
use srk::diffusion::system::{System, SystemConfig};
use srk::diffusion::walk::condition;
use srk::engine::cuda::Gpu;
use srk::engine::device::{DType, Device};
use srk::engine::op_case::relative_l2;
use srk::engine::rng::{Purpose, Stream};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::imaging::{Color, Image, Samples};
use srk::models::weights::WeightsFile;
use srk::models::{ModelConfig, Network};
use srk::training::config::Config;
use srk::training::recipes;
use srk::upscale::{Settings, TileSize, Upscaler, plan, upscale};

fn random(shape: &[usize], step: u64) -> Tensor {
    let mut stream = Stream::new(11, Purpose::Test, step).sequence();
    let values: Vec<f64> =
        (0..shape.iter().product()).map(|_| stream.uniform() * 2.0 - 1.0).collect();
    Tensor::from_f64(&values, shape, DType::F64)
}

/// The network with weights that all count: those that start at zero are drawn.
fn built(config: &ModelConfig) -> Box<dyn Network> {
    let network = config.build(5);
    for (i, p) in network.parameters().iter().enumerate() {
        let value = p.value();
        if value.to_f64_vec().unwrap().iter().all(|&v| v == 0.0) {
            let drawn = random(value.shape(), 100 + i as u64).to_f64_vec().unwrap();
            let small: Vec<f64> = drawn.iter().map(|v| 0.1 * v).collect();
            p.set(Tensor::from_f64(&small, value.shape(), value.dtype()));
        }
    }
    network
}

/// A system of this network: a chain of four steps, or none.
fn system(config: &ModelConfig, network: &dyn Network) -> System {
    let mut diffusion = Diffusion::direct();
    if !config.is_direct() {
        let eta = EtaSchedule::Official { min_noise_level: 0.2, end: 0.99, power: 0.3 };
        let input_scale = InputScale::None;
        diffusion.process =
            Process::ResShift { steps: 4, kappa: 0.5, eta, input_scale, first_t: 1 };
    }
    if network.first_stage().is_some() {
        diffusion.space = Space::Latent;
    }
    let config =
        SystemConfig { default_steps: Some(2), ..SystemConfig::new(config.clone(), diffusion) };
    let file = WeightsFile::of(&network.state(), config.metadata(&[])).unwrap();
    let bytes = file.to_bytes(DType::F32);
    System::from_file(&WeightsFile::parse(&bytes, "narrow").unwrap(), "narrow").unwrap()
}

/// Two low-resolution images, their enlargements and states, for a call of the network; `side` is that of the first.
fn inputs(network: &dyn Network, scale: usize, side: usize) -> [Tensor; 3] {
    let (c, high) = (network.channels(), side * scale);
    // A state of latents is smaller than the image.
    let state = high / network.first_stage().map_or(1, |vq| vq.config().factor());
    [side, high, state].map(|side| random(&[2, side, side, c], side as u64))
}

/// The least side of an image that the network takes, but no less than 8.
fn least(network: &dyn Network) -> usize {
    8usize.next_multiple_of(network.geometry().align)
}

/// The output of a call, then the gradients of the state and of all parameters.
fn passes(network: &dyn Network, [low, y0, state]: &[Tensor; 3]) -> Vec<Vec<f64>> {
    let (device, dtype) = (network.device(), network.dtype());
    let exact = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let place = |t: &Tensor| match device {
        Device::Cpu => t.cast(exact).unwrap(),
        _ => t.cast(DType::F32).unwrap().to_device(&device).unwrap(),
    };
    let mut tape = Tape::training();
    let told = condition(network, &place(low), &place(y0), None).unwrap();
    let told = tape.input(told);
    let x = tape.variable(place(state).cast(dtype).unwrap());
    let t = place(&Tensor::from_f64(&[3.0, 7.0], &[2], DType::F64));
    let y = network.forward(&mut tape, &x, &told, &t).unwrap();
    let output = y.value().to_f64_vec().unwrap();
    let dy = place(&random(y.shape(), 7)).cast(dtype).unwrap();
    let grads = tape.backward(&y, dy).unwrap();
    let values = |t: &Tensor| t.to_f64_vec().unwrap();
    // A network from low resolution straight to high sees no state; one of two experts trains one of them.
    let by_state = grads.of(&x).map_or_else(Vec::new, values);
    let parameters =
        network.parameters().iter().map(|p| grads.of_parameter(p).map_or_else(Vec::new, values));
    [output, by_state].into_iter().chain(parameters).collect()
}

#[test]
fn names_are_unique_and_configurations_come_back() {
    let mut names = BTreeSet::new();
    for known in ModelConfig::KINDS {
        assert!(names.insert(known.name), "{} stands twice in the list", known.name);
        let config = (known.narrow)();
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains(&format!("kind = \"{}\"", known.name)), "{text}");
        assert_eq!(toml::from_str::<ModelConfig>(&text).unwrap(), config);
        assert!(config.is_whole() && config.scale() >= 1, "{}", known.name);
        let unknown = format!("{text}\n");
        let unknown = unknown.replacen("kind =", "no_such_size = 1\nkind =", 1);
        assert!(
            toml::from_str::<ModelConfig>(&unknown).is_err(),
            "{}: any key is taken",
            known.name
        );
        let network = config.build(1);
        let state = network.state();
        let tensors: BTreeSet<&str> = state.iter().map(|p| p.name()).collect();
        assert_eq!(tensors.len(), state.len(), "{}: two tensors of one name", known.name);
    }
    assert!(names.len() >= 19, "{names:?}");
}

#[test]
fn a_saved_network_computes_the_same_bits() {
    for known in ModelConfig::KINDS {
        let config = (known.narrow)();
        let network = built(&config);
        let inputs = inputs(&*network, config.scale(), least(&*network));
        let read = system(&config, &*network).network;
        let [before, after] = [&network, &read].map(|n| passes(&**n, &inputs));
        assert!(before == after, "{}: another output or gradient", known.name);
        let moved = before[0].iter().any(|v| *v != before[0][0]);
        assert!(moved && before[0].iter().all(|v| v.is_finite()), "{}", known.name);
    }
}

/// Each tensor by itself in single precision; half precisions of the recipes' networks are in `networks_gpu.rs`.
#[test]
fn a_gpu_computes_what_the_cpu_does() {
    for known in ModelConfig::KINDS {
        let config = (known.narrow)();
        let reference = built(&config);
        let inputs = inputs(&*reference, config.scale(), least(&*reference));
        reference.cast(DType::F64).unwrap();
        let wanted = passes(&*reference, &inputs);
        let network = built(&config);
        network.to_device(&Device::Cuda(common::fast_gpu()), DType::F32).unwrap();
        let got = passes(&*network, &inputs);
        let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let largest = wanted.iter().map(|v| norm(v)).fold(0.0, f64::max);
        let mut worst: f64 = 0.0;
        for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
            assert_eq!(got.len(), wanted.len(), "{}", known.name);
            // Gradients that vanish, such as those of a bias before a norm, are rounding alone.
            if norm(wanted) < 1e-6 * largest {
                continue;
            }
            let what = match i.checked_sub(2) {
                None => ["output", "state"][i].to_owned(),
                Some(i) => network.parameters()[i].name().to_owned(),
            };
            let error = relative_l2(got, wanted);
            assert!(error < 2e-4, "{}: {what} is off by {error:.1e}", known.name);
            worst = worst.max(error);
        }
        println!("{:18} {worst:.1e}", known.name);
    }
}

/// The bits of an output that far columns of the inputs change: none beyond the bound.
#[test]
fn networks_see_no_further_than_they_say() {
    let mut bounded = 0;
    for known in ModelConfig::KINDS {
        let config = (known.narrow)();
        let (network, scale) = (built(&config), config.scale());
        let geometry = network.geometry();
        let Some(bound) = geometry.receptive_field else { continue };
        bounded += 1;
        let (height, c) = (16usize.next_multiple_of(geometry.align), network.channels());
        let width = (bound + 48).next_multiple_of(geometry.align);
        // Whole columns at the left are moved by as much as shows.
        let image = |scale: usize, step: u64, by: f64| {
            let shape = [1, height * scale, width * scale, c];
            let mut values = random(&shape, step).to_f64_vec().unwrap();
            for row in values.chunks_exact_mut(width * scale * c) {
                row[..c * scale].iter_mut().for_each(|v| *v += by);
            }
            Tensor::from_f64(&values, &shape, DType::F32)
        };
        let output = |by: f64| {
            let told = condition(&*network, &image(1, 1, by), &image(scale, 2, by), None).unwrap();
            let mut tape = Tape::inference();
            let (x, told) = (tape.input(image(scale, 3, by)), tape.input(told));
            let t = Tensor::from_f64(&[3.0], &[1], DType::F32);
            network.forward(&mut tape, &x, &told, &t).unwrap().value().to_f32_vec().unwrap()
        };
        let (a, b) = (output(0.0), output(1e6));
        let row = width * scale * c;
        let column = |i: usize| i % row / (scale * c);
        let changed = (0..a.len()).filter(|&i| a[i].to_bits() != b[i].to_bits()).map(column).max();
        let reach = changed.unwrap();
        println!("{:18} {reach} of {bound}", known.name);
        assert!(reach > 0 && reach <= bound, "{}: sees {reach}, says {bound}", known.name);
    }
    assert!(bounded >= 9, "{bounded} networks with a bound");
}

/// Tiles of a network with a bound are the bytes of the whole, unless they would be mostly halo; others are blended.
#[test]
fn tiles_equal_the_whole_or_are_blended() {
    let (width, height) = (51, 21);
    let samples = random(&[height, width, 3], 9).to_f64_vec().unwrap();
    let wave = |(i, v): (usize, &f64)| 128.0 + 60.0 * (i as f64 / 50.0).sin() + 40.0 * v;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let samples = samples.iter().enumerate().map(|p| wave(p).clamp(0.0, 255.0) as u8).collect();
    let image = Image::from_u8(width, height, Color::Rgb, samples).unwrap();
    for known in ModelConfig::KINDS {
        let config = (known.narrow)();
        let network = built(&config);
        let system = system(&config, &*network);
        let upscaler = Upscaler::new(system, &Device::Cpu, DType::F32).unwrap();
        let planned = |tile: TileSize| {
            let settings = Settings { steps: Some(2), seed: 9, tile, memory: 1 << 30 };
            plan(&upscaler, width, height, &settings).unwrap()
        };
        if network.geometry().receptive_field.is_none() {
            assert!(planned(TileSize::Side(16)).blended, "{}: tiles have edges", known.name);
            continue;
        }
        let run = |tile: TileSize| {
            let plan = planned(tile);
            let (output, _) = upscale(&upscaler, &image, &plan, 9, &mut |_, _| Ok(())).unwrap();
            let size = (width * config.scale(), height * config.scale());
            assert_eq!((output.width, output.height), size, "{}", known.name);
            let Samples::U8(samples) = output.samples else { panic!("8 bits stay 8 bits") };
            (samples, plan.blended)
        };
        let ((whole, _), (tiled, blended)) = (run(TileSize::None), run(TileSize::Side(16)));
        let off = whole.iter().zip(&tiled).filter(|(a, b)| a != b).count();
        println!("{:18} blended {blended}, {off} of {} bytes differ", known.name, whole.len());
        assert!(blended || off == 0, "{}: {off} samples differ", known.name);
    }
}

/// What a plan says of a GPU's memory is what the work takes there, at two sizes of tiles: never more, and half at least.
#[test]
fn tiles_on_a_gpu_take_what_was_planned() {
    let sizes = [(64, DType::F16), (96, DType::F16), (64, DType::F32)];
    let narrow = ModelConfig::KINDS.iter();
    let narrow = narrow.map(|known| (known.name.to_owned(), (known.narrow)(), &sizes[..]));
    let wide = |recipe: &recipes::Recipe| {
        let config = Config::read(recipe.text, recipe.name, &[]).ok()?;
        Some((format!("{}'s", recipe.name), config.model, &sizes[..1]))
    };
    for (name, config, sizes) in narrow.chain(recipes::ALL.iter().filter_map(wide)) {
        let network = built(&config);
        for &(side, dtype) in sizes {
            let gpu = Gpu::new(Arc::new(Counting::new()));
            let system = system(&config, &*network);
            let upscaler = Upscaler::new(system, &Device::Cuda(gpu.clone()), dtype).unwrap();
            let image = Image::from_u8(side, side, Color::Rgb, vec![128; side * side * 3]).unwrap();
            let tile = TileSize::None;
            let settings = Settings { steps: Some(2), seed: 9, tile, memory: 1 << 30 };
            let plan = plan(&upscaler, side, side, &settings).unwrap();
            let before = gpu.usage().used;
            upscale(&upscaler, &image, &plan, 9, &mut |_, _| Ok(())).unwrap();
            let share = (gpu.usage().peak - before) as f64 / plan.memory as f64;
            println!("{name:22} {side} {dtype:?}: {share:.2} of what was planned");
            let wrong = match share > 1.0 {
                true => "floats_per_pixel is too small",
                false => "floats_per_pixel is too large",
            };
            assert!((0.5..=1.0).contains(&share), "{name}, {side}, {dtype:?}: {share:.2}: {wrong}");
        }
    }
}
