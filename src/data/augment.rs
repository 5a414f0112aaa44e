//! What training changes about crops: symmetries of the square, colours, small turns.
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::folder::Rgb8;

/// `data.train.augment`: true or false for all symmetries or none, or a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Augment {
    /// All 8 symmetries of the square, or none.
    Symmetries(bool),
    /// One by one.
    Chosen(Changes),
}

/// The table form of [`Augment`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Changes {
    /// Whether crops are mirrored.
    pub flip: bool,
    /// Whether crops are turned by multiples of 90 degrees.
    pub rotate: bool,
    /// The largest angle by which crops are turned besides, in degrees; what lies outside the image is
    /// black, and pixels are taken from the nearest one.
    pub degrees: f64,
    /// How far colours change.
    pub jitter: Jitter,
}

impl Default for Changes {
    fn default() -> Self {
        Self { flip: true, rotate: true, degrees: 0.0, jitter: Jitter::default() }
    }
}

/// Changes of colour as torchvision's `ColorJitter` makes them, in random order: factors are drawn from
/// `1 - v` to `1 + v`, a turn of the hue from `-v` to `v`, where 1 is the whole circle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jitter {
    /// Of all channels.
    pub brightness: f64,
    /// Of the distance from the mean grey.
    pub contrast: f64,
    /// Of the distance from the pixel's grey.
    pub saturation: f64,
    /// At most 0.5.
    pub hue: f64,
}

impl Serialize for Augment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Symmetries(all) => to.serialize_bool(*all),
            Self::Chosen(changes) => changes.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Augment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Augment;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false, or a section with flip, rotate, degrees and jitter")
            }

            fn visit_bool<E>(self, all: bool) -> Result<Augment, E> {
                Ok(Augment::Symmetries(all))
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Augment, M::Error> {
                Changes::deserialize(MapAccessDeserializer::new(map)).map(Augment::Chosen)
            }
        }
        from.deserialize_any(Either)
    }
}

impl Augment {
    /// All of them, one by one.
    pub fn changes(self) -> Changes {
        match self {
            Self::Chosen(changes) => changes,
            Self::Symmetries(all) => Changes { flip: all, rotate: all, ..Changes::default() },
        }
    }

    /// What is wrong with the numbers, if anything.
    pub fn check(self) -> std::result::Result<(), String> {
        let Changes { degrees, jitter: j, .. } = self.changes();
        if !(0.0..=180.0).contains(&degrees) {
            return Err(format!("data.train.augment.degrees = {degrees} must lie in 0..=180"));
        }
        let ranges = [(j.brightness, 1.0), (j.contrast, 1.0), (j.saturation, 1.0), (j.hue, 0.5)];
        match ranges.iter().find(|(v, most)| !(0.0..=*most).contains(v)) {
            Some((v, most)) => {
                Err(format!("data.train.augment.jitter: {v} must lie in 0..={most}"))
            }
            None => Ok(()),
        }
    }
}

impl Changes {
    /// Whether pixels get other values, not only other places.
    pub fn changes_pixels(&self) -> bool {
        self.degrees != 0.0 || self.jitter != Jitter::default()
    }

    /// One of the symmetries that are on, by random bits: bit 0 mirrors left and right, bit 1 top and
    /// bottom, bit 2 exchanges rows and columns.
    pub const fn symmetry(&self, bits: u32) -> u32 {
        match (self.flip, self.rotate) {
            (true, true) => bits % 8,
            (true, false) => bits % 2,
            // None, half, and the two quarters.
            (false, true) => [0, 3, 5, 6][(bits % 4) as usize],
            (false, false) => 0,
        }
    }

    /// The angle by random bits, in degrees.
    pub fn angle(&self, bits: u32) -> f64 {
        symmetric(bits) * self.degrees
    }

    /// Changes the colours by 160 random bits.
    pub fn recolor(&self, image: &mut Rgb8, [order, bits @ ..]: [u32; 5]) {
        let j = self.jitter;
        let amounts = [j.brightness, j.contrast, j.saturation, j.hue];
        let mut pixels: Vec<[f64; 3]> = {
            let (chunks, _) = image.pixels.as_chunks::<3>();
            chunks.iter().map(|p| p.map(|v| f64::from(v) / 255.0)).collect()
        };
        for change in permutation(order) {
            if amounts[change] == 0.0 {
                continue;
            }
            let drawn = symmetric(bits[change]) * amounts[change];
            let mean = || pixels.iter().map(grey).sum::<f64>() / pixels.len().max(1) as f64;
            let mean = if change == 1 { mean() } else { 0.0 };
            for p in &mut pixels {
                *p = match change {
                    3 => turned(*p, drawn),
                    2 => blend(*p, grey(p), 1.0 + drawn),
                    // Towards black, or the mean grey.
                    _ => blend(*p, mean, 1.0 + drawn),
                };
            }
        }
        let stored = |v: f64| (v * 255.0).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0..=255")]
        let bytes = pixels.iter().flatten().map(|&v| stored(v) as u8).collect();
        image.pixels = bytes;
    }
}

/// From `-1` to `1`.
fn symmetric(bits: u32) -> f64 {
    f64::from(bits) / f64::from(u32::MAX) * 2.0 - 1.0
}

/// One of the 24 orders of four things.
const fn permutation(bits: u32) -> [usize; 4] {
    let mut order = [0, 1, 2, 3];
    let mut left = (bits % 24) as usize;
    let mut i = 3;
    while i > 0 {
        order.swap(i, left % (i + 1));
        left /= i + 1;
        i -= 1;
    }
    order
}

fn grey(p: &[f64; 3]) -> f64 {
    0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]
}

fn blend(p: [f64; 3], with: f64, factor: f64) -> [f64; 3] {
    p.map(|v| (with + (v - with) * factor).clamp(0.0, 1.0))
}

/// The colour with its hue turned, saturation and value (of HSV) kept.
fn turned([r, g, b]: [f64; 3], by: f64) -> [f64; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let range = most - least;
    if range == 0.0 {
        return [r, g, b];
    }
    let sixths = match () {
        () if most == r => (g - b) / range,
        () if most == g => 2.0 + (b - r) / range,
        () => 4.0 + (r - g) / range,
    };
    let hue = (sixths + 6.0 * by).rem_euclid(6.0);
    // How far a channel is from full, by its distance from the hue on the circle.
    let channel = |at: f64| {
        let k = (at + hue).rem_euclid(6.0);
        most - range * k.min(4.0 - k).clamp(0.0, 1.0)
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

/// The part of `width` x `height` pixels whose top left pixel is `(x, y)`, of `image` turned about the
/// middle of that part.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked against the sides"
)]
pub fn cut_turned(image: &Rgb8, [x, y, width, height]: [usize; 4], degrees: f64) -> Rgb8 {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (middle_x, middle_y) = ((width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0);
    let mut pixels = vec![0; width * height * 3];
    for (i, out) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (dx, dy) = ((i % width) as f64 - middle_x, (i / width) as f64 - middle_y);
        let from_x = (x as f64 + middle_x + cos * dx - sin * dy).round();
        let from_y = (y as f64 + middle_y + sin * dx + cos * dy).round();
        let inside = |v: f64, side: usize| v >= 0.0 && v < side as f64;
        if inside(from_x, image.width) && inside(from_y, image.height) {
            let at = (from_y as usize * image.width + from_x as usize) * 3;
            out.copy_from_slice(&image.pixels[at..at + 3]);
        }
    }
    Rgb8 { width, height, pixels }
}
