//! The stamp of a file, without its pixels.
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::line::{KEYWORDS, is_stamp};
use crate::imaging::exif;

/// The most that is read of one part of a file.
const MOST_BYTES: u64 = 1 << 20;

/// The stamp of the picture at `path`, if it has one. Reads no pixels; of what is no picture, or damaged,
/// there is none.
pub fn of_file(path: &Path) -> Option<String> {
    let mut file = BufReader::new(File::open(path).ok()?);
    let mut head = [0; 12];
    file.read_exact(&mut head).ok()?;
    match head {
        [0x89, b'P', b'N', b'G', ..] => of_png(&mut file),
        [0xFF, 0xD8, ..] => of_jpeg(&mut file),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => of_webp(&mut file),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => of_tiff(&mut file),
        _ => None,
    }
}

type Reader = BufReader<File>;

/// The next `len` bytes; none if that is more than a part of a picture's metadata has.
fn take(file: &mut Reader, len: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).ok().filter(|_| len <= MOST_BYTES)?];
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Chunks of a length, a kind, the data and a checksum, up to the pixels.
fn of_png(file: &mut Reader) -> Option<String> {
    file.seek(SeekFrom::Start(8)).ok()?;
    loop {
        let head = take(file, 8)?;
        let len = u64::from(u32::from_be_bytes(head[..4].try_into().ok()?));
        match &head[4..] {
            b"IDAT" | b"IEND" => return None,
            b"tEXt" | b"iTXt" if len <= MOST_BYTES => {
                let text = take(file, len)?;
                let text = of_png_text(&text).filter(|text| is_stamp(text));
                if text.is_some() {
                    return text;
                }
                file.seek_relative(4).ok()?;
            }
            _ => file.seek_relative(i64::try_from(len).ok()? + 4).ok()?,
        }
    }
}

/// What follows the last zero byte: in both kinds of chunk the text, behind keyword, language and the like.
fn of_png_text(chunk: &[u8]) -> Option<String> {
    let keyword = chunk.split(|&b| b == 0).next()?;
    if !KEYWORDS.iter().any(|known| known.as_bytes() == keyword) {
        return None;
    }
    String::from_utf8(chunk.rsplit(|&b| b == 0).next()?.to_vec()).ok()
}

/// Segments of a marker, a length that counts itself, and the data, up to the pixels.
fn of_jpeg(file: &mut Reader) -> Option<String> {
    file.seek(SeekFrom::Start(2)).ok()?;
    loop {
        let head = take(file, 4)?;
        let len = u64::from(u16::from_be_bytes([head[2], head[3]])).checked_sub(2)?;
        match (head[0], head[1]) {
            (0xFF, 0xDA) => return None,
            (0xFF, 0xE1) => {
                let block = take(file, len)?;
                let found = block.strip_prefix(b"Exif\0\0").and_then(exif::stamp);
                if found.is_some() {
                    return found;
                }
            }
            (0xFF, _) => file.seek_relative(i64::try_from(len).ok()?).ok()?,
            _ => return None,
        }
    }
}

/// Chunks of a kind, a length and the data, padded to an even length.
fn of_webp(file: &mut Reader) -> Option<String> {
    loop {
        let head = take(file, 8)?;
        let len = u64::from(u32::from_le_bytes(head[4..].try_into().ok()?));
        match &head[..4] {
            b"EXIF" => return exif::stamp(&exif::normalise(&take(file, len)?)?),
            _ => file.seek_relative(i64::try_from(len + len % 2).ok()?).ok()?,
        }
    }
}

/// The first directory lies anywhere, mostly behind the pixels, and its texts behind it or before.
fn of_tiff(file: &mut Reader) -> Option<String> {
    file.seek(SeekFrom::Start(0)).ok()?;
    let head = take(file, 8)?;
    exif::stamp_in(&mut |at, len| {
        if at == 0 && len <= 8 {
            return head.get(..usize::try_from(len).ok()?).map(<[u8]>::to_vec);
        }
        file.seek(SeekFrom::Start(at)).ok()?;
        take(file, len)
    })
}

#[cfg(test)]
mod tests {
    use super::super::line::{stamp, texts};
    use super::*;
    use crate::imaging::{Color, EncodeOptions, Image, Metadata, encode, read, write};

    const FORMATS: [&str; 4] = ["a.png", "a.jpg", "a.webp", "a.tiff"];

    fn image(metadata: Metadata) -> Image {
        let image = Image::from_u8(3, 2, Color::Rgb, (0..18).collect()).unwrap();
        Image { metadata, ..image }
    }

    fn stamped(text: &str) -> Metadata {
        Metadata { stamp: Some(text.to_owned()), ..Metadata::default() }
    }

    #[test]
    fn a_stamp_is_one_line_that_is_known_again() {
        let text = stamp(&[("model", "my model.safetensors".to_owned()), ("seed", "7".to_owned())]);
        assert!(text.ends_with(" model=my_model.safetensors seed=7"), "{text}");
        assert!(is_stamp(&text));
        for other in ["srk", "srk is nice", "GIMP 2.10", ""] {
            assert!(!is_stamp(other), "{other}");
        }
    }

    #[test]
    fn files_carry_their_stamp_and_the_next_one_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (stamp(&[("seed", "1".to_owned())]), stamp(&[]));
        for name in FORMATS {
            let path = folder.path().join(name);
            write(&path, &image(Metadata::default()), EncodeOptions::default()).unwrap();
            assert_eq!(of_file(&path), None, "{name}");
            write(&path, &image(stamped(&first)), EncodeOptions::default()).unwrap();
            assert_eq!(of_file(&path).as_ref(), Some(&first), "{name}");
            let mut again = read(&path).unwrap();
            again.metadata.stamp = Some(second.clone());
            write(&path, &again, EncodeOptions::default()).unwrap();
            assert_eq!(of_file(&path).as_ref(), Some(&second), "{name}");
            again.metadata.stamp = None;
            write(&path, &again, EncodeOptions::default()).unwrap();
            assert_eq!(of_file(&path), None, "{name}");
        }
    }

    #[test]
    fn the_software_of_the_input_stays() {
        let given = [("Software".to_owned(), "GIMP".to_owned())];
        let [gimp, ours] = &texts(&given, Some("srk 1"))[..] else { panic!("two texts") };
        assert_eq!((gimp.1.as_str(), ours.0.as_str()), ("GIMP", "srk"));
        let block = exif::stamped(None, Some("srk 1")).unwrap();
        let mut camera = block.clone();
        let at = camera.windows(5).position(|w| w == b"srk 1").unwrap();
        camera[at..at + 5].copy_from_slice(b"Canon");
        let both = exif::stamped(Some(camera), Some("srk 2")).unwrap();
        assert!(both.windows(5).any(|w| w == b"Canon"));
        assert_eq!(exif::stamp(&both).as_deref(), Some("srk 2"));
    }

    #[test]
    fn damaged_files_have_none_and_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for name in FORMATS {
            let format = crate::imaging::Format::from_path(Path::new(name)).unwrap();
            let bytes =
                encode(name, &image(stamped("srk 1")), format, EncodeOptions::default()).unwrap();
            for cut in 0..bytes.len() {
                std::fs::write(&path, &bytes[..cut]).unwrap();
                let _ = of_file(&path);
            }
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] = 0xFF;
                std::fs::write(&path, damaged).unwrap();
                let _ = of_file(&path);
            }
        }
    }
}
