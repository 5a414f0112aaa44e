//! One picture after the other.
use super::arguments::Args;
use super::dry::Planned;
use super::options::{Alpha, Kept};
use super::report::{Outcome, Output, Summary};
use super::{choice, dry};
use crate::cli::common::{self, Stop};
use crate::cli::progress::Progress;
use crate::cli::voice;
use crate::diffusion::system::System;
use crate::engine::files::is_standard;
use crate::engine::pool;
use crate::error::{Error, Report, Result};
use crate::imaging::encode::{Format, Outline};
use crate::imaging::{self, Image, Metadata, Samples};
use crate::upscale::bands::Sink;
use crate::upscale::budget::{self, Budget, Wanted};
use crate::upscale::choice::Models;
use crate::upscale::jobs::Job;
use crate::upscale::pipeline::{Reader, Writer, Written};
use crate::upscale::wrap::{self, Continued, Wrap};
use crate::upscale::{self, Plan, Upscaler};
use std::path::Path;
use std::time::Instant;

/// The settings that made an output, for its stamp.
fn stamp(args: &Args, system: &System, seed: u64, steps: usize) -> String {
    let scale = args.sizes.factor().unwrap_or(system.scale() as f64);
    let settings = [
        ("model", system.label.clone()),
        ("scale", scale.to_string()),
        ("seed", seed.to_string()),
        ("steps", steps.to_string()),
    ];
    let more = [args.sizes.settings(system.scale()), args.look.settings()].concat();
    imaging::stamp::stamp(&[&settings[..], &args.sampling.settings(), &more].concat())
}

/// Refuses to write over a file that was not there when the work began.
fn refuse_newcomer(args: &Args, output: &Path) -> Result<()> {
    if args.naming.overwrite || is_standard(output) || !output.is_file() {
        return Ok(());
    }
    let what = format!("{} was not written", output.display());
    let report = Report::new(what, "a file of that name appeared while the picture was enlarged");
    Err(Error::Failed(report.help("--overwrite replaces it")))
}

fn note_of_overlap(upscaler: &Upscaler, plan: &Plan) -> Option<String> {
    let reach = upscaler.system().network.geometry().receptive_field?;
    let (count, halo) = (plan.tiles.len(), plan.halo);
    (plan.blended && count > 1).then(|| {
        format!(
            "note: the network sees {reach} pixels each way, its {count} tiles share {halo} and are blended; \
             -t none is exact and takes more memory"
        )
    })
}

/// What all pictures of a run share.
pub(super) struct Work<'a> {
    pub(super) args: &'a Args,
    pub(super) models: &'a Models,
    pub(super) budget: Budget,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) stop: &'a Stop,
    /// Whether nothing else takes pictures at the same time, so that there is room for a bar.
    pub(super) alone: bool,
}

impl Work<'_> {
    /// Takes a picture through the network; its file may still be written then.
    ///
    /// # Errors
    /// If the work is to stop.
    pub(super) fn begin(&self, job: &Job, out: &Output) -> Result<Outcome> {
        if job.skip {
            return Ok(Outcome::Skipped);
        }
        match self.upscale(job, out) {
            Ok((summary, written)) => Ok(Outcome::Written(Box::new(summary), written)),
            Err(error @ Error::Interrupted { .. }) => Err(error),
            Err(error) => Ok(Outcome::Failed(error)),
        }
    }

    fn upscale(&self, job: &Job, out: &Output) -> Result<(Summary, Written)> {
        common::check(self.stop)?;
        let (args, started) = (self.args, Instant::now());
        // A picture that was not decoded ahead is not small: nothing is done before it is known to fit.
        let mut image = self.reader.next(&job.input, &|file, header| {
            self.budget.check_decoding(&job.input.display().to_string(), file, header)?;
            let size = (header.width, header.height);
            self.plan(job, self.models.any(), self.format(job)?, size, header.outline()).map(drop)
        })?;
        let format = self.format(job)?;
        image = args.encoding.deepened(image);
        image = match args.alpha {
            Alpha::Keep => image,
            Alpha::Drop => Image { alpha: None, ..image },
            Alpha::Flatten(color) => upscale::alpha::flattened(image, color),
        };
        let findings = self.models.findings(&image)?;
        let upscaler = self.models.of(&findings, args.denoise);
        let system = upscaler.system();
        if self.models.looks() {
            let (name, model) = (job.input.display(), &system.name);
            out.say(&format!("{name}: {findings}; enlarged by {model}"));
        }
        let unkept = std::mem::take(&mut image.metadata.unkept);
        image.metadata = args.kept(std::mem::take(&mut image.metadata));
        let (mut plan, mut output, advice) =
            self.plan(job, upscaler, format, (image.width, image.height), Outline::of(&image))?;
        plan.damage = upscale::choice::told(system, &findings, args.denoise);
        plan.strict = args.no_fallback;
        let seed = args.seed.number.wrapping_add(job.sample);
        output.metadata.stamp = args.stamps().then(|| stamp(args, system, seed, plan.steps));
        refuse_newcomer(args, &job.output)?;
        let sizes = [(image.width, image.height), (output.width, output.height)];
        let mut notes = dry::notes(args, upscaler, sizes);
        notes.extend(args.encoding.without_effect(format));
        if args.metadata == Kept::Keep {
            notes.extend(unkept.iter().map(|what| format!("the {what} of the input is not kept")));
        }
        if let Some(folder) = job.output.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| {
                Error::Failed(Report::new(format!("cannot create {}", folder.display()), e))
            })?;
        }
        if let Some(note) = note_of_overlap(upscaler, &plan) {
            out.say(&note);
        }
        if let Some(advice) = advice {
            out.say(&format!("warning: {}: {advice}", job.input.display()));
        }
        dry::crawling(args, &plan).iter().for_each(|text| out.warn(text));
        voice::detail(format_args!("{}: {}", job.input.display(), dry::detail(&plan)));
        pool::budget(Budget::for_tiles(&plan));
        let bar = if self.alone { out.progress(&job.input, &plan) } else { Progress::Hidden };
        let writing =
            self.writer.begin(&job.output, output.clone(), format, args.encoding.options())?;
        let mut on_call = |done: usize, all: usize| {
            bar.at(done as u64, all as u64);
            common::check(self.stop)
        };
        let put = &mut |strip: Image| {
            common::check(self.stop)?;
            writing.put(strip.to_depth(output.depth))
        };
        let to = (output.width, output.height);
        let done = match args.wrap == Wrap::default() {
            true if args.look.needs_whole() => {
                self.whole((job, seed), upscaler, &image, &plan, &output, &mut on_call, put)
            }
            true => self.strips(upscaler, &image, (&plan, seed), to, &mut on_call, put),
            false => self.texture(upscaler, &image, (&plan, seed), to, &mut on_call, put),
        };
        bar.finish();
        let report = match done {
            Ok(report) => report,
            Err(error) => {
                writing.abandon();
                return Err(error);
            }
        };
        let summary = Summary {
            from: (image.width, image.height),
            output,
            format,
            tiles: plan.tiles.len(),
            memory: plan.memory,
            seed,
            steps: plan.steps,
            started,
            report,
            notes,
            model: [system.name.clone(), system.label.clone()],
            damage: self
                .models
                .looks()
                .then(|| choice::json(&findings, &plan.damage, args.denoise)),
        };
        Ok((summary, writing.end()))
    }

    fn strips(
        &self,
        upscaler: &Upscaler,
        image: &Image,
        (plan, seed): (&Plan, u64),
        to: (usize, usize),
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        put: &mut Sink<'_>,
    ) -> Result<upscale::Report> {
        let mut resampler = budget::resampler(image, upscaler.system().scale(), to)?;
        upscale::upscale_strips(upscaler, image, plan, seed, on_call, &mut |strip| {
            match &mut resampler {
                Some(resampler) => resampler.add(&strip, put),
                None => put(strip),
            }
        })
    }

    /// A texture goes on in strips, too, unless it is resampled: that begins with rows from its other end.
    fn texture(
        &self,
        upscaler: &Upscaler,
        image: &Image,
        (plan, seed): (&Plan, u64),
        to: (usize, usize),
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        put: &mut Sink<'_>,
    ) -> Result<upscale::Report> {
        let (args, size) = (self.args, (image.width, image.height));
        let steps = args.steps.map(|n| n as usize);
        let scale = upscaler.system().scale();
        let way = Continued::new(upscaler, size, args.wrap, steps);
        if (size.0 * scale, size.1 * scale) == to {
            return way.upscale_strips(upscaler, image, plan, seed, on_call, put);
        }
        let mut whole = Image::new(size.0 * scale, 0, image.color, image.depth());
        whole.alpha = image.alpha.as_ref().map(|a| Samples::zeros(a.depth(), 0));
        let collect = &mut |strip: Image| {
            whole.append(&strip);
            Ok(())
        };
        let report = way.upscale_strips(upscaler, image, plan, seed, on_call, collect)?;
        put(wrap::resize(&whole, args.wrap, to.0, to.1)?)?;
        Ok(report)
    }

    /// The format of a job's output; of a pipe, once the input was read.
    pub(super) fn format(&self, job: &Job) -> Result<Format> {
        let kept = || imaging::decode::kind(&job.input).unwrap_or(Format::Png);
        Ok(job.format.unwrap_or_else(kept))
    }

    /// What would be done for a job.
    pub(super) fn planned(&self, job: &Job) -> Result<Planned> {
        common::check(self.stop)?;
        let header = dry::header(job, &self.budget)?;
        let (from, format) = ((header.width, header.height), self.format(job)?);
        let (plan, output, _) =
            self.plan(job, self.models.any(), format, from, header.outline())?;
        Ok(Planned { from, output, plan, format })
    }

    /// The tiles and the output of a picture of `size` (width, height) like `like`, if all that fits, and what to say
    /// of the tiles.
    fn plan(
        &self,
        job: &Job,
        upscaler: &Upscaler,
        format: Format,
        size: (usize, usize),
        like: Outline,
    ) -> Result<(Plan, Outline, Option<String>)> {
        let (args, system) = (self.args, upscaler.system());
        let (input, name) = (job.input.display().to_string(), job.output.display().to_string());
        let depth = args.encoding.working_depth(like.depth);
        let pixel =
            Outline { depth, metadata: Metadata::default(), ..like }.bytes_per_pixel() as u64;
        let output = args.outline(system, size, like);
        imaging::check_output(
            &name,
            format,
            output.width,
            output.height,
            output.bytes_per_pixel(),
        )?;
        refuse_lost_alpha(&output, format, &name)?;
        imaging::encode::check_color(&name, output.color, format)?;
        let picture = (size.0 * size.1) as u64 * pixel;
        let steps = args.steps.map(|n| n as usize);
        let from = Continued::new(upscaler, size, args.wrap, steps).size();
        let pixels = |(width, height): (usize, usize)| width as u64 * height as u64;
        let wrapped = args.wrap != Wrap::default();
        // The continued picture beside the picture itself.
        let picture = picture + if wrapped { pixels(from) * pixel } else { 0 };
        let large = (size.0 * system.scale(), size.1 * system.scale());
        let resampled = large != (output.width, output.height);
        // It, and it continued, and what becomes of it.
        let collected = match wrapped && resampled {
            true => 2 * pixels(large) * pixel + pixels((output.width, output.height)) * pixel,
            false => 0,
        };
        let wanted = Wanted { name: &input, from, picture, output: &output, format, collected };
        let settings = args.settings(upscaler.memory_or(0)?);
        let plan = self.budget.plan(upscaler, &wanted, &settings)?;
        let advice = self.budget.advice(upscaler, &wanted, &settings, &plan);
        Ok((plan, output, advice))
    }
}

fn refuse_lost_alpha(output: &Outline, format: Format, name: &str) -> Result<()> {
    if !output.alpha || format.has_alpha() {
        return Ok(());
    }
    let cause = format!("{} cannot hold transparency", format.name());
    let report = Report::new(format!("cannot write {name}"), cause);
    let report = report.code("alpha");
    Err(Error::Failed(report.help("write a .png, leave transparency out with --alpha drop, or lay the picture over white with --alpha flatten")))
}
