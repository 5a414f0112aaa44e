//! What the products of ops are computed in.
use std::cell::Cell;

/// What products on the CPU are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// f32, with the same bits on every processor that has AVX2.
    #[default]
    F32,
    /// bf16 operands and f32 sums: convolutions.
    Bf16,
    /// f32 as plain sums, convolutions too: two digits more than the transforms of the fast path leave, and several times
    /// slower. For comparisons where a sign near zero matters.
    Plain,
}

thread_local! {
    static PRODUCTS: Cell<Products> = const { Cell::new(Products::F32) };
}

/// What the ops that this thread starts multiply in.
pub(crate) fn products() -> Products {
    PRODUCTS.get()
}

/// Runs `body`, whose ops multiply in `wanted`.
pub fn with_products<R>(wanted: Products, body: impl FnOnce() -> R) -> R {
    struct Before(Products);
    impl Drop for Before {
        fn drop(&mut self) {
            PRODUCTS.set(self.0);
        }
    }
    let _before = Before(PRODUCTS.replace(wanted));
    body()
}
