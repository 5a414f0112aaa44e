//! Counts, names and shapes of what networks hold, against the tables of the original implementations
//! where they are there.
use std::collections::BTreeMap;
use std::path::PathBuf;

use srk::engine::device::DType;
use srk::engine::parameter::Parameter;
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::models::Module as _;
use srk::models::biggan_unet::{BigGanUNet, BigGanUNetConfig, Injection};
use srk::models::discriminator::DiscriminatorConfig;
use srk::models::laplacian::{Laplacian, LaplacianConfig};
use srk::models::srddpm_unet::{SrddpmUNetConfig, TimeInput};
use srk::models::weights::WeightsFile;
use srk::models::{ModelConfig, Network, weights};

use super::folders;

/// Parameters and buffers are those of the table, if it is there.
fn agrees(table: &str, state: &[Parameter]) {
    // They lie beside the golden files.
    let path = |golden: PathBuf| golden.join(format!("../reference/layers/{table}.params.tsv"));
    let Some(text) = folders().into_iter().find_map(|f| std::fs::read_to_string(path(f)).ok())
    else {
        println!("skipped: no ../shared");
        return;
    };
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    let wanted: BTreeMap<String, String> = rows
        .map(|row| {
            let mut cells = row.split('\t').map(str::to_owned);
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    let shape = |p: &Parameter| {
        let sides = weights::file_shape(p.layout(), p.value().shape());
        let sides: Vec<String> = sides.iter().map(ToString::to_string).collect();
        if sides.is_empty() { "scalar".to_owned() } else { sides.join("x") }
    };
    let got: BTreeMap<String, String> =
        state.iter().map(|p| (p.name().to_owned(), shape(p))).collect();
    assert_eq!(got, wanted, "{table}");
}

#[test]
fn the_biggan_unet_has_the_published_parameters() {
    for (table, channels, side, count) in
        [("seed002_sr3_mnist", 1, 32, 63_898_017), ("seed002_sr3_miniplaces", 3, 128, 64_376_707)]
    {
        let config = BigGanUNetConfig { channels, time_dim: side, ..Default::default() };
        let network = BigGanUNet::new(&config, 0);
        assert_eq!(network.parameter_count(), count, "{table}");
        agrees(table, &network.state());
    }
}

#[test]
fn the_time_shift_fits_wherever_it_is_added() {
    for injection in [Injection::BeforeConv1, Injection::BetweenConvs, Injection::AfterConv2] {
        let widths = vec![4, 8, 6];
        let config = BigGanUNetConfig { time_dim: 8, widths, injection, ..Default::default() };
        let network = BigGanUNet::new(&config, 1);
        let image = || Tensor::from_vec(vec![0.5f32; 8 * 12 * 3], &[1, 8, 12, 3]);
        let output = |t: f64| {
            let mut tape = Tape::inference();
            let [x, condition] = [image(), image()].map(|image| tape.input(image));
            let t = Tensor::from_vec(vec![t], &[1]);
            let y = network.forward(&mut tape, &x, &condition, &t).unwrap();
            assert_eq!(y.shape(), [1, 8, 12, 3]);
            y.value().to_f64_vec().unwrap()
        };
        assert_ne!(output(1.0), output(200.0), "{injection:?}");
    }
}

#[test]
fn weights_files_hold_running_statistics() {
    let config = BigGanUNetConfig { time_dim: 8, widths: vec![4, 8], ..Default::default() };
    let network = BigGanUNet::new(&config, 1);
    for buffer in network.buffers() {
        let values: Vec<f64> = (0..buffer.value().len()).map(|i| 70_000.0 + i as f64).collect();
        let shape = buffer.value().shape().to_vec();
        buffer.set(Tensor::from_f64(&values, &shape, DType::F32));
    }
    let bytes = WeightsFile::of(&network.state(), BTreeMap::new()).unwrap().to_bytes(DType::F32);
    let read = WeightsFile::parse(&bytes, "test").unwrap();
    let other = BigGanUNet::new(&config, 2);
    read.apply(&other.state(), "test").unwrap();
    for (a, b) in network.state().iter().zip(other.state()) {
        assert_eq!(
            a.value().to_f64_vec().unwrap(),
            b.value().to_f64_vec().unwrap(),
            "{}",
            a.name()
        );
    }
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let count = file.tensor("up_blocks.0.bn1.num_batches_tracked").unwrap();
    assert_eq!(count.dtype(), safetensors::Dtype::I64);
    assert_eq!(count.data(), 70_000i64.to_le_bytes());
}

#[test]
fn the_laplacian_pyramid_has_the_published_parameters() {
    for (distinct, count) in [(false, 7_956_379), (true, 15_352_291)] {
        let config = LaplacianConfig { distinct, ..LaplacianConfig::published() };
        let network = Laplacian::new(&config, 0);
        assert_eq!(network.parameter_count(), count);
        if !distinct {
            agrees("seed004_lapcnn", network.parameters());
        }
    }
}

#[test]
fn the_laplacian_pyramid_has_images_of_three_sizes() {
    for (chained, distinct) in [(false, false), (true, false), (false, true), (true, true)] {
        let config = LaplacianConfig { channels: 4, chained, distinct, scale: 2 };
        let network = Laplacian::new(&config, 0);
        let values = (0..7 * 5 * 3u8).map(|i| f32::from(i) / 105.0).collect();
        let mut tape = Tape::inference();
        let x = tape.input(Tensor::from_vec::<f32>(values, &[1, 7, 5, 3]));
        for factor in [8, 4, 2] {
            let image = network.enlarge(&mut tape, &x, factor).unwrap();
            assert_eq!(image.shape(), [1, 7 * factor, 5 * factor, 3]);
        }
        assert!(network.enlarge(&mut tape, &x, 3).is_err());
    }
}

#[test]
fn the_generator_of_srddpm_has_the_published_parameters() {
    for (time, count) in [(TimeInput::Raw, 8_321_219), (TimeInput::Sinusoids, 8_337_475)] {
        let config = SrddpmUNetConfig { time, ..Default::default() };
        let network = ModelConfig::SrddpmUNet(config).build(0);
        assert_eq!(network.parameter_count(), count, "{time:?}");
        if time == TimeInput::Raw {
            agrees("seed003_srddpm_unet", &network.state());
        }
    }
}

#[test]
fn srgan_and_srdiff_have_the_published_parameters() {
    let encoder = ModelConfig::Rrdb(Default::default()).build(0);
    assert_eq!(encoder.parameter_count(), 1_478_755);
    agrees("seed003_srdiff_official_rrdb", &encoder.state());
    let generator = ModelConfig::Srgan(Default::default()).build(0);
    assert_eq!(generator.parameter_count(), 1_549_462);
    agrees("seed003_srgan_generator", &generator.state());
    let network = ModelConfig::SrdiffUNet(Default::default()).build(0);
    assert_eq!(network.parameter_count(), 11_755_267);
    agrees("seed003_srdiff_official_unet", network.parameters());
    let inside: Vec<String> = network.buffers().iter().map(|b| b.name().to_owned()).collect();
    let alone = encoder.parameters().iter().map(|p| format!("rrdb.{}", p.name()));
    assert_eq!(inside, alone.collect::<Vec<_>>());
}

#[test]
fn discriminators_have_the_published_parameters() {
    for (config, table, count) in [
        (DiscriminatorConfig::Patch(Default::default()), "seed003_srddpm_patchD", 1_751_489),
        (DiscriminatorConfig::Srgan(Default::default()), "seed003_srgan_discriminator", 23_565_505),
    ] {
        let network = config.build(0);
        assert_eq!(network.parameter_count(), count, "{table}");
        agrees(table, &network.state());
    }
}
