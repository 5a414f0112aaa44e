//! Networks that tell images from generated ones, and the registry that builds one from its configuration.
mod config;
mod network;

pub use config::DiscriminatorConfig;
pub use network::Discriminator;
