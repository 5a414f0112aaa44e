//! What the CPU code does to the sums of a convolution before it writes them.
use crate::ops::simd::vectorized;

/// What follows a convolution.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) enum After<'a, T> {
    Nothing,
    /// `max(x, 0)`.
    Relu,
    /// Times a slope where it is not positive: one for all, or one for each channel.
    Slopes(&'a [T]),
}

impl<T> After<'_, T> {
    pub(super) const fn of(relu: bool) -> Self {
        if relu { Self::Relu } else { Self::Nothing }
    }
}

/// The same with a bias, and channels padded.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) struct Finish {
    pub(super) bias: Vec<f32>,
    pub(super) relu: bool,
    /// Empty for none.
    slopes: Vec<f32>,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Finish {
    pub(super) fn new(bias: Option<&[f32]>, then: After<'_, f32>, channels: usize) -> Self {
        let mut bias = bias.map_or_else(Vec::new, <[f32]>::to_vec);
        bias.resize(channels, 0.0);
        let mut slopes = match then {
            After::Slopes(&[slope]) => vec![slope; channels],
            After::Slopes(slopes) => slopes.to_vec(),
            After::Nothing | After::Relu => Vec::new(),
        };
        if !slopes.is_empty() {
            slopes.resize(channels, 0.0);
        }
        Self { bias, relu: matches!(then, After::Relu), slopes }
    }

    /// The slopes, or null.
    pub(super) const fn slopes(&self) -> *const f32 {
        if self.slopes.is_empty() { std::ptr::null() } else { self.slopes.as_ptr() }
    }
}

vectorized! {
    /// What becomes of `columns` sums of each row, of channels from `channel` on: rows are `pitch` apart in `sums`, `stride`
    /// in `y`. Not `max`, which would turn NaN into 0.
    pub(super) fn finish_rows(
        sums: &[f32],
        pitch: usize,
        y: &mut [f32],
        stride: usize,
        columns: usize,
        finish: &Finish,
        channel: usize,
    ) {
        let bias = &finish.bias[channel..][..columns];
        let slopes = finish.slopes.get(channel..channel + columns).unwrap_or_default();
        for (sums, y) in sums.chunks(pitch).zip(y.chunks_mut(stride)) {
            let (sums, y) = (&sums[..columns], &mut y[..columns]);
            for i in 0..columns {
                y[i] = sums[i] + bias[i];
            }
            if finish.relu {
                for y in &mut *y {
                    *y = if *y < 0.0 { 0.0 } else { *y };
                }
            }
            for (y, &slope) in y.iter_mut().zip(slopes) {
                *y = if *y <= 0.0 { slope * *y } else { *y };
            }
        }
    }
}
