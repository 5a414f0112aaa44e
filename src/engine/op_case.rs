//! What tests and benches do with one op at one set of shapes.
//!
//! From a case follow: the gradient against finite differences in f64, f32 against f64 (which also
//! compares every fast path with the general one), bit-equal reruns at any number of threads, and the
//! kernels against the CPU in f32, f16 and bf16.
use std::fmt::Debug;

use half::{bf16, f16};

use super::device::{DType, Device, Real};
use super::rng::{Purpose, Stream};
use super::tape::{Op, Tape};
use super::tensor::Tensor;
use crate::error::Result;

/// One op with the shapes of its inputs and what is expected of it.
pub struct OpCase {
    build: Box<dyn Fn() -> Box<dyn Op> + Send + Sync>,
    shapes: Vec<Vec<usize>>,
    /// Allowed error of a gradient in f64, relative to `1 + |gradient|`.
    pub grad_tol: f64,
    /// Allowed relative L2 difference between f32 and f64, forward and backward.
    pub f32_tol: f64,
    /// Too large to check, or without a gradient: only timed.
    pub timed_only: bool,
    /// Too large for finite differences: only compared between devices and element types.
    pub compared_only: bool,
    kernel_tol: [f64; 3],
    inputs_without_grad: Vec<usize>,
    input_scale: f64,
    input_shift: f64,
}

impl OpCase {
    /// A case of the op that `build` makes, with one input of each of `shapes`.
    pub fn new<O: Op>(build: impl Fn() -> O + Send + Sync + 'static, shapes: &[&[usize]]) -> Self {
        Self {
            build: Box::new(move || Box::new(build())),
            shapes: shapes.iter().map(|s| s.to_vec()).collect(),
            grad_tol: 1e-6,
            f32_tol: 1e-5,
            timed_only: false,
            compared_only: false,
            // Rounding of f32 sums; of one result to 11 bits, to 8 bits.
            kernel_tol: [1e-5, 1e-3, 8e-3],
            inputs_without_grad: Vec::new(),
            input_scale: 1.0,
            input_shift: 0.0,
        }
    }

    /// Times this case and does not check it.
    pub fn timed_only(mut self) -> Self {
        self.timed_only = true;
        self
    }

    /// Leaves out the finite differences: for sizes that a kernel tells apart and the CPU does not.
    pub fn kernel_only(mut self) -> Self {
        self.compared_only = true;
        self
    }

    /// Sets the allowed relative L2 difference between a kernel and the CPU in f32, f16 and bf16; the
    /// reason stands beside the call.
    pub fn kernel_tols(mut self, tols: [f64; 3]) -> Self {
        self.kernel_tol = tols;
        self
    }

    /// The allowed relative L2 difference between a kernel and the CPU.
    pub fn kernel_tol(&self, dtype: DType) -> f64 {
        match dtype {
            DType::F16 => self.kernel_tol[1],
            DType::BF16 => self.kernel_tol[2],
            DType::F32 | DType::F64 => self.kernel_tol[0].max(self.f32_tol),
        }
    }

    /// Input `i` has no gradient.
    pub fn without_grad(mut self, i: usize) -> Self {
        self.inputs_without_grad.push(i);
        self
    }

    /// Draws inputs from `shift + scale * [-1, 1)` instead of `[-1, 1)`.
    pub fn inputs(mut self, scale: f64, shift: f64) -> Self {
        (self.input_scale, self.input_shift) = (scale, shift);
        self
    }

    /// Sets the tolerance between f32 and f64; the reason stands beside the call.
    pub fn f32_tol(mut self, tol: f64) -> Self {
        self.f32_tol = tol;
        self
    }

    /// The op's name.
    pub fn name(&self) -> &'static str {
        self.op().name()
    }

    /// The op and its shapes, for messages.
    pub fn label(&self) -> String {
        format!("{:?} {:?}", self.op(), self.shapes)
    }

    /// The op.
    pub fn op(&self) -> Box<dyn Op> {
        (self.build)()
    }

    /// Floating point operations of one forward.
    pub fn flops(&self) -> u64 {
        self.op().flops(&self.shapes.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// Bytes that one forward in f32 reads and writes at least.
    pub fn bytes(&self) -> Result<u64> {
        let inputs = self.tensors(DType::F32);
        let y = self.op().forward(&inputs.iter().collect::<Vec<_>>())?.0;
        Ok(4 * (inputs.iter().map(Tensor::len).sum::<usize>() + y.len()) as u64)
    }

    /// Random inputs on the CPU: the same numbers at every element type.
    pub fn tensors(&self, dtype: DType) -> Vec<Tensor> {
        self.rounded_tensors(dtype, DType::F32)
    }

    /// As [`tensors`](Self::tensors), of numbers that `storage` holds exactly.
    fn rounded_tensors(&self, dtype: DType, storage: DType) -> Vec<Tensor> {
        let build = |(k, shape): (usize, &Vec<usize>)| {
            let values = self.numbers(k as u64, shape.iter().product());
            let moved = |v: &f64| rounded(self.input_shift + self.input_scale * v, storage);
            Tensor::from_f64(&values.iter().map(moved).collect::<Vec<_>>(), shape, dtype)
        };
        self.shapes.iter().enumerate().map(build).collect()
    }

    #[allow(clippy::cast_possible_truncation)] // To f32 and back: that is the point.
    /// `len` numbers in `[-1, 1)` that f32 holds exactly.
    fn numbers(&self, stream: u64, len: usize) -> Vec<f64> {
        let mut random = Stream::new(0x5eed, Purpose::Test, stream).sequence();
        (0..len).map(|_| (random.uniform() * 2.0 - 1.0) as f32).map(f64::from).collect()
    }

    /// The worst error of the analytic gradient against central differences of `sum(y * dy)` in f64.
    pub fn gradient_error(&self) -> Result<f64> {
        let inputs = self.tensors(DType::F64);
        let Outcome { gradients: analytic, dy, .. } = self.run(&inputs, DType::F32)?;
        let objective = |inputs: &[Tensor]| -> Result<f64> {
            let y = self.op().forward(&inputs.iter().collect::<Vec<_>>())?.0;
            Ok(y.cpu::<f64>()?.iter().zip(&dy).map(|(y, d)| y * d).sum())
        };
        let step = 1e-5;
        let mut worst = 0.0f64;
        for (k, gradient) in analytic.iter().enumerate() {
            let Some(gradient) = gradient else { continue };
            let mut moved = inputs.iter().map(Tensor::try_clone).collect::<Result<Vec<_>>>()?;
            for i in 0..inputs[k].len() {
                let at = inputs[k].cpu::<f64>()?[i];
                let mut value = |v: f64| -> Result<f64> {
                    moved[k].cpu_mut::<f64>()?[i] = v;
                    objective(&moved)
                };
                let numeric = (value(at + step)? - value(at - step)?) / (2.0 * step);
                value(at)?;
                let error = (numeric - gradient[i]).abs() / (1.0 + numeric.abs());
                // A NaN must not pass as the smaller of two errors.
                worst = if error <= worst { worst } else { error };
            }
        }
        Ok(worst)
    }

    /// The worst relative L2 difference between f32 and f64 over output and gradients.
    pub fn f32_error(&self) -> Result<f64> {
        let wanted = self.run(&self.tensors(DType::F64), DType::F32)?;
        Ok(self.run(&self.tensors(DType::F32), DType::F32)?.error_against(&wanted))
    }

    /// Output and gradients in f32 as bits, to compare reruns.
    pub fn f32_bits(&self) -> Result<Vec<u64>> {
        Ok(self.run(&self.tensors(DType::F32), DType::F32)?.bits())
    }

    /// What the CPU makes, in f64, of inputs that `storage` holds exactly.
    pub fn reference(&self, storage: DType) -> Result<Outcome> {
        self.run(&self.rounded_tensors(DType::F64, storage), storage)
    }

    /// What `device` makes of the same inputs as `dtype`.
    pub fn outcome(&self, device: &Device, dtype: DType) -> Result<Outcome> {
        let inputs = self.rounded_tensors(DType::F32, dtype);
        let place = |t: &Tensor| t.to_device(device)?.cast(dtype);
        self.run(&inputs.iter().map(place).collect::<Result<Vec<_>>>()?, dtype)
    }

    /// One forward and backward; the incoming gradient is of numbers that `storage` holds.
    fn run(&self, inputs: &[Tensor], storage: DType) -> Result<Outcome> {
        let mut tape = Tape::training();
        let mut vars = vec![];
        for (i, t) in inputs.iter().enumerate() {
            let t = t.try_clone()?;
            vars.push(match self.inputs_without_grad.contains(&i) {
                true => tape.input(t),
                false => tape.variable(t),
            });
        }
        let y = tape.apply_boxed(self.op(), &vars.iter().collect::<Vec<_>>())?;
        let mut dy = self.numbers(u64::from(u32::MAX), y.value().len());
        dy.iter_mut().for_each(|v| *v = rounded(*v, storage));
        let gradient = match y.value().device() {
            Device::Cpu => Tensor::from_f64(&dy, y.shape(), y.value().dtype()),
            device => Tensor::from_f64(&dy, y.shape(), DType::F32)
                .to_device(&device)?
                .cast(y.value().dtype())?,
        };
        let values = y.value().to_f64_vec()?;
        let grads = tape.backward(&y, gradient)?;
        let dx = vars.iter().map(|v| grads.of(v).map(Tensor::to_f64_vec).transpose());
        Ok(Outcome { values, gradients: dx.collect::<Result<_>>()?, dy })
    }
}

/// What one run of a case gave.
#[derive(Debug)]
pub struct Outcome {
    /// The output.
    pub values: Vec<f64>,
    /// The gradient of each input that has one.
    pub gradients: Vec<Option<Vec<f64>>>,
    dy: Vec<f64>,
}

impl Outcome {
    /// The worst relative L2 difference to `wanted` over output and gradients; NaN if one of them is.
    pub fn error_against(&self, wanted: &Self) -> f64 {
        let mut worst = relative_l2(&self.values, &wanted.values);
        for pair in self.gradients.iter().zip(&wanted.gradients) {
            if let (Some(a), Some(b)) = pair {
                let error = relative_l2(a, b);
                worst = if worst.is_nan() || error <= worst { worst } else { error };
            }
        }
        worst
    }

    /// Output and gradients as bits, to compare reruns.
    pub fn bits(&self) -> Vec<u64> {
        let gradients = self.gradients.iter().flatten().flatten();
        self.values.iter().chain(gradients).map(|v| v.to_bits()).collect()
    }
}

/// The nearest value to `v` that `storage` holds, at most with the precision of f32.
fn rounded(v: f64, storage: DType) -> f64 {
    let v = f32::from_f64(v);
    match storage {
        DType::F16 => f16::from_f32(v).to_f64(),
        DType::BF16 => bf16::from_f32(v).to_f64(),
        DType::F32 | DType::F64 => f64::from(v),
    }
}

impl Debug for OpCase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.label())
    }
}

/// `|a - b| / |b|`; the plain norm of `a` where `b` is zero.
pub fn relative_l2(a: &[f64], b: &[f64]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    let size = norm(&mut b.iter().copied());
    if size == 0.0 { difference } else { difference / size }
}
