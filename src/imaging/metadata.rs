//! What a file says beside its pixels, and what of it another format can hold.
//!
//! ```text
//!                    PNG              JPEG         WebP          TIFF          BMP
//! profile            iCCP             APP2         ICCP          34675         -
//! EXIF               eXIf             APP1         EXIF          its own tags  -
//! XMP                iTXt             APP1         XMP           700           -
//! pixels per metre   pHYs             JFIF         in the EXIF   282, 283      header
//! text               iTXt             -            -             -             -
//! PNG's colours      gAMA, cHRM, ...  -            -             -             -
//! ```
//! PNM holds nothing of it, AVIF (as it is written here) EXIF alone, with the pixels per metre.
//! A profile goes along only where it is for the kind of pixels that the file gets.
use super::encode::{Format, Outline};
use super::exif;
use super::exif::fields::Fields;
use super::stamp::is_stamp;

/// What a file carries beside its pixels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    /// The colour profile, unchanged.
    pub icc: Option<Vec<u8>>,
    /// EXIF as a TIFF block (no `Exif` prefix); orientation 1, since it was applied to the pixels.
    pub exif: Option<Vec<u8>>,
    /// XMP, an XML text.
    pub xmp: Option<Vec<u8>>,
    /// Pixels per metre, x then y.
    pub density: Option<(u32, u32)>,
    /// Keyword and text, stored in PNG only.
    pub text: Vec<(String, String)>,
    /// Chunks of PNG that say what its colours mean where there is no profile, or what shape its pixels have, by name;
    /// stored in PNG only.
    pub png_colors: Vec<([u8; 4], Vec<u8>)>,
    /// What of a file was not read, in words.
    pub unkept: Vec<&'static str>,
    /// The quality of a JPEG file, 1..=100, by its quantisation tables; none of other files.
    pub jpeg_quality: Option<f32>,
    /// What srk says of an output of its own ([`stamp`](super::stamp)); not set by reading.
    pub stamp: Option<String>,
}

/// Chunks of PNG about colours, and what notes call them.
const PNG_COLORS: &[([u8; 4], &str)] = &[
    (*b"gAMA", "gamma (gAMA)"),
    (*b"cHRM", "primaries (cHRM)"),
    (*b"sRGB", "mark of sRGB (sRGB)"),
    (*b"cICP", "code points of its colours (cICP)"),
    (*b"mDCV", "volume of the mastering display (mDCV)"),
    (*b"cLLI", "light levels (cLLI)"),
    (ASPECT, "shape of its pixels (pHYs)"),
];

/// The chunk that says how large pixels are: without a unit, which shape they have.
const ASPECT: [u8; 4] = *b"pHYs";

/// Chunks of PNG about its pixels as they are, of which others are made.
const PNG_UNKEPT: [([u8; 4], &str); 2] =
    [(*b"sBIT", "significant bits (sBIT)"), (*b"bKGD", "background colour (bKGD)")];

/// The keyword under which a PNG holds XMP.
pub(super) const XMP_KEYWORD: &str = "XML:com.adobe.xmp";

/// The longest EXIF block that fits the one segment a JPEG may use for it.
const JPEG_EXIF_BYTES: usize = 65_533 - 6;
/// The same for XMP, whose segment begins with a name.
const JPEG_XMP_BYTES: usize = 65_533 - super::jpeg::XMP_NAME.len();

impl Metadata {
    /// Only what tells the meaning of colours.
    pub fn colors_only(self) -> Self {
        let mut png_colors = self.png_colors;
        png_colors.retain(|(name, _)| *name != ASPECT);
        Self { icc: self.icc, png_colors, ..Self::default() }
    }
}

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

/// The chunks of a PNG file that say what its colours mean.
pub(super) fn png_colors(file: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
    let mut found: Vec<([u8; 4], Vec<u8>)> = Vec::new();
    png_chunks(file, &mut |name, data| {
        let first = found.iter().all(|(n, _)| *n != name);
        let known = PNG_COLORS.iter().any(|(n, _)| *n == name) && data.len() <= 64;
        if first && known && (name != ASPECT || is_aspect(data)) {
            found.push((name, data.to_vec()));
        }
    });
    found
}

/// What chunks of a PNG file say that outputs do not.
pub(super) fn png_unkept(file: &[u8]) -> Vec<&'static str> {
    let mut found = Vec::new();
    png_chunks(file, &mut |name, _| {
        let words = PNG_UNKEPT.iter().find(|(known, _)| *known == name).map(|(_, words)| *words);
        found.extend(words.filter(|words| !found.contains(words)));
    });
    found
}

/// Whether a pHYs chunk says that pixels are no squares, and no more.
fn is_aspect(data: &[u8]) -> bool {
    data.len() == 9 && data[8] == 0 && data[..4] != data[4..8]
}

/// Hands the chunks of a PNG file before its pixels to `each`, with their names.
fn png_chunks(file: &[u8], each: &mut dyn FnMut([u8; 4], &[u8])) {
    let mut at = 8;
    while let Some(&head) = file.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let [a, b, c, d, name @ ..] = head;
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let data = at.checked_add(8).and_then(|start| file.get(start..start.checked_add(len)?));
        let Some(data) = data.filter(|_| name != *b"IDAT") else { break };
        each(name, data);
        at += len + 12;
    }
}

/// Pixels per metre that the header of a BMP file says.
pub(super) fn bmp_density(file: &[u8]) -> Option<(u32, u32)> {
    let field = |at: usize| Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?));
    // The oldest header, of 12 bytes, says none.
    let (x, y) = (field(38)?, field(42)?);
    (field(14)? >= 40 && (1..1 << 24).contains(&x) && (1..1 << 24).contains(&y)).then_some((x, y))
}
