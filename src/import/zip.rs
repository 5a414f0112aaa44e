//! The zip container of `torch.save`, whose files are stored as they are.
use std::io::{Read, SeekFrom};

use super::pickle::Parsed;
use super::storage::Source;

/// One file of a container: its name, where its bytes start, and how many there are.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) start: u64,
    pub(super) len: u64,
    /// Whether its bytes are stored as they are.
    pub(super) is_stored: bool,
}

/// No directory is longer.
const MOST_DIRECTORY: u64 = 64 << 20;
/// The end record, and the longest comment behind it.
const END: u64 = 22;
const COMMENT: u64 = 65_535;

/// `len` bytes from `start`; an error if the source has fewer.
pub(super) fn bytes_at(source: &mut dyn Source, start: u64, len: u64) -> Parsed<Vec<u8>> {
    source.seek(SeekFrom::Start(start)).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    source.take(len).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    match bytes.len() as u64 == len {
        true => Ok(bytes),
        false => Err("it ends too early".into()),
    }
}

fn number(bytes: &[u8], at: usize, width: usize) -> Parsed<u64> {
    let mut all = [0; 8];
    let part = bytes.get(at..at + width).ok_or("its zip directory ends too early")?;
    all[..width].copy_from_slice(part);
    Ok(u64::from_le_bytes(all))
}

/// The files of a container of `size` bytes.
pub(super) fn entries(source: &mut dyn Source, size: u64) -> Parsed<Vec<Entry>> {
    let (start, len) = directory(source, size)?;
    if len > MOST_DIRECTORY || start.checked_add(len).is_none_or(|end| end > size) {
        return Err(format!("its zip directory of {len} bytes does not lie in the file"));
    }
    let directory = bytes_at(source, start, len)?;
    let mut entries = Vec::new();
    let mut at = 0;
    while directory.get(at..at + 4) == Some(b"PK\x01\x02") {
        let field = |offset: usize, width: usize| number(&directory, at + offset, width);
        let length = |offset: usize| field(offset, 2).map(|v| usize::try_from(v).unwrap_or(0));
        let (name_len, extra_len, comment) = (length(28)?, length(30)?, length(32)?);
        let text = directory.get(at + 46..at + 46 + name_len).ok_or("its zip directory ends")?;
        let name = String::from_utf8_lossy(text).into_owned();
        let extra = directory.get(at + 46 + name_len..at + 46 + name_len + extra_len);
        let sizes = [field(24, 4)?, field(20, 4)?, field(42, 4)?];
        let [len, stored, header] = wide(sizes, extra.unwrap_or_default())?;
        let is_stored = field(10, 2)? == 0 && field(8, 2)? & 1 == 0 && len == stored;
        entries.push(Entry { name, start: header, len: stored, is_stored });
        at += 46 + name_len + extra_len + comment;
    }
    for entry in &mut entries {
        let header = bytes_at(source, entry.start, 30)?;
        let (name, extra) = (number(&header, 26, 2)?, number(&header, 28, 2)?);
        let start = entry.start + 30 + name + extra;
        if !header.starts_with(b"PK\x03\x04")
            || start.checked_add(entry.len).is_none_or(|e| e > size)
        {
            return Err(format!("{} in it does not lie in the file", entry.name));
        }
        entry.start = start;
    }
    match entries.is_empty() {
        true => Err("its zip directory is empty".into()),
        false => Ok(entries),
    }
}

/// Where the directory starts, and how long it is.
fn directory(source: &mut dyn Source, size: u64) -> Parsed<(u64, u64)> {
    let tail_len = size.min(END + COMMENT);
    let tail = bytes_at(source, size - tail_len, tail_len)?;
    let last =
        (0..tail.len().saturating_sub(21)).rev().find(|&i| tail[i..].starts_with(b"PK\x05\x06"));
    let last = last.ok_or("it is cut off: the end of its zip directory is missing")?;
    let (len, start) = (number(&tail, last + 12, 4)?, number(&tail, last + 16, 4)?);
    let locator = last.checked_sub(20).filter(|&i| tail[i..].starts_with(b"PK\x06\x07"));
    match locator {
        Some(at) if len == 0xffff_ffff || start == 0xffff_ffff => {
            let end = bytes_at(source, number(&tail, at + 8, 8)?, 56)?;
            match end.starts_with(b"PK\x06\x06") {
                true => Ok((number(&end, 48, 8)?, number(&end, 40, 8)?)),
                false => Err("its zip directory is damaged".into()),
            }
        }
        _ => Ok((start, len)),
    }
}

/// Size, stored size and place of an entry; what has no room in 32 bits is in its extra field.
fn wide(mut values: [u64; 3], mut extra: &[u8]) -> Parsed<[u64; 3]> {
    while extra.len() >= 4 {
        let (id, len) = (number(extra, 0, 2)?, usize::try_from(number(extra, 2, 2)?).unwrap_or(0));
        let body = extra.get(4..4 + len).ok_or("an extra field of its zip directory is damaged")?;
        if id == 1 {
            let mut at = 0;
            for value in values.iter_mut().filter(|v| **v == 0xffff_ffff) {
                *value = number(body, at, 8)?;
                at += 8;
            }
        }
        extra = &extra[4 + len..];
    }
    Ok(values)
}
