//! What everything is made of: randomness, devices, tensors, the tape, and the cases ops are tested at.
mod arithmetic;
pub mod cuda;
pub mod device;
pub mod disk;
pub mod files;
pub mod interrupt;
pub mod lock;
pub mod memory;
pub mod op_case;
pub mod outputs;
pub mod parameter;
pub mod pool;
pub mod rng;
pub mod shield;
pub mod spelling;
pub mod tape;
pub mod tensor;
