//! What a program takes of srk: options that cannot be, pictures without pixels, files called `-`.
#![allow(clippy::unwrap_used)]
use srk::{Color, DType, Denoise, Depth, Image, Options, Rect, Upscaler};

fn refused(options: Options) -> String {
    let error = Upscaler::open_with("srk-x4", options).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

#[test]
fn options_that_cannot_be_are_refused_in_words() {
    let usual = Options::default;
    assert!(refused(Options { steps: Some(0), ..usual() }).contains("0 calls of the network"));
    for scale in [0.0, -2.0, f64::NAN, f64::INFINITY] {
        let text = refused(Options { scale: Some(scale), ..usual() });
        assert!(text.contains(&format!("cause: {scale} is not a factor")), "{text}");
    }
    for amount in [-0.1, 1.5, f32::NAN] {
        let text = refused(Options { denoise: Denoise::Strength(amount), ..usual() });
        assert!(text.contains(&format!("cause: {amount} does not lie in 0..=1")), "{text}");
    }
    for precision in [DType::F16, DType::F64] {
        let text = refused(Options { precision, ..usual() });
        assert!(text.contains("the processor computes in f32 or bf16"), "{text}");
    }
    let (precision, denoise) = (DType::BF16, Denoise::Strength(1.0));
    let options = Options { precision, denoise, steps: Some(1), scale: Some(0.5), ..usual() };
    let shown = format!("{:?}", Upscaler::open_with("srk-x4", options).unwrap());
    assert!(shown.contains("srk-x4") && shown.contains("BF16"), "{shown}");
}

#[test]
fn a_picture_without_pixels_is_refused_in_words() {
    let options = Options { steps: Some(1), ..Options::default() };
    for model in ["auto", "srk-x4"] {
        let upscaler = Upscaler::open_with(model, options.clone()).unwrap();
        for (width, height) in [(0, 0), (0, 5), (5, 0)] {
            let empty = Image::new(width, height, Color::Rgb, Depth::Eight);
            let text = upscaler.upscale(&empty).unwrap_err().to_string();
            let size = format!("its size is {width}x{height}");
            assert!(text.contains("no pixels") && text.contains(&size), "{text}");
        }
    }
    let none = Image::new(8, 8, Color::Rgb, Depth::Eight).crop(Rect::new(8, 8, 0, 0)).unwrap();
    assert_eq!((none.width, none.height), (0, 0));
}

/// On the command line that is standard input; here it would wait for it for ever.
#[test]
fn a_dash_is_a_file_like_others() {
    let error = Image::read("-").unwrap_err();
    assert_eq!(error.code(), "not_found", "{error}");
}
