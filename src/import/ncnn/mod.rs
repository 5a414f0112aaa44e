//! Networks of ncnn: a `.param` with the layers as text and a `.bin` beside it with the weights.
//!
//! ```text
//! .param -> lines (param) -> layers of a graph, with their weights out of the .bin (layers, bin)
//!        -> factor, border and reach (models::graph) -> a system, or a weights file of srk
//! ```
//!
//! Two conventions are not in the files but in the programs that run them. Real-CUGAN's PRO networks see black as
//! 0.15 and white as 0.85; they are known by the word `pro` in the name of the file or of its folder. Its networks
//! for 4x give the difference to the image enlarged by repeating pixels; they are known by what they make of grey.
mod bin;
mod layers;
mod network;
mod param;

pub use network::{KIND, import, is_param, open, read};
