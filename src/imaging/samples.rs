//! Parts of samples, and samples put together.
use super::Samples;

impl Samples {
    /// The samples of the range.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        match self {
            Self::U8(v) => Self::U8(v[range].to_vec()),
            Self::U16(v) => Self::U16(v[range].to_vec()),
        }
    }

    /// Makes room for `more` samples.
    pub fn reserve(&mut self, more: usize) {
        match self {
            Self::U8(v) => v.reserve_exact(more),
            Self::U16(v) => v.reserve_exact(more),
        }
    }

    /// Adds `more` at the end, in this depth.
    pub fn append(&mut self, more: &Self) {
        match (self, more) {
            (Self::U8(v), Self::U8(more)) => v.extend_from_slice(more),
            (Self::U16(v), Self::U16(more)) => v.extend_from_slice(more),
            (own, more) => {
                let more = more.to_depth(own.depth());
                own.append(&more);
            }
        }
    }

    /// The samples of 8 bits.
    pub fn as_u8(&self) -> Option<&[u8]> {
        match self {
            Self::U8(v) => Some(v),
            Self::U16(_) => None,
        }
    }

    /// The samples of 16 bits.
    pub fn as_u16(&self) -> Option<&[u16]> {
        match self {
            Self::U8(_) => None,
            Self::U16(v) => Some(v),
        }
    }
}
