//! Every product has the bits of one loop per element, whatever its shape, strides, tasks and instruction set.
#![allow(clippy::float_cmp, clippy::unwrap_used)]
use super::calls::multiply_into;
use super::kernels::{Kernels, kernels_of};
use super::packed::Right;
use super::*;
use crate::engine::device::Real;
use crate::ops::simd::{Lane, Level, level};

/// The levels that this processor has.
fn levels() -> impl Iterator<Item = Level> {
    [Level::Portable, Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= level())
}

/// Numbers of many magnitudes, so that another order of sums has other bits.
fn numbers<T: Real>(seed: u64, len: usize) -> Vec<T> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 24) - 0.5
    };
    (0..len).map(|_| T::from_f64(next() * (12.0 * next()).exp())).collect()
}

/// What the module promises of the length of blocks, whatever the code says.
const BLOCK: usize = 256;

/// The promise of the module, to the letter.
fn element<T: Lane>(
    level: Level,
    start: Option<T>,
    inner: usize,
    ab: impl Fn(usize) -> (T, T),
) -> T {
    let fused = level != Level::Portable || cfg!(target_arch = "aarch64");
    let mut total = start;
    for first in (0..inner).step_by(BLOCK) {
        let mut sum = T::default();
        for (a, b) in (first..inner.min(first + BLOCK)).map(&ab) {
            sum = if fused { a.fma::<true>(b, sum) } else { a.fma::<false>(b, sum) };
        }
        total = Some(total.map_or(sum, |total| total + sum));
    }
    total.unwrap_or_default()
}

fn bits<T: Real>(x: T) -> u64 {
    x.to_f64().to_bits()
}

/// Compares `a b` of these views with `expected(i, j)`, and what lies between the rows of y with what was there.
fn check<'b, T: Real>(
    kernels: &Kernels<T>,
    [m, n]: [usize; 2],
    a: Matrix<T>,
    b: impl Into<Right<'b, T>>,
    start: Option<&dyn Fn(usize, usize) -> T>,
    expected: &dyn Fn(usize, usize) -> T,
) {
    let stride = n + 3;
    let untouched = T::from_f64(-77.0);
    let mut y = vec![untouched; m * stride];
    for i in 0..m {
        for j in 0..n {
            y[i * stride + j] = start.map_or(T::from_f64(f64::NAN), |start| start(i, j));
        }
    }
    // SAFETY: y has m rows, `stride` apart, and nobody else sees them.
    unsafe { multiply_into(kernels, y.as_mut_ptr(), stride, a, b.into(), start.is_some()) };
    for (at, &y) in y.iter().enumerate() {
        let (i, j) = (at / stride, at % stride);
        let expected = if j < n { expected(i, j) } else { untouched };
        assert_eq!(bits(y), bits(expected), "element ({i}, {j}) of {m} x {n}: {y:?}, {expected:?}");
    }
}

/// All sizes are corners of one product: an element has the same bits in each.
fn all_sizes<T: Lane>(largest: usize, inners: &[usize]) {
    for (level, &inner) in levels().flat_map(|l| inners.iter().map(move |k| (l, k))) {
        let kernels = kernels_of::<T>(level);
        let (a, b) = (numbers::<T>(1, largest * inner), numbers::<T>(2, largest * inner));
        let of = |i: usize, j: usize| {
            element(level, None, inner, |k| (a[i * inner + k], b[k * largest + j]))
        };
        let whole: Vec<T> =
            (0..largest * largest).map(|at| of(at / largest, at % largest)).collect();
        let expected = |i: usize, j: usize| whole[i * largest + j];
        let rows = Matrix::new(&a, largest, inner);
        let columns = Matrix::new(&b, inner, largest);
        for (m, n) in (1..=largest).flat_map(|m| (1..=largest).map(move |n| (m, n))) {
            check(kernels, [m, n], rows.rows(0, m), columns.columns(0, n), None, &expected);
        }
    }
}

#[test]
fn no_size_changes_an_element() {
    all_sizes::<f32>(70, &[1, 17]);
    all_sizes::<f32>(35, &[BLOCK + 1]);
    all_sizes::<f64>(35, &[1, 17, BLOCK + 1]);
}

/// As rows, columns, and neither, of sums that are written and added, from parts that begin anywhere, packed or not.
fn all_strides<T: Lane>() {
    let sizes = [1, 2, 5, 6, 7, 14, 15, 16, 17, 31, 33, 64, 65];
    let inners = [1, 8, BLOCK - 1, BLOCK, 2 * BLOCK + 37];
    for level in levels() {
        let kernels = kernels_of::<T>(level);
        for (at, (m, n)) in sizes.iter().flat_map(|&m| sizes.map(|n| (m, n))).enumerate() {
            let inner = inners[at % 5];
            let strided = |which: usize, [rows, columns]: [usize; 2]| match which {
                0 => [columns, 1],
                1 => [1, rows],
                2 => [columns + 5, 1],
                _ => [2 * columns + 1, 2],
            };
            let (of_a, of_b) = (strided(at % 4, [m, inner]), strided(at / 4 % 4, [inner, n]));
            let len = |[rows, columns]: [usize; 2], s: [usize; 2]| {
                (rows - 1) * s[0] + (columns - 1) * s[1] + 1
            };
            let a = numbers::<T>(3, len([m, inner], of_a));
            let b = numbers::<T>(4, len([inner, n], of_b));
            let (left, right) =
                (Matrix::strided(&a, [m, inner], of_a), Matrix::strided(&b, [inner, n], of_b));
            let begin = |i: usize, j: usize| T::from_f64((i * 7 + j) as f64 / 16.0 - 3.0);
            let of = |start: bool| {
                let of = |i: usize, j: usize| {
                    let ab =
                        |k: usize| (a[i * of_a[0] + k * of_a[1]], b[k * of_b[0] + j * of_b[1]]);
                    element(level, start.then(|| begin(i, j)), inner, ab)
                };
                let all: Vec<T> = (0..m * n).map(|at| of(at / n, at % n)).collect();
                move |i: usize, j: usize| all[i * n + j]
            };
            let packed = Packed::with(kernels, right);
            let (written, added) = (of(false), of(true));
            check(kernels, [m, n], left, right, None, &written);
            check(kernels, [m, n], left, right, Some(&begin), &added);
            check(kernels, [m, n], left, &packed, Some(&begin), &added);
            let (i, j) = (m / 3, n / 2);
            let part = [left.rows(i, m - i).columns(0, inner), right.columns(j, n - j)];
            check(kernels, [m - i, n - j], part[0], part[1], None, &|y, x| written(y + i, x + j));
        }
    }
}

#[test]
fn no_stride_changes_an_element() {
    all_strides::<f32>();
    all_strides::<f64>();
}

#[test]
fn every_way_of_splitting_gives_the_same_bits() {
    for (m, k, n) in [
        (70, 3, 515),
        (1, 700, 300),
        (16, 2000, 130),
        (200, 300, 33),
        (64, 40, 2000),
        (130, 90, 3),
        (300, 260, 1),
    ] {
        let (a, b) = (numbers::<f32>(5, m * k), numbers::<f32>(6, n * k));
        let of = |at: usize| element(level(), None, k, |l| (a[at / n * k + l], b[at % n * k + l]));
        let expected: Vec<u64> = (0..m * n).map(|at| bits(of(at))).collect();
        let add = |y: &mut [f32], a: Matrix<'_, f32>, b: Matrix<'_, f32>| {
            y.fill(-0.0);
            add_columns(y, a, b);
        };
        for multiply in [multiply::<f32>, multiply_rows::<f32>, multiply_columns::<f32>, add] {
            let mut y = vec![f32::NAN; m * n];
            multiply(&mut y, Matrix::new(&a, m, k), Matrix::new(&b, n, k).t());
            let found: Vec<u64> = y.iter().map(|&y| bits(y)).collect();
            assert!(found == expected, "{m} x {k} x {n}");
        }
    }
}

#[test]
fn products_without_elements() {
    for multiply in [multiply::<f32>, multiply_rows::<f32>, multiply_columns::<f32>] {
        multiply(&mut [], Matrix::new(&[], 0, 5), Matrix::new(&[1.0; 15], 5, 3));
        multiply(&mut [], Matrix::new(&[1.0; 10], 2, 5), Matrix::new(&[], 5, 0));
        multiply(&mut [], Matrix::new(&[1.0; 500], 100, 5), Matrix::new(&[], 5, 0));
        for m in [2, 100] {
            let mut y = vec![f32::NAN; m * 3];
            multiply(&mut y, Matrix::new(&[], m, 0), Matrix::new(&[], 0, 3));
            assert!(y.iter().all(|&y| bits(y) == 0), "{y:?}");
        }
    }
    let mut y = [1.0, 2.0, 3.0, 4.0];
    add_product(&mut y, 2, Matrix::new(&[], 2, 0), Matrix::new(&[], 0, 2));
    add_product(
        &mut y,
        2,
        Matrix::new(&[], 2, 0),
        &Packed::for_tasks(2, Matrix::new(&[], 0, 2)).unwrap(),
    );
    assert_eq!(y, [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn nothing_is_left_out() {
    for (level, bad) in levels().flat_map(|l| [f32::NAN, f32::INFINITY].map(|bad| (l, bad))) {
        for (m, n, k) in [(1, 1, 1), (3, 5, 9), (15, 33, 300)] {
            for at in [0, k / 2, k - 1] {
                // One bad number meets zeros alone: 0 times it is NaN in its row, or in its column.
                let mut a = vec![0.0; m * k];
                a[m / 2 * k + at] = bad;
                let (a, b) = (Matrix::new(&a, m, k), vec![0.0; k * n]);
                let of = |here: bool| if here { f32::NAN } else { 0.0 };
                let found = |a: Matrix<'_, f32>, b: Matrix<'_, f32>, [m, n]: [usize; 2]| {
                    let mut y = vec![0.0; m * n];
                    // SAFETY: y has m rows of n, and nobody else sees them.
                    unsafe {
                        multiply_into(kernels_of(level), y.as_mut_ptr(), n, a, b.into(), false)
                    };
                    y
                };
                for (i, y) in found(a, Matrix::new(&b, k, n), [m, n]).iter().enumerate() {
                    assert_eq!(y.is_nan(), of(i / n == m / 2).is_nan(), "{i}");
                }
                for (i, y) in found(Matrix::new(&b, k, n).t(), a.t(), [n, m]).iter().enumerate() {
                    assert_eq!(y.is_nan(), of(i % m == m / 2).is_nan(), "{i}");
                }
            }
        }
    }
}
