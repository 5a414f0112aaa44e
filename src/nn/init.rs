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
    /// None where nothing is drawn.
    random: Option<Sequence>,
    parameters: Vec<Parameter>,
    buffers: Vec<Parameter>,
}

impl Init {
    /// Initial values are a function of `seed` and the order of construction.
    pub fn new(seed: u64) -> Self {
        let random = Some(Stream::new(seed, Purpose::Weights, 0).sequence());
        Self { prefix: Vec::new(), random, parameters: Vec::new(), buffers: Vec::new() }
    }

    /// For a network that is loaded into: what would be drawn is zero.
    pub fn blank() -> Self {
        Self { random: None, ..Self::new(0) }
    }

    /// The same with names that start with `name` and a dot.
    pub fn below(mut self, name: &str) -> Self {
        self.prefix.push(name.to_owned());
        self
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
        let values = self.draw(len, |random| (random.uniform() * 2.0 - 1.0) * bound);
        self.register(name, layout, Tensor::from_f64(&values, shape, DType::F32))
    }

    /// A parameter drawn from a normal distribution with this standard deviation.
    pub fn normal(
        &mut self,
        name: &str,
        layout: Layout,
        shape: &[usize],
        deviation: f64,
    ) -> Parameter {
        let len = shape.iter().product();
        let values = self.draw(len, |random| f64::from(random.normal()) * deviation);
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

    /// Draws the parameters made so far anew, from a normal distribution of this deviation around what `mean`
    /// says of each; those of which it says nothing stay.
    pub fn redraw(&mut self, deviation: f64, mean: impl Fn(&Parameter) -> Option<f64>) {
        for parameter in self.parameters.clone() {
            let Some(mean) = mean(&parameter) else { continue };
            let value = parameter.value();
            let values =
                self.draw(value.len(), |random| mean + deviation * f64::from(random.normal()));
            parameter.set(Tensor::from_f64(&values, value.shape(), DType::F32));
        }
    }

    /// A tensor that files hold but training does not change by gradients, such as a running mean; its
    /// elements all start as `value`.
    pub fn buffer(&mut self, name: &str, shape: &[usize], value: f64) -> Parameter {
        let values = vec![value; shape.iter().product()];
        let value = Tensor::from_f64(&values, shape, DType::F32);
        let buffer = Parameter::new(self.path(name), Layout::Plain, value);
        self.buffers.push(buffer.clone());
        buffer
    }

    /// All parameters, in construction order.
    pub fn finish(self) -> Vec<Parameter> {
        debug_assert!(self.buffers.is_empty(), "a network with buffers must keep them");
        self.parameters
    }

    /// All parameters and all buffers, each in construction order.
    pub fn finish_with_buffers(self) -> (Vec<Parameter>, Vec<Parameter>) {
        (self.parameters, self.buffers)
    }

    /// `len` numbers as `one` draws them; zeros if nothing is drawn.
    fn draw(&mut self, len: usize, one: impl Fn(&mut Sequence) -> f64) -> Vec<f64> {
        match &mut self.random {
            Some(random) => (0..len).map(|_| one(random)).collect(),
            None => vec![0.0; len],
        }
    }

    fn register(&mut self, name: &str, layout: Layout, value: Tensor) -> Parameter {
        let parameter = Parameter::new(self.path(name), layout, value);
        self.parameters.push(parameter.clone());
        parameter
    }

    fn path(&self, name: &str) -> String {
        let mut path = self.prefix.clone();
        path.push(name.to_owned());
        path.join(".")
    }
}
