//! How CPU code is spread over threads: fixed chunks, so that no result depends on their number.
use crate::engine::device::Real;
use crate::engine::pool::Buffer;
use crate::engine::threads::{map, pieces};

/// Elements a task: large enough to hide the cost of a task, small enough for 8 threads at 64x64x64.
pub(crate) const CHUNK: usize = 1 << 14;

/// `f(y, x)` for every pair. What `f` holds by value stays in registers; behind a reference it would be read again for
/// every pair, by loops that are no vectors'.
pub(crate) fn zip2<T: Real>(y: &mut [T], x: &[T], f: impl Fn(&mut T, &T) + Sync + Copy) {
    chunks2(y, x, move |y, x| {
        let f = f;
        for i in 0..y.len().min(x.len()) {
            f(&mut y[i], &x[i]);
        }
    });
}

/// `f(y, x)` for pieces of both.
pub(crate) fn chunks2<T: Real>(y: &mut [T], x: &[T], f: impl Fn(&mut [T], &[T]) + Sync) {
    debug_assert_eq!(y.len(), x.len());
    pieces(y, CHUNK, |i, y| f(y, &x[i * CHUNK..][..y.len()]));
}

/// Copies all of `x`: one thread alone would have the others wait for memory.
pub(crate) fn copy<T: Real>(y: &mut [T], x: &[T]) {
    chunks2(y, x, <[T]>::copy_from_slice);
}

/// `f(y, a, b)` for every triple, as [`zip2`].
pub(crate) fn zip3<T: Real>(
    y: &mut [T],
    a: &[T],
    b: &[T],
    f: impl Fn(&mut T, &T, &T) + Sync + Copy,
) {
    debug_assert!(y.len() == a.len() && y.len() == b.len());
    pieces(y, CHUNK, move |i, y| {
        let (f, a, b) = (f, &a[i * CHUNK..][..y.len()], &b[i * CHUNK..][..y.len()]);
        for i in 0..y.len() {
            f(&mut y[i], &a[i], &b[i]);
        }
    });
}

/// `f(i, row)` for every row of `len` elements.
pub(crate) fn rows<T: Real>(y: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    rows_with(y, len, 0, |i, row, _| f(i, row));
}

/// As [`rows`], with `scratch` elements of unspecified value for each task.
pub(crate) fn rows_with<T: Real>(
    y: &mut [T],
    len: usize,
    scratch: usize,
    f: impl Fn(usize, &mut [T], &mut [T]) + Sync,
) {
    if y.is_empty() {
        return;
    }
    let per_task = (CHUNK / len).max(1);
    pieces(y, per_task * len, |task, rows| {
        let mut scratch = Buffer::new(scratch);
        for (k, row) in rows.chunks_mut(len).enumerate() {
            f(task * per_task + k, row, &mut scratch);
        }
    });
}

/// `f(at, part)` for every part of `len` elements, which starts at `at`; the last may be shorter.
pub(crate) fn chunks<T: Real>(y: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    pieces(y, len, |i, part| f(i * len, part));
}

/// The first of `x` that is infinite or NaN.
pub(crate) fn not_finite(x: &[f32]) -> Option<f32> {
    let chunk = |i: usize| &x[i * CHUNK..x.len().min((i + 1) * CHUNK)];
    // Without a way out within a chunk it is compiled to vectors.
    let all = |i: usize| chunk(i).iter().fold(true, |all, v| all & v.is_finite());
    let fine = map(x.len().div_ceil(CHUNK), all);
    let bad = fine.iter().position(|&fine| !fine)?;
    chunk(bad).iter().copied().find(|v| !v.is_finite())
}

/// Sum of `f(i)` over `0..n` in double precision, always added up in the same order.
pub(crate) fn sum(n: usize, f: impl Fn(usize) -> f64 + Sync) -> f64 {
    // Several sums at a time: one alone waits for every addition to finish.
    const LANES: usize = 8;
    let of_chunk = |start: usize| {
        let end = (start + CHUNK).min(n);
        let whole = start + (end - start) / LANES * LANES;
        let mut lanes = [0.0; LANES];
        for i in (start..whole).step_by(LANES) {
            for lane in 0..LANES {
                lanes[lane] += f(i + lane);
            }
        }
        for i in whole..end {
            lanes[i - whole] += f(i);
        }
        lanes.iter().sum::<f64>()
    };
    map(n.div_ceil(CHUNK), |i| of_chunk(i * CHUNK)).iter().sum()
}

/// The sum of each of `columns` columns of a row-major matrix, as [`sum`] adds up.
pub(crate) fn column_sums<T: Real>(x: &[T], columns: usize) -> Vec<f64> {
    let mut total = vec![0.0; columns];
    if x.is_empty() {
        return total;
    }
    let rows = (CHUNK / columns).max(1);
    let all: Vec<&[T]> = x.chunks(rows * columns).collect();
    let partial = map(all.len(), |i| {
        let mut sums = vec![0.0; columns];
        for row in all[i].chunks_exact(columns) {
            for c in 0..columns {
                sums[c] += row[c].to_f64();
            }
        }
        sums
    });
    for sums in &partial {
        total.iter_mut().zip(sums).for_each(|(t, s)| *t += s);
    }
    total
}

/// `sums[c] = sum of rows[.., c]`: some rows at a time in their own precision, the rest in f64.
pub(crate) fn sum_rows<T: Real>(rows: &[T], sums: &mut [T]) {
    const ROWS: usize = 128;
    let c = sums.len();
    let chunk = |rows: &[T]| {
        let mut total = vec![0.0; c];
        for rows in rows.chunks(ROWS * c) {
            let mut part = vec![T::default(); c];
            for row in rows.chunks_exact(c) {
                for i in 0..c {
                    part[i] += row[i];
                }
            }
            total.iter_mut().zip(&part).for_each(|(t, s)| *t += s.to_f64());
        }
        total
    };
    let all: Vec<&[T]> = rows.chunks((CHUNK / c).max(1) * c).collect();
    let partial = map(all.len(), |i| chunk(all[i]));
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = T::from_f64(partial.iter().map(|p| p[i]).sum());
    }
}

/// `rows[.., c] += v[c]`.
pub(crate) fn add_to_rows<T: Real>(rows: &mut [T], v: &[T]) {
    pieces(rows, (CHUNK / v.len()).max(1) * v.len(), |_, rows| {
        for row in rows.chunks_exact_mut(v.len()) {
            for c in 0..v.len() {
                row[c] += v[c];
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole numbers: sums are exact in any order.
    #[test]
    fn sums_of_many_chunks_miss_nothing() {
        let (rows, columns) = (2 * CHUNK + 7, 3);
        assert_eq!(sum(rows, |i| i as f64), (rows * (rows - 1) / 2) as f64);
        let x: Vec<f64> = (0..rows * columns).map(|i| (i % columns * i) as f64).collect();
        let expected = |c: usize| x.iter().skip(c).step_by(columns).sum::<f64>();
        assert_eq!(column_sums(&x, columns), [expected(0), expected(1), expected(2)]);
    }

    #[test]
    fn every_row_is_seen_once_under_its_number() {
        let (count, len) = (CHUNK, 3);
        let mut y = vec![f64::NAN; count * len];
        rows(&mut y, len, |i, row| row.fill(i as f64));
        assert!(y.iter().enumerate().all(|(at, &v)| v == (at / len) as f64));
    }
}
