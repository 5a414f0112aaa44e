//! Pillow's resampling against numbers of the real packages, 12.3.0 and 13.0.0: the order of the passes differs.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use srk::imaging::resample::{self, Filter, Shape};

/// Width, height, new width and height, and FNV-1a of what 12.3.0 and 13.0.0 give, bicubic and bilinear.
const GOLDEN: &[([usize; 4], [u64; 2], [u64; 2])] = &[
    (
        [1080, 1920, 256, 256],
        [0xef7c_2ac4_e6b6_8d87, 0x9980_03a7_2083_b581],
        [0xe18b_8d7f_23e5_71e8, 0x6580_3d4e_cd16_242d],
    ),
    (
        [40, 120, 30, 30],
        [0x7b4a_0faa_42b6_b317, 0x70d6_7155_4bf0_1af4],
        [0xb571_25dc_7ad9_cceb, 0x79ca_281d_57ed_43b3],
    ),
    (
        [120, 40, 30, 30],
        [0x0e61_0561_ed88_2c6e, 0x0e61_0561_ed88_2c6e],
        [0xb6bc_bc10_38f9_5020, 0xb6bc_bc10_38f9_5020],
    ),
    (
        [60, 60, 15, 15],
        [0x3c0d_47e9_0296_34d0, 0x3c0d_47e9_0296_34d0],
        [0x9503_e7cd_06ae_bb52, 0x9503_e7cd_06ae_bb52],
    ),
    (
        [33, 97, 32, 20],
        [0x2ab5_5d75_3add_0a07, 0x2888_df77_5069_d116],
        [0xe8d8_bd81_40b8_fd6b, 0xe680_affb_2ad3_2c9d],
    ),
    (
        [33, 97, 50, 20],
        [0xa6a8_62f1_da1a_c027, 0xce0c_5a1f_540b_c82c],
        [0x6ae3_ce3f_c0f2_f30e, 0xf8c0_4323_57bc_5416],
    ),
    (
        [33, 97, 10, 20],
        [0x0899_a234_b2d2_0380, 0x10e1_786b_54c1_76a2],
        [0xbb4f_7336_8fd8_3645, 0xfc7a_088b_5721_944a],
    ),
    (
        [97, 33, 120, 11],
        [0x7254_7904_c438_7d73, 0x02cd_93a5_91ab_01fb],
        [0x3968_b772_1d06_399f, 0x9c0f_4286_ef46_5919],
    ),
    (
        [21, 40, 11, 20],
        [0xa4eb_83e2_57cc_fbb0, 0xa4eb_83e2_57cc_fbb0],
        [0x579c_4fe2_770c_0fa3, 0x579c_4fe2_770c_0fa3],
    ),
    (
        [20, 40, 10, 20],
        [0xcd27_114d_034e_18af, 0xcd27_114d_034e_18af],
        [0x6221_cc1c_0468_d854, 0x6221_cc1c_0468_d854],
    ),
    (
        [40, 20, 80, 10],
        [0xb63e_b7f0_fb57_7c75, 0x07b2_bb2d_d288_c513],
        [0x62d6_2a15_5c5c_160c, 0x7d8f_716b_a389_3542],
    ),
];

fn picture(width: usize, height: usize) -> Vec<u8> {
    (0..width * height * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn both_orders_are_those_of_the_packages() {
    for &([width, height, to_width, to_height], bicubic, bilinear) in GOLDEN {
        let from = Shape::new(height, width, 3);
        let source = picture(width, height);
        let filters = [
            (Filter::Bicubic12, bicubic[0]),
            (Filter::Bicubic, bicubic[1]),
            (Filter::Bilinear12, bilinear[0]),
            (Filter::Bilinear, bilinear[1]),
        ];
        for (filter, want) in filters {
            let got = resample::pillow(&source, from, to_height, to_width, filter).unwrap();
            assert_eq!(hash(&got), want, "{width}x{height} to {to_width}x{to_height} {filter:?}");
        }
    }
}

#[test]
fn degradations_are_chosen_by_name() {
    use srk::data::degrade::{Degrade, shrink};
    use srk::data::folder::Rgb8;
    #[derive(serde::Deserialize)]
    struct Named {
        degrade: Degrade,
    }
    // Three times as high as wide, and shrunk: where the versions differ.
    let high = Rgb8 { width: 40, height: 120, pixels: picture(40, 120) };
    let made = |name: &str| {
        let named: Named = toml::from_str(&format!("degrade = \"{name}\"")).unwrap();
        shrink(&high, named.degrade, 4).unwrap().pixels
    };
    let plain =
        |filter| resample::pillow(&high.pixels, Shape::new(120, 40, 3), 30, 10, filter).unwrap();
    assert_eq!(made("pillow-bicubic"), plain(Filter::Bicubic));
    assert_eq!(made("pillow-12-bicubic"), plain(Filter::Bicubic12));
    assert_eq!(made("bilinear"), plain(Filter::Bilinear));
    assert_eq!(made("pillow-12-bilinear"), plain(Filter::Bilinear12));
    assert_ne!(made("pillow-bicubic"), made("pillow-12-bicubic"));
}
