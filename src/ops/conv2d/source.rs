//! What the convolutions of the processor read, and where their tasks write.

/// A map whose channels are some of those that a convolution reads.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) x: &'a [f32],
    pub(super) channels: usize,
}

/// A pointer into what several threads write.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub(super) *mut f32);
// SAFETY: threads write disjoint positions of what it points to.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The pointer; a method, so that closures capture the whole wrapper.
    pub(super) const fn get(self) -> *mut f32 {
        self.0
    }
}
