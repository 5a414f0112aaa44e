//! What a network can be told of the damage to a low-resolution image.
//!
//! ```text
//! [known, (100 - quality) / 70,  known, noise / 16,  known, blur / 2]     known is 1, or 0 with a 0 behind it
//! ```

/// Numbers that a network is told of each image.
pub const TOLD: usize = 6;

/// More noise than this is told as this much: networks have met no more (`noise_range2` of the preset `photo`), and of more
/// one call makes what is no longer the picture. Of a photograph with noise of 40, told this much, `srk-photo-x4` is 0.6 dB
/// nearer to the truth.
const MOST_NOISE: f32 = 14.0;

/// The damage to one image; what is not known is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Damage {
    /// The quality of its last JPEG compression, 1..=100 on the scale of the Independent JPEG Group; 100 for what
    /// was never compressed.
    pub jpeg_quality: Option<f32>,
    /// The standard deviation of its noise, in levels of 0..=255.
    pub noise: Option<f32>,
    /// The root mean square width of its blur, in its own pixels.
    pub blur: Option<f32>,
}

impl Damage {
    /// None at all.
    pub const CLEAN: Self = Self { jpeg_quality: Some(100.0), noise: Some(0.0), blur: None };

    /// As the network is told.
    pub fn told(&self) -> [f32; TOLD] {
        let pair = |value: Option<f32>| value.map_or([0.0, 0.0], |v| [1.0, v]);
        let quality = pair(self.jpeg_quality.map(|q| (100.0 - q.clamp(1.0, 100.0)) / 70.0));
        let noise = pair(self.noise.map(|n| n.clamp(0.0, MOST_NOISE) / 16.0));
        let blur = pair(self.blur.map(|b| b.clamp(0.0, 8.0) / 2.0));
        [quality, noise, blur].concat().try_into().unwrap_or([0.0; TOLD])
    }

    /// The same damage `strength` times: 0 claims that there is none, 1 leaves it. What is not known stays so.
    pub fn scaled(&self, strength: f32) -> Self {
        Self {
            jpeg_quality: self.jpeg_quality.map(|q| (100.0 - (100.0 - q) * strength).max(1.0)),
            noise: self.noise.map(|n| n * strength),
            blur: self.blur,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_and_what_is_not_are_told_apart() {
        assert_eq!(Damage::default().told(), [0.0; TOLD]);
        let clean = Damage { jpeg_quality: Some(100.0), noise: Some(0.0), blur: None };
        assert_eq!(clean.told(), [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        let web = Damage { jpeg_quality: Some(30.0), noise: Some(8.0), blur: Some(1.0) };
        assert_eq!(web.told(), [1.0, 1.0, 1.0, 0.5, 1.0, 0.5]);
        let half = web.scaled(0.5);
        assert_eq!((half.jpeg_quality, half.noise, half.blur), (Some(65.0), Some(4.0), Some(1.0)));
    }
}
