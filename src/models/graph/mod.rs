//! A network given as a list of layers, as converters write it: what ncnn files become.
//!
//! ```text
//! v0 = the image, from 0 to 1 (or in the range the network was made for), its edges repeated to a border
//! v(i+1) = layer i of the values it reads;   the last value is the result, or its difference to the
//! image enlarged by repeating pixels
//! ```
//!
//! What follows from the layers is computed once (`plan`): the factor, how wide a border the network eats, so
//! that the result has exactly `scale` times the image's size; how far an output sees, so that tiles are exact;
//! and the floats alive at the peak. A value is dropped after the last layer that reads it.
mod config;
mod layer;
mod network;
mod plan;
mod run;

pub use self::layer::Activation;
pub use self::layer::Kind;
pub use self::layer::Layer;
pub use self::layer::Window;
pub use config::GraphConfig;
pub use network::Graph;
