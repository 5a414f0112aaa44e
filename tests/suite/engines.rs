//! Convolutions by libraries: what cuDNN and cuBLASLt are told, and that their results are used.
//!
//! The libraries are made up: they do on the host, by the formulas of `Convolution` and `Product`,
//! what the real ones are asked to do. `SRK_CONV` is read from the environment, so each choice is
//! tried in a process of its own: this program with the ignored test below.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use crate::common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::emulated::{Emulated, Host, Machine, Work};
use common::training::{Place, go_on};
use cuda_emulation::{Schedule, Variant};
use half::{bf16, f16};
use srk::engine::cuda::{
    Convolution, Description, DevicePointer, Driver, Gpu, Launch, Libraries, Pass, Product, Replay,
    TensorMap,
};
use srk::engine::device::{DType, Device};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::error::{Error, Report, Result};
use srk::ops::conv2d::{Conv2d, Then};
use srk::training::checkpoint::Checkpoints;

/// Launches of convolutions by wgmma.
static BY_WGMMA: AtomicUsize = AtomicUsize::new(0);

/// The emulated GPU with libraries beside it.
#[derive(Debug)]
struct Equipped {
    gpu: Arc<Emulated>,
    libraries: MadeUp,
}

#[derive(Debug)]
struct MadeUp {
    gpu: Arc<Emulated>,
    calls: Arc<AtomicUsize>,
    missing: Option<&'static str>,
    /// Added to every result.
    error: f32,
}

impl Driver for Equipped {
    fn describe(&self) -> &Description {
        self.gpu.describe()
    }
    fn allocate(&self, bytes: usize) -> Result<DevicePointer> {
        self.gpu.allocate(bytes)
    }
    unsafe fn free(&self, at: DevicePointer) {
        // SAFETY: as asked of this function.
        unsafe { self.gpu.free(at) };
    }
    fn recycles(&self) -> bool {
        self.gpu.recycles()
    }
    fn memory(&self) -> Result<(usize, usize)> {
        self.gpu.memory()
    }
    unsafe fn upload(&self, to: DevicePointer, from: &[u8]) -> Result<()> {
        // SAFETY: as asked of this function.
        unsafe { self.gpu.upload(to, from) }
    }
    unsafe fn download(&self, from: DevicePointer, to: &mut [u8]) -> Result<()> {
        // SAFETY: as asked of this function.
        unsafe { self.gpu.download(from, to) }
    }
    unsafe fn copy(&self, to: DevicePointer, from: DevicePointer, bytes: usize) -> Result<()> {
        // SAFETY: as asked of this function.
        unsafe { self.gpu.copy(to, from, bytes) }
    }
    unsafe fn fill(&self, at: DevicePointer, byte: u8, bytes: usize) -> Result<()> {
        // SAFETY: as asked of this function.
        unsafe { self.gpu.fill(at, byte, bytes) }
    }
    fn has_tensor_maps(&self) -> bool {
        self.gpu.has_tensor_maps()
    }
    fn tensor_map(&self, map: &TensorMap) -> Result<[u64; 16]> {
        self.gpu.tensor_map(map)
    }
    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let wgmma = launch.kernel.name().starts_with("conv2d_wgmma");
        BY_WGMMA.fetch_add(wgmma.into(), Ordering::Relaxed);
        // SAFETY: as asked of this function.
        unsafe { self.gpu.launch(launch) }
    }
    fn synchronize(&self) -> Result<()> {
        self.gpu.synchronize()
    }
    fn begin_capture(&self) -> Result<()> {
        self.gpu.begin_capture()
    }
    fn end_capture(&self) -> Result<Box<dyn Replay>> {
        self.gpu.end_capture()
    }
    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        self.gpu.time(work)
    }
    fn libraries(&self) -> Option<&dyn Libraries> {
        Some(&self.libraries)
    }
}

impl MadeUp {
    /// Has the stream do `work` with what tensors hold, and write the result, with the error, to the last.
    fn issue(
        &self,
        dtype: DType,
        tensors: [(DevicePointer, usize); 3],
        work: impl Fn([Vec<f32>; 2]) -> Vec<f32> + Send + Sync + 'static,
    ) -> Result<()> {
        let (calls, error) = (Arc::clone(&self.calls), self.error);
        let [inputs @ .., (to, _)] = tensors;
        let host = move |machine: &Machine| {
            calls.fetch_add(1, Ordering::Relaxed);
            let [a, b] = inputs.map(|(at, n)| read(machine, at, dtype, n));
            let values: Vec<f32> = work([a?, b?]).iter().map(|v| v + error).collect();
            match dtype {
                DType::F32 => machine.write(to, bytemuck::cast_slice(&values)),
                _ => {
                    let bits: Vec<u16> = values.into_iter().map(|v| narrow(dtype, v)).collect();
                    machine.write(to, bytemuck::cast_slice(&bits))
                }
            }
        };
        self.gpu.issue(Work::Host(Host(Arc::new(host))))
    }
}

fn read(machine: &Machine, at: DevicePointer, dtype: DType, n: usize) -> Result<Vec<f32>> {
    let mut bytes = vec![0u8; n * dtype.size()];
    machine.read(at, &mut bytes)?;
    Ok(match dtype {
        DType::F32 => bytemuck::pod_collect_to_vec(&bytes),
        _ => {
            let bits: Vec<u16> = bytemuck::pod_collect_to_vec(&bytes);
            bits.into_iter().map(|b| widen(dtype, b)).collect()
        }
    })
}

fn widen(dtype: DType, bits: u16) -> f32 {
    match dtype {
        DType::F16 => f16::from_bits(bits).to_f32(),
        _ => bf16::from_bits(bits).to_f32(),
    }
}

fn narrow(dtype: DType, v: f32) -> u16 {
    match dtype {
        DType::F16 => f16::from_f32(v).to_bits(),
        _ => bf16::from_f32(v).to_bits(),
    }
}

impl Libraries for MadeUp {
    fn versions(&self) -> Vec<(&'static str, String)> {
        let all = [("cudnn", "9.0.0".to_owned()), ("cublas", "13.0.0".to_owned())];
        all.into_iter().filter(|(name, _)| Some(*name) != self.missing).collect()
    }

    fn why_not(&self, name: &str) -> String {
        format!("{name} is made to be missing")
    }

    fn plans(&self, _: &Convolution) -> usize {
        if self.missing == Some("cudnn") { 0 } else { 2 }
    }

    unsafe fn convolve(
        &self,
        p: &Convolution,
        plan: usize,
        [x, w, y]: [DevicePointer; 3],
    ) -> Result<()> {
        if plan >= 2 {
            return Err(Error::Device(Report::new("no such plan", plan)));
        }
        let ([n, height, width, ci], [out_height, out_width]) = (p.input, p.output_size());
        let x = (x, n * height * width * ci);
        let w = (w, p.outputs * p.kernel * p.kernel * ci);
        let y = (y, n * out_height * out_width * p.outputs);
        let tensors = match p.pass {
            Pass::Forward => [x, w, y],
            Pass::InputGradient => [y, w, x],
            Pass::WeightGradient => [y, x, w],
        };
        let (p, len) = (*p, tensors[2].1);
        self.issue(p.dtype, tensors, move |[a, b]| {
            let mut sums = vec![0.0; len];
            each_product(&p, |ix, iw, iy| match p.pass {
                Pass::Forward => sums[iy] += a[ix] * b[iw],
                Pass::InputGradient => sums[ix] += a[iy] * b[iw],
                Pass::WeightGradient => sums[iw] += a[iy] * b[ix],
            });
            sums
        })
    }

    fn multiplies(&self, _: &Product) -> bool {
        self.missing != Some("cublas")
    }

    unsafe fn multiply(&self, p: &Product, [a, b, c]: [DevicePointer; 3]) -> Result<()> {
        assert_eq!(p.batch, 1);
        let p = *p;
        let sizes = [p.rows * p.inner, p.inner * p.columns, p.rows * p.columns];
        let tensors = [(a, sizes[0]), (b, sizes[1]), (c, sizes[2])];
        self.issue(p.dtype, tensors, move |[a, b]| {
            let at = |row, column, rows, columns, transposed| match transposed {
                true => column * rows + row,
                false => row * columns + column,
            };
            let mut values = vec![0.0; p.rows * p.columns];
            for (i, value) in values.iter_mut().enumerate() {
                let (row, column) = (i / p.columns, i % p.columns);
                *value = (0..p.inner)
                    .map(|k| {
                        a[at(row, k, p.rows, p.inner, p.transposed[0])]
                            * b[at(k, column, p.inner, p.columns, p.transposed[1])]
                    })
                    .sum();
            }
            values
        })
    }
}

/// Calls `f` with the indices of x, w and y in every product of the convolution.
fn each_product(p: &Convolution, mut f: impl FnMut(usize, usize, usize)) {
    let ([n, height, width, ci], [out_height, out_width]) = (p.input, p.output_size());
    let inside = |i: usize, tap: usize, size: usize| {
        (i * p.stride + tap).checked_sub(p.pad).filter(|&at| at < size)
    };
    for (image, i, j) in grid(n, out_height, out_width) {
        for (o, u, v) in grid(p.outputs, p.kernel, p.kernel) {
            let (Some(r), Some(s)) = (inside(i, u, height), inside(j, v, width)) else { continue };
            for c in 0..ci {
                f(
                    ((image * height + r) * width + s) * ci + c,
                    ((o * p.kernel + u) * p.kernel + v) * ci + c,
                    ((image * out_height + i) * out_width + j) * p.outputs + o,
                );
            }
        }
    }
}

fn grid(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a * b * c).map(move |i| (i / (b * c), i / c % b, i % c))
}

fn equipped(missing: Option<&'static str>, error: f32) -> (Gpu, Arc<AtomicUsize>) {
    beside(Emulated::new(Variant::Plain, Schedule::ALL[0]), missing, error)
}

fn beside(gpu: Emulated, missing: Option<&'static str>, error: f32) -> (Gpu, Arc<AtomicUsize>) {
    let gpu = Arc::new(gpu);
    let calls = Arc::new(AtomicUsize::new(0));
    let libraries = MadeUp { gpu: Arc::clone(&gpu), calls: Arc::clone(&calls), missing, error };
    (Gpu::new(Arc::new(Equipped { gpu, libraries })), calls)
}

/// All convolutions, transposed ones and linear layers, against the CPU; among them those of the `blocks` of kernels, which
/// libraries that are made up take long for.
fn all_cases(gpu: &Gpu, blocks: bool) {
    let ops = ["conv2d", "conv_transpose2d", "linear"];
    for case in srk::ops::all() {
        if case.timed_only || (case.compared_only && !blocks) || !ops.contains(&case.name()) {
            continue;
        }
        // A sum that is rounded before the bias is added may land on the other side of ReLU's corner,
        // where the gradient jumps; f32 is too fine for that to happen here.
        let corner = format!("{case:?}").contains("relu: true");
        let dtypes = [DType::F32, DType::F16, DType::BF16];
        for dtype in dtypes.into_iter().take(if corner { 1 } else { 3 }) {
            let got = case.outcome(&Device::Cuda(gpu.clone()), dtype).unwrap();
            let error = got.error_against(&case.reference(dtype).unwrap());
            // A library's result is rounded once more before the epilogue.
            let tolerance = 2.0 * case.kernel_tol(dtype);
            assert!(
                error <= tolerance,
                "{dtype:?} {case:?}: off by {error:.1e} of {tolerance:.1e}"
            );
        }
    }
}

#[test]
#[ignore = "run by benches/gpu_check.sh on a real GPU, with SRK_CONV set"]
fn on_a_real_gpu() {
    let gpu = srk::engine::cuda::open(0).unwrap();
    let wgmma = std::env::var("SRK_CONV").is_ok_and(|choice| choice == "wgmma");
    if wgmma && !gpu.driver().has_tensor_maps() {
        println!("no tensor maps on this GPU");
        return;
    }
    all_cases(&gpu, true);
}

/// A convolution that the TMA loads, with all that follows it, recorded and replayed: its maps are arguments by value.
fn recorded(gpu: &Gpu) {
    let device = Device::Cuda(gpu.clone());
    let tensor = |shape: &[usize], by: usize| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i * by % 17) as f32).collect();
        let tensor = Tensor::from_slice_on(&device, &values, shape).unwrap();
        tensor.cast(DType::F16).unwrap()
    };
    let (x, w) = (tensor(&[2, 9, 11, 24], 3), tensor(&[40, 3, 3, 24], 5));
    let bias = tensor(&[40], 7);
    let run = || -> Result<Tensor> {
        let mut tape = Tape::inference();
        let of = |t: &Tensor| t.try_clone();
        let (x, w) = (tape.input(of(&x)?), tape.input(of(&w)?));
        let bias = tape.input(of(&bias)?);
        let then = Then { bias: Some(&bias), ..Then::default() };
        tape.conv2d_fused(&x, &w, Conv2d::same(3), then)?.value().try_clone()
    };
    let want = run().unwrap().to_f32_vec().unwrap();
    let before = BY_WGMMA.load(Ordering::Relaxed);
    let (graph, y) = gpu.capture(run).unwrap();
    assert_eq!(BY_WGMMA.load(Ordering::Relaxed), before + 1);
    // SAFETY: x, w and bias are alive.
    unsafe { graph.replay().unwrap() };
    assert_eq!(y.to_f32_vec().unwrap(), want);
}

/// `SRK_CONV=wgmma`, on GPUs that have it and one that has not.
fn by_wgmma() {
    for (variant, schedule) in [(Variant::Plain, 0), (Variant::Checked, 2)] {
        let emulated = Emulated::new(variant, Schedule::ALL[schedule]).with_tensor_maps();
        let (gpu, calls) = beside(emulated, None, 0.0);
        all_cases(&gpu, true);
        assert!(BY_WGMMA.swap(0, Ordering::Relaxed) > 20, "few convolutions were by wgmma");
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        recorded(&gpu);
    }
    let (gpu, _) = equipped(None, 0.0);
    let case = srk::ops::all().into_iter().find(|c| c.name() == "conv2d").unwrap();
    let error = case.outcome(&Device::Cuda(gpu), DType::F16).err().unwrap();
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains("it is for compute capability 9.0"), "{error}");
}

/// A run that goes on makes its choices again, whatever the GPU would choose now, and says where it cannot.
fn choices_of_a_run(cache: &Path) {
    let place = Place::new();
    let (config, out) = (place.config(&[]), place.runs("run"));
    let train = |(gpu, _): (Gpu, Arc<AtomicUsize>), until| {
        // What was chosen by itself is forgotten.
        let _ = std::fs::remove_dir_all(cache);
        let (result, heard) = go_on((&Device::Cuda(gpu), DType::F32), &config, &out, Some(until));
        result.unwrap();
        let anew = heard.lines.iter().any(|line| line.contains("are chosen anew"));
        let refused = heard.warnings.iter().any(|line| line.contains("is not used for"));
        let choices = Checkpoints::new(&out.join("tiny"), 0).engines(until).unwrap();
        (choices, [anew, refused])
    };
    let (choices, said) = train(equipped(None, 0.0), 1);
    assert_eq!(said, [false, false]);
    assert!(choices.contains("cudnn/") || choices.contains("cublas"), "{choices}");
    // Measured again, libraries that are wrong by now would be refused.
    assert_eq!(train(equipped(None, 1e-4), 2), (choices, [false, false]));
    let (choices, said) = train(equipped(Some("cudnn"), 1e-1), 3);
    assert_eq!(said, [true, true]);
    assert!(!choices.contains("cublas\""), "{choices}");
}

#[test]
#[ignore = "run by the tests below, with SRK_CONV set"]
fn child() {
    let choice = std::env::var("SRK_CONV").unwrap();
    if choice == "wgmma" {
        return by_wgmma();
    }
    let calls_of_one = || {
        let (gpu, calls) = equipped(None, 0.0);
        let case = srk::ops::all().into_iter().find(|c| c.name() == "conv2d").unwrap();
        case.outcome(&Device::Cuda(gpu), DType::F32).unwrap();
        calls.load(Ordering::Relaxed)
    };
    if choice == "auto" {
        assert_eq!(calls_of_one(), 0, "nobody asked for libraries, and no choices are kept");
    }
    let (gpu, calls) = equipped(None, 0.0);
    gpu.ask_for_libraries();
    all_cases(&gpu, false);
    if choice == "auto" {
        assert!(calls_of_one() > 0, "choices are kept");
    }
    let called = calls.load(Ordering::Relaxed);
    println!("{choice}: libraries were called {called} times");
    assert_eq!(called == 0, choice == "native");
    if choice == "auto" || choice == "all" {
        assert_eq!(gpu.take_warnings(), [""; 0]);
        // Beside libraries and alone, with nothing chosen before.
        assert_eq!(BY_WGMMA.load(Ordering::Relaxed), 0);
        let folder = std::path::PathBuf::from(std::env::var_os("XDG_CACHE_HOME").unwrap());
        std::fs::remove_dir_all(folder.join("srk")).unwrap();
        let emulated = || Emulated::new(Variant::Plain, Schedule::ALL[1]).with_tensor_maps();
        for gpu in [beside(emulated(), None, 0.0).0, Gpu::new(Arc::new(emulated()))] {
            gpu.ask_for_libraries();
            all_cases(&gpu, false);
            assert_eq!(gpu.take_warnings(), [""; 0]);
        }
        let tried = BY_WGMMA.load(Ordering::Relaxed);
        assert_eq!(tried > 20, choice == "all", "wgmma was tried {tried} times");
        assert!(choice == "all" || tried == 0);
        let (wrong, _) = equipped(None, 1.0);
        wrong.ask_for_libraries();
        let kept: Vec<_> = std::fs::read_dir(folder.join("srk")).unwrap().collect();
        assert_eq!(kept.len(), 1);
        std::fs::remove_dir_all(folder.join("srk")).unwrap();
        all_cases(&wrong, false);
        assert!(wrong.take_warnings()[0].contains("is not used for"));
        if choice == "auto" {
            choices_of_a_run(&folder.join("srk"));
        }
        return;
    }
    // Without the library that is asked for, there is an error that says why.
    let name = ["cudnn", "cublas"].into_iter().find(|name| *name == choice);
    let Some(name) = name else { return };
    let (gpu, _) = equipped(Some(name), 0.0);
    let case = srk::ops::all().into_iter().find(|c| c.name() == "conv2d").unwrap();
    let error = case.outcome(&Device::Cuda(gpu), DType::F32).err().unwrap();
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains(&format!("{name} is made to be missing")), "{error}");
}

fn with(choice: &str) {
    let cache = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "engines::child"])
        .env("SRK_CONV", choice)
        .env("XDG_CACHE_HOME", cache.path())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    assert!(output.status.success(), "{}", text.concat());
}

#[test]
fn cudnn_does_every_convolution_when_asked_to() {
    with("cudnn");
}

#[test]
fn cublas_does_products_when_asked_to() {
    with("cublas");
}

#[test]
fn wgmma_does_what_it_fits_when_asked_to() {
    with("wgmma");
}

#[test]
fn native_is_our_kernels_alone() {
    with("native");
}

#[test]
fn otherwise_the_fastest_right_one_does_it() {
    with("auto");
}

#[test]
fn wgmma_is_tried_where_all_are_wanted() {
    with("all");
}
