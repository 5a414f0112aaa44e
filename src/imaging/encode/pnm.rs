//! PNM: a head of text, then rows of samples as they are (P5 and P6), the high byte of 16 bits first.
use std::io;

use super::rows::{Outline, Packing, Rows};
use crate::engine::files::WriteSeek;
use crate::imaging::Depth;

/// About so many bytes are written at once.
const PIECE: usize = 1 << 20;

/// Bytes that a row on its way takes: the piece it is in.
pub(super) fn memory(row: u64) -> u64 {
    row.max(PIECE as u64)
}

pub(super) fn encode(
    writer: &mut dyn WriteSeek,
    image: &Outline,
    packing: Packing,
    rows: &mut Rows<'_, '_>,
) -> io::Result<()> {
    let kind = if packing.is_gray() { "P5" } else { "P6" };
    let most = match image.depth {
        Depth::Eight => u8::MAX.into(),
        Depth::Sixteen => u16::MAX,
    };
    writer.write_all(format!("{kind}\n{} {}\n{most}\n", image.width, image.height).as_bytes())?;
    let at_once = (PIECE / (image.width * packing.bytes()).max(1)).max(1);
    let mut bytes = Vec::new();
    while rows.left() > 0 {
        bytes.clear();
        rows.read(at_once, &mut bytes)?;
        writer.write_all(&bytes)?;
    }
    Ok(())
}
