//! Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as
//! easy as 1, 2, 3").
//!
//! A number is a function of (seed, purpose, step, position), never of what was drawn before. So a
//! tile draws the noise of its own pixels, a resumed run continues the same stream, and threads or
//! devices cannot change a result.
use std::f64::consts::TAU;

/// What a stream of numbers is for: streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Noise of a sampling step; position is the output pixel.
    Sampling = 1,
    /// Initial weights; position counts elements.
    Weights = 2,
    /// Which crops, flips and rotations a training step sees.
    Crops = 3,
    /// Diffusion steps t of a training batch.
    Timesteps = 4,
    /// Noise of a training batch.
    TrainingNoise = 5,
    /// Validation crops and noise.
    Validation = 6,
    /// Inputs of tests and benches.
    Test = 7,
    /// What damages the low-resolution side of a training crop.
    Degradation = 8,
    /// Which part of a batch perceptual losses see.
    PerceptualCrop = 9,
}

/// One Philox 4x32-10 block: 128 random bits from a 128-bit counter and a 64-bit key.
#[inline(always)] // Into loops that are compiled for wide vectors.
pub const fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let mut round = 0;
    while round < 10 {
        let a = counter[0] as u64 * 0xD251_1F53;
        let b = counter[2] as u64 * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            (b & 0xFFFF_FFFF) as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            (a & 0xFFFF_FFFF) as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        round += 1;
    }
    counter
}

/// A source of random numbers for one (seed, purpose, step).
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: [u32; 2],
    purpose: u32,
    step: u32,
}

impl Stream {
    /// The stream of `purpose` at `step` under `seed`. Steps count modulo 2^32.
    pub const fn new(seed: u64, purpose: Purpose, step: u64) -> Self {
        let key = [(seed & 0xFFFF_FFFF) as u32, (seed >> 32) as u32];
        Self { key, purpose: purpose as u32, step: (step & 0xFFFF_FFFF) as u32 }
    }

    /// The stream of the same seed and purpose `steps` later.
    pub const fn later(self, steps: u32) -> Self {
        Self { step: self.step.wrapping_add(steps), ..self }
    }

    /// Seed, purpose and step, for kernels.
    pub(crate) const fn parts(&self) -> (u64, u32, u32) {
        (self.key[0] as u64 | (self.key[1] as u64) << 32, self.purpose, self.step)
    }

    /// 128 random bits of position `(x, y)`.
    #[inline(always)]
    pub const fn bits(&self, x: u32, y: u32) -> [u32; 4] {
        philox([x, y, self.step, self.purpose], self.key)
    }

    /// Numbers drawn one after the other, for uses without a natural position.
    pub const fn sequence(self) -> Sequence {
        Sequence { stream: self, next: 0 }
    }
}

#[allow(clippy::cast_possible_truncation)] // f64 -> f32 after the transcendental functions.
#[inline]
fn box_muller(u: u32, v: u32) -> [f32; 2] {
    // u in (0, 1]: the logarithm stays finite.
    let radius = (-2.0 * ((f64::from(u) + 1.0) / 4_294_967_296.0).ln()).sqrt();
    let (sin, cos) = (TAU * (f64::from(v) / 4_294_967_296.0)).sin_cos();
    [(radius * cos) as f32, (radius * sin) as f32]
}

/// Sequential draws from a [`Stream`].
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    stream: Stream,
    next: u64,
}

impl Sequence {
    #[inline]
    fn bits(&mut self) -> [u32; 4] {
        let at = self.next;
        self.next += 1;
        self.stream.bits((at & 0xFFFF_FFFF) as u32, (at >> 32) as u32)
    }

    /// A number in `[0, 1)` with 53 random bits.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        let [a, b, ..] = self.bits();
        ((u64::from(a) << 32 | u64::from(b)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// An index below `n`, which is at least 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        ((self.uniform() * n as f64) as usize).min(n - 1)
    }

    /// A standard normal number.
    #[inline]
    pub fn normal(&mut self) -> f32 {
        let [a, b, ..] = self.bits();
        box_muller(a, b)[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let mut sequence = Stream::new(7, Purpose::Test, 0).sequence();
        let all: Vec<f64> = (0..200_000).map(|_| f64::from(sequence.normal())).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let var = all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / all.len() as f64;
        assert!(mean.abs() < 0.01 && (var - 1.0).abs() < 0.01, "mean {mean}, variance {var}");
    }
}
