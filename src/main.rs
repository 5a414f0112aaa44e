//! The `srk` binary: parse, run, print the error.
use std::process::ExitCode;

fn main() -> ExitCode {
    srk::cli::main()
}
