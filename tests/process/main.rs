//! What is measured or played on whole processes. Apart from the others, because the peak of a process that ends at once
//! counts that of its parent, and because children are this program itself, on a driver that is a stub.
#[path = "../common/mod.rs"]
mod common;

mod gpu_check;
mod gpus;
mod limits;
mod memory;
mod ranks;
mod ranks_gpu;
mod stub_driver;
