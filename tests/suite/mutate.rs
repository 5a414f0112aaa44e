//! Files that lie: seeds of every kind that is read, changed at random but always in the same way. Whatever
//! comes of it must be a value or an error: no panic, no abort, and no long wait.
//!
//! By hand, for longer: `SRK_MUTATE=50 SRK_MUTATE_SEED=7 cargo test --release --test suite mutate:: -- --nocapture`
//! (fifty times as many, other changes). A failure names the number of the input, which the same seed makes
//! again; inputs are not kept.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_possible_truncation)]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use srk::data::idx::Images;
use srk::imaging::{Color, Depth, EncodeOptions, Format, Image, Samples, decode, encode};
use srk::models::weights::WeightsFile;
use srk::training::config::Config;
use srk::training::recipes;

/// No input may take longer, on a machine that does other things too.
const LONGEST: Duration = Duration::from_secs(20);

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(usual)
}

/// Numbers below a bound (splitmix64), the same for the same seed and input.
struct Dice(u64);

impl Dice {
    fn new(kind: u64, input: u64) -> Self {
        Self(number("SRK_MUTATE_SEED", 1) << 48 ^ kind << 40 ^ input)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) % n.max(1) as u64) as usize
    }
}

/// Changes one to eight places: bits, bytes of note, 16 and 32 bits, runs left out, doubled, moved.
fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..1 + dice.below(8) {
        if bytes.is_empty() {
            return;
        }
        let at = dice.below(bytes.len());
        let len = 1 + dice.below(16).min(bytes.len() - at - 1);
        match dice.below(9) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][dice.below(5)],
            2 => bytes[at] = dice.below(256) as u8,
            3 => bytes[at..].iter_mut().take(2).for_each(|b| *b = 0xFF),
            4 => bytes[at..].iter_mut().take(4).for_each(|b| *b = 0x7F),
            5 => drop(bytes.drain(at..at + len)),
            6 => {
                let run = bytes[at..at + len].to_vec();
                bytes.splice(at..at, run);
            }
            7 => {
                let run = bytes[at..at + len].to_vec();
                let to = dice.below(bytes.len());
                bytes.iter_mut().skip(to).zip(run).for_each(|(b, new)| *b = new);
            }
            _ => bytes.truncate(at + 1),
        }
    }
}

/// Runs `count` changed seeds through `read`, which says whether it took them.
fn run(kind: u64, name: &str, count: u64, seeds: &[Vec<u8>], read: impl Fn(&[u8]) -> bool) {
    let count = count * number("SRK_MUTATE", 1);
    let (start, mut accepted, mut bad) = (Instant::now(), 0, vec![]);
    for input in 0..count {
        let mut dice = Dice::new(kind, input);
        let mut bytes = seeds[dice.below(seeds.len())].clone();
        mutate(&mut bytes, &mut dice);
        repair_png(&mut bytes);
        let began = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| read(&bytes))) {
            Ok(taken) => accepted += u64::from(taken),
            Err(_) => bad.push(format!("{name} {input} panicked")),
        }
        if began.elapsed() > LONGEST {
            bad.push(format!("{name} {input} took {:?}", began.elapsed()));
        }
    }
    println!("{name}: {count} inputs, {accepted} accepted, {:?}", start.elapsed());
    assert!(bad.is_empty(), "{}", bad.join("; "));
    assert!(accepted > 0 && accepted < count, "{name}: {accepted} of {count} are no test");
}

/// Makes the checksums of PNG chunks right, or the decoder would see no change but that.
fn repair_png(bytes: &mut [u8]) {
    if !bytes.starts_with(b"\x89PNG") {
        return;
    }
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()) {
        let end = at + 8 + u32::from_be_bytes(length) as usize;
        if end + 4 > bytes.len() {
            return;
        }
        let mut sum = flate2::Crc::new();
        sum.update(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&sum.sum().to_be_bytes());
        at = end + 4;
    }
}

fn picture(color: Color, depth: Depth, alpha: bool) -> Image {
    let mut image = Image::new(16, 12, color, depth);
    let values: Vec<f32> = (0..16 * 12 * 3).map(|i| (i * 37 % 256) as f32 / 255.0).collect();
    image.store(image.rect(), &values).unwrap();
    image.alpha = alpha.then(|| Samples::zeros(depth, 16 * 12));
    image.metadata.density = Some((3000, 3000));
    image.metadata.xmp = Some(b"<xmp/>".to_vec());
    image.metadata.exif =
        Some(b"II*\0\x08\0\0\0\x01\0\x98\x82\x02\0\x03\0\0\0me\0\0\0\0\0\0".to_vec());
    image
}

fn pictures() -> Vec<Vec<u8>> {
    let mut seeds = vec![];
    for format in [Format::Png, Format::Jpeg, Format::WebP, Format::Tiff, Format::Bmp] {
        for (color, depth, alpha) in [
            (Color::Rgb, Depth::Eight, false),
            (Color::Gray, Depth::Sixteen, false),
            (Color::Rgb, Depth::Eight, format != Format::Jpeg),
        ] {
            let image = picture(color, depth, alpha);
            seeds.push(encode("seed", &image, format, EncodeOptions::default()).unwrap());
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jpeg");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "jpg"));
    files.sort();
    seeds.extend(files.iter().map(|f| std::fs::read(f).unwrap()));
    seeds.push(b"P6 4 4 255 0123456789abcdefghijklmnopqrstuvwxyz0123456789ABCDEF".to_vec());
    seeds.push(b"GIF89a\x02\0\x02\0\x80\0\0\0\0\0\xff\xff\xff\x2c\0\0\0\0\x02\0\x02\0\0\x02\x02\x84\x51\0\x3b".to_vec());
    seeds
}

#[test]
fn pictures_decode_or_are_refused() {
    let formats = [Format::Png, Format::Tiff, Format::Bmp, Format::WebP];
    run(1, "pictures", 3000, &pictures(), |bytes| {
        let Ok(image) = decode(bytes, "mutant") else { return false };
        image.validate().unwrap();
        // What was read can be written, unless it has grown large, or longer than the format allows.
        let format = formats[bytes.len() % formats.len()];
        let fits = image.width.max(image.height) <= format.max_side();
        if fits && image.width * image.height < 1 << 16 {
            encode("mutant", &image, format, EncodeOptions::default()).unwrap();
        }
        true
    });
}

#[test]
fn weights_parse_or_are_refused() {
    let entry = |name: &str, shape: &str, end: usize| {
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[0,{end}]}}")
    };
    let seed = |header: String, data: usize| {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![7; data]].concat()
    };
    let seeds = [
        seed(format!("{{{}}}", entry("conv.weight", "[2,2]", 16)), 16),
        seed(format!("{{\"__metadata__\":{{\"a\":\"b\"}},{}}}", entry("x", "[4]", 16)), 16),
    ];
    run(2, "weights", 4000, &seeds, |bytes| WeightsFile::parse(bytes, "mutant").is_ok());
}

#[test]
fn checkpoints_import_or_are_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pickle");
    let names = ["types.zip.pth", "types.legacy.pth", "whole.zip.pth", "whole.legacy.pth"];
    let seeds: Vec<_> = names.iter().map(|n| std::fs::read(folder.join(n)).unwrap()).collect();
    run(3, "checkpoints", 1500, &seeds, |bytes| srk::import::tensors(bytes.to_vec(), None).is_ok());
}

#[test]
fn recipes_read_or_are_refused() {
    let names = ["sr3", "rrdb", "resshift-dual", "srgan"];
    let seeds: Vec<_> = names
        .iter()
        .filter_map(|name| recipes::find(name).ok())
        .map(|recipe| recipe.text.as_bytes().to_vec())
        .collect();
    run(4, "recipes", 800, &seeds, |bytes| {
        Config::read(&String::from_utf8_lossy(bytes), "mutant", &[]).is_ok()
    });
}

#[test]
fn idx_files_read_or_are_refused() {
    let head = |magic: u8, sizes: &[u32]| {
        let sizes = sizes.iter().flat_map(|s| s.to_be_bytes());
        [0, 0, 8, magic].into_iter().chain(sizes).collect::<Vec<u8>>()
    };
    let seeds = [[head(3, &[2, 5, 4]), vec![9; 40]].concat()];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images-idx3-ubyte");
    run(5, "idx", 2000, &seeds, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        Images::read(&path).is_ok()
    });
}
