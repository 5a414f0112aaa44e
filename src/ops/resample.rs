//! Linear maps along the rows and the columns of a map, given as tables: enlarging and shrinking by any factor,
//! rows and columns added at the edges or cut off.
//!
//! ```text
//! y[n,i,j,c] = sum over the taps (r, v) of row i and (s, h) of column j of v h x[n,r,s,c]
//! dx = the same with the tables transposed
//! ```
//!
//! Rows are mixed before columns, taps in the order of the table. Weights are rational functions of positions
//! that are counted exactly, so that they repeat with the period of the factor wherever a tile starts.
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::engine::cuda::Gpu;
use crate::engine::device::{Device, Real};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `[N, H, W, C]` through the tables of its rows and its columns.
    pub fn resample(&mut self, x: &Var, rows: &Arc<Axis>, columns: &Arc<Axis>) -> Result<Var> {
        self.apply(Resample { rows: Arc::clone(rows), columns: Arc::clone(columns) }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Clone, Debug)]
pub struct Resample {
    /// What rows are made of.
    pub rows: Arc<Axis>,
    /// What columns are made of.
    pub columns: Arc<Axis>,
}

/// How positions between pixels are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// The pixel that holds the left edge of the new one.
    Nearest,
    /// Linear between the centres of two pixels.
    Linear,
    /// A cubic through four centres with a = -3/4.
    Cubic,
}

/// What the positions along an axis are made of.
#[derive(Debug)]
pub struct Axis {
    inputs: usize,
    forward: Table,
    backward: Table,
    /// Both tables on the GPU that used them last.
    placed: Mutex<Option<(Gpu, [Arc<Placed>; 2])>>,
}

/// For each position the same number of taps: where they read, and their weights.
#[derive(Debug)]
struct Table {
    taps: usize,
    taken: Vec<(usize, f64)>,
}

#[derive(Debug)]
struct Placed {
    index: Tensor,
    weight: Tensor,
}

impl Axis {
    /// Positions of `taps` each, which read positions below `inputs`.
    ///
    /// # Panics
    /// If there are none or one reads beyond: a fault of the caller.
    fn new(inputs: usize, taken: &[Vec<(usize, f64)>]) -> Arc<Self> {
        assert!(taken.iter().flatten().all(|&(at, _)| at < inputs), "taps read beyond the axis");
        let mut users = vec![Vec::new(); inputs];
        for (i, taps) in taken.iter().enumerate() {
            for &(at, weight) in taps {
                users[at].push((i, weight));
            }
        }
        let (forward, backward) = (Table::of(taken), Table::of(&users));
        Arc::new(Self { inputs, forward, backward, placed: Mutex::new(None) })
    }

    /// `before` positions in front of `inputs` and `after` behind them; the edges are repeated.
    pub fn edges(inputs: usize, before: usize, after: usize) -> Arc<Self> {
        let tap = |i: usize| vec![(i.saturating_sub(before).min(inputs - 1), 1.0)];
        Self::new(inputs, &(0..before + inputs + after).map(tap).collect::<Vec<_>>())
    }

    /// The `count` positions from `first` on.
    pub fn part(inputs: usize, first: usize, count: usize) -> Arc<Self> {
        Self::new(inputs, &(first..first + count).map(|i| vec![(i, 1.0)]).collect::<Vec<_>>())
    }

    /// `outputs` positions, `over` of them as long as `under` of the inputs; beyond the edges lie their pixels.
    pub fn scaled(
        inputs: usize,
        outputs: usize,
        [over, under]: [usize; 2],
        filter: Filter,
    ) -> Arc<Self> {
        let last = inputs as isize - 1;
        #[allow(clippy::cast_sign_loss)] // Clamped to 0 and more.
        let inside = |at: isize| at.clamp(0, last) as usize;
        let taps = |i: usize| {
            if filter == Filter::Nearest {
                return vec![((i * under / over).min(inputs - 1), 1.0)];
            }
            // The centre, counted in parts of 2 over to the pixel from the first centre on.
            let (parts, centre) = (2 * over, (2 * i + 1) * under);
            let (whole, part) = match centre.checked_sub(over) {
                Some(right) => ((right / parts) as isize, right % parts),
                None => (-1, centre + over),
            };
            let t = part as f64 / parts as f64;
            match filter {
                Filter::Cubic => {
                    let weights = [cubic(1.0 + t), cubic(t), cubic(1.0 - t), cubic(2.0 - t)];
                    (whole - 1..).map(inside).zip(weights).collect()
                }
                _ => vec![(inside(whole), 1.0 - t), (inside(whole + 1), t)],
            }
        };
        Self::new(inputs, &(0..outputs).map(taps).collect::<Vec<_>>())
    }

    /// Positions read.
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// Positions made.
    pub fn outputs(&self) -> usize {
        self.forward.taken.len() / self.forward.taps
    }

    /// The tables forward and backward in the memory of `gpu`, copied there once: a recording can copy nothing.
    fn on(&self, gpu: &Gpu) -> Result<[Arc<Placed>; 2]> {
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((owner, tables)) = &*placed
            && owner == gpu
        {
            return Ok(tables.clone());
        }
        let tables = [self.forward.on(gpu)?, self.backward.on(gpu)?];
        *placed = Some((gpu.clone(), tables.clone()));
        Ok(tables)
    }
}

/// The cubic kernel of a = -3/4 at the distance `t` of 0 to 2 pixels.
fn cubic(t: f64) -> f64 {
    const A: f64 = -0.75;
    match t {
        t if t <= 1.0 => ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0,
        t => ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A,
    }
}

impl Table {
    /// The taps of each position, filled up with taps of weight 0.
    fn of(positions: &[Vec<(usize, f64)>]) -> Self {
        let taps = positions.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let filled = |taken: &Vec<(usize, f64)>| {
            let unused = taken.first().map_or((0, 0.0), |&(at, _)| (at, 0.0));
            taken.iter().copied().chain(std::iter::repeat(unused)).take(taps).collect::<Vec<_>>()
        };
        Self { taps, taken: positions.iter().flat_map(filled).collect() }
    }

    fn of_position(&self, i: usize) -> &[(usize, f64)] {
        &self.taken[i * self.taps..][..self.taps]
    }

    fn on(&self, gpu: &Gpu) -> Result<Arc<Placed>> {
        let device = Device::Cuda(gpu.clone());
        let place = |values: Vec<f32>| Tensor::from_slice_on(&device, &values, &[values.len()]);
        // Positions are far below 2^24, which f32 counts exactly.
        let index = place(self.taken.iter().map(|&(at, _)| f32::from_f64(at as f64)).collect())?;
        let weight = place(self.taken.iter().map(|&(_, w)| f32::from_f64(w)).collect())?;
        Ok(Arc::new(Placed { index, weight }))
    }
}

impl Op for Resample {
    fn name(&self) -> &'static str {
        "resample"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("resample takes one input") };
        let [n, h, w, c] = x.nhwc(self.name())?;
        if [h, w] != [self.rows.inputs, self.columns.inputs] {
            let wanted = format!("[N, {}, {}, C]", self.rows.inputs, self.columns.inputs);
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        let mut y = Tensor::empty_as(x, &[n, self.rows.outputs(), self.columns.outputs(), c])?;
        on_device!(x,
            cpu::<T> => {
                let tables = [&self.rows.forward, &self.columns.forward];
                cpu::apply::<T>(tables, [h, w, c], x.cpu()?, y.cpu_mut()?);
            },
            cuda(gpu) => {
                let ([rows, _], [columns, _]) = (self.rows.on(&gpu)?, self.columns.on(&gpu)?);
                let taps = [self.rows.forward.taps, self.columns.forward.taps];
                cuda::launch(&gpu, [&rows, &columns], taps, x, &mut y)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("resample takes one input") };
        let [_, h, w, c] = dy.nhwc(self.name())?;
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => {
                let tables = [&self.rows.backward, &self.columns.backward];
                cpu::apply::<T>(tables, [h, w, c], dy.cpu()?, dx.cpu_mut()?);
            },
            cuda(gpu) => {
                let ([_, rows], [_, columns]) = (self.rows.on(&gpu)?, self.columns.on(&gpu)?);
                let taps = [self.rows.backward.taps, self.columns.backward.taps];
                cuda::launch(&gpu, [&rows, &columns], taps, dy, &mut dx)?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// Every filter up and down, edges and parts, whole packs, several blocks; the shrinking behind a network of 4
/// times the size, the padding before one that eats its borders.
pub fn cases() -> Vec<OpCase> {
    let case = |shape: [usize; 4], rows: Arc<Axis>, columns: Arc<Axis>| {
        let op = Resample { rows, columns };
        OpCase::new(move || op.clone(), &[&shape])
    };
    let scaled = |shape: [usize; 4], [over, under]: [usize; 2], filter: Filter| {
        let [rows, columns] = [shape[1], shape[2]]
            .map(|side| Axis::scaled(side, side * over / under, [over, under], filter));
        case(shape, rows, columns)
    };
    vec![
        scaled([2, 4, 8, 3], [3, 4], Filter::Cubic),
        scaled([1, 3, 1, 2], [5, 2], Filter::Cubic),
        scaled([2, 3, 5, 2], [3, 1], Filter::Nearest),
        scaled([1, 7, 5, 2], [1, 2], Filter::Nearest),
        scaled([1, 3, 4, 8], [5, 2], Filter::Linear),
        scaled([1, 5, 6, 1], [1, 2], Filter::Linear),
        case([2, 3, 4, 3], Axis::edges(3, 2, 5), Axis::edges(4, 0, 1)),
        case([1, 5, 6, 4], Axis::part(5, 1, 3), Axis::part(6, 2, 4)),
        case([2, 1, 1, 3], Axis::edges(1, 0, 2), Axis::edges(1, 1, 2)),
        scaled([1, 24, 28, 5], [3, 4], Filter::Cubic).kernel_only(),
        scaled([1, 12, 17, 16], [4, 1], Filter::Cubic).kernel_only(),
        scaled([1, 512, 512, 3], [1, 2], Filter::Cubic).timed_only(),
        case([1, 256, 256, 3], Axis::edges(256, 18, 18), Axis::edges(256, 18, 18)).timed_only(),
        case([1, 256, 256, 64], Axis::part(256, 1, 254), Axis::part(256, 1, 254)).timed_only(),
    ]
}

mod cuda {
    use super::Placed;
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::tensor::Tensor;
    use crate::error::Result;

    pub(super) fn launch(
        gpu: &Gpu,
        [rows, columns]: [&Placed; 2],
        [row_taps, column_taps]: [usize; 2],
        x: &Tensor,
        y: &mut Tensor,
    ) -> Result<()> {
        let [_, h, w, c] = x.nhwc("resample")?;
        let [_, height, width, _] = y.nhwc("resample")?;
        let (n, grid) = (y.len(), Grid::packs(y.len(), y.dtype()));
        kernels::resample {
            x,
            y,
            n,
            h,
            w,
            c,
            height,
            width,
            rows: &rows.index,
            row_weights: &rows.weight,
            row_taps,
            columns: &columns.index,
            column_weights: &columns.weight,
            column_taps,
        }
        .launch(gpu, grid)
    }
}

mod cpu {
    use super::Table;
    use crate::engine::device::Real;
    use crate::ops::parallel::rows_with;

    /// `x` has images of `h` rows and `w` columns.
    pub(super) fn apply<T: Real>(
        [rows, columns]: [&Table; 2],
        [h, w, c]: [usize; 3],
        x: &[T],
        y: &mut [T],
    ) {
        let (height, width) = (rows.taken.len() / rows.taps, columns.taken.len() / columns.taps);
        rows_with(y, width * c, w * c, |r, y, line| {
            let row = |i: usize| &x[(r / height * h + i) * w * c..][..w * c];
            match *rows.of_position(r % height) {
                [(at, 1.0)] => across(columns, c, row(at), y),
                ref taps => {
                    mix(line, taps, row);
                    across(columns, c, line, y);
                }
            }
        });
    }

    fn across<T: Real>(columns: &Table, c: usize, line: &[T], y: &mut [T]) {
        for (j, y) in y.chunks_exact_mut(c).enumerate() {
            match *columns.of_position(j) {
                [(at, 1.0)] => y.copy_from_slice(&line[at * c..][..c]),
                ref taps => mix(y, taps, |at| &line[at * c..][..c]),
            }
        }
    }

    fn mix<'a, T: Real>(y: &mut [T], taps: &[(usize, f64)], x: impl Fn(usize) -> &'a [T]) {
        y.fill(T::default());
        for &(at, weight) in taps {
            let weight = T::from_f64(weight);
            y.iter_mut().zip(x(at)).for_each(|(y, &x)| *y += weight * x);
        }
    }
}
