//! Number, names and shapes of the parameters of the teaching networks.
use srk::engine::parameter::Parameter;
use srk::models::Module;
use srk::models::teaching::{dcgan, ddpm, gan, vae};

use super::parameters::check_names_of;

/// The network's parameters without buffers, or with them where the table has some.
fn check(network: &dyn Module, count: usize, table: &str) {
    let parameters = network.parameters();
    assert_eq!(parameters.iter().map(|p| p.value().len()).sum::<usize>(), count);
    check_names_of(parameters, table, "param");
    check_names_of(network.buffers(), table, "buffer");
}

#[test]
fn gan() {
    check(&gan::Generator::new(64, 0), 218_128, "seed003_nb_gan_G");
    check(&gan::Discriminator::new(0), 100_609, "seed003_nb_gan_D");
}

#[test]
fn dcgan_and_critic() {
    check(&dcgan::Generator::new(64, 1.0, 0), 747_841, "seed003_nb_dcgan_G");
    check(&dcgan::Judge::new("disc", [16, 32], Some(1.0), false, 0), 9_105, "seed003_nb_dcgan_D");
    check(
        &dcgan::Judge::new("critic", [64, 128], Some(1.0), false, 0),
        134_721,
        "seed003_nb_wgan_critic",
    );
}

/// The published autoencoder's, and a second head.
#[test]
fn vae() {
    let network = vae::Vae::new(2, 0);
    let (heads, rest): (Vec<Parameter>, Vec<Parameter>) =
        network.parameters().iter().cloned().partition(|p| p.name().contains("linear2"));
    let len = |parameters: &[Parameter]| parameters.iter().map(|p| p.value().len()).sum::<usize>();
    let part = |name: &str| {
        let of_part: Vec<Parameter> =
            rest.iter().filter(|p| p.name().starts_with(name)).cloned().collect();
        len(&of_part)
    };
    assert_eq!((part("encoder"), part("decoder"), len(&heads)), (96_770, 246_273, 4_098));
    check_names_of(&rest, "seed003_nb_autoencoder", "param");
}

/// No table: the network was not published.
#[test]
fn ddpm() {
    let network = ddpm::DdpmUNet::new(&ddpm::DdpmUNetConfig::default(), 0);
    let count: usize = network.parameters().iter().map(|p| p.value().len()).sum();
    assert_eq!(count, 812_801);
}
