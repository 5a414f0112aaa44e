//! Products of numbers rounded to bf16, on the CPU: by the tile instructions of Intel's AMX, or by plain code that gives
//! the same bits.
//!
//! Maps, weights and what follows a product stay f32; both operands of a product are rounded to bf16 (nearest, ties to
//! even) and sums are kept in f32. An instruction multiplies 16 x 32 by 32 x 16 numbers and adds, for each of the sums,
//! even and odd products apart from zero, and then both (Intel SDM, TDPBF16PS); denormal numbers are zeros.
mod amx;
mod blocks;
mod mode;
mod operands;
mod round;
mod scratch;
mod transpose;
mod twin;
#[cfg(target_arch = "x86_64")]
mod twin_avx512;

pub(in crate::ops) use blocks::Blocks;
pub use blocks::is_fast;
pub(crate) use mode::products;
pub use mode::{Products, with_products};
pub(in crate::ops) use operands::{Left, Right, SIDE, Square};
pub(in crate::ops) use round::{round_apart, round_pairs, round_to};
pub(in crate::ops) use scratch::with_scratch;
pub(in crate::ops) use transpose::transpose;
#[cfg(target_arch = "x86_64")]
pub(in crate::ops) use transpose::x86::transpose_block;
