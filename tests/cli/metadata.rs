//! What files say beside their pixels, through the binary's formats: kept, or named as lost.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use crate::common::command::Bench;
use srk::imaging::encode::{Outline, losses};
use srk::imaging::{Color, Depth, EncodeOptions, Format, Image, Metadata, Samples, decode, encode};

const FORMATS: [Format; 5] = [Format::Png, Format::Jpeg, Format::WebP, Format::Tiff, Format::Bmp];

const XMP: &[u8] = b"<x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf/></x:xmpmeta>";

/// A profile as far as srk looks at it: its head.
fn profile(kind: &[u8; 4]) -> Vec<u8> {
    let mut icc = vec![0; 200];
    icc[3] = 200;
    icc[12..16].copy_from_slice(b"mntr");
    icc[16..20].copy_from_slice(kind);
    icc[36..40].copy_from_slice(b"acsp");
    icc
}

/// An EXIF block: copyright "me", and in a directory of its own the speed of the film.
fn exif() -> Vec<u8> {
    let mut b = b"II*\0\x08\0\0\0\x02\0".to_vec();
    b.extend([0x98, 0x82, 2, 0, 3, 0, 0, 0, b'm', b'e', 0, 0]);
    b.extend([0x69, 0x87, 4, 0, 1, 0, 0, 0, 38, 0, 0, 0]);
    b.extend([0; 4]);
    b.extend([1, 0, 0x27, 0x88, 3, 0, 1, 0, 0, 0, 0x90, 1, 0, 0, 0, 0, 0, 0]);
    b
}

fn image(color: Color, alpha: bool) -> Image {
    let mut image = Image::new(6, 4, color, Depth::Eight);
    image.alpha = alpha.then(|| Samples::U8((0..24).map(|i| 100 + i).collect()));
    image
}

fn through(image: &Image, format: Format) -> Image {
    let bytes = encode("out", image, format, EncodeOptions::default()).unwrap();
    decode(&bytes, "out").unwrap()
}

fn lost(image: &Image, format: Format) -> String {
    losses(&Outline::of(image), format).join(", ")
}

fn has(block: Option<&Vec<u8>>, text: &[u8]) -> bool {
    block.is_some_and(|b| b.windows(text.len()).any(|w| w == text))
}

#[test]
fn every_format_keeps_or_names() {
    let mut full = image(Color::Rgb, false);
    full.metadata = Metadata {
        icc: Some(profile(b"RGB ")),
        exif: Some(exif()),
        xmp: Some(XMP.to_vec()),
        density: Some((11811, 5906)),
        text: vec![("Comment".into(), "words".into())],
        png_colors: vec![(*b"gAMA", vec![0, 1, 134, 160]), (*b"cICP", vec![9, 16, 0, 1])],
        ..Metadata::default()
    };
    for format in FORMATS {
        let (back, lost) = (through(&full, format).metadata, lost(&full, format));
        let kept = |there: bool, name: &str| {
            assert_ne!(there, lost.contains(name), "{format:?}: {name} in \"{lost}\"");
        };
        kept(back.icc == full.metadata.icc, "colour profile");
        let film = [0x27, 0x88, 3, 0, 1, 0, 0, 0, 0x90, 1];
        let whole = has(back.exif.as_ref(), b"me\0") && has(back.exif.as_ref(), &film);
        kept(whole, "EXIF");
        kept(back.xmp == full.metadata.xmp, "XMP");
        kept(back.text == full.metadata.text, "text");
        kept(back.png_colors == full.metadata.png_colors, "gAMA");
        kept(back.png_colors == full.metadata.png_colors, "cICP");
        // All formats hold it; inches and metres round differently.
        let (x, y) = back.density.unwrap();
        assert!(x.abs_diff(11811) <= 20 && y.abs_diff(5906) <= 20, "{format:?}: {x} {y}");
    }
}

#[test]
fn a_profile_goes_only_with_pixels_of_its_kind() {
    for (color, alpha, kind) in [
        (Color::Gray, false, b"GRAY"),
        (Color::Gray, true, b"GRAY"),
        (Color::Gray, false, b"RGB "),
        (Color::Rgb, false, b"GRAY"),
        (Color::Rgb, true, b"RGB "),
    ] {
        let mut image = image(color, alpha);
        image.metadata.icc = Some(profile(kind));
        for format in [Format::Png, Format::WebP, Format::Tiff, Format::Jpeg] {
            if alpha && format == Format::Jpeg {
                continue;
            }
            let gray_file = color == Color::Gray
                && format != Format::WebP
                && !(alpha && format == Format::Tiff);
            let fits = (kind == b"GRAY") == gray_file;
            let back = through(&image, format).metadata.icc;
            assert_eq!(back.is_some(), fits, "{color:?} {alpha} {format:?}");
            assert_eq!(lost(&image, format).contains("profile"), !fits, "{color:?} {format:?}");
        }
    }
}

/// What `srk` with words between blanks says.
fn srk(bench: &Bench, arguments: &str) -> String {
    bench.srk(&arguments.split(' ').collect::<Vec<_>>()).worked().err
}

fn metadata(bench: &Bench, name: &str) -> Metadata {
    srk::imaging::read(&bench.path(name)).unwrap().metadata
}

#[test]
fn the_user_chooses_what_is_written() {
    let bench = Bench::new();
    let mut full = image(Color::Rgb, false);
    full.metadata.icc = Some(profile(b"RGB "));
    full.metadata.exif = Some(exif());
    full.metadata.density = Some((11811, 11811));
    full.metadata.png_colors = vec![(*b"gAMA", vec![0, 1, 134, 160])];
    srk::imaging::write(&bench.folder().join("in.png"), &full, EncodeOptions::default()).unwrap();
    let said = srk(&bench, "upscale in.png keep.bmp --steps 1");
    for what in ["colour profile", "EXIF", "gamma (gAMA)"] {
        assert!(said.contains(&format!("note: BMP cannot hold the {what}")), "{said}");
    }
    srk(&bench, "upscale in.png keep.png --steps 1");
    let kept = metadata(&bench, "keep.png");
    assert!(kept.icc.is_some() && kept.exif.is_some() && kept.density == Some((11811, 11811)));
    assert_eq!(kept.png_colors, full.metadata.png_colors);
    srk(&bench, "upscale in.png icc.png --steps 1 --metadata icc");
    let icc = metadata(&bench, "icc.png");
    assert!(icc.icc.is_some() && icc.exif.is_none() && icc.density.is_none());
    assert_eq!(icc.png_colors, full.metadata.png_colors);
    let said = srk(&bench, "upscale in.png strip.bmp --steps 1 --metadata strip");
    assert!(!said.contains("note:"), "{said}");
    srk(&bench, "upscale in.png strip.png --steps 1 --metadata strip");
    assert_eq!(metadata(&bench, "strip.png"), Metadata::default());
}

/// A TIFF of one 2 x 2 strip: tags as given, 64 bytes of samples.
fn tiff(tags: &[(u16, u16, u32, u32)]) -> Vec<u8> {
    let mut file = b"II*\0\x48\0\0\0".to_vec();
    file.extend([100; 64]);
    file.extend((tags.len() as u16).to_le_bytes());
    for &(tag, kind, count, value) in tags {
        file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    file.extend([0; 4]);
    file
}

#[test]
fn kinds_of_tiff_that_are_not_read_are_told_in_words() {
    let kind = |bits: u32, samples: u32, photometric: u32, format: u32| {
        let size = 4 * samples * bits / 8;
        let mut tags = vec![(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 1, bits), (259, 3, 1, 1)];
        tags.extend([(262, 3, 1, photometric), (273, 4, 1, 8), (277, 3, 1, samples)]);
        tags.extend([(278, 3, 1, 2), (279, 4, 1, size), (339, 3, 1, format)]);
        decode(&tiff(&tags), "a.tif")
    };
    assert!(kind(8, 1, 1, 1).is_ok());
    for (bits, samples, photometric, format, words) in [
        (32, 1, 1, 3, "32-bit floating-point samples, gray"),
        (32, 1, 1, 1, "32-bit unsigned samples, gray"),
        (8, 1, 1, 2, "8-bit signed samples, gray"),
        (8, 1, 3, 1, "palette"),
    ] {
        let error = kind(bits, samples, photometric, format).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("Unknown"), "{words}: {error}");
    }
}

#[test]
fn frames_and_parts_larger_than_their_file_are_refused() {
    let mut gif = b"GIF89a\x02\0\x02\0\x80\0\0\0\0\0\xff\xff\xff\x2c\0\0\0\0".to_vec();
    let whole = [&gif[..], &[2, 0, 2, 0, 0, 2, 2, 0x84, 0x51, 0, 0x3B]].concat();
    assert!(decode(&whole, "a.gif").is_ok());
    gif.extend([0x00, 0x40, 0x00, 0x40, 0, 2, 2, 0x84, 0x51, 0, 0x3B]);
    let error = decode(&gif, "a.gif").unwrap_err().to_string();
    assert!(error.contains("16384x16384 does not fit the picture of 2x2"), "{error}");
    let mut webp =
        encode("a", &image(Color::Rgb, false), Format::WebP, EncodeOptions::default()).unwrap();
    webp.extend(b"EXIF\0\0\0\xc0");
    let length = (webp.len() - 8) as u32;
    webp[4..8].copy_from_slice(&length.to_le_bytes());
    let error = decode(&webp, "a.webp").unwrap_err().to_string();
    assert!(error.contains("EXIF claims 3221225472 bytes"), "{error}");
}

/// A PNG of one pixel with the chunks that `add` writes before its pixels.
fn png_with(add: impl FnOnce(&mut png::Writer<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    add(&mut writer);
    writer.write_image_data(&[7]).unwrap();
    writer.finish().unwrap();
    bytes
}

fn deflated(content: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A few kilobytes of a profile that unpack to more than any profile has cost one picture, not the memory.
#[test]
fn packed_metadata_may_not_unpack_without_bound() {
    let large = deflated(&vec![0; 33 << 20]);
    for (name, head) in
        [(*b"iCCP", &b"p\0\0"[..]), (*b"zTXt", b"c\0\0"), (*b"iTXt", b"c\0\x01\0\0\0")]
    {
        let chunk = [head, &large].concat();
        let bytes = png_with(|w| w.write_chunk(png::chunk::ChunkType(name), &chunk).unwrap());
        let error = decode(&bytes, "a").unwrap_err().to_string();
        assert!(error.contains("unpacks to more than 32 MiB"), "{error}");
        assert!(error.contains(std::str::from_utf8(&name).unwrap()), "{error}");
    }
}

#[test]
fn packed_text_of_a_png_is_kept() {
    let chunk = [b"parameters\0\0", &deflated(b"steps 20")[..]].concat();
    let bytes = png_with(|w| w.write_chunk(png::chunk::zTXt, &chunk).unwrap());
    let image = decode(&bytes, "a").unwrap();
    assert_eq!(image.metadata.text, [("parameters".to_owned(), "steps 20".to_owned())]);
}
