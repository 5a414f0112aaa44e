//! What of a picture's metadata a format keeps.
use super::format::Format;
use super::outline::Outline;
use crate::imaging::exif;
use crate::imaging::exif::fields::Fields;
use crate::imaging::jpeg::XMP_NAME;
use crate::imaging::metadata::{Metadata, PNG_COLORS};
use crate::imaging::stamp::is_stamp;

/// The longest EXIF block that fits the one segment a JPEG may use for it.
const JPEG_EXIF_BYTES: usize = 65_533 - 6;

/// The same for XMP, whose segment begins with a name.
const JPEG_XMP_BYTES: usize = 65_533 - XMP_NAME.len();

/// What of the metadata of `image` goes into a file of `format`, and what does not, in words. The EXIF
/// block has the size the image has now.
pub(super) fn fitted(image: &Outline, format: Format) -> (Metadata, Vec<&'static str>) {
    let mut lost = Vec::new();
    let mut metadata = image.metadata.clone();
    let mut drop = |gone: bool, what: &'static str| {
        if gone {
            lost.push(what);
        }
        gone
    };
    let gray = format.keeps_gray(image);
    let fits = metadata.icc.as_deref().is_none_or(|icc| profile_fits(icc, gray));
    let unfit =
        if gray { "colour profile, which is not for gray" } else { "profile, which is for gray" };
    if drop(!fits, unfit)
        || drop(fits && metadata.icc.is_some() && !format.has_profile(), "colour profile")
    {
        metadata.icc = None;
    }
    let long = metadata.exif.as_ref().is_some_and(|b| b.len() > JPEG_EXIF_BYTES);
    if drop(metadata.exif.is_some() && !format.has_metadata(), "EXIF")
        || drop(long && format == Format::Jpeg, "EXIF, which is longer than 64 kB")
    {
        metadata.exif = None;
    }
    let long = metadata.xmp.as_ref().is_some_and(|x| x.len() > JPEG_XMP_BYTES);
    if drop(metadata.xmp.is_some() && !format.has_profile(), "XMP")
        || drop(long && format == Format::Jpeg, "XMP, which is longer than 64 kB")
    {
        metadata.xmp = None;
    }
    if drop(metadata.density.is_some() && format.is_pnm(), "pixels per inch") {
        metadata.density = None;
    }
    if format != Format::Png {
        drop(metadata.text.iter().any(|(_, text)| !is_stamp(text)), "text");
        metadata.text.clear();
        for (name, words) in PNG_COLORS {
            drop(metadata.png_colors.iter().any(|(n, _)| n == name), words);
        }
        metadata.png_colors.clear();
    }
    if let Some(block) = &mut metadata.exif {
        exif::update(block, image.width, image.height);
    }
    stamp(&mut metadata, format);
    if matches!(format, Format::WebP | Format::Avif) {
        metadata.exif = exif_with_density(&metadata);
    }
    (metadata, lost)
}

/// Puts the stamp of the output in place of an older one into the EXIF block, where the format holds it there.
fn stamp(metadata: &mut Metadata, format: Format) {
    let block = metadata.exif.take();
    let new = metadata.stamp.as_deref().filter(|_| format != Format::Png && format.has_metadata());
    let stamped = exif::stamped(block.clone(), new);
    // A block that is just short enough for a JPEG goes without.
    let fits =
        format != Format::Jpeg || stamped.as_ref().is_none_or(|b| b.len() <= JPEG_EXIF_BYTES);
    metadata.exif = if fits { stamped } else { exif::stamped(block, None) };
}

/// Whether a profile is for gray or for RGB pixels.
fn profile_fits(icc: &[u8], gray: bool) -> bool {
    match icc.get(16..20) {
        Some(b"GRAY") => gray,
        Some(b"RGB ") => !gray,
        // No pixels of these kinds are written. Of a head that says none, nothing is known.
        Some(b"CMYK" | b"Lab " | b"XYZ ") => false,
        _ => true,
    }
}

/// The EXIF block that says the density, too, for a format that has no other place for it.
fn exif_with_density(metadata: &Metadata) -> Option<Vec<u8>> {
    let density = metadata.density;
    match &metadata.exif {
        Some(block) if density.is_none() || exif::fields::density(block) == density => {
            Some(block.clone())
        }
        None if density.is_none() => None,
        block => {
            let fields = block.as_deref().and_then(Fields::of).unwrap_or_default();
            Some(fields.block(density))
        }
    }
}
