//! `srk eval` of several sets, and of pictures without colours.
#![allow(clippy::unwrap_used)]
use std::fs;

use crate::common::command::Bench;

fn cells(csv: &str) -> Vec<Vec<&str>> {
    csv.lines().map(|line| line.split(',').collect()).collect()
}

#[test]
fn columns_tell_sets_apart_and_have_the_mean_of_each() {
    let p = Bench::new();
    p.another("A/p.png", 64, 48, 0);
    p.another("B/p.png", 48, 64, 1);
    p.another("B/HR/p.png", 48, 64, 2);
    p.another("C/HR/p.png", 48, 64, 3);
    let eval = |arguments: &[&str]| {
        p.srk(&[&["eval", "--steps", "1", "--overwrite", "--csv", "s.csv"], arguments].concat())
            .worked();
        fs::read_to_string(p.path("s.csv")).unwrap()
    };
    let both = eval(&["--hr", "A", "B"]);
    let table = cells(&both);
    let head: Vec<[&str; 2]> = table.iter().map(|row| [row[0], row[1]]).collect();
    let wanted =
        [["name", "set"], ["p", "A"], ["mean", "A"], ["p", "B"], ["mean", "B"], ["mean", ""]];
    assert_eq!(head, wanted, "{both}");
    // Of one picture it is the mean, and all lines are as long.
    assert_eq!(table[1][2..], table[2][2..]);
    assert!(table.iter().all(|row| row.len() == table[0].len()), "{both}");
    // One set has the columns that it always had.
    let one = eval(&["--hr", "A"]);
    let table_of_one = cells(&one);
    assert_eq!((table_of_one.len(), table_of_one[0][0]), (3, "name"));
    assert_eq!(table_of_one[0][1..], table[0][2..]);
    // Sets of one name are called by their paths.
    let alike = eval(&["--hr", "B/HR", "C/HR"]);
    assert!(alike.contains("p,B/HR,") && alike.contains("mean,C/HR,"), "{alike}");
}

#[test]
fn the_y_of_gray_pictures_is_told_where_it_is_not_what_the_table_says() {
    let p = Bench::new();
    for (folder, shift) in [("a", 0), ("b", 9)] {
        fs::create_dir(p.path(folder)).unwrap();
        let gray = image::GrayImage::from_fn(40, 40, |x, y| {
            let v = if (x / 5 + y / 7).is_multiple_of(2) { 60 } else { 200 };
            image::Luma([v + shift])
        });
        gray.save(p.path(&format!("{folder}/g.png"))).unwrap();
        let colors = image::DynamicImage::ImageLuma8(gray).to_rgb8();
        colors.save(p.path(&format!("{folder}/c.png"))).unwrap();
    }
    let run = p.srk(&["eval", "b", "a", "--json"]).worked().says("note: 1 picture without colours");
    let psnr = |name: &str| {
        let all = run.events();
        all.iter().find(|e| e["name"] == name).unwrap()["psnr_y"].as_f64().unwrap()
    };
    // 20 log10(255 / 219)
    assert!((psnr("c") - psnr("g") - 1.3219).abs() < 1e-3, "{} {}", psnr("c"), psnr("g"));
    assert_eq!(run.event("summary")["gray"], 1);
    for quiet in [&["--space", "rgb"][..], &["--convention", "full-range"]] {
        let run = p.srk(&[&["eval", "b", "a"], quiet].concat()).worked();
        assert!(!run.err.contains("without colours"), "{}", run.err);
    }
}
