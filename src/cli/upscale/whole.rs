//! Outputs that are held as a whole on their way.
use super::work::Work;
use crate::cli::common;
use crate::engine::memory::in_words;
use crate::error::{Error, Report, Result};
use crate::imaging::encode::Outline;
use crate::imaging::{Image, Metadata};
use crate::upscale::bands::Sink;
use crate::upscale::budget::{self, Wanted};
use crate::upscale::color_fix::{self};
use crate::upscale::jobs::Job;
use crate::upscale::{self, Plan, Upscaler, alpha, tta};

impl Work<'_> {
    /// Enlarges `image`, holding all of the output, and hands it on in the size `to`.
    pub(super) fn whole(
        &self,
        (job, seed): (&Job, u64),
        upscaler: &Upscaler,
        image: &Image,
        plan: &Plan,
        output: &Outline,
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        put: &mut Sink<'_>,
    ) -> Result<upscale::Report> {
        let (args, scale) = (self.args, upscaler.system().scale());
        let needed = args.look.memory((image.width, image.height), scale, output);
        let free = common::available_memory();
        if needed > free {
            let what = format!("{} does not fit in memory", job.input.display());
            let (needed, free) = (in_words(needed), in_words(free));
            let cause = format!("the whole output is held, which takes {needed}; {free} are free");
            let help = "leave --tta and --color-fix out, or cut the picture into parts";
            return Err(Error::Memory(Report::new(what, cause).help(help)));
        }
        let (mut whole, report) = match args.look.tta {
            true => {
                let turned = self.turned(job, upscaler, image, output)?;
                let turned = Plan { damage: plan.damage, strict: plan.strict, ..turned };
                tta::enlarge(upscaler, image, [plan, &turned], seed, on_call)?
            }
            false => upscale::upscale(upscaler, image, plan, seed, on_call)?,
        };
        if let Some(fix) = args.look.color_fix.0 {
            let bled = alpha::bled(image);
            color_fix::fix(&mut whole, bled.as_ref().unwrap_or(image), scale, fix)?;
        }
        whole.metadata = Metadata::default();
        match budget::resampler(image, scale, (output.width, output.height))? {
            Some(mut resampler) => resampler.add(&whole, put)?,
            None => put(whole)?,
        }
        Ok(report)
    }

    /// The tiles of the transposed picture.
    fn turned(
        &self,
        job: &Job,
        upscaler: &Upscaler,
        image: &Image,
        output: &Outline,
    ) -> Result<Plan> {
        let args = self.args;
        let turned = Outline {
            width: output.height,
            height: output.width,
            metadata: Metadata::default(),
            ..*output
        };
        let wanted = Wanted {
            name: &job.input.display().to_string(),
            from: (image.height, image.width),
            picture: (image.width * image.height * image.bytes_per_pixel()) as u64,
            output: &turned,
            format: self.format(job)?,
            collected: 0,
        };
        let settings = args.settings(upscaler.memory_or(0)?);
        self.budget.plan(upscaler, &wanted, &settings)
    }
}
