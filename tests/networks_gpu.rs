//! Whole networks on a GPU, forward and backward, against the CPU.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
mod common;

use srk::diffusion::sampler::condition;
use srk::engine::device::{DType, Device};
use srk::engine::op_case::relative_l2;
use srk::engine::rng::{Purpose, Stream};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::models::dual_domain_grid::DualDomainGridConfig;
use srk::models::dual_domain_unet::DualDomainUNetConfig;
use srk::models::residual_unet::ResidualUNetConfig;
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
    let seen = tape.input(condition(network, &low, &y0).unwrap());
    let x = tape.variable(state.cast(dtype).unwrap());
    let y = network.forward(&mut tape, &x, &seen, &t).unwrap();
    let output = y.value().to_f64_vec().unwrap();
    let grads = tape.backward(&y, dy.cast(dtype).unwrap()).unwrap();
    let of = |t: Option<&Tensor>| t.unwrap().to_f64_vec().unwrap();
    let parameters = network.parameters().iter().map(|p| of(grads.of_parameter(p)));
    [output, of(grads.of(&x))].into_iter().chain(parameters).collect()
}

fn check(name: &str, config: &ModelConfig) {
    let reference = config.build(5);
    reference.cast(DType::F64).unwrap();
    let wanted = passes(&*reference, DType::F64);
    let gpu = Device::Cuda(common::fast_gpu());
    // Rounding of each layer in turn; gradients of first layers have passed all of them twice.
    for (dtype, tol) in [(DType::F32, 2e-4), (DType::F16, 5e-2), (DType::BF16, 0.3)] {
        let network = config.build(5);
        network.to_device(&gpu, dtype).unwrap();
        let got = passes(&*network, DType::F32);
        assert_eq!(got.len(), wanted.len());
        let norms = wanted.iter().map(|v| v.iter().map(|v| v * v).sum::<f64>().sqrt());
        let largest = norms.clone().fold(0.0, f64::max);
        for (i, ((got, wanted), norm)) in got.iter().zip(&wanted).zip(norms).enumerate() {
            // Gradients that vanish, such as those of a bias before a norm, are rounding alone.
            if norm < 1e-6 * largest {
                continue;
            }
            let error = relative_l2(got, wanted);
            let what = match i.checked_sub(2) {
                None => ["output", "state"][i].to_owned(),
                Some(i) => network.parameters()[i].name().to_owned(),
            };
            assert!(error < tol, "{name} in {dtype:?}: {what} is off by {error:.1e}");
        }
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
