//! What a caller may ask of the convolutions of the processor.
use std::cell::Cell;

thread_local! {
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

pub(super) fn wanted_rows() -> Option<[usize; 2]> {
    WANTED.get()
}
