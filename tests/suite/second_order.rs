//! Gradients of gradients: [`Tape::gradient`] against first-order gradients, and what flows back through it
//! against their finite differences, in f64.
#![allow(clippy::unwrap_used)]
use srk::engine::device::DType;
use srk::engine::rng::{Purpose, Stream};
use srk::engine::tape::{Tape, Var};
use srk::engine::tensor::Tensor;
use srk::error::{Error, Result};
use srk::ops::conv_transpose2d::ConvTranspose2d;
use srk::ops::conv2d::Conv2d;

/// A network by its input, its parameters' shapes, and what it makes of the input and them.
struct Critic {
    input: Vec<usize>,
    parameters: Vec<Vec<usize>>,
    forward: fn(&mut Tape, &Var, &[Var]) -> Result<Var>,
}

const STRIDED: Conv2d = Conv2d { stride: 2, pad: 0, relu: false };

/// The published critic's three layers in small: a map whose last row no window reads, then one column.
fn strided(tape: &mut Tape, x: &Var, p: &[Var]) -> Result<Var> {
    let mut y = tape.conv2d(x, &p[0], Some(&p[1]), STRIDED)?;
    y = tape.leaky_relu(&y, 0.2)?;
    y = tape.conv2d(&y, &p[2], Some(&p[3]), STRIDED)?;
    y = tape.leaky_relu(&y, 0.2)?;
    tape.conv2d(&y, &p[4], Some(&p[5]), Conv2d { stride: 1, pad: 0, relu: false })
}

/// "Same" convolutions, one fused with ReLU, whose input is used again: the gradients must add up.
fn residual(tape: &mut Tape, x: &Var, p: &[Var]) -> Result<Var> {
    let y = tape.conv2d(x, &p[0], Some(&p[1]), Conv2d::same(3).relu())?;
    let y = tape.conv2d(&y, &p[2], None, Conv2d::same(1))?;
    let y = tape.scaled_add(&y, 0.7, x, -1.3)?;
    let y = tape.leaky_relu(&y, 0.01)?;
    tape.scale(&y, 3.0)
}

/// The critic of a multilayer perceptron.
fn flat(tape: &mut Tape, x: &Var, p: &[Var]) -> Result<Var> {
    let y = tape.reshape(x, &[2, 6])?;
    let y = tape.linear(&y, &p[0], Some(&p[1]))?;
    let y = tape.leaky_relu(&y, 0.2)?;
    tape.linear(&y, &p[2], None)
}

/// Transposed convolutions on the way.
fn transposed(tape: &mut Tape, x: &Var, p: &[Var]) -> Result<Var> {
    let op = ConvTranspose2d::new(2, 1).extra(1, 0);
    let y = tape.conv_transpose2d(x, &p[0], Some(&p[1]), op)?;
    let y = tape.leaky_relu(&y, 0.2)?;
    tape.conv2d(&y, &p[2], None, Conv2d { stride: 3, pad: 1, relu: true })
}

/// The published critic of WGAN-GP: a norm by the batch's statistics, so that its images are not independent.
fn normed(tape: &mut Tape, x: &Var, p: &[Var]) -> Result<Var> {
    let y = tape.conv2d(x, &p[0], Some(&p[1]), STRIDED)?;
    let mut running = Tensor::from_vec(vec![0.0f64; 6], &[2, 3]);
    let y = tape.batch_norm(&y, [&p[2], &p[3]], &mut running, 0.1, 1e-5)?;
    let y = tape.leaky_relu(&y, 0.2)?;
    tape.conv2d(&y, &p[4], None, Conv2d { stride: 1, pad: 0, relu: false })
}

/// The same with constant statistics.
fn constant(tape: &mut Tape, x: &Var, p: &[Var]) -> Result<Var> {
    let statistics = tape.input(Tensor::from_vec(vec![0.1, -0.2, 0.7, 1.5], &[2, 2]));
    let y = tape.batch_norm_with(x, [&p[0], &p[1]], &statistics, 1e-5)?;
    let y = tape.leaky_relu(&y, 0.2)?;
    tape.conv2d(&y, &p[2], None, Conv2d::same(3))
}

fn critics() -> Vec<Critic> {
    let critic = |input: &[usize], parameters: &[&[usize]], forward| {
        let parameters = parameters.iter().map(|p| p.to_vec()).collect();
        Critic { input: input.to_vec(), parameters, forward }
    };
    vec![
        critic(
            &[2, 11, 10, 1],
            &[&[3, 4, 4, 1], &[3], &[4, 3, 3, 3], &[4], &[1, 1, 1, 4], &[1]],
            strided,
        ),
        critic(&[3, 4, 5, 2], &[&[3, 3, 3, 2], &[3], &[2, 1, 1, 3]], residual),
        critic(&[2, 2, 3, 1], &[&[5, 6], &[5], &[1, 5]], flat),
        critic(&[2, 3, 2, 2], &[&[2, 3, 3, 3], &[3], &[2, 3, 3, 3]], transposed),
        critic(&[3, 8, 7, 2], &[&[3, 4, 4, 2], &[3], &[3], &[3], &[1, 2, 2, 3]], normed),
        critic(&[2, 3, 4, 2], &[&[2], &[2], &[1, 3, 3, 2]], constant),
    ]
}

impl Critic {
    /// Random input, then parameters.
    fn values(&self) -> Vec<Tensor> {
        let shapes = std::iter::once(&self.input).chain(&self.parameters).enumerate();
        let value = |(i, shape): (usize, &Vec<usize>)| random(i as u64, shape);
        shapes.map(value).collect()
    }

    /// Input and parameters on a tape, and the output.
    fn run(&self, tape: &mut Tape, values: &[Tensor]) -> (Vec<Var>, Var) {
        let vars: Vec<Var> = values.iter().map(|v| tape.variable(v.try_clone().unwrap())).collect();
        let y = (self.forward)(tape, &vars[0], &vars[1..]).unwrap();
        (vars, y)
    }

    /// The gradient of the sum of the output by the input, by one walk back.
    fn first_order(&self, values: &[Tensor]) -> Vec<f64> {
        let mut tape = Tape::training();
        let (vars, y) = self.run(&mut tape, values);
        let one = Tensor::from_vec(vec![1.0f64; y.value().len()], y.shape());
        let grads = tape.backward(&y, one).unwrap();
        grads.of(&vars[0]).unwrap().to_f64_vec().unwrap()
    }

    /// The penalty, from first-order gradients.
    fn penalty(&self, values: &[Tensor]) -> f64 {
        let g = self.first_order(values);
        let rows = self.input[0];
        let norm = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>().sqrt();
        let each = g.chunks(g.len() / rows).map(|row| (norm(row) - 1.0).powi(2));
        each.sum::<f64>() / rows as f64
    }
}

fn random(stream: u64, shape: &[usize]) -> Tensor {
    let mut draws = Stream::new(11, Purpose::Test, stream).sequence();
    let values: Vec<f64> =
        (0..shape.iter().product()).map(|_| draws.uniform() * 2.0 - 1.0).collect();
    Tensor::from_f64(&values, shape, DType::F64)
}

/// The worst difference between `gradients` of `values` and central differences of `objective`.
fn worst(
    values: &[Tensor],
    gradients: &[Option<Vec<f64>>],
    objective: impl Fn(&[Tensor]) -> f64,
) -> f64 {
    let step = 1e-5;
    let mut worst = 0.0f64;
    let mut moved: Vec<Tensor> = values.iter().map(|v| v.try_clone().unwrap()).collect();
    for (k, value) in values.iter().enumerate() {
        for i in 0..value.len() {
            let at = value.cpu::<f64>().unwrap()[i];
            let mut at_shifted = |by: f64| {
                moved[k].cpu_mut::<f64>().unwrap()[i] = at + by;
                let found = objective(&moved);
                moved[k].cpu_mut::<f64>().unwrap()[i] = at;
                found
            };
            let numeric = (at_shifted(step) - at_shifted(-step)) / (2.0 * step);
            let analytic = gradients[k].as_ref().map_or(0.0, |g| g[i]);
            let error = (numeric - analytic).abs() / (1.0 + numeric.abs());
            worst = if error <= worst { worst } else { error };
        }
    }
    worst
}

#[test]
fn a_recorded_gradient_is_the_gradient() {
    for critic in critics() {
        let values = critic.values();
        let mut tape = Tape::training();
        let (vars, y) = critic.run(&mut tape, &values);
        let g = tape.gradient(&y, &vars[0]).unwrap();
        assert_eq!(g.shape(), vars[0].shape());
        let got = g.value().to_f64_vec().unwrap();
        let wanted = critic.first_order(&values);
        let error = got.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(error < 1e-12, "{:?}: off by {error:.1e}", critic.input);
        assert!(wanted.iter().any(|&v| v != 0.0));
    }
}

#[test]
fn second_derivatives_match_finite_differences_of_first_ones() {
    for critic in critics() {
        let values = critic.values();
        let weights = random(99, &critic.input);
        let mut tape = Tape::training();
        let (vars, y) = critic.run(&mut tape, &values);
        let g = tape.gradient(&y, &vars[0]).unwrap();
        let grads = tape.backward(&g, weights.try_clone().unwrap()).unwrap();
        let gradients: Vec<Option<Vec<f64>>> =
            vars.iter().map(|v| grads.of(v).map(|g| g.to_f64_vec().unwrap())).collect();
        let weights = weights.to_f64_vec().unwrap();
        let error = worst(&values, &gradients, |values| {
            critic.first_order(values).iter().zip(&weights).map(|(g, w)| g * w).sum()
        });
        assert!(error < 1e-7, "{:?}: off by {error:.1e}", critic.input);
        // By the first weights: a layer below others.
        assert!(gradients[1].as_ref().unwrap().iter().any(|&v| v != 0.0));
    }
}

/// Beside the penalty the loss holds the output itself, as a critic's does.
#[test]
fn the_penalty_of_a_critic_has_the_gradients_of_its_finite_differences() {
    for critic in critics() {
        let values = critic.values();
        let mut tape = Tape::training();
        let (vars, y) = critic.run(&mut tape, &values);
        let g = tape.gradient(&y, &vars[0]).unwrap();
        let penalty = tape.gradient_penalty(&g).unwrap();
        let value = penalty.value().to_f64_vec().unwrap()[0];
        assert!((value - critic.penalty(&values)).abs() < 1e-12);
        let grads = tape.backward(&penalty, Tensor::from_vec(vec![10.0f64], &[1])).unwrap();
        let gradients: Vec<Option<Vec<f64>>> =
            vars.iter().map(|v| grads.of(v).map(|g| g.to_f64_vec().unwrap())).collect();
        let error = worst(&values, &gradients, |values| 10.0 * critic.penalty(values));
        assert!(error < 1e-6, "{:?}: off by {error:.1e}", critic.input);
    }
}

#[test]
fn a_value_that_the_output_does_not_depend_on_has_a_gradient_of_zero() {
    let mut tape = Tape::training();
    let x = tape.variable(random(0, &[1, 2, 2, 1]));
    let other = tape.variable(random(1, &[1, 2, 2, 1]));
    let y = tape.scale(&x, 2.0).unwrap();
    let g = tape.gradient(&y, &other).unwrap();
    assert_eq!(g.value().to_f64_vec().unwrap(), [0.0; 4]);
    // And the tape is as it was: the gradient by x is still found, also of an intermediate value.
    let z = tape.scale(&y, 3.0).unwrap();
    let by_y = tape.gradient(&z, &y).unwrap();
    assert_eq!(by_y.value().to_f64_vec().unwrap(), [3.0; 4]);
    let by_x = tape.gradient(&z, &x).unwrap();
    assert_eq!(by_x.value().to_f64_vec().unwrap(), [6.0; 4]);
}

#[test]
fn an_op_without_a_second_derivative_refuses_by_its_name() {
    let mut tape = Tape::training();
    let x = tape.variable(random(0, &[1, 2, 2, 1]));
    let y = tape.silu(&x).unwrap();
    let error = tape.gradient(&y, &x).unwrap_err();
    assert!(matches!(error, Error::NotTwiceDifferentiable { op: "silu" }), "{error}");
    assert!(error.to_string().contains("silu: not twice differentiable"), "{error}");
    // The walk that failed left the tape whole.
    let one = Tensor::from_vec(vec![1.0f64; 4], y.shape());
    assert!(tape.backward(&y, one).unwrap().of(&x).is_some());

    let mut tape = Tape::training();
    let x = tape.variable(random(0, &[1, 4, 4, 1]));
    let w = tape.variable(random(1, &[1, 3, 3, 1]));
    let y = tape.conv2d(&x, &w, None, Conv2d::same(3)).unwrap();
    let error = tape.gradient(&y, &w).unwrap_err().to_string();
    assert!(error.contains("conv2d: no implementation for a second derivative by its"), "{error}");
    let constant = tape.input(random(2, &[1, 4, 4, 1]));
    assert!(tape.gradient(&y, &constant).is_err());
}
