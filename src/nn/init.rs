//! Names and initial values of parameters while a network is built.
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

use crate::engine::device::DType;
use crate::engine::parameter::{Layout, Parameter};
use crate::engine::rng::{Purpose, Sequence, Stream};
use crate::engine::tensor::Tensor;

thread_local! {
    /// How many numbers may still be allocated; none if that is not limited.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What ends the construction of a network that is too large.
struct TooLarge;

/// What `build` makes, or none if its parameters and buffers have more than `most` numbers together: then it is
/// left before the one too many is allocated.
pub fn within<R>(most: usize, build: impl FnOnce() -> R) -> Option<R> {
    let outer = LEFT.replace(Some(most));
    // Constructors return networks, not results: a panic that nobody sees is the way out of them.
    let built = panic::catch_unwind(AssertUnwindSafe(build));
    LEFT.set(outer);
    match built {
        Ok(built) => Some(built),
        Err(payload) if payload.is::<TooLarge>() => None,
        Err(payload) => panic::resume_unwind(payload),
    }
}

/// The numbers in a tensor of `shape`, which are about to be allocated.
fn count(shape: &[usize]) -> usize {
    let numbers = shape.iter().try_fold(1usize, |all, &n| all.checked_mul(n));
    if let Some(left) = LEFT.get() {
        if numbers == Some(0) {
            panic::resume_unwind(Box::new(format!("a tensor of shape {shape:?} holds nothing")));
        }
        match left.checked_sub(numbers.unwrap_or(usize::MAX)) {
            Some(rest) => LEFT.set(Some(rest)),
            None => panic::resume_unwind(Box::new(TooLarge)),
        }
    }
    numbers.unwrap_or(usize::MAX)
}

/// Hands out parameters in construction order and remembers them, under the names of the original
/// state dict.
#[derive(Debug)]
pub struct Init {
    prefix: Vec<String>,
    random: Sequence,
    parameters: Vec<Parameter>,
    buffers: Vec<Parameter>,
}

impl Init {
    /// Initial values are a function of `seed` and the order of construction.
    pub fn new(seed: u64) -> Self {
        let random = Stream::new(seed, Purpose::Weights, 0).sequence();
        Self { prefix: Vec::new(), random, parameters: Vec::new(), buffers: Vec::new() }
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
        let len = count(shape);
        let values: Vec<f64> =
            (0..len).map(|_| (self.random.uniform() * 2.0 - 1.0) * bound).collect();
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
        let len = count(shape);
        let values: Vec<f64> =
            (0..len).map(|_| f64::from(self.random.normal()) * deviation).collect();
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
        let values = vec![value; count(shape)];
        self.register(name, layout, Tensor::from_f64(&values, shape, DType::F32))
    }

    /// Draws the parameters made so far anew, from a normal distribution of this deviation around what `mean`
    /// says of each; those of which it says nothing stay.
    pub fn redraw(&mut self, deviation: f64, mean: impl Fn(&Parameter) -> Option<f64>) {
        for parameter in &self.parameters {
            let Some(mean) = mean(parameter) else { continue };
            let (value, random) = (parameter.value(), &mut self.random);
            let values: Vec<f64> =
                (0..value.len()).map(|_| mean + deviation * f64::from(random.normal())).collect();
            parameter.set(Tensor::from_f64(&values, value.shape(), DType::F32));
        }
    }

    /// A tensor that files hold but training does not change by gradients, such as a running mean; its
    /// elements all start as `value`.
    pub fn buffer(&mut self, name: &str, shape: &[usize], value: f64) -> Parameter {
        let values = vec![value; count(shape)];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_left_before_it_is_allocated() {
        let build = |side: usize| {
            within(1000, || {
                let mut init = Init::new(0);
                init.constant("a", Layout::Plain, &[30, 30], 0.0);
                init.uniform("b", Layout::Plain, &[side, side], 1.0);
                init.finish().len()
            })
        };
        assert_eq!(build(10), Some(2));
        assert_eq!(build(11), None);
        assert_eq!(build(usize::MAX), None);
        assert_eq!(LEFT.get(), None);
    }
}
