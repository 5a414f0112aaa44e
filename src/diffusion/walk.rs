//! The walk back through a chain: from noise to an image, call by call.
use std::sync::Arc;

use super::pixel_noise::PixelNoise;
use super::sampler::{Diffusion, factors, respaced, start};
use crate::engine::device::{DType, Device, Real};
use crate::engine::recording::{Recording, places};
use crate::engine::tape::Tape;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::Network;
use crate::ops::noise::Noise;
use crate::ops::q_sample::q_sample;
use crate::ops::sampler_step::{StepFactors, sampler_step};

/// Where a walk is, told after each call of the network.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Calls done.
    pub done: usize,
    /// Calls in all.
    pub calls: usize,
    /// The predicted clean image of this call, `[N, H, W, C]`.
    pub x0_hat: &'a Tensor,
    /// The state that the call led to, `[N, H, W, C]`.
    pub state: &'a Tensor,
    /// Its step s of the chain: 0 for the clean image.
    pub at: usize,
}

/// A way back through a chain, with everything that depends on neither the network nor the images, on one device.
pub struct Course {
    steps: Vec<WalkStep>,
    /// The step that a GPU takes now.
    now: Option<WalkStep>,
    /// Of x0, y0 and noise in the state at T, `[N, 3]`.
    start: Tensor,
    /// The same in the first input of the network, where it is not the state.
    first_input: Option<Tensor>,
    /// Whether some input of the network is not the state.
    scaled: bool,
    /// Whether it is one call from the low resolution to the image.
    direct: bool,
}

/// A course of `network`.
///
/// On a GPU one call is recorded and replayed for all others of its kind: what differs between them, t and the factors
/// of the step, lies where the recording reads it.
pub struct Walk<'a> {
    network: &'a dyn Network,
    course: Course,
    /// First calls and later ones.
    recordings: [Recording; 2],
}

#[derive(Debug)]
struct WalkStep {
    /// What the network is told about t, `[N]`.
    time: Tensor,
    /// The s that the step leads to.
    to: usize,
    factors: StepFactors,
}

/// The state, and the input of the network where it is another tensor.
struct State {
    x: Arc<Tensor>,
    input: Option<Arc<Tensor>>,
}

/// What a walk goes on, beside the state.
#[derive(Clone, Copy)]
struct Ground<'a> {
    condition: &'a Arc<Tensor>,
    y0: &'a Tensor,
    noise: &'a Noise<'a>,
}

impl Course {
    /// A course for `images` images with `steps` calls, at most T.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn new(
        diffusion: &Diffusion,
        images: usize,
        steps: usize,
        device: &Device,
    ) -> Result<Self> {
        let chain = diffusion.process.chain();
        let t = respaced(chain.steps(), steps);
        let start = start(diffusion, &chain);
        let of_images = |scale: f64| {
            let row = [start.x0, start.y0, start.noise].map(|v| f32::from_f64(v * scale));
            Tensor::from_slice_on(device, &row.repeat(images), &[images, 3])
        };
        let step = |(k, &at): (usize, &usize)| {
            let told = vec![f32::from_f64(chain.time(at)); images];
            Ok(WalkStep {
                time: Tensor::from_slice_on(device, &told, &[images])?,
                to: t.get(k + 1).copied().unwrap_or(0),
                factors: StepFactors::new(
                    device,
                    factors(diffusion, &chain, (k, at), t.get(k + 1)),
                )?,
            })
        };
        Ok(Self {
            steps: t.iter().enumerate().map(step).collect::<Result<_>>()?,
            now: match device {
                Device::Cpu => None,
                Device::Cuda(_) => Some(step((0, &t[0]))?),
            },
            scaled: t.iter().any(|&at| chain.input_scale(at) != 1.0),
            start: of_images(1.0)?,
            first_input: match chain.input_scale(chain.steps()) {
                1.0 => None,
                scale => Some(of_images(scale)?),
            },
            direct: diffusion.is_direct(),
        })
    }

    /// Draws the clean image `[N, H, W, C]`, F32 in `[-1, 1]`, that the network believes in, or its latent.
    ///
    /// `noise` starts the chain; `condition` is what [`Network::condition`] made of the low-resolution images, in the element
    /// type the network computes in; `y0` `[N, H, W, C]`, F32, is their enlargement. `on_step` sees
    /// every call and may stop the walk with an error. On a GPU this only launches.
    ///
    /// # Errors
    /// If something does not fit the network, the memory of a GPU is full, and what `on_step` says.
    pub fn run(
        &self,
        network: &dyn Network,
        condition: Arc<Tensor>,
        (y0, noise): (&Tensor, &Noise<'_>),
        on_step: &mut dyn FnMut(Progress<'_>) -> Result<()>,
    ) -> Result<Tensor> {
        let ground = Ground { condition: &condition, y0, noise };
        let calls = self.steps.len();
        if self.is_alone(network) {
            let image = self.alone(network, &condition)?;
            let shown = Progress { done: 1, calls, x0_hat: &image, state: &image, at: 0 };
            on_step(shown)?;
            return Ok(image);
        }
        let mut x0_hat = Tensor::empty_as(y0, y0.shape())?;
        let mut state = self.start(ground)?;
        for (k, step) in self.steps.iter().enumerate() {
            state.step(network, ground, step, k == 0, Some(&mut x0_hat))?;
            let (state, at) = (&*state.x, step.to);
            on_step(Progress { done: k + 1, calls, x0_hat: &x0_hat, state, at })?;
        }
        state.into_image()
    }

    /// Whether it is one call of a network that looks at no state.
    fn is_alone(&self, network: &dyn Network) -> bool {
        self.direct && network.sees_low_alone()
    }

    /// That call.
    fn alone(&self, network: &dyn Network, condition: &Arc<Tensor>) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let shown = tape.input(Arc::clone(condition));
        let output = network.forward(&mut tape, &shown, &shown, &self.steps[0].time)?;
        drop(shown);
        let x = tape.clamp_finite(&output, -1.0, 1.0)?.into_tensor()?;
        drop((output, tape));
        if x.dtype() == DType::F32 { Ok(x) } else { x.cast(DType::F32) }
    }

    /// The state at T and what the network is shown of it.
    fn start(&self, Ground { condition, y0, noise }: Ground<'_>) -> Result<State> {
        let mut x = Tensor::empty_as(y0, y0.shape())?;
        q_sample(&self.start, [y0, y0], noise, &mut x, None)?;
        // The state itself is the input where the network wants it neither scaled nor narrowed.
        let same = !self.scaled && condition.dtype() == x.dtype();
        let input = match &self.first_input {
            _ if same => None,
            None => Some(x.cast(condition.dtype())?),
            Some(factors) => {
                let mut input = Tensor::empty_on(&y0.device(), condition.dtype(), y0.shape())?;
                q_sample(factors, [y0, y0], noise, &mut input, None)?;
                Some(input)
            }
        };
        Ok(State { x: Arc::new(x), input: input.map(Arc::new) })
    }
}

impl<'a> Walk<'a> {
    /// A walk for `images` images with `steps` calls of `network`, at most T.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn new(
        network: &'a dyn Network,
        diffusion: &Diffusion,
        images: usize,
        steps: usize,
        device: &Device,
    ) -> Result<Self> {
        let course = Course::new(diffusion, images, steps, device)?;
        Ok(Self { network, course, recordings: <[Recording; 2]>::default() })
    }

    /// As [`Course::run`].
    ///
    /// # Errors
    /// As there.
    pub fn run(
        &self,
        condition: Arc<Tensor>,
        y0: &Tensor,
        noise: &PixelNoise,
        on_step: &mut dyn FnMut(Progress<'_>) -> Result<()>,
    ) -> Result<Tensor> {
        self.course.run(self.network, condition, (y0, &noise.numbers()), on_step)
    }

    /// As [`run`](Self::run), but for `on_call`, which is told how many calls were made, and the memory of what nobody looks
    /// at. On a GPU the image lies where the next one will.
    ///
    /// # Errors
    /// As there.
    pub fn run_unseen(
        &mut self,
        condition: Arc<Tensor>,
        y0: &Tensor,
        noise: &PixelNoise,
        on_call: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Tensor> {
        let numbers = noise.numbers();
        let ground = Ground { condition: &condition, y0, noise: &numbers };
        if self.course.is_alone(self.network) {
            let image = self.alone_again(&condition)?;
            on_call(1)?;
            return Ok(image);
        }
        let mut state = self.course.start(ground)?;
        for k in 0..self.course.steps.len() {
            self.step(&mut state, (ground, noise), k)?;
            on_call(k + 1)?;
        }
        state.into_image()
    }

    /// The one call of a network that looks at no state, recorded on a GPU.
    fn alone_again(&mut self, condition: &Arc<Tensor>) -> Result<Tensor> {
        let Device::Cuda(gpu) = condition.device() else {
            return self.course.alone(self.network, condition);
        };
        let [mut recording, _] = std::mem::take(&mut self.recordings);
        let work = &mut || self.course.alone(self.network, condition).map(Some);
        // SAFETY: the call reads the condition, and the weights and the step's time, which outlive the walk.
        let image = unsafe { recording.play(&gpu, places([&**condition]), work) };
        self.recordings[0] = recording;
        image?.ok_or_else(|| unreachable!("the call gives an image"))
    }

    /// Takes the state over step `k`, by a replay where that is recorded.
    fn step(
        &mut self,
        state: &mut State,
        (ground, noise): (Ground<'_>, &PixelNoise),
        k: usize,
    ) -> Result<()> {
        let Self { network, course: Course { steps, now, .. }, recordings } = self;
        let (Device::Cuda(gpu), Some(now)) = (ground.y0.device(), now) else {
            return state.step(*network, ground, &steps[k], k == 0, None);
        };
        now.time.copy_from(&steps[k].time)?;
        now.factors.copy_from(&steps[k].factors)?;
        // Noise that repeats is drawn elsewhere and copied, which cannot be recorded.
        if noise.repeats() {
            return state.step(*network, ground, now, k == 0, None);
        }
        let first = k == 0 && network.has_first_call();
        let Ground { condition, y0, .. } = ground;
        let others = [&**condition, y0, noise.origins(), &*state.x];
        let places = places(others.into_iter().chain(state.input.as_deref()));
        let mut work = || {
            state.step(*network, ground, now, first, None)?;
            Ok(None)
        };
        // SAFETY: a step reads and writes the state where it lies, reads the rest of these and the weights, which outlive
        // the walk, and time and factors, which are the walk's own.
        unsafe { recordings[usize::from(!first)].play(&gpu, places, &mut work)? };
        Ok(())
    }
}

impl State {
    /// Goes over `step`, and writes the predicted clean image where it is wanted. It stays where it lies.
    fn step(
        &mut self,
        network: &dyn Network,
        Ground { condition, y0, noise }: Ground<'_>,
        step: &WalkStep,
        first: bool,
        x0_hat: Option<&mut Tensor>,
    ) -> Result<()> {
        let mut tape = Tape::inference();
        let seen = tape.input(Arc::clone(self.input.as_ref().unwrap_or(&self.x)));
        let shown = tape.input(Arc::clone(condition));
        let output = match first {
            true => network.forward_first(&mut tape, &seen, &shown, &step.time)?,
            false => network.forward(&mut tape, &seen, &shown, &step.time)?,
        };
        drop((seen, shown, tape));
        // A copy where it is the state itself, which is written now.
        let output = output.into_tensor()?;
        let input = self.input.as_mut().map(own).transpose()?;
        sampler_step(&step.factors, [&output, y0], noise, own(&mut self.x)?, x0_hat, input)
    }

    fn into_image(self) -> Result<Tensor> {
        Arc::try_unwrap(self.x).or_else(|x| x.try_clone())
    }
}

/// The tensor for writing; a copy of it, if something else holds it.
fn own(tensor: &mut Arc<Tensor>) -> Result<&mut Tensor> {
    if Arc::get_mut(tensor).is_none() {
        *tensor = Arc::new(tensor.try_clone()?);
    }
    Arc::get_mut(tensor).ok_or_else(|| unreachable!("a new one is held once"))
}

/// What `network` sees besides the state, in the element type it computes in; `told` `[N, 6]` is what it is told of
/// the damage to the images (see [`Damage`](crate::models::damage::Damage)), if it can be.
///
/// # Errors
/// If the images do not fit the network or the memory of a GPU is full.
pub fn condition(
    network: &dyn Network,
    low: &Tensor,
    y0: &Tensor,
    told: Option<&Tensor>,
) -> Result<Arc<Tensor>> {
    let condition = match told.filter(|_| network.takes_damage()) {
        Some(told) => network.condition_on(low, told)?,
        None => network.condition(low, y0)?,
    };
    match network.dtype() {
        dtype if dtype == condition.dtype() => Ok(Arc::new(condition)),
        dtype => Ok(Arc::new(condition.cast(dtype)?)),
    }
}

/// As [`Course::run`], for a course that is run once.
pub fn sample(
    network: &dyn Network,
    diffusion: &Diffusion,
    condition: Arc<Tensor>,
    y0: &Tensor,
    noise: &PixelNoise,
    steps: usize,
    on_step: &mut dyn FnMut(Progress<'_>) -> Result<()>,
) -> Result<Tensor> {
    let course = Course::new(diffusion, y0.shape()[0], steps, &y0.device())?;
    course.run(network, condition, (y0, &noise.numbers()), on_step)
}
