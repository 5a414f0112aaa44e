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
use super::clean::{self, ROOTS, WEIGHTS};
use super::game::Game;
use super::names::X0;
use crate::diffusion::process::{Prediction, Process, TimeInput};
use crate::diffusion::sampler::Space;
use crate::engine::device::{DType, Device};
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::models::Module;
use crate::models::discriminator::Discriminator;
use crate::models::vgg19::Vgg19;
use crate::training::batch::Batch;
use crate::training::checkpoint::Part;
use crate::training::optimizer::{Gradients, Plan};
use crate::training::plan;
use crate::training::sections::{AdversarialConfig, Config, OptimConfig, Verdict, Weighting};
use crate::training::stepper::{Move, Pass};

/// The discriminator of a run, and what it is compared by.
pub(super) struct Adversary {
    config: AdversarialConfig,
    /// Of both networks once the stage has begun.
    optim: OptimConfig,
    critic: Box<dyn Discriminator>,
    vgg: Option<Vgg19>,
}

/// Its number among the parts.
const CRITIC: usize = 1;

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
        let optim = OptimConfig {
            lr: adversarial.lr,
            warmup: 0,
            schedule: adversarial.schedule,
            ..config.optim.clone()
        };
        Ok(Some(Self { config: adversarial, optim, critic, vgg }))
    }

    /// The discriminator.
    pub(super) fn part(&self) -> Part<'_> {
        Part { aside: true, ..Part::of(&*self.critic) }
    }

    /// Moves the features of VGG19 to where they are used.
    pub(super) fn settle(&self, device: &Device, dtype: DType) -> Result<()> {
        self.vgg.iter().try_for_each(|vgg| vgg.to_device(device, dtype))
    }

    /// The step after which it takes part.
    pub(super) const fn after(&self) -> u64 {
        self.config.after
    }

    /// Whether it takes part in the step after `step`.
    pub(super) const fn plays(&self, step: u64) -> bool {
        step >= self.config.after
    }

    /// How both networks are moved once the stage has begun: by an optimizer that starts with it.
    pub(super) fn plan<'a>(&'a self, config: &'a Config) -> Plan<'a> {
        plan(&self.optim, self.config.after, config)
    }

    /// How the discriminator is moved.
    pub(super) fn its_move<'a>(&'a self, config: &'a Config) -> Move<'a> {
        Move { part: CRITIC, plan: self.plan(config) }
    }

    /// How verdicts become losses.
    const fn game(&self) -> Game {
        match self.config.verdict {
            Verdict::Hinge => Game::Hinge,
            Verdict::CrossEntropy => Game::CrossEntropy,
        }
    }

    /// What is added to the network's loss, and the images that it stands for, for the discriminator.
    pub(super) fn judge(
        &self,
        pass: &Pass<'_>,
        tape: &mut Tape,
        [predicted, state]: [&Var; 2],
        batch: &Batch,
    ) -> Result<(Var, Tensor)> {
        let x0 = tape.input(batch.get(X0)?.try_clone()?);
        let fake = clean::x0_hat(tape, [predicted, state], batch)?;
        let fake = if self.config.clamp { tape.clamp(&fake, -1.0, 1.0)? } else { fake };
        let weights = match self.config.weighting {
            Weighting::Signal => Some((batch.get(WEIGHTS)?, batch.get(ROOTS)?)),
            Weighting::None => None,
        };
        let weighted = |tape: &mut Tape, x: Var| match weights {
            Some((weights, _)) => tape.scale_images_by(&x, weights),
            None => Ok(x),
        };
        let verdict = tape.frozen(|tape| self.verdict(pass, tape, &fake))?;
        let verdict = match self.config.verdict {
            Verdict::Hinge => weighted(tape, verdict)?,
            Verdict::CrossEntropy => verdict,
        };
        let of_verdict = self.game().of_generator(tape, &verdict)?;
        let mut total = tape.scale(&of_verdict, self.config.weight)?;
        if self.config.pixels > 0.0 {
            let error = tape.scaled_add(&fake, 1.0, &x0, -1.0)?;
            let error = weighted(tape, error)?;
            let zero = tape.input(Tensor::zeros_as(error.value(), error.shape())?);
            let mean = tape.l1_loss(&error, &zero)?;
            total = tape.scaled_add(&total, 1.0, &mean, self.config.pixels)?;
        }
        if let Some(vgg) = &self.vgg {
            let [seen, wanted] = [&fake, &x0].map(|image| {
                let image = pass.narrow(tape, image)?;
                let features = vgg.forward(tape, &image, self.config.layer)?;
                let features = pass.wide(tape, &features)?;
                match weights {
                    // The roots of the weights are squared with the distances.
                    Some((_, roots)) => tape.scale_images_by(&features, roots),
                    None => Ok(features),
                }
            });
            let distance = tape.mse_loss(&seen?, &wanted?)?;
            total = tape.scaled_add(&total, 1.0, &distance, self.config.features)?;
        }
        Ok((total, fake.value().try_clone()?))
    }

    /// What the discriminator says of `images`, in single precision.
    fn verdict(&self, pass: &Pass<'_>, tape: &mut Tape, images: &Var) -> Result<Var> {
        let images = pass.narrow(tape, images)?;
        let verdict = self.critic.forward(tape, &images)?;
        pass.wide(tape, &verdict)
    }

    /// The discriminator's loss on real images and `fake` ones, and its gradients.
    pub(super) fn learn(
        &self,
        pass: &Pass<'_>,
        real: &Tensor,
        fake: Tensor,
    ) -> Result<(Tensor, (usize, Gradients))> {
        let mut tape = Tape::training();
        let (real, fake) = (tape.input(real.try_clone()?), tape.input(fake));
        let real = self.verdict(pass, &mut tape, &real)?;
        let fake = self.verdict(pass, &mut tape, &fake)?;
        let [of_real, of_fake] = self.game().of_judge(&mut tape, [&real, &fake])?;
        let loss = tape.add(&of_real, &of_fake)?;
        let value = loss.value().try_clone()?;
        Ok((value, pass.gradients(tape, &loss, CRITIC)?))
    }
}

/// What `optim` tells an optimizer that starts after step `since`.
const fn plan<'a>(optim: &'a OptimConfig, since: u64, config: &'a Config) -> Plan<'a> {
    Plan { optim, ema: &config.ema, steps: config.run.steps, since }
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
    use super::super::clean::Clean;
    use super::super::names::Y0;
    use super::*;
    use crate::diffusion::process::Chain;
    use crate::diffusion::schedule::Betas;
    use crate::engine::parameter::Parameter;
    use crate::models::discriminator::DiscriminatorConfig;
    use crate::models::patch_discriminator::PatchDiscriminatorConfig;
    use crate::nn::{Conv2d, Init};
    use crate::training::sections::Schedule;
    use crate::training::stepper::pass_of;

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

    impl Module for Red {
        fn parameters(&self) -> &[Parameter] {
            &self.parameters
        }
    }

    impl Discriminator for Red {
        fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
            self.conv.forward(tape, x)
        }
    }

    /// An adversary, and the chain and prediction of the network that it judges.
    struct Judged {
        adversary: Adversary,
        chain: Chain,
        prediction: Prediction,
    }

    fn adversary(verdict: Verdict, process: &Process, prediction: Prediction) -> Judged {
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
        let optim = OptimConfig::default();
        let adversary = Adversary { config, optim, critic: Box::new(critic), vgg: None };
        Judged { adversary, chain: process.chain(), prediction }
    }

    /// Two images of one pixel: x0 is 0.6 and -0.4 in all colours, at the steps `t`.
    fn batch(of: &Judged, t: [usize; 2]) -> Batch {
        let image = |a: f32, b: f32| Tensor::from_vec(vec![a, a, a, b, b, b], &[2, 1, 1, 3]);
        let clean = Clean { chain: &of.chain, prediction: of.prediction };
        let batch = Batch::new(0, 2, 0).with(Y0, image(0.1, 0.1)).with(X0, image(0.6, -0.4));
        clean.tell(batch, &t)
    }

    /// What the discriminator learns of `fake`: its loss, and the gradient of its bias.
    fn learned(of: &Judged, fake: &[f64]) -> [f64; 2] {
        let fake = Tensor::from_f64(fake, &[2, 1, 1, 3], DType::F32);
        let parts = [vec![], of.adversary.critic.parameters().to_vec()];
        let real = batch(of, [1, 1]);
        let learn = |pass: &Pass<'_>| of.adversary.learn(pass, real.get(X0).unwrap(), fake);
        let (loss, (part, gradients)) = pass_of(&parts, learn).unwrap();
        assert_eq!(part, CRITIC);
        let bias = gradients[1].as_ref().unwrap().to_f64_vec().unwrap();
        [loss.to_f64_vec().unwrap()[0], bias[0]]
    }

    /// The terms of the network, their gradient by what it predicts, and the images judged.
    fn judged(a: &Judged, predicted: [f32; 2], state: [f32; 2], t: [usize; 2]) -> [Vec<f64>; 3] {
        let mut tape = Tape::training();
        let image = |[a, b]: [f32; 2]| Tensor::from_vec(vec![a, a, a, b, b, b], &[2, 1, 1, 3]);
        let predicted = tape.variable(image(predicted));
        let state = tape.input(image(state));
        let given = batch(a, t);
        let judge =
            |pass: &Pass<'_>| a.adversary.judge(pass, &mut tape, [&predicted, &state], &given);
        let (total, fake) = pass_of(&[], judge).unwrap();
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
        let a = adversary(Verdict::Hinge, &Process::Direct {}, Prediction::X0);
        let [value, gradient, fake] = judged(&a, [-0.2, 0.3], [0.0; 2], [1, 1]);
        // Verdicts 0.3 and 0.8; errors 0.8 and 0.7.
        near(value[0], 0.5 * -0.55 + 2.0 * 0.75);
        // Of the verdict by red -0.5 / 2, of the errors 2 sign / 6.
        near(gradient[0], -0.25 - 2.0 / 6.0);
        near(gradient[1], -2.0 / 6.0);
        near(gradient[3], -0.25 + 2.0 / 6.0);
        // Real ones are at 1.1 and 0.1: 0 and 0.9 are missing; the others 1.3 and 1.8 too high.
        let [loss, bias] = learned(&a, &fake);
        near(loss, 0.45 + 1.55);
        near(bias, -0.5 + 1.0);
    }

    #[test]
    fn cross_entropy_is_that_of_probabilities() {
        let a = adversary(Verdict::CrossEntropy, &Process::Direct {}, Prediction::X0);
        let [value, _, fake] = judged(&a, [-0.2, 0.3], [0.0; 2], [1, 1]);
        let log = |v: f64| (1.0 / (1.0 + (-v).exp())).ln();
        near(value[0], -0.5 * (log(0.3) + log(0.8)) / 2.0 + 2.0 * 0.75);
        let [loss, _] = learned(&a, &fake);
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
