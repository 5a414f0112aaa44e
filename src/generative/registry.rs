//! The systems by the kind of their configuration.
use super::config::ModelConfig;
use super::ddpm::Ddpm;
use super::gan::Gan;
use super::system::{System, Trainable};
use super::vae::Vae;

/// The system of `model`, its initial weights a function of `seed`.
pub fn build(model: &ModelConfig, seed: u64) -> Box<dyn System> {
    match model {
        ModelConfig::Vae(c) => Box::new(Vae::new(c, seed)),
        ModelConfig::Ddpm(c) => Box::new(Ddpm::new(c, seed)),
        ModelConfig::Gan(_) | ModelConfig::Dcgan(_) | ModelConfig::WganGp(_) => {
            Box::new(Gan::new(model, seed))
        }
    }
}

/// The same, to train.
pub(super) fn build_to_train(model: &ModelConfig, seed: u64) -> Box<dyn Trainable> {
    match model {
        ModelConfig::Vae(c) => Box::new(Vae::new(c, seed)),
        ModelConfig::Ddpm(c) => Box::new(Ddpm::new(c, seed)),
        ModelConfig::Gan(_) | ModelConfig::Dcgan(_) | ModelConfig::WganGp(_) => {
            Box::new(Gan::new(model, seed))
        }
    }
}
