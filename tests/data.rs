//! Training data: idx files.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod common;

use std::fs;
use std::io::Write;
use std::path::Path;

use common::training::{Place, finish, go, write_image};
use flate2::Compression;
use flate2::write::GzEncoder;
use srk::data::idx::{self, Images};
use srk::error::Result;

/// `count` images of 28 x 28 in the format of MNIST.
fn write_idx(path: &Path, count: u32) {
    let mut bytes = vec![0, 0, 8, 3];
    [count, 28, 28].iter().for_each(|v| bytes.extend(v.to_be_bytes()));
    bytes.extend((0..count * 28 * 28).map(|i| (i * 7 % 256) as u8));
    fs::write(path, bytes).unwrap();
}

#[test]
fn idx_files_train_and_validate_beside_folders() {
    let place = Place::new();
    let (train, val) = (place.runs("train-images-idx3-ubyte"), place.runs("t10k"));
    write_idx(&train, 5);
    write_idx(&val, 7);
    let paths = format!("data.train.paths=[{:?}, {:?}]", train, place.images());
    let vals = format!("data.val.paths=[{val:?}]");
    let few = ["val.images=3", "val.sheet=1", "val.steps=1", "run.steps=1", "data.pad=32"];
    let mut sets = vec![paths.as_str(), vals.as_str()];
    sets.extend(few);
    let heard = finish(&place.config(&sets), &place.runs("a"), None);
    assert!(heard.lines.iter().any(|l| l.contains("8 training images")), "{:?}", heard.lines);
    assert!(heard.lines.iter().any(|l| l.contains(" 3 images in ")), "{:?}", heard.lines);
    assert!(heard.warnings.is_empty(), "{:?}", heard.warnings);

    // Without padding, 28 pixels are too few for a crop of 32.
    sets.pop();
    let heard = finish(&place.config(&sets), &place.runs("b"), None);
    assert!(heard.lines.iter().any(|l| l.contains("3 training images")), "{:?}", heard.lines);
    assert!(heard.warnings[0].contains("train-images-idx3-ubyte#0"), "{:?}", heard.warnings);
}

#[test]
fn a_damaged_idx_file_stops_the_run_by_name() {
    let place = Place::new();
    let path = place.runs("cut-idx3-ubyte");
    write_idx(&path, 5);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let config = place.config(&[&format!("data.train.paths=[{path:?}]"), "data.pad=32"]);
    let error = go(&config, &place.runs("a"), None).0.unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("cut-idx3-ubyte"), "{error}");
    assert!(!place.runs("a").join("tiny/ckpt").exists());
}

#[test]
fn padding_is_black_and_centred() {
    let place = Place::new();
    let path = place.images().join("small.png");
    write_image(&path, 5, 40, 1);
    let sources = srk::data::folder::find(&[path]).unwrap();
    let pictures =
        srk::data::folder::decode_all(&sources, srk::data::folder::OnBroken::Error, &mut |_| ())
            .unwrap();
    let image = pictures[0].image.clone();
    let padded = image.clone().padded(8);
    assert_eq!((padded.width, padded.height), (8, 40));
    assert_eq!(padded.cut(1, 0, 5, 40), image);
    assert!(padded.cut(0, 0, 1, 40).pixels.iter().all(|&v| v == 0));
    assert!(padded.cut(6, 0, 2, 40).pixels.iter().all(|&v| v == 0));
}

fn read(name: &str, bytes: &[u8]) -> Result<Images> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    assert!(idx::is_idx(&path), "{name} is not seen to be idx");
    Images::read(&path)
}

fn idx(sizes: [u32; 3], pixels: usize) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 3];
    sizes.iter().for_each(|s| bytes.extend(s.to_be_bytes()));
    bytes.extend((0..pixels).map(|i| (i % 251) as u8));
    bytes
}

#[test]
fn plain_and_gzipped_idx_files_hold_the_same_images() {
    let bytes = idx([3, 2, 5], 30);
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(&bytes).unwrap();
    let gz = gz.finish().unwrap();
    for (name, bytes) in [("a", &bytes), ("b", &gz), ("x-idx3-ubyte.gz", &gz)] {
        let images = read(name, bytes).unwrap();
        assert_eq!(images.len(), 3);
        let image = images.image(1);
        assert_eq!((image.width, image.height), (5, 2));
        let gray: Vec<u8> = image.pixels.iter().step_by(3).copied().collect();
        assert_eq!(gray, (10..20).collect::<Vec<u8>>());
        assert!(image.pixels.chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]));
    }
    for end in 1..gz.len() {
        assert!(read("b-idx3-ubyte", &gz[..end]).is_err(), "{end} bytes of a gzip file are read");
    }
}

#[test]
fn damaged_idx_files_are_named_with_what_is_wrong() {
    let good = idx([3, 2, 5], 30);
    let labels = [&[0, 0, 8, 1], &good[4..]].concat();
    let cases = [
        (&good[..9], "ends within its header"),
        (&good[..40], "are 30 bytes, but it has 24"),
        (&idx([3, 2, 5], 31)[..], "but it has 30 and more"),
        (&labels[..], "labels"),
        (&idx([u32::MAX; 3], 5)[..], "4294967295 images"),
        (&idx([u32::MAX, 1, 1], 5)[..], "but it has 5"),
        (&idx([0, 2, 5], 0)[..], "0 images"),
        (&idx([1, 0, 5], 0)[..], "5 x 0"),
        (b"no idx at all, but long enough", "starts with"),
    ];
    for (bytes, cause) in cases {
        let error = read("x-idx3-ubyte", bytes).map(|i| i.len()).expect_err(cause);
        assert!(error.to_string().contains(cause), "{cause} is not in: {error}");
        assert_eq!(error.exit_code(), 1);
    }
}
