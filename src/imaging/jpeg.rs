//! What the JPEG decoder does not tell: the number of components, the density, and whether the file
//! is whole.
//!
//! The decoder fills a truncated picture with gray and reports success, so the markers are walked
//! here.

use super::damage::quality_of_table;

/// Found by walking the markers of a JPEG file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Structure {
    /// 1 gray, 3 colour, 4 CMYK or YCCK; 0 if no frame header was found.
    pub(super) components: u8,
    /// Bits per sample.
    pub(super) precision: u8,
    /// The end-of-image marker is there.
    pub(super) complete: bool,
    /// Pixels per metre from the JFIF header.
    pub(super) density: Option<(u32, u32)>,
    /// 1..=100, of the luminance.
    pub(super) quality: Option<f32>,
}

/// Walks the markers of `bytes`.
pub(super) fn structure(bytes: &[u8]) -> Structure {
    let mut found = Structure::default();
    let mut at = 2;
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            0xD9 => {
                found.complete = true;
                return found;
            }
            0x01 | 0xD0..=0xD8 => {}
            _ => {
                let Some(segment) = segment(bytes, at) else { return found };
                at += segment.len() + 2;
                match marker {
                    // SOF0..15 without DHT (C4), JPG (C8) and DAC (CC).
                    0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) && segment.len() >= 6 => {
                        found.precision = segment[0];
                        found.components = segment[5];
                    }
                    0xDB => found.quality = found.quality.or_else(|| luminance(segment)),
                    0xE0 if segment.starts_with(b"JFIF\0") => found.density = density(segment),
                    _ => {}
                }
            }
        }
    }
    found
}

/// The next marker at or after `at`, past entropy-coded data; leaves `at` behind it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let rest = bytes.get(*at..)?;
        let start = rest.iter().position(|&b| b == 0xFF)?;
        *at += start + 1;
        match *bytes.get(*at)? {
            // Padding before a marker, or a stuffed zero: the 0xFF was data.
            0xFF | 0x00 => {}
            marker => {
                *at += 1;
                return Some(marker);
            }
        }
    }
}

/// The content of the segment whose length field is at `at`.
fn segment(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    bytes.get(at + 2..at + length.max(2))
}

/// The quality that table 0 among those of a DQT segment stands for.
fn luminance(mut tables: &[u8]) -> Option<f32> {
    loop {
        let (&head, rest) = tables.split_first()?;
        let wide = head >> 4 != 0;
        let (content, next) = rest.split_at_checked(if wide { 128 } else { 64 })?;
        let entry = |k: usize| match wide {
            true => u16::from_be_bytes([content[2 * k], content[2 * k + 1]]),
            false => u16::from(content[k]),
        };
        if head & 15 == 0 {
            return Some(quality_of_table(&std::array::from_fn(entry)));
        }
        tables = next;
    }
}

fn density(jfif: &[u8]) -> Option<(u32, u32)> {
    let field = |at| Some(u32::from(u16::from_be_bytes(jfif.get(at..at + 2)?.try_into().ok()?)));
    let (x, y) = (field(8)?, field(10)?);
    match jfif.get(7)? {
        1 if x > 0 && y > 0 => Some((inch_to_metre(x), inch_to_metre(y))),
        2 if x > 0 && y > 0 => Some((x * 100, y * 100)),
        _ => None,
    }
}

/// Pixels per inch to pixels per metre, rounded.
fn inch_to_metre(dpi: u32) -> u32 {
    (dpi * 10_000 + 127) / 254
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_walked_past_stuffing_and_restarts() {
        let mut bytes = vec![0xFF, 0xD8];
        bytes.extend([0xFF, 0xE0, 0, 16]);
        bytes.extend(b"JFIF\0\x01\x02\x01\x01\x2c\x01\x2c\0\0");
        bytes.extend([0xFF, 0xC0, 0, 17, 8, 0, 1, 0, 1, 3, 1, 17, 0, 2, 17, 0, 3, 17, 0]);
        bytes.extend([0xFF, 0xDA, 0, 4, 0, 0, 1, 0xFF, 0x00, 2, 0xFF, 0xD0, 3]);
        let cut = structure(&bytes);
        assert!(!cut.complete);
        assert_eq!((cut.components, cut.precision), (3, 8));
        assert_eq!(cut.density, Some((11811, 11811)));
        bytes.extend([0xFF, 0xD9]);
        assert!(structure(&bytes).complete);
        for n in 0..bytes.len() {
            assert!(!structure(&bytes[..n]).complete);
        }
    }
}
