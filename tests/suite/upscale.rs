//! What exact tiling rests on: how far the default network sees, and tiles that equal the whole.
#![allow(clippy::unwrap_used)]
use crate::common;

use srk::diffusion::system::System;
use srk::engine::cuda::Gpu;
use srk::engine::device::{DType, Device};
use srk::engine::rng::{Purpose, Stream};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::imaging::tiles::Tile;
use srk::imaging::{Color, Image, Rect, Samples};
use srk::models::attentive_grid::AttentiveGridConfig;
use srk::models::dual_domain_grid::DualDomainGridConfig;
use srk::models::dual_domain_unet::DualDomainUNetConfig;
use srk::models::{ModelConfig, Network};
use srk::upscale::{
    Report, Seen, Settings, TileSize, Upscaler, Watch, plan, upscale, upscale_watched,
};

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

fn on_cpu(system: System) -> Upscaler {
    Upscaler::new(system, &Device::Cpu, DType::F32).unwrap()
}

fn run(system: &Upscaler, image: &Image, tile: TileSize) -> Vec<u8> {
    let settings = Settings { steps: Some(2), seed: 9, tile, memory: 1 << 30 };
    let plan = plan(system, image.width, image.height, &settings).unwrap();
    let (output, _) = upscale(system, image, &plan, 9, &mut |_, _| Ok(())).unwrap();
    let Samples::U8(samples) = output.samples else { panic!("8 bits stay 8 bits") };
    samples
}

#[test]
fn tiles_of_any_size_equal_the_whole() {
    let system = on_cpu(System::open("srk-x4").unwrap());
    let image = picture(101, 43);
    let whole = run(&system, &image, TileSize::None);
    for side in [16, 64] {
        assert!(whole == run(&system, &image, TileSize::Side(side)), "tiles of {side} differ");
    }
}

/// The default network with weights of which none is zero.
fn rolling_system() -> Upscaler {
    let mut system = System::open("srk-x4").unwrap();
    let config =
        AttentiveGridConfig { channels: 16, blocks: 2, limited: true, ..Default::default() };
    system.config.model = ModelConfig::AttentiveGrid(config);
    system.network = system.config.model.build(1);
    for (i, parameter) in system.network.parameters().iter().enumerate() {
        let shape = parameter.value().shape().to_vec();
        let values: Vec<f32> = random(&shape, 100 + i as u64).iter().map(|v| 0.1 * v).collect();
        parameter.set(Tensor::from_vec(values, &shape));
    }
    // Limits that some of the maps pass.
    for limits in system.network.buffers() {
        let end = |i: usize| if i < 16 { -0.05 } else { 0.01 * (i % 16) as f32 };
        limits.set(Tensor::from_vec((0..32).map(end).collect(), &[2, 16]));
    }
    on_cpu(system)
}

/// Strokes of one pixel, black on white without a shade between: harder edges than any photograph's.
fn strokes(width: usize, height: usize) -> Image {
    let ink = |i: usize| {
        let (x, y) = (i % width, i / width);
        (x + y).is_multiple_of(7) || (x + 3 * y).is_multiple_of(11) || y % 9 == 4 && x % 5 < 3
    };
    let samples = (0..width * height).flat_map(|i| [if ink(i) { 0 } else { 255 }; 3]).collect();
    Image::from_u8(width, height, Color::Rgb, samples).unwrap()
}

/// The model for clean pictures learnt from photographs: its maps stay within what those need, and letters and lines
/// become no noise.
#[test]
fn hard_edges_stay_what_they_are() {
    let (system, image) = (on_cpu(System::open("srk-x4").unwrap()), strokes(48, 40));
    let low = image.samples.as_u8().unwrap();
    for steps in [1, 2] {
        let settings =
            Settings { steps: Some(steps), seed: 9, tile: TileSize::None, memory: 1 << 30 };
        let plan = plan(&system, 48, 40, &settings).unwrap();
        let (output, _) = upscale(&system, &image, &plan, 9, &mut |_, _| Ok(())).unwrap();
        let high = output.samples.as_u8().unwrap();
        let means: Vec<f64> = (0..48 * 40)
            .map(|i| {
                let (x, y) = (i % 48 * 4, i / 48 * 4);
                let of_row = |r: usize| high[((y + r) * 192 + x) * 3..][..12].iter();
                (0..4).flat_map(of_row).map(|&v| f64::from(v)).sum::<f64>() / 48.0
            })
            .collect();
        // In its own size it is the strokes again; without limits it was off by 121 and 42.
        let off = means.iter().zip(low.iter().step_by(3)).map(|(m, &l)| (m - f64::from(l)).abs());
        let mean = off.sum::<f64>() / means.len() as f64;
        assert!(mean < 32.0, "{steps} steps: pixels are off by {mean} on average");
    }
}

/// Later calls draw grain, as photographs have it; a page or a logo has none.
#[test]
fn areas_of_one_colour_stay_so_in_tiles_too() {
    let system = on_cpu(System::open("srk-x4").unwrap());
    let mut image = Image::new(60, 56, Color::Rgb, srk::imaging::Depth::Eight);
    let Samples::U8(low) = &mut image.samples else { unreachable!() };
    low.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&[200, 30, 60]));
    let strokes = strokes(24, 20);
    let letters = strokes.samples.as_u8().unwrap();
    for (y, line) in letters.chunks_exact(3 * 24).enumerate() {
        low[((y + 18) * 60 + 18) * 3..][..3 * 24].copy_from_slice(line);
    }
    let made = |tile: TileSize| {
        let settings = Settings { steps: Some(2), seed: 9, tile, memory: 1 << 30 };
        let plan = plan(&system, 60, 56, &settings).unwrap();
        upscale(&system, &image, &plan, 9, &mut |_, _| Ok(())).unwrap().0
    };
    let whole = made(TileSize::None);
    let (mut flat, mut others) = (0, 0);
    for (i, pixel) in whole.samples.as_u8().unwrap().chunks_exact(3).enumerate() {
        let (x, y) = (i % 240 / 4, i / 240 / 4);
        // Two pixels beside the letters are what they were seen to be.
        let area = !(16..44).contains(&x) || !(16..40).contains(&y);
        assert!(!area || pixel == [200, 30, 60], "{x}, {y}: {pixel:?}");
        if area { flat += 1 } else { others += usize::from(pixel != [200, 30, 60]) }
    }
    assert!(flat > 40_000 && others > 10_000, "{flat} {others}");
    assert!(whole == made(TileSize::Side(32)));
}

/// Photographs come nowhere near the limits.
#[test]
fn limits_change_no_photograph() {
    let image = Image::read("examples/parrots.png").unwrap();
    let image = image.crop(Rect::new(0, 0, 64, 48)).unwrap();
    let limited = on_cpu(System::open("srk-x4").unwrap());
    let mut system = System::open("srk-x4").unwrap();
    assert_eq!(system.network.buffers().len(), 12);
    for limits in system.network.buffers() {
        let end = |i: usize| if i < 32 { -6e4f32 } else { 6e4 };
        limits.set(Tensor::from_vec((0..64).map(end).collect(), &[2, 32]));
    }
    system.name = "without limits".into();
    let free = on_cpu(system);
    assert!(run(&limited, &image, TileSize::None) == run(&free, &image, TileSize::None));
}

/// Rows of every height, and heights that no block divides.
#[test]
fn pictures_that_roll_through_the_network_equal_the_whole() {
    let system = rolling_system();
    for (height, steps) in [(203, 1), (64, 2), (130, 2), (101, 4), (17, 3)] {
        let image = picture(37, height);
        let made = |tile: TileSize, memory: u64| {
            let settings = Settings { steps: Some(steps), seed: 9, tile, memory };
            let plan = plan(&system, 37, height, &settings).unwrap();
            let (output, _) = upscale(&system, &image, &plan, 9, &mut |_, _| Ok(())).unwrap();
            (plan, output)
        };
        let whole = made(TileSize::None, 1 << 30).1;
        // What passes, and rows as they were seen until they are enlarged.
        let memory = |rows: usize| {
            let network = &system.system().network;
            let kept = 12 * 37 * (network.geometry().receptive_field.unwrap() + 2 * rows);
            network.rolling_bytes(37, rows, steps).unwrap() + kept as u64
        };
        for rows in [8, 12, 20] {
            let memory = memory(rows);
            let (plan, output) = made(TileSize::Auto, memory);
            assert_eq!(plan.rolled.is_some(), height > rows, "{height} rows");
            assert!(output.samples == whole.samples, "{height} rows, {rows} at a time");
        }
        // In single blocks, as wide pictures go.
        let memory = memory(8);
        let settings = Settings { steps: Some(steps), seed: 9, tile: TileSize::Auto, memory };
        let mut plan = plan(&system, 37, height, &settings).unwrap();
        plan.rolled = Some(4);
        let rows = |y: usize| Rect::new(0, y, 37, 4.min(height - y));
        plan.tiles =
            (0..height).step_by(4).map(rows).map(|core| Tile { core, padded: core }).collect();
        let (output, _) = upscale(&system, &image, &plan, 9, &mut |_, _| Ok(())).unwrap();
        assert!(output.samples == whole.samples, "{height} rows, 4 at a time");
    }
}

/// A network that sees the whole map gets blended tiles that cover the picture to its edges.
#[test]
fn blended_tiles_cover_the_whole_picture() {
    let mut system = System::open("srk-x4").unwrap();
    let config = DualDomainUNetConfig { base: 8, ..Default::default() };
    system.config.model = ModelConfig::DualDomainUNet(config);
    system.network = system.config.model.build(1);
    let system = on_cpu(system);
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

/// A small system of the default's kind, which an emulated GPU runs in seconds.
fn small_system() -> System {
    let mut system = System::open("srk-x4").unwrap();
    let config = DualDomainGridConfig {
        blocks: 1,
        channels: 16,
        frequency_channels: 8,
        wavelet_channels: 8,
        time_dim: 8,
        ..Default::default()
    };
    system.config.model = ModelConfig::DualDomainGrid(config);
    system.network = system.config.model.build(1);
    system
}

/// Samples, and what happened on the way, with tiles of `side` and room for `memory` bytes of them.
fn on_gpu(gpu: &Gpu, dtype: DType, image: &Image, side: usize, memory: u64) -> (Vec<u8>, Report) {
    let upscaler = Upscaler::new(small_system(), &Device::Cuda(gpu.clone()), dtype).unwrap();
    let tile = if side == 0 { TileSize::None } else { TileSize::Side(side) };
    let settings = Settings { steps: Some(2), seed: 9, tile, memory };
    let plan = plan(&upscaler, image.width, image.height, &settings).unwrap();
    let (output, report) = upscale(&upscaler, image, &plan, 9, &mut |_, _| Ok(())).unwrap();
    let Samples::U8(samples) = output.samples else { panic!("8 bits stay 8 bits") };
    (samples, report)
}

fn worst_difference(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// The walk on a GPU, where calls after the second of a kind are replays, and watched, where none is.
#[test]
fn a_replayed_step_is_the_step_itself() {
    let image = picture(40, 22);
    let walk = |device: Device, dtype: DType, watched: bool| {
        let upscaler = Upscaler::new(small_system(), &device, dtype).unwrap();
        let tile = TileSize::Side(16);
        let settings = Settings { steps: Some(4), seed: 9, tile, memory: 1 };
        let plan = plan(&upscaler, image.width, image.height, &settings).unwrap();
        let mut seen = 0;
        let mut watch = |_: &Seen<'_>| {
            seen += 1;
            Ok(())
        };
        let watch: Option<&mut Watch<'_>> = if watched { Some(&mut watch) } else { None };
        let (output, _) =
            upscale_watched(&upscaler, &image, &plan, 9, &mut |_, _| Ok(()), watch).unwrap();
        let Samples::U8(samples) = output.samples else { panic!("8 bits stay 8 bits") };
        assert_eq!(seen > 0, watched);
        samples
    };
    for dtype in [DType::F32, DType::F16] {
        let [replayed, stepped] =
            [false, true].map(|watched| walk(Device::Cuda(common::fast_gpu()), dtype, watched));
        assert!(replayed == stepped, "{dtype:?}");
        let cpu = walk(Device::Cpu, DType::F32, false);
        assert!(worst_difference(&cpu, &replayed) <= if dtype == DType::F32 { 1 } else { 4 });
    }
}

/// Tiles one by one, in batches, and replayed from a recording; in f32 within rounding of the CPU.
#[test]
fn a_gpu_upscales_as_the_cpu_does() {
    let image = picture(90, 22);
    let cpu = run(&on_cpu(small_system()), &image, TileSize::None);
    let gpu = common::fast_gpu();
    let (whole, _) = on_gpu(&gpu, DType::F32, &image, 0, 1 << 30);
    assert!(worst_difference(&cpu, &whole) <= 1, "f32 differs from the CPU");
    let (single, _) = on_gpu(&gpu, DType::F32, &image, 16, 1);
    assert!(whole == single, "tiles one by one differ from the whole");
    let (batched, _) = on_gpu(&gpu, DType::F32, &image, 16, 1 << 30);
    assert!(whole == batched, "batches of tiles differ from the whole");
    let (half, report) = on_gpu(&gpu, DType::F16, &image, 0, 1 << 30);
    assert!(worst_difference(&cpu, &half) <= 3, "f16 differs from the CPU");
    assert_eq!(report, Report::default());
}

/// A plan that promises more than the device has: tiles are halved until they fit, and nothing changes.
#[test]
fn a_full_gpu_gets_smaller_tiles() {
    let image = picture(300, 22);
    let (whole, _) = on_gpu(&common::fast_gpu(), DType::F32, &image, 0, 1 << 30);
    let small = common::emulated::gpu_of(3 << 20);
    let (halved, report) = on_gpu(&small, DType::F32, &image, 0, 1 << 30);
    assert!(report.halved > 0, "3 MiB were enough");
    assert!(whole == halved, "smaller tiles gave another picture");
}

/// What `small_system` makes of a picture with parameters that `change` gives: on the CPU, and on a GPU in f16.
fn in_both(change: impl Fn(&str, &mut [f32])) -> (Vec<u8>, (Vec<u8>, Report)) {
    let image = picture(24, 16);
    let mut system = small_system();
    for p in system.network.parameters() {
        let mut values = p.value().cpu::<f32>().unwrap().to_vec();
        change(p.name(), &mut values);
        p.set(Tensor::from_vec(values, p.value().shape()));
    }
    system.name = "overflowing".into();
    let settings = Settings { steps: Some(1), seed: 9, tile: TileSize::None, memory: 1 << 30 };
    let run = |device: Device, dtype: DType| {
        let again = system.on(&Device::Cpu, DType::F32).unwrap();
        let upscaler = Upscaler::new(again, &device, dtype).unwrap();
        let plan = plan(&upscaler, 24, 16, &settings).unwrap();
        let (output, report) = upscale(&upscaler, &image, &plan, 9, &mut |_, _| Ok(())).unwrap();
        let Samples::U8(samples) = output.samples else { panic!("8 bits stay 8 bits") };
        (samples, report)
    };
    (run(Device::Cpu, DType::F32).0, run(Device::Cuda(common::fast_gpu()), DType::F16))
}

/// Features beyond the range of f16: the tiles are computed again in f32.
#[test]
fn tiles_that_overflow_are_computed_again() {
    let (cpu, (gpu, report)) = in_both(|name, values| match name {
        "body.weight" => values.iter_mut().for_each(|v| *v *= 3e5),
        "tail.weight" => values.iter_mut().for_each(|v| *v /= 3e5),
        _ => {}
    });
    assert_eq!(report, Report { redone: 1, halved: 0 });
    assert!(worst_difference(&cpu, &gpu) <= 1);
}

/// Those that are infinite, and no NaN, too: the bounds of pixels do not hide them.
#[test]
fn infinite_tiles_are_computed_again() {
    let (cpu, (gpu, report)) = in_both(|name, values| match name {
        "body.bias" => values.fill(7e4),
        "tail.weight" => values.fill(6e-8),
        _ => {}
    });
    assert_eq!(report, Report { redone: 1, halved: 0 });
    assert!(worst_difference(&cpu, &gpu) <= 1);
}
