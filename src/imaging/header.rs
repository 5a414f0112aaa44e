//! What the head of a file says of the picture in it, without decoding it.
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{ImageDecoder, ImageFormat, ImageReader};

use super::encode::Outline;
use super::{Color, Depth, Metadata, exif};
use crate::engine::files;

/// A picture as its file announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Columns, upright.
    pub width: usize,
    /// Rows, upright.
    pub height: usize,
    /// Channels, alpha included.
    pub channels: usize,
    /// Whether one of them is alpha.
    pub alpha: bool,
    /// Bytes of a sample.
    pub sample: usize,
    /// Bytes that decoding takes at its peak, the file not counted.
    pub decoding: u64,
}

impl Header {
    /// The picture as decoding will make it, without metadata.
    pub fn outline(&self) -> Outline {
        Outline {
            width: self.width,
            height: self.height,
            color: if self.channels < 3 { Color::Gray } else { Color::Rgb },
            depth: if self.sample == 1 { Depth::Eight } else { Depth::Sixteen },
            alpha: self.alpha,
            metadata: Metadata::default(),
        }
    }
}

/// Reads the head of a file in memory; none if it cannot be read, which decoding then explains.
pub fn header(bytes: &[u8]) -> Option<Header> {
    of(Cursor::new(bytes), bytes.len() as u64, is_progressive(bytes))
}

/// Reads the head of the file at `path`, and no more of it than that takes.
pub fn of_file(path: &Path) -> Option<Header> {
    let mut file = BufReader::new(files::open_file(path).ok()?);
    let len = file.get_ref().metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    let mut start = [0; 2];
    file.read_exact(&mut start).ok()?;
    file.rewind().ok()?;
    if start != [0xFF, 0xD8] {
        return of(file, len, false);
    }
    // Its decoder takes all of a file, of which the pixels are not needed.
    let head = jpeg_head(&mut file)?;
    of(Cursor::new(&head[..]), len, is_progressive(&head))
}

/// A JPEG up to and with the beginning of its first scan.
pub(super) fn jpeg_head(file: &mut BufReader<File>) -> Option<Vec<u8>> {
    let mut head = vec![0; 2];
    file.read_exact(&mut head).ok()?;
    loop {
        let at = head.len();
        head.resize(at + 4, 0);
        file.read_exact(&mut head[at..]).ok()?;
        let len = usize::from(u16::from_be_bytes([head[at + 2], head[at + 3]])).checked_sub(2)?;
        let marker = head[at + 1];
        head.resize(at + 4 + len, 0);
        file.read_exact(&mut head[at + 4..]).ok()?;
        if head[at] != 0xFF {
            return None;
        }
        if marker == 0xDA {
            // Something to decode, and an end.
            head.extend([0, 0, 0xFF, 0xD9]);
            return Some(head);
        }
    }
}

fn of<R: BufRead + Seek>(file: R, len: u64, progressive: bool) -> Option<Header> {
    let reader = ImageReader::new(file).with_guessed_format().ok()?;
    let format = reader.format()?;
    let mut decoder = reader.into_decoder().ok()?;
    let color = decoder.color_type();
    let turn = turn(&mut decoder);
    let (width, height) = match (decoder.dimensions(), turn >= 5) {
        ((w, h), false) => (w as usize, h as usize),
        ((w, h), true) => (h as usize, w as usize),
    };
    let channels = usize::from(color.channel_count());
    let sample = usize::from(color.bytes_per_pixel()) / channels.max(1);
    let pixels = (width as u64).saturating_mul(height as u64);
    let image = pixels.saturating_mul((channels * sample) as u64);
    let more = match format {
        // The coefficients of all scans, 16 bits each.
        ImageFormat::Jpeg if progressive => image.saturating_mul(2),
        ImageFormat::WebP => image.saturating_mul(2),
        _ => 0,
    };
    let split = if color.has_alpha() { pixels.saturating_mul(sample as u64) } else { 0 };
    let turned = if turn > 1 { image } else { 0 };
    // Decoders of JPEG keep the file a second time.
    let copy = if format == ImageFormat::Jpeg { len } else { 0 };
    let decoding = image.saturating_add(more.max(split).max(turned)).saturating_add(copy);
    let alpha = color.has_alpha();
    Some(Header { width, height, channels, alpha, sample, decoding })
}

/// The orientation, found as decoding finds it.
fn turn(decoder: &mut impl ImageDecoder) -> u8 {
    let block = decoder.exif_metadata().ok().flatten();
    let turn = decoder.orientation().map_or(1, Orientation::to_exif);
    block.as_deref().and_then(exif::normalise).as_deref().map_or(turn, exif::orientation)
}

/// Whether a JPEG's frame is progressive (SOF2, or one of its kin).
fn is_progressive(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xFF, marker, high, low]) = bytes.get(at..at + 4).and_then(|b| b.first_chunk())
    {
        match marker {
            0xC2 | 0xC6 | 0xCA | 0xCE => return true,
            0xC0 | 0xC1 | 0xDA => return false,
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    false
}
