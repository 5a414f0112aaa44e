//! Norms whose statistics the convolution before them has found, and which the one behind them applies as it reads.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use crate::common;

use srk::engine::cuda::Gpu;
use srk::engine::device::{DType, Device};
use srk::engine::op_case::relative_l2;
use srk::engine::rng::{Purpose, Stream};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::ops::conv2d::{Activation, Conv2d, Measured, Norm, Then};
use srk::ops::group_norm::GroupNorm;

/// Images of 384 pixels: six entries each.
const MAP: [usize; 4] = [2, 16, 24, 16];
/// Blocks of 256 rows cover it, the last by half.
const LONG: [usize; 4] = [3, 16, 24, 16];
/// More than there are entries of 64 pixels for: those of 128.
const LARGE: [usize; 4] = [1, 64, 66, 16];
/// So few pixels, and so many channels, that the depth of the first convolution is shared.
const DEEP: [usize; 4] = [1, 8, 16, 128];

/// A convolution of a map, a norm of its output, and another convolution.
#[derive(Clone, Copy)]
struct Chain {
    map: [usize; 4],
    outputs: usize,
    groups: usize,
    silu: bool,
    /// Of the second convolution: taps across, outputs.
    behind: [usize; 2],
    /// Whether the second only picks its outputs of what it sees.
    picks: bool,
}

/// `len` numbers in `[-1, 1)` that every element type holds.
fn numbers(stream: u64, len: usize) -> Vec<f32> {
    let mut random = Stream::new(3, Purpose::Test, stream).sequence();
    (0..len).map(|_| random.below(256) as f32 / 128.0 - 1.0).collect()
}

/// Means that differ from one part of an image to the next, so that what is found of each part counts.
fn drifting([n, h, w, c]: [usize; 4]) -> Vec<f32> {
    let values = numbers(1, n * h * w * c).into_iter().enumerate();
    values.map(|(i, v)| v + [0.0, 2.0, -1.0, 0.5, 3.0][i / c / 64 % 5]).collect()
}

impl Chain {
    /// The output on the GPU, or the CPU in f32.
    fn run(self, device: &Device, dtype: DType) -> Tensor {
        let mut tape = Tape::inference();
        let mut given = |values: &[f32], shape: &[usize]| {
            let tensor = Tensor::from_slice_on(device, values, shape).unwrap();
            tape.input(tensor.cast(dtype).unwrap())
        };
        let (co, [k, last]) = (self.outputs, self.behind);
        let x = given(&drifting(self.map), &self.map);
        // The first rows are the same whatever the outputs.
        let [.., c] = self.map;
        let small: Vec<f32> = numbers(2, co * 9 * c).iter().map(|v| v / 8.0).collect();
        let first = given(&small, &[co, 3, 3, c]);
        let [gamma, beta] = [3, 4].map(|i| given(&numbers(i, co), &[co]));
        let mut second: Vec<f32> = numbers(5, last * k * k * co).iter().map(|v| v / 8.0).collect();
        if self.picks {
            second.fill(0.0);
            (0..last).for_each(|o| second[o * co + o] = 1.0);
        }
        let second = given(&second, &[last, k, k, co]);
        let op = GroupNorm { groups: self.groups, eps: 1e-5, silu: self.silu };
        let norm = Norm { gamma: &gamma, beta: &beta, op };
        let then = Then { activation: Activation::Leaky, slope: 0.5, ..Then::default() };
        let y = tape.conv2d_measured(&x, &first, Conv2d::same(3), then, Some(self.groups)).unwrap();
        let conv = Conv2d::same(k);
        let y = tape.conv2d_normed(&y, norm, &second, conv, Then::default(), None).unwrap();
        y.whole(&mut tape).unwrap().into_tensor().unwrap()
    }
}

/// The same bits on all GPUs.
fn bits(gpus: &[Gpu], chain: Chain, dtype: DType) -> Vec<f32> {
    let mut all = gpus.iter().map(|gpu| {
        gpu.poison(true);
        chain.run(&Device::from(gpu), dtype).to_f32_vec().unwrap()
    });
    let first = all.next().unwrap();
    assert!(all.all(|other| other == first), "{dtype:?}: bits depend on the order");
    first
}

#[test]
fn norms_between_convolutions_agree_with_the_cpu() {
    let gpus = common::checked_gpus();
    let chain = |map, outputs, groups, silu, behind| Chain {
        map,
        outputs,
        groups,
        silu,
        behind,
        picks: false,
    };
    let chains = [
        chain(MAP, 64, 4, true, [1, 24]),
        chain(MAP, 24, 3, true, [3, 8]),
        chain(MAP, 40, 10, false, [1, 40]),
        chain(MAP, 128, 2, false, [1, 72]),
        chain(LARGE, 24, 3, true, [1, 8]),
        chain(LARGE, 64, 4, true, [1, 8]),
        chain(LONG, 64, 4, true, [1, 8]),
        chain(DEEP, 128, 8, true, [1, 16]),
        chain(DEEP, 128, 4, false, [3, 8]),
    ];
    for chain in chains {
        let wanted = chain.run(&Device::Cpu, DType::F32).to_f64_vec().unwrap();
        // Three maps are rounded on the way.
        for (dtype, most) in [(DType::F16, 2e-3), (DType::BF16, 16e-3)] {
            let got: Vec<f64> = bits(&gpus, chain, dtype).into_iter().map(f64::from).collect();
            let error = relative_l2(&got, &wanted);
            let Chain { map, outputs, groups, behind, .. } = chain;
            assert!(
                error < most,
                "{map:?} to {outputs} in {groups}, {behind:?}, {dtype:?}: off by {error:.1e}"
            );
        }
    }
}

/// Blocks of 128, 64 and 32 columns, and of 256 rows, find the same of their channels.
#[test]
fn what_is_found_does_not_depend_on_the_blocks() {
    let gpu = [common::fast_gpu()];
    let picked = |map: [usize; 4], outputs: usize| {
        let groups = outputs / 16;
        let chain = Chain { map, outputs, groups, silu: true, behind: [1, 8], picks: true };
        bits(&gpu, chain, DType::F16)
    };
    for map in [MAP, LONG] {
        let wide = picked(map, 128);
        assert_eq!(wide, picked(map, 64));
        assert_eq!(wide, picked(map, 32));
    }
}

/// 264 outputs are too many to compute SiLU for each block of them: there a pass of its own does, with the same bits.
#[test]
fn a_map_that_is_normalised_as_it_is_read_is_the_one_that_is_written() {
    let gpu = [common::fast_gpu()];
    let seen = |last: usize| {
        let chain =
            Chain { map: MAP, outputs: 64, groups: 4, silu: true, behind: [1, last], picks: false };
        bits(&gpu, chain, DType::F16)
    };
    let (written, read) = (seen(264), seen(40));
    let first = written.chunks(264).flat_map(|pixel| pixel[..40].to_vec());
    assert_eq!(first.collect::<Vec<f32>>(), read);
}

/// Norms and convolutions of two maps where they lie, and of their concatenation: in blocks that hold a map and in those
/// that look at it first, of packs and of single channels, with a boundary within a group.
#[test]
fn two_maps_give_the_bits_of_their_concatenation() {
    let gpus = [common::fast_gpu(), common::checked_gpus().remove(0)];
    let cases = [([2, 16, 24], [24, 40], 4), ([1, 64, 66], [16, 8], 2), ([1, 8, 16], [128, 8], 1)];
    for (gpu, ([n, h, w], channels, groups)) in gpus.iter().flat_map(|gpu| cases.map(|c| (gpu, c)))
    {
        let device = Device::from(gpu);
        gpu.poison(true);
        for dtype in [DType::F16, DType::F32] {
            let mut tape = Tape::inference();
            let mut given = |stream, shape: &[usize]| {
                let values = numbers(stream, shape.iter().product());
                let tensor = Tensor::from_slice_on(&device, &values, shape).unwrap();
                tape.input(tensor.cast(dtype).unwrap())
            };
            let c = channels[0] + channels[1];
            let maps = [0, 1].map(|i| given(6 + i as u64, &[n, h, w, channels[i]]));
            let [gamma, beta] = [8, 9].map(|i| given(i, &[c]));
            let weights = [1, 3].map(|k| given(10, &[16, k, k, c]));
            let both = Measured::of_two(&mut tape, &maps[0], &maps[1]).unwrap();
            assert_eq!(both.maps().len(), 2);
            let whole = both.whole(&mut tape).unwrap();
            let op = GroupNorm { groups, eps: 1e-5, silu: true };
            let norm = Norm { gamma: &gamma, beta: &beta, op };
            for (k, w) in [1, 3].into_iter().zip(&weights) {
                let conv = Conv2d::same(k);
                let mut bits = |x: &Measured| {
                    let y = tape.conv2d_normed(x, norm, w, conv, Then::default(), None).unwrap();
                    let plain =
                        tape.conv2d_of_maps(&x.maps(), false, w, conv, Then::default()).unwrap();
                    let y = y.whole(&mut tape).unwrap();
                    [y, plain].map(|y| y.into_tensor().unwrap().to_f32_vec().unwrap())
                };
                assert_eq!(
                    bits(&both),
                    bits(&whole.clone().into()),
                    "{channels:?}, {k}, {dtype:?}"
                );
            }
        }
    }
}
