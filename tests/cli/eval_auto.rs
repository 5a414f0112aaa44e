//! `srk eval` with `auto`: each picture chooses its model, as it does in `srk upscale`.
#![allow(clippy::unwrap_used)]
use crate::common::command::Bench;

#[test]
fn each_picture_chooses_its_model_as_in_an_upscale() {
    let p = Bench::new();
    for name in ["clean", "jpeg"] {
        p.photo(&format!("hr/{name}.png"), 192, 160);
    }
    // A JPEG says its quality; of the other nothing is found.
    p.photo("lr/clean.png", 48, 40);
    p.photo("lr/jpeg.jpg", 48, 40);
    let measured = ["eval", "--hr", "hr", "--lr", "lr", "--save", "out", "--csv", "t.csv"];
    let run = p.srk(&[&measured[..], &["--json"]].concat()).worked();
    let start = run.event("start");
    assert_eq!(start["model"], "auto");
    assert!(start["source"].as_str().unwrap().contains("model auto"), "{start}");
    let of = |name: &str| {
        let all = run.events();
        all.iter().find(|e| e["event"] == "image" && e["name"] == name).unwrap()["model"].clone()
    };
    assert_eq!((of("clean"), of("jpeg")), ("srk-x4".into(), "srk-photo-x4".into()));
    let models = run.event("summary")["models"].clone();
    assert_eq!(models, serde_json::json!({"srk-x4": 1, "srk-photo-x4": 1}));
    // Its numbers stay numbers.
    let csv = std::fs::read_to_string(p.path("t.csv")).unwrap();
    assert!(!csv.contains("model") && !csv.contains("srk"), "{csv}");
    for (low, name) in [("lr/clean.png", "clean"), ("lr/jpeg.jpg", "jpeg")] {
        p.srk(&["upscale", low, "-o", "up.png", "--overwrite"]).worked();
        let pixels = |path: &str| image::open(p.path(path)).unwrap().to_rgb8();
        assert!(pixels("up.png") == pixels(&format!("out/{name}.png")), "{name}");
    }
    // A table of one model is of that.
    let one = p.srk(&["eval", "--hr", "hr", "--lr", "lr", "-m", "srk-x4", "--json"]).worked();
    assert_eq!(one.event("summary")["models"], serde_json::json!({"srk-x4": 2}));
    assert!(!one.err.contains("auto"), "{}", one.err);
    let words = p.srk(&["eval", "--hr", "hr", "--lr", "lr", "--steps", "1"]).worked();
    words.says("auto took srk-photo-x4 for 1 picture, srk-x4 for 1 picture");
}
