//! Where networks are trained: on the CPU or on a GPU, behind one interface.
mod buckets;
mod cpu;
mod gpu;
mod gpu_part;
mod interface;
mod place;
mod staged;

pub(super) use buckets::Buckets;
#[cfg(test)]
pub(super) use interface::pass_of;
pub use interface::{Bad, Done, Fewer, Joint, Learn, Learned, Move, Pass, Stepper};
pub use place::place;
