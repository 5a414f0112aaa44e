//! Imaging against the originals: golden resampling and metrics, the published LR images of Set5
//! and Set14, and files of every format through decode and encode.
//!
//! The golden data and the images lie outside the repository: `SRK_GOLDEN` and `SRK_DATA`, by
//! default `../shared/golden` and `../shared/data`. Where they are absent, the check says
//! "skipped".
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_possible_truncation)]
use std::path::{Path, PathBuf};

use safetensors::{SafeTensors, tensor::TensorView};
use srk::error::Error;
use srk::imaging::encode::Outline;
use srk::imaging::resample::{self, Filter, Shape};
use srk::imaging::{Color, Depth, EncodeOptions, Format, Image, Samples, metrics};
use srk::imaging::{check_output, decode, encode};

fn folder(variable: &str, default: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(default), PathBuf::from);
    if !path.is_dir() {
        println!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}

fn golden(name: &str) -> Option<Vec<u8>> {
    Some(std::fs::read(folder("SRK_GOLDEN", "../shared/golden")?.join(name)).unwrap())
}

fn floats(view: &TensorView<'_>) -> Vec<f32> {
    view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn hwc(view: &TensorView<'_>) -> Shape {
    let s = view.shape();
    Shape::new(s[0], s[1], s[2])
}

/// A tensor `[.., C, H, W]` as `[H, W, C]`.
fn interleaved(view: &TensorView<'_>) -> (Vec<f32>, Shape) {
    let shape = view.shape();
    let [c, h, w] = shape[shape.len() - 3..].try_into().unwrap();
    let values = floats(view);
    let mut out = vec![0.0; values.len()];
    for (i, v) in values.into_iter().enumerate() {
        let (channel, pixel) = (i / (h * w), i % (h * w));
        out[pixel * c + channel] = v;
    }
    (out, Shape::new(h, w, c))
}

fn relative_l2(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |v: f64| v * v;
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (error / norm).sqrt()
}

#[test]
fn pillow_is_reproduced_bit_for_bit() {
    let Some(bytes) = golden("resampling.safetensors") else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for set in ["a", "b"] {
        let source = file.tensor(&format!("{set}.image_u8")).unwrap();
        for (name, filter) in [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic)] {
            for case in ["down4", "down4_up4", "squash", "up_odd"] {
                let want = file.tensor(&format!("{set}.pillow_{name}_{case}")).unwrap();
                let source = match case {
                    "down4_up4" => file.tensor(&format!("{set}.pillow_{name}_down4")).unwrap(),
                    _ => source.clone(),
                };
                let to = hwc(&want);
                let got =
                    resample::pillow(source.data(), hwc(&source), to.height, to.width, filter);
                assert_eq!(got.unwrap(), want.data(), "{set} {name} {case}");
            }
        }
    }
}

#[test]
fn float_resamplers_match_torch_and_matlab() {
    let Some(bytes) = golden("resampling.safetensors") else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for set in ["a", "b"] {
        let get = |name: &str| interleaved(&file.tensor(&format!("{set}.{name}")).unwrap());
        let (image, shape) = get("float");
        let (small, small_shape) = get("small");
        let check = |name: &str, got: &[f32], got_shape: Shape| {
            let (want, want_shape) = get(name);
            assert_eq!(got_shape, want_shape, "{set}.{name}");
            let error = relative_l2(got, &want);
            assert!(error <= 1e-6, "{set}.{name}: {error:e}");
        };
        for (name, scale) in [("up2", 2), ("up4", 4)] {
            let (h, w) = (small_shape.height * scale, small_shape.width * scale);
            let got = resample::torch_bicubic(&small, small_shape, h, w).unwrap();
            check(&format!("torch_bicubic_{name}"), &got, Shape::new(h, w, 3));
        }
        for (name, scale) in [("down2", 0.5), ("down4", 0.25)] {
            let (got, to) = resample::matlab(&image, shape, scale).unwrap();
            check(&format!("matlab_{name}"), &got, to);
        }
        let (got, to) = resample::matlab(&small, small_shape, 4.0).unwrap();
        check("matlab_up4", &got, to);
    }
}

#[test]
fn metrics_match_the_originals() {
    let Some(bytes) = golden("metrics.safetensors") else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut wrong = Vec::new();
    for set in ["a", "b"] {
        let image = |name: &str| {
            let view = file.tensor(&format!("{set}.{name}")).unwrap();
            let shape = hwc(&view);
            Image::from_u8(shape.width, shape.height, Color::Rgb, view.data().to_vec()).unwrap()
        };
        let (one, two) = (image("image1_u8"), image("image2_u8"));
        let mut check = |name: &str, got: srk::error::Result<f64>| {
            let view = file.tensor(&format!("{set}.{name}")).unwrap();
            let want = f64::from_le_bytes(view.data().try_into().unwrap());
            let got = got.unwrap();
            if (got - want).abs() > 1e-9 * want.abs() {
                wrong.push(format!("{set}.{name}: {got} {want}"));
            }
        };
        for border in [0, 4] {
            let rounded = metrics::Channels::YRounded;
            let name = |metric: &str| format!("{metric}_crop{border}");
            check(&name("psnr_rgb8"), metrics::psnr_rgb(&one, &two, border));
            check(&name("psnr_y_float"), metrics::psnr_y_float(&one, &two, border));
            check(&name("psnr_y_rounded"), metrics::psnr(&one, &two, rounded, border));
            check(&name("ssim_g11_rgb"), metrics::ssim_rgb(&one, &two, border));
            check(&name("ssim_g11_y_float"), metrics::ssim_y_float(&one, &two, border));
            check(&name("ssim_g11_y_rounded"), metrics::ssim(&one, &two, rounded, border));
        }
        check("psnr_rgb_float", metrics::psnr_rgb(&one, &two, 0));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The ground truth, cropped to multiples of 4, and the published LR image of every file of a set.
fn benchmark(set: &str) -> Option<Vec<(String, Image, Image)>> {
    let root = folder("SRK_DATA", "../shared/data")?.join("bench").join(set);
    let mut names: Vec<_> = std::fs::read_dir(root.join("GT"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let read = |part: &str, name: &str| srk::imaging::read(&root.join(part).join(name)).unwrap();
    let load = |name: String| {
        let truth = read("GT", &name).crop_to_multiple(4).unwrap();
        let low = read("LRx4", &name);
        (name, truth, low)
    };
    Some(names.into_iter().map(load).collect())
}

#[test]
fn own_lr_images_equal_the_published_ones() {
    for set in ["Set5", "Set14"] {
        let Some(images) = benchmark(set) else { return };
        for (name, truth, low) in images {
            let got = resample::matlab_8bit_image(&truth, 0.25).unwrap();
            let got = if low.color == Color::Rgb { got.to_rgb() } else { got };
            assert_eq!(got.samples, low.samples, "{set} {name}");
        }
    }
}

#[test]
fn bicubic_scores_on_set5_are_those_of_the_literature() {
    let Some(images) = benchmark("Set5") else { return };
    let (mut psnr, mut ssim, mut number) = (0.0, 0.0, 0.0);
    for (_, truth, low) in images {
        let up = resample::matlab_8bit_image(&low, 4.0).unwrap();
        psnr += metrics::psnr_y_float(&up, &truth, 4).unwrap();
        ssim += metrics::ssim_y_float(&up, &truth, 4).unwrap();
        number += 1.0;
    }
    let (psnr, ssim) = (psnr / number, ssim / number);
    println!("Set5 bicubic x4: {psnr:.3} dB, {ssim:.4}");
    assert!((28.415..28.435).contains(&psnr), "{psnr}");
    assert!((0.810..0.8115).contains(&ssim), "{ssim}");
}

const FORMATS: [Format; 5] = [Format::Png, Format::Jpeg, Format::WebP, Format::Tiff, Format::Bmp];

/// A picture with smooth parts, edges and every value, in any depth and colour.
fn picture(width: usize, height: usize, color: Color, depth: Depth, alpha: bool) -> Image {
    let mut image = Image::new(width, height, color, depth);
    let channels = image.channels();
    let value = |i: usize| {
        let (pixel, c) = (i / channels, i % channels);
        let (x, y) = (pixel % width, pixel / width);
        ((x * 5 + y * 3 + c * 40 + 60 * usize::from(x > y)) % 256) as u16
    };
    let plane = |len: usize, shift: usize| match depth {
        Depth::Eight => Samples::U8((0..len).map(|i| value(i + shift) as u8).collect()),
        Depth::Sixteen => {
            Samples::U16((0..len).map(|i| value(i + shift) * 256 + (i % 251) as u16).collect())
        }
    };
    image.samples = plane(width * height * channels, 0);
    image.alpha = alpha.then(|| plane(width * height, 7));
    image
}

fn bytes_of(image: &Image, format: Format) -> Vec<u8> {
    encode("test", image, format, EncodeOptions::default()).unwrap()
}

fn failure(bytes: &[u8]) -> String {
    let error = decode(bytes, "the-file.png").unwrap_err();
    assert!(matches!(error, Error::Failed(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("the-file.png"), "names the file: {text}");
    assert!(text.contains("\ncause: ") && text.contains("\nhelp:  "), "three lines: {text}");
    text
}

#[test]
fn every_format_keeps_the_pixels_it_can_hold() {
    for format in FORMATS {
        for color in [Color::Gray, Color::Rgb] {
            for depth in [Depth::Eight, Depth::Sixteen] {
                for alpha in [false, true] {
                    if alpha && format == Format::Jpeg {
                        continue;
                    }
                    let case = format!("{format:?} {color:?} {depth:?} alpha {alpha}");
                    let image = picture(37, 23, color, depth, alpha);
                    let got = decode(&bytes_of(&image, format), "x").unwrap();
                    let mut want = image.clone();
                    if !format.has_sixteen_bits() {
                        want = want.to_depth(Depth::Eight);
                    }
                    // WebP has no gray; TIFF and BMP are written without gray + alpha.
                    if format == Format::WebP
                        || (alpha && matches!(format, Format::Tiff | Format::Bmp))
                    {
                        want = want.to_rgb();
                    }
                    if format == Format::Jpeg {
                        assert_eq!(got.color, color, "{case}");
                        let psnr = metrics::psnr_rgb(&got, &want, 0).unwrap();
                        assert!(psnr > 30.0, "{case}: {psnr}");
                    } else {
                        assert!(got.samples == want.samples, "{case}: samples");
                        assert!(got.alpha == want.alpha, "{case}: alpha");
                        assert_eq!(got.color, want.color, "{case}");
                    }
                }
            }
        }
    }
}

/// EXIF with this orientation and a maker's note that must survive.
fn exif(orientation: u8) -> Vec<u8> {
    let mut block = b"II*\0\x08\0\0\0\x02\0".to_vec();
    block.extend([0x0F, 0x01, 2, 0, 8, 0, 0, 0, 38, 0, 0, 0]);
    block.extend([0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0]);
    block.extend([0; 4]);
    block.extend(b"Maker-1\0");
    block
}

#[test]
fn profile_exif_density_and_text_survive_where_the_format_has_them() {
    let mut image = picture(20, 10, Color::Rgb, Depth::Eight, false);
    image.metadata.icc = Some((0..100_000u32).map(|i| (i * 7 % 251) as u8).collect());
    image.metadata.exif = Some(exif(1));
    image.metadata.density = Some((11811, 5906));
    image.metadata.text = vec![("Software".into(), "srk".into())];
    for format in FORMATS {
        let got = decode(&bytes_of(&image, format), "x").unwrap().metadata;
        let lost = srk::imaging::encode::losses(&Outline::of(&image), format);
        let keeps = |what: &str| !lost.contains(&what);
        assert_eq!(got.icc.is_some(), keeps("colour profile"), "{format:?}");
        assert_eq!(got.exif.is_some(), keeps("EXIF"), "{format:?}");
        assert_eq!(!got.text.is_empty(), keeps("text"), "{format:?}");
        assert!(got.icc.is_none_or(|icc| Some(icc) == image.metadata.icc), "{format:?}");
        // WebP has the density in there, TIFF has fields of its own.
        let same = |e: Vec<u8>| Some(e) == image.metadata.exif;
        let told = |e: Vec<u8>| e.windows(8).any(|w| w == b"Maker-1\0");
        let own = matches!(format, Format::WebP | Format::Tiff);
        let kept = got.exif.is_none_or(|e| if own { told(e) } else { same(e) });
        assert!(kept, "{format:?}");
        assert_eq!(got.density, image.metadata.density, "{format:?}");
    }
}

#[test]
fn exif_orientation_is_applied_once() {
    let upright = picture(20, 12, Color::Rgb, Depth::Eight, true);
    for format in [Format::Png, Format::WebP] {
        let plain = bytes_of(&upright, format);
        let mut turned = upright.clone();
        turned.metadata.exif = Some(exif(1));
        // The encoder always writes orientation 1, so the file is changed afterwards.
        let bytes = bytes_of(&turned, format);
        let tag = [0x12, 0x01, 3, 0, 1, 0, 0, 0, 1];
        let at = bytes.windows(9).position(|w| w == tag).unwrap();
        let mut bytes = bytes;
        bytes[at + 8] = 6;
        fix_png_checksum(&mut bytes);
        let got = decode(&bytes, "x").unwrap();
        assert_eq!((got.width, got.height), (12, 20), "{format:?}");
        let plain = decode(&plain, "x").unwrap();
        let corner = |image: &Image, x: usize, y: usize| {
            image.rgb_f32(srk::imaging::Rect::new(x, y, 1, 1)).unwrap()
        };
        // Orientation 6: the stored left column is the upright top row, read from the bottom.
        assert_eq!(corner(&got, 11, 0), corner(&plain, 0, 0), "{format:?}");
        assert_eq!(corner(&got, 0, 0), corner(&plain, 0, 11), "{format:?}");
        assert_eq!(got.metadata.exif, Some(exif(1)), "{format:?}");
        let again = decode(&bytes_of(&got, format), "x").unwrap();
        assert_eq!((again.samples, again.alpha), (got.samples, got.alpha), "{format:?}");
    }
}

/// A little-endian gray TIFF of 3 x 2 pixels 1 to 6 with this orientation, `pages` times.
fn tiff(orientation: u32, pages: u32) -> Vec<u8> {
    let mut bytes = b"II*\0\x10\0\0\0\x01\x02\x03\x04\x05\x06\0\0".to_vec();
    for page in 1..=pages {
        let entries: [(u16, u32); 9] = [
            (256, 3),
            (257, 2),
            (258, 8),
            (259, 1),
            (262, 1),
            (273, 8),
            (274, orientation),
            (278, 2),
            (279, 6),
        ];
        bytes.extend(9u16.to_le_bytes());
        for (tag, value) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend([if tag == 274 { 3 } else { 4 }, 0, 1, 0, 0, 0]);
            bytes.extend(value.to_le_bytes());
        }
        let next = if page < pages { bytes.len() as u32 + 4 } else { 0 };
        bytes.extend(next.to_le_bytes());
    }
    bytes
}

#[test]
fn tiff_orientation_is_applied_and_more_pages_are_refused() {
    let image = decode(&tiff(1, 1), "x").unwrap();
    assert_eq!((image.width, image.samples), (3, Samples::U8(vec![1, 2, 3, 4, 5, 6])));
    let image = decode(&tiff(6, 1), "x").unwrap();
    assert_eq!((image.width, image.samples), (2, Samples::U8(vec![4, 1, 5, 2, 6, 3])));
    assert!(failure(&tiff(1, 3)).contains("3 pages"));
}

/// Recomputes the checksums of all PNG chunks; other files are left alone.
fn fix_png_checksum(bytes: &mut [u8]) {
    let mut at = 8;
    while bytes.starts_with(b"\x89PNG") && at + 12 <= bytes.len() {
        let len = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let mut crc = u32::MAX;
        for &byte in &bytes[at + 4..at + 8 + len] {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
            }
        }
        bytes[at + 8 + len..at + 12 + len].copy_from_slice(&(!crc).to_be_bytes());
        at += 12 + len;
    }
}

fn indexed_png(depth: png::BitDepth, color: png::ColorType, trns: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 4, 1);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette(vec![10, 20, 30, 200, 100, 0, 1, 2, 3, 255, 255, 255]);
    }
    if !trns.is_empty() {
        encoder.set_trns(trns.to_vec());
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    bytes
}

#[test]
fn palettes_few_bits_and_transparent_colours_are_expanded() {
    use png::{BitDepth, ColorType};
    let read = |bytes: Vec<u8>| decode(&bytes, "x").unwrap();
    let image = read(indexed_png(BitDepth::Two, ColorType::Indexed, &[], &[0b0001_1011]));
    let colors = vec![10, 20, 30, 200, 100, 0, 1, 2, 3, 255, 255, 255];
    assert_eq!((image.samples, image.alpha), (Samples::U8(colors.clone()), None));
    let image = read(indexed_png(BitDepth::Two, ColorType::Indexed, &[0, 128], &[0b0001_1011]));
    assert_eq!(image.samples, Samples::U8(colors));
    assert_eq!(image.alpha, Some(Samples::U8(vec![0, 128, 255, 255])));
    let image = read(indexed_png(BitDepth::One, ColorType::Grayscale, &[], &[0b0101_0000]));
    assert_eq!((image.color, image.samples), (Color::Gray, Samples::U8(vec![0, 255, 0, 255])));
    let image = read(indexed_png(BitDepth::Four, ColorType::Grayscale, &[0, 1], &[0x01, 0x1F]));
    assert_eq!((image.color, image.samples), (Color::Gray, Samples::U8(vec![0, 17, 17, 255])));
    assert_eq!(image.alpha, Some(Samples::U8(vec![255, 0, 0, 255])));
    let image = read(b"P5 2 1 65535\n\x01\x02\xFF\xFF".to_vec());
    assert_eq!((image.color, image.samples), (Color::Gray, Samples::U16(vec![0x102, 0xFFFF])));
}

#[test]
fn content_decides_and_what_is_no_image_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.png");
    let image = picture(8, 8, Color::Rgb, Depth::Eight, false);
    std::fs::write(&path, bytes_of(&image, Format::Bmp)).unwrap();
    assert_eq!(srk::imaging::read(&path).unwrap().samples, image.samples);

    assert!(failure(b"").contains("empty (0 bytes)"));
    assert!(failure(b"hello, I am a note\n").contains("text, not an image"));
    assert!(failure(b"\0\0\0\x20ftypavif\0\0\0\0").contains("AVIF"));
    assert!(failure(&[1, 2, 3, 200]).contains("[01, 02, 03, c8]"));
    for missing in [folder.path().to_path_buf(), folder.path().join("no.png")] {
        let text = srk::imaging::read(&missing).unwrap_err().to_string();
        assert!(text.contains(missing.to_str().unwrap()) && text.contains("help:"), "{text}");
    }
}

#[test]
fn files_cut_short_are_refused_and_damage_never_panics() {
    let image = picture(64, 48, Color::Rgb, Depth::Eight, false);
    for format in FORMATS {
        let bytes = bytes_of(&image, format);
        let whole = decode(&bytes, "x").unwrap().samples;
        for part in [4, 2] {
            failure(&bytes[..bytes.len() / part]);
        }
        assert!(failure(&bytes[..bytes.len() * 9 / 10]).contains("ends too early"), "{format:?}");
        for cut in (0..bytes.len()).step_by(bytes.len() / 60 + 1) {
            // Without its last bytes, which hold no pixel, a file may be read; never with wrong
            // ones.
            let cut_short = decode(&bytes[..cut], "x").map(|i| i.samples);
            assert!(cut_short.is_err() || cut_short.unwrap() == whole, "{format:?} cut at {cut}");
            for flip in [0x01, 0x80, 0xFF] {
                let mut damaged = bytes.clone();
                damaged[cut] ^= flip;
                let _ = decode(&damaged, "x");
            }
        }
    }
}

#[test]
fn declared_sizes_are_bounded_but_long_strips_are_fine() {
    let strip = picture(60_000, 2, Color::Gray, Depth::Eight, false);
    assert_eq!(decode(&bytes_of(&strip, Format::Png), "x").unwrap().samples, strip.samples);

    let image = picture(8, 8, Color::Rgb, Depth::Eight, false);
    let mut bomb = bytes_of(&image, Format::Png);
    bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    fix_png_checksum(&mut bomb);
    assert!(failure(&bomb).contains("60000x60000, 3600 Mpx"));
    let mut bomb = bytes_of(&image, Format::Jpeg);
    let frame = bomb.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    bomb[frame + 5..frame + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
    assert!(failure(&bomb).contains("65500x65500"));
    let mut bomb = bytes_of(&image, Format::Bmp);
    bomb[18..26].copy_from_slice(&[0x60, 0xEA, 0, 0, 0x60, 0xEA, 0, 0]);
    assert!(failure(&bomb).contains("60000x60000"));
    assert!(failure(b"P5 60000 60000 255\n").contains("60000x60000"));
}

#[test]
fn cmyk_and_animations_are_refused() {
    let image = picture(8, 8, Color::Rgb, Depth::Eight, false);
    let mut cmyk = bytes_of(&image, Format::Jpeg);
    let frame = cmyk.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    cmyk[frame + 9] = 4;
    assert!(failure(&cmyk).contains("CMYK"));

    let mut gif = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut gif);
    let frame = |v| image::Frame::new(image::RgbaImage::from_pixel(4, 4, image::Rgba([v; 4])));
    encoder.encode_frame(frame(255)).unwrap();
    drop(encoder);
    let still = decode(&gif, "x").unwrap();
    assert_eq!((still.color, still.alpha), (Color::Gray, None));
    let mut gif = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut gif);
    encoder.encode_frames([frame(255), frame(9)]).unwrap();
    drop(encoder);
    assert!(failure(&gif).contains("animated GIF"));

    let mut apng = Vec::new();
    let mut encoder = png::Encoder::new(&mut apng, 4, 4);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[0; 16]).unwrap();
    writer.write_image_data(&[9; 16]).unwrap();
    writer.finish().unwrap();
    assert!(failure(&apng).contains("animated PNG with 2 frames"));

    let still = bytes_of(&image, Format::WebP);
    let chunk = |name: &[u8], body: &[u8]| {
        let len = (body.len() as u32).to_le_bytes();
        [name, &len[..], body].concat()
    };
    let frame_head = [0, 0, 0, 0, 0, 0, 7, 0, 0, 7, 0, 0, 100, 0, 0, 0];
    let frame = chunk(b"ANMF", &[&frame_head[..], &still[12..]].concat());
    let body = [
        b"WEBP".to_vec(),
        chunk(b"VP8X", &[2, 0, 0, 0, 7, 0, 0, 7, 0, 0]),
        chunk(b"ANIM", &[0; 6]),
        frame.clone(),
        frame,
    ];
    assert!(failure(&chunk(b"RIFF", &body.concat())).contains("animated WebP"));
}

#[test]
fn outputs_that_a_format_cannot_hold_are_refused_before_the_work() {
    let refuse = |format, w, h, bytes| {
        let text = check_output("big.out", format, w, h, bytes).unwrap_err().to_string();
        assert!(text.contains("big.out") && text.contains("help:"), "{text}");
    };
    refuse(Format::Jpeg, 65_536, 10, 3);
    refuse(Format::WebP, 10, 16_384, 3);
    refuse(Format::Tiff, 40_000, 40_000, 3);
    refuse(Format::Bmp, 40_000, 40_000, 3);
    check_output("x", Format::Jpeg, 65_535, 10, 3).unwrap();
    check_output("x", Format::WebP, 16_383, 16_383, 4).unwrap();
    check_output("x", Format::Png, 200_000, 200_000, 8).unwrap();

    let image = picture(8, 8, Color::Gray, Depth::Eight, true);
    let text = encode("a.jpg", &image, Format::Jpeg, EncodeOptions::default()).unwrap_err();
    let text = text.to_string();
    assert!(text.contains("a.jpg") && text.contains(".png") && text.contains("--alpha drop"));
}

#[test]
fn written_files_are_whole_or_absent() {
    let folder = tempfile::tempdir().unwrap();
    let image = picture(30, 20, Color::Rgb, Depth::Eight, false);
    let options = EncodeOptions::default();
    let write = |name: &str| srk::imaging::write(&folder.path().join(name), &image, options);
    write("a.name.with.dots.png").unwrap();
    write("b.JPG").unwrap();
    let usage = write("c.xyz").unwrap_err();
    assert!(matches!(usage, Error::Usage(_)) && usage.to_string().contains(".xyz"), "{usage}");
    assert!(write("missing/d.png").unwrap_err().to_string().contains("missing/d.png"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    let full = Path::new("/dev/full");
    if full.exists() {
        for format in FORMATS {
            let error = srk::imaging::encode::write_as(full, &image, format, options).unwrap_err();
            assert!(error.to_string().contains("free some space"), "{format:?}: {error}");
        }
    }
}
