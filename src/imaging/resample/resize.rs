//! Resizing to any size, for output sizes that are no model's and for alpha.
use super::premultiplied;
use super::strips::Strips;
use crate::error::{Error, Result};
use crate::imaging::{Depth, Image, Rect, Samples};

/// Resizes an image to `width` x `height` with Lanczos3 (antialiased), keeping depth, colour and
/// metadata. Under transparency colours count by their alpha ([`Premultiplied`](super::Premultiplied)).
pub fn resize(image: &Image, width: usize, height: usize) -> Result<Image> {
    image.validate()?;
    if width == 0 || height == 0 {
        return Err(Error::shape("resize", "a size of at least 1x1", &[width, height]));
    }
    if image.alpha.is_some() {
        return premultiplied::resize(image, image.rect(), (width, height));
    }
    let channels = image.channels();
    let samples =
        resize_samples(&image.samples, image.width, image.height, channels, width, height)?;
    let metadata = image.metadata.clone();
    Ok(Image { width, height, color: image.color, samples, alpha: None, metadata })
}

/// As [`resize`], in f32, but of the part `part` of the image; near its sides the filter sees what lies
/// beyond.
pub fn resize_part(image: &Image, part: Rect, width: usize, height: usize) -> Result<Image> {
    image.validate()?;
    if image.alpha.is_some() {
        return premultiplied::resize(image, part, (width, height));
    }
    let opaque = match image.depth() {
        Depth::Eight => Samples::U8(vec![u8::MAX; image.width * image.height]),
        Depth::Sixteen => Samples::U16(vec![u16::MAX; image.width * image.height]),
    };
    let image = Image { alpha: Some(opaque), ..image.clone() };
    let resized = premultiplied::resize(&image, part, (width, height))?;
    Ok(Image { alpha: None, ..resized })
}

/// Resizes samples of 1 or 3 channels to `width` x `height` with Lanczos3.
pub fn resize_samples(
    samples: &Samples,
    from_width: usize,
    from_height: usize,
    channels: usize,
    width: usize,
    height: usize,
) -> Result<Samples> {
    let (from, to) = ((from_width, from_height), (width, height));
    let mut strips = Strips::new(from, to, channels, samples.depth())?;
    strips.give(samples)?;
    let made = strips.take(height);
    made.ok_or_else(|| Error::shape("resize", "all rows of the picture", &[samples.len()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::{Color, Depth, metrics};

    /// A smooth pattern, so that every good resampler gives nearly the same.
    fn waves(width: usize, height: usize, color: Color, depth: Depth) -> Image {
        let mut image = Image::new(width, height, color, depth);
        let (w, h) = (width as f32, height as f32);
        let values: Vec<f32> = (0..width * height * 3)
            .map(|i| {
                let (x, y) = ((i / 3 % width) as f32 + 0.5, (i / 3 / width) as f32 + 0.5);
                0.5 + 0.4 * (5.0 * x / w + 3.0 * y / h + (i % 3) as f32).sin()
            })
            .collect();
        image.store(image.rect(), &values).unwrap();
        image
    }

    #[test]
    fn smooth_pictures_keep_their_shape_at_any_size_depth_and_colour() {
        for depth in [Depth::Eight, Depth::Sixteen] {
            for color in [Color::Gray, Color::Rgb] {
                let image = waves(60, 40, color, depth);
                for (width, height) in [(150, 100), (97, 33), (30, 20), (60, 40)] {
                    let got = resize(&image, width, height).unwrap();
                    let want = waves(width, height, color, depth);
                    let psnr = metrics::psnr_rgb(&got, &want, 2).unwrap();
                    assert!(psnr > 45.0, "{depth:?} {color:?} {width}x{height}: {psnr}");
                }
            }
        }
    }

    #[test]
    fn constants_stay_constant_at_any_size() {
        let image = Image::from_u8(9, 5, Color::Rgb, vec![77; 135]).unwrap();
        let with_alpha = Image { alpha: Some(Samples::U8(vec![255; 45])), ..image };
        for (width, height) in [(1, 1), (31, 17), (4, 50)] {
            let out = resize(&with_alpha, width, height).unwrap();
            assert_eq!(out.samples, Samples::U8(vec![77; width * height * 3]));
            assert_eq!(out.alpha, Some(Samples::U8(vec![255; width * height])));
        }
        let deep = Image::from_u16(3, 3, Color::Gray, vec![54321; 9]).unwrap();
        assert_eq!(resize(&deep, 8, 8).unwrap().samples, Samples::U16(vec![54321; 64]));
        assert!(resize(&deep, 0, 8).is_err());
    }
}
