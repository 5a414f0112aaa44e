//! Tiles of networks of ncnn are the whole where they can be.
use srk::engine::device::{DType, Device};
use srk::imaging::{Image, Samples};
use srk::upscale::{Settings, TileSize, Upscaler, plan, upscale};

use super::{enlarged, ncnn_files, picture, written};

/// A U-net that eats its borders, at odd sizes: as large as it should be, and tiles are the whole bit for bit.
#[test]
fn borders_that_a_network_eats_are_added() {
    let folder = tempfile::tempdir().unwrap();
    let system = written(&ncnn_files::eating_borders(false), folder.path(), "net.param");
    let geometry = system.network.geometry();
    assert_eq!((system.scale(), geometry.align), (2, 2));
    assert_eq!(
        geometry.receptive_field,
        Some(18),
        "4 + 8 + 1 + 4 + 1 pixels of five layers, by blocks of 4"
    );
    let upscaler = Upscaler::new(system, &Device::Cpu, DType::F32).unwrap();
    for (width, height) in [(101, 43), (7, 3), (1, 1), (2, 16)] {
        let image = picture(width, height);
        let (whole, size, tiles) = enlarged(&upscaler, &image, TileSize::None);
        assert_eq!((size, tiles), ([2 * width, 2 * height], 1));
        let (tiled, _, tiles) = enlarged(&upscaler, &image, TileSize::Side(16));
        assert!(tiles > 1 || width < 17);
        assert!(whole == tiled, "tiles of {width} x {height} differ from the whole");
    }
    assert!(tiles_are_the_whole(&upscaler, &fine(101, 83)));
}

/// The same with a mean over the whole map: blended tiles, that only say so where they meet.
#[test]
fn means_over_the_map_get_blended_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let system = written(&ncnn_files::eating_borders(true), folder.path(), "net.param");
    assert_eq!(system.network.geometry().receptive_field, None);
    assert!(system.network.overlap() > 16);
    let upscaler = Upscaler::new(system, &Device::Cpu, DType::F32).unwrap();
    let image = picture(101, 43);
    let (whole, size, _) = enlarged(&upscaler, &image, TileSize::None);
    let (tiled, _, tiles) = enlarged(&upscaler, &image, TileSize::Side(32));
    assert!(tiles > 1 && size == [202, 86]);
    let off = whole.iter().zip(&tiled).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(off <= 24, "tiles are {off} grey levels off the whole");
}

/// A row of convolutions in tiles is the whole in 16 bits: their blocks see further than they do.
#[test]
fn tiles_of_many_convolutions_are_the_whole_in_16_bits() {
    let folder = tempfile::tempdir().unwrap();
    let system = written(&ncnn_files::row(12), folder.path(), "net.param");
    assert_eq!(system.network.geometry().receptive_field, Some(4 * 13 + 1));
    let upscaler = Upscaler::new(system, &Device::Cpu, DType::F32).unwrap();
    assert!(tiles_are_the_whole(&upscaler, &fine(96, 90)));
}

/// A picture of 16 bits.
fn fine(width: usize, height: usize) -> Image {
    let coarse = picture(width, height);
    let Samples::U8(samples) = &coarse.samples else { panic!("8 bits") };
    let samples = samples.iter().enumerate().map(|(i, v)| (u16::from(*v) * 257) ^ (i as u16 % 97));
    Image { samples: Samples::U16(samples.collect()), ..coarse }
}

fn tiles_are_the_whole(upscaler: &Upscaler, image: &Image) -> bool {
    let of = |tile| {
        let settings = Settings { steps: None, seed: 9, tile, memory: 1 << 30 };
        let plan = plan(upscaler, image.width, image.height, &settings).unwrap();
        assert!(!plan.blended);
        upscale(upscaler, image, &plan, 9, &mut |_, _| Ok(())).unwrap().0.samples
    };
    of(TileSize::Side(32)) == of(TileSize::None)
}
