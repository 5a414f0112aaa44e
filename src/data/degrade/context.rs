//! How much around a crop is damaged with it.
use super::draws::Draws;

/// A part of a low-resolution image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// Low-resolution pixels that damage looks at on each side; what lies beyond is mirrored.
const MARGIN: usize = 8;

impl Context {
    /// The crop of `side` pixels at `place` with at least 8 pixels more on each side, as far as the image of
    /// `columns` and `rows` reaches. By how many more is drawn: so the blocks of a JPEG start anywhere
    /// in crops, as they do in tiles.
    pub fn around(
        [x, y]: [usize; 2],
        side: usize,
        [columns, rows]: [usize; 2],
        draws: &mut Draws,
    ) -> Self {
        let mut span = |at: usize, length: usize| {
            let first = at.saturating_sub(MARGIN + draws.below(8));
            let last = (at + side + MARGIN + draws.below(8)).min(length);
            (first, last - first)
        };
        let ((x, width), (y, height)) = (span(x, columns), span(y, rows));
        Self { x, y, width, height }
    }

    /// Column, row, width and height in an image `scale` times as large.
    pub const fn scaled(&self, scale: usize) -> [usize; 4] {
        [self.x * scale, self.y * scale, self.width * scale, self.height * scale]
    }
}
