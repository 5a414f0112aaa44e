//! What a caller may ask of the convolutions of the processor.
use std::cell::Cell;

thread_local! {
    /// Whether convolutions that this thread starts are to be plain sums.
    static PRECISE: Cell<bool> = const { Cell::new(false) };
    /// The output rows that are wanted of convolutions that this thread starts.
    static WANTED: Cell<Option<[usize; 2]>> = const { Cell::new(None) };
}

/// Runs `body`, whose convolutions of single images on the CPU may leave all output rows but those from `rows[0]` to
/// `rows[1]` undefined: what a caller would throw away need not be computed.
pub fn rows_alone<R>(rows: [usize; 2], body: impl FnOnce() -> R) -> R {
    let before = WANTED.replace(Some(rows));
    let result = body();
    WANTED.set(before);
    result
}

/// Runs `body` with convolutions of the CPU as plain sums: two digits of f32 more than the transforms of
/// the fast path leave, and several times slower. For comparisons where a sign near zero matters.
pub fn precisely<R>(body: impl FnOnce() -> R) -> R {
    let before = PRECISE.replace(true);
    let result = body();
    PRECISE.set(before);
    result
}

pub(super) fn is_precise() -> bool {
    PRECISE.get()
}

pub(super) fn wanted_rows() -> Option<[usize; 2]> {
    WANTED.get()
}
