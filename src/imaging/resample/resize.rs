//! Resizing to any size, for output sizes that are no model's and for alpha.
use fast_image_resize as fir;

use crate::error::{Error, Report, Result};
use super::separable::real;
use crate::imaging::{Image, Rect, Samples};

/// Resizes an image to `width` x `height` with Lanczos3 (antialiased), keeping depth, colour and
/// metadata. Under transparency colours count by their alpha: see [`premultiplied`](super::premultiplied).
pub fn resize(image: &Image, width: usize, height: usize) -> Result<Image> {
    resize_part(image, image.rect(), width, height)
}

/// As [`resize`], but of the part `from` of the image; near its sides the filter sees what lies beyond.
pub fn resize_part(image: &Image, from: Rect, width: usize, height: usize) -> Result<Image> {
    image.validate()?;
    if width == 0 || height == 0 {
        return Err(Error::shape("resize", "a size of at least 1x1", &[width, height]));
    }
    if from.area() == 0 || !image.rect().contains(&from) {
        let sides = [from.x, from.y, from.width, from.height];
        return Err(Error::shape("resize", format!("a part of {}", image.size_text()), &sides));
    }
    if image.alpha.is_some() {
        return super::premultiplied::resize(image, from, width, height);
    }
    let size = (image.width, image.height);
    let samples = lanczos(&image.samples, size, from, image.channels(), (width, height))?;
    let metadata = image.metadata.clone();
    Ok(Image { width, height, color: image.color, samples, alpha: None, metadata })
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
    let from = Rect::whole(from_width, from_height);
    lanczos(samples, (from_width, from_height), from, channels, (width, height))
}

pub(super) fn fail(error: String) -> Error {
    Error::Failed(Report::new("cannot resize the image", error))
}

/// A side as the resizer takes it.
pub(super) fn side(v: usize) -> Result<u32> {
    u32::try_from(v).map_err(|e| fail(e.to_string()))
}

fn lanczos(
    samples: &Samples,
    (from_width, from_height): (usize, usize),
    from: Rect,
    channels: usize,
    (width, height): (usize, usize),
) -> Result<Samples> {
    use fir::PixelType;
    let pixel = match (samples, channels) {
        (Samples::U8(_), 1) => PixelType::U8,
        (Samples::U8(_), _) => PixelType::U8x3,
        (Samples::U16(_), 1) => PixelType::U16,
        (Samples::U16(_), _) => PixelType::U16x3,
    };
    let bytes: &[u8] = match samples {
        Samples::U8(v) => v,
        Samples::U16(v) => bytemuck::cast_slice(v),
    };
    let src = fir::images::ImageRef::new(side(from_width)?, side(from_height)?, bytes, pixel)
        .map_err(|e| fail(e.to_string()))?;
    let mut out = Samples::zeros(samples.depth(), width * height * channels);
    let buffer: &mut [u8] = match &mut out {
        Samples::U8(v) => v,
        Samples::U16(v) => bytemuck::cast_slice_mut(v),
    };
    let mut dst = fir::images::Image::from_slice_u8(side(width)?, side(height)?, buffer, pixel)
        .map_err(|e| fail(e.to_string()))?;
    let options = fir::ResizeOptions::new()
        .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Lanczos3))
        .crop(real(from.x), real(from.y), real(from.width), real(from.height))
        .use_alpha(false);
    fir::Resizer::new().resize(&src, &mut dst, &options).map_err(|e| fail(e.to_string()))?;
    Ok(out)
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
