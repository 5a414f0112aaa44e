//! Trains a small network by hand, without recipes: what `srk train` does in a step.
//! `cargo run --release --example train_step`.
#![allow(clippy::print_stdout, clippy::print_stderr)]
use srk::nn::{Conv2d, Init};
use srk::ops::adam::{Adam, adam};
use srk::{Tape, Tensor};

/// A picture `[1, 32, 32, 3]` of waves, and the same blurred: what the network gets, and what it should give.
fn pair(step: usize) -> (Tensor, Tensor) {
    let value =
        |y: usize, x: usize, c: usize| ((0.3 + 0.1 * c as f32) * (x + y * (step % 5)) as f32).sin();
    let at = |i: usize| (i / 96, i / 3 % 32, i % 3);
    let sharp = (0..32 * 32 * 3).map(|i| {
        let (y, x, c) = at(i);
        value(y, x, c)
    });
    let blurred = (0..32 * 32 * 3).map(|i| {
        let (y, x, c) = at(i);
        (value(y, x.saturating_sub(1), c) + value(y, x, c) + value(y, x + 1, c)) / 3.0
    });
    let tensor = |values: Vec<f32>| Tensor::from_vec(values, &[1, 32, 32, 3]);
    (tensor(blurred.collect()), tensor(sharp.collect()))
}

fn main() -> srk::Result<()> {
    let mut init = Init::new(1);
    let first = Conv2d::same(&mut init, "first", 3, 16, 3).relu();
    let last = Conv2d::same(&mut init, "last", 16, 3, 3);
    let parameters = init.finish();
    let mut moments: Vec<_> = parameters
        .iter()
        .map(|p| (vec![0.0f32; p.value().len()], vec![0.0f32; p.value().len()]))
        .collect();
    for step in 1..=200 {
        let (blurred, sharp) = pair(step);
        let mut tape = Tape::training();
        let (x, target) = (tape.input(blurred), tape.input(sharp));
        let hidden = first.forward(&mut tape, &x)?;
        let change = last.forward(&mut tape, &hidden)?;
        let y = tape.add(&x, &change)?;
        let loss = tape.l1_loss(&y, &target)?;
        let value = loss.value().to_f32_vec()?[0];
        let mut gradients = tape.backward(&loss, Tensor::from_vec(vec![1.0f32], &[1]))?;
        let rule = Adam {
            lr: 2e-3,
            betas: [0.9, 0.999],
            eps: 1e-8,
            decay: 0.0,
            step: step as u64,
            scale: 1.0,
        };
        for (parameter, (m, v)) in parameters.iter().zip(&mut moments) {
            let Some(gradient) = gradients.take_parameter(parameter)? else { continue };
            let mut weights = parameter.value().try_clone()?;
            adam(weights.cpu_mut()?, m, v, gradient.cpu()?, &rule);
            parameter.set(weights);
        }
        if step == 1 || step % 50 == 0 {
            println!("step {step:3}  loss {value:.5}");
        }
    }
    Ok(())
}
