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
//! PNM holds nothing of it.
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
    /// Chunks of PNG that say what its colours mean where there is no profile, by name; stored in PNG only.
    pub png_colors: Vec<([u8; 4], Vec<u8>)>,
    /// The quality of a JPEG file, 1..=100, by its quantisation tables; none of other files.
    pub jpeg_quality: Option<f32>,
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
];

/// The keyword under which a PNG holds XMP.
pub(super) const XMP_KEYWORD: &str = "XML:com.adobe.xmp";

impl Metadata {
    /// Only what tells the meaning of colours.
    pub fn colors_only(self) -> Self {
        Self { icc: self.icc, png_colors: self.png_colors, ..Self::default() }
    }
}

/// The chunks of a PNG file that say what its colours mean.
pub(super) fn png_colors(file: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
    let mut found: Vec<([u8; 4], Vec<u8>)> = Vec::new();
    let mut at = 8;
    while let Some(&head) = file.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let [a, b, c, d, name @ ..] = head;
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let data = at.checked_add(8).and_then(|start| file.get(start..start.checked_add(len)?));
        let Some(data) = data.filter(|_| name != *b"IDAT") else { break };
        let known = found.iter().any(|(n, _)| *n == name);
        if !known && PNG_COLORS.iter().any(|(n, _)| *n == name) && len <= 64 {
            found.push((name, data.to_vec()));
        }
        at += len + 12;
    }
    found
}

/// Pixels per metre that the header of a BMP file says.
pub(super) fn bmp_density(file: &[u8]) -> Option<(u32, u32)> {
    let field = |at: usize| Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?));
    // The oldest header, of 12 bytes, says none.
    let (x, y) = (field(38)?, field(42)?);
    (field(14)? >= 40 && (1..1 << 24).contains(&x) && (1..1 << 24).contains(&y)).then_some((x, y))
}
