//! `srk compare`: pictures beside each other, as one picture or as a page with a slider.
use std::path::{Path, PathBuf};

use serde_json::json;

use super::common::{self, DeviceChoice, Precision, Seed};
use super::progress::Progress;
use super::voice;
use crate::diffusion::system::System;
use crate::engine::files::atomic_write;
use crate::engine::outputs::Outputs;
use crate::error::{Error, Report, Result};
use crate::imaging::encode::{self, EncodeOptions, Format};
use crate::imaging::sheet::{Panel, Sheet};
use crate::imaging::{self, Depth, Image, Metadata, Rect, resample};
use crate::upscale::choice::{Denoise, told};
use crate::upscale::{self, Settings, TileSize};

const EXAMPLES: &str = "Examples:
  srk compare photo.jpg photo_x4.png -o look.html      a page with a slider, for any browser
  srk compare a.png b.png c.png -o sheet.png           a picture of all, with captions
  srk compare in.png -m srk-x4 -m other.pth -o look.html --crop 400x300+100+80
";

/// The page; %TITLE%, %DATA% and %SIZE% are filled in.
const PAGE: &str = include_str!("compare.html");

/// Show pictures beside each other: a page with a slider, or a sheet.
///
/// Smaller pictures are enlarged to the size of the largest one, without smoothing. The page holds everything: it
/// needs no network and no other file.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Args {
    /// Pictures; with -m one, which the models enlarge
    #[arg(required = true, value_name = "PICTURE")]
    pictures: Vec<PathBuf>,
    /// Models that enlarge the picture, as srk upscale does, also auto; may be repeated
    #[arg(short, long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// What to write: .html for a page, or a picture such as .png
    #[arg(short, long, value_name = "FILE", default_value = "compare.html")]
    output: PathBuf,
    /// Only this part, in pixels of the largest picture
    #[arg(long, value_name = "WxH+X+Y", value_parser = crop)]
    crop: Option<Part>,
    /// Names in place of the files', separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    labels: Vec<String>,
    /// The seed of the models' noise: a number, or random
    #[arg(long, value_name = "N", default_value = "42")]
    seed: Seed,
    /// Where models run: auto (what SRK_DEVICE says, or a GPU if there is one), cpu, cuda, or one of several GPUs, such
    /// as cuda:1
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Replace the output if it is there
    #[arg(long)]
    overwrite: bool,
}

/// A part of a picture.
#[derive(Clone, Copy, Debug)]
struct Part(Rect);

fn crop(text: &str) -> std::result::Result<Part, String> {
    let numbers: Option<Vec<usize>> =
        text.split(['x', '+']).map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[width, height, x, y])
            if width > 0 && height > 0 && text.matches('x').count() == 1 =>
        {
            Ok(Part(Rect::new(x, y, width, height)))
        }
        _ => Err("width x height + left + top, such as 400x300+100+80".into()),
    }
}

/// A picture and what it is called.
struct Entry {
    label: String,
    image: Image,
    /// Its size before it was enlarged for showing.
    size: (usize, usize),
}

pub(super) fn run(args: &Args) -> Result<()> {
    let usage = |what: &str, help: &str| Error::Usage(Report::new(what, "").help(help));
    match (args.pictures.len(), args.models.len()) {
        (1, 0) => {
            return Err(usage("one picture is no comparison", "name another, or a model with -m"));
        }
        (2.., 1..) => return Err(usage("-m enlarges one picture", "name one, or leave -m out")),
        _ => {}
    }
    let is_page = args.output.extension().is_some_and(|e| e == "html" || e == "htm");
    if !is_page {
        Format::from_path(&args.output).map_err(|_| {
            usage(&format!("cannot write {}", args.output.display()), ".html, .png, .jpg or .webp")
        })?;
    }
    let mut outputs = Outputs::overwriting(args.overwrite);
    args.pictures.iter().for_each(|path| outputs.reads(path));
    args.models.iter().for_each(|model| outputs.reads_below(model.as_ref()));
    outputs.claim(&args.output, &args.pictures[0])?;
    let mut entries = Vec::new();
    for path in &args.pictures {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = imaging::read(path)?;
        // Of the picture as it was read: what is shown of it has 8 bits, and no word of its compression.
        let large = args.models.iter().map(|model| enlarged(args, model, &image));
        let large = large.collect::<Result<Vec<_>>>()?;
        entries.push(entry(name, image));
        entries.extend(large.into_iter().map(|(label, image)| entry(label, image)));
    }
    if !args.labels.is_empty() && args.labels.len() != entries.len() {
        let what = format!("{} labels for {} pictures", args.labels.len(), entries.len());
        return Err(usage(&what, "--labels names them all, in their order"));
    }
    for (entry, label) in entries.iter_mut().zip(&args.labels) {
        entry.label.clone_from(label);
    }
    same_size(&mut entries, args.crop)?;
    match is_page {
        true => page(args, &entries)?,
        false => sheet(args, &entries)?,
    }
    let names: Vec<&str> = entries.iter().map(|e| e.label.as_str()).collect();
    let seed = if args.models.is_empty() { String::new() } else { args.seed.words() };
    voice::say(format_args!("{} shows {}{seed}", args.output.display(), names.join(", ")));
    voice::done(json!({"written": args.output, "pictures": names, "seed": args.seed.number}));
    Ok(())
}

fn entry(label: String, image: Image) -> Entry {
    let size = (image.width, image.height);
    let image = Image { metadata: Metadata::default(), ..image.to_depth(Depth::Eight) };
    Entry { label, image, size }
}

/// `image` as `srk upscale -m model` enlarges it, and what that is called.
fn enlarged(args: &Args, model: &str, image: &Image) -> Result<(String, Image)> {
    let place = |system: System| common::place(system, &args.device, Precision::Auto);
    let models = common::models(model, place)?;
    let findings = models.findings(image)?;
    let upscaler = models.of(&findings, Denoise::Auto);
    let system = upscaler.system();
    let stop = common::stop_on_signals()?;
    let memory = upscaler.memory_or(common::available_memory() / 2)?;
    let settings = Settings { steps: None, seed: args.seed.number, tile: TileSize::Auto, memory };
    let mut plan = upscale::plan(upscaler, image.width, image.height, &settings)?;
    plan.damage = told(system, &findings, Denoise::Auto);
    let progress = Progress::new(model, (plan.tiles.len() * plan.steps) as u64);
    let on_call = &mut |done: usize, all: usize| {
        progress.at(done as u64, all as u64);
        common::check(&stop)
    };
    let done = upscale::upscale(upscaler, image, &plan, args.seed.number, on_call);
    progress.finish();
    let label =
        if model == common::AUTO { format!("auto: {}", system.name) } else { model.to_owned() };
    Ok((label, done?.0))
}

/// Enlarges all to the largest and cuts the part out.
fn same_size(entries: &mut [Entry], part: Option<Part>) -> Result<()> {
    let width = entries.iter().map(|e| e.size.0).max().unwrap_or(0);
    let height = entries.iter().map(|e| e.size.1).max().unwrap_or(0);
    for entry in entries.iter_mut() {
        let (w, h) = entry.size;
        if (w, h) != (width, height) {
            let whole = width % w == 0 && height % h == 0;
            entry.image = match whole {
                true => repeated(&entry.image, width / w, height / h),
                false => resample::resize(&entry.image, width, height)?,
            };
        }
        if let Some(Part(part)) = part {
            if !Rect::whole(width, height).contains(&part) {
                let what = format!("the part does not lie in a picture of {width}x{height}");
                let cause = format!("it ends at {}x{}", part.right(), part.bottom());
                return Err(Error::Usage(Report::new(what, cause)));
            }
            entry.image = entry.image.crop(part)?;
        }
    }
    Ok(())
}

/// Every pixel as a block of `across` x `down`: what is there shows as it is.
fn repeated(image: &Image, across: usize, down: usize) -> Image {
    let (width, height) = (image.width * across, image.height * down);
    let of = |samples: &imaging::Samples, channels: usize| {
        let values = samples.as_u8().unwrap_or(&[]);
        let mut out = Vec::with_capacity(width * height * channels);
        for y in 0..height {
            for x in 0..width {
                let at = ((y / down) * image.width + x / across) * channels;
                out.extend_from_slice(&values[at..at + channels]);
            }
        }
        imaging::Samples::U8(out)
    };
    Image {
        width,
        height,
        samples: of(&image.samples, image.channels()),
        alpha: image.alpha.as_ref().map(|alpha| of(alpha, 1)),
        ..image.clone()
    }
}

fn sheet(args: &Args, entries: &[Entry]) -> Result<()> {
    let titles: Vec<&str> = entries.iter().map(|e| e.label.as_str()).collect();
    let panel = |e: &Entry| Panel::new(e.image.clone(), format!("{}x{}", e.size.0, e.size.1));
    let sheet = Sheet::new(&titles).row(entries.iter().map(panel).collect()).render()?;
    imaging::write(&args.output, &sheet, EncodeOptions::default())
}

fn page(args: &Args, entries: &[Entry]) -> Result<()> {
    let mut data = Vec::new();
    for entry in entries {
        let png =
            encode::encode(&entry.label, &entry.image, Format::Png, EncodeOptions::default())?;
        data.push(
            json!({"label": entry.label, "size": format!("{}x{}", entry.size.0, entry.size.1),
            "src": format!("data:image/png;base64,{}", base64(&png))}),
        );
    }
    // No label may end the script that it stands in.
    let data = serde_json::Value::from(data).to_string().replace('<', "\\u003c");
    let title = title(&args.output);
    let image = entries.first().map_or((0, 0), |e| (e.image.width, e.image.height));
    let page = PAGE
        .replace("%TITLE%", &title)
        .replace("%SIZE%", &format!("{}, {}", image.0, image.1))
        .replace("%DATA%", &data);
    atomic_write(&args.output, |writer| writer.write_all(page.as_bytes()))
}

fn title(output: &Path) -> String {
    let name = output.file_stem().unwrap_or_default().to_string_lossy();
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Bytes as text of 64 letters (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            match i <= chunk.len() {
                true => out.push(char::from(LETTERS[(bits >> (18 - 6 * i) & 63) as usize])),
                false => out.push('='),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, wanted) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), wanted);
        }
        assert_eq!(base64(&[0xFB, 0xFF, 0xFE]), "+//+");
    }

    #[test]
    fn parts_are_read_as_imagemagick_writes_them() {
        assert_eq!(crop("400x300+100+80").unwrap().0, Rect::new(100, 80, 400, 300));
        for text in ["400x300", "400x300+1", "0x3+1+1", "4+3x1+1x", "axb+c+d"] {
            assert!(crop(text).is_err(), "{text}");
        }
    }
}
