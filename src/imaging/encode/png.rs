//! The pixels of a PNG, filtered and compressed by all threads.
//!
//! Rows are cut into strips of about [`STRIP_BYTES`], whatever strips they came in. Each is filtered
//! (the filter of a row is the one whose bytes have the least sum of magnitudes, which the PNG
//! specification recommends) and deflated on its own, with the last 32 KiB before it as dictionary
//! and a flush at its end (RFC 1951), so that joined they are one zlib stream (RFC 1950). The bytes
//! depend on the pixels and the level alone.
use std::io;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::rows::Rows;
use crate::engine::threads::{self, map, try_map};

/// Unfiltered bytes of a strip. More cost memory, fewer a few bytes and some time.
const STRIP_BYTES: usize = 1 << 18;
/// How far deflate looks back.
const WINDOW: usize = 1 << 15;
/// Compression method 8 with a window of 32 KiB; no hint of the level, which no reader needs.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x01];

/// Bytes that are held at a time for rows of `row` bytes: a group of strips as it came, filtered and packed.
pub(super) fn memory(row: u64) -> u64 {
    let at_once = 2 * threads::count().clamp(1, 16) as u64;
    3 * at_once * (STRIP_BYTES as u64).max(row)
}

/// A row of pixels, or of filtered bytes.
#[derive(Clone, Copy)]
pub(super) struct RowBytes {
    /// Bytes of a row.
    pub(super) row: usize,
    /// Bytes of a pixel: filters compare with the byte so far to the left.
    pub(super) pixel: usize,
}

/// Compresses all of `rows` and gives the pieces of the zlib stream to `put` in their order.
pub(super) fn deflate(
    rows: &mut Rows<'_, '_>,
    size: RowBytes,
    level: u8,
    put: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let per_strip = (STRIP_BYTES / size.row.max(1)).max(1);
    let at_once = 2 * threads::count().clamp(1, 16);
    let mut checksum = simd_adler32::Adler32::new();
    // The row above, and what precedes the next strip in the stream.
    let (mut above, mut before) = (vec![0; size.row], Vec::new());
    let mut raw = Vec::new();
    let mut header = ZLIB_HEADER.to_vec();
    while rows.left() > 0 {
        raw.clear();
        rows.read(per_strip * at_once, &mut raw)?;
        let filtered = filter_strips(&raw, &above, size, per_strip);
        above.copy_from_slice(&raw[raw.len() - size.row..]);
        let ends = rows.left() == 0;
        let packed = pack_strips(&filtered, &before, level, ends)?;
        for (filtered, packed) in filtered.iter().zip(packed) {
            checksum.write(filtered);
            header.extend(packed);
            put(&header)?;
            header.clear();
        }
        before = filtered.into_iter().next_back().unwrap_or_default();
        before.drain(..before.len().saturating_sub(WINDOW));
    }
    put(&checksum.finish().to_be_bytes())
}

fn filter_strips(raw: &[u8], above: &[u8], size: RowBytes, per_strip: usize) -> Vec<Vec<u8>> {
    let strip = per_strip * size.row;
    map(raw.len().div_ceil(strip), |i| {
        let rows = &raw[i * strip..((i + 1) * strip).min(raw.len())];
        let above = if i == 0 { above } else { &raw[i * strip - size.row..i * strip] };
        filter(rows, above, size)
    })
}

fn pack_strips(
    filtered: &[Vec<u8>],
    before: &[u8],
    level: u8,
    ends: bool,
) -> io::Result<Vec<Vec<u8>>> {
    let last = filtered.len() - 1;
    try_map(filtered.len(), |i| {
        let before = if i == 0 { before } else { &filtered[i - 1] };
        let dictionary = &before[before.len().saturating_sub(WINDOW)..];
        let flush = if ends && i == last { FlushCompress::Finish } else { FlushCompress::Sync };
        pack(&filtered[i], dictionary, level, flush)
    })
}

/// One strip as deflate blocks that begin and end at whole bytes.
fn pack(strip: &[u8], dictionary: &[u8], level: u8, flush: FlushCompress) -> io::Result<Vec<u8>> {
    let mut stream = Compress::new(Compression::new(u32::from(level.min(9))), false);
    if !dictionary.is_empty() && level > 0 {
        stream.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    let mut out = Vec::with_capacity(strip.len() / 2 + 64);
    let ends = matches!(flush, FlushCompress::Finish);
    loop {
        let done = usize::try_from(stream.total_in()).map_err(io::Error::other)?;
        let status = stream.compress_vec(&strip[done..], &mut out, flush)?;
        // Room that is left over tells that everything is out.
        match status {
            Status::StreamEnd => return Ok(out),
            Status::Ok | Status::BufError if !ends && out.len() < out.capacity() => return Ok(out),
            _ => out.reserve(strip.len() / 4 + 64),
        }
    }
}

/// The rows with their filters, a byte in front of each saying which.
fn filter(rows: &[u8], above: &[u8], size: RowBytes) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() + rows.len() / size.row);
    let mut tried: [Vec<u8>; 5] = std::array::from_fn(|_| vec![0; size.row]);
    let mut above = above;
    for row in rows.chunks_exact(size.row) {
        let cost = filters(row, above, size.pixel, &mut tried);
        let best = (0u8..5).min_by_key(|&i| cost[usize::from(i)]).unwrap_or(0);
        out.push(best);
        out.extend_from_slice(&tried[usize::from(best)]);
        above = row;
    }
    out
}

/// The row under all five filters, and the sum of the magnitudes of each.
fn filters(row: &[u8], above: &[u8], pixel: usize, out: &mut [Vec<u8>; 5]) -> [u64; 5] {
    let [none, sub, up, average, paeth] = out;
    none.copy_from_slice(row);
    // There is nothing to the left of the first pixel.
    for i in 0..pixel.min(row.len()) {
        sub[i] = row[i];
        up[i] = row[i].wrapping_sub(above[i]);
        average[i] = row[i].wrapping_sub(above[i] / 2);
        paeth[i] = up[i];
    }
    let len = row.len().saturating_sub(pixel);
    let (x, a, b, c) = (&row[pixel..], &row[..len], &above[pixel..], &above[..len]);
    each(&mut sub[pixel..], x, [a, b, c], |[a, ..]| a);
    each(&mut up[pixel..], x, [a, b, c], |[_, b, _]| b);
    each(&mut average[pixel..], x, [a, b, c], |[a, b, _]| (a & b) + ((a ^ b) >> 1));
    each(&mut paeth[pixel..], x, [a, b, c], nearest);
    [none, sub, up, average, paeth].map(|row| magnitude(row))
}

/// Subtracts what `predict` makes of the bytes to the left, above, and above to the left.
#[inline(always)]
fn each(out: &mut [u8], x: &[u8], [a, b, c]: [&[u8]; 3], predict: impl Fn([u8; 3]) -> u8) {
    let len = out.len();
    let (x, a, b, c) = (&x[..len], &a[..len], &b[..len], &c[..len]);
    for i in 0..len {
        out[i] = x[i].wrapping_sub(predict([a[i], b[i], c[i]]));
    }
}

/// Paeth's predictor: the one of the three that is nearest to a + b - c, ties in that order.
#[inline(always)]
fn nearest([a, b, c]: [u8; 3]) -> u8 {
    let (p, q, r) = (i16::from(a), i16::from(b), i16::from(c));
    let (to_a, to_b) = ((q - r).abs(), (p - r).abs());
    let to_c = (p + q - 2 * r).abs();
    let second = if to_b <= to_c { b } else { c };
    if to_a <= to_b && to_a <= to_c { a } else { second }
}

/// The sum of the bytes taken as signed, without their signs.
fn magnitude(row: &[u8]) -> u64 {
    let part = |part: &[u8]| part.iter().map(|&v| u32::from(v.min(v.wrapping_neg()))).sum::<u32>();
    row.chunks(1 << 16).map(|chunk| u64::from(part(chunk))).sum()
}
