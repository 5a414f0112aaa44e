//! The binary as its users meet it: results, bad input, exit codes, and nothing left behind.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::command::{Bench, Run, size};

use image::{DynamicImage, ImageBuffer, Luma, LumaA};

#[test]
fn upscales_four_times() {
    let b = Bench::new();
    b.photo("in.png", 37, 21);
    let run = b.srk(&["upscale", "in.png", "out.png"]).worked();
    assert_eq!(size(&b.path("out.png")), (148, 84));
    assert!(run.err.contains("37x21 -> 148x84"), "{}", run.err);
    assert_eq!(b.files(), ["in.png", "out.png"]);
}

#[test]
fn same_seed_same_bytes_whatever_the_tiles_and_threads() {
    let b = Bench::new();
    b.photo("in.png", 75, 61);
    let with = |name: &str, more: &[&str]| {
        let mut arguments = vec!["upscale", "in.png", name, "--steps", "2"];
        arguments.extend_from_slice(more);
        b.srk(&arguments).worked();
        fs::read(b.path(name)).unwrap()
    };
    let whole = with("whole.png", &["--tile", "none"]);
    assert!(whole == with("tiles.png", &["--tile", "16"]), "tiles change the result");
    assert!(whole == with("threads.png", &["-j", "1"]), "threads change the result");
    assert!(whole == with("auto.png", &["--ram", "60M"]), "the memory budget changes the result");
    assert!(whole != with("seed.png", &["--seed", "7"]), "the seed changes nothing");
}

#[test]
fn the_library_gives_the_picture_of_the_binary() {
    let b = Bench::new();
    b.photo("in.png", 24, 16);
    b.srk(&["upscale", "in.png", "out.png"]).worked();
    let [small, large] = ["in.png", "out.png"].map(|name| srk::Image::read(b.path(name)).unwrap());
    let with = |options| {
        let upscaler = srk::Upscaler::open_with("auto", options).unwrap();
        upscaler.upscale(&small).unwrap().samples
    };
    let usual = srk::Options::default();
    assert!(with(usual.clone()) == large.samples, "another picture");
    assert!(with(srk::Options { seed: 0, ..usual }) != large.samples, "the seed changes nothing");
}

#[test]
fn formats_depth_gray_and_alpha_survive() {
    let b = Bench::new();
    for name in ["a.png", "a.jpg", "a.webp", "a.tiff", "a.bmp"] {
        b.photo(name, 9, 8);
        let out = name.replace('a', "out");
        b.srk(&["upscale", name, &out, "--steps", "1"]).worked();
        assert_eq!(size(&b.path(&out)), (36, 32), "{name}");
    }
    let gray: ImageBuffer<Luma<u16>, _> =
        ImageBuffer::from_fn(10, 9, |x, y| Luma([(x * 5000 + y * 700) as u16]));
    gray.save(b.path("gray16.png")).unwrap();
    b.srk(&["upscale", "gray16.png", "gray_out.png", "--steps", "1"]).worked();
    assert!(matches!(image::open(b.path("gray_out.png")).unwrap(), DynamicImage::ImageLuma16(_)));
    let alpha: ImageBuffer<LumaA<u16>, _> =
        ImageBuffer::from_fn(8, 8, |x, y| LumaA([(x * 8000) as u16, (y * 9000) as u16]));
    alpha.save(b.path("alpha16.png")).unwrap();
    b.srk(&["upscale", "alpha16.png", "alpha_out.png", "--steps", "1"]).worked();
    assert!(matches!(image::open(b.path("alpha_out.png")).unwrap(), DynamicImage::ImageLumaA16(_)));
    b.srk(&["upscale", "alpha16.png", "alpha.jpg"])
        .failed_once(1, &["transparency", "--alpha drop"]);
}

#[test]
fn any_scale_and_any_size() {
    let b = Bench::new();
    b.photo("in.png", 11, 7);
    for (scale, wanted) in [("2", (22, 14)), ("3.5", (39, 25)), ("8", (88, 56)), ("0.5", (6, 4))] {
        b.srk(&["upscale", "in.png", "out.png", "-s", scale, "--steps", "1", "--overwrite"])
            .worked();
        assert_eq!(size(&b.path("out.png")), wanted, "-s {scale}");
    }
    b.photo("one.png", 1, 1);
    b.srk(&["upscale", "one.png", "one_out.png"]).worked();
    assert_eq!(size(&b.path("one_out.png")), (4, 4));
}

#[test]
fn a_very_wide_picture_runs_in_tiles() {
    let b = Bench::new();
    b.photo("wide.png", 60_000, 2);
    b.srk(&["upscale", "wide.png", "out.png", "--steps", "1", "--ram", "100M"]).worked();
    assert_eq!(size(&b.path("out.png")), (240_000, 8));
    b.srk(&["upscale", "wide.png", "out.jpg", "--steps", "1"]).failed_once(1, &["65535"]);
}

#[test]
fn several_pictures_go_into_a_folder() {
    let b = Bench::new();
    b.photo("a.png", 9, 9);
    b.photo("b.jpg", 8, 8);
    fs::write(b.path("broken.png"), "not a picture").unwrap();
    let run =
        b.srk(&["upscale", "a.png", "broken.png", "b.jpg", "-o", "big", "--json", "--steps", "1"]);
    assert_eq!(run.code, 1, "{}", run.err);
    assert_eq!(size(&b.path("big/a.png")), (36, 36));
    assert_eq!(size(&b.path("big/b.png")), (32, 32));
    let events: Vec<serde_json::Value> =
        run.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let statuses: Vec<&str> = events.iter().filter_map(|e| e["status"].as_str()).collect();
    assert_eq!(statuses, ["ok", "failed", "ok"]);
    let [done, error] = &events[events.len() - 2..] else { panic!("two events at the end") };
    assert_eq!((&done["event"], &done["failed"]), (&"done".into(), &1.into()));
    assert_eq!((&error["event"], &error["code"]), (&"error".into(), &"some_failed".into()));
    let again = ["upscale", "a.png", "b.jpg", "-o", "big", "--skip-existing", "--steps", "1"];
    b.srk(&again).worked();
    b.srk(&again[..5]).failed_once(2, &["exists", "--overwrite"]);
}

#[test]
fn bad_pictures_get_one_clear_error() {
    let b = Bench::new();
    let good = fs::read(b.photo("good.png", 64, 64)).unwrap();
    fs::write(b.path("text.png"), "hello").unwrap();
    fs::write(b.path("cut.png"), &good[..good.len() / 2]).unwrap();
    fs::write(b.path("empty.png"), "").unwrap();
    fs::create_dir(b.path("folder")).unwrap();
    let before = b.files();
    for (name, words) in [
        ("missing.png", vec!["missing.png", "help:"]),
        ("text.png", vec!["text.png"]),
        ("cut.png", vec!["cut.png"]),
        ("empty.png", vec!["empty.png", "empty"]),
    ] {
        b.srk(&["upscale", name, "out.png"]).failed_once(1, &words);
    }
    b.srk(&["upscale", "folder", "out.png"]).failed_once(2, &["out.png is one file", "-o out/"]);
    b.srk(&["upscale", "folder", "-o", "out/"]).failed_once(1, &["folder holds no image"]);
    assert_eq!(b.files(), before, "a failure left something behind");
}

#[test]
fn outputs_that_cannot_be_written_lose_nothing() {
    let b = Bench::new();
    let original = fs::read(b.photo("in.png", 16, 16)).unwrap();
    fs::write(b.path("file"), "in the way").unwrap();
    b.srk(&["upscale", "in.png", "file/out.png", "--steps", "1"]).failed_once(1, &["file"]);
    b.srk(&["upscale", "in.png", "in.png", "--overwrite"])
        .failed_once(2, &["in.png", "own result"]);
    b.srk(&["upscale", "in.png", "out.xyz"]).failed_once(2, &["xyz"]);
    b.srk(&["upscale", "in.png", "in.png"]).failed_once(2, &["in.png"]);
    assert_eq!(fs::read(b.path("in.png")).unwrap(), original);
    assert_eq!(b.files(), ["file", "in.png"]);
}

/// A limit on the size of files stands for a full disk: a write fails midway.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_old_output() {
    let b = Bench::new();
    b.photo("in.png", 64, 64);
    fs::write(b.path("out.bmp"), "older").unwrap();
    let script = format!(
        "trap '' XFSZ; ulimit -f 16; exec {} upscale in.png out.bmp --overwrite --steps 1",
        env!("CARGO_BIN_EXE_srk")
    );
    let output = Command::new("sh").args(["-c", &script]).current_dir(b.folder()).output().unwrap();
    Run::of(output).failed_once(1, &["out.bmp"]);
    assert_eq!(fs::read(b.path("out.bmp")).unwrap(), b"older");
    assert_eq!(b.files(), ["in.png", "out.bmp"]);
}

#[test]
fn bad_arguments_are_usage_errors() {
    let b = Bench::new();
    b.photo("in.png", 8, 8);
    for arguments in [
        &["upscale", "in.png", "out.png", "--steps", "-1"][..],
        &["upscale", "in.png", "out.png", "--steps", "0"],
        &["upscale", "in.png", "out.png", "-s", "-2"],
        &["upscale", "in.png", "out.png", "--tile", "3"],
        &["upscale", "in.png", "out.png", "--ram", "lots"],
        &["upscale", "a.png", "b.png", "c.png"],
        &["upscale"],
        &["upscael", "in.png"],
    ] {
        let run = b.srk(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.err);
        assert!(!run.err.contains("panicked"), "{}", run.err);
    }
    b.srk(&["upscale", "in.png", "out.png", "--device", "cuda"]).failed_once(4, &["GPU"]);
    b.srk(&["upscale", "in.png", "out.png", "--ram", "1k"]).failed_once(5, &["memory", "--ram"]);
}

/// A weights file of the binary, to damage.
fn weights() -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/srk-x4.safetensors")).unwrap()
}

#[test]
fn damaged_models_are_refused() {
    let b = Bench::new();
    b.photo("in.png", 8, 8);
    let good = weights();
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let edit = |from: &str, to: &str| {
        let text = String::from_utf8(good[8..8 + header].to_vec()).unwrap();
        assert!(text.contains(from), "{from} is not in the header");
        let text = text.replacen(from, to, 1);
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(&good[8 + header..]);
        bytes
    };
    let mut huge = good.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut nan = good.clone();
    nan[8 + header..8 + header + 2].copy_from_slice(&0x7e00u16.to_le_bytes());
    for (name, bytes, words) in [
        (
            "cut",
            good[..good.len() - 100].to_vec(),
            vec!["cut", "ends beyond the file", "cut short"],
        ),
        ("head", good[..100].to_vec(), vec!["head"]),
        ("short", good[..5].to_vec(), vec!["short"]),
        ("huge", huge, vec!["huge"]),
        ("nan", nan, vec!["nan", "finite"]),
        (
            "shape",
            edit("\"shape\":[48,32,3,3]", "\"shape\":[32,48,3,3]"),
            vec!["shape", "upsampler"],
        ),
        ("name", edit("\"conv_1.bias\"", "\"canv_1.bias\""), vec!["conv_1.bias", "canv_1.bias"]),
        ("kind", edit("attentive-grid\\\"", "attentive-gird\\\""), vec!["kind"]),
        ("text", b"this is no model".to_vec(), vec!["text"]),
    ] {
        let file = format!("{name}.safetensors");
        fs::write(b.path(&file), bytes).unwrap();
        b.srk(&["upscale", "in.png", "out.png", "-m", &file]).failed_once(3, &words);
        b.srk(&["models", "info", &file]).failed_once(3, &words[..1]);
    }
    b.srk(&["upscale", "in.png", "out.png", "-m", "nonesuch"])
        .failed_once(3, &["nonesuch", "srk-x4"]);
    assert!(!b.path("out.png").exists());
}

#[test]
fn models_and_doctor_say_what_is_there() {
    let b = Bench::new();
    let list = b.srk(&["models", "list"]).worked().out;
    assert!(list.contains("srk-x4") && list.contains("srk-photo-x4"), "{list}");
    let info = b.srk(&["models", "info", "srk-x4", "--tensors"]).worked().out;
    assert!(info.contains("conv_1.weight"), "{info}");
    let doctor = b.srk(&["doctor"]).worked().out;
    assert!(doctor.contains("self-test  passed"), "{doctor}");
    let json = b.srk(&["doctor", "--json"]).worked().out;
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
}

#[test]
fn eval_of_several_folders_gives_a_mean_of_each() {
    let b = Bench::new();
    for (folder, names) in [("one", &["a.png", "b.png"][..]), ("two", &["c.png"])] {
        fs::create_dir(b.path(folder)).unwrap();
        names.iter().for_each(|n| drop(b.photo(&format!("{folder}/{n}"), 48, 40)));
    }
    let out = b.srk(&["eval", "--steps", "1", "--hr", "one", "two"]).worked().out;
    let means: Vec<&str> = out.lines().filter(|l| l.starts_with("mean of")).collect();
    assert!(means.len() == 3 && means[0].starts_with("mean of 2 in one"), "{out}");
    assert!(
        means[1].starts_with("mean of 1 in two") && means[2].starts_with("mean of 3 "),
        "{out}"
    );
    let out = b.srk(&["eval", "--steps", "1", "--json", "--hr", "one", "two"]).worked().out;
    assert!(
        out.contains(r#""name":"two""#) && out.matches(r#""event":"set""#).count() == 2,
        "{out}"
    );
    b.srk(&["eval", "--hr", "one", "three"]).failed_once(1, &["three"]);
}

#[test]
fn eval_measures_models_and_pairs() {
    let b = Bench::new();
    fs::create_dir(b.path("hr")).unwrap();
    b.photo("hr/one.png", 64, 48);
    let gray = image::GrayImage::from_fn(51, 66, |x, y| Luma([(x * y % 256) as u8]));
    gray.save(b.path("hr/two.png")).unwrap();
    let run =
        b.srk(&["eval", "--hr", "hr", "--scale", "4", "--steps", "1", "--json", "--save", "out"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let last = run.event("summary");
    assert_eq!(last["images"], 2);
    for key in ["psnr_y", "ssim_y", "psnr_rgb"] {
        assert!(last[key].as_f64().unwrap() > 0.0, "{last}");
    }
    assert!(last["bicubic"]["psnr_y"].as_f64().unwrap() > 0.0, "{last}");
    fs::create_dir(b.path("sr")).unwrap();
    fs::copy(b.path("hr/one.png"), b.path("sr/one_x4.png")).unwrap();
    b.srk(&["eval", "sr", "hr"]).failed_once(2, &["two"]);
    fs::remove_file(b.path("hr/two.png")).unwrap();
    let same = b.srk(&["eval", "sr", "hr"]).worked().out;
    assert!(same.contains("inf"), "{same}");
    b.photo("sr/one_x4.png", 10, 10);
    b.srk(&["eval", "sr", "hr"]).failed_once(1, &["size"]);
}

#[test]
fn a_cmyk_jpeg_is_refused_and_a_gray_one_stays_gray() {
    let b = Bench::new();
    let gray = image::GrayImage::from_pixel(8, 8, Luma([128]));
    gray.save(b.path("gray.jpg")).unwrap();
    b.srk(&["upscale", "gray.jpg", "out.png", "--steps", "1"]).worked();
    assert!(matches!(image::open(b.path("out.png")).unwrap(), DynamicImage::ImageLuma8(_)));
    // Four components in the frame header are what tells a CMYK file.
    let mut bytes = fs::read(b.photo("rgb.jpg", 16, 16)).unwrap();
    let frame = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    bytes[frame + 9] = 4;
    fs::write(b.path("cmyk.jpg"), bytes).unwrap();
    b.srk(&["upscale", "cmyk.jpg", "cmyk.png"]).failed_once(1, &["cmyk.jpg", "CMYK"]);
}

#[test]
fn training_refuses_what_it_cannot_use() {
    let b = Bench::new();
    let train = |more: &[&str]| {
        let small = ["model.channels=16", "model.blocks=1", "run.steps=2", "data.train.crop=32"];
        let mut arguments =
            vec!["train", "--recipe", "dual-domain-grid", "--set", "data.val.paths=[]"];
        for setting in small.iter().chain(&["data.train.paths=[\"photos\"]"]).chain(more) {
            arguments.extend(["--set", setting]);
        }
        b.srk(&arguments)
    };
    fs::create_dir(b.path("photos")).unwrap();
    train(&[]).failed_once(2, &["photos"]);
    for i in 0..3 {
        b.photo(&format!("photos/{i}.png"), 64, 64);
    }
    train(&["run.steps=-5"]).failed_once(2, &["run.steps", "-5"]);
    train(&["data.train.batch=\"many\""]).failed_once(2, &["data.train.batch"]);
    train(&["optim.learning_rate=1"]).failed_once(2, &["learning_rate"]);
    fs::write(b.path("wrong.toml"), "[run\nname = 3").unwrap();
    b.srk(&["train", "wrong.toml"]).failed_once(2, &["wrong.toml"]);
    b.srk(&["train", "missing.toml"]).failed_once(2, &["missing.toml"]);
    assert!(!b.path("runs").exists(), "a refused configuration started a run");
    fs::write(b.path("photos/broken.png"), "no picture").unwrap();
    let run = train(&[]).worked();
    assert!(run.err.contains("broken.png"), "{}", run.err);
    assert!(b.path("runs/dual-domain-grid/ckpt/2/ema.safetensors").exists());
}

/// The last event of a picture.
fn file_event(out: &str) -> serde_json::Value {
    let mut events =
        out.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    events.rfind(|e| e["event"] == "file").expect("an event of a file")
}

/// A JPEG goes to the model for pictures as they are, which is told its quality; a clean PNG to the other.
#[test]
fn the_model_is_chosen_by_what_a_picture_shows() {
    let b = Bench::new();
    let smooth = |x: u32, y: u32| {
        let wave = |v: f32| 120.0 + 60.0 * (v / 17.0).sin();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let levels = [wave(x as f32), wave(y as f32), wave((x + y) as f32)].map(|v| v as u8);
        image::Rgb(levels)
    };
    let picture = image::RgbImage::from_fn(64, 48, smooth);
    picture.save(b.path("clean.png")).unwrap();
    let mut jpeg = fs::File::create(b.path("web.jpg")).unwrap();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 40);
    picture.write_with_encoder(encoder).unwrap();
    let run = |input: &str, output: &str, more: &[&str]| {
        let arguments = [&["upscale", input, output, "--steps", "1", "--json"], more].concat();
        file_event(&b.srk(&arguments).worked().out)
    };
    let web = run("web.jpg", "1.png", &[]);
    assert_eq!(web["model"], "srk-photo-x4");
    let quality = web["damage"]["found"]["jpeg_quality"].as_f64().unwrap();
    assert!((quality - 40.0).abs() < 2.0, "{web}");
    assert_eq!(web["damage"]["found"]["jpeg_quality_from"], "tables");
    assert_eq!(web["damage"]["told"]["jpeg_quality"], web["damage"]["found"]["jpeg_quality"]);
    assert_eq!(run("clean.png", "2.png", &[])["model"], "srk-x4");
    let pixels = picture.as_raw();
    for (quality, model) in [(10, "srk-photo-x4"), (90, "srk-x4")] {
        let file = srk::imaging::lossy::webp(pixels, 64, 48, quality).unwrap();
        fs::write(b.path("web.webp"), file).unwrap();
        let web = run("web.webp", &format!("w{quality}.png"), &[]);
        assert_eq!(web["damage"]["found"]["jpeg_quality_from"], "webp");
        assert_eq!(web["model"], model, "{web}");
    }
    // What was asked for counts more than what is seen.
    assert_eq!(run("web.jpg", "3.png", &["--denoise", "0"])["model"], "srk-x4");
    assert_eq!(run("clean.png", "4.png", &["--denoise", "1"])["model"], "srk-photo-x4");
    let half = run("web.jpg", "5.png", &["--denoise", "0.5", "-m", "srk-photo-x4"]);
    let told = half["damage"]["told"]["jpeg_quality"].as_f64().unwrap();
    assert!((told - (50.0 + quality / 2.0)).abs() < 1e-3, "{half}");
    let none = run("web.jpg", "6.png", &["--denoise", "0", "-m", "srk-photo-x4"]);
    assert_eq!(none["damage"]["told"]["jpeg_quality"], 100.0);
    let said = b.srk(&["upscale", "web.jpg", "7.png", "--steps", "1"]).worked().err;
    assert!(said.contains("JPEG of quality 40") && said.contains("srk-photo-x4"), "{said}");
    b.srk(&["upscale", "web.jpg", "8.png", "--denoise", "2"]).failed_once(2, &["auto", "0", "1"]);
    b.srk(&["upscale", "web.jpg", "8.png", "--denoise", "1", "-m", "srk-x4"])
        .failed_once(2, &["--denoise", "srk-photo-x4"]);
}
