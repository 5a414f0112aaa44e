//! What files claim of their parts, checked before decoders believe it, and TIFF samples as they are stored.
use std::io::{self, Cursor, Read};

use flate2::read::ZlibDecoder;
use tiff::decoder::{Decoder, DecodingResult, Limits};

use super::{Image, Samples};

/// The first chunk of a PNG beside its pixels with which all of them unpack to more than `most` bytes.
pub(super) fn inflated_png_chunk(file: &[u8], most: u64) -> Option<String> {
    let (mut at, mut left) = (8usize, most);
    while let Some(head) = file.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let [a, b, c, d, name @ ..] = *head;
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let data = file.get(at + 8..(at + 8).saturating_add(len))?;
        if let Some(packed) = packed_part(&name, data) {
            let unpacked = io::copy(&mut ZlibDecoder::new(packed).take(left + 1), &mut io::sink());
            // What is damaged unpacks to nothing.
            let unpacked = unpacked.unwrap_or(0);
            if unpacked > left {
                return Some(String::from_utf8_lossy(&name).into_owned());
            }
            left -= unpacked;
        }
        at = (at + 12).saturating_add(len);
    }
    None
}

/// The deflated bytes in a chunk of a PNG that holds some beside pixels.
fn packed_part<'a>(name: &[u8; 4], data: &'a [u8]) -> Option<&'a [u8]> {
    let after_zero = |data: &'a [u8]| data.iter().position(|&b| b == 0).map(|i| &data[i + 1..]);
    match name {
        // A name, and which method; there is one.
        b"iCCP" | b"zTXt" => after_zero(data)?.get(1..),
        // Keyword, whether it is packed, the method, the language and the keyword in it.
        b"iTXt" => match after_zero(data)? {
            [1, _, rest @ ..] => after_zero(after_zero(rest)?),
            _ => None,
        },
        _ => None,
    }
}

/// Takes colours that were multiplied by their alpha for what they were before, where there is anything of them.
pub(super) fn divide_by_alpha(image: &mut Image) {
    let channels = image.channels();
    match (&mut image.samples, &image.alpha) {
        (Samples::U8(colors), Some(Samples::U8(alpha))) => {
            for (pixel, &a) in colors.chunks_exact_mut(channels).zip(alpha).filter(|(_, a)| **a > 0)
            {
                let a = u32::from(a);
                pixel
                    .iter_mut()
                    .for_each(|v| *v = ((u32::from(*v) * 255 + a / 2) / a).min(255) as u8);
            }
        }
        (Samples::U16(colors), Some(Samples::U16(alpha))) => {
            for (pixel, &a) in colors.chunks_exact_mut(channels).zip(alpha).filter(|(_, a)| **a > 0)
            {
                let a = u64::from(a);
                let whole = |v: u16| ((u64::from(v) * 65_535 + a / 2) / a).min(65_535) as u16;
                pixel.iter_mut().for_each(|v| *v = whole(*v));
            }
        }
        _ => {}
    }
}

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
    use crate::imaging::Color;

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
    fn colours_are_divided_by_their_alpha() {
        let mut image = Image::from_u8(3, 1, Color::Gray, vec![50, 7, 99]).unwrap();
        image.alpha = Some(Samples::U8(vec![100, 0, 255]));
        divide_by_alpha(&mut image);
        // 50 * 255 / 100 = 127.5; nothing is known of what is transparent; opaque colours stay.
        assert_eq!(image.samples, Samples::U8(vec![128, 7, 99]));
        let mut image = Image::from_u16(2, 1, Color::Gray, vec![1000, 60_000]).unwrap();
        image.alpha = Some(Samples::U16(vec![32_768, 100]));
        divide_by_alpha(&mut image);
        // Above its alpha no colour can be.
        assert_eq!(image.samples, Samples::U16(vec![2000, 65_535]));
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
