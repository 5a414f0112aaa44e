//! What the tape promises beyond single ops: sharing, detaching, freezing, two networks, freeing.
#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use srk::engine::parameter::{Layout, Parameter};
use srk::engine::tape::{Tape, Var};
use srk::engine::tensor::Tensor;
use srk::ops::adam::{Adam, adam};

fn vector(values: &[f64]) -> Tensor {
    Tensor::from_vec(values.to_vec(), &[1, 1, 1, values.len()])
}

fn parameter(values: &[f64]) -> Parameter {
    Parameter::new("p", Layout::Plain, vector(values))
}

fn values(t: Option<&Tensor>) -> Vec<f64> {
    t.map(|t| t.to_f64_vec().unwrap()).unwrap_or_default()
}

#[test]
fn a_parameter_used_twice_receives_the_sum_of_its_gradients() {
    let p = parameter(&[1.0, -2.0]);
    let mut tape = Tape::training();
    let (a, b) = (tape.parameter(&p), tape.parameter(&p.clone()));
    let tripled = tape.scale(&a, 3.0).unwrap();
    let y = tape.add(&tripled, &b).unwrap();
    let grads = tape.backward(&y, vector(&[1.0, 10.0])).unwrap();
    assert_eq!(values(grads.of_parameter(&p)), [4.0, 40.0]);
}

#[test]
fn no_gradient_flows_through_a_detached_value() {
    let (p, q) = (parameter(&[2.0]), parameter(&[5.0]));
    let mut tape = Tape::training();
    let a = tape.parameter(&p);
    let a = tape.scale(&a, 2.0).unwrap();
    let a = tape.detach(&a);
    let b = tape.parameter(&q);
    let y = tape.add(&a, &b).unwrap();
    let grads = tape.backward(&y, vector(&[1.0])).unwrap();
    assert!(grads.of_parameter(&p).is_none());
    assert_eq!(values(grads.of_parameter(&q)), [1.0]);
}

#[test]
fn gradients_pass_through_a_frozen_network_and_do_not_stay_in_it() {
    let frozen = parameter(&[3.0]);
    let mut tape = Tape::training();
    let x = tape.variable(vector(&[1.0]));
    let y = tape
        .frozen(|tape| {
            let p = tape.parameter(&frozen);
            let doubled = tape.scale(&x, 2.0)?;
            tape.add(&doubled, &p)
        })
        .unwrap();
    let grads = tape.backward(&y, vector(&[1.0])).unwrap();
    assert_eq!(values(grads.of(&x)), [2.0]);
    assert!(grads.of_parameter(&frozen).is_none());
}

/// A generator moves its own parameter towards what a critic scores, the critic moves apart the scores
/// of real and generated values: each step changes its own network alone.
#[test]
fn two_networks_are_trained_by_two_optimizers() {
    let (generator, critic) = (
        Parameter::new("g", Layout::Plain, Tensor::from_vec(vec![0.5f32], &[1, 1, 1, 1])),
        Parameter::new("c", Layout::Plain, Tensor::from_vec(vec![-0.25f32], &[1, 1, 1, 1])),
    );
    let step = |p: &Parameter, tape: Tape, y: &Var, moments: &mut [Vec<f32>; 2], k: u64| {
        let one = Tensor::from_vec(vec![1.0f32], y.shape());
        let mut grads = tape.backward(y, one).unwrap();
        let g = grads.take_parameter(p).unwrap().unwrap();
        let c = Adam { lr: 0.1, betas: [0.9, 0.999], eps: 1e-8, decay: 0.0, step: k, scale: 1.0 };
        let mut value = p.value().try_clone().unwrap();
        let [m, v] = moments;
        adam(value.cpu_mut().unwrap(), m, v, g.cpu().unwrap(), &c);
        p.set(value);
    };
    let read = |p: &Parameter| p.value().to_f64_vec().unwrap()[0];
    let (mut of_g, mut of_c) = ([vec![0.0], vec![0.0]], [vec![0.0], vec![0.0]]);
    for k in 1..=3 {
        let before = (read(&generator), read(&critic));
        let mut tape = Tape::training();
        let fake = tape.parameter(&generator);
        let judged = tape.frozen(|tape| {
            let c = tape.parameter(&critic);
            tape.add(&fake, &c)
        });
        step(&generator, tape, &judged.unwrap(), &mut of_g, k);
        assert!(read(&generator) < before.0);
        assert_eq!(read(&critic), before.1, "the generator's step moved the critic");

        let before = (read(&generator), read(&critic));
        let mut tape = Tape::training();
        let fake = tape.parameter(&generator);
        let fake = tape.detach(&fake);
        let c = tape.parameter(&critic);
        let judged = tape.add(&fake, &c).unwrap();
        step(&critic, tape, &judged, &mut of_c, k);
        assert!(read(&critic) < before.1);
        assert_eq!(read(&generator), before.0, "the critic's step moved the generator");
    }
}

#[test]
fn an_inference_tape_frees_what_is_no_longer_held() {
    for (mut tape, still_held) in [(Tape::inference(), false), (Tape::training(), true)] {
        let tensor = Arc::new(vector(&[1.0, 2.0]));
        let x = tape.variable(Arc::clone(&tensor));
        let y = tape.silu(&x).unwrap();
        drop(x);
        assert_eq!(Arc::strong_count(&tensor) > 1, still_held);
        assert_eq!(y.shape(), [1, 1, 1, 2]);
    }
}

#[test]
fn a_gradient_of_the_wrong_shape_is_refused() {
    let mut tape = Tape::training();
    let x = tape.variable(vector(&[1.0, 2.0]));
    let y = tape.relu(&x).unwrap();
    let error = tape.backward(&y, vector(&[1.0])).unwrap_err();
    assert!(error.to_string().contains("backward: expected dy of [1, 1, 1, 2]"), "{error}");
}

/// A part that runs again gives the gradients that the recorded one gives: of its inputs, of its
/// parameters, of one it shares with the rest, and none of a frozen one.
#[test]
fn a_part_that_runs_again_gives_the_same_gradients() {
    let shared = parameter(&[0.5, -1.5]);
    let own = parameter(&[2.0, 0.25]);
    let run = |mut tape: Tape, frozen: bool| {
        let x = tape.variable(vector(&[1.0, 2.0]));
        let s = tape.parameter(&shared);
        let a = tape.scaled_add(&x, 1.0, &s, 3.0).unwrap();
        let (shared_too, own_too) = (&shared, &own);
        let (shared, own) = (shared.clone(), own.clone());
        let body = move |tape: &mut Tape, v: &[Var]| {
            let (s, o) = (tape.parameter(&shared), tape.parameter(&own));
            let y = tape.scaled_add(&v[0], 2.0, &s, -1.0)?;
            let y = tape.silu(&y)?;
            tape.scaled_add(&y, 1.0, &o, 5.0)
        };
        let y = match frozen {
            false => tape.part(&[&a], body).unwrap(),
            true => tape.frozen(|tape| tape.part(&[&a], body)).unwrap(),
        };
        let mut told = Vec::new();
        let tell = &mut |id, gradient: &Tensor| {
            told.push((id, values(Some(gradient))));
            Ok(())
        };
        let grads = tape.backward_telling(&y, vector(&[1.0, -2.0]), tell).unwrap();
        // Each once and complete, and what is used last is told first.
        let trained = if frozen { vec![shared_too] } else { vec![own_too, shared_too] };
        let complete = trained.iter().map(|p| (p.id(), values(grads.of_parameter(p))));
        assert_eq!(told, complete.collect::<Vec<_>>());
        (values(grads.of(&x)), grads)
    };
    for frozen in [false, true] {
        let (x_kept, kept) = run(Tape::training(), frozen);
        let (x_again, again) = run(Tape::recomputing(), frozen);
        assert_eq!(x_kept, x_again);
        for p in [&shared, &own] {
            assert_eq!(values(kept.of_parameter(p)), values(again.of_parameter(p)));
        }
        assert_eq!(again.of_parameter(&own).is_none(), frozen);
    }
}

/// Their numbers are those of other values, whose gradients would be wrong without a word.
#[test]
fn values_of_another_tape_are_refused() {
    let (mut tape, mut other) = (Tape::training(), Tape::training());
    let x = tape.variable(vector(&[1.0]));
    let foreign = other.variable(vector(&[3.0]));
    let error = tape.multiply(&x, &foreign).unwrap_err().to_string();
    assert_eq!(error, "multiply: a value of another tape");
    let error = tape.part(&[&foreign], |tape, x| tape.scale(&x[0], 2.0)).unwrap_err().to_string();
    assert_eq!(error, "scale: a value of another tape");
    let error = Tape::recomputing().part(&[&foreign], |_, x| Ok(x[0].clone())).unwrap_err();
    assert_eq!(error.to_string(), "part: a value of another tape");
    for (y, by) in [(&x, &foreign), (&foreign, &x)] {
        assert!(tape.gradient(y, by).unwrap_err().to_string().contains("another tape"));
    }
    let taken = tape.detach(&foreign);
    let y = tape.multiply(&x, &taken).unwrap();
    let error = other.backward(&y, vector(&[1.0])).unwrap_err().to_string();
    assert_eq!(error, "backward: a value of another tape");
    let grads = tape.backward(&y, vector(&[1.0])).unwrap();
    assert_eq!(values(grads.of(&x)), [3.0]);
    let asked = std::panic::AssertUnwindSafe(|| values(grads.of(&foreign)));
    let panic = std::panic::catch_unwind(asked).unwrap_err();
    assert!(panic.downcast_ref::<&str>().unwrap().contains("another tape"));
}

#[test]
fn a_tape_that_records_nothing_is_not_replayed() {
    let mut tape = Tape::inference();
    let x = tape.variable(vector(&[1.0]));
    let y = tape.scale(&x, 2.0).unwrap();
    let error = tape.backward(&y, vector(&[1.0])).unwrap_err().to_string();
    assert!(error.contains("records nothing"), "{error}");
}
