//! Memory of a thread for rounded copies.
use std::cell::RefCell;

thread_local! {
    /// Kept, so that no task pays for fresh pages; aligned to a cache line as pieces of 32 numbers.
    static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// A cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u16; 32]);

// SAFETY: an array of numbers without padding.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Line {}

/// Runs `body` with so many numbers of this thread's memory, whose content is unspecified; they begin at a cache line.
pub(in crate::ops) fn with_scratch(numbers: usize, body: impl FnOnce(&mut [u16])) {
    SCRATCH.with_borrow_mut(|scratch| {
        let lines = numbers.div_ceil(32);
        if scratch.len() < lines {
            scratch.resize(lines, Line([0; 32]));
        }
        body(&mut bytemuck::cast_slice_mut(&mut scratch[..lines])[..numbers]);
    });
}
