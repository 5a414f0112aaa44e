//! Names and initial values of parameters while a network is built.
use crate::engine::device::DType;
use crate::engine::parameter::{Layout, Parameter};
use crate::engine::rng::{Purpose, Sequence, Stream};
use crate::engine::tensor::Tensor;

/// Hands out parameters in construction order and remembers them, under the names of the original
/// state dict.
#[derive(Debug)]
pub struct Init {
    prefix: Vec<String>,
    random: Sequence,
    parameters: Vec<Parameter>,
}

impl Init {
    /// Initial values are a function of `seed` and the order of construction.
    pub fn new(seed: u64) -> Self {
        let random = Stream::new(seed, Purpose::Weights, 0).sequence();
        Self { prefix: Vec::new(), random, parameters: Vec::new() }
    }

    /// Builds a part of the network whose names start with `name` and a dot.
    pub fn at<R>(&mut self, name: impl Into<String>, build: impl FnOnce(&mut Self) -> R) -> R {
        self.prefix.push(name.into());
        let part = build(self);
        self.prefix.pop();
        part
    }

    /// A parameter drawn from U(-bound, bound), the default of PyTorch's convolutions and linears
    /// with `bound = 1 / sqrt(fan_in)`.
    pub fn uniform(
        &mut self,
        name: &str,
        layout: Layout,
        shape: &[usize],
        bound: f64,
    ) -> Parameter {
        let len = shape.iter().product();
        let values: Vec<f64> =
            (0..len).map(|_| (self.random.uniform() * 2.0 - 1.0) * bound).collect();
        self.register(name, layout, Tensor::from_f64(&values, shape, DType::F32))
    }

    /// A parameter whose elements all start as `value`.
    pub fn constant(
        &mut self,
        name: &str,
        layout: Layout,
        shape: &[usize],
        value: f64,
    ) -> Parameter {
        let values = vec![value; shape.iter().product()];
        self.register(name, layout, Tensor::from_f64(&values, shape, DType::F32))
    }

    /// All parameters, in construction order.
    pub fn finish(self) -> Vec<Parameter> {
        self.parameters
    }

    fn register(&mut self, name: &str, layout: Layout, value: Tensor) -> Parameter {
        let mut path = self.prefix.clone();
        path.push(name.to_owned());
        let parameter = Parameter::new(path.join("."), layout, value);
        self.parameters.push(parameter.clone());
        parameter
    }
}
