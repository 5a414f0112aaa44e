//! States of training that are made of the network's own estimate of x0 (`diffusion.own_states`).
//!
//! Where a chain is walked, the state at t < T does not hold the true image but the blurred one that the first call
//! believed in. A network that has only met true ones takes what it is given for details that are not there.
use std::sync::{Arc, Mutex, PoisonError};

use super::crops::{noise, origins};
use super::names::{FACTORS, LOW, OWN, OWN_NOISE, TOLD_OF_DAMAGE, TRUE, X0, Y0};
use crate::diffusion::walk::{Course, condition};
use crate::engine::device::Device;
use crate::engine::tape::Tape;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::Network;
use crate::ops::noise::Noise;
use crate::ops::q_sample::q_sample;
use crate::training::batch::Batch;
use crate::training::sections::Config;

/// What makes such states. It keeps what does not depend on images: a recording cannot upload it.
#[derive(Default)]
pub(super) struct Estimates {
    courses: Mutex<Vec<Kept>>,
}

/// A course of one call, for so many images on a device.
type Kept = ((Device, usize), Arc<Course>);

impl Estimates {
    /// The states of `batch` `[N, H, W, C]`: those of [`OWN`] made of what one call from the end of the chain gives.
    ///
    /// # Errors
    /// If the batch does not fit the network.
    pub(super) fn state(
        &self,
        network: &dyn Network,
        config: &Config,
        batch: &Batch,
    ) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let estimate = tape.input(self.of(network, config, batch)?);
        let x0 = batch.get(X0)?;
        let truth = tape.input(x0.try_clone()?);
        let own = tape.scale_images_by(&estimate, batch.get(OWN)?)?;
        let rest = tape.scale_images_by(&truth, batch.get(TRUE)?)?;
        let mixed = tape.add(&own, &rest)?;
        let mut state = Tensor::empty_as(x0, x0.shape())?;
        let images = [mixed.value(), batch.get(Y0)?];
        let origins = origins(batch, x0)?;
        let noise = noise(config.run.seed, batch, origins.as_ref())?;
        q_sample(batch.get(FACTORS)?, images, &noise, &mut state, None)?;
        Ok(state)
    }

    /// What the network makes of every image of `batch` in one call, `[N, H, W, C]` in `[-1, 1]`.
    fn of(&self, network: &dyn Network, config: &Config, batch: &Batch) -> Result<Tensor> {
        let (low, y0) = (batch.get(LOW)?, batch.get(Y0)?);
        let course = self.course(config, y0)?;
        let seen = condition(network, low, y0, batch.find(TOLD_OF_DAMAGE))?;
        let z = batch.get(OWN_NOISE)?.stacked(y0.shape()[0])?.reshape(y0.shape())?;
        course.run(network, seen, (y0, &Noise::Given(&z)), &mut |_| Ok(()))
    }

    /// The course for images like `y0`.
    fn course(&self, config: &Config, y0: &Tensor) -> Result<Arc<Course>> {
        let key = (y0.device(), y0.shape()[0]);
        let mut courses = self.courses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, course)) = courses.iter().find(|(known, _)| *known == key) {
            return Ok(Arc::clone(course));
        }
        let course = Arc::new(Course::new(&config.diffusion, key.1, 1, &key.0)?);
        courses.push((key, Arc::clone(&course)));
        Ok(course)
    }
}
