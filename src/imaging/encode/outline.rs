//! What is known of a picture before its pixels.
use crate::imaging::{Color, Depth, Image, Metadata};

/// What a file will hold, known before its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Gray or RGB.
    pub color: Color,
    /// Bits per sample.
    pub depth: Depth,
    /// Whether there is transparency.
    pub alpha: bool,
    /// What the file says beside its pixels.
    pub metadata: Metadata,
}

impl Outline {
    /// That of `image`.
    pub fn of(image: &Image) -> Self {
        Self {
            width: image.width,
            height: image.height,
            color: image.color,
            depth: image.depth(),
            alpha: image.alpha.is_some(),
            metadata: image.metadata.clone(),
        }
    }

    /// Bytes of one pixel, alpha included.
    pub fn bytes_per_pixel(&self) -> usize {
        (self.color.channels() + usize::from(self.alpha)) * self.depth.bytes()
    }

    /// Whether `strip` can be the next rows of the picture, `left` of which are to come.
    pub(super) fn continues(&self, strip: &Image, left: usize) -> bool {
        let same = (strip.width, strip.color, strip.depth(), strip.alpha.is_some())
            == (self.width, self.color, self.depth, self.alpha);
        same && strip.height > 0 && strip.height <= left
    }
}
