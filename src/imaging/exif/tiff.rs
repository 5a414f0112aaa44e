//! The byte order of a TIFF block, and numbers in it.

/// The byte order of a TIFF block.
#[derive(Clone, Copy)]
pub(super) struct Tiff {
    pub(super) little: bool,
}

impl Tiff {
    /// The byte order and the offset of IFD0.
    pub(super) fn directory(block: &[u8]) -> Option<(Self, usize)> {
        let (tiff, first) = Self::head(block)?;
        let first = usize::try_from(first).ok()?;
        tiff.u16(block, first)?;
        Some((tiff, first))
    }

    /// The same of the first bytes of a block, whose IFD0 may not be among them.
    pub(super) fn head(block: &[u8]) -> Option<(Self, u32)> {
        let tiff = match block.get(..4)? {
            b"II*\0" => Self { little: true },
            b"MM\0*" => Self { little: false },
            _ => return None,
        };
        Some((tiff, tiff.u32(block, 4)?))
    }

    pub(super) fn u16(self, block: &[u8], at: usize) -> Option<u16> {
        let bytes = block.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    pub(super) fn u32(self, block: &[u8], at: usize) -> Option<u32> {
        let bytes = block.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// The offset of the entry of `tag` in the directory at `directory`.
    pub(super) fn entry(self, block: &[u8], directory: usize, tag: u16) -> Option<usize> {
        let count = usize::from(self.u16(block, directory)?);
        (0..count).map(|i| directory + 2 + 12 * i).find(|&at| self.u16(block, at) == Some(tag))
    }

    /// The single SHORT or LONG of the entry at `at`.
    pub(super) fn value(self, block: &[u8], at: usize) -> Option<u32> {
        if self.u32(block, at + 4)? != 1 {
            return None;
        }
        match self.u16(block, at + 2)? {
            TYPE_SHORT => self.u16(block, at + 8).map(u32::from),
            TYPE_LONG => self.u32(block, at + 8),
            _ => None,
        }
    }

    /// Replaces the single SHORT or LONG of the entry at `at`, turning it into a LONG if needed.
    pub(super) fn set(self, block: &mut [u8], at: usize, value: u32) {
        if self.value(block, at).is_none() || block.len() < at + 12 {
            return;
        }
        match (self.u16(block, at + 2), u16::try_from(value)) {
            (Some(TYPE_SHORT), Ok(short)) => {
                let bytes = if self.little { short.to_le_bytes() } else { short.to_be_bytes() };
                block[at + 8..at + 10].copy_from_slice(&bytes);
            }
            _ => {
                let kind = TYPE_LONG;
                let kind = if self.little { kind.to_le_bytes() } else { kind.to_be_bytes() };
                let bytes = if self.little { value.to_le_bytes() } else { value.to_be_bytes() };
                block[at + 2..at + 4].copy_from_slice(&kind);
                block[at + 8..at + 12].copy_from_slice(&bytes);
            }
        }
    }
}

const TYPE_SHORT: u16 = 3;

const TYPE_LONG: u16 = 4;
