//! The `srk` binary: parse, run, print the error.
fn main() {}
