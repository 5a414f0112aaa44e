//! What losses have in common that are the mean of a distance between the elements of two tensors.
//!
//! ```text
//! y  = sum of d(a - b) / n
//! da = dy d'(a - b) / n,    db = -da
//! ```
//!
//! Summed in a fixed order: in double precision on the CPU, in single on a GPU.
use super::parallel::{CHUNK, sum};
use super::same_shape;
use super::simd::Lane;
use crate::engine::cuda::{Gpu, Grid, kernels};
use crate::engine::device::{DType, Real};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved};
use crate::engine::tensor::Tensor;
use crate::engine::threads::pieces;
use crate::error::Result;
use crate::on_device;

/// A loss by its distance `d`.
pub(super) trait MeanLoss: Op + Sync {
    /// `d(difference)`.
    fn distance(&self, difference: f64) -> f64;

    /// Writes `each * d'(a - b)` to `da`.
    fn slopes<T: Lane>(&self, each: T, a: &[T], b: &[T], da: &mut [T]);

    /// Starts the kernel that adds up `d(a - b)` in blocks.
    fn start_sums(
        &self,
        gpu: &Gpu,
        grid: Grid,
        inputs: [&Tensor; 2],
        partial: &mut Tensor,
    ) -> Result<()>;

    /// Starts the kernel that makes gradients of a, b and dy.
    fn start_backward(
        &self,
        gpu: &Gpu,
        grid: Grid,
        inputs: [&Tensor; 3],
        da: &mut Tensor,
        db: Option<&mut Tensor>,
    ) -> Result<()>;
}

/// The launches of a [`MeanLoss`]: its two kernels, and the field that both take last where `d` has a parameter.
macro_rules! mean_loss_kernels {
    ($sums:ident, $backward:ident $(, $parameter:ident)?) => {
        fn start_sums(
            &self,
            gpu: &Gpu,
            grid: Grid,
            [a, b]: [&Tensor; 2],
            partial: &mut Tensor,
        ) -> Result<()> {
            $(let $parameter = f32::from_f64(self.$parameter);)?
            kernels::$sums { a, b, partial, n: a.len() $(, $parameter)? }.launch(gpu, grid)
        }

        fn start_backward(
            &self,
            gpu: &Gpu,
            grid: Grid,
            [a, b, dy]: [&Tensor; 3],
            da: &mut Tensor,
            db: Option<&mut Tensor>,
        ) -> Result<()> {
            $(let $parameter = f32::from_f64(self.$parameter);)?
            kernels::$backward { a, b, dy, da, db, n: a.len() $(, $parameter)? }.launch(gpu, grid)
        }
    };
}
pub(super) use mean_loss_kernels;

/// The mean, `[1]`.
pub(super) fn forward<L: MeanLoss>(loss: &L, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
    let [a, b] = inputs else { unreachable!("losses take two inputs") };
    same_shape(loss.name(), a, b)?;
    let mean = on_device!(a,
        cpu::<T> => {
            let (x, y) = (a.cpu::<T>()?, b.cpu::<T>()?);
            let total = sum(x.len(), |i| loss.distance(x[i].to_f64() - y[i].to_f64()));
            Tensor::from_f64(&[total / a.len() as f64], &[1], a.dtype())
        },
        cuda(gpu) => mean_on_gpu(&gpu, a, |sums, grid| loss.start_sums(&gpu, grid, [a, b], sums))?,
    );
    Ok((mean, Saved::new()))
}

/// The gradients of both inputs.
pub(super) fn backward<L: MeanLoss>(
    loss: &L,
    call: &Call,
    dy: &Tensor,
) -> Result<Vec<Option<Tensor>>> {
    let [a, b] = call.inputs else { unreachable!("losses take two inputs") };
    let mut da = Tensor::empty_as(a, a.shape())?;
    let db = on_device!(a,
        cpu::<T> => {
            let each = T::from_f64(dy.to_f64_vec()?[0] / a.len() as f64);
            let [a, b] = [a.cpu()?, b.cpu()?];
            pieces(da.cpu_mut()?, CHUNK, |i, da| {
                let of = i * CHUNK..i * CHUNK + da.len();
                loss.slopes::<T>(each, &a[of.clone()], &b[of], da);
            });
            call.wants[1].then(|| da.times(-1.0)).transpose()?
        },
        cuda(gpu) => {
            let mut db = call.wants[1].then(|| Tensor::empty_as(b, b.shape())).transpose()?;
            let grid = Grid::elements(threads(a));
            loss.start_backward(&gpu, grid, [a, b, dy], &mut da, db.as_mut())?;
            db
        }
    );
    Ok(vec![Some(da), db])
}

/// The mean over the elements of `like` of what a kernel adds up in blocks, which `sums` starts.
pub(super) fn mean_on_gpu(
    gpu: &Gpu,
    like: &Tensor,
    sums: impl FnOnce(&mut Tensor, Grid) -> Result<()>,
) -> Result<Tensor> {
    let partial = partial_sums(like, sums)?;
    let mut mean = Tensor::empty_as(like, &[1])?;
    let blocks = partial.len();
    kernels::mean_loss_finish { partial: &partial, y: &mut mean, blocks, n: like.len() }
        .launch(gpu, Grid::new([1, 1, 1], 256))?;
    Ok(mean)
}

/// What a kernel over the elements of `like` adds up in blocks, in f32.
fn partial_sums(
    like: &Tensor,
    sums: impl FnOnce(&mut Tensor, Grid) -> Result<()>,
) -> Result<Tensor> {
    // Enough blocks for any GPU, few enough for one block to add up.
    let blocks = threads(like).div_ceil(256).clamp(1, 1024);
    let mut partial = Tensor::empty_on(&like.device(), DType::F32, &[blocks])?;
    sums(&mut partial, Grid::new([blocks, 1, 1], 256))?;
    Ok(partial)
}

/// The sum of `d(a - b)` over two tensors on a GPU, whatever their type: a mean of f16 would round what is small to 0.
pub(super) fn sum_on_gpu<L: MeanLoss>(loss: &L, gpu: &Gpu, [a, b]: [&Tensor; 2]) -> Result<f64> {
    same_shape(loss.name(), a, b)?;
    let partial = partial_sums(a, |sums, grid| loss.start_sums(gpu, grid, [a, b], sums))?;
    Ok(partial.to_f32_vec()?.into_iter().map(f64::from).sum())
}

/// One for 16 bytes, and at least one for each element that is left.
fn threads(a: &Tensor) -> usize {
    let pack = 16 / a.dtype().size();
    (a.len() / pack).max(a.len() % pack)
}

/// An odd length, one element, several blocks and a rest, and a training batch.
pub(super) fn cases<L: MeanLoss>(loss: fn() -> L) -> Vec<OpCase> {
    let case = |shape: &[usize]| OpCase::new(loss, &[shape, shape]);
    vec![
        case(&[2, 3, 5, 7]),
        case(&[1]),
        // Gradients of dy / n are subnormal in f16, with steps of 6e-8: that is what loss scaling is for.
        case(&[3, 31, 17, 5]).kernel_only().kernel_tols([1e-5, 1e-2, 8e-3]),
        case(&[8, 256, 256, 3]).timed_only(),
    ]
}
