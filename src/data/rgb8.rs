//! An image as training holds it.

/// An 8-bit RGB image in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[H, W, 3]`.
    pub pixels: Vec<u8>,
}

impl Rgb8 {
    /// The part of `width` x `height` pixels whose top left pixel is `(x, y)`.
    pub fn cut(&self, x: usize, y: usize, width: usize, height: usize) -> Self {
        let row = |r: usize| &self.pixels[((y + r) * self.width + x) * 3..][..width * 3];
        let pixels = (0..height).flat_map(row).copied().collect();
        Self { width, height, pixels }
    }

    /// The same in the middle of black, where a side is shorter than `side`.
    pub fn padded(self, side: usize) -> Self {
        let (width, height) = (self.width.max(side), self.height.max(side));
        if (width, height) == (self.width, self.height) {
            return self;
        }
        let (left, top) = ((width - self.width) / 2, (height - self.height) / 2);
        let mut pixels = vec![0; width * height * 3];
        for (y, row) in self.pixels.chunks_exact(self.width * 3).enumerate() {
            pixels[((top + y) * width + left) * 3..][..row.len()].copy_from_slice(row);
        }
        Self { width, height, pixels }
    }

    /// The largest part from the top left whose sides are multiples of `factor`.
    pub fn cut_to_multiple(self, factor: usize) -> Self {
        let (width, height) = (self.width / factor * factor, self.height / factor * factor);
        match (width, height) == (self.width, self.height) {
            true => self,
            false => self.cut(0, 0, width, height),
        }
    }
}
