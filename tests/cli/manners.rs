//! What people and scripts expect of the command line: pipes, sizes, names, reports, habits of other programs.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::fs;
use std::path::Path;

use crate::common::command::{Bench, size};

use image::{ImageBuffer, Rgba};
use serde_json::Value;

fn difference(a: &Path, b: &Path) -> f64 {
    let (a, b) = (image::open(a).unwrap().to_rgb8(), image::open(b).unwrap().to_rgb8());
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: f64 = a.iter().zip(b.iter()).map(|(&a, &b)| f64::from(a.abs_diff(b))).sum();
    sum / a.len() as f64
}

#[test]
fn pictures_go_through_pipes() {
    let b = Bench::new();
    let png = fs::read(b.photo("in.png", 20, 12)).unwrap();
    let jpg = fs::read(b.photo("in.jpg", 20, 12)).unwrap();
    b.upscale(&["in.png", "file.png"]).worked();
    let file = fs::read(b.path("file.png")).unwrap();
    let pipe = |arguments: &[&str], input: &[u8]| {
        b.fed(&[&["upscale", "--steps", "1"][..], arguments].concat(), input)
    };
    assert!(pipe(&["-", "-"], &png).worked().bytes == file, "a pipe gives the bytes of a file");
    assert!(
        pipe(&["-"], &png).worked().bytes == file,
        "what comes through a pipe goes on through one"
    );
    assert!(b.upscale(&["in.png", "-"]).worked().bytes == file);
    pipe(&["-", "named.webp"], &png).worked();
    assert_eq!(size(&b.path("named.webp")), (80, 48));
    // The format is that of what comes in, or -f.
    assert!(pipe(&["-", "-"], &jpg).worked().bytes.starts_with(&[0xFF, 0xD8]));
    assert!(pipe(&["-", "-", "-f", "png"], &jpg).worked().bytes.starts_with(b"\x89PNG"));
    // The report makes way for the picture.
    let run = pipe(&["-", "-", "--json"], &png).worked();
    assert!(run.bytes == file);
    assert!(run.err.lines().any(|l| l.contains("\"event\":\"done\"")), "{}", run.err);
    pipe(&["-", "-"], b"no picture").failed(1, &["cannot read"]);
    pipe(&["-", "-"], &[]).failed(1, &["empty"]);
    pipe(&["-", "-", "-o", "x"], &png).failed(2, &["once"]);
    b.upscale(&["in.png", "in.jpg", "-o", "-"]).failed(2, &["folder"]);
    assert!(!b.path("-").exists());
}

#[test]
fn sizes_are_exact() {
    let b = Bench::new();
    b.photo("in.png", 40, 30);
    for (arguments, wanted) in [
        (&["--size", "100x77"][..], (100, 77)),
        (&["--size", "100x"], (100, 75)),
        (&["--size", "x60"], (80, 60)),
        (&["--width", "101"], (101, 76)),
        (&["-w", "90", "--height", "20"], (90, 20)),
        (&["--long", "200"], (200, 150)),
        (&["--short", "15"], (20, 15)),
        (&["--fit", "100x60"], (80, 60)),
        (&["-s", "2x"], (80, 60)),
    ] {
        let all = [&["in.png", "out.png", "--overwrite"][..], arguments].concat();
        b.upscale(&all).worked();
        assert_eq!(size(&b.path("out.png")), wanted, "{arguments:?}");
    }
    let run = b.upscale(&["in.png", "out.png", "--overwrite", "--size", "100x20"]).worked();
    assert!(run.err.contains("--fit 100x20"), "{}", run.err);
    b.upscale(&["in.png", "-w", "50"]).worked();
    assert!(b.path("in_w50.png").exists());
    for arguments in [
        &["--size", "9"][..],
        &["--size", "0x5"],
        &["--size", "9x9", "-s", "2"],
        &["--long", "9", "--short", "9"],
        &["--fit", "9x"],
    ] {
        b.upscale(&[&["in.png", "x.png"][..], arguments].concat()).failed(2, &[]);
    }
}

#[test]
fn names_are_made_from_templates() {
    let b = Bench::new();
    b.photo("in/a.jpg", 10, 8);
    b.photo("in/a.png", 10, 8);
    b.photo("in/b.c.png", 8, 10);
    b.upscale(&["in", "-o", "out"]).failed(2, &["a.jpg and", "--name '{stem}_{ext}'"]);
    assert!(!b.path("out").exists());
    b.upscale(&[
        "in",
        "-o",
        "out",
        "--name",
        "{stem}_{ext}_{w}x{h}_{model}_{seed}",
        "-m",
        "srk-x4",
    ])
    .worked();
    for name in ["a_jpg_40x32", "a_png_40x32", "b.c_png_32x40"] {
        assert!(b.path(&format!("out/{name}_srk-x4_42.png")).exists(), "{name}");
    }
    b.upscale(&["in/a.png", "in/b.c.png", "-o", "two", "--suffix", "_big"]).worked();
    assert!(b.path("two/a_big.png").exists() && b.path("two/b.c_big.png").exists());
    b.upscale(&["in/a.png", "--name", "{stem}-{scale}.webp", "-s", "2"]).worked();
    assert!(b.path("in/a-2.webp").exists());
    b.upscale(&["in/a.jpg", "-o", "new"]).worked();
    assert!(b.path("new/a.png").exists(), "a name without extension is a folder");
    b.upscale(&["in/a.jpg", "-o", "kept", "-f", "keep"]).worked();
    assert!(b.path("kept/a.jpg").exists());
    b.upscale(&["in/a.png", "--name", "{nix}"]).failed(2, &["{stem}"]);
    b.upscale(&["in/a.png", "x.png", "--name", "{stem}"]).failed(2, &["x.png already"]);
    b.upscale(&["in/a.png", "x.png", "-f", "jpg"]).failed(2, &["PNG", "JPEG", "x.jpg"]);
    assert!(!b.path("x.png").exists());
}

#[test]
fn files_are_encoded_as_asked() {
    let b = Bench::new();
    b.photo("in.png", 40, 30);
    b.upscale(&["in.png", "plain.tiff"]).worked();
    b.upscale(&["in.png", "plain.webp"]).worked();
    let bytes = |name: &str| fs::metadata(b.path(name)).unwrap().len();
    for kind in ["lzw", "deflate"] {
        let name = format!("{kind}.tiff");
        b.upscale(&["in.png", &name, "--tiff-compression", kind]).worked();
        assert_eq!(difference(&b.path("plain.tiff"), &b.path(&name)), 0.0, "{kind}");
        assert!(bytes(&name) < bytes("plain.tiff") * 9 / 10, "{kind}");
        let deep = format!("{kind}16.tiff");
        b.upscale(&["in.png", &deep, "--tiff-compression", kind, "--depth", "16"]).worked();
        let deep = image::open(b.path(&deep)).unwrap();
        assert!(matches!(deep, image::DynamicImage::ImageRgb16(_)), "{kind}");
        let narrow = deep.to_rgb8();
        let wide = image::open(b.path("plain.tiff")).unwrap().to_rgb8();
        assert!(narrow.iter().zip(wide.iter()).all(|(a, b)| a.abs_diff(*b) <= 1), "{kind}");
    }
    b.upscale(&["in.png", "lossy.webp", "--quality", "80"]).worked();
    b.upscale(&["in.png", "less.webp", "-c", "60"]).worked();
    assert!(bytes("less.webp") < bytes("lossy.webp") && bytes("lossy.webp") < bytes("plain.webp"));
    let lost = difference(&b.path("lossy.webp"), &b.path("plain.webp"));
    assert!(lost > 0.0 && lost < 12.0, "{lost}");
    b.upscale(&["in.png", "deep.png", "--depth", "16"]).worked();
    b.upscale(&["deep.png", "shallow.png", "--depth", "8", "-s", "1"]).worked();
    assert!(matches!(
        image::open(b.path("shallow.png")).unwrap(),
        image::DynamicImage::ImageRgb8(_)
    ));
    for (name, arguments, word) in [
        ("a.png", &["--quality", "50"][..], "--quality does nothing"),
        ("a.jpg", &["--png-level", "5"], "--png-level does nothing"),
        ("a.jpg", &["--lossless"], "--lossless does nothing"),
        ("a.bmp", &["--tiff-compression", "lzw"], "--tiff-compression does nothing"),
    ] {
        let all = [&["in.png", name, "--overwrite"][..], arguments].concat();
        let run = b.upscale(&all).worked();
        assert!(run.err.contains(word), "{}", run.err);
    }
}

#[test]
fn lossy_webp_keeps_alpha_gray_and_metadata() {
    let b = Bench::new();
    let pixel = |x: u32, y: u32| Rgba([(x * 8) as u8, (y * 9) as u8, 90, (x * 9) as u8]);
    ImageBuffer::from_fn(24, 20, pixel).save(b.path("alpha.png")).unwrap();
    b.upscale(&["alpha.png", "alpha.webp", "--quality", "90"]).worked();
    b.upscale(&["alpha.png", "exact.webp"]).worked();
    let open = |name: &str| image::open(b.path(name)).unwrap().to_rgba8();
    let (lossy, exact) = (open("alpha.webp"), open("exact.webp"));
    assert!(lossy.pixels().zip(exact.pixels()).all(|(a, b)| a[3] == b[3]), "alpha is exact");
    let gray = ImageBuffer::from_fn(24, 20, |x, y| image::Luma([(x * 5 + y * 3) as u8]));
    gray.save(b.path("gray.png")).unwrap();
    b.upscale(&["gray.png", "gray.webp", "--quality", "90"]).worked();
    // What made it is in its EXIF, where the next run finds it and leaves the picture out.
    fs::create_dir(b.path("folder")).unwrap();
    fs::rename(b.path("gray.webp"), b.path("folder/x.webp")).unwrap();
    b.upscale(&["folder", "-o", "out"]).failed(1, &["1 result of srk"]);
}

#[test]
fn options_that_do_nothing_and_work_that_crawls_are_said() {
    let b = Bench::new();
    b.photo("in.png", 40, 30);
    let run = b.srk(&["upscale", "in.png", "a.png", "--steps", "5"]).worked();
    assert!(run.err.contains("--steps 5 is 4"), "{}", run.err);
    let run = b.upscale(&["in.png", "b.png", "-j", "100", "-t", "8"]).worked();
    assert!(run.err.contains("100 threads") && run.err.contains("times over"), "{}", run.err);
    let run = b.upscale(&["in.png", "c.png", "-s", "8"]).worked();
    assert!(run.err.contains("plain resampling"), "{}", run.err);
    let run = b.upscale(&["in.png", "d.png", "-q"]).worked();
    assert!(run.err.is_empty() && run.bytes.is_empty(), "{}", run.err);
    let run = b.upscale(&["in.png", "e.png", "-v"]).worked();
    assert!(run.err.contains("1 tile of"), "{}", run.err);
}

#[test]
fn a_dry_run_says_all_and_does_nothing() {
    let b = Bench::new();
    b.photo("in/a.png", 40, 30);
    b.photo("in/b.jpg", 300, 200);
    fs::write(b.path("in/c.png"), "no picture").unwrap();
    let run = b.upscale(&["in", "-o", "out", "--dry-run", "-t", "64"]).failed(1, &["c.png"]);
    let text = run.out.clone();
    assert!(text.contains("in/a.png -> out/a.png  40x30 -> 160x120"), "{text}");
    assert!(text.contains("300x200 -> 1200x800") && text.contains("about"), "{text}");
    assert!(!b.path("out").exists());
    let events = b.upscale(&["in", "-o", "out", "-d", "--json", "--size", "90x"]).events();
    let plans: Vec<&Value> = events.iter().filter(|e| e["event"] == "plan").collect();
    assert_eq!(plans[0]["to"], serde_json::json!([90, 68]));
    assert!(plans[1]["memory"].as_u64() > Some(0) && plans[1]["about_seconds"].is_number());
    assert_eq!((&plans[2]["status"], &plans[2]["code"]), (&"failed".into(), &"decode".into()));
    assert_eq!(events.last().unwrap()["event"], "error");
}

#[test]
fn views_and_colour_fixes_change_a_little() {
    let b = Bench::new();
    b.photo("in.png", 32, 24);
    b.upscale(&["in.png", "plain.png"]).worked();
    for (name, arguments) in [
        ("tta.png", &["-x"][..]),
        ("low.png", &["--color-fix", "lowfreq"]),
        ("adain.png", &["--color-fix", "adain:0.5"]),
        ("ycbcr.png", &["--color-fix", "ycbcr"]),
    ] {
        b.upscale(&[&["in.png", name][..], arguments].concat()).worked();
        let changed = difference(&b.path("plain.png"), &b.path(name));
        // This model moves what varies over many pixels by less than a level of 8 bits.
        assert!((changed > 0.0 || name == "low.png") && changed < 20.0, "{name}: {changed}");
    }
    // Tiles change nothing, and views end up where they came from.
    b.upscale(&["in.png", "tiles.png", "-x", "-t", "16", "--color-fix", "lowfreq"]).worked();
    b.upscale(&["in.png", "whole.png", "-x", "-t", "none", "--color-fix", "lowfreq"]).worked();
    assert_eq!(difference(&b.path("tiles.png"), &b.path("whole.png")), 0.0);
    b.upscale(&["in.png", "x.png", "-x", "--wrap", "x"]).failed(2, &["--tta and --wrap"]);
    b.upscale(&["in.png", "x.png", "--color-fix", "red"]).failed(2, &["lowfreq"]);
    b.upscale(&["in.png", "half.png", "-x", "-s", "2"]).worked();
    assert_eq!(size(&b.path("half.png")), (64, 48));
}

#[test]
fn habits_of_other_programs_work_or_are_answered() {
    let b = Bench::new();
    b.photo("in.png", 16, 12);
    let ncnn = "-i in.png -o out.png -n srk-x4 -s 4 -t 0 -g -1 -j 1:2:2 -f png";
    let ncnn: Vec<&str> = ncnn.split(' ').collect();
    b.upscale(&ncnn).worked();
    assert_eq!(size(&b.path("out.png")), (64, 48));
    b.upscale(&["-i", "in.png", "-o", "o.jpg", "--outscale", "2", "--fp32", "--ext", "jpg"])
        .worked();
    for (arguments, word) in [
        (&["in.png", "x.png", "-dn", "0.5"][..], "-dn"),
        (&["in.png", "x.png", "--tile_pad", "10"], "leave it out"),
        (&["in.png", "x.png", "--face_enhance"], "no faces"),
        (&["in.png", "x.png", "-g", "0,x"], "several as in 0,1"),
        (&["in.png", "-r", "1920x1080"], "--size 1920x1080"),
        (&["in.png", "x.png", "-n", "1"], "--denoise 0..1"),
        (&["in.png", "x.png", "-n", "-1"], "--denoise 0..1"),
        (&["in.png", "x.png", "-m", "models-cunet", "-n", "2"], "waifu2x"),
        (&["in.png", "x.png", "--device", "cuda:0,0"], "cuda:0,2, cuda:all"),
        (&["in.png", "x.png", "--tile-overlap", "16"], "leave it out"),
        (&["in.png", "x.png", "--tile-batch", "4"], "as many tiles as fit"),
        (&["in.png", "x.png", "--latent_tiled_size", "64"], "--tile N"),
        (&["in.png", "x.png", "--upscale-repeats", "2"], "-s 16"),
        (&["in.png", "x.png", "-s", "-1"], "-s takes no number below 0"),
        (&["in.png", "x.png", "-s", "-0.5"], "-s 0.5 half as large"),
        (&["in.png", "x.png", "--seed", "-1"], "--seed random"),
        (&["in.png", "x.png", "--steps", "-3"], "--steps takes no number below 0"),
        (&["in.png", "x.png", "--seed", "many"], "or random"),
        (&["in.png", "x.png", "-t", "100x4"], "at least 8"),
        (&["in.png", "x.png", "-s", "640x480"], "--size"),
    ] {
        b.upscale(arguments).failed(2, &[word]);
    }
    let zero = b.upscale(&["in.png", "zero.png", "-t", "0"]).worked();
    assert!(zero.err.contains("-t none is Real-ESRGAN's 0"), "{}", zero.err);
    b.srk(&["train", "-opt", "x.yml"]).failed(2, &["srk train FILE.toml"]);
    assert!(!b.path("x.png").exists() && !b.path("1920x1080").exists());
}

#[test]
fn programs_read_every_error_and_its_cause() {
    let b = Bench::new();
    b.photo("in.png", 16, 12);
    fs::write(b.path("out.png"), "there").unwrap();
    fs::write(b.path("bad.png"), "text").unwrap();
    for (arguments, code, exit) in [
        (&["upscale", "none.png", "x.png"][..], "not_found", 1),
        (&["upscale", "bad.png", "x.png"], "decode", 1),
        (&["upscale", "in.png", "out.png"], "exists", 2),
        (&["upscale", "in.png", "in.png"], "overwrites_input", 2),
        (&["upscale", "in.png", "x.png", "--nix"], "usage", 2),
        (&["upscale", "in.png", "x.png", "-m", "nix"], "model", 3),
        (&["upscale", "in.png", "x.png", "--device", "cuda:9"], "device", 4),
        (&["upscale", "in.png", "x.png", "--ram", "1M"], "memory", 5),
        (&["eval", "in.png", "none.png"], "not_found", 1),
        (&["models", "info", "nix"], "model", 3),
        (&["models", "import", "nix.pth"], "not_found", 3),
        (&["train", "none.toml"], "usage", 2),
        (&["compare", "in.png"], "usage", 2),
    ] {
        let run = b.srk(&[arguments, &["--json"][..]].concat());
        assert_eq!(run.code, exit, "{arguments:?}: {}", run.err);
        let last = run.events().pop().unwrap_or_default();
        assert_eq!(last["event"], "error", "{arguments:?}: {last}");
        assert_eq!((&last["code"], &last["exit"]), (&code.into(), &exit.into()), "{arguments:?}");
        assert!(last["error"].as_str().is_some_and(|e| !e.contains('\n')), "{last}");
    }
}

#[test]
fn completions_and_pages_are_made() {
    let b = Bench::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = b.srk(&["completions", shell]).worked().out.clone();
        assert!(text.contains("upscale") && text.contains("png-level"), "{shell}");
    }
    assert!(b.srk(&["man"]).worked().out.clone().contains(".TH srk 1"));
    assert!(b.srk(&["man", "upscale"]).worked().out.clone().contains("color\\-fix"));
    b.srk(&["man", "nix"]).failed(2, &["upscale"]);
    b.srk(&["man", "-o", "pages"]).worked();
    for page in ["srk.1", "srk-upscale.1", "srk-models-import.1", "srk-compare.1"] {
        assert!(b.path(&format!("pages/{page}")).exists(), "{page}");
    }
}

#[test]
fn pictures_are_compared_on_a_page_or_a_sheet() {
    let b = Bench::new();
    b.photo("small.png", 20, 15);
    b.photo("large<b>.png", 80, 60);
    b.srk(&["compare", "small.png", "large<b>.png", "-o", "look.html"]).worked();
    let page = fs::read_to_string(b.path("look.html")).unwrap();
    assert!(page.contains("data:image/png;base64,iVBOR") && page.contains("type=\"range\""));
    assert!(!page.contains("large<b>") && page.contains("large\\u003cb>"), "labels are escaped");
    assert!(!page.contains("http"), "nothing is fetched");
    b.srk(&["compare", "small.png", "large<b>.png", "-o", "look.html"]).failed(2, &["exists"]);
    let crop = ["compare", "small.png", "large<b>.png", "-o", "sheet.png", "--crop", "40x30+40+30"];
    b.srk(&crop).worked();
    assert!(size(&b.path("sheet.png")).0 >= 80);
    b.srk(&["compare", "small.png", "-m", "srk-x4", "-o", "m.html"]).worked();
    assert!(fs::read_to_string(b.path("m.html")).unwrap().contains("80x60"));
    b.srk(&["compare", "small.png", "large<b>.png", "-o", "x.png", "--crop", "40x30+60+30"])
        .failed(2, &["80x60"]);
    b.srk(&["compare", "small.png", "-o", "x.xyz", "-m", "srk-x4"]).failed(2, &[".html"]);
}

#[test]
fn a_version_goes_alone() {
    let b = Bench::new();
    b.photo("in.png", 16, 12);
    for arguments in
        [&["--version"][..], &["-V"], &["upscale", "--version"], &["models", "import", "-V"]]
    {
        let run = b.srk(arguments).worked();
        assert!(run.out.clone().contains(env!("CARGO_PKG_VERSION")), "{arguments:?}");
    }
    for arguments in [
        &["upscale", "in.png", "-o", "out.png", "--version", "v3"][..],
        &["upscale", "--version", "v3", "-i", "in.png", "-o", "out.png"],
        &["upscale", "in.png", "out.png", "-V"],
        &["--version", "nix"],
    ] {
        let run = b.srk(arguments).failed(2, &["--version", "goes alone", "-m MODEL"]);
        assert!(run.bytes.is_empty(), "{arguments:?}");
    }
    let run = b.srk(&["upscale", "in.png", "out.png", "--version", "v3", "--json"]);
    let last = run.events().pop().unwrap();
    assert_eq!((&last["code"], &last["exit"]), (&"usage".into(), &2.into()), "{last}");
    assert!(!b.path("out.png").exists());
}

#[test]
fn programs_read_what_is_wrong_with_arguments_in_parts() {
    let b = Bench::new();
    b.photo("in.png", 16, 12);
    for (arguments, error, cause, help) in [
        (&["upscale"][..], "required arguments were not provided", "<INPUT>", "srk upscale --help"),
        (
            &["upscale", "in.png", "--fit", "9x"],
            "'--fit <WxH>'",
            "both sides of a frame",
            "srk upscale --help",
        ),
        (&["upscale", "in.png", "--alpha", "kep"], "'--alpha", "keep, drop", "'keep'"),
        (&["upscale", "in.png", "--nix"], "'--nix'", "", "-- --nix"),
        (&["upscael", "in.png"], "'upscael'", "", "'upscale'"),
        (&["upscale", "in.png", "--size", "9x9", "-s", "2"], "--size", "", "srk upscale --help"),
    ] {
        let run = b.srk(&[arguments, &["--json"][..]].concat()).failed(2, &[]);
        let last = run.events().pop().unwrap();
        assert_eq!(last["code"], "usage");
        for (key, words) in [("error", error), ("cause", cause), ("help", help)] {
            let text = last[key].as_str().unwrap();
            assert!(text.contains(words) && !text.contains('\n'), "{arguments:?} {key}: {last}");
        }
        assert!(!last["error"].as_str().unwrap().ends_with(':'), "{last}");
    }
}

#[test]
fn a_seed_that_is_drawn_is_said_and_can_be_given_again() {
    let b = Bench::new();
    b.photo("in.png", 20, 16);
    let run = b.srk(&["upscale", "in.png", "a.png", "--seed", "random", "--json"]).worked();
    let seed = run.events()[0]["seed"].as_u64().unwrap();
    let first = run.err.lines().next().unwrap();
    assert!(first.ends_with(&format!("seed {seed}")), "{first}");
    b.srk(&["upscale", "in.png", "b.png", "--seed", &seed.to_string()]).worked();
    assert!(fs::read(b.path("a.png")).unwrap() == fs::read(b.path("b.png")).unwrap());
    let other = b.srk(&["upscale", "in.png", "c.png", "--seed", "random", "--json"]).worked();
    assert_ne!(other.events()[0]["seed"].as_u64(), Some(seed));
}

#[test]
fn checkpoints_are_models_and_places_without_files_are_no_folders_to_make() {
    let b = Bench::new();
    b.photo("in.png", 16, 12);
    fs::create_dir_all(b.path("runs/s/ckpt/5")).unwrap();
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/srk-x4.safetensors");
    fs::copy(weights, b.path("runs/s/ckpt/5/ema.safetensors")).unwrap();
    b.upscale(&["in.png", "plain.png", "-m", "srk-x4"]).worked();
    for (model, name) in [("runs/s", "a.png"), ("runs/s/ckpt", "b.png"), ("runs/s/ckpt/5", "c.png")]
    {
        b.upscale(&["in.png", name, "-m", model]).worked();
        assert_eq!(difference(&b.path("plain.png"), &b.path(name)), 0.0, "{model}");
    }
    if cfg!(target_os = "linux") {
        let run = b.upscale(&["in.png", "/proc/x.png"]).failed(1, &["/proc/x.png"]);
        assert!(!run.err.contains("mkdir") && !run.err.contains(".srk-"), "{}", run.err);
    }
}
