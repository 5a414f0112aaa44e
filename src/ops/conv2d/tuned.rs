//! What a caller may ask of the convolutions of the processor.
use super::fast;

/// Runs `body`, whose convolutions of single images on the CPU may leave all output rows but those from `rows[0]` to
/// `rows[1]` undefined: what a caller would throw away need not be computed.
pub fn rows_alone<R>(rows: [usize; 2], body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        fast::rows_alone(rows, body)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = rows;
        body()
    }
}

/// Runs `body` with convolutions of the CPU as plain sums: two digits of f32 more than the transforms of
/// the fast path leave, and several times slower. For comparisons where a sign near zero matters.
pub fn precisely<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    return fast::precisely(body);
    #[cfg(not(target_arch = "x86_64"))]
    body()
}
