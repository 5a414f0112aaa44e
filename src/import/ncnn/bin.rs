//! The numbers of a `.bin` file: one after the other, in the order of the lines, without names or a header.
use half::f16;

use super::param::Parsed;

/// What stands before numbers of 16 bits, and of 8.
const F16: u32 = 0x0130_6B47;
const INT8: u32 = 0x000D_4B38;
/// What stands before numbers of 32 bits that were converted.
const F32: u32 = 0x0002_C056;

/// The bytes that are left.
pub(super) struct Numbers<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Numbers<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, len: bytes.len() }
    }

    /// `count` numbers behind a tag that says how they are stored: the main weight of a layer.
    pub(super) fn tagged(&mut self, count: usize) -> Parsed<Vec<f32>> {
        let tag = self.take(4)?;
        match u32::from_le_bytes([tag[0], tag[1], tag[2], tag[3]]) {
            F16 => {
                let bytes = self.take(count.saturating_mul(2).next_multiple_of(4))?;
                let number = |b: &[u8]| f16::from_le_bytes([b[0], b[1]]).to_f32();
                Ok(bytes.chunks_exact(2).take(count).map(number).collect())
            }
            0 | F32 => self.plain(count),
            INT8 => Err(unsupported("numbers of 8 bits (int8)")),
            _ => Err(unsupported(
                "a table of 256 numbers and indices into it, or the .bin is not of this .param",
            )),
        }
    }

    /// `count` numbers of 32 bits: biases and slopes.
    pub(super) fn plain(&mut self, count: usize) -> Parsed<Vec<f32>> {
        let bytes = self.take(count.saturating_mul(4))?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        match self.bytes.split_at_checked(count) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => Err(format!(
                "the .bin is too short: {count} bytes are wanted at byte {}, and it has {} in all",
                self.len - self.bytes.len(),
                self.len
            )),
        }
    }

    /// Refuses bytes that no layer took.
    pub(super) fn end(&self) -> Parsed<()> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(format!(
                "the .bin is too long: the layers take {} of its {} bytes, so it is not of this .param",
                self.len - left,
                self.len
            )),
        }
    }
}

fn unsupported(what: &str) -> String {
    format!("its weights are stored as {what}; srk reads those of 32 and of 16 bits (f32, f16)")
}
