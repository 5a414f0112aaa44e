//! Exponential moving average of parameters: `average <- decay average + (1 - decay) value`.
use super::parallel::zip2;

/// Moves `average` towards `value`, both of one length.
#[allow(clippy::cast_possible_truncation)] // The constant is narrowed once.
pub fn ema(average: &mut [f32], value: &[f32], decay: f64) {
    // The difference form: an average that equals the value stays equal, whatever decay rounds to.
    let take = (1.0 - decay) as f32;
    zip2(average, value, move |a, &v| *a += take * (v - *a));
}
