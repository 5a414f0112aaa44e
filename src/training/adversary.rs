//! A second stage of training, against a discriminator D that learns to tell x0 from what the network
//! makes of it (Goodfellow et al. 2014; SRGAN, Ledig et al. 2017).
//!
//! ```text
//! network   loss + pixels * mean w |x0_hat - x0| + features * mean w (V(x0_hat) - V(x0))^2 + weight * G
//!
//!                 G                       the discriminator's own loss
//! hinge           -mean w D(x0_hat)       mean max(0, 1 - D(x0)) + mean max(0, 1 + D(x0_hat))
//! cross-entropy   -mean log s(D(x0_hat))  -mean log s(D(x0)) - mean log (1 - s(D(x0_hat)))
//! ```
//!
//! V are features of VGG19, s is the sigmoid, and w, for a network that predicts noise, alpha_bar_t: late
//! in the chain x0_hat is a large multiple of its error. Both take one step for a batch, with gradients
//! at the weights from before it.
use super::batch::Batch;
use super::clean::Clean;
use super::optimizer::{self, Gradients, Optimizer, Plan};
use super::plan;
use super::sections::{AdversarialConfig, Config, OptimConfig, Verdict, Weighting};
use crate::diffusion::process::{Chain, Prediction, Process, TimeInput};
use crate::diffusion::sampler::Space;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::models::discriminator::Discriminator;
use crate::models::vgg19::Vgg19;

/// The discriminator of a run, and what it is compared by.
pub(super) struct Adversary {
    config: AdversarialConfig,
    /// Of both networks once the stage has begun.
    optim: OptimConfig,
    pub(super) critic: Box<dyn Discriminator>,
    pub(super) optimizer: Optimizer,
    vgg: Option<Vgg19>,
    chain: Chain,
    prediction: Prediction,
    gradients: Gradients,
}

impl Adversary {
    /// The adversary that `config` asks for, at its start; none if it asks for none.
    ///
    /// # Errors
    /// If the file of VGG19 cannot be read, or a key does not fit the others.
    pub(super) fn open(config: &Config, warn: &mut dyn FnMut(&str)) -> Result<Option<Self>> {
        let Some(adversarial) = config.adversarial.clone() else { return Ok(None) };
        check(config, &adversarial)?;
        let vgg = match (&adversarial.vgg, adversarial.features > 0.0) {
            (Some(file), true) => Some(Vgg19::read(file)?),
            (None, true) => {
                warn(
                    "adversarial.vgg names no file of VGG19's weights: training goes on without its features",
                );
                None
            }
            (_, false) => None,
        };
        // A stream of its own: the network's weights are those of the seed itself.
        let critic = plan::build_critic(&adversarial.discriminator, config.run.seed ^ 1 << 63)?;
        let optimizer = Optimizer::new(critic.parameters())?;
        let optim = OptimConfig {
            lr: adversarial.lr,
            warmup: 0,
            schedule: adversarial.schedule,
            ..config.optim.clone()
        };
        let gradients = critic.parameters().iter().map(|_| None).collect();
        let (chain, prediction) = (config.diffusion.process.chain(), config.diffusion.prediction);
        let config = adversarial;
        Ok(Some(Self { config, optim, critic, optimizer, vgg, chain, prediction, gradients }))
    }

    /// Whether it takes part in the step after `step`.
    pub(super) const fn plays(&self, step: u64) -> bool {
        step >= self.config.after
    }

    /// How both networks are moved once the stage has begun: by an optimizer that starts with it.
    pub(super) fn plan<'a>(&'a self, config: &'a Config) -> Plan<'a> {
        plan(&self.optim, self.config.after, config)
    }

    /// What is added to the network's loss, and the images that it stands for, for the discriminator.
    pub(super) fn judge(
        &self,
        tape: &mut Tape,
        [predicted, state]: [&Var; 2],
        batch: &Batch,
    ) -> Result<(Var, Tensor)> {
        let x0 = tape.input(batch.crops.x0.try_clone()?);
        let clean = Clean { chain: &self.chain, prediction: self.prediction };
        let fake = clean.x0_hat(tape, [predicted, state], batch)?;
        let fake = if self.config.clamp { tape.clamp(&fake, -1.0, 1.0)? } else { fake };
        let weights = match self.config.weighting {
            Weighting::Signal => clean.weights(&batch.steps),
            Weighting::None => vec![1.0; batch.steps.len()],
        };
        let verdict = tape.frozen(|tape| self.critic.forward(tape, &fake))?;
        let mut total = match self.config.verdict {
            Verdict::Hinge => {
                let verdict = tape.scale_images(&verdict, weights.clone())?;
                let mean = tape.mean(&verdict)?;
                tape.scale(&mean, -self.config.weight)?
            }
            Verdict::CrossEntropy => {
                let doubt = tape.bce_with_logits(&verdict, 1.0)?;
                tape.scale(&doubt, self.config.weight)?
            }
        };
        if self.config.pixels > 0.0 {
            let error = tape.scaled_add(&fake, 1.0, &x0, -1.0)?;
            let error = tape.scale_images(&error, weights.clone())?;
            let zero = tape.input(Tensor::zeros_as(error.value(), error.shape())?);
            let mean = tape.l1_loss(&error, &zero)?;
            total = tape.scaled_add(&total, 1.0, &mean, self.config.pixels)?;
        }
        if let Some(vgg) = &self.vgg {
            // The roots of the weights are squared with the distances.
            let roots: Vec<f64> = weights.iter().map(|w| w.sqrt()).collect();
            let [seen, wanted] = [&fake, &x0].map(|image| {
                let features = vgg.forward(tape, image, self.config.layer)?;
                tape.scale_images(&features, roots.clone())
            });
            let distance = tape.mse_loss(&seen?, &wanted?)?;
            total = tape.scaled_add(&total, 1.0, &distance, self.config.features)?;
        }
        Ok((total, fake.value().try_clone()?))
    }

    /// The discriminator's loss on real images and `fake` ones; its gradients are added to those of the
    /// parts of the batch before.
    pub(super) fn learn(&mut self, real: &Tensor, fake: Tensor) -> Result<f64> {
        let mut tape = Tape::training();
        let (real, fake) = (tape.input(real.try_clone()?), tape.input(fake));
        let [real, fake] =
            [self.critic.forward(&mut tape, &real)?, self.critic.forward(&mut tape, &fake)?];
        let [of_real, of_fake] = match self.config.verdict {
            Verdict::Hinge => [hinge(&mut tape, &real, -1.0)?, hinge(&mut tape, &fake, 1.0)?],
            Verdict::CrossEntropy => {
                [tape.bce_with_logits(&real, 1.0)?, tape.bce_with_logits(&fake, 0.0)?]
            }
        };
        let loss = tape.add(&of_real, &of_fake)?;
        let value = loss.value().to_f64_vec()?[0];
        let one = Tensor::from_f64(&[1.0], &[1], loss.value().dtype());
        let mut grads = tape.backward(&loss, one)?;
        let more = optimizer::take(&mut grads, self.critic.parameters());
        optimizer::accumulate(&mut self.gradients, more)?;
        Ok(value)
    }

    /// Moves the discriminator, whose step becomes `step`, by the gradients gathered.
    pub(super) fn step(&mut self, step: u64, config: &Config) -> Result<()> {
        let gradients: Gradients = self.gradients.iter_mut().map(Option::take).collect();
        let plan = plan(&self.optim, self.config.after, config);
        self.optimizer.step = step - 1;
        let report = self.optimizer.step(self.critic.parameters(), &gradients, &plan)?;
        match report.norm.is_finite() {
            true => Ok(()),
            false => {
                let what = format!("the discriminator's gradients are not finite at step {step}");
                let report = Report::new(what, format!("their norm is {}", report.norm));
                Err(Error::Check(report.help("lower adversarial.lr, under another run.name")))
            }
        }
    }
}

/// What `optim` tells an optimizer that starts after step `since`.
const fn plan<'a>(optim: &'a OptimConfig, since: u64, config: &'a Config) -> Plan<'a> {
    Plan { optim, ema: &config.ema, steps: config.run.steps, since }
}

/// The mean of `max(0, 1 + sign * verdict)`.
fn hinge(tape: &mut Tape, verdict: &Var, sign: f64) -> Result<Var> {
    let margin = tape.affine(verdict, sign, 1.0)?;
    let excess = tape.relu(&margin)?;
    tape.mean(&excess)
}

/// Refuses what does not fit together; exit code 2.
fn check(config: &Config, adversarial: &AdversarialConfig) -> Result<()> {
    let weighted = config.diffusion.prediction == Prediction::Epsilon
        && adversarial.weighting == Weighting::Signal;
    let levels =
        matches!(config.diffusion.process, Process::Ddpm { time: TimeInput::NoiseLevel, .. });
    let rules = [
        (
            config.diffusion.space == Space::Pixel,
            "a discriminator judges images; diffusion.space is latent",
        ),
        (!levels, "x0_hat is computed at whole steps; diffusion.process.time is noise-level"),
        (adversarial.lr > 0.0 && adversarial.lr.is_finite(), "adversarial.lr must be above 0"),
        (
            !weighted || adversarial.verdict == Verdict::Hinge,
            "verdicts of cross-entropy cannot be weighted; adversarial.verdict = \"hinge\" can",
        ),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, cause)) => Err(Error::Usage(Report::new("wrong [adversarial]", cause))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sections::Schedule;
    use super::*;
    use crate::data::crops::CropBatch;
    use crate::diffusion::schedule::Betas;
    use crate::engine::parameter::Parameter;
    use crate::models::discriminator::DiscriminatorConfig;
    use crate::models::patch_discriminator::PatchDiscriminatorConfig;
    use crate::nn::{Conv2d, Init};

    /// Red plus a half.
    struct Red {
        conv: Conv2d,
        parameters: Vec<Parameter>,
    }

    impl Red {
        fn new() -> Self {
            let mut init = Init::new(0);
            let conv = Conv2d::same(&mut init, "red", 3, 1, 1);
            let parameters = init.finish();
            parameters[0].set(Tensor::from_vec(vec![1.0f32, 0.0, 0.0], &[1, 1, 1, 3]));
            parameters[1].set(Tensor::from_vec(vec![0.5f32], &[1]));
            Self { conv, parameters }
        }
    }

    impl Discriminator for Red {
        fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
            self.conv.forward(tape, x)
        }

        fn parameters(&self) -> &[Parameter] {
            &self.parameters
        }

        fn buffers(&self) -> &[Parameter] {
            &[]
        }
    }

    fn adversary(verdict: Verdict, process: &Process, prediction: Prediction) -> Adversary {
        let critic = Red::new();
        let config = AdversarialConfig {
            discriminator: DiscriminatorConfig::Patch(PatchDiscriminatorConfig { base: 4 }),
            after: 0,
            lr: 0.1,
            schedule: Schedule::Constant,
            verdict,
            weight: 0.5,
            pixels: 2.0,
            features: 0.0,
            layer: 35,
            vgg: None,
            weighting: Weighting::Signal,
            clamp: true,
        };
        Adversary {
            config,
            optim: OptimConfig::default(),
            optimizer: Optimizer::new(critic.parameters()).unwrap(),
            gradients: vec![None, None],
            critic: Box::new(critic),
            vgg: None,
            chain: process.chain(),
            prediction,
        }
    }

    /// Two images of one pixel: x0 is 0.6 and -0.4 in all colours, at the steps `t`.
    fn batch(t: [usize; 2]) -> Batch {
        let image = |a: f32, b: f32| Tensor::from_vec(vec![a, a, a, b, b, b], &[2, 1, 1, 3]);
        let (low, y0, x0) = (image(0.0, 0.0), image(0.1, 0.1), image(0.6, -0.4));
        let crops = CropBatch { low, y0, x0, damage: Vec::new() };
        Batch {
            crops,
            factors: Tensor::from_vec(vec![0.0f32; 6], &[2, 3]),
            times: Tensor::from_vec(vec![0.0f32; 2], &[2]),
            steps: t.to_vec(),
            own: vec![],
            told: None,
            number: 0,
            noised: None,
        }
    }

    /// The terms of the network, their gradient by what it predicts, and the images judged.
    fn judged(a: &Adversary, predicted: [f32; 2], state: [f32; 2], t: [usize; 2]) -> [Vec<f64>; 3] {
        let mut tape = Tape::training();
        let image = |[a, b]: [f32; 2]| Tensor::from_vec(vec![a, a, a, b, b, b], &[2, 1, 1, 3]);
        let predicted = tape.variable(image(predicted));
        let state = tape.input(image(state));
        let (total, fake) = a.judge(&mut tape, [&predicted, &state], &batch(t)).unwrap();
        let value = total.value().to_f64_vec().unwrap();
        let grads = tape.backward(&total, Tensor::from_vec(vec![1.0f32], &[1])).unwrap();
        let gradient = grads.of(&predicted).unwrap().to_f64_vec().unwrap();
        [value, gradient, fake.to_f64_vec().unwrap()]
    }

    fn near(got: f64, wanted: f64) {
        assert!((got - wanted).abs() < 1e-5, "{got} is not {wanted}");
    }

    #[test]
    fn hinge_pulls_the_network_up_and_the_discriminator_apart() {
        let mut a = adversary(Verdict::Hinge, &Process::Direct {}, Prediction::X0);
        let [value, gradient, fake] = judged(&a, [-0.2, 0.3], [0.0; 2], [1, 1]);
        // Verdicts 0.3 and 0.8; errors 0.8 and 0.7.
        near(value[0], 0.5 * -0.55 + 2.0 * 0.75);
        // Of the verdict by red -0.5 / 2, of the errors 2 sign / 6.
        near(gradient[0], -0.25 - 2.0 / 6.0);
        near(gradient[1], -2.0 / 6.0);
        near(gradient[3], -0.25 + 2.0 / 6.0);
        let fake = Tensor::from_f64(&fake, &[2, 1, 1, 3], crate::engine::device::DType::F32);
        // Real ones are at 1.1 and 0.1: 0 and 0.9 are missing; the others 1.3 and 1.8 too high.
        let loss = a.learn(&batch([1, 1]).crops.x0, fake).unwrap();
        near(loss, 0.45 + 1.55);
        let bias = a.gradients[1].as_ref().unwrap().to_f64_vec().unwrap();
        near(bias[0], -0.5 + 1.0);
    }

    #[test]
    fn cross_entropy_is_that_of_probabilities() {
        let mut a = adversary(Verdict::CrossEntropy, &Process::Direct {}, Prediction::X0);
        let [value, _, fake] = judged(&a, [-0.2, 0.3], [0.0; 2], [1, 1]);
        let log = |v: f64| (1.0 / (1.0 + (-v).exp())).ln();
        near(value[0], -0.5 * (log(0.3) + log(0.8)) / 2.0 + 2.0 * 0.75);
        let fake = Tensor::from_f64(&fake, &[2, 1, 1, 3], crate::engine::device::DType::F32);
        let loss = a.learn(&batch([1, 1]).crops.x0, fake).unwrap();
        near(loss, -(log(1.1) + log(0.1)) / 2.0 - (log(-0.3) + log(-0.8)) / 2.0);
    }

    #[test]
    fn predicted_noise_counts_by_alpha_bar_and_is_clamped() {
        let beta = Betas::Const { end: 0.5 };
        let process = Process::Ddpm { steps: 2, beta, time: TimeInput::Step };
        let a = adversary(Verdict::Hinge, &process, Prediction::Epsilon);
        // alpha_bar is 1/2 and 1/4: x0_hat = (x - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar).
        let [value, gradient, fake] = judged(&a, [0.1, -2.0], [0.3, 0.5], [1, 2]);
        let first = (0.3 - 0.5f64.sqrt() * 0.1) / 0.5f64.sqrt();
        near(fake[0], first);
        near(fake[3], 1.0);
        let verdict = (0.5 * (first + 0.5) + 0.25 * 1.5) / 2.0;
        near(value[0], -0.5 * verdict + 2.0 * (0.5 * (0.6 - first) + 0.25 * 1.4) / 2.0);
        near(gradient[3], 0.0);
        // Less predicted noise is a brighter image.
        assert!(gradient[0] > 0.0);
    }
}
