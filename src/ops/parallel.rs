//! How CPU code is spread over threads: fixed chunks, so that no result depends on their number.
use rayon::prelude::*;

use crate::engine::device::Real;

/// Elements a task: large enough to hide the cost of a task, small enough for 8 threads at 64x64x64.
pub(crate) const CHUNK: usize = 1 << 14;

/// `f(y, x)` for every pair.
pub(crate) fn zip2<T: Real>(y: &mut [T], x: &[T], f: impl Fn(&mut T, &T) + Sync) {
    debug_assert_eq!(y.len(), x.len());
    y.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .for_each(|(y, x)| y.iter_mut().zip(x).for_each(|(y, x)| f(y, x)));
}

/// `f(y, a, b)` for every triple.
pub(crate) fn zip3<T: Real>(y: &mut [T], a: &[T], b: &[T], f: impl Fn(&mut T, &T, &T) + Sync) {
    debug_assert!(y.len() == a.len() && y.len() == b.len());
    y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK)).for_each(
        |((y, a), b)| y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| f(y, a, b)),
    );
}

/// Sum of `f(i)` over `0..n` in double precision, always added up in the same order.
pub(crate) fn sum(n: usize, f: impl Fn(usize) -> f64 + Sync) -> f64 {
    let starts: Vec<usize> = (0..n).step_by(CHUNK).collect();
    let partial: Vec<f64> = starts
        .into_par_iter()
        .map(|start| (start..(start + CHUNK).min(n)).map(&f).sum::<f64>())
        .collect();
    partial.iter().sum()
}

/// `sums[c] = sum of rows[.., c]`: chunks side by side, then added up in their order.
pub(crate) fn sum_rows<T: Real>(rows: &[T], sums: &mut [T]) {
    let c = sums.len();
    let partial: Vec<Vec<f64>> = rows
        .par_chunks((CHUNK / c).max(1) * c)
        .map(|rows| {
            let mut sums = vec![0.0; c];
            for row in rows.chunks_exact(c) {
                for (s, v) in sums.iter_mut().zip(row) {
                    *s += v.to_f64();
                }
            }
            sums
        })
        .collect();
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = T::from_f64(partial.iter().map(|p| p[i]).sum());
    }
}

/// `rows[.., c] += v[c]`.
pub(crate) fn add_to_rows<T: Real>(rows: &mut [T], v: &[T]) {
    rows.par_chunks_mut((CHUNK / v.len()).max(1) * v.len()).for_each(|rows| {
        for row in rows.chunks_exact_mut(v.len()) {
            for (a, &b) in row.iter_mut().zip(v) {
                *a += b;
            }
        }
    });
}
