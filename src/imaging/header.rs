//! What the head of a file says of the picture in it, without decoding it.
use std::io::Cursor;

use image::metadata::Orientation;
use image::{ImageDecoder, ImageFormat, ImageReader};

use super::encode::Outline;
use super::{Color, Depth, Metadata, exif};

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
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
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
        ImageFormat::Jpeg if is_progressive(bytes) => image.saturating_mul(2),
        ImageFormat::WebP => image.saturating_mul(2),
        _ => 0,
    };
    let split = if color.has_alpha() { pixels.saturating_mul(sample as u64) } else { 0 };
    let turned = if turn > 1 { image } else { 0 };
    // Decoders of JPEG keep the file a second time.
    let copy = if format == ImageFormat::Jpeg { bytes.len() as u64 } else { 0 };
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
