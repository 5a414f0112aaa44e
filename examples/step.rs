use srk::engine::{tape::Tape, tensor::Tensor};
use srk::models::*;
use std::time::Instant;
fn main() {
    let a: Vec<usize> = std::env::args().skip(1).map(|v| v.parse().unwrap()).collect();
    let cfg = dual_domain_grid::DualDomainGridConfig { channels: a[0], blocks: a[1], frequency_channels: a[2], wavelet_channels: a[3], ..Default::default() };
    let net = ModelConfig::DualDomainGrid(cfg).build(1);
    println!("params {} rf {:?}", net.parameter_count(), net.geometry());
    let (n, h) = (a[4], a[5]);
    let f = |len: usize| (0..len).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect::<Vec<f32>>();
    for i in 0..6 {
        let t0 = Instant::now();
        let train = i < 4;
        let mut tape = if train { Tape::training() } else { Tape::inference() };
        let x = tape.input(Tensor::from_vec(f(n * h * h * 48), &[n, 4 * h, 4 * h, 3]));
        let low = tape.input(Tensor::from_vec(f(n * h * h * 3), &[n, h, h, 3]));
        let y = net.forward(&mut tape, &x, &low, &vec![3.0; n]).unwrap();
        let t1 = t0.elapsed();
        if train {
        let target = tape.input(Tensor::from_vec(f(n * h * h * 48), &[n, 4 * h, 4 * h, 3]));
        let l = tape.l1_loss(&y, &target).unwrap();
        let g = tape.backward(&l, Tensor::from_vec(vec![1.0f32], &[1])).unwrap();
        std::hint::black_box(&g);
        }
        println!("{} fwd {:?} total {:?}", if train {"train"} else {"infer"}, t1, t0.elapsed());
    }
}
