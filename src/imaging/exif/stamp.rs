//! The stamp of srk in an EXIF block, or in a TIFF file, which is built the same.
use super::tiff::Tiff;
use crate::imaging::stamp::is_stamp;

/// The tags under which a stamp may be, the usual one first: Software, and ProcessingSoftware where the camera
/// has left its own.
const TAGS: [u16; 2] = [0x0131, 0x000B];
const TYPE_ASCII: u16 = 2;

/// The stamp in `block`, if there is one.
pub(in crate::imaging) fn stamp(block: &[u8]) -> Option<String> {
    stamp_in(&mut |at, len| {
        let (at, len) = (usize::try_from(at).ok()?, usize::try_from(len).ok()?);
        block.get(at..at.checked_add(len)?).map(<[u8]>::to_vec)
    })
}

/// As [`stamp`], of a block of which `read` gives a number of bytes at an offset.
pub(in crate::imaging) fn stamp_in(
    read: &mut dyn FnMut(u64, u64) -> Option<Vec<u8>>,
) -> Option<String> {
    let head = read(0, 8)?;
    let order = Tiff { little: head.starts_with(b"II") };
    let first = u64::from(order.u32(&head, 4)?);
    let count = order.u16(&read(first, 2)?, 0)?;
    let entries = read(first + 2, 12 * u64::from(count))?;
    entries.as_chunks::<12>().0.iter().find_map(|entry| {
        let [tag, kind] = [order.u16(entry, 0)?, order.u16(entry, 2)?];
        let len = order.u32(entry, 4)?;
        if !TAGS.contains(&tag) || kind != TYPE_ASCII {
            return None;
        }
        let bytes = match usize::try_from(len).ok()? {
            len @ 0..=4 => entry[8..8 + len].to_vec(),
            _ => read(u64::from(order.u32(entry, 8)?), u64::from(len))?,
        };
        let text = String::from_utf8(bytes).ok()?;
        Some(text.trim_end_matches('\0').to_owned()).filter(|text| is_stamp(text))
    })
}

/// The block with `stamp` in place of an older one, or without any. A directory of its own is made for it at
/// the end; everything else keeps its offset. None where nothing is left to say.
pub(in crate::imaging) fn stamped(block: Option<Vec<u8>>, new: Option<&str>) -> Option<Vec<u8>> {
    let old = block.as_deref().and_then(stamp);
    let (mut block, new) = match (block, old, new) {
        (block, None, None) => return block,
        (None, _, Some(new)) => (b"II*\0\x08\0\0\0\0\0\0\0\0\0".to_vec(), Some(new)),
        (block, _, new) => (block?, new),
    };
    let Some((order, first)) = Tiff::directory(&block) else { return Some(block) };
    let count = usize::from(order.u16(&block, first)?);
    let Some(entries) = block.get(first + 2..first + 2 + 12 * count) else { return Some(block) };
    let ours = |entry: &&[u8; 12]| !is_entry_of_stamp(order, &block, entry);
    let mut entries: Vec<[u8; 12]> = entries.as_chunks().0.iter().filter(ours).copied().collect();
    let next = order.u32(&block, first + 2 + 12 * count).unwrap_or(0);
    let end = block.len().next_multiple_of(2);
    let added = usize::from(new.is_some());
    let behind = end + 2 + 12 * (entries.len() + added) + 4;
    if let Some(new) = new {
        let tag = |entry: &[u8; 12]| order.u16(entry, 0);
        let taken = entries.iter().any(|entry| tag(entry) == Some(TAGS[0]));
        let mine = TAGS[usize::from(taken)];
        let len = u32::try_from(new.len() + 1).ok()?;
        let mut entry = [0; 12];
        entry[..2].copy_from_slice(&order.u16_bytes(mine));
        entry[2..4].copy_from_slice(&order.u16_bytes(TYPE_ASCII));
        entry[4..8].copy_from_slice(&order.u32_bytes(len));
        entry[8..].copy_from_slice(&order.u32_bytes(u32::try_from(behind).ok()?));
        let at = entries.iter().position(|e| tag(e) > Some(mine)).unwrap_or(entries.len());
        entries.insert(at, entry);
    }
    if entries.is_empty() {
        return None;
    }
    block.resize(end, 0);
    block[4..8].copy_from_slice(&order.u32_bytes(u32::try_from(end).ok()?));
    block.extend(order.u16_bytes(u16::try_from(entries.len()).ok()?));
    block.extend(entries.as_flattened());
    block.extend(order.u32_bytes(next));
    block.extend(new.into_iter().flat_map(str::bytes));
    block.extend(new.map(|_| 0));
    Some(block)
}

/// Whether `entry` of a directory in `block` is that of a stamp.
fn is_entry_of_stamp(order: Tiff, block: &[u8], entry: &[u8; 12]) -> bool {
    let tag = order.u16(entry, 0).is_some_and(|tag| TAGS.contains(&tag));
    let at = order.u32(entry, 8).and_then(|at| usize::try_from(at).ok());
    let text = at.and_then(|at| block.get(at..)).unwrap_or_default();
    let text = &text[..text.len().min(16)];
    tag && is_stamp(String::from_utf8_lossy(text).as_ref())
}

impl Tiff {
    fn u16_bytes(self, value: u16) -> [u8; 2] {
        if self.little { value.to_le_bytes() } else { value.to_be_bytes() }
    }

    fn u32_bytes(self, value: u32) -> [u8; 4] {
        if self.little { value.to_le_bytes() } else { value.to_be_bytes() }
    }
}
