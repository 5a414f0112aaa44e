//! JPEG: its segments, and its pixels by libjpeg-turbo's code (as part of mozjpeg), so that they are the
//! same as in nearly every other program: the slow integer DCT, smooth upsampling of chroma.
//!
//! The decoder fills a truncated picture with gray and reports success, so the markers are walked
//! here.
use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::{ColorSpace, Decompress};
use mozjpeg_sys::{jpeg_common_struct, jpeg_error_mgr, jpeg_std_error};

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
    /// Width and height.
    pub(super) size: (u32, u32),
    /// Whether its blocks are coded by Huffman's tables, in at least a bit each.
    pub(super) huffman: bool,
    /// Columns and rows that a block of the first component stands for.
    pub(super) block: (u32, u32),
    /// Pixels per metre from the JFIF header.
    pub(super) density: Option<(u32, u32)>,
    /// 1..=100, of the luminance.
    pub(super) quality: Option<f32>,
    /// With its prefix.
    pub(super) exif: Option<Vec<u8>>,
    pub(super) xmp: Option<Vec<u8>>,
    pub(super) icc: Option<Vec<u8>>,
    /// Written by Adobe's programs or in their way: CMYK is inverted.
    pub(super) adobe: bool,
}

impl Structure {
    /// Bytes that a file with so many pixels cannot be shorter than: each block of its first component takes a bit.
    /// 0 where nothing is known.
    pub(super) fn least_bytes(&self) -> u64 {
        let blocks = |side: u32, of: u32| u64::from(side / of.max(1));
        let all = blocks(self.size.0, self.block.0) * blocks(self.size.1, self.block.1);
        if self.huffman { all / 8 } else { 0 }
    }
}

/// What a segment with XMP begins with.
pub(super) const XMP_NAME: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// What a segment with a part of a profile begins with; number and count of parts follow.
const ICC_NAME: &[u8] = b"ICC_PROFILE\0";

impl Structure {
    /// Takes from an application segment what is of use.
    fn application(&mut self, marker: u8, segment: &[u8], profile: &mut Vec<(u8, Vec<u8>)>) {
        match marker {
            0xE0 if segment.starts_with(b"JFIF\0") => self.density = density(segment),
            0xE1 if segment.starts_with(b"Exif\0\0") && self.exif.is_none() => {
                self.exif = Some(segment.to_vec());
            }
            0xE1 if self.xmp.is_none() => {
                self.xmp = segment.strip_prefix(XMP_NAME).map(<[u8]>::to_vec);
            }
            0xE2 => {
                if let Some([number, _, part @ ..]) = segment.strip_prefix(ICC_NAME) {
                    profile.push((*number, part.to_vec()));
                }
            }
            0xEE if segment.starts_with(b"Adobe") => self.adobe = true,
            _ => {}
        }
    }
}

/// Walks the markers of `bytes`.
pub(super) fn structure(bytes: &[u8]) -> Structure {
    let mut profile = Vec::new();
    let mut found = segments(bytes, &mut profile);
    profile.sort_by_key(|(number, _)| *number);
    let whole = profile.iter().enumerate().all(|(i, (number, _))| i + 1 == usize::from(*number));
    found.icc = (whole && !profile.is_empty())
        .then(|| profile.into_iter().flat_map(|(_, part)| part).collect());
    found
}

fn segments(bytes: &[u8], profile: &mut Vec<(u8, Vec<u8>)>) -> Structure {
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
                        let side =
                            |at| u32::from(u16::from_be_bytes([segment[at], segment[at + 1]]));
                        found.size = (side(3), side(1));
                        found.huffman = matches!(marker, 0xC0..=0xC2);
                        found.block = block(segment);
                    }
                    0xDB => found.quality = found.quality.or_else(|| luminance(segment)),
                    _ => found.application(marker, segment, profile),
                }
            }
        }
    }
    found
}

/// Columns and rows of a block of the first component, by the sampling factors of a frame's header.
fn block(frame: &[u8]) -> (u32, u32) {
    let factors: Vec<[u32; 2]> = (frame[6..].chunks_exact(3))
        .map(|component| [u32::from(component[1] >> 4), u32::from(component[1] & 15)])
        .collect();
    let side = |i: usize| {
        let most = factors.iter().map(|f| f[i]).max().unwrap_or(1);
        (8 * most).div_ceil(factors.first().map_or(1, |f| f[i].max(1)))
    };
    (side(0), side(1))
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

/// Pixels `[H, W, C]` in the file's kind of colours: C is 1, 3 (RGB) or 4 (CMYK as stored).
///
/// # Errors
/// What the decoder says of a file that is damaged.
pub(super) fn pixels(bytes: &[u8], file: &Structure) -> Result<Vec<u8>, String> {
    DAMAGE.set(0);
    let work = || -> std::io::Result<Vec<u8>> {
        let decoder = Decompress::with_err(errors()).from_mem(bytes)?;
        let colors = match file.components {
            1 => ColorSpace::JCS_GRAYSCALE,
            4 => ColorSpace::JCS_CMYK,
            _ => ColorSpace::JCS_RGB,
        };
        let mut started = decoder.to_colorspace(colors)?;
        let samples = started.read_scanlines::<u8>()?;
        started.finish()?;
        Ok(samples)
    };
    // The decoder's fatal errors come as panics.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => {
            let samples = done.map_err(|e| e.to_string())?;
            match DAMAGE.get() {
                0 => Ok(samples),
                code => Err(message(code)),
            }
        }
        Err(panic) => match panic.downcast_ref::<Fatal>() {
            Some(Fatal(text)) => Err(text.clone()),
            None => Err("the decoder stopped".into()),
        },
    }
}

thread_local! {
    /// The last warning of the decoder that means that pixels are not what they were.
    static DAMAGE: Cell<i32> = const { Cell::new(0) };
}

/// What the decoder gave up with.
struct Fatal(String);

/// Whether pixels were made up after a warning: by its text, since the codes differ between builds of the
/// library. Superfluous bytes between segments are no harm; their number ends the text at "data".
fn is_damage(code: i32) -> bool {
    let text = message(code);
    text.starts_with("Corrupt JPEG data: ") || text == "Premature end of JPEG file"
}

/// Handlers that print nothing, note damage and unwind on fatal errors.
fn errors() -> jpeg_error_mgr {
    // SAFETY: the structure holds numbers, pointers and optional functions, for all of which zero is a value;
    // `jpeg_std_error` fills it and keeps no pointer to it.
    let mut errors = unsafe {
        let mut errors: jpeg_error_mgr = std::mem::zeroed();
        jpeg_std_error(&mut errors);
        errors
    };
    errors.error_exit = Some(stop);
    errors.emit_message = Some(note);
    errors
}

fn code_of(decoder: &jpeg_common_struct) -> i32 {
    // SAFETY: the library calls handlers with the structure of theirs that `with_err` was given.
    unsafe { decoder.err.as_ref() }.map_or(0, |errors| errors.msg_code)
}

extern "C-unwind" fn note(decoder: &mut jpeg_common_struct, level: c_int) {
    let code = code_of(decoder);
    // Warnings have the level -1, traces others.
    if level < 0 && is_damage(code) {
        DAMAGE.set(code);
    }
}

extern "C-unwind" fn stop(decoder: &mut jpeg_common_struct) {
    // Not `panic!`, which would print.
    std::panic::resume_unwind(Box::new(Fatal(message(code_of(decoder)))));
}

/// The library's text for one of its codes, up to where it would put a number.
fn message(code: i32) -> String {
    let errors = errors();
    let index =
        usize::try_from(code).ok().filter(|_| (1..=errors.last_jpeg_message).contains(&code));
    let Some(index) = index else { return format!("error {code} of the decoder") };
    // SAFETY: the table has an entry, a constant string that ends in 0, for each code up to the last one.
    let text = unsafe { CStr::from_ptr((*errors.jpeg_message_table.add(index)).cast()) };
    let text = text.to_string_lossy();
    let plain = text.split('%').next().unwrap_or_default();
    plain.trim_end_matches(|c: char| !c.is_alphanumeric()).trim_end_matches(" 0x").to_owned()
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
