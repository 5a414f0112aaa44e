//! Everything that a test can ask of the library in this process; one program, because each is linked with all of srk.
//!
//! `cargo test --release --test suite ops::` runs what is in `ops.rs`. What changes the process as a whole has no place here:
//! environment, working directory, allocator, the pool of threads.
#[path = "../common/mod.rs"]
mod common;

mod brought;
mod circles;
mod data;
mod dead;
mod dead_on_gpu;
mod degrade;
mod degrade_noise;
mod degrade_stages;
mod diffusion;
mod engines;
mod every_network;
mod generative;
mod golden;
mod imaging;
mod import;
mod jpeg_decoding;
mod kernels;
mod kernels_more;
mod latent;
mod launch_checks;
mod launches;
mod layout;
mod library;
mod moments;
mod mutate;
mod ncnn;
mod networks;
mod networks_gpu;
mod ops;
mod ops_errors;
mod ops_gpu;
mod ops_large;
mod ops_values;
mod perceptual;
mod pillow;
mod prebuilt;
mod recipes_gpu;
mod recipes_ranks;
mod second_order;
mod sliced;
mod source;
mod systems;
mod tape;
mod train;
mod train_gpu;
mod upscale;
mod upscalers;
mod validation;
