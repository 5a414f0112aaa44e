//! Enlarges a picture: `cargo run --release --example upscale -- in.png out.png [model]`.
#![allow(clippy::print_stdout, clippy::print_stderr)]
use srk::{Image, Upscaler};

fn main() -> srk::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let (input, output) = (next("examples/parrots.png"), next("parrots_x4.png"));
    let upscaler = Upscaler::open(&next("auto"))?;
    let small = Image::read(&input)?;
    let large = upscaler.upscale_noting(&small, &mut |done, all| {
        eprint!("\r{done} of {all} calls of the network");
        Ok(())
    })?;
    eprintln!();
    large.write(&output)?;
    println!("{input} {} -> {output} {}", small.size_text(), large.size_text());
    Ok(())
}
