//! What lossy files make of pixels: 8-bit RGB is compressed and decompressed, all in memory.
//!
//! JPEG is baseline with the tables of Annex K of ITU-T T.81, scaled by quality as libjpeg does, Huffman
//! tables the standard ones, chroma as is or halved in both directions by the mean of 2x2 pixels. WebP is libwebp's
//! with its defaults.
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, EncodingError, SamplingFactor};

use super::encode::webp as libwebp;
use super::{Depth, Samples, decode};
use crate::error::{Error, Report, Result};

/// How much of the colours a JPEG keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chroma {
    /// Every pixel (4:4:4).
    Full,
    /// Half in each direction (4:2:0).
    Halved,
}

/// The JPEG file of `pixels`, `[height, width, 3]`; `quality` lies in 1..=100.
///
/// # Errors
/// If the length does not fit, a side is 0 or above 65,535.
pub fn jpeg(
    pixels: &[u8],
    width: usize,
    height: usize,
    quality: u8,
    chroma: Chroma,
) -> Result<Vec<u8>> {
    let failed =
        |e: &dyn std::fmt::Display| Error::Failed(Report::new("cannot make a JPEG", e.to_string()));
    let side = |v: usize| u16::try_from(v).map_err(|e| failed(&e));
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality.clamp(1, 100));
    encoder.set_sampling_factor(match chroma {
        Chroma::Full => SamplingFactor::F_1_1,
        Chroma::Halved => SamplingFactor::F_2_2,
    });
    // The package takes every second pixel unless told, which would move colours by half a pixel.
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    let (width, height) = (side(width)?, side(height)?);
    encoder.encode(pixels, width, height, ColorType::Rgb).map_err(|e: EncodingError| failed(&e))?;
    Ok(bytes)
}

/// The lossy WebP file of `pixels`, `[height, width, 3]`; `quality` lies in 1..=100.
///
/// # Errors
/// If the length does not fit, a side is 0 or above 16,383.
pub fn webp(pixels: &[u8], width: usize, height: usize, quality: u8) -> Result<Vec<u8>> {
    libwebp::rgb(pixels, width, height, quality.clamp(1, 100))
        .map_err(|e| Error::Failed(Report::new("cannot make a WebP", e.to_string())))
}

/// The pixels `[height, width, 3]` of a file in memory, 8 bits.
pub fn pixels(bytes: &[u8]) -> Result<Vec<u8>> {
    let image = decode(bytes, "a compressed image")?.to_rgb().to_depth(Depth::Eight);
    match image.samples {
        Samples::U8(pixels) => Ok(pixels),
        Samples::U16(_) => unreachable!("to_depth narrows"),
    }
}
