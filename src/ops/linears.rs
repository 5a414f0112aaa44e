//! Several linear maps of the same vectors, side by side: what a time step has to say to every layer of a network, in
//! one launch.
//!
//! ```text
//! y[n, first_k + o] = f(sum_i w_k[o, i] x[n, i] + b_k[o])      f is SiLU or nothing
//! ```
//!
//! x: `[N, in]`, w_k: `[out_k, in]`, b_k: `[out_k]`, y: `[N, M]`. The outputs of each map start at a multiple of 8,
//! so that kernels read them in packs; those between are 0. It has no gradient: networks that train call the maps
//! one by one.
use std::fmt::Write;

use crate::engine::cuda::{Gpu, Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

/// Outputs of a block of threads, and what the outputs of a map are aligned to.
const COLUMNS: usize = 8;

impl Tape {
    /// All `maps` (weight and bias) of `x` `[N, in]`, and where the outputs of each begin; then SiLU if `silu`.
    pub fn linears(&mut self, x: &Var, maps: &[[Var; 2]], silu: bool) -> Result<(Var, Vec<usize>)> {
        let outputs: Vec<usize> = maps.iter().map(|[w, _]| w.shape()[0]).collect();
        let inputs: Vec<&Var> = std::iter::once(x).chain(maps.iter().flatten()).collect();
        let y = self.apply(Linears { silu }, &inputs)?;
        Ok((y, firsts(&outputs).0))
    }
}

/// See the [module](self) for the formulas; inputs are x, and weight and bias of each map.
#[derive(Clone, Copy, Debug)]
pub struct Linears {
    /// Whether SiLU follows.
    pub silu: bool,
}

/// Where the outputs of each map begin, and how many there are of all.
fn firsts(outputs: &[usize]) -> (Vec<usize>, usize) {
    let mut all = 0;
    let firsts = outputs.iter().map(|&out| {
        let first = all;
        all += out.next_multiple_of(COLUMNS);
        first
    });
    (firsts.collect(), all)
}

/// The sizes of all inputs: of x, and how many outputs each map has.
fn sizes(inputs: &[&Tensor]) -> Result<([usize; 2], Vec<usize>)> {
    const OP: &str = "linears";
    let &[images, from] = inputs[0].shape() else {
        return Err(Error::shape(OP, "[N, in]", inputs[0].shape()));
    };
    let of = |map: &[&Tensor]| match (map[0].shape(), map.get(1).map(|b| b.shape())) {
        (&[out, inputs], Some(&[biases])) if inputs == from && biases == out => Ok(out),
        (w, _) => Err(Error::shape(OP, format!("a weight [out, {from}] and a bias [out]"), w)),
    };
    Ok(([images, from], inputs[1..].chunks(2).map(of).collect::<Result<_>>()?))
}

impl Op for Linears {
    fn name(&self) -> &'static str {
        "linears"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let ([images, from], outputs) = sizes(inputs)?;
        let (firsts, columns) = firsts(&outputs);
        let x = inputs[0];
        let mut y = Tensor::empty_as(x, &[images, columns])?;
        on_device!(x,
            cpu::<T> => {
                let (x, all) = (x.cpu::<T>()?, y.cpu_mut::<T>()?);
                all.fill(T::default());
                for (map, &first) in inputs[1..].chunks(2).zip(&firsts) {
                    let (w, b) = (map[0].cpu::<T>()?, map[1].cpu::<T>()?);
                    cpu::map([x, w, b], [from, columns, first], self.silu, all);
                }
            },
            cuda(gpu) => {
                let [table, counts] = tables(&gpu, inputs, from)?;
                let (grid, silu) = (Grid::new([columns / COLUMNS, 1, 1], 256), self.silu.into());
                let y = &mut y;
                kernels::linears { x, table: &table, counts: &counts, y, images, inputs: from, columns, silu }
                    .launch(&gpu, grid)?;
            }
        );
        Ok((y, Saved::new()))
    }
}

/// What each block of threads reads: addresses of weights and biases, and how many outputs it has. They stay on the
/// device under the addresses that they hold, which are those of parameters: nothing may be uploaded while a graph is
/// recorded.
fn tables(gpu: &Gpu, inputs: &[&Tensor], from: usize) -> Result<[Tensor; 2]> {
    let dtype = inputs[0].dtype();
    let mut key = format!("linears {from} {dtype:?}");
    let (mut addresses, mut counts): (Vec<u64>, Vec<u32>) = (Vec::new(), Vec::new());
    for map in inputs[1..].chunks(2) {
        let at = |name, tensor| gpu.pointer("linears", name, tensor, dtype);
        let (w, b, out) = (at("w", map[0])?.address(), at("b", map[1])?.address(), map[1].len());
        // Writing to a string does not fail.
        let _ = write!(key, " {w:x} {b:x} {out}");
        for first in (0..out).step_by(COLUMNS) {
            let skipped = (first * dtype.size()) as u64;
            addresses.extend([w + skipped * from as u64, b + skipped]);
            #[allow(clippy::cast_possible_truncation)] // At most eight.
            counts.push((out - first).min(COLUMNS) as u32);
        }
    }
    // A table is bits to the engine; kernels know better.
    let bits = |table: &[u32]| bytemuck::cast_slice::<u32, f32>(table).to_vec();
    let of_counts = format!("{key}: outputs");
    Ok([
        gpu.constant(&key, &[2 * addresses.len()], || bytemuck::cast_slice(&addresses).to_vec())?,
        gpu.constant(&of_counts, &[counts.len()], || bits(&counts))?,
    ])
}

mod cpu {
    use crate::engine::device::Real;

    /// One map, to `y` `[.., columns]` from column `first` on.
    pub(super) fn map<T: Real>(
        [x, w, b]: [&[T]; 3],
        [from, columns, first]: [usize; 3],
        silu: bool,
        y: &mut [T],
    ) {
        let one = T::from_f64(1.0);
        for (x, y) in x.chunks_exact(from).zip(y.chunks_exact_mut(columns)) {
            for ((y, w), &b) in y[first..].iter_mut().zip(w.chunks_exact(from)).zip(b) {
                let sum: T = x.iter().zip(w).map(|(&x, &w)| x * w).sum();
                let v = sum + b;
                *y = if silu { v / (one + (-v).exp()) } else { v };
            }
        }
    }
}

/// One map, and several whose outputs fill no block; inputs that fill packs and that do not.
pub fn cases() -> Vec<OpCase> {
    let case = |silu: bool, [images, from]: [usize; 2], outputs: &[usize]| {
        let mut shapes = vec![vec![images, from]];
        shapes.extend(outputs.iter().flat_map(|&out| [vec![out, from], vec![out]]));
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let case = OpCase::new(move || Linears { silu }, &shapes);
        (0..shapes.len()).fold(case, OpCase::without_grad)
    };
    vec![
        case(false, [1, 16], &[8]),
        case(true, [2, 40], &[3, 17, 8]),
        case(false, [3, 7], &[5, 1]),
        case(true, [1, 1], &[9]),
    ]
}
