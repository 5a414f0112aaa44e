#!/usr/bin/env bash
# The Rust package gemm adds up a product of at most 256 elements in another order than a larger one (dot products along
# the inner dimension, where both factors lie along it in memory). An element of a product has then other bits depending
# on how many columns are asked for: whoever cuts a convolution into tiles and multiplies what is left of a row gets
# other bits at the edges than from the whole picture.
#
# Seen with gemm 0.19.0 on x86-64 with AVX2 and with AVX-512: of the first 20 columns of an 8x40 product with an inner
# size of 72 many elements differ from those of the 8x20 product of the same data, by a rounding.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "columns"
version = "0.0.0"
edition = "2021"
[dependencies]
gemm = "=0.19.0"
TOML
cat > "$folder/src/main.rs" <<'RS'
use gemm::Parallelism;

const ROWS: usize = 8;
const INNER: usize = 72;

/// Columns of the product, each of ROWS elements; the factors lie along the inner dimension.
fn product(left: &[f32], right: &[f32], columns: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; ROWS * columns];
    let (rows, inner) = (ROWS as isize, INNER as isize);
    // The pointers are to whole matrices of these sizes.
    unsafe {
        gemm::gemm(
            ROWS, columns, INNER, out.as_mut_ptr(), rows, 1, false, left.as_ptr(), 1, inner,
            right.as_ptr(), inner, 1, 0.0, 1.0, false, false, false, Parallelism::None,
        );
    }
    out
}

fn main() {
    let value = |i: usize| ((i * 7919 + i / 31 * 104_729) % 1000) as f32 / 500.0 - 1.0;
    let left: Vec<f32> = (0..ROWS * INNER).map(value).collect();
    let right: Vec<f32> = (0..40 * INNER).map(|i| value(i + 12_345)).collect();
    let (many, few) = (product(&left, &right, 40), product(&left, &right, 20));
    let pairs = || many.iter().zip(&few);
    let differ = pairs().filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    let most = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{differ} of {} elements differ, by {most:e} at most", few.len());
    std::process::exit(i32::from(differ == 0 || most > 1e-4));
}
RS
cargo run -q --release --manifest-path "$folder/Cargo.toml" || { echo "changed"; exit 1; }
echo "as described"
