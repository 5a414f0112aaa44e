//! Prints the registered kernels, one a line: name, largest block (0 if not stated), bytes of each parameter.
use cuda_emulation::{Library, Variant};

fn main() -> Result<(), String> {
    for kernel in Library::open(Variant::Plain)?.kernels() {
        let sizes: Vec<String> = kernel.parameters.iter().map(u32::to_string).collect();
        println!("{} {} {}", kernel.name, kernel.max_threads.unwrap_or(0), sizes.join(" "));
    }
    Ok(())
}
