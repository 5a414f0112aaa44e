//! Validation images enlarged as `srk upscale` does it.
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::images::{cut, shown, to_image};
use crate::data::crops::Pair;
use crate::data::degrade;
use crate::diffusion::system::{System, SystemConfig};
use crate::engine::interrupt::Stop;
use crate::engine::memory;
use crate::error::{Error, Result};
use crate::imaging::{Image, Rect};
use crate::models::Network;
use crate::training::sections::Config;
use crate::training::sheet::{Shown, States};
use crate::upscale::{self, Seen, Settings, TileSize, Upscaler, Watch};

/// The network of a run as the upscaler wants it.
pub(super) struct Enlarger {
    upscaler: Upscaler,
    tile: TileSize,
}

impl Enlarger {
    /// Of the weights that `network` has now.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub(super) fn new(network: &dyn Network, config: &Config) -> Result<Self> {
        // Memory decides nothing: scores are the same on every machine.
        let tile = match usize::try_from(config.val.tile).unwrap_or(usize::MAX) {
            0 => TileSize::None,
            side => TileSize::Side(side),
        };
        let own = config.model.build(0);
        for (to, from) in own.state().iter().zip(network.state()) {
            to.set(from.value());
        }
        let system = System {
            name: config.run.name.clone(),
            label: config.run.name.clone(),
            network: own,
            config: SystemConfig::new(config.model.clone(), config.diffusion.clone()),
            metadata: BTreeMap::new(),
            notes: Vec::new(),
            in_bf16: false,
        };
        let upscaler = Upscaler::new(system, &network.device(), network.dtype())?;
        Ok(Self { upscaler, tile })
    }

    /// The image enlarged, and its measures.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once `stop` is set.
    pub(super) fn enlarge(&self, config: &Config, pair: &Pair, stop: &Stop) -> Result<Shown> {
        let scale = config.model.scale();
        let low = to_image(&pair.low)?;
        let settings = Settings {
            steps: usize::try_from(config.val.steps).ok().filter(|&steps| steps > 0),
            seed: config.run.seed,
            tile: self.tile,
            memory: self.upscaler.memory_or(memory::available())?,
        };
        let plan = upscale::plan(&self.upscaler, low.width, low.height, &settings)?;
        let heard = &mut |_: usize, _: usize| match stop.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => {
                let signal = i32::try_from(signal).unwrap_or(2);
                Err(Error::Interrupted { signal, what: "in validation".into() })
            }
        };
        let mut states = States::new(config);
        let watch = &mut |seen: &Seen<'_>| {
            states.see(&seen.progress, || cut(&seen.pixels()?, seen.width(), &pair.high))
        };
        let watch: Option<&mut Watch<'_>> = if config.val.states > 0 { Some(watch) } else { None };
        let (upscaler, seed) = (&self.upscaler, config.run.seed);
        let (output, _) = upscale::upscale_watched(upscaler, &low, &plan, seed, heard, watch)?;
        let bicubic = self.enlarged(config, pair)?;
        shown(pair, scale, states.images(), [bicubic, output, to_image(&pair.high)?])
    }

    /// What the network starts from.
    fn enlarged(&self, config: &Config, pair: &Pair) -> Result<Image> {
        let scale = config.model.scale();
        let (width, height) = (pair.low.width * scale, pair.low.height * scale);
        let all = Rect::new(0, 0, width, height);
        let values = degrade::enlarge(&pair.low, config.diffusion.enlarge, scale, all)?;
        let unit: Vec<f32> = values.iter().map(|v| (v + 1.0) / 2.0).collect();
        cut(&unit, width, &pair.high)
    }
}
