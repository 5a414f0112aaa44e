//! Everything that users meet of the binary: `cargo test --release --test cli safety::` runs what is in `safety.rs`.
#[path = "../common/mod.rs"]
mod common;

mod binary;
mod compare;
mod configuration;
mod datasets;
mod dry_runs;
mod eval_auto;
mod eval_manners;
mod eval_metrics;
mod eval_sets;
mod folders;
mod manners;
mod manners_data;
mod manners_settings;
mod manners_upscale;
mod metadata;
mod model_files;
mod own_models;
mod pictures;
mod precision;
mod safety;
mod safety_train;
mod shards;
mod train_events;
mod train_goes_on;
mod train_manners;
mod train_starts;
mod walks;
mod words;
