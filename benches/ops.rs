//! Every op of the registry, forward and backward, with bytes moved and floating point operations.
//!
//! `cargo bench --bench ops -- conv2d` times one op. Cases marked `timed_only` are the sizes of real
//! networks; the small ones exist for the tests and are left out.
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use srk::engine::device::DType;
use srk::engine::op_case::OpCase;
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;

fn ops(c: &mut Criterion) {
    for case in srk::ops::all().iter().filter(|case| case.timed_only) {
        let mut group = c.benchmark_group(format!("ops/{}", case.name()));
        group.throughput(match case.flops() {
            0 => Throughput::Bytes(case.bytes().expect("the case runs")),
            flops => Throughput::Elements(flops),
        });
        let inputs = case.tensors(DType::F32);
        let shapes = case.label();
        let op = case.op();
        group.bench_function(BenchmarkId::new("forward", &shapes), |b| {
            b.iter(|| op.forward(&inputs.iter().collect::<Vec<_>>()).expect("the case runs"));
        });
        group.bench_function(BenchmarkId::new("step", &shapes), |b| {
            b.iter(|| forward_backward(case, &inputs));
        });
        group.finish();
    }
}

/// One forward and one backward for all inputs.
fn forward_backward(case: &OpCase, inputs: &[Tensor]) {
    let mut tape = Tape::training();
    let vars: Vec<_> =
        inputs.iter().map(|t| tape.variable(t.try_clone().expect("memory"))).collect();
    let y = tape.apply_boxed(case.op(), &vars.iter().collect::<Vec<_>>()).expect("the case runs");
    let dy = y.value().try_clone().expect("memory");
    tape.backward(&y, dy).expect("the case runs");
}

criterion_group!(benches, ops);
criterion_main!(benches);
