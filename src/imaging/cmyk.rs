//! CMYK to sRGB by the file's profile.
use moxcms::{ColorProfile, DataColorSpace, Layout, RenderingIntent, TransformOptions};

use super::Samples;

/// The pixels `[N, 4]`, 0 is no ink, as sRGB `[N, 3]` of the same depth.
///
/// # Errors
/// What is wrong with the profile.
pub(super) fn to_srgb(pixels: Samples, profile: &[u8]) -> Result<Samples, String> {
    let from = ColorProfile::new_from_slice(profile).map_err(|e| e.to_string())?;
    if from.color_space != DataColorSpace::Cmyk {
        return Err("it is for another kind of colours".into());
    }
    let to = ColorProfile::new_srgb();
    let intent = RenderingIntent::RelativeColorimetric;
    let options = TransformOptions { rendering_intent: intent, ..TransformOptions::default() };
    // Four channels of any kind are called Rgba.
    let layouts = (Layout::Rgba, Layout::Rgb);
    match pixels {
        Samples::U8(v) => {
            let transform = from.create_transform_8bit(layouts.0, &to, layouts.1, options);
            let mut out = vec![0; v.len() / 4 * 3];
            let transform = transform.map_err(|e| e.to_string())?;
            transform.transform(&v, &mut out).map_err(|e| e.to_string())?;
            Ok(Samples::U8(out))
        }
        Samples::U16(v) => {
            let transform = from.create_transform_16bit(layouts.0, &to, layouts.1, options);
            let mut out = vec![0; v.len() / 4 * 3];
            let transform = transform.map_err(|e| e.to_string())?;
            transform.transform(&v, &mut out).map_err(|e| e.to_string())?;
            Ok(Samples::U16(out))
        }
    }
}
