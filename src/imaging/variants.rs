//! What files of formats that srk reads may be that it does not read, as far as their heads tell: animations, several
//! pages, CMYK without a profile. Decoding asks, and what looks at heads alone.
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;

use image::codecs::{gif, tiff, webp};
use image::{AnimationDecoder, ExtendedColorType, ImageDecoder, ImageFormat};

use super::{exif, header, jpeg};
use crate::engine::files;

/// Why a picture is not read that could be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// Of this format, with so many frames.
    Animated(&'static str, String),
    /// A TIFF of so many pages.
    Pages(usize),
    /// A file of this format whose inks have no profile.
    Inks(&'static str),
}

/// What the file at `path` is, if that is not read; none also where its head cannot be read, which decoding explains.
pub(super) fn of_file(path: &Path) -> Option<Variant> {
    let open = || files::open_file(path).ok().map(BufReader::new);
    let mut head = Vec::new();
    open()?.take(64).read_to_end(&mut head).ok()?;
    match image::guess_format(&head).ok()? {
        ImageFormat::Png => of_png(::png::Decoder::new(open()?).read_info().ok()?.info()),
        ImageFormat::WebP => of_webp(&webp::WebPDecoder::new(open()?).ok()?),
        ImageFormat::Gif => of_gif(gif::GifDecoder::new(open()?).ok()?),
        ImageFormat::Jpeg => of_jpeg(&jpeg::structure(&header::jpeg_head(&mut open()?)?)),
        ImageFormat::Tiff => {
            of_pages(&mut open()?).or_else(|| of_tiff(&mut tiff::TiffDecoder::new(open()?).ok()?))
        }
        _ => None,
    }
}

/// A PNG with this head.
pub(super) fn of_png(info: &::png::Info<'_>) -> Option<Variant> {
    let frames = info.animation_control().map(|a| a.num_frames).filter(|&n| n > 1)?;
    Some(Variant::Animated("PNG", format!("{frames} frames")))
}

/// A WebP file.
pub(super) fn of_webp<R: BufRead + Seek>(decoder: &webp::WebPDecoder<R>) -> Option<Variant> {
    decoder.has_animation().then(|| Variant::Animated("WebP", "several frames".into()))
}

/// A GIF; two of its frames are decoded.
pub(super) fn of_gif<R: BufRead + Seek>(decoder: gif::GifDecoder<R>) -> Option<Variant> {
    let frames = decoder.into_frames().take(2).filter(std::result::Result::is_ok).count();
    (frames > 1).then(|| Variant::Animated("GIF", "several frames".into()))
}

/// A JPEG of these segments.
pub(super) fn of_jpeg(file: &jpeg::Structure) -> Option<Variant> {
    (file.components == 4 && file.icc.is_none()).then_some(Variant::Inks("JPEG"))
}

/// A TIFF, by its directories.
pub(super) fn of_pages<R: Read + Seek>(file: &mut R) -> Option<Variant> {
    let pages = exif::pages(file);
    (pages > 1).then_some(Variant::Pages(pages))
}

/// A TIFF, by its first page.
pub(super) fn of_tiff<R: BufRead + Seek>(decoder: &mut tiff::TiffDecoder<R>) -> Option<Variant> {
    let inks = [ExtendedColorType::Cmyk8, ExtendedColorType::Cmyk16];
    let inked = inks.contains(&decoder.original_color_type());
    let bare = inked && decoder.icc_profile().ok().flatten().is_none();
    bare.then_some(Variant::Inks("TIFF"))
}
