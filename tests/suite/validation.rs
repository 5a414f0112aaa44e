//! What validation measures is what `srk upscale` writes.
#![allow(clippy::unwrap_used)]
use std::fs;
use std::path::Path;

use crate::common::command;
use crate::common::training::{Place, finish, write_image};
use srk::imaging::{self, Image, Samples};

/// 8-bit pixels of a colour image.
fn pixels(image: &Image) -> &[u8] {
    match &image.samples {
        Samples::U8(pixels) => pixels,
        other => panic!("{other:?}"),
    }
}

/// Whether `part` is somewhere in `whole`, pixel for pixel.
fn holds(whole: &Image, part: &Image) -> bool {
    let (w, p) = (pixels(whole), pixels(part));
    let row = |image: &[u8], width: usize, x: usize, y: usize, len: usize| -> Vec<u8> {
        image[(y * width + x) * 3..][..len * 3].to_vec()
    };
    let at = |x: usize, y: usize| {
        (0..part.height).all(|k| {
            row(w, whole.width, x, y + k, part.width) == row(p, part.width, 0, k, part.width)
        })
    };
    let rows = 0..=whole.height.saturating_sub(part.height);
    rows.into_iter().any(|y| (0..=whole.width - part.width).any(|x| at(x, y)))
}

/// Each way of enlarging the low resolution, on images that are no multiple of the network's alignment.
#[test]
fn a_sheet_shows_the_bytes_that_upscaling_writes() {
    for (i, enlarge) in ["bicubic", "bilinear", "torch-bicubic", "pillow"].into_iter().enumerate() {
        let place = Place::new();
        let (high, low) = (place.runs("high"), place.runs("low"));
        for (folder, width, height) in [(&high, 108, 100), (&low, 27, 25)] {
            fs::create_dir(folder).unwrap();
            write_image(&folder.join("a.png"), width, height, i);
        }
        let config = place.config(&[
            &format!("diffusion.enlarge={enlarge:?}"),
            &format!("data.val.paths=[{high:?}]"),
            &format!("data.val.low=[{low:?}]"),
            "run.steps=1",
            "val.sheet=1",
            if i == 0 { "val.states=2" } else { "val.states=0" },
        ]);
        let out = place.runs("runs");
        finish(&config, &out, None);
        let (run, big) = (out.join("tiny"), place.runs("big.png"));
        let low = low.join("a.png");
        let run_text = run.to_str().unwrap();
        let args = ["upscale", low.to_str().unwrap(), "-m", run_text, "-o", big.to_str().unwrap()];
        let more = ["--seed", "7", "--steps", "4", "--device", "cpu"];
        let ran = command::srk(Path::new(env!("CARGO_MANIFEST_DIR")), &[&args[..], &more].concat());
        assert_eq!(ran.code, 0, "{enlarge}: {}{}", ran.out, ran.err);
        let sheet = imaging::read(&run.join("val/1/sheet.png")).unwrap();
        let big = imaging::read(&big).unwrap();
        assert_eq!((big.width, big.height), (108, 100));
        assert!(holds(&sheet, &big), "{enlarge}: validation measured another picture");
    }
}
