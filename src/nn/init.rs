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

    /// Whether initial values are left out, see [`blank`].
    static BLANK: Cell<bool> = const { Cell::new(false) };
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

/// What `build` makes with zeros where it would draw initial values: of a network that is loaded into, or of which
/// the sizes alone are asked. The zeros take no memory until they are written.
pub fn blank<R>(build: impl FnOnce() -> R) -> R {
    struct Outer(bool);
    impl Drop for Outer {
        fn drop(&mut self) {
            BLANK.set(self.0);
        }
    }
    let _outer = Outer(BLANK.replace(true));
    build()
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
    /// None where nothing is drawn.
    random: Option<Sequence>,
    parameters: Vec<Parameter>,
    buffers: Vec<Parameter>,
}

impl Init {
    /// Initial values are a function of `seed` and the order of construction; zero within [`blank`].
    pub fn new(seed: u64) -> Self {
        let random = Stream::new(seed, Purpose::Weights, 0).sequence();
        let random = (!BLANK.get()).then_some(random);
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
        let value = self.draw(shape, |random| (random.uniform() * 2.0 - 1.0) * bound);
        self.register(name, layout, value)
    }

    /// A parameter drawn from a normal distribution with this standard deviation.
    pub fn normal(
        &mut self,
        name: &str,
        layout: Layout,
        shape: &[usize],
        deviation: f64,
    ) -> Parameter {
        let value = self.draw(shape, |random| f64::from(random.normal()) * deviation);
        self.register(name, layout, value)
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
        for parameter in self.parameters.clone() {
            let Some(mean) = mean(&parameter) else { continue };
            let shape = parameter.value().shape().to_vec();
            let anew = |random: &mut Sequence| mean + deviation * f64::from(random.normal());
            parameter.set(self.values(&shape, anew));
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

    /// A new tensor as `one` draws its numbers; zeros if nothing is drawn.
    fn draw(&mut self, shape: &[usize], one: impl Fn(&mut Sequence) -> f64) -> Tensor {
        count(shape);
        self.values(shape, one)
    }

    fn values(&mut self, shape: &[usize], one: impl Fn(&mut Sequence) -> f64) -> Tensor {
        let len = shape.iter().product();
        match &mut self.random {
            Some(random) => {
                let values: Vec<f64> = (0..len).map(|_| one(random)).collect();
                Tensor::from_f64(&values, shape, DType::F32)
            }
            None => Tensor::from_vec(vec![0.0f32; len], shape),
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
