//! Whole networks on a GPU, forward and backward, against the CPU.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use crate::common;

use srk::diffusion::walk::condition;
use srk::engine::device::{DType, Device};
use srk::engine::op_case::relative_l2;
use srk::engine::rng::{Purpose, Stream};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::models::attention_unet::AttentionUNetConfig;
use srk::models::compact::CompactConfig;
use srk::models::dual_domain_grid::DualDomainGridConfig;
use srk::models::dual_domain_unet::DualDomainUNetConfig;
use srk::models::edsr::EdsrConfig;
use srk::models::errn2::Errn2Config;
use srk::models::residual_unet::ResidualUNetConfig;
use srk::models::rrdb::RrdbConfig;
use srk::models::span::SpanConfig;
use srk::models::spanv2::SpanV2Config;
use srk::models::sr3_unet::Sr3UNetConfig;
use srk::models::srddpm_unet::SrddpmUNetConfig;
use srk::models::srdiff_unet::SrdiffUNetConfig;
use srk::models::srgan::SrganConfig;
use srk::models::{ModelConfig, Network};

fn random(shape: &[usize], step: u64, dtype: DType) -> Tensor {
    let mut stream = Stream::new(11, Purpose::Test, step).sequence();
    let values: Vec<f64> =
        (0..shape.iter().product()).map(|_| stream.uniform() * 2.0 - 1.0).collect();
    Tensor::from_f64(&values, shape, dtype)
}

/// The output, the gradient of the state, and those of all parameters.
fn passes(network: &dyn Network, exact: DType) -> Vec<Vec<f64>> {
    let (device, dtype) = (network.device(), network.dtype());
    let place = |t: Tensor| match device {
        Device::Cpu => t,
        _ => t.to_device(&device).unwrap(),
    };
    let low = place(random(&[2, 8, 8, 3], 0, exact));
    let [y0, state, dy] = [1, 2, 3].map(|i| place(random(&[2, 32, 32, 3], i, exact)));
    let t = place(Tensor::from_f64(&[3.0, 7.0], &[2], exact));
    let mut tape = Tape::training();
    let seen = tape.input(condition(network, &low, &y0, None).unwrap());
    let x = tape.variable(state.cast(dtype).unwrap());
    let y = network.forward(&mut tape, &x, &seen, &t).unwrap();
    let output = y.value().to_f64_vec().unwrap();
    let grads = tape.backward(&y, dy.cast(dtype).unwrap()).unwrap();
    let of = |t: Option<&Tensor>| t.unwrap().to_f64_vec().unwrap();
    let parameters = network.parameters().iter().map(|p| of(grads.of_parameter(p)));
    // A network from low resolution straight to high does not see the state.
    let by_state = grads.of(&x).map_or_else(Vec::new, |g| of(Some(g)));
    [output, by_state].into_iter().chain(parameters).collect()
}

/// The output of a call without gradients, in which what follows convolutions is part of them on a GPU.
fn inferred(network: &dyn Network, exact: DType) -> Vec<f64> {
    let (device, dtype) = (network.device(), network.dtype());
    let place = |t: Tensor| match device {
        Device::Cpu => t,
        _ => t.to_device(&device).unwrap(),
    };
    let low = place(random(&[2, 8, 8, 3], 0, exact));
    let [y0, state] = [1, 2].map(|i| place(random(&[2, 32, 32, 3], i, exact)));
    let t = place(Tensor::from_f64(&[3.0, 7.0], &[2], exact));
    let mut tape = Tape::inference();
    let seen = tape.input(condition(network, &low, &y0, None).unwrap());
    let x = tape.input(state.cast(dtype).unwrap());
    network.forward(&mut tape, &x, &seen, &t).unwrap().value().to_f64_vec().unwrap()
}

/// Outputs of calls without gradients in all element types.
fn check_inference(name: &str, config: &ModelConfig) {
    let reference = config.build(5);
    reference.cast(DType::F64).unwrap();
    let wanted = inferred(&*reference, DType::F64);
    let gpu = Device::Cuda(common::fast_gpu());
    // As of outputs with gradients.
    for (dtype, most) in [(DType::F32, 2e-4), (DType::F16, 5e-3), (DType::BF16, 4e-2)] {
        let network = config.build(5);
        network.to_device(&gpu, dtype).unwrap();
        let error = relative_l2(&inferred(&*network, DType::F32), &wanted);
        println!("{name} {dtype:?}, without gradients: {error:.1e}");
        assert!(error < most, "{name} in {dtype:?}, without gradients: off by {error:.1e}");
    }
}

/// `|got - wanted| / |wanted|` over all of the tensors together.
fn error_of_all(got: &[Vec<f64>], wanted: &[Vec<f64>]) -> f64 {
    let flat = |all: &[Vec<f64>]| all.iter().flatten().copied().collect::<Vec<_>>();
    relative_l2(&flat(got), &flat(wanted))
}

fn check(name: &str, config: &ModelConfig) {
    check_inference(name, config);
    let reference = config.build(5);
    reference.cast(DType::F64).unwrap();
    let wanted = passes(&*reference, DType::F64);
    let gpu = Device::Cuda(common::fast_gpu());
    let run = |dtype: DType| {
        let network = config.build(5);
        network.to_device(&gpu, dtype).unwrap();
        passes(&*network, DType::F32)
    };
    each_agrees(name, &*reference, &run(DType::F32), &wanted);
    // Of the output, the rounding of each layer in turn. Of gradients in half precision, mostly ReLU
    // masks and maxima of values that rounding moved across zero or each other: a share p of them
    // gives an error of sqrt(p), here of a part in 1000 for 11 bits and 8 times that for 8 bits, at each
    // of the ten and more such layers.
    for (dtype, [of_output, of_gradients]) in
        [(DType::F16, [5e-3, 0.1]), (DType::BF16, [4e-2, 0.3])]
    {
        let got = run(dtype);
        let errors = [error_of_all(&got[..1], &wanted[..1]), error_of_all(&got[1..], &wanted[1..])];
        println!("{name} {dtype:?}: output {:.1e}, gradients {:.1e}", errors[0], errors[1]);
        assert!(errors[0] < of_output, "{name} in {dtype:?}: output off by {:.1e}", errors[0]);
        assert!(
            errors[1] < of_gradients,
            "{name} in {dtype:?}: gradients off by {:.1e}",
            errors[1]
        );
    }
}

/// In single precision every tensor agrees by itself.
fn each_agrees(name: &str, network: &dyn Network, got: &[Vec<f64>], wanted: &[Vec<f64>]) {
    assert_eq!(got.len(), wanted.len());
    let norms = wanted.iter().map(|v| v.iter().map(|v| v * v).sum::<f64>().sqrt());
    let largest = norms.clone().fold(0.0, f64::max);
    for (i, ((got, wanted), norm)) in got.iter().zip(wanted).zip(norms).enumerate() {
        // Gradients that vanish, such as those of a bias before a norm, are rounding alone.
        if norm < 1e-6 * largest {
            continue;
        }
        let what = match i.checked_sub(2) {
            None => ["output", "state"][i].to_owned(),
            Some(i) => network.parameters()[i].name().to_owned(),
        };
        let error = relative_l2(got, wanted);
        assert!(error < 2e-4, "{name}: {what} is off by {error:.1e}");
    }
}

#[test]
fn the_default_network() {
    let config = DualDomainGridConfig {
        channels: 16,
        blocks: 2,
        frequency_channels: 8,
        wavelet_channels: 8,
        time_dim: 8,
        ..Default::default()
    };
    check("dual-domain-grid", &ModelConfig::DualDomainGrid(config));
}

#[test]
fn the_dual_domain_unet() {
    let config = DualDomainUNetConfig { base: 8, ..Default::default() };
    check("dual-domain-unet", &ModelConfig::DualDomainUNet(config));
}

#[test]
fn the_residual_unet() {
    let config = ResidualUNetConfig { base: 8, ..Default::default() };
    check("residual-unet", &ModelConfig::ResidualUNet(config));
}

#[test]
fn a_unet_with_attention() {
    let config = Sr3UNetConfig {
        base: 8,
        multipliers: vec![1, 2],
        blocks: 1,
        groups: 4,
        attention: vec![16],
        image_size: 32,
        scale: 4,
        ..Default::default()
    };
    check("sr3-unet", &ModelConfig::Sr3UNet(config));
}

/// Every map of its norms is large here or small, every block is told t, and five maps are concatenated.
#[test]
fn a_deep_unet() {
    let config = AttentionUNetConfig { base: 8, time_dim: 20, ..Default::default() };
    check_inference("attention-unet", &ModelConfig::AttentionUNet(config));
}

#[test]
fn the_generator_of_srddpm() {
    let config = SrddpmUNetConfig { base: 8, time_dim: 16, ..Default::default() };
    check("srddpm-unet", &ModelConfig::SrddpmUNet(config));
}

#[test]
fn the_generator_of_srgan() {
    check("srgan", &ModelConfig::Srgan(SrganConfig { base: 8, blocks: 2, scale: 4 }));
}

#[test]
fn the_network_of_srdiff_and_its_encoder() {
    let encoder = RrdbConfig { base: 8, blocks: 2, growth: 4, ..Default::default() };
    check("rrdb", &ModelConfig::Rrdb(encoder));
    let config = SrdiffUNetConfig {
        base: 8,
        multipliers: vec![1, 2, 3],
        encoder_base: 8,
        encoder_blocks: 2,
        encoder_growth: 4,
        scale: 4,
    };
    check("srdiff-unet", &ModelConfig::SrdiffUNet(config));
}

#[test]
fn networks_that_enlarge_in_one_call() {
    check("errn2", &ModelConfig::Errn2(Errn2Config { channels: 8, blocks: 2, depth: 2, scale: 4 }));
    // Trained on a small range, or f16 has few digits left for what is far from 0.
    let (range, mean) = (1.0, [0.4, 0.5, 0.6]);
    let span = SpanConfig { channels: 8, blocks: 2, scale: 4, range, mean, branches: true };
    check("span", &ModelConfig::Span(SpanConfig { branches: false, ..span.clone() }));
    check("span in training", &ModelConfig::Span(span));
    check("spanv2", &ModelConfig::SpanV2(SpanV2Config { channels: 8, blocks: 2, scale: 4 }));
    let compact = CompactConfig { channels: 8, depth: 2, ..Default::default() };
    check("compact", &ModelConfig::Compact(compact));
    let edsr = EdsrConfig { channels: 8, blocks: 2, range, mean, ..Default::default() };
    check("edsr", &ModelConfig::Edsr(edsr));
}
