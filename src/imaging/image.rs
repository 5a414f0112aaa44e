//! An image in memory.
use super::color;
use super::metadata::Metadata;
use super::rect::Rect;
use crate::engine::threads;
use crate::error::{Error, Result};

/// An image in memory; [`validate`](Self::validate) tells whether the lengths fit together.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Gray (one channel) or RGB (three).
    pub color: Color,
    /// `[H, W, C]`, without alpha.
    pub samples: Samples,
    /// `[H, W]`, opaque = 255 or 65535, same depth as `samples`.
    pub alpha: Option<Samples>,
    /// What the file said beside its pixels.
    pub metadata: Metadata,
}

/// The channels of an [`Image`], alpha not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// One channel.
    Gray,
    /// Red, green, blue.
    Rgb,
}

impl Color {
    /// 1 or 3.
    pub fn channels(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Rgb => 3,
        }
    }
}

/// Bits per sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// 0..=255.
    Eight,
    /// 0..=65535.
    Sixteen,
}

impl Depth {
    /// 1 or 2.
    pub fn bytes(self) -> usize {
        match self {
            Self::Eight => 1,
            Self::Sixteen => 2,
        }
    }
}

/// Samples as stored, interleaved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Samples {
    /// 0..=255.
    U8(Vec<u8>),
    /// 0..=65535.
    U16(Vec<u16>),
}

impl Samples {
    /// `len` samples of value 0.
    pub fn zeros(depth: Depth, len: usize) -> Self {
        match depth {
            Depth::Eight => Self::U8(vec![0; len]),
            Depth::Sixteen => Self::U16(vec![0; len]),
        }
    }

    /// Samples held.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::U16(v) => v.len(),
        }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bits per sample.
    pub fn depth(&self) -> Depth {
        match self {
            Self::U8(_) => Depth::Eight,
            Self::U16(_) => Depth::Sixteen,
        }
    }

    /// Sample `i` in [0, 1].
    ///
    /// # Panics
    /// If `i` is out of range.
    pub fn unit(&self, i: usize) -> f32 {
        match self {
            Self::U8(v) => f32::from(v[i]) / 255.0,
            Self::U16(v) => f32::from(v[i]) / 65535.0,
        }
    }

    /// The same samples at `depth`: 8 to 16 bits is exact (times 257), 16 to 8 rounds half up.
    pub fn to_depth(&self, depth: Depth) -> Self {
        match (self, depth) {
            (Self::U8(v), Depth::Sixteen) => {
                Self::U16(v.iter().map(|&s| u16::from(s) * 257).collect())
            }
            (Self::U16(v), Depth::Eight) => Self::U8(v.iter().map(|&s| narrow(s)).collect()),
            _ => self.clone(),
        }
    }
}

/// A 16-bit sample as 8 bits, rounded.
#[expect(clippy::cast_possible_truncation, reason = "the quotient is at most 255")]
pub(crate) fn narrow(sample: u16) -> u8 {
    ((u32::from(sample) * 255 + 32767) / 65535) as u8
}

/// `value` in [0, 1] as a sample of 0..=`max`: rounded half up, clamped; NaN becomes 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and the value is clamped"
)]
pub(super) fn quantise(value: f32, max: u16) -> u16 {
    let max = f32::from(max);
    // The cast truncates, which is floor here; `floor` itself would be a call per sample.
    (value * max + 0.5).clamp(0.0, max) as u16
}

#[expect(clippy::cast_possible_truncation, reason = "at most 255")]
pub(super) fn quantise_u8(value: f32) -> u8 {
    quantise(value, 255) as u8
}

impl Image {
    /// A black image without alpha or metadata.
    pub fn new(width: usize, height: usize, color: Color, depth: Depth) -> Self {
        let samples = Samples::zeros(depth, width * height * color.channels());
        Self { width, height, color, samples, alpha: None, metadata: Metadata::default() }
    }

    /// An 8-bit image of `samples` `[H, W, C]`; fails if the length does not fit.
    pub fn from_u8(width: usize, height: usize, color: Color, samples: Vec<u8>) -> Result<Self> {
        let samples = Samples::U8(samples);
        let image =
            Self { width, height, color, samples, alpha: None, metadata: Metadata::default() };
        image.validate()?;
        Ok(image)
    }

    /// A 16-bit image of `samples` `[H, W, C]`; fails if the length does not fit.
    pub fn from_u16(width: usize, height: usize, color: Color, samples: Vec<u16>) -> Result<Self> {
        let samples = Samples::U16(samples);
        let image =
            Self { width, height, color, samples, alpha: None, metadata: Metadata::default() };
        image.validate()?;
        Ok(image)
    }

    /// An 8-bit RGB image of floats `[H, W, 3]` in [0, 1], rounded and clamped.
    pub fn from_rgb_f32(width: usize, height: usize, values: &[f32]) -> Result<Self> {
        if samples_of(width, height, 3) != Some(values.len()) {
            let expected = format!("[{height}, {width}, 3]");
            return Err(Error::shape("image", expected, &[values.len()]));
        }
        let mut image = Self::new(width, height, Color::Rgb, Depth::Eight);
        image.store(image.rect(), values)?;
        Ok(image)
    }

    /// Checks that every length fits the size and that alpha has the samples' depth.
    pub fn validate(&self) -> Result<()> {
        let samples = samples_of(self.width, self.height, self.channels());
        if samples != Some(self.samples.len()) {
            let size = self.size_text();
            let expected = match samples {
                Some(samples) => format!("{samples} samples of {size}"),
                None => format!("a size of fewer pixels than {size}"),
            };
            return Err(Error::shape("image", expected, &[self.samples.len()]));
        }
        let pixels = self.width * self.height;
        match &self.alpha {
            Some(a) if a.len() != pixels || a.depth() != self.depth() => Err(Error::shape(
                "image alpha",
                format!("{pixels} samples of the depth of the colours"),
                &[a.len()],
            )),
            _ => Ok(()),
        }
    }

    /// 1 or 3.
    pub fn channels(&self) -> usize {
        self.color.channels()
    }

    /// Bits per sample.
    pub fn depth(&self) -> Depth {
        self.samples.depth()
    }

    /// Bytes of one pixel, alpha included.
    pub fn bytes_per_pixel(&self) -> usize {
        (self.channels() + usize::from(self.alpha.is_some())) * self.depth().bytes()
    }

    /// The whole image as a rectangle.
    pub fn rect(&self) -> Rect {
        Rect::whole(self.width, self.height)
    }

    /// `WIDTHxHEIGHT`, as messages show it.
    pub fn size_text(&self) -> String {
        format!("{}x{}", self.width, self.height)
    }

    /// The region as RGB floats `[H, W, 3]` in [0, 1]; gray is replicated.
    pub fn rgb_f32(&self, region: Rect) -> Result<Vec<f32>> {
        self.check_region(region)?;
        Ok(match &self.samples {
            Samples::U8(v) => self.rgb_rows(v, region, |s| f32::from(s) / 255.0),
            Samples::U16(v) => self.rgb_rows(v, region, |s| f32::from(s) / 65535.0),
        })
    }

    fn rgb_rows<T: Copy>(&self, samples: &[T], region: Rect, unit: impl Fn(T) -> f32) -> Vec<f32> {
        let mut out = Vec::with_capacity(region.area() * 3);
        let channels = self.channels();
        for y in region.y..region.bottom() {
            let start = (y * self.width + region.x) * channels;
            let row = samples[start..start + region.width * channels].iter();
            match self.color {
                Color::Rgb => out.extend(row.map(|&s| unit(s))),
                Color::Gray => out.extend(row.flat_map(|&s| [unit(s); 3])),
            }
        }
        out
    }

    /// Takes the rows of `strip`, which is of the same width and kind, to its end.
    pub fn append(&mut self, strip: &Self) {
        self.height += strip.height;
        self.samples.append(&strip.samples);
        if let (Some(all), Some(alpha)) = (&mut self.alpha, &strip.alpha) {
            all.append(alpha);
        }
    }

    /// Channel `channel` of the region as floats `[H, W]` in [0, 1].
    pub fn plane(&self, channel: usize, region: Rect) -> Result<Vec<f32>> {
        self.check_region(region)?;
        if channel >= self.channels() {
            return Err(Error::shape(
                "image plane",
                format!("a channel below {}", self.channels()),
                &[channel],
            ));
        }
        let mut out = Vec::with_capacity(region.area());
        for y in region.y..region.bottom() {
            let row = (y * self.width + region.x) * self.channels() + channel;
            let samples = (0..region.width).map(|x| row + x * self.channels());
            out.extend(samples.map(|i| self.samples.unit(i)));
        }
        Ok(out)
    }

    /// Writes RGB floats `[H, W, 3]` into the region: times the maximum, rounded half up, clamped.
    /// A gray image takes the luma of BT.601 ([`color::luma`]). NaN becomes 0.
    pub fn store(&mut self, region: Rect, values: &[f32]) -> Result<()> {
        self.check_region(region)?;
        if values.len() != region.area() * 3 {
            return Err(Error::shape(
                "image store",
                format!("[{}, {}, 3]", region.height, region.width),
                &[values.len()],
            ));
        }
        let (width, color) = (self.width, self.color);
        match &mut self.samples {
            Samples::U8(v) => store_rows(v, width, color, region, values, quantise_u8),
            Samples::U16(v) => {
                store_rows(v, width, color, region, values, |s| quantise(s, 65535));
            }
        }
        Ok(())
    }

    /// The image at another depth; see [`Samples::to_depth`].
    pub fn to_depth(mut self, depth: Depth) -> Self {
        if self.depth() != depth {
            self.samples = self.samples.to_depth(depth);
            self.alpha = self.alpha.map(|a| a.to_depth(depth));
        }
        self
    }

    /// The image in RGB; gray is replicated.
    pub fn to_rgb(&self) -> Self {
        if self.color == Color::Rgb {
            return self.clone();
        }
        let samples = match &self.samples {
            Samples::U8(v) => Samples::U8(v.iter().flat_map(|&s| [s; 3]).collect()),
            Samples::U16(v) => Samples::U16(v.iter().flat_map(|&s| [s; 3]).collect()),
        };
        Self {
            color: Color::Rgb,
            samples,
            alpha: self.alpha.clone(),
            metadata: self.metadata.clone(),
            ..*self
        }
    }

    /// A copy of the region, metadata included.
    pub fn crop(&self, region: Rect) -> Result<Self> {
        self.check_region(region)?;
        let cut = |samples: &Samples, channels| match samples {
            Samples::U8(v) => Samples::U8(crop_rows(v, self.width, channels, region)),
            Samples::U16(v) => Samples::U16(crop_rows(v, self.width, channels, region)),
        };
        Ok(Self {
            width: region.width,
            height: region.height,
            color: self.color,
            samples: cut(&self.samples, self.channels()),
            alpha: self.alpha.as_ref().map(|a| cut(a, 1)),
            metadata: self.metadata.clone(),
        })
    }

    /// The largest part from the top left whose sides are multiples of `factor`.
    pub fn crop_to_multiple(&self, factor: usize) -> Result<Self> {
        let factor = factor.max(1);
        self.crop(Rect::whole(self.width / factor * factor, self.height / factor * factor))
    }

    /// Fails if there is a pixel of the region that the image does not hold.
    fn check_region(&self, region: Rect) -> Result<()> {
        self.validate()?;
        // Checked sums: a wrapped one would look small.
        let right = region.x.checked_add(region.width);
        let bottom = region.y.checked_add(region.height);
        if right.is_some_and(|r| r <= self.width) && bottom.is_some_and(|b| b <= self.height) {
            return Ok(());
        }
        Err(Error::shape(
            "image region",
            format!("a region inside {}", self.size_text()),
            &[region.x, region.y, region.width, region.height],
        ))
    }
}

/// The samples of an image, if they can be counted.
fn samples_of(width: usize, height: usize, channels: usize) -> Option<usize> {
    width.checked_mul(height)?.checked_mul(channels)
}

fn store_rows<T: Send>(
    samples: &mut [T],
    width: usize,
    color: Color,
    region: Rect,
    values: &[f32],
    quantise: impl Fn(f32) -> T + Sync,
) {
    /// Samples that are worth another thread.
    const PIECE: usize = 1 << 15;
    if region.area() == 0 {
        return;
    }
    let line = width * color.channels();
    let columns = region.x * color.channels()..region.right() * color.channels();
    let rows = PIECE.div_ceil(columns.len());
    let samples = &mut samples[region.y * line..region.bottom() * line];
    threads::pieces(samples, rows * line, |i, samples| {
        let values = values[3 * i * rows * region.width..].chunks_exact(3 * region.width);
        for (out, values) in samples.chunks_exact_mut(line).zip(values) {
            let out = &mut out[columns.clone()];
            match color {
                Color::Rgb => {
                    for (o, &v) in out.iter_mut().zip(values) {
                        *o = quantise(v);
                    }
                }
                Color::Gray => {
                    for (o, p) in out.iter_mut().zip(values.chunks_exact(3)) {
                        *o = quantise(color::luma(p[0], p[1], p[2]));
                    }
                }
            }
        }
    });
}

fn crop_rows<T: Copy>(samples: &[T], width: usize, channels: usize, region: Rect) -> Vec<T> {
    let mut out = Vec::with_capacity(region.area() * channels);
    for y in region.y..region.bottom() {
        let start = (y * width + region.x) * channels;
        out.extend_from_slice(&samples[start..start + region.width * channels]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_then_read_is_identity_at_both_depths() {
        for depth in [Depth::Eight, Depth::Sixteen] {
            let mut image = Image::new(5, 4, Color::Rgb, depth);
            let values: Vec<f32> = (0..60u8).map(|i| f32::from(i * 4) / 255.0).collect();
            image.store(image.rect(), &values).unwrap();
            assert_eq!(image.rgb_f32(image.rect()).unwrap(), values, "{depth:?}");
        }
    }

    #[test]
    fn store_rounds_half_up_and_clamps() {
        let mut image = Image::new(2, 1, Color::Rgb, Depth::Eight);
        let values = [-1.0, 2.0, f32::NAN, 0.5, 126.4 / 255.0, 126.6 / 255.0];
        image.store(image.rect(), &values).unwrap();
        assert_eq!(image.samples, Samples::U8(vec![0, 255, 0, 128, 126, 127]));
    }

    #[test]
    fn store_touches_only_its_region() {
        let mut image = Image::new(4, 3, Color::Gray, Depth::Eight);
        image.store(Rect::new(1, 1, 2, 1), &[1.0; 6]).unwrap();
        assert_eq!(image.samples, Samples::U8(vec![0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0, 0]));
        assert!(image.store(Rect::new(3, 0, 2, 1), &[1.0; 6]).is_err());
        assert!(image.store(Rect::new(usize::MAX, 0, 2, 1), &[1.0; 6]).is_err());
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        // Products that are 0 in 64 bits.
        let huge = 1 << 32;
        assert!(Image::from_u8(huge, huge, Color::Gray, vec![]).is_err());
        assert!(Image::from_u16(huge, huge, Color::Rgb, vec![]).is_err());
        assert!(Image::from_rgb_f32(huge, huge, &[]).is_err());
        assert!(Image::from_rgb_f32(2, 2, &[0.0; 11]).is_err());
        // Pixels that a caller left out.
        let mut short = Image::new(4, 4, Color::Rgb, Depth::Eight);
        short.samples = Samples::U8(vec![0; 20]);
        let all = short.rect();
        assert!(short.crop(all).is_err() && short.rgb_f32(all).is_err());
        assert!(short.plane(0, all).is_err() && short.store(all, &[0.0; 48]).is_err());
        let mut clear = Image::new(4, 4, Color::Rgb, Depth::Eight);
        clear.alpha = Some(Samples::U8(vec![0; 3]));
        assert!(clear.crop(all).is_err());
    }

    #[test]
    fn depth_changes_are_exact_up_and_rounded_down() {
        let eight = Samples::U8((0..=255).collect());
        assert_eq!(eight.to_depth(Depth::Sixteen).to_depth(Depth::Eight), eight);
        let sixteen = Samples::U16(vec![128, 129, 65406, 65407]);
        assert_eq!(sixteen.to_depth(Depth::Eight), Samples::U8(vec![0, 1, 254, 255]));
    }
}
