//! Positions and sizes from one type of number to another, and indices beyond an edge.
/// Index `i` held inside `0..len`.
pub(super) fn clamp(i: i64, len: usize) -> usize {
    usize::try_from(i).unwrap_or(0).min(len - 1)
}

/// Index `i` mirrored at both edges, the edge sample repeated: ... 1 0 | 0 1 2 ...
pub(super) fn mirror(i: i64, len: usize) -> usize {
    let period = 2 * signed(len);
    let i = i.rem_euclid(period);
    clamp(i.min(period - 1 - i), len)
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
pub(super) fn real(v: usize) -> f64 {
    v as f64
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
pub(super) fn signed_real(v: i64) -> f64 {
    v as f64
}

pub(super) fn signed(v: usize) -> i64 {
    i64::try_from(v).unwrap_or(i64::MAX)
}

/// `v` truncated; negative is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
pub(super) fn whole(v: f64) -> usize {
    v as usize
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
pub(super) fn floor(v: f64) -> i64 {
    v.floor() as i64
}
