//! Where networks are trained: on the CPU or on a GPU, behind one interface.
mod buckets;
mod coming;
mod cpu;
mod gpu;
mod gpu_part;
mod interface;
mod place;
mod staged;

pub(super) use buckets::Buckets;
pub use coming::{Bad, Coming, Done};
#[cfg(test)]
pub(super) use interface::pass_of;
pub use interface::{Fewer, Joint, Learn, Learned, Move, Pass, Stepper};
pub use place::place;
