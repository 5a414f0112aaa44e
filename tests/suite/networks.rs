//! What networks of an adversarial training and of SRDiff promise each other: units, sizes, who is frozen.
#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use srk::engine::device::DType;
use srk::engine::parameter::{Layout, Parameter};
use srk::engine::rng::{Purpose, Stream};
use srk::engine::tape::{Grads, Tape, Var};
use srk::engine::tensor::Tensor;
use srk::error::Error;
use srk::models::Module as _;
use srk::models::discriminator::DiscriminatorConfig;
use srk::models::patch_discriminator::PatchDiscriminatorConfig;
use srk::models::rrdb::RrdbConfig;
use srk::models::srdiff_unet::{SrdiffUNet, SrdiffUNetConfig};
use srk::models::srgan::{Srgan, SrganConfig};
use srk::models::srgan_discriminator::SrganDiscriminatorConfig;
use srk::models::vgg19::Vgg19;
use srk::models::weights::{WeightsFile, from_file_layout};
use srk::models::{ModelConfig, Network};
use srk::nn::{Conv2d, Init};

fn random(shape: &[usize], number: u64) -> Tensor {
    let mut stream = Stream::new(17, Purpose::Test, number).sequence();
    let values: Vec<f64> =
        (0..shape.iter().product()).map(|_| stream.uniform() * 2.0 - 1.0).collect();
    Tensor::from_f64(&values, shape, DType::F32)
}

fn values(var: &Var) -> Vec<f64> {
    var.value().to_f64_vec().unwrap()
}

/// The gradient of the mean of `y`.
fn of_mean(mut tape: Tape, y: &Var) -> Grads {
    let y = tape.mean(y).unwrap();
    tape.backward(&y, Tensor::from_vec(vec![1.0f32], &[1])).unwrap()
}

fn has_gradient(grads: &Grads, p: &Parameter) -> bool {
    let gradient = grads.of_parameter(p).map(|g| g.to_f64_vec().unwrap());
    gradient.is_some_and(|g| g.iter().all(|v| v.is_finite()) && g.iter().any(|&v| v != 0.0))
}

const ENCODER: RrdbConfig = RrdbConfig { base: 6, blocks: 5, growth: 3, scale: 4, unshuffle: 1 };

fn srdiff(seed: u64) -> SrdiffUNet {
    let config = SrdiffUNetConfig {
        base: 8,
        multipliers: vec![1, 2],
        encoder_base: ENCODER.base,
        encoder_blocks: ENCODER.blocks,
        encoder_growth: ENCODER.growth,
        scale: ENCODER.scale,
    };
    SrdiffUNet::new(&config, seed)
}

/// What a network makes of a low-resolution image without a state.
fn direct(network: &dyn Network, low: &Tensor) -> Vec<f64> {
    let mut tape = Tape::inference();
    let x = tape.input(Tensor::from_vec(vec![0.0f32], &[1, 1, 1, 1]));
    let condition = tape.input(network.condition(low, low).unwrap());
    let t = Tensor::from_vec(vec![0.0f64], &[1]);
    let y = network.forward(&mut tape, &x, &condition, &t).unwrap();
    let [n, h, w, c] = low.shape()[..] else { unreachable!("an image") };
    assert_eq!(y.shape(), [n, 4 * h, 4 * w, c]);
    values(&y)
}

#[test]
fn srgan_works_on_colours_from_0_to_1_inside() {
    let network = Srgan::new(&SrganConfig { base: 4, blocks: 1, scale: 4 }, 3);
    let low = random(&[1, 5, 3, 3], 0);
    let mut tape = Tape::inference();
    let x = tape.input(low.try_clone().unwrap());
    let x = tape.affine(&x, 0.5, 0.5).unwrap();
    let inside = values(&network.upscale(&mut tape, &x).unwrap());
    let outside = direct(&network, &low);
    assert!(inside.iter().zip(&outside).all(|(a, b)| (2.0 * a - 1.0 - b).abs() < 1e-6));
}

#[test]
fn factors_that_are_no_power_of_2_are_refused() {
    let srgan = SrganConfig { base: 4, blocks: 1, scale: 3 };
    let rrdb = RrdbConfig { scale: 6, ..ENCODER };
    for config in [ModelConfig::Srgan(srgan), ModelConfig::Rrdb(rrdb)] {
        let network = config.build(0);
        let mut tape = Tape::inference();
        let low = tape.input(random(&[1, 4, 4, 3], 0));
        let t = Tensor::from_vec(vec![0.0f64], &[1]);
        let error = network.forward(&mut tape, &low.clone(), &low, &t).unwrap_err();
        assert!(error.to_string().contains("a factor of"), "{error}");
    }
}

#[test]
fn the_encoder_of_srdiff_is_loaded_saved_and_not_trained() {
    let alone = ModelConfig::Rrdb(ENCODER).build(4);
    let low = random(&[2, 4, 6, 3], 1);
    assert!(direct(&*alone, &low).iter().all(|v| v.is_finite()));
    let file = WeightsFile::of(alone.parameters(), BTreeMap::new()).unwrap();
    let (first, second) = (srdiff(5), srdiff(6));
    let features = |n: &SrdiffUNet| n.condition(&low, &low).unwrap();
    assert_ne!(features(&first).to_f64_vec().unwrap(), features(&second).to_f64_vec().unwrap());
    first.load_frozen(&file, "alone").unwrap();
    let combined = WeightsFile::of(&first.state(), BTreeMap::new()).unwrap();
    assert!(combined.tensors.contains_key("rrdb.RRDB_trunk.4.RDB3.conv5.weight"));
    second.load_frozen(&combined, "combined").unwrap();
    assert_eq!(features(&first).shape(), [2, 4, 6, 12]);
    assert_eq!(features(&first).to_f64_vec().unwrap(), features(&second).to_f64_vec().unwrap());

    let mut tape = Tape::training();
    let x = tape.input(random(&[2, 16, 24, 3], 2));
    let condition = tape.input(features(&first));
    let t = Tensor::from_vec(vec![3.0f64, 70.0], &[2]);
    let y = first.forward(&mut tape, &x, &condition, &t).unwrap();
    assert_eq!(y.shape(), [2, 16, 24, 3]);
    let grads = of_mean(tape, &y);
    assert!(!first.moves_buffers());
    for p in first.parameters() {
        assert!(has_gradient(&grads, p), "{}", p.name());
    }
    assert!(first.buffers().iter().all(|b| grads.of_parameter(b).is_none()));
}

#[test]
fn an_encoder_of_another_size_is_refused() {
    let other = ModelConfig::Rrdb(RrdbConfig { blocks: 4, ..ENCODER }).build(4);
    let file = WeightsFile::of(other.parameters(), BTreeMap::new()).unwrap();
    let error = srdiff(5).load_frozen(&file, "other.safetensors").unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Model(_)) && message.contains("other.safetensors"), "{message}");
}

/// A linear map of a flattened map takes channel after channel, as the original's does.
#[test]
fn flattened_maps_are_read_channel_by_channel() {
    let mut init = Init::new(0);
    let layer = Conv2d::flattened(&mut init, "linear", [3, 1, 2]);
    let parameters = init.finish();
    let weight: Vec<f32> = (0..12u8).map(f32::from).collect();
    let tensor = from_file_layout(Layout::Flattened { side: 2 }, &[1, 12], &weight);
    assert_eq!(tensor.shape(), [1, 2, 2, 3]);
    parameters[0].set(tensor);
    parameters[1].set(Tensor::from_vec(vec![0.0f32], &[1]));
    for (at, &wanted) in weight.iter().enumerate() {
        let (channel, pixel) = (at / 4, at % 4);
        let mut map = vec![0.0f32; 12];
        map[pixel * 3 + channel] = 1.0;
        let mut tape = Tape::inference();
        let x = tape.input(Tensor::from_vec(map, &[1, 2, 2, 3]));
        let y = layer.forward(&mut tape, &x).unwrap();
        assert_eq!(values(&y), [f64::from(wanted)], "{at}");
    }
    let file = WeightsFile::of(&parameters, BTreeMap::new()).unwrap();
    assert_eq!(file.tensors["linear.weight"], (vec![1, 12], weight));
}

#[test]
fn a_generator_learns_from_a_frozen_discriminator() {
    let patch = DiscriminatorConfig::Patch(PatchDiscriminatorConfig { base: 4 });
    let srgan = DiscriminatorConfig::Srgan(SrganDiscriminatorConfig { base: 2, crop: 32 });
    for (config, verdicts) in [(patch, [2, 4, 4, 1]), (srgan, [2, 1, 1, 1])] {
        let judge = config.build(7);
        for frozen in [true, false] {
            let mut tape = Tape::training();
            let image = tape.variable(random(&[2, 32, 32, 3], 3));
            let run = |tape: &mut Tape| judge.forward(tape, &image);
            let y = if frozen { tape.frozen(run) } else { run(&mut tape) }.unwrap();
            assert_eq!(y.shape(), verdicts);
            let y = tape.bce_with_logits(&y, 1.0).unwrap();
            let grads = tape.backward(&y, Tensor::from_vec(vec![1.0f32], &[1])).unwrap();
            let by_image = grads.of(&image).unwrap().to_f64_vec().unwrap();
            assert!(by_image.iter().any(|&v| v != 0.0), "{config:?}");
            for p in judge.parameters() {
                assert_eq!(grads.of_parameter(p).is_some(), !frozen, "{config:?} {}", p.name());
            }
        }
    }
}

#[test]
fn a_discriminator_for_one_size_refuses_others() {
    let judge = DiscriminatorConfig::Srgan(SrganDiscriminatorConfig { base: 2, crop: 32 }).build(7);
    let mut tape = Tape::inference();
    let x = tape.input(random(&[1, 48, 32, 3], 3));
    let message = judge.forward(&mut tape, &x).unwrap_err().to_string();
    assert!(message.contains("32 x 32 pixels, got shape [1, 48, 32, 3]"), "{message}");
}

#[test]
fn perceptual_features_pass_gradients_to_the_image_alone() {
    let vgg = Vgg19::new(1);
    assert_eq!(vgg.parameters().iter().map(|p| p.value().len()).sum::<usize>(), 20_024_384);
    let mut tape = Tape::training();
    let image = tape.variable(random(&[1, 32, 32, 3], 4));
    let other = tape.input(random(&[1, 32, 32, 3], 5));
    let shapes = [(0, [1, 32, 32, 64]), (4, [1, 16, 16, 64]), (35, [1, 2, 2, 512])];
    for (layer, shape) in shapes {
        assert_eq!(vgg.forward(&mut tape, &image, layer).unwrap().shape(), shape);
    }
    let (before, after) =
        (vgg.forward(&mut tape, &image, 34).unwrap(), vgg.forward(&mut tape, &image, 35).unwrap());
    let relu: Vec<f64> = values(&before).iter().map(|v| v.max(0.0)).collect();
    assert_eq!(values(&after), relu);
    assert!(values(&before).iter().any(|&v| v < 0.0));
    assert!(vgg.forward(&mut tape, &image, 37).unwrap_err().to_string().contains("layer 37"));

    let distance = vgg.distance(&mut tape, &image, &other, 34).unwrap();
    let grads = tape.backward(&distance, Tensor::from_vec(vec![1.0f32], &[1])).unwrap();
    let by_image = grads.of(&image).unwrap().to_f64_vec().unwrap();
    assert!(by_image.iter().all(|v| v.is_finite()) && by_image.iter().any(|&v| v != 0.0));
    assert!(vgg.parameters().iter().all(|p| grads.of_parameter(p).is_none()));
}

/// The classifier of the file, and anything else, is left out.
#[test]
fn perceptual_features_come_from_a_file_that_holds_more() {
    let trained = Vgg19::new(1);
    let mut file = WeightsFile::of(trained.parameters(), BTreeMap::new()).unwrap();
    file.tensors.insert("classifier.6.bias".to_owned(), (vec![3], vec![1.0; 3]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vgg19.safetensors");
    file.write(&path, DType::F16).unwrap();
    let read = Vgg19::read(&path).unwrap();
    for (a, b) in read.parameters().iter().zip(trained.parameters()) {
        let error = srk::engine::op_case::relative_l2(
            &a.value().to_f64_vec().unwrap(),
            &b.value().to_f64_vec().unwrap(),
        );
        assert!(error < 1e-3, "{}: {error:.1e}", a.name());
    }
    file.tensors.remove("features.28.weight");
    file.write(&path, DType::F16).unwrap();
    let message = Vgg19::read(&path).unwrap_err().to_string();
    assert!(message.contains("features.28.weight"), "{message}");
}
