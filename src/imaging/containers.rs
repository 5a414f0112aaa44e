//! What files claim of their parts, checked before decoders believe it, and TIFF samples as they are stored.
use std::io::Cursor;

use tiff::decoder::{Decoder, DecodingResult, Limits};

use super::Samples;

/// The first chunk of a WebP file that claims more bytes than the file has left, with that number.
pub(super) fn overlong_webp_chunk(file: &[u8]) -> Option<(String, u32)> {
    let mut at = 12usize;
    while let Some(head) = file.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let [a, b, c, d, len @ ..] = *head;
        let len = u32::from_le_bytes(len);
        let data = usize::try_from(len).unwrap_or(usize::MAX);
        let end = at.saturating_add(8).saturating_add(data);
        if end > file.len() {
            return Some((String::from_utf8_lossy(&[a, b, c, d]).into_owned(), len));
        }
        // Chunks begin at even places.
        at = end.saturating_add(end % 2);
    }
    None
}

/// The size of the first frame of a GIF that reaches beyond its `screen` (width, height).
pub(super) fn gif_frame_beyond(file: &[u8], screen: (u32, u32)) -> Option<(u32, u32)> {
    let palette = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut at = 13 + palette(*file.get(10)?);
    loop {
        match file.get(at)? {
            0x21 => at = after_blocks(file, at + 2)?,
            0x2C => {
                let frame = file.get(at + 1..at + 10)?;
                let field = |i: usize| u32::from(u16::from_le_bytes([frame[i], frame[i + 1]]));
                let (x, y, width, height) = (field(0), field(2), field(4), field(6));
                if x + width > screen.0 || y + height > screen.1 {
                    return Some((width, height));
                }
                at = after_blocks(file, at + 10 + palette(frame[8]) + 1)?;
            }
            _ => return None,
        }
    }
}

/// The place behind the blocks that begin at `at`, the last of which is empty.
fn after_blocks(file: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let len = usize::from(*file.get(at)?);
        at += 1 + len;
        if len == 0 {
            return Some(at);
        }
    }
}

/// The samples of a TIFF, interleaved, in the file's own colours.
pub(super) fn tiff_samples(file: &[u8], most: u64) -> Result<Samples, String> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = usize::try_from(most).unwrap_or(usize::MAX);
    let decoder = Decoder::new(Cursor::new(file)).map_err(|e| e.to_string())?;
    match decoder.with_limits(limits).read_image().map_err(|e| e.to_string())? {
        DecodingResult::U8(v) => Ok(Samples::U8(v)),
        DecodingResult::U16(v) => Ok(Samples::U16(v)),
        _ => Err("its samples are neither 8 nor 16 bits".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_longer_than_their_file_are_found() {
        let chunk = |name: &[u8], len: u32, data: &[u8]| [name, &len.to_le_bytes(), data].concat();
        let whole = [chunk(b"RIFF", 20, b"WEBP"), chunk(b"VP8L", 3, &[0; 4])].concat();
        assert_eq!(overlong_webp_chunk(&whole), None);
        let long = [&whole[..], &chunk(b"ICCP", 3 << 30, &[0; 10])].concat();
        assert_eq!(overlong_webp_chunk(&long), Some(("ICCP".into(), 3 << 30)));
        for cut in 0..long.len() {
            let _ = overlong_webp_chunk(&long[..cut]);
        }
    }

    #[test]
    fn frames_beyond_the_screen_are_found() {
        let frame = |width: u16, height: u16| {
            let mut gif = b"GIF89a\x0d\0\x09\0\x80\0\0\0\0\0\xff\xff\xff".to_vec();
            gif.extend([0x21, 0xF9, 4, 0, 0, 0, 0, 0]);
            gif.extend([0x2C, 1, 0, 0, 0]);
            gif.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
            gif.extend([0, 2, 2, 0x4C, 1, 0, 0x3B]);
            gif
        };
        assert_eq!(gif_frame_beyond(&frame(12, 9), (13, 9)), None);
        assert_eq!(gif_frame_beyond(&frame(13, 9), (13, 9)), Some((13, 9)));
        assert_eq!(gif_frame_beyond(&frame(24000, 20000), (13, 9)), Some((24000, 20000)));
        for cut in 0..frame(12, 9).len() {
            let _ = gif_frame_beyond(&frame(12, 9)[..cut], (13, 9));
        }
    }
}
