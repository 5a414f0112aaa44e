//! Training data: idx files, changed crops, prepared folders.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use crate::common;

use std::fs;
use std::io::Write;
use std::path::Path;

use common::training::{Place, finish, go, write_image};
use flate2::Compression;
use flate2::write::GzEncoder;
use srk::data::folder;
use srk::data::idx::{self, Images};
use srk::data::pack;
use srk::data::split::hold_out;
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

use srk::data::augment::{Augment, Changes, Jitter, cut_turned};
use srk::data::crops::{CropBatch, CropPlan, Crops, Pair};
use srk::data::degrade::{self, Degrade};
use srk::data::folder::Rgb8;
use srk::diffusion::process::Enlarge;

/// A picture in which every pixel is another.
fn picture(width: usize, height: usize) -> Rgb8 {
    let pixel = |i: usize| {
        let (x, y) = (i % width, i / width);
        [(x * 5 + 3) % 256, (y * 7 + x) % 256, (x * y + 40) % 256].map(|v| v as u8)
    };
    Rgb8 { width, height, pixels: (0..width * height).flat_map(pixel).collect() }
}

fn crops(augment: Augment, degrade: Degrade, enlarge: Enlarge) -> Crops {
    let high = picture(48, 40);
    let low = degrade::shrink(&high, degrade, 4).unwrap();
    let pairs = vec![Pair { name: "a".into(), high, low, damage: None, taught: None }];
    let (size, plain) = (16, 0.0);
    let plan = CropPlan {
        size,
        batch: 6,
        scale: 4,
        channels: 3,
        augment,
        degrade,
        enlarge,
        plain,
        seed: 5,
    };
    Crops::new(pairs, plan, &mut |_| ()).unwrap()
}

fn bits(batch: &CropBatch) -> Vec<u32> {
    let parts = [&batch.low, &batch.y0, &batch.x0];
    parts.iter().flat_map(|t| t.to_f32_vec().unwrap()).map(f32::to_bits).collect()
}

#[test]
fn a_switch_and_a_table_that_say_the_same_give_the_same_crops() {
    let batch =
        |augment| bits(&crops(augment, Degrade::default(), Enlarge::Bicubic).batch(3).unwrap());
    let all = Changes::default();
    assert_eq!(batch(Augment::Symmetries(true)), batch(Augment::Chosen(all)));
    let none = Changes { flip: false, rotate: false, ..all };
    assert_eq!(batch(Augment::Symmetries(false)), batch(Augment::Chosen(none)));
    assert_ne!(batch(Augment::Symmetries(false)), batch(Augment::Symmetries(true)));
    let kinds = |flip, rotate| {
        let changes = Changes { flip, rotate, ..all };
        let mut seen: Vec<u32> = (0..64).map(|bits| changes.symmetry(bits)).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    assert_eq!(kinds(true, true).len(), 8);
    assert_eq!(kinds(true, false), [0, 1]);
    assert_eq!(kinds(false, true), [0, 3, 5, 6]);
}

#[test]
fn changed_crops_are_what_the_changed_image_gives() {
    // Colours are changed by next to nothing: pixels are the same, but made the other way.
    let tiny = Jitter { brightness: 1e-9, ..Jitter::default() };
    let plain = Changes { flip: true, rotate: true, ..Changes::default() };
    for degrade in [Degrade::MatlabBicubic, Degrade::PillowBicubic, Degrade::Bilinear] {
        for enlarge in [Enlarge::Bicubic, Enlarge::Pillow] {
            let changed = Augment::Chosen(Changes { jitter: tiny, ..plain });
            let [a, b] = [Augment::Chosen(plain), changed].map(|a| crops(a, degrade, enlarge));
            for step in 0..8 {
                let [a, b] = [&a, &b].map(|c| bits(&c.batch(step).unwrap()));
                assert!(a == b, "{degrade:?} {enlarge:?} step {step}");
            }
        }
    }
    let strong = Jitter { brightness: 0.2, contrast: 0.2, saturation: 0.2, hue: 0.1 };
    let changes = Augment::Chosen(Changes { jitter: strong, degrees: 10.0, ..plain });
    let source = crops(changes, Degrade::default(), Enlarge::Bicubic);
    let [first, again, other] = [1, 1, 2].map(|step| bits(&source.batch(step).unwrap()));
    assert!(first == again && first != other);
    let plain = crops(Augment::Chosen(plain), Degrade::default(), Enlarge::Bicubic);
    assert!(first != bits(&plain.batch(1).unwrap()));
}

#[test]
fn colours_change_as_torchvision_has_it() {
    let one = |jitter: Jitter, bits: [u32; 5], pixels: [u8; 6]| {
        let mut image = Rgb8 { width: 2, height: 1, pixels: pixels.to_vec() };
        Changes { jitter, ..Changes::default() }.recolor(&mut image, bits);
        image.pixels
    };
    let pixels = [200, 100, 50, 40, 80, 160];
    let most = [0, u32::MAX, u32::MAX, u32::MAX, u32::MAX];
    let none = Jitter::default();
    let half = |v: f64| Jitter { brightness: v, ..none };
    assert_eq!(one(half(0.2), most, pixels), [240, 120, 60, 48, 96, 192]);
    assert_eq!(one(half(0.2), [0; 5], pixels), [160, 80, 40, 32, 64, 128]);
    // Greys 124.2 and 77.16, their mean 100.68.
    let contrast = Jitter { contrast: 0.5, ..none };
    assert_eq!(one(contrast, most, pixels), [250, 100, 25, 10, 70, 190]);
    let saturation = Jitter { saturation: 1.0, ..none };
    assert_eq!(one(saturation, [0; 5], pixels), [124, 124, 124, 77, 77, 77]);
    // A third of the circle: red becomes green, green blue.
    let hue = |v: f64| Jitter { hue: v, ..none };
    assert_eq!(one(hue(1.0 / 3.0), most, pixels), [50, 200, 100, 160, 40, 80]);
    assert_eq!(one(hue(0.5), most, [255, 0, 0, 7, 7, 7]), [0, 255, 255, 7, 7, 7]);
}

#[test]
fn small_turns_leave_the_middle_and_blacken_what_is_outside() {
    let image = picture(9, 9);
    assert_eq!(cut_turned(&image, [0, 0, 9, 9], 0.0), image);
    let quarter = cut_turned(&image, [0, 0, 9, 9], 90.0);
    assert_eq!(quarter.cut(4, 4, 1, 1), image.cut(4, 4, 1, 1));
    assert_eq!(quarter.cut(0, 0, 1, 1), image.cut(8, 0, 1, 1));
    let eighth = cut_turned(&image, [0, 0, 9, 9], 45.0);
    assert!(eighth.cut(0, 0, 1, 1).pixels.iter().all(|&v| v == 0));
}

#[test]
fn augmentation_is_read_as_a_switch_or_a_section() {
    let place = Place::new();
    let augment = |sets: &[&str]| place.config(sets).data.train.augment;
    assert_eq!(augment(&[]), Augment::Symmetries(true));
    assert_eq!(augment(&["data.train.augment=false"]), Augment::Symmetries(false));
    let jitter = Jitter { hue: 0.1, ..Jitter::default() };
    let wanted = Augment::Chosen(Changes { rotate: false, jitter, ..Changes::default() });
    let table = "data.train.augment={ rotate = false, jitter = { hue = 0.1 } }";
    assert_eq!(augment(&[table]), wanted);
    let keys = ["data.train.augment.rotate=false", "data.train.augment.jitter.hue=0.1"];
    assert_eq!(augment(&keys), wanted);
    // Written and read again, it is the same.
    for sets in [&[][..], &[table][..]] {
        let config = place.config(sets);
        let again = srk::training::config::Config::read(&config.to_toml(), "again", &[]).unwrap();
        assert_eq!(again, config);
    }
    for (set, words) in [
        ("data.train.augment={ flop = true }", "flop"),
        ("data.train.augment={ jitter = { hue = 0.6 } }", "0..=0.5"),
        ("data.train.augment={ degrees = -1 }", "degrees"),
        ("data.train.augment=3", "augment"),
    ] {
        let error = place.try_config(&[set]).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(words), "{set}: {error}");
    }
}

#[test]
fn a_run_with_every_change_resumes_to_the_same_weights() {
    let place = Place::new();
    let change = "data.train.augment={ degrees = 10, jitter = { brightness = 0.2, contrast = 0.2, \
                  saturation = 0.2, hue = 0.1 } }";
    let config = place.config(&["run.steps=4", change]);
    let (whole, parts) = (place.runs("whole"), place.runs("parts"));
    finish(&config, &whole, None);
    finish(&config, &parts, Some(2));
    finish(&config, &parts, None);
    common::training::assert_same(&whole, &parts, 4);
}

use srk::data::prep::{self, Method, Prepared, Request};
use srk::imaging::resample::{self, Filter, Shape};
use srk::imaging::{self, Samples};

fn request(place: &Place, method: Method) -> Request {
    Request {
        inputs: vec![place.images()],
        out: place.runs("out"),
        low: 8,
        high: 32,
        method,
        filter: Filter::Bicubic,
        split: 0.7,
        force: false,
    }
}

fn pixels(path: &Path) -> (usize, usize, Vec<u8>) {
    let image = imaging::read(path).unwrap();
    match image.samples {
        Samples::U8(pixels) => (image.width, image.height, pixels),
        Samples::U16(_) => panic!("{} has 16 bits", path.display()),
    }
}

#[test]
fn prepared_folders_hold_three_versions_of_each_picture() {
    let place = Place::new();
    let more = place.runs("more");
    fs::create_dir_all(more.join("deep")).unwrap();
    write_image(&more.join("deep/1.png"), 50, 40, 5);
    write_image(&more.join("1.webp"), 40, 47, 6);
    fs::write(more.join("2.png"), b"no picture").unwrap();
    for method in [Method::Crop, Method::Squash] {
        let inputs = vec![more.clone(), place.images()];
        let out = place.runs(&format!("{method:?}"));
        let request = Request { inputs, out: out.clone(), ..request(&place, method) };
        let heard = std::sync::Mutex::new(0);
        let prepared = prep::prep(&request, &|all| {
            assert_eq!(all, 6);
            *heard.lock().unwrap() += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(*heard.lock().unwrap(), 6);
        assert_eq!((prepared.train, prepared.test), (4, 1));
        assert!(prepared.skipped.len() == 1 && prepared.skipped[0].contains("2.png"));
        let names = |folder: &str| {
            let entries = fs::read_dir(out.join(folder)).unwrap();
            let mut names: Vec<String> =
                entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        // images/0 1 2, then more/1.webp, more/2.png, more/deep/1.png.
        for folder in ["train", "train_lr_data", "train_hr_lr_data"] {
            assert_eq!(names(folder), ["0.png", "1.png", "1_2.png", "2.png"], "{folder}");
        }
        for folder in ["test", "test_lr_data", "test_hr_lr_data"] {
            assert_eq!(names(folder), ["1_3.png"], "{folder}");
        }
        // What Pillow makes of images/2, 48 x 56: cut to the middle, or squeezed.
        let (width, height, source) = pixels(&place.images().join("2.png"));
        assert_eq!((width, height), (48, 56));
        let pillow = |pixels: &[u8], from: [usize; 2], to: [usize; 2]| {
            let from = Shape::new(from[0], from[1], 3);
            resample::pillow(pixels, from, to[0], to[1], Filter::Bicubic).unwrap()
        };
        let [high, low, enlarged] = ["train", "train_lr_data", "train_hr_lr_data"]
            .map(|folder| pixels(&out.join(folder).join("2.png")));
        assert_eq!((high.0, high.1, low.0, low.1), (32, 32, 8, 8));
        assert_eq!(enlarged.2, pillow(&low.2, [8, 8], [32, 32]));
        if method == Method::Squash {
            assert_eq!(high.2, pillow(&source, [56, 48], [32, 32]));
            assert_eq!(low.2, pillow(&high.2, [32, 32], [8, 8]));
        } else {
            // 56 / 48 of 32 is 37.3: of 37 rows 2 are cut off above, of 9 none.
            let large = pillow(&source, [56, 48], [37, 32]);
            assert_eq!(high.2, large[2 * 32 * 3..34 * 32 * 3]);
            let small = pillow(&source, [56, 48], [9, 8]);
            assert_eq!(low.2, small[..8 * 8 * 3]);
        }
    }
}

#[test]
fn prepared_folders_are_not_written_over_unasked() {
    let place = Place::new();
    let request = request(&place, Method::Crop);
    let go = |request: &Request| prep::prep(request, &|_| Ok(()));
    let all = Prepared { train: 2, test: 1, skipped: vec![] };
    assert_eq!(go(&request).unwrap(), all);
    let error = go(&request).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("--force"), "{error}");
    assert_eq!(go(&Request { force: true, ..request.clone() }).unwrap(), all);
    for wrong in [
        Request { low: 32, ..request.clone() },
        Request { low: 0, ..request.clone() },
        Request { split: 1.5, ..request.clone() },
        Request { inputs: vec![place.runs("none")], out: place.runs("new"), ..request.clone() },
    ] {
        assert_eq!(go(&wrong).unwrap_err().exit_code(), 2);
    }
    assert!(!place.runs("new").exists());
}

#[test]
fn images_of_idx_files_are_prepared_too() {
    let place = Place::new();
    let path = place.runs("t10k-images-idx3-ubyte");
    write_idx(&path, 3);
    let request = Request { inputs: vec![path], split: 1.0, ..request(&place, Method::Crop) };
    assert_eq!(prep::prep(&request, &|_| Ok(())).unwrap().train, 3);
    assert!(place.runs("out/train_lr_data/t10k-images-idx3-ubyte-00002.png").exists());
}

/// The last two parts of the names of the images below `path` that are split off, sorted.
fn split_off(path: &Path, share: f64, seed: u64) -> Vec<String> {
    let paths = [path.to_owned()];
    let [stays, split] = hold_out(folder::find(&paths).unwrap(), &paths, share, seed).unwrap();
    assert!(!stays.is_empty() && !split.is_empty());
    let name = |source: &folder::Source| {
        let name = source.name();
        let parts: Vec<_> = name.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
        format!("{}/{}", parts[1], parts[0])
    };
    let mut names: Vec<String> = split.iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn pictures_that_come_and_go_move_no_other_into_validation() {
    let place = Place::new();
    let all = place.runs("all");
    let name = |i: usize| all.join(format!("{}/p{i}.png", ["x", "y"][i % 2]));
    for folder in ["x", "y"] {
        fs::create_dir_all(all.join(folder)).unwrap();
    }
    write_image(&place.runs("one.png"), 8, 8, 1);
    let put = |i: usize| assert!(fs::copy(place.runs("one.png"), name(i)).unwrap() > 0);
    (0..80).for_each(put);
    let before = split_off(&all, 0.2, 3);
    assert!((6..28).contains(&before.len()), "{} of 80", before.len());
    assert_ne!(split_off(&all, 0.2, 4), before);
    // Elsewhere, and packed.
    let packed = place.runs("all.tar");
    let request = pack::Request {
        inputs: vec![all.clone()],
        out: packed.clone(),
        most: None,
        overwrite: false,
    };
    pack::write(&request, &|_| Ok(())).unwrap();
    assert_eq!(split_off(&packed, 0.2, 3), before);
    let moved = place.runs("moved");
    fs::rename(&all, &moved).unwrap();
    assert_eq!(split_off(&moved, 0.2, 3), before);
    fs::rename(&moved, &all).unwrap();
    // Of those that are there before and after none moves.
    (0..80).step_by(3).for_each(|i| fs::remove_file(name(i)).unwrap());
    (100..140).for_each(put);
    let stays = |i: usize| i < 80 && !i.is_multiple_of(3);
    let known: Vec<String> =
        (0..80).filter(|&i| stays(i)).map(|i| format!("{}/p{i}.png", ["x", "y"][i % 2])).collect();
    let of_known = |names: Vec<String>| -> Vec<String> {
        names.into_iter().filter(|name| known.contains(name)).collect()
    };
    assert_eq!(of_known(split_off(&all, 0.2, 3)), of_known(before));
    // Of two there is one on either side, whatever is drawn.
    let few = place.runs("few");
    fs::create_dir(&few).unwrap();
    for name in ["a", "b"] {
        fs::copy(place.runs("one.png"), few.join(format!("{name}.png"))).unwrap();
    }
    for seed in 0..8 {
        assert_eq!(split_off(&few, 0.5, seed).len(), 1);
        assert_eq!(split_off(&few, 0.01, seed).len(), 1);
    }
}
