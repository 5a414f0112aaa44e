//! What a picture shows of the damage it has suffered: the quality of a JPEG or lossy WebP by its own quantisers, or
//! the blocks that are seen, and the noise by its flattest parts.
use super::{Image, Rect, blocks};
use crate::error::Result;
use crate::models::damage::Damage;

/// The luminance table of quality 50 (ITU-T T.81, table K.1), row by row.
const STANDARD: [u16; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69,
    56, //
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
    92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];

/// The chrominance table of quality 50 (ITU-T T.81, table K.2), row by row.
const STANDARD_CHROMA: [u16; 64] = {
    let mut table = [99; 64];
    let known = [17, 18, 24, 47, 18, 21, 26, 66, 24, 26, 56, 99, 47, 66, 99, 99];
    let mut i = 0;
    while i < known.len() {
        table[i / 4 * 8 + i % 4] = known[i];
        i += 1;
    }
    table
};

/// The tables of luminance and of chrominance, row by row, that libjpeg has for `quality`, 1..=100.
pub fn tables(quality: f32) -> [[f32; 64]; 2] {
    let quality = quality.clamp(1.0, 100.0);
    let scale = if quality < 50.0 { 5000.0 / quality } else { 200.0 - 2.0 * quality };
    let scaled = |entry: u16| ((f32::from(entry) * scale + 50.0) / 100.0).floor().clamp(1.0, 255.0);
    [STANDARD.map(scaled), STANDARD_CHROMA.map(scaled)]
}

/// Where the k-th number of a table in a file stands in [`STANDARD`] (T.81, figure A.6).
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, //
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38,
    31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The quality, 1..=100, on the scale of the Independent JPEG Group, of which a luminance table in a file is
/// nearest: within 0.5 for the tables of libjpeg, the median of what its entries say for others. Those at either end of a
/// byte were cut off there, and say nothing.
pub fn quality_of_table(table: &[u16; 64]) -> f32 {
    let said = (0..64).filter(|&k| !matches!(table[k], 0 | 1 | 255));
    let mut scales: Vec<f32> =
        said.map(|k| 100.0 * f32::from(table[k]) / f32::from(STANDARD[ZIGZAG[k]])).collect();
    scales.sort_by(f32::total_cmp);
    let scale = match scales.len() {
        0 if table.contains(&255) => f32::INFINITY,
        0 => 0.0,
        n => f32::midpoint(scales[(n - 1) / 2], scales[n / 2]),
    };
    // libjpeg: 200 - 2 q from quality 50 on, 5000 / q below.
    let quality = if scale <= 100.0 { (200.0 - scale) / 2.0 } else { 5000.0 / scale };
    quality.clamp(1.0, 100.0)
}

/// What says how a picture was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The quantisation tables of a JPEG file.
    Tables,
    /// The quantiser of a lossy WebP file.
    WebP,
    /// Steps between blocks of 8x8 pixels.
    Blocks,
}

/// The last lossy compression of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jpeg {
    /// Its quality, 1..=100 on the scale of the Independent JPEG Group; of a WebP that of the JPEG as far from its original.
    pub quality: f32,
    /// What says so.
    pub source: Source,
}

impl Jpeg {
    /// Whether it can be seen. Of WebP, whose filter smooths its blocks, more can not.
    fn counts(self) -> bool {
        self.quality < if self.source == Source::WebP { CLEAN_WEBP } else { CLEAN_QUALITY }
    }

    /// The quality that a network is told: of WebP, whose filter has taken most of its blocks already, half of the
    /// way to none. Of what it was told of 8 photographs at libwebp's quality 10 to 60, `srk-photo-x4` was nearest
    /// to the truth with that (PSNR-Y 0.08 to 0.15 dB above all of it, 0.01 to 0.12 above nothing).
    fn told(self) -> f32 {
        if self.source == Source::WebP { f32::midpoint(self.quality, 100.0) } else { self.quality }
    }

    /// Whether it hides noise, and blocks of before.
    fn is_coarse(self) -> bool {
        self.counts() && self.quality < HONEST_QUALITY
    }
}

/// What a picture shows of its damage.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Findings {
    /// Of lossy compression; none where neither the file nor the pixels show any.
    pub jpeg: Option<Jpeg>,
    /// The standard deviation of its noise, in levels of 0..=255; none where compression hides it, or the picture is
    /// too small to tell noise from texture.
    pub noise: Option<f32>,
}

impl Findings {
    /// As a network is told.
    pub fn damage(&self) -> Damage {
        // A fine WebP is as good as none; a fine JPEG has a quality that networks know.
        let told = self.jpeg.filter(|j| j.source != Source::WebP || j.counts());
        Damage { jpeg_quality: told.map(|j| j.told()), noise: self.noise, blur: None }
    }

    /// Whether a network for clean pictures would sharpen what does not belong to the picture.
    pub fn is_damaged(&self) -> bool {
        self.jpeg.is_some_and(|j| j.counts()) || self.noise.is_some_and(|n| n > CLEAN_NOISE)
    }
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.jpeg {
            Some(Jpeg { quality, source }) => {
                let what = match source {
                    Source::Tables => "JPEG of quality",
                    Source::WebP => "WebP, lossy as JPEG of quality",
                    Source::Blocks => "blocks as of JPEG quality",
                };
                write!(f, "{what} {quality:.0}")?;
            }
            None => f.write_str("no compression")?,
        }
        match self.noise {
            Some(noise) => write!(f, ", noise {noise:.1}"),
            None => Ok(()),
        }
    }
}

/// What can be seen of the damage to `image`: what its file said of its compression or else the steps between its blocks, and
/// the noise where no compression has taken part of it away. Where a file says that it is a good JPEG and blocks are seen
/// all the same, as in pictures that were saved again, the blocks count.
///
/// # Errors
/// If the lengths in the image do not fit together.
pub fn seen(image: &Image) -> Result<Findings> {
    let of_file = |quality: Option<f32>, source| quality.map(|quality| Jpeg { quality, source });
    let stated = of_file(image.metadata.jpeg_quality, Source::Tables)
        .or_else(|| of_file(image.metadata.webp_quality, Source::WebP));
    let seen = || -> Result<_> {
        Ok(blocks::quality(image)?.map(|quality| Jpeg { quality, source: Source::Blocks }))
    };
    let jpeg = match stated {
        None => seen()?,
        Some(jpeg) if jpeg.is_coarse() => Some(jpeg),
        // Steps are an estimate, which a file's word holds within bounds.
        Some(jpeg) => Some(
            seen()?
                .filter(|seen| seen.quality <= MOST_RESAVED)
                .map_or(jpeg, |seen| Jpeg { quality: seen.quality.max(LEAST_RESAVED), ..seen }),
        ),
    };
    let hidden = jpeg.is_some_and(|j| j.is_coarse());
    let noise = if hidden { None } else { noise(image)? };
    Ok(Findings { jpeg, noise })
}

/// From this quality on a JPEG is as good as none.
pub const CLEAN_QUALITY: f32 = 97.0;

/// From this quality on a WebP is: libwebp's 60 and finer.
const CLEAN_WEBP: f32 = 72.0;

/// More noise than this, in levels, is not the texture of a clean picture's flattest parts: 3 of 138 photographs (Kodak24,
/// Set14, BSD100) have more; of gray ones with noise of 5 all.
const CLEAN_NOISE: f32 = 4.8;

/// No worse than this is what a good JPEG is taken for by its blocks: smooth pictures show them more than others do.
const LEAST_RESAVED: f32 = 50.0;

/// Fainter blocks say nothing against a file's word: those of a good JPEG of a smooth picture.
const MOST_RESAVED: f32 = 80.0;

/// From this quality on compression leaves noise nearly as it is.
const HONEST_QUALITY: f32 = 90.0;

/// Side of the patches that are compared.
const PATCH: usize = 8;

/// In fewer patches there may be none without texture: less than [`SURE_NOISE`] says nothing there.
const LEAST_PATCHES: usize = 200;

/// Fewer patches say nothing at all.
const FEWEST_PATCHES: usize = 49;

/// More than the flattest parts of small clean pictures: of 84 crops of photographs of 64, 80, 96 and 112 pixels 1, 0, 1 and 0 have
/// more.
const SURE_NOISE: f32 = 7.0;

/// With less of the picture between the ends of the scale, what is left are edges: text on paper has next to none, photographs
/// have 0.43 and more.
const LEAST_USABLE: f64 = 0.3;

/// The mean of the flattest tenth of patches over that of all, of pure noise: 0.7355 in 4,096 patches, 0.745 in 256.
const FLATTEST: f64 = 0.735;

/// The standard deviation of the noise of green, which is what networks learn to be told (that of luma is 0.66 of it where
/// colours have noise of their own), in levels of 0..=255: the response to a mask that sees no plane and no edge along
/// an axis (Immerkaer 1996), in the flattest tenth of the patches. None of pictures too small for it, or with hardly
/// a part between the ends of the scale.
///
/// # Errors
/// If the lengths in the image do not fit together.
pub fn noise(image: &Image) -> Result<Option<f32>> {
    let (columns, rows) =
        (image.width.saturating_sub(2) / PATCH, image.height.saturating_sub(2) / PATCH);
    if columns * rows < FEWEST_PATCHES {
        return Ok(None);
    }
    let mut patches = Vec::with_capacity(columns * rows);
    for row in 0..rows {
        let band = Rect::new(0, row * PATCH, image.width, PATCH + 2);
        let rgb = image.rgb_f32(band)?;
        let green: Vec<f64> = rgb.chunks_exact(3).map(|p| 255.0 * f64::from(p[1])).collect();
        patches.extend(
            (0..columns).filter_map(|column| of_patch(&green, image.width, column * PATCH)),
        );
    }
    if (patches.len() as f64) < LEAST_USABLE * (columns * rows) as f64 {
        return Ok(None);
    }
    patches.sort_by(f64::total_cmp);
    let tenth = patches.len().div_ceil(10);
    let mean = patches[..tenth].iter().sum::<f64>() / tenth as f64;
    #[allow(clippy::cast_possible_truncation)] // An estimate.
    let noise = (mean / FLATTEST) as f32;
    Ok((columns * rows >= LEAST_PATCHES || noise > SURE_NOISE).then_some(noise))
}

/// The deviation in the patch at `left` of a band of `PATCH + 2` rows; none where more than a quarter of the values are
/// at the ends of the scale, which hide it.
fn of_patch(green: &[f64], width: usize, left: usize) -> Option<f64> {
    let at = |x: usize, y: usize| green[y * width + left + x];
    let (mut sum, mut inside) = (0.0, 0);
    for y in 1..=PATCH {
        for x in 1..=PATCH {
            let corners = at(x - 1, y - 1) + at(x + 1, y - 1) + at(x - 1, y + 1) + at(x + 1, y + 1);
            let sides = at(x, y - 1) + at(x, y + 1) + at(x - 1, y) + at(x + 1, y);
            sum += (corners - 2.0 * sides + 4.0 * at(x, y)).abs();
            inside += usize::from((4.0..=251.0).contains(&at(x, y)));
        }
    }
    // The mask's norm is 6; the mean of |z| is sqrt(2 / pi).
    let deviation = (std::f64::consts::PI / 2.0).sqrt() * sum / (6.0 * (PATCH * PATCH) as f64);
    (4 * inside >= 3 * PATCH * PATCH).then_some(deviation)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Made-up pixels.
mod tests {
    use super::*;
    use crate::engine::rng::{Purpose, Stream};
    use crate::imaging::{Color, lossy};

    #[test]
    fn tables_of_libjpeg_are_recognised() {
        for quality in 1u16..=100 {
            let scale = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
            let entry = |k: usize| {
                ((u32::from(STANDARD[ZIGZAG[k]]) * u32::from(scale) + 50) / 100).clamp(1, 255)
                    as u16
            };
            let table: [u16; 64] = std::array::from_fn(entry);
            let found = quality_of_table(&table);
            assert!((found - f32::from(quality)).abs() < 0.5, "{quality} is read as {found}");
        }
    }

    #[test]
    fn noise_is_measured_beside_edges_and_slopes() {
        let mut draws = Stream::new(1, Purpose::Weights, 0).sequence();
        for sigma in [0.0, 2.0, 5.0, 12.0] {
            let mut pixels = vec![];
            for y in 0..128 {
                for x in 0..128 {
                    let picture =
                        60.0 + 0.5 * x as f32 + if x > 80 { 40.0 } else { 0.3 * y as f32 };
                    let value = (picture + sigma * draws.normal()).round().clamp(0.0, 255.0);
                    pixels.push(value as u8);
                }
            }
            let image = Image::from_u8(128, 128, Color::Gray, pixels).unwrap();
            let found = noise(&image).unwrap().unwrap();
            assert!((found - sigma).abs() < 0.35 + 0.05 * sigma, "{sigma} is measured as {found}");
        }
    }

    /// Each channel with noise of its own, of which luma has less.
    #[test]
    fn noise_is_that_of_green_as_networks_learn_it() {
        let mut draws = Stream::new(2, Purpose::Weights, 0).sequence();
        for (sigma, damaged) in [(2.0, false), (5.5, true), (20.0, true)] {
            let mut value = || (120.0 + sigma * draws.normal()).round().clamp(0.0, 255.0) as u8;
            let pixels = (0..160 * 160 * 3).map(|_| value()).collect();
            let image = Image::from_u8(160, 160, Color::Rgb, pixels).unwrap();
            let found = noise(&image).unwrap().unwrap();
            assert!((found - sigma).abs() < 0.05 * sigma + 0.1, "{sigma} is measured as {found}");
            assert_eq!(seen(&image).unwrap().is_damaged(), damaged, "{sigma}");
        }
    }

    /// Edges of glyphs are no noise, and all else of the page is cut off at white.
    #[test]
    fn text_on_white_has_no_noise() {
        let glyph = |x: usize, y: usize| match (x * 7 + y * 3 + x * y) % 11 {
            v if y % 16 < 9 && x % 5 < 3 && v < 6 => 30 * v as u8,
            _ => 255,
        };
        let page = (0..160 * 240).map(|i| glyph(i % 240, i / 240)).collect();
        let image = Image::from_u8(240, 160, Color::Gray, page).unwrap();
        assert_eq!(noise(&image).unwrap(), None);
    }

    #[test]
    fn blocks_count_where_a_good_jpeg_was_made_of_a_bad_one() {
        let pixels = crate::imaging::blocks::tests::waves(128, 96);
        let jpeg = |pixels: &[u8], quality| {
            lossy::jpeg(pixels, 128, 96, quality, lossy::Chroma::Full).unwrap()
        };
        let again = jpeg(&lossy::pixels(&jpeg(&pixels, 20)).unwrap(), 96);
        let of =
            |file: &[u8]| seen(&crate::imaging::decode(file, "a").unwrap()).unwrap().jpeg.unwrap();
        let Jpeg { quality, source } = of(&again);
        assert!(source == Source::Blocks && (50.0..70.0).contains(&quality), "{quality}");
        let good = of(&jpeg(&pixels, 96));
        assert!(good.source == Source::Tables && (good.quality - 96.0).abs() < 1.0, "{good:?}");
    }

    #[test]
    fn coarse_webps_are_damaged_and_fine_ones_are_not() {
        let pixels = crate::imaging::blocks::tests::waves(128, 96);
        let of = |quality| {
            let file = lossy::webp(&pixels, 128, 96, quality).unwrap();
            seen(&crate::imaging::decode(&file, "a").unwrap()).unwrap()
        };
        let coarse = of(15);
        let (quality, told) = (coarse.jpeg.unwrap().quality, coarse.damage().jpeg_quality.unwrap());
        assert!(coarse.is_damaged() && told > quality && told < 100.0, "{coarse:?}");
        assert!(coarse.to_string().starts_with("WebP, lossy as JPEG of quality "), "{coarse}");
        let fine = of(95);
        assert!(!fine.is_damaged() && fine.damage().jpeg_quality.is_none(), "{fine:?}");
        assert_eq!(fine.jpeg.unwrap().source, Source::WebP);
    }
}
