//! Lossy WebP by libwebp, and the container around it: libwebp writes no metadata, so its chunks are put
//! into an extended file (VP8X) with profile, EXIF and XMP.
use std::io;

use libwebp_sys as sys;

use super::rows::{Outline, Rows, size};
use crate::engine::files::WriteSeek;
use crate::imaging::{Color, Metadata};

/// Flags of the extended header.
const PROFILE: u8 = 0x20;
const ALPHA: u8 = 0x10;
const EXIF: u8 = 0x08;
const XMP: u8 = 0x04;

/// Encodes the picture with `quality` 1..=100. Alpha keeps its values.
pub(super) fn encode(
    writer: &mut dyn WriteSeek,
    image: &Outline,
    quality: u8,
    mut rows: Rows<'_, '_>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    rows.read(image.height, &mut bytes)?;
    if image.color == Color::Gray {
        bytes = widened(&bytes, image.alpha);
    }
    let size = [image.width, image.height];
    // Colours at half the resolution are fitted to what they become, in place of averaged.
    let plain = compress(&bytes, size, image.alpha, quality, true)?;
    writer.write_all(&container(&plain, image)?)
}

/// The file of `[height, width, 3]` with `quality` 1..=100, its colours averaged as the programs of the web do.
pub(in crate::imaging) fn rgb(
    pixels: &[u8],
    width: usize,
    height: usize,
    quality: u8,
) -> io::Result<Vec<u8>> {
    compress(pixels, [width, height], false, quality, false)
}

/// Gray pixels, with alpha or not, as RGB.
fn widened(bytes: &[u8], alpha: bool) -> Vec<u8> {
    match alpha {
        true => bytes.as_chunks::<2>().0.iter().flat_map(|&[v, a]| [v, v, v, a]).collect(),
        false => bytes.iter().flat_map(|&v| [v; 3]).collect(),
    }
}

/// The file that libwebp makes of the pixels.
fn compress(
    bytes: &[u8],
    [width, height]: [usize; 2],
    alpha: bool,
    quality: u8,
    fitted: bool,
) -> io::Result<Vec<u8>> {
    let refused = |what: &str| io::Error::other(format!("libwebp {what}"));
    let side = |v: usize| i32::try_from(v).map_err(io::Error::other);
    let channels = if alpha { 4 } else { 3 };
    let stride = side(width * channels)?;
    if bytes.len() != height * width * channels {
        return Err(refused("was given pixels of another size"));
    }
    // SAFETY: all three are plain structures of C that their functions of initialisation fill, which
    // zeros are a valid state for.
    let (mut config, mut picture, mut memory): (
        sys::WebPConfig,
        sys::WebPPicture,
        sys::WebPMemoryWriter,
    ) = unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: the pointers are to the structures above, which outlive the calls; the bytes are as many
    // as the sizes say, and libwebp copies them; what it allocated is freed on every way out.
    unsafe {
        if !sys::WebPInitConfig(&raw mut config) || !sys::WebPPictureInit(&raw mut picture) {
            return Err(refused("is another version than it was compiled for"));
        }
        config.quality = f32::from(quality);
        config.use_sharp_yuv = i32::from(fitted);
        config.alpha_quality = 100;
        config.exact = 0;
        picture.use_argb = 1;
        picture.width = side(width)?;
        picture.height = side(height)?;
        let imported = match alpha {
            true => sys::WebPPictureImportRGBA(&raw mut picture, bytes.as_ptr(), stride),
            false => sys::WebPPictureImportRGB(&raw mut picture, bytes.as_ptr(), stride),
        };
        sys::WebPMemoryWriterInit(&raw mut memory);
        picture.writer = Some(sys::WebPMemoryWrite);
        picture.custom_ptr = (&raw mut memory).cast();
        let done = imported != 0 && sys::WebPEncode(&raw const config, &raw mut picture) != 0;
        let error = picture.error_code;
        sys::WebPPictureFree(&raw mut picture);
        let file = match done && !memory.mem.is_null() {
            true => Ok(std::slice::from_raw_parts(memory.mem, memory.size).to_vec()),
            false => Err(refused(&format!("failed: {error:?}"))),
        };
        sys::WebPMemoryWriterClear(&raw mut memory);
        file
    }
}

/// The chunks of a file: name and data.
fn chunks(file: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut found = Vec::new();
    let mut at = 12;
    while let Some(head) = file.get(at..at + 8) {
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some(data) = file.get(at + 8..at + 8 + len) else { break };
        found.push((&head[..4], data));
        at += 8 + len + len % 2;
    }
    found
}

/// The extended file of the pixels in `plain` with the metadata of `image`.
fn container(plain: &[u8], image: &Outline) -> io::Result<Vec<u8>> {
    let Metadata { icc, exif, xmp, .. } = &image.metadata;
    if icc.is_none() && exif.is_none() && xmp.is_none() {
        return Ok(plain.to_vec());
    }
    let pixels: Vec<_> = chunks(plain).into_iter().filter(|(name, _)| *name != b"VP8X").collect();
    let has_alpha = image.alpha && pixels.iter().any(|(name, _)| *name == b"ALPH");
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    let flags = flag(icc.is_some(), PROFILE)
        | flag(has_alpha, ALPHA)
        | flag(exif.is_some(), EXIF)
        | flag(xmp.is_some(), XMP);
    let mut head = vec![flags, 0, 0, 0];
    for side in [image.width, image.height] {
        head.extend(&(size(side)? - 1).to_le_bytes()[..3]);
    }
    let mut body = b"WEBP".to_vec();
    let mut put = |name: &[u8], data: &[u8]| -> io::Result<()> {
        body.extend(name);
        body.extend(size(data.len())?.to_le_bytes());
        body.extend(data);
        body.extend(std::iter::repeat_n(0, data.len() % 2));
        Ok(())
    };
    put(b"VP8X", &head)?;
    icc.iter().try_for_each(|icc| put(b"ICCP", icc))?;
    pixels.iter().try_for_each(|(name, data)| put(name, data))?;
    exif.iter().try_for_each(|exif| put(b"EXIF", exif))?;
    xmp.iter().try_for_each(|xmp| put(b"XMP ", xmp))?;
    let mut file = b"RIFF".to_vec();
    file.extend(size(body.len())?.to_le_bytes());
    file.extend(body);
    Ok(file)
}
