//! Number, names and shapes of the parameters of published networks at their full width.
use srk::engine::parameter::Parameter;
use srk::models::Module as _;
use srk::models::sr3_unet::Sr3UNetConfig;
use srk::models::swin_unet::SwinUNetConfig;
use srk::models::vq::{Vq, VqConfig};
use srk::models::{ModelConfig, Network, weights};
use srk::training::config::Config;
use srk::training::recipes;

fn of_recipe(name: &str) -> Box<dyn Network> {
    let text = recipes::find(name).unwrap().text;
    Config::read(text, name, &[]).unwrap().model.build(0)
}

/// Compares with a layer table, where the folder beside the golden files holds them: rows of name,
/// shape such as `64x6x3x3`, and kind.
fn check_names(network: &dyn Network, table: &str) {
    check_names_of(network.parameters(), table, "param");
}

/// As `check_names`, the rows of one kind.
pub fn check_names_of(parameters: &[Parameter], table: &str, kind: &str) {
    let file = format!("../reference/layers/{table}.params.tsv");
    let text = super::folders().iter().find_map(|f| std::fs::read_to_string(f.join(&file)).ok());
    let Some(text) = text else {
        println!("skipped: no layer table {table}");
        return;
    };
    let wanted: Vec<(&str, String)> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|row| row[2] == kind)
        .map(|row| (row[0], row[1].to_owned()))
        .collect();
    let shape = |p: &Parameter| {
        let shape = weights::file_shape(p.layout(), p.value().shape());
        match shape.is_empty() {
            true => "scalar".to_owned(),
            false => shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
        }
    };
    let got: Vec<(&str, String)> = parameters.iter().map(|p| (p.name(), shape(p))).collect();
    for (got, wanted) in got.iter().zip(&wanted) {
        assert_eq!(got, wanted, "{table}");
    }
    assert_eq!(got.len(), wanted.len(), "{table}");
}

#[test]
fn sr3_from_16_to_128() {
    let network = of_recipe("sr3");
    assert_eq!(network.parameter_count(), 97_807_491);
    check_names(&*network, "ref_sr3_janspiry_16_128");
}

#[test]
fn sr3_from_64_to_512() {
    let config = Sr3UNetConfig {
        multipliers: vec![1, 2, 4, 8, 16],
        blocks: 1,
        groups: 16,
        attention: vec![],
        image_size: 512,
        ..Default::default()
    };
    let network = ModelConfig::Sr3UNet(config).build(0);
    assert_eq!(network.parameter_count(), 155_334_339);
    check_names(&*network, "ref_sr3_janspiry_64_512");
}

/// The published network runs without its attention layers; their parameters are there.
#[test]
fn attention_unet() {
    let network = of_recipe("sr3-div2k");
    assert_eq!(network.parameter_count(), 281_596_146);
    let live = network.parameters().iter().filter(|p| !p.name().contains(".attn."));
    assert_eq!(live.map(|p| p.value().len()).sum::<usize>(), 256_411_890);
    check_names(&*network, "seed000_sr3");
    check_names(&*network, "seed000_sr3_attn");
}

#[test]
fn swin_unet() {
    let network = of_swin(SwinUNetConfig::default());
    assert_eq!(network.parameter_count(), 118_593_583);
    check_names(&*network, "ref_resshift_unet_swin");
}

/// The published variants, whose low-resolution images are larger than the latents.
#[test]
fn swin_unets_with_larger_conditions() {
    let twice = SwinUNetConfig { low_size: 128, scale: 2, ..Default::default() };
    assert_eq!(of_swin(twice).parameter_count(), 118_640_431);
    let filling = SwinUNetConfig { low_size: 256, low_channels: 4, scale: 1, ..Default::default() };
    assert_eq!(of_swin(filling).parameter_count(), 118_714_399);
    let faces =
        SwinUNetConfig { low_size: 512, latent_channels: 8, scale: 1, ..Default::default() };
    assert_eq!(of_swin(faces).parameter_count(), 118_931_604);
}

fn of_swin(config: SwinUNetConfig) -> Box<dyn Network> {
    ModelConfig::SwinUNet(config).build(0)
}

#[test]
fn autoencoders() {
    let four = Vq::new(&VqConfig::default(), 0);
    assert_eq!(four.parameter_count(), 55_322_782);
    check_names_of(four.parameters(), "ref_resshift_vq_f4", "param");
}
