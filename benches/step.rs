//! One call of the default models' network (the expert of later calls) and of the one before, and one training step:
//! compare with `benches/peers/torch_default.py` on the same machine.
use criterion::{Criterion, criterion_group, criterion_main};
use srk::engine::device::DType;
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::models::ModelConfig;
use srk::models::attentive_grid::AttentiveGridConfig;
use srk::models::dual_domain_grid::DualDomainGridConfig;
use srk::ops::adam::{Adam, adam};
use srk::ops::bf16::{Products, with_products};

const BATCH: usize = 16;
const LOW: usize = 32;

fn tensor(shape: &[usize]) -> Tensor {
    let len: usize = shape.iter().product();
    let values = (0..len).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
    Tensor::from_vec(values, shape)
}

fn steps(c: &mut Criterion) {
    of(c, "attentive-grid", &ModelConfig::AttentiveGrid(AttentiveGridConfig::default()));
    of(c, "dual-domain-grid", &ModelConfig::DualDomainGrid(DualDomainGridConfig::default()));
}

fn of(c: &mut Criterion, network: &str, config: &ModelConfig) {
    let name = format!("step/{network}");
    let network = config.build(1);
    let high = [BATCH, 4 * LOW, 4 * LOW, 3];
    let (state, target) = (tensor(&high), tensor(&high));
    let low = network.condition(&tensor(&[BATCH, LOW, LOW, 3]), &state).expect("memory");
    let t = Tensor::from_f64(&[3.0; BATCH], &[BATCH], DType::F32);
    let mut group = c.benchmark_group(name);
    group.sample_size(20);
    for (name, products) in [("", Products::F32), (" in bf16", Products::Bf16)] {
        group.bench_function(format!("denoising{name}"), |b| {
            b.iter(|| {
                with_products(products, || {
                    let mut tape = Tape::inference();
                    let (x, low) = (
                        tape.input(state.try_clone().expect("memory")),
                        tape.input(low.try_clone().expect("memory")),
                    );
                    network.forward(&mut tape, &x, &low, &t).expect("it runs")
                })
            });
        });
        let zeros = |p: &srk::engine::parameter::Parameter| vec![0.0f32; p.value().len()];
        let mut moments: Vec<_> =
            network.parameters().iter().map(|p| (zeros(p), zeros(p))).collect();
        group.bench_function(format!("training{name}"), |b| {
            b.iter(|| {
                with_products(products, || {
                    let mut tape = Tape::training();
                    let (x, low) = (
                        tape.input(state.try_clone().expect("memory")),
                        tape.input(low.try_clone().expect("memory")),
                    );
                    let y = network.forward(&mut tape, &x, &low, &t).expect("it runs");
                    let target = tape.input(target.try_clone().expect("memory"));
                    let loss = tape.l1_loss(&y, &target).expect("it runs");
                    let one = Tensor::from_vec(vec![1.0f32], &[1]);
                    let mut grads = tape.backward(&loss, one).expect("it runs");
                    let c = Adam {
                        lr: 1e-4,
                        betas: [0.9, 0.999],
                        eps: 1e-8,
                        decay: 0.0,
                        step: 1,
                        scale: 1.0,
                    };
                    for (p, (m, v)) in network.parameters().iter().zip(&mut moments) {
                        // The expert of the first call has no part in it.
                        let Some(g) = grads.take_parameter(p).expect("no copy") else { continue };
                        let mut value = p.value().try_clone().expect("memory");
                        adam(value.cpu_mut().expect("f32"), m, v, g.cpu().expect("f32"), &c);
                        p.set(value);
                    }
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
