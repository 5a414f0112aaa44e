//! The command line: one file per subcommand, no logic.
#![allow(clippy::print_stdout)] // This module and main are the only ones that print.
mod arguments;
mod bench;
mod common;
mod compare;
mod counted;
mod data;
mod data_check;
mod defaults;
mod doctor;
mod eval;
mod eval_checks;
mod eval_metrics;
mod eval_table;
mod habits;
mod import;
mod manual;
mod models;
mod print;
mod program;
mod progress;
mod ranks;
mod reads;
mod refusal;
mod sample;
mod sizes;
mod train;
mod upscale;
mod voice;

pub use program::main;
