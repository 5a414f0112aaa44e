//! Validation: whole images through the whole chain, measured as papers do.
mod images;
mod measures;
mod rows;
mod scores;
mod set;
mod sets;
mod tiled;

pub use crate::engine::interrupt::Stop;
pub use scores::{Quality, Scores};
pub use set::Validation;
pub use sets::Validations;
pub(super) use sets::key;
