//! Distances of images as people see them: LPIPS and DISTS, by frozen networks that were trained to name what
//! images show. The smaller, the more alike; 0 for equal images.
//!
//! No weights of these networks are part of this program: [`folder`] finds them in files.
pub mod backbone;
mod distance;
pub mod dists;
pub mod folder;
mod kind;
pub mod lpips;

pub use distance::Distance;
pub use kind::Kind;
