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
    /// The quality of the JPEG as far from its original as a lossy WebP file, by its quantiser; none of other files.
    pub webp_quality: Option<f32>,
    /// What srk says of an output of its own ([`stamp`](super::stamp)); not set by reading.
    pub stamp: Option<String>,
}

/// Chunks of PNG about colours, and what notes call them.
pub(super) const PNG_COLORS: &[([u8; 4], &str)] = &[
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

impl Metadata {
    /// Only what tells the meaning of colours.
    pub fn colors_only(self) -> Self {
        let mut png_colors = self.png_colors;
        png_colors.retain(|(name, _)| *name != ASPECT);
        Self { icc: self.icc, png_colors, ..Self::default() }
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
