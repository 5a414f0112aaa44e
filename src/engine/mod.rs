//! What everything is made of: randomness, devices, tensors, the tape, and the cases ops are tested at.
pub mod files;
