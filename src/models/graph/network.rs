//! The network that layers make.
use super::super::{Geometry, Kind as KindOfNetwork, Module, Network, Shapes};
use super::config::{GraphConfig, unit};
use super::layer::{Activation, Kind, Layer, Window};
use super::plan::Plan;
use super::run;
use super::run::Weights;
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::nn::Init;

/// What blended tiles share beyond what a pixel sees, and the most of that.
const OVERLAP: usize = 16;
const FURTHEST_SEEN: usize = 32;

/// A square that tiles are about as large as: a border counts by its share of one.
const TYPICAL_TILE: f64 = 256.0;

/// A network that is its layers: see the [module](super).
#[derive(Debug)]
pub struct Graph {
    config: GraphConfig,
    /// Or what is wrong with the layers.
    plan: std::result::Result<Plan, String>,
    weights: Weights,
    parameters: Vec<Parameter>,
}

impl Graph {
    /// The network with all weights 0: they come from a file.
    pub fn new(config: &GraphConfig) -> Self {
        let plan = Plan::of(&config.layers, config.channels);
        let mut init = Init::new(0);
        let weights = Weights::new(&mut init, &config.layers);
        Self { config: config.clone(), plan, weights, parameters: init.finish() }
    }

    /// Pixels that it adds at the top and the left, and at the bottom and the right, since its layers eat as many.
    pub fn border(&self) -> [usize; 2] {
        self.plan.as_ref().map_or([0, 0], |plan| plan.border)
    }

    /// What the layers make of `x` `[N, h, w, C]`, without border or range: what other programs compare.
    ///
    /// # Errors
    /// If the layers do not fit together or `x`, or memory is full.
    pub fn raw(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        run::layers(&self.config.layers, self.plan()?, &self.weights, tape, x)
    }

    /// The image `[N, s h, s w, C]` of `low` `[N, h, w, C]`, both in the range of the network.
    fn enlarge(&self, tape: &mut Tape, low: &Var) -> Result<Var> {
        let plan = self.plan()?;
        let [_, h, w, _] = low.value().nhwc("graph")?;
        if h % plan.align != 0 || w % plan.align != 0 {
            let wanted = format!("sides that are multiples of {}", plan.align);
            return Err(Error::shape("graph", wanted, low.shape()));
        }
        let y = match plan.border {
            [0, 0] => self.raw(tape, low)?,
            border => {
                let x = self.weights.bordered(tape, low, border)?;
                self.raw(tape, &x)?
            }
        };
        let size = [plan.scale * h, plan.scale * w];
        if y.shape()[1..3] != size {
            let wanted = format!("{} x {} pixels", size[0], size[1]);
            return Err(Error::shape("graph", wanted, y.shape()));
        }
        if !self.config.residual {
            return Ok(y);
        }
        let repeated = self.weights.repeated(tape, low, plan.scale)?;
        tape.add(&y, &repeated)
    }

    fn plan(&self) -> Result<&Plan> {
        let unsupported = |what: &String| Error::Unsupported { op: "graph", what: what.clone() };
        self.plan.as_ref().map_err(unsupported)
    }
}

impl Module for Graph {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl Network for Graph {
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        low.try_clone()
    }

    fn sees_low_alone(&self) -> bool {
        true
    }

    /// The image of `condition`, the low-resolution one; state and step play no part.
    fn forward(&self, tape: &mut Tape, _x: &Var, condition: &Var, _t: &Tensor) -> Result<Var> {
        let [black, white] = self.config.range;
        let half = (white - black) / 2.0;
        let low = tape.affine(condition, half, black + half)?;
        let y = self.enlarge(tape, &low)?;
        drop(low);
        tape.affine(&y, 1.0 / half, -(black + half) / half)
    }

    fn channels(&self) -> usize {
        self.config.channels
    }

    /// Exact tiles but for means over the whole map.
    fn geometry(&self) -> Geometry {
        let Ok(plan) = &self.plan else { return Geometry { align: 1, receptive_field: None } };
        let receptive_field = plan.reach.map(|reach| reach.next_multiple_of(plan.align));
        Geometry { align: plan.align, receptive_field }
    }

    /// The transforms of convolutions work on blocks of 4 x 4, at every resolution.
    fn tile_align(&self) -> usize {
        self.plan.as_ref().map_or(1, |plan| (4 * plan.coarsest).next_multiple_of(plan.align))
    }

    fn overlap(&self) -> usize {
        self.plan.as_ref().map_or(OVERLAP, |plan| plan.near.min(FURTHEST_SEEN) + OVERLAP)
    }

    fn floats_per_pixel(&self) -> usize {
        let Ok(plan) = &self.plan else { return 1 };
        let border = (plan.border[0] + plan.border[1]) as f64 / TYPICAL_TILE;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Some thousands.
        ((plan.floats * (1.0 + border) * (1.0 + border)).ceil() as usize)
    }
}

impl KindOfNetwork for GraphConfig {
    // srk::import::ncnn reads such files.
    const KEYS: &'static [&'static str] = &[];
    const DIRECT: bool = true;

    fn build(&self, _seed: u64) -> Box<dyn Network> {
        Box::new(Graph::new(self))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(_: &Shapes) -> Option<Self> {
        None
    }

    /// A convolution, its ReLU, another one and a shuffle.
    fn narrow() -> Self {
        let window = |from, to, activation| {
            let channels = [from, to];
            Kind::Convolution(Window { channels, kernel: 3, stride: 1, pad: 1, bias: true, activation })
        };
        let layer = |name: &str, from, kind| Layer { name: name.to_owned(), from: vec![from], kind };
        let layers = vec![
            layer("first", 0, window(3, 8, Activation::Relu)),
            layer("last", 1, window(8, 12, Activation::None)),
            layer("shuffle", 2, Kind::PixelShuffle { factor: 2 }),
        ];
        Self { scale: 2, channels: 3, range: unit(), residual: false, layers }
    }
}
