//! Kernels that are no op of the registry, against the CPU: noise, samplers, embeddings, the optimizer.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use crate::common;

use std::sync::Arc;

use srk::engine::cuda::{Buffer, Gpu};
use srk::engine::device::{DType, Device};
use srk::engine::rng::{Purpose, Stream};
use srk::engine::tensor::Tensor;
use srk::ops::adam::{Adam, FusedAdam, Moved, Scalars, adam};
use srk::ops::clip_by_norm::{self, Measured};
use srk::ops::ema::ema;
use srk::ops::fourier_position::{Window, fourier_position_on};
use srk::ops::local_amplitude::local_amplitude;
use srk::ops::noise::{Noise, PixelNoise, integer, origins, pixel_noise};
use srk::ops::q_sample::q_sample;
use srk::ops::sampler_step::{Factors, StepFactors, sampler_step};
use srk::ops::time_embedding::TimeEmbedding;

const DTYPES: [(DType, f64); 3] = [(DType::F32, 1e-5), (DType::F16, 1e-3), (DType::BF16, 8e-3)];

/// `len` numbers in `[-1, 1)` that every element type holds.
fn numbers(stream: u64, len: usize) -> Vec<f32> {
    let mut random = Stream::new(1, Purpose::Test, stream).sequence();
    (0..len).map(|_| random.below(256) as f32 / 128.0 - 1.0).collect()
}

fn tensor(device: &Device, values: &[f32], shape: &[usize], dtype: DType) -> Tensor {
    Tensor::from_slice_on(device, values, shape).unwrap().cast(dtype).unwrap()
}

fn random(device: &Device, stream: u64, shape: &[usize], dtype: DType) -> Tensor {
    tensor(device, &numbers(stream, shape.iter().product()), shape, dtype)
}

/// Runs `work` on the CPU and on GPUs in all orders; they must agree with each other bit for bit, and with
/// the CPU up to the tolerance of the element type, relative to `1 + |value|`.
fn agree(work: impl Fn(&Device, DType) -> Vec<Tensor>) {
    let gpus = common::checked_gpus();
    let wanted = work(&Device::Cpu, DType::F32);
    for (dtype, tolerance) in DTYPES {
        let mut first: Option<Vec<Vec<f32>>> = None;
        for gpu in &gpus {
            gpu.poison(true);
            let got = work(&Device::from(gpu), dtype);
            assert_eq!(got.len(), wanted.len());
            for (i, (a, b)) in got.iter().zip(&wanted).enumerate() {
                assert_eq!(a.shape(), b.shape());
                let tolerance = if a.dtype() == DType::F32 { 1e-5 } else { tolerance };
                for (j, (a, b)) in
                    a.to_f64_vec().unwrap().iter().zip(b.to_f64_vec().unwrap()).enumerate()
                {
                    let error = (a - b).abs() / (1.0 + b.abs());
                    assert!(error <= tolerance, "{dtype:?}, tensor {i}, element {j}: {a} for {b}");
                }
            }
            let bits: Vec<Vec<f32>> = got.iter().map(|t| t.to_f32_vec().unwrap()).collect();
            assert_eq!(*first.get_or_insert_with(|| bits.clone()), bits, "{dtype:?}");
        }
    }
}

/// The CPU computes what 16 bits are compared with in single precision.
fn narrow(device: &Device, dtype: DType) -> DType {
    if *device == Device::Cpu { DType::F32 } else { dtype }
}

#[test]
fn time_embeddings() {
    let all = [
        (TimeEmbedding::SinCos, 6),
        (TimeEmbedding::CosSin, 64),
        (TimeEmbedding::Interleaved, 34),
        (TimeEmbedding::SinCosToEnd, 160),
        (TimeEmbedding::Raw, 1),
    ];
    agree(|device, dtype| {
        let t = Tensor::from_slice_on(device, &[0.0, 999.5, 0.25, 1000.0], &[4]).unwrap();
        let of = |(kind, dim): (TimeEmbedding, usize)| kind.of_tensor(&t, dim, dtype).unwrap();
        all.into_iter().map(of).collect()
    });
}

#[test]
fn positions() {
    let window = |top, left, height, width| Window { top, left, height, width };
    agree(|device, dtype| {
        let of = |size, window| fourier_position_on(device, size, window, dtype).unwrap();
        vec![
            of([5, 9], window(0, 0, 5, 9)),
            of([1, 1], window(0, 0, 1, 1)),
            of([4000, 5001], window(3990, 4990, 12, 20)),
        ]
    });
}

#[test]
fn amplitudes() {
    agree(|device, dtype| {
        let rough = random(device, 1, &[2, 20, 17, 3], dtype);
        let single = random(device, 2, &[1, 1, 8, 1], dtype);
        [rough, single].iter().map(|x| local_amplitude(x).unwrap()).collect()
    });
}

/// A ramp of one grey level of 255 over a picture: the variance is 1e-6 of the square of the mean.
#[test]
fn amplitudes_of_smooth_images_do_not_cancel() {
    let ramp: Vec<f32> = (0..30 * 30).map(|i| 0.8 + 0.008 * (i % 30) as f32 / 30.0).collect();
    let of = |device: &Device| {
        let x = Tensor::from_slice_on(device, &ramp, &[1, 30, 30, 1]).unwrap();
        local_amplitude(&x).unwrap().to_f64_vec().unwrap()
    };
    let (cpu, gpu) = (of(&Device::Cpu), of(&Device::from(&common::fast_gpu())));
    let error = cpu.iter().zip(gpu).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(error < 1e-5, "{error}");
}

/// Far from the origin, with a seed of 64 bits and a step that is added when the kernel runs.
#[test]
fn noise_is_that_of_the_cpu() {
    let stream = Stream::new(0xFEDC_BA98_7654_3210, Purpose::Sampling, u64::from(u32::MAX) - 1);
    agree(|device, dtype| {
        let places = origins(device, &[[0, 0], [100_000, 70_000]]).unwrap();
        let later = integer(device, 5).unwrap();
        let fill = |noise: PixelNoise, channels: usize| {
            let shape = [2, 9, 31, channels];
            let mut z = Tensor::empty_on(device, narrow(device, dtype), &shape).unwrap();
            pixel_noise(&noise, &mut z).unwrap();
            z
        };
        vec![
            fill(PixelNoise { stream, origins: Some(&places), later: None, period: None }, 3),
            fill(PixelNoise { stream, origins: None, later: Some(&later), period: None }, 3),
            fill(PixelNoise { stream, origins: None, later: Some(&later), period: None }, 1),
        ]
    });
}

/// Bit for bit, and among them the rare numbers of the Box-Muller transform: radii near 0 and the largest.
#[test]
fn a_million_normals_are_those_of_the_cpu() {
    let gpu = common::fast_gpu();
    let stream = Stream::new(3, Purpose::TrainingNoise, 2);
    let fill = |device: &Device| {
        let mut z = Tensor::empty_on(device, DType::F32, &[1, 600, 600, 3]).unwrap();
        pixel_noise(&PixelNoise { stream, origins: None, later: None, period: None }, &mut z)
            .unwrap();
        z.to_f64_vec().unwrap()
    };
    let (cpu, gpu) = (fill(&Device::Cpu), fill(&Device::from(&gpu)));
    let other = cpu.iter().zip(&gpu).position(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!(other.map(|i| (i, cpu[i], gpu[i])), None, "the first number of other bits");
}

fn steps() -> Vec<Factors> {
    let shift = Factors {
        x0_hat: [1.0, 0.0, 1.0],
        clamp_x0: true,
        next: Some([0.6, 0.4, 0.0, 0.3]),
        clamp_xt: false,
        input: 0.7,
        draw: 3,
    };
    let ddim = Factors {
        x0_hat: [-1.5, 1.8, 0.1],
        clamp_x0: false,
        next: Some([0.9, 0.2, -0.1, 0.0]),
        clamp_xt: true,
        input: 1.0,
        draw: 1,
    };
    vec![shift, ddim, Factors { next: None, ..shift }]
}

#[test]
fn sampler_steps() {
    for factors in steps() {
        for (given, channels) in [(false, 3), (true, 3), (false, 1), (true, 2)] {
            let shape = [2, 7, 13, channels];
            agree(|device, dtype| {
                let dtype = narrow(device, dtype);
                let output = random(device, 1, &shape, dtype);
                let y0 = random(device, 2, &shape, DType::F32);
                let mut x = random(device, 3, &shape, DType::F32);
                let z = random(device, 4, &shape, DType::F32);
                let places = origins(device, &[[5, 9], [0, 100]]).unwrap();
                let stream = Stream::new(11, Purpose::Sampling, 0);
                let noise = match given {
                    true => Noise::Given(&z),
                    false => Noise::Pixels(PixelNoise {
                        stream,
                        origins: Some(&places),
                        later: None,
                        period: None,
                    }),
                };
                let factors = StepFactors::new(device, factors).unwrap();
                let mut clean = Tensor::empty_as(&x, &shape).unwrap();
                let mut input = Tensor::empty_as(&output, &shape).unwrap();
                let wanted = (Some(&mut clean), Some(&mut input));
                sampler_step(&factors, [&output, &y0], &noise, &mut x, wanted.0, wanted.1).unwrap();
                let mut alone = random(device, 3, &shape, DType::F32);
                sampler_step(&factors, [&output, &y0], &noise, &mut alone, None, None).unwrap();
                assert_eq!(alone.to_f32_vec().unwrap(), x.to_f32_vec().unwrap());
                vec![x, clean, input]
            });
        }
    }
}

#[test]
fn a_recorded_step_follows_its_factors_and_keeps_nans() {
    for gpu in common::checked_gpus() {
        let device = Device::from(&gpu);
        let shape = [1, 3, 4, 3];
        let output = random(&device, 1, &shape, DType::F16);
        let mut values = numbers(2, 36);
        values[5] = f32::NAN;
        let y0 = Tensor::from_slice_on(&device, &values, &shape).unwrap();
        let state = random(&device, 3, &shape, DType::F32);
        let mut x = state.try_clone().unwrap();
        let places = origins(&device, &[[0, 0]]).unwrap();
        let stream = Stream::new(11, Purpose::Sampling, 0);
        let noise =
            Noise::Pixels(PixelNoise { stream, origins: Some(&places), later: None, period: None });
        let all = steps();
        let mut factors = StepFactors::new(&device, all[0]).unwrap();
        let (graph, ()) = gpu
            .capture(|| sampler_step(&factors, [&output, &y0], &noise, &mut x, None, None))
            .unwrap();
        for step in all {
            factors.copy_from(&StepFactors::new(&device, step).unwrap()).unwrap();
            let mut again = x.try_clone().unwrap();
            sampler_step(&factors, [&output, &y0], &noise, &mut again, None, None).unwrap();
            // SAFETY: all that the recording uses is alive.
            unsafe { graph.replay().unwrap() };
            let (a, b) = (x.to_f32_vec().unwrap(), again.to_f32_vec().unwrap());
            let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&a), bits(&b));
            assert_eq!(a.iter().filter(|v| v.is_nan()).count(), 1);
        }
    }
}

#[test]
fn states_and_targets_of_training() {
    let shape = [3, 6, 11, 3];
    for given in [false, true] {
        agree(|device, dtype| {
            let dtype = narrow(device, dtype);
            let of = |stream| random(device, stream, &shape, DType::F32);
            let (x0, y0, z) = (of(1), of(2), of(3));
            let k = [0.9, 0.1, 0.2, 0.5, 0.5, 1.5, 0.0, 1.0, 2.0];
            let k = Tensor::from_slice_on(device, &k, &[3, 3]).unwrap();
            let stream = Stream::new(5, Purpose::TrainingNoise, 77);
            let noise = match given {
                true => Noise::Given(&z),
                false => {
                    Noise::Pixels(PixelNoise { stream, origins: None, later: None, period: None })
                }
            };
            let empty = || Tensor::empty_on(device, dtype, &shape).unwrap();
            let (mut state, mut target, mut alone) = (empty(), empty(), empty());
            let of_target = Some((&mut target, [-1.0, 1.0, 0.5]));
            q_sample(&k, [&x0, &y0], &noise, &mut state, of_target).unwrap();
            q_sample(&k, [&x0, &y0], &noise, &mut alone, None).unwrap();
            assert_eq!(alone.to_f32_vec().unwrap(), state.to_f32_vec().unwrap());
            vec![state, target]
        });
    }
}

const LENGTHS: [usize; 6] = [1, 7, 4096, 0, 5001, 64];
const BETAS: [f64; 2] = [0.9, 0.99];
const EPS: f64 = 1e-8;

/// The state of an optimizer on the CPU: values, moments, averages.
fn fresh() -> [Vec<Vec<f32>>; 4] {
    let of = |stream: u64, scale: f32| -> Vec<Vec<f32>> {
        let some = |(i, &len): (usize, &usize)| {
            numbers(stream + i as u64, len).iter().map(|v| v * scale).collect()
        };
        LENGTHS.iter().enumerate().map(some).collect()
    };
    let second = of(300, 0.1).iter().map(|v| v.iter().map(|v| v.abs()).collect()).collect();
    [of(100, 1.0), of(200, 0.1), second, of(400, 1.0)]
}

fn gradient(step: u64, tensor: usize) -> Option<Vec<f32>> {
    (tensor != 1).then(|| numbers(1000 * step + tensor as u64, LENGTHS[tensor]))
}

fn constants(step: u64) -> Adam {
    Adam { lr: 0.01 / step as f64, betas: BETAS, eps: EPS, decay: 0.1, step, scale: 0.25 }
}

const LIMIT: f64 = 3.0;
const KEEP: f64 = 0.95;

fn on_cpu(steps: u64) -> ([Vec<Vec<f32>>; 4], f64) {
    let [mut values, mut first, mut second, mut average] = fresh();
    let mut norm = 0.0;
    for step in 1..=steps {
        let gradients: Vec<_> = (0..LENGTHS.len()).map(|i| gradient(step, i)).collect();
        let c = constants(step);
        norm = c.scale * clip_by_norm::norm(gradients.iter().flatten().map(Vec::as_slice));
        let clipped = Adam { scale: c.scale * clip_by_norm::factor(norm, LIMIT), ..c };
        for (i, gradient) in gradients.iter().enumerate() {
            if let Some(g) = gradient {
                adam(&mut values[i], &mut first[i], &mut second[i], g, &clipped);
            }
            ema(&mut average[i], &values[i], KEEP);
        }
    }
    ([values, first, second, average], norm)
}

struct OnGpu {
    fused: FusedAdam,
    scalars: Scalars,
    measured: Measured,
    state: [Vec<Arc<Tensor>>; 5],
    device: Device,
    dtype: DType,
}

impl OnGpu {
    fn new(gpu: &Gpu, dtype: DType) -> Self {
        let device = Device::from(gpu);
        let upload = |list: &Vec<Vec<f32>>, dtype| -> Vec<Arc<Tensor>> {
            let one = |v: &Vec<f32>| Arc::new(tensor(&device, v, &[v.len()], dtype));
            list.iter().map(one).collect()
        };
        let all = fresh();
        let copies = upload(&all[0], dtype);
        let [values, first, second, average] = all.map(|list| upload(&list, DType::F32));
        let moved = Moved {
            values: &values,
            first: &first,
            second: &second,
            average: &average,
            copies: (dtype != DType::F32).then_some(&copies[..]),
        };
        let fused = FusedAdam::new(gpu, moved, dtype, BETAS, EPS).unwrap();
        let state = [values, first, second, average, copies];
        let (scalars, measured) = (Scalars::new(gpu).unwrap(), Measured::new(gpu).unwrap());
        Self { fused, scalars, measured, state, device, dtype }
    }

    fn gradients(&self, step: u64) -> Vec<Option<Tensor>> {
        let one = |i| gradient(step, i).map(|v| tensor(&self.device, &v, &[v.len()], self.dtype));
        (0..LENGTHS.len()).map(one).collect()
    }

    fn write(&mut self, step: u64) {
        self.scalars.write(&constants(step), LIMIT, KEEP).unwrap();
    }

    fn set(&mut self, gradients: &[Option<Tensor>]) {
        let gradients: Vec<_> = gradients.iter().map(Option::as_ref).collect();
        self.fused.set_gradients(&gradients).unwrap();
    }

    fn launch(&mut self) {
        clip_by_norm::clip(self.fused.tables(), &mut self.scalars, &self.measured).unwrap();
        self.fused.step(&self.scalars).unwrap();
    }

    fn bits(&self) -> Vec<Vec<f32>> {
        self.state.iter().flatten().map(|t| t.to_f32_vec().unwrap()).collect()
    }

    fn compare(&self, wanted: &[Vec<Vec<f32>>; 4]) {
        for (list, wanted) in self.state.iter().zip(wanted) {
            for (got, wanted) in list.iter().zip(wanted) {
                for (a, b) in got.to_f32_vec().unwrap().iter().zip(wanted) {
                    assert!((a - b).abs() <= 1e-6 * (1.0 + b.abs()), "{a} for {b}");
                }
            }
        }
        if self.dtype != DType::F32 {
            for (copy, value) in self.state[4].iter().zip(&self.state[0]) {
                let rounded = value.cast(self.dtype).unwrap().to_f32_vec().unwrap();
                assert_eq!(copy.to_f32_vec().unwrap(), rounded);
            }
        }
    }
}

#[test]
fn one_launch_moves_all_parameters_as_the_cpu_does() {
    let (wanted, norm) = on_cpu(3);
    for (dtype, _) in DTYPES {
        let mut first = None;
        for gpu in common::checked_gpus() {
            let mut run = OnGpu::new(&gpu, dtype);
            for step in 1..=3 {
                let gradients = run.gradients(step);
                run.set(&gradients);
                run.write(step);
                run.launch();
            }
            run.compare(&wanted);
            let did = run.scalars.read().unwrap();
            let factor = 0.25 * clip_by_norm::factor(norm, LIMIT);
            assert!((f64::from(did.norm) - norm).abs() < 1e-5 * norm && !did.skipped);
            assert!((f64::from(did.factor) - factor).abs() < 1e-5 * factor);
            assert_eq!(*first.get_or_insert_with(|| run.bits()), run.bits());
        }
    }
}

/// A loss that is not finite, and everything after it in a step, moves nothing; what is measured are sums over batches.
#[test]
fn a_loss_that_is_not_finite_holds_the_step() {
    for gpu in common::checked_gpus() {
        let number = |v: f32| Tensor::from_slice_on(&Device::from(&gpu), &[v], &[1]).unwrap();
        let mut run = OnGpu::new(&gpu, DType::F32);
        let gradients = run.gradients(1);
        run.set(&gradients);
        run.write(1);
        let before = run.bits();
        let mut step = |batches: &[[f32; 2]], releases: bool| {
            if releases {
                run.measured.release().unwrap();
            }
            run.measured.clear().unwrap();
            batches.iter().for_each(|b| run.measured.add(&b.map(number)).unwrap());
            run.launch();
            let (sums, did) = (run.measured.read_later().unwrap(), run.scalars.read().unwrap());
            (sums.wait().unwrap()[..2].to_vec(), did.skipped, run.bits() == before)
        };
        for loss in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (sums, skipped, same) = step(&[[1.0, 2.0], [loss, 3.0]], true);
            assert!(!sums[0].is_finite() && skipped && same, "a loss of {loss}");
            assert_eq!(sums[1], 5.0);
        }
        // Another descent of the same step, all of it finite.
        assert_eq!(step(&[[1.0, 2.0]], false), (vec![1.0, 2.0], true, true));
        // What is not the loss holds nothing.
        let (_, skipped, same) = step(&[[1.5, f32::NAN], [0.25, 1.0]], true);
        assert!(!skipped && !same);
    }
}

#[test]
fn a_recorded_step_is_replayed_with_new_numbers() {
    let (wanted, _) = on_cpu(3);
    for gpu in common::checked_gpus() {
        let mut run = OnGpu::new(&gpu, DType::BF16);
        let mut kept = run.gradients(1);
        // As in training: the gradients are known when the recording ends.
        let (graph, ()) = gpu
            .capture(|| {
                run.launch();
                Ok(())
            })
            .unwrap();
        run.set(&kept);
        for step in 1..=3 {
            let new = run.gradients(step);
            for (to, from) in kept.iter_mut().zip(&new) {
                if let (Some(to), Some(from)) = (to, from) {
                    // The graph knows it by its address.
                    to.copy_from(from).unwrap();
                }
            }
            run.write(step);
            // SAFETY: all that the recording uses is alive.
            unsafe { graph.replay().unwrap() };
        }
        run.compare(&wanted);
    }
}

#[test]
fn a_norm_that_is_not_finite_changes_nothing() {
    for gpu in common::checked_gpus() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut run = OnGpu::new(&gpu, DType::F16);
            let before = run.bits();
            let mut gradients = run.gradients(1);
            let mut values = gradient(1, 4).unwrap();
            values[4999] = bad;
            gradients[4] = Some(tensor(&run.device, &values, &[5001], DType::F16));
            run.set(&gradients);
            run.write(1);
            run.launch();
            assert!(run.scalars.read().unwrap().skipped);
            assert_eq!(run.bits(), before);
        }
    }
}

/// What goes away while a graph is recorded may be what it uses: nobody else gets it before the graph is gone.
#[test]
fn memory_let_go_while_recording_belongs_to_the_graph() {
    let gpu = common::emulated::gpu_that_recycles();
    let mut held = Some(gpu.allocate(4096).unwrap());
    let at = held.as_ref().map(Buffer::pointer);
    let (graph, ()) = gpu
        .capture(|| {
            held = None;
            Ok(())
        })
        .unwrap();
    let other = gpu.allocate(4096).unwrap();
    assert_ne!(Some(other.pointer()), at);
    drop(graph);
    assert_eq!(Some(gpu.allocate(4096).unwrap().pointer()), at);
}

/// Two recordings work in the same memory; what each gave stays until it is replayed again.
#[test]
fn graphs_recorded_beside_each_other_share_memory() {
    let gpu = common::fast_gpu();
    let device = Device::from(&gpu);
    let inputs = [1, 2].map(|stream| random(&device, stream, &[5000], DType::F32));
    let work = |x: &Tensor| {
        // The copy in between goes back before the recording ends.
        let mut sum = x.try_clone()?.try_clone()?;
        sum.add_assign(x)?;
        Ok(sum)
    };
    let reserved = || gpu.usage().reserved;
    let before = reserved();
    let (one, first) = gpu.capture(|| work(&inputs[0])).unwrap();
    let alone = reserved() - before;
    let (two, second) = gpu.capture_beside(Some(&one), || work(&inputs[1])).unwrap();
    let beside = reserved() - before - alone;
    assert_eq!([alone, beside], [2 * first.bytes(), first.bytes()]);
    for _ in 0..2 {
        // SAFETY: inputs and what was recorded are alive.
        unsafe {
            two.replay().unwrap();
            one.replay().unwrap();
        }
        for (x, y) in inputs.iter().zip([&first, &second]) {
            let twice: Vec<f32> = x.to_f32_vec().unwrap().iter().map(|v| 2.0 * v).collect();
            assert_eq!(y.to_f32_vec().unwrap(), twice);
        }
    }
}
