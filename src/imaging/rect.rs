//! Rectangles of pixels.

/// A rectangle of pixels: columns `x..x + width`, rows `y..y + height`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rect {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Rect {
    /// The rectangle with this corner and size.
    pub fn new(x: usize, y: usize, width: usize, height: usize) -> Self {
        Self { x, y, width, height }
    }

    /// All of an image of this size.
    pub fn whole(width: usize, height: usize) -> Self {
        Self::new(0, 0, width, height)
    }

    /// One past the last column.
    pub fn right(&self) -> usize {
        self.x + self.width
    }

    /// One past the last row.
    pub fn bottom(&self) -> usize {
        self.y + self.height
    }

    /// Pixels inside.
    pub fn area(&self) -> usize {
        self.width * self.height
    }

    /// Every coordinate times `factor`.
    pub fn scaled(&self, factor: usize) -> Self {
        Self::new(self.x * factor, self.y * factor, self.width * factor, self.height * factor)
    }

    /// The same with `by` more on each side, as far as an image of `(width, height)` reaches.
    pub fn grown(&self, by: usize, (width, height): (usize, usize)) -> Self {
        let (x, y) = (self.x.saturating_sub(by), self.y.saturating_sub(by));
        let (right, bottom) = ((self.right() + by).min(width), (self.bottom() + by).min(height));
        Self::new(x, y, right - x, bottom - y)
    }

    /// Whether `other` lies inside.
    pub fn contains(&self, other: &Self) -> bool {
        self.x <= other.x
            && self.y <= other.y
            && self.right() >= other.right()
            && self.bottom() >= other.bottom()
    }
}
