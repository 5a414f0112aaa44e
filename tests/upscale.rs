//! What exact tiling rests on: how far the default network sees, and tiles that equal the whole.
#![allow(clippy::unwrap_used)]
use srk::diffusion::system::System;
use srk::engine::rng::{Purpose, Stream};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::imaging::{Color, Image, Samples};
use srk::models::dual_domain_grid::DualDomainGridConfig;
use srk::models::dual_domain_unet::DualDomainUNetConfig;
use srk::models::{ModelConfig, Network};
use srk::upscale::{Settings, TileSize, plan, upscale};

const SCALE: usize = 4;

fn random(shape: &[usize], step: u64) -> Vec<f32> {
    let mut stream = Stream::new(5, Purpose::Test, step).sequence();
    (0..shape.iter().product()).map(|_| stream.normal()).collect()
}

/// The output for a state and a low-resolution image whose first column is moved by `by`.
fn output(network: &dyn Network, width: usize, by: f32) -> Vec<f32> {
    let (height, high) = (16, [1, 16 * SCALE, width * SCALE, 3]);
    let mut low = random(&[1, height, width, 3], 1);
    let mut state = random(&high, 2);
    low.chunks_exact_mut(width * 3).for_each(|row| row[..3].iter_mut().for_each(|v| *v += by));
    state.chunks_exact_mut(width * SCALE * 3).for_each(|row| {
        row[..3 * SCALE].iter_mut().for_each(|v| *v += by);
    });
    let mut tape = Tape::inference();
    let x = tape.input(Tensor::from_vec(state, &high));
    let low = tape.input(Tensor::from_vec(low, &[1, height, width, 3]));
    let t = Tensor::from_vec(vec![4.0f32], &[1]);
    let y = network.forward(&mut tape, &x, &low, &t).unwrap();
    y.value().cpu::<f32>().unwrap().to_vec()
}

/// The last low-resolution column that the first one has any influence on.
fn reach(network: &dyn Network, width: usize) -> usize {
    let (a, b) = (output(network, width, 0.0), output(network, width, 1e3));
    let row = width * SCALE * 3;
    let changed = |column: usize| {
        let at = column * SCALE * 3;
        a.chunks_exact(row)
            .zip(b.chunks_exact(row))
            .any(|(a, b)| a[at..at + SCALE * 3] != b[at..at + SCALE * 3])
    };
    (0..width).rev().find(|&column| changed(column)).unwrap()
}

#[test]
fn the_default_network_sees_no_further_than_it_says() {
    for blocks in [1, 2, 5, 8] {
        let config = DualDomainGridConfig {
            blocks,
            channels: 16,
            frequency_channels: 8,
            wavelet_channels: 4,
            ..Default::default()
        };
        let network = ModelConfig::DualDomainGrid(config).build(3);
        let geometry = network.geometry();
        let bound = geometry.receptive_field.unwrap();
        let reach = reach(&*network, 2 * bound + 64);
        // Bits, not grey levels; and the bound is not much wider than what is seen.
        assert!(reach <= bound, "{blocks} blocks: column {reach} changed, the bound is {bound}");
        assert!(reach + 2 * geometry.align > bound, "{blocks} blocks: {reach} of {bound}");
    }
}

fn picture(width: usize, height: usize) -> Image {
    let samples = random(&[height, width, 3], 7)
        .iter()
        .enumerate()
        .map(|(i, v)| {
            let wave = (i as f32 / 50.0).sin() * 60.0 + 128.0 + 20.0 * v;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            (wave.clamp(0.0, 255.0) as u8)
        })
        .collect();
    Image::from_u8(width, height, Color::Rgb, samples).unwrap()
}

fn run(system: &System, image: &Image, tile: TileSize) -> Vec<u8> {
    let settings = Settings { steps: Some(2), seed: 9, tile, memory: 1 << 30 };
    let plan = plan(system, image.width, image.height, &settings).unwrap();
    let output = upscale(system, image, &plan, 9, &mut |_, _| Ok(())).unwrap();
    let Samples::U8(samples) = output.samples else { panic!("8 bits stay 8 bits") };
    samples
}

#[test]
fn tiles_of_any_size_equal_the_whole() {
    let system = System::open("srk-x4").unwrap();
    let image = picture(101, 43);
    let whole = run(&system, &image, TileSize::None);
    for side in [16, 64] {
        assert!(whole == run(&system, &image, TileSize::Side(side)), "tiles of {side} differ");
    }
}

/// A network that sees the whole map gets blended tiles that cover the picture to its edges.
#[test]
fn blended_tiles_cover_the_whole_picture() {
    let mut system = System::open("srk-x4").unwrap();
    let config = DualDomainUNetConfig { base: 8, ..Default::default() };
    system.config.model = ModelConfig::DualDomainUNet(config);
    system.network = system.config.model.build(1);
    let image = Image::from_u8(50, 30, Color::Rgb, vec![200; 50 * 30 * 3]).unwrap();
    for tile in [TileSize::None, TileSize::Side(16)] {
        let samples = run(&system, &image, tile);
        assert_eq!(samples.len(), 50 * 30 * 3 * SCALE * SCALE);
        // Windows that are zero at the edge would leave it black.
        let row = 50 * 3 * SCALE;
        let edges = [&samples[..row], &samples[samples.len() - row..]].concat();
        let mean = edges.iter().map(|&v| f64::from(v)).sum::<f64>() / edges.len() as f64;
        assert!(mean > 100.0, "{tile:?}: the edges have the mean {mean}");
    }
}
