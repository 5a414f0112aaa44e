//! Validation images that are enlarged in tiles (`val.tile`), as `srk upscale` does it.
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::images::{cut, shown, to_image};
use crate::data::crops::Pair;
use crate::data::degrade;
use crate::diffusion::system::{System, SystemConfig};
use crate::engine::memory;
use crate::engine::tape::Stop;
use crate::error::{Error, Result};
use crate::imaging::{Image, Rect};
use crate::models::Network;
use crate::training::sections::Config;
use crate::training::sheet::Shown;
use crate::upscale::{self, Settings, TileSize, Upscaler};

/// The network of a run as the upscaler wants it.
pub(super) struct Enlarger {
    upscaler: Upscaler,
    side: usize,
}

impl Enlarger {
    /// Of the weights that `network` has now; none where images are not tiled.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub(super) fn new(network: &dyn Network, config: &Config) -> Result<Option<Self>> {
        let side = usize::try_from(config.val.tile).unwrap_or(usize::MAX);
        if side == 0 {
            return Ok(None);
        }
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
        };
        let upscaler = Upscaler::new(system, &network.device(), network.dtype())?;
        Ok(Some(Self { upscaler, side }))
    }

    /// Whether the low resolution of `pair` is too large to be enlarged at once.
    pub(super) fn takes(&self, pair: &Pair) -> bool {
        pair.low.width.max(pair.low.height) > self.side
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
            tile: TileSize::Side(self.side),
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
        let (output, _) = upscale::upscale(&self.upscaler, &low, &plan, config.run.seed, heard)?;
        let bicubic = self.enlarged(config, pair)?;
        shown(pair, scale, Vec::new(), [bicubic, output, to_image(&pair.high)?])
    }

    /// What the network starts from.
    fn enlarged(&self, config: &Config, pair: &Pair) -> Result<Image> {
        let scale = config.model.scale();
        let (width, height) = (pair.low.width * scale, pair.low.height * scale);
        let all = Rect::new(0, 0, width, height);
        let values = degrade::enlarge(&pair.low, config.diffusion.enlarge, scale, all)?;
        cut(&values, width, &pair.high)
    }
}
