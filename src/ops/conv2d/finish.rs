//! What the CPU code does to the sums of a convolution before it writes them.

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

    /// The slopes from that channel on, if there are any.
    pub(super) fn slopes_of(&self, channel: usize) -> &[f32] {
        self.slopes.get(channel..).unwrap_or_default()
    }

    /// What becomes of the sum `v`. Not `max`, which would turn NaN into 0.
    #[inline]
    pub(super) fn of(&self, channel: usize, v: f32) -> f32 {
        let v = v + self.bias[channel];
        match self.slopes.get(channel) {
            Some(slope) if v <= 0.0 => slope * v,
            None if self.relu && v < 0.0 => 0.0,
            _ => v,
        }
    }
}
