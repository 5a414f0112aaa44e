//! The walk over the tiles of a plan.
use super::bands::{Bands, Sink};
use super::plan::{Plan, Report};
use super::runner::Watch;
use super::upscaler::Upscaler;
use super::work::Work;
use super::{alpha, spread};
use crate::error::Result;
use crate::imaging::tiles::Tile;
use crate::imaging::{Image, Rect, Samples};

/// Enlarges `image` by the model's factor along `plan`; `on_call` is told of every call of the
/// network (calls done, calls in all) and may stop the work with an error.
///
/// Tiles that come out infinite or undefined in half precision are computed again in single precision,
/// and where a GPU is full although the plan says otherwise, tiles are halved; both are reported.
pub fn upscale(
    upscaler: &Upscaler,
    image: &Image,
    plan: &Plan,
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<(Image, Report)> {
    upscale_watched(upscaler, image, plan, seed, on_call, None)
}

/// As [`upscale`]; `watch` sees the states of the walks of all tiles. An image that rolls through the network has none.
///
/// # Errors
/// Those of `upscale` and of `watch`.
pub fn upscale_watched(
    upscaler: &Upscaler,
    image: &Image,
    plan: &Plan,
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    watch: Option<&mut Watch<'_>>,
) -> Result<(Image, Report)> {
    let scale = upscaler.system().scale();
    let (width, height) = (image.width * scale, image.height * scale);
    let mut output = Image::new(width, 0, image.color, image.depth());
    output.metadata = image.metadata.clone();
    output.alpha = image.alpha.as_ref().map(|a| Samples::zeros(a.depth(), 0));
    output.samples.reserve(width * height * image.channels());
    let whole = Rect::whole(image.width, image.height);
    let sink = &mut |strip: Image| {
        output.append(&strip);
        Ok(())
    };
    let report = watched(upscaler, image, (plan, whole), seed, on_call, (sink, watch))?;
    Ok((output, report))
}

/// As [`upscale`], but the output goes to `sink` in strips of its whole width, from the top down,
/// without metadata. Its errors end the work.
///
/// # Errors
/// Those of `upscale` and of `sink`.
pub fn upscale_strips(
    upscaler: &Upscaler,
    image: &Image,
    plan: &Plan,
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    sink: &mut Sink<'_>,
) -> Result<Report> {
    let whole = Rect::whole(image.width, image.height);
    part_in_strips(upscaler, image, (plan, whole), seed, on_call, sink)
}

/// As [`upscale_strips`], of the part of the image that a plan for it needs.
pub(super) fn part_in_strips(
    upscaler: &Upscaler,
    image: &Image,
    (plan, part): (&Plan, Rect),
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    sink: &mut Sink<'_>,
) -> Result<Report> {
    watched(upscaler, image, (plan, part), seed, on_call, (sink, None))
}

/// The same; `watch` sees the states.
fn watched(
    upscaler: &Upscaler,
    image: &Image,
    (plan, part): (&Plan, Rect),
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    (sink, watch): (&mut Sink<'_>, Option<&mut Watch<'_>>),
) -> Result<Report> {
    let bled = alpha::bled(image);
    let image = bled.as_ref().unwrap_or(image);
    let mut bands = Bands::new(image, plan, upscaler.system(), part);
    let store = &mut |tile: &Tile, pixels: &[f32]| bands.add(tile, pixels, sink);
    if upscaler.systems().len() > 1 && plan.tiles.len() > 1 && watch.is_none() {
        return spread::run(upscaler, image, (plan, seed), on_call, store);
    }
    let mut work = Work::new((upscaler, upscaler.system()), image, plan, seed);
    upscaler.system().computing(|| work.run(on_call, store, watch))?;
    Ok(work.report)
}
