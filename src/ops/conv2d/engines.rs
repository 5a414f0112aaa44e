//! Our kernels, cuDNN or cuBLASLt: whichever is fastest for the convolution at hand.
//!
//! `SRK_CONV=native|wgmma|cudnn|cublas` decides; otherwise the first time that a size is met all that can
//! do it are run on the tensors at hand, compared there and timed as a recording
//! ([`Tuner`](crate::engine::cuda::tuning)). Libraries take part where someone [asked](Gpu::ask_for_libraries) for them.
//! The reference is the kernel for every GPU, native; that of compute capability 9.0 ([`super::wgmma`]), which no GPU has
//! run yet, is among them with `SRK_CONV=all` alone. A library does the bare convolution; the epilogue follows as a kernel
//! of ours.
use std::cell::RefCell;
use std::fmt::Write;
use std::sync::LazyLock;

use crate::engine::cuda::tuning::{Bench, Engine};
use crate::engine::cuda::{Convolution, DevicePointer, Gpu, Libraries, Pass};
use crate::engine::device::DType;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::ops::mean_loss::sum_on_gpu;
use crate::ops::mse_loss::MseLoss;

/// What `SRK_CONV` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Fastest,
    FastestOfAll,
    Native,
    Wgmma,
    Cudnn,
    Cublas,
}

fn wanted() -> Result<Wanted> {
    // Read once: every convolution asks.
    static VARIABLE: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("SRK_CONV").ok());
    match VARIABLE.as_deref() {
        None | Some("" | "auto") => Ok(Wanted::Fastest),
        Some("all") => Ok(Wanted::FastestOfAll),
        Some("native") => Ok(Wanted::Native),
        Some("wgmma") => Ok(Wanted::Wgmma),
        Some("cudnn") => Ok(Wanted::Cudnn),
        Some("cublas") => Ok(Wanted::Cublas),
        Some(other) => {
            let report = Report::new(format!("there is no SRK_CONV={other}"), "");
            Err(Error::Usage(report.help("use auto, all, native, wgmma, cudnn or cublas")))
        }
    }
}

/// What writes the output that it is given.
pub(super) type Work<'a> = &'a dyn Fn(&mut Tensor) -> Result<()>;

/// The output, which those that are tried write and look at in turn.
type Output<'a> = RefCell<&'a mut Tensor>;

/// How a problem can be done by kernels of ours, all of it, and what is left to do behind a library.
#[derive(Clone, Copy)]
pub(super) struct Ways<'a> {
    pub(super) native: Work<'a>,
    pub(super) wgmma: Option<Work<'a>>,
    pub(super) finish: Work<'a>,
}

/// Does `problem`, which computes one of x, w and y, the `output`, from the other two, the `inputs`.
pub(super) fn run(
    gpu: &Gpu,
    problem: &Convolution,
    inputs: [&Tensor; 2],
    output: &mut Tensor,
    ways: Ways<'_>,
) -> Result<()> {
    let (wanted, ways, libraries) = match wanted()? {
        Wanted::Fastest => (Wanted::Fastest, Ways { wgmma: None, ..ways }, gpu.libraries()),
        Wanted::FastestOfAll => (Wanted::Fastest, ways, gpu.driver().libraries()),
        ours @ (Wanted::Native | Wanted::Wgmma) => (ours, ways, None),
        theirs => (theirs, ways, gpu.driver().libraries()),
    };
    match (wanted, ways.wgmma) {
        (Wanted::Native, _) => return (ways.native)(output),
        (Wanted::Fastest, None) if libraries.is_none() => return (ways.native)(output),
        (Wanted::Wgmma, Some(wgmma)) => return wgmma(output),
        (Wanted::Wgmma, None) if gpu.driver().has_tensor_maps() => return (ways.native)(output),
        (Wanted::Wgmma, None) => return Err(missing(wanted, "it is for compute capability 9.0")),
        _ => {}
    }
    if let Some(error) = not_there(wanted, libraries) {
        return Err(error);
    }
    let tensors = pointers(gpu, problem, inputs, output)?;
    let output = RefCell::new(output);
    let finish = Finish { write: ways.finish, output: &output };
    let by_libraries =
        libraries.map(|libraries| candidates(libraries, wanted, problem, tensors, finish));
    let by_libraries = by_libraries.unwrap_or_default();
    match (wanted, by_libraries.first()) {
        (Wanted::Fastest, first) if first.is_some() || ways.wgmma.is_some() => {
            choose(gpu, problem, &output, ways, &by_libraries)
        }
        (_, None) => (ways.native)(&mut output.borrow_mut()),
        (_, Some(first)) => first.run(),
    }
}

/// Where x, w and y are.
fn pointers(
    gpu: &Gpu,
    problem: &Convolution,
    [a, b]: [&Tensor; 2],
    output: &Tensor,
) -> Result<[DevicePointer; 3]> {
    let [x, w, y] = match problem.pass {
        Pass::Forward => [a, b, output],
        Pass::InputGradient => [output, a, b],
        Pass::WeightGradient => [a, output, b],
    };
    let at = |name, tensor| gpu.pointer("conv2d", name, tensor, problem.dtype);
    Ok([at("x", x)?, at("w", w)?, at("y", y)?])
}

fn choose<'a>(
    gpu: &'a Gpu,
    problem: &Convolution,
    output: &'a Output<'a>,
    ways: Ways<'a>,
    by_libraries: &[ByLibrary<'a>],
) -> Result<()> {
    let ours = |name, write| Ours { name, all: Finish { write, output } };
    let native = ours("native", ways.native);
    let wgmma = ways.wgmma.map(|wgmma| ours("wgmma", wgmma));
    let ours = std::iter::once(&native).chain(&wgmma).map(|way| way as &dyn Engine);
    let engines: Vec<&dyn Engine> =
        ours.chain(by_libraries.iter().map(|way| way as &dyn Engine)).collect();
    let bench = OnGpu { gpu, output, kept: RefCell::new(None) };
    let tolerance = tolerance(problem.dtype);
    let measure = !gpu.is_recording();
    let best = gpu.tuner().choose(
        &key(problem, ways.wgmma.is_some()),
        tolerance,
        &engines,
        &bench,
        measure,
    )?;
    engines[best].run()
}

/// The relative L2 distance that two right results may have: f32 sums in another order (TF32 would
/// be off by 3e-4), one rounding to f16, one to bf16.
const fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        DType::F32 | DType::F64 => 5e-5,
    }
}

/// The problem as it is remembered, apart where wgmma was one of those that were tried.
fn key(p: &Convolution, wgmma: bool) -> String {
    let mut key = String::with_capacity(64);
    let [n, height, width, ci] = p.input;
    let (co, k, stride, pad) = (p.outputs, p.kernel, p.stride, p.pad);
    // Writing to a string does not fail.
    let _ = write!(key, "{:?} {:?} {n}x{height}x{width}x{ci}", p.pass, p.dtype);
    let _ = write!(key, " to {co}, kernel {k}, stride {stride}, pad {pad}");
    if wgmma {
        key.push_str(", with wgmma");
    }
    key
}

fn missing(wanted: Wanted, why: &str) -> Error {
    let name = format!("{wanted:?}").to_lowercase();
    let report = Report::new(format!("SRK_CONV={name} cannot be done"), why);
    Error::Device(report.help("leave SRK_CONV out, or SRK_CONV=native"))
}

/// The error if the library that is wanted was not found.
fn not_there(wanted: Wanted, libraries: Option<&dyn Libraries>) -> Option<Error> {
    let name = match wanted {
        Wanted::Cudnn => "cudnn",
        Wanted::Cublas => "cublas",
        Wanted::Fastest | Wanted::FastestOfAll | Wanted::Native | Wanted::Wgmma => return None,
    };
    let Some(libraries) = libraries else {
        return Some(missing(wanted, "this device has no libraries"));
    };
    let there = libraries.versions().iter().any(|(found, _)| *found == name);
    (!there).then(|| missing(wanted, &libraries.why_not(name)))
}

/// The ways in which libraries do the problem.
fn candidates<'a>(
    libraries: &'a dyn Libraries,
    wanted: Wanted,
    problem: &'a Convolution,
    tensors: [DevicePointer; 3],
    finish: Finish<'a>,
) -> Vec<ByLibrary<'a>> {
    let one = |way| ByLibrary { libraries, problem, way, tensors, finish };
    let mut all = vec![];
    if wanted != Wanted::Cublas {
        all.extend((0..libraries.plans(problem)).map(|plan| one(Way::Cudnn(plan))));
    }
    let product = problem.as_product().filter(|p| libraries.multiplies(p));
    if wanted != Wanted::Cudnn && product.is_some() {
        all.push(one(Way::Cublas));
    }
    all
}

/// What remains to be done to the output, or all.
#[derive(Clone, Copy)]
struct Finish<'a> {
    write: Work<'a>,
    output: &'a Output<'a>,
}

impl Finish<'_> {
    fn run(&self) -> Result<()> {
        (self.write)(&mut self.output.borrow_mut())
    }
}

/// A kernel of ours.
struct Ours<'a> {
    name: &'static str,
    all: Finish<'a>,
}

impl Engine for Ours<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn run(&self) -> Result<()> {
        self.all.run()
    }
}

#[derive(Clone, Copy)]
enum Way {
    Cudnn(usize),
    Cublas,
}

struct ByLibrary<'a> {
    libraries: &'a dyn Libraries,
    problem: &'a Convolution,
    way: Way,
    /// x, w, y
    tensors: [DevicePointer; 3],
    finish: Finish<'a>,
}

impl Engine for ByLibrary<'_> {
    fn name(&self) -> String {
        match self.way {
            Way::Cudnn(plan) => format!("cudnn/{plan}"),
            Way::Cublas => "cublas".to_owned(),
        }
    }

    fn run(&self) -> Result<()> {
        let [x, w, y] = self.tensors;
        match (self.way, self.problem.as_product()) {
            (Way::Cublas, Some(product)) => {
                let operands = match self.problem.pass {
                    Pass::Forward => [x, w, y],
                    Pass::InputGradient => [y, w, x],
                    Pass::WeightGradient => [y, x, w],
                };
                // SAFETY: as below; the product is that of the problem.
                unsafe { self.libraries.multiply(&product, operands)? };
            }
            (Way::Cublas, None) => unreachable!("cuBLASLt is a candidate for products only"),
            (Way::Cudnn(plan), _) => {
                // SAFETY: the problem was made of these tensors' shapes, and `pointers` saw that they are of its type and
                // on this GPU; they are borrowed for as long as there are engines, that which is written mutably.
                unsafe { self.libraries.convolve(self.problem, plan, self.tensors)? };
            }
        }
        self.finish.run()
    }
}

/// Measures on the device, and looks at the tensor that engines write.
struct OnGpu<'a> {
    gpu: &'a Gpu,
    output: &'a Output<'a>,
    /// What others are compared with, and the sum of its squares.
    kept: RefCell<Option<(Tensor, f64)>>,
}

impl Bench for OnGpu<'_> {
    fn poison(&self) -> Result<()> {
        let output = self.output.borrow();
        let Some(at) = output.device_pointer() else { return Ok(()) };
        // SAFETY: the output begins there, is as long, and borrowed.
        unsafe { self.gpu.driver().fill(at, 0xff, output.bytes()) }
    }

    fn keep(&self) -> Result<()> {
        let output = self.output.borrow();
        let nothing = Tensor::zeros_as(&output, output.shape())?;
        let kept = output.try_clone()?;
        let size = sum_on_gpu(&MseLoss, self.gpu, [&kept, &nothing])?;
        self.kept.replace(Some((kept, size)));
        Ok(())
    }

    fn distance(&self) -> Result<f64> {
        let kept = self.kept.borrow();
        let Some((kept, size)) = &*kept else { return Ok(f64::NAN) };
        let off = sum_on_gpu(&MseLoss, self.gpu, [&self.output.borrow(), kept])?;
        Ok(if off == 0.0 { 0.0 } else { (off / size).sqrt() })
    }

    /// Of a recording, as networks run: without what each launch costs. What cannot be recorded cannot be used.
    fn seconds(&self, engine: &dyn Engine, runs: usize, rounds: usize) -> Result<f64> {
        let (graph, ()) = self.gpu.capture(|| (0..runs).try_for_each(|_| engine.run()))?;
        let mut best = f64::INFINITY;
        for _ in 0..rounds {
            // SAFETY: what engines read and write is borrowed as long as there are engines.
            best = best.min(self.gpu.driver().time(&mut || unsafe { graph.replay() })?);
        }
        Ok(best)
    }
}
