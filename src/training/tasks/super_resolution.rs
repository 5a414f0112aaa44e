//! Networks for super-resolution: states made of crops, a loss of what the network predicts, and whole images for
//! validation.
use std::path::Path;

use serde_json::Value;

use super::adversarial::Adversary;
use super::crops::{Asked, Source, noise, origins, target_factors};
use super::loss;
use super::names::{FACTORS, FIRST_CALL, LOW, OWN, TAUGHT, TIMES, TOLD_OF_DAMAGE, X0, Y0};
use super::own::Estimates;
use super::perceptual::Perceptual;
use crate::data::crops::Crops;
use crate::diffusion::latent;
use crate::diffusion::system;
use crate::diffusion::walk::condition;
use crate::engine::device::{DType, Device};
use crate::engine::interrupt::Stop;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::models::Network;
use crate::ops::q_sample::q_sample;
use crate::training::batch::Batch;
use crate::training::checkpoint::Part;
use crate::training::log::{Metrics, Reporter, due, grouped};
use crate::training::optimizer::Plan;
use crate::training::ranks::{Ranks, Unit};
use crate::training::sections::Config;
use crate::training::stepper::{Learned, Move, Pass, Stepper};
use crate::training::task::{Taken, Task, Words};
use crate::training::validate::{self, Validations};

/// See the [module](self).
pub(in crate::training) struct SuperResolution {
    config: Config,
    network: Box<dyn Network>,
    adversary: Option<Adversary>,
    perceptual: Option<Perceptual>,
    estimates: Estimates,
    validation: Option<Validations>,
}

/// What the losses are called, and the gradients of the parts.
const WORDS: Words = Words {
    numbers: &["loss", "critic_loss"],
    gradients: &["the norm of the gradients", "the norm of the discriminator's gradients"],
};

impl SuperResolution {
    /// Trains `network` as `config` says.
    ///
    /// # Errors
    /// If what losses need is missing or does not fit.
    pub(in crate::training) fn new(
        config: &Config,
        network: Box<dyn Network>,
        validation: Option<Validations>,
        reporter: &mut dyn Reporter,
    ) -> Result<Self> {
        let adversary = Adversary::open(config, &mut |text| reporter.warn(text))?;
        let perceptual = Perceptual::open(config)?;
        let estimates = Estimates::default();
        Ok(Self { config: config.clone(), network, adversary, perceptual, estimates, validation })
    }

    /// What makes its batches of `crops`.
    pub(in crate::training) fn source(
        &self,
        crops: Crops,
    ) -> impl Fn(&Unit) -> Result<Batch> + Send + use<> {
        let parts = self.config.optim.accumulate;
        let asked = Asked {
            cleans: self.adversary.is_some() || self.perceptual.is_some(),
            looks: self.perceptual.as_ref().map(Perceptual::looks),
            judged: self.adversary.as_ref().map_or(u64::MAX, |a| a.after().saturating_mul(parts)),
        };
        let source = Source::new(crops, &self.config, &*self.network, &asked);
        move |unit| source.batch(unit)
    }

    /// What one batch says, of the discriminator, too, where it takes part.
    fn learn(
        &self,
        pass: &Pass<'_>,
        batch: &Batch,
        adversary: Option<&Adversary>,
    ) -> Result<Learned> {
        let network = &*self.network;
        let first_stage = network.first_stage().map(|vq| &**vq);
        let [x0, y0] = [X0, Y0].map(|name| latent::encode(first_stage, batch.get(name)?));
        let (x0, y0) = (x0?, y0?);
        let mut tape = loss::tape(&self.config.optim);
        let told = batch.find(TOLD_OF_DAMAGE);
        let condition = tape.input(condition(network, batch.get(LOW)?, &y0, told)?);
        let [state, target] = self.noised(&x0, &y0, batch)?;
        let (state, target) = (tape.input(state), tape.input(target));
        let predicted = self.predict(pass, &mut tape, [&state, &condition], batch)?;
        let mut loss = loss::loss(&mut tape, &self.config.loss, &predicted, &target)?;
        if let Some(perceptual) = &self.perceptual {
            let more = perceptual.loss(&mut tape, [&predicted, &state], batch)?;
            loss = tape.add(&loss, &more)?;
        }
        let (mut numbers, mut gradients) = (Vec::new(), Vec::new());
        if let Some(adversary) = adversary {
            let (more, fake) = adversary.judge(pass, &mut tape, [&predicted, &state], batch)?;
            loss = tape.add(&loss, &more)?;
            let (of_critic, by_critic) = adversary.learn(pass, batch.get(X0)?, fake)?;
            numbers.push(of_critic);
            gradients.push(by_critic);
        }
        numbers.insert(0, loss.value().try_clone()?);
        gradients.push(pass.gradients(tape, &loss, 0)?);
        Ok(Learned { numbers, gradients })
    }

    /// The state that the network is shown and what it should predict.
    fn noised(&self, x0: &Tensor, y0: &Tensor, batch: &Batch) -> Result<[Tensor; 2]> {
        let (mut state, mut target) =
            (Tensor::empty_as(x0, x0.shape())?, Tensor::empty_as(x0, x0.shape())?);
        let of = target_factors(self.config.diffusion.prediction);
        let origins = origins(batch, x0)?;
        let noise = noise(self.config.run.seed, batch, origins.as_ref())?;
        q_sample(batch.get(FACTORS)?, [x0, y0], &noise, &mut state, Some((&mut target, of)))?;
        if let Some(taught) = batch.find(TAUGHT) {
            let first_stage = self.network.first_stage().map(|vq| &**vq);
            let taught = latent::encode(first_stage, taught)?;
            let mut unused = Tensor::empty_as(x0, x0.shape())?;
            let factors = batch.get(FACTORS)?;
            q_sample(factors, [&taught, y0], &noise, &mut unused, Some((&mut target, of)))?;
        }
        match batch.find(OWN) {
            Some(_) => Ok([self.estimates.state(&*self.network, &self.config, batch)?, target]),
            None => Ok([state, target]),
        }
    }

    /// What the network predicts, in single precision.
    fn predict(
        &self,
        pass: &Pass<'_>,
        tape: &mut Tape,
        [state, condition]: [&Var; 2],
        batch: &Batch,
    ) -> Result<Var> {
        let (state, times) = (pass.narrow(tape, state)?, batch.get(TIMES)?);
        let predicted = match batch.way & FIRST_CALL != 0 {
            true => self.network.forward_first(tape, &state, condition, times)?,
            false => self.network.forward(tape, &state, condition, times)?,
        };
        pass.wide(tape, &predicted)
    }
}

impl Task for SuperResolution {
    fn parts(&self) -> Vec<Part<'_>> {
        let mut parts = vec![Part::of(&*self.network)];
        parts.extend(self.adversary.as_ref().map(Adversary::part));
        parts
    }

    fn batches(&self) -> u64 {
        self.config.optim.accumulate
    }

    fn together(&self) -> u64 {
        self.config.optim.accumulate
    }

    fn complete(&self) -> Result<()> {
        match (&self.config.run.frozen, self.network.frozen_part()) {
            (Some(path), _) => {
                self.network.load_frozen(&system::read(path)?, &path.display().to_string())
            }
            (None, None) => Ok(()),
            (None, Some(part)) => {
                let cause = format!("its {part} is not trained here and needs weights of its own");
                let report = Report::new("the network is not complete", cause);
                let help = "--set run.frozen=FILE    names them, or the run that made them";
                Err(Error::Usage(report.help(help)))
            }
        }
    }

    fn settle(&self, device: &Device, dtype: DType) -> Result<()> {
        self.adversary.iter().try_for_each(|adversary| adversary.settle(device, dtype))?;
        self.perceptual.iter().try_for_each(|perceptual| perceptual.settle(device))
    }

    fn step(&self, on: &mut dyn Stepper, step: u64, batches: &[Batch]) -> Result<Taken> {
        let adversary = self.adversary.as_ref().filter(|a| a.plays(step - 1));
        let plan = adversary.map_or_else(|| Plan::of(&self.config), |a| a.plan(&self.config));
        let mut moves = vec![Move { part: 0, plan }];
        moves.extend(adversary.map(|a| a.its_move(&self.config)));
        let learn = &mut |pass: &Pass<'_>, batch: &Batch| self.learn(pass, batch, adversary);
        Ok(Taken::of(on.descend(&moves, batches, learn)?, WORDS))
    }

    fn shows(&self, step: u64, ends: bool, (_, metrics): (&Path, &Metrics)) -> bool {
        let belongs = ends || due(step, self.config.val.every);
        let has = |sets: &Validations| metrics.has(step, &sets.key());
        belongs && self.validation.as_ref().is_some_and(|sets| !has(sets))
    }

    fn show(
        &self,
        on: &dyn Stepper,
        step: u64,
        folder: &Path,
        (ranks, stop): (&Ranks, &Stop),
        reporter: &mut dyn Reporter,
    ) -> Result<Option<Vec<(String, Value)>>> {
        let Some(validation) = &self.validation else { return Ok(None) };
        let folder = folder.join("val").join(step.to_string());
        let mut scores = None;
        on.averaged(&mut || {
            scores = validation.measure(&*self.network, &self.config, &folder, (ranks, stop))?;
            Ok(())
        })?;
        let Some(scores) = scores else { return Ok(None) };
        let mut values = Vec::new();
        for (name, scores) in &scores {
            let title = if name.is_empty() { String::new() } else { format!("{name}: ") };
            reporter.line(&format!("step {}  {title}{scores}", grouped(step)));
            let plain = |(key, v): &(&'static str, Value)| {
                (key.strip_prefix("val_").unwrap_or(key), v.clone())
            };
            let mut told: Vec<(&str, Value)> = vec![("step", step.into())];
            told.extend(scores.values().iter().map(plain));
            if !name.is_empty() {
                told.push(("set", name.as_str().into()));
            }
            reporter.record("validation", &told);
            let named = |(key, value): (&str, Value)| (validate::key(name, key), value);
            values.extend(scores.values().into_iter().map(named));
        }
        Ok(Some(values))
    }
}
