//! Every op of the registry: gradients against finite differences, f32 against f64 (fast paths
//! against the general one), and bit-equal reruns at any number of threads.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use srk::engine::op_case::OpCase;
use srk::engine::pool;
use srk::engine::threads::with_count;

fn checked() -> Vec<OpCase> {
    pool::poison(true);
    srk::ops::all().into_iter().filter(|case| !case.timed_only).collect()
}

#[test]
fn gradients_match_finite_differences() {
    for case in checked().iter().filter(|case| !case.compared_only) {
        let error = case.gradient_error().unwrap();
        println!("{error:.1e}  {case:?}");
        assert!(error <= case.grad_tol, "{case:?}: gradient off by {error:.1e}");
    }
}

#[test]
fn f32_agrees_with_f64() {
    for case in checked() {
        let error = case.f32_error().unwrap();
        println!("{error:.1e}  {case:?}");
        assert!(error <= case.f32_tol, "{case:?}: f32 off by {error:.1e}");
    }
}

#[test]
fn two_runs_give_the_same_bits_at_any_number_of_threads() {
    for case in checked() {
        let run = |threads| with_count(threads, || case.f32_bits().unwrap());
        assert!(run(1) == run(3), "{case:?}: bits depend on the threads");
    }
}
