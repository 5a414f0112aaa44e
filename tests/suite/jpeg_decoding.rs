//! JPEG pixels are those of libjpeg-turbo: small files of each kind against Pillow 12.3.0 (libjpeg-turbo 3.1.4.1).
#![allow(clippy::unwrap_used)]
use srk::imaging::{Samples, decode};

/// Names of files in `tests/jpeg` and FNV-1a of the samples that Pillow decodes.
const FILES: &[(&str, u64)] = &[
    ("420", 0xff5b_1904_e98a_1aa4),
    ("420_progressive", 0xff5b_1904_e98a_1aa4),
    ("420_restart", 0xff5b_1904_e98a_1aa4),
    ("422", 0xf716_13df_8cc2_de5a),
    ("440", 0x047f_b913_5b21_adc6),
    ("444", 0x888f_37ae_3037_8d62),
    ("gray", 0x790c_b723_ba95_0f93),
];

fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/jpeg/{name}.jpg", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn every_kind_decodes_to_the_bits_of_libjpeg_turbo() {
    for &(name, want) in FILES {
        let image = decode(&file(name), name).unwrap();
        assert_eq!((image.width, image.height), (33, 21), "{name}");
        assert_eq!(image.channels(), if name == "gray" { 1 } else { 3 }, "{name}");
        let Samples::U8(samples) = image.samples else { panic!("8 bits") };
        assert_eq!(hash(&samples), want, "{name}");
    }
}

#[test]
fn damage_is_an_error_and_not_a_gray_area() {
    for &(name, _) in FILES {
        let whole = file(name);
        // Cut off, also where an end marker was put behind the cut.
        for part in [4, 3, 2] {
            let cut = whole.len() - whole.len() / part / 2;
            let error = decode(&whole[..cut], name).unwrap_err().to_string();
            assert!(error.contains("ends too early"), "{name}: {error}");
            let ended = [&whole[..cut], &[0xFF, 0xD9]].concat();
            let error = decode(&ended, name).unwrap_err().to_string();
            let told = ["damaged", "ends too early"].iter().any(|words| error.contains(words));
            assert!(told, "{name}: {error}");
        }
    }
    // What follows the picture is no damage.
    let more = [&file("420")[..], b"something of the camera"].concat();
    assert!(decode(&more, "420").is_ok());
}

/// CMYK with a profile (a made-up press of 6 x 6 x 6 x 6 mixtures), against Little CMS in Pillow 12.3.0, relative
/// colorimetric: two ways between the points of a table differ by some levels.
#[test]
fn cmyk_becomes_srgb_by_its_profile() {
    let bytes = file("cmyk");
    let image = decode(&bytes, "cmyk").unwrap();
    assert_eq!((image.width, image.height, image.channels()), (16, 12, 3));
    assert!(image.metadata.icc.is_none(), "the profile is not that of the pixels any more");
    let Samples::U8(samples) = image.samples else { panic!("8 bits") };
    let folder = env!("CARGO_MANIFEST_DIR");
    let want = std::fs::read(format!("{folder}/tests/jpeg/cmyk.rgb")).unwrap();
    assert_eq!(samples.len(), want.len());
    let apart: Vec<u32> = samples.iter().zip(&want).map(|(a, b)| a.abs_diff(*b).into()).collect();
    let mean = f64::from(apart.iter().sum::<u32>()) / apart.len() as f64;
    assert!(mean <= 3.0 && apart.iter().all(|&d| d <= 16), "{mean} in the mean");
    // Without the profile nothing is guessed.
    let bare = bytes.windows(4).position(|w| w == b"ICC_").unwrap();
    let mut bare_bytes = bytes.clone();
    bare_bytes[bare] = b'X';
    let error = decode(&bare_bytes, "cmyk").unwrap_err().to_string();
    assert!(error.contains("without a profile"), "{error}");
}
