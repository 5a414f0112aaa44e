//! Convolutions that are several ways side by side while they are trained, folded into one.
//!
//! SPAN's `NAME.sk` (1x1) beside `NAME.conv.0` (1x1), `.1` (3x3), `.2` (1x1), on a map with a border of zeros, are
//! `NAME.eval_conv`, a 3x3:
//!
//! ```text
//! w[o,i,u,v] = sk[o,i] at the middle + sum_l w2[o,l] sum_m w1[l,m,u,v] w0[m,i]
//! b[o]       = sb[o] + b2[o] + sum_l w2[o,l] (b1[l] + sum_{m,u,v} w1[l,m,u,v] b0[m])
//! ```
//!
//! What a file holds under `eval_conv` beside such ways may be older than they are, and is not taken.
use std::collections::BTreeMap;

use super::pickle::Parsed;
use super::storage::Tensor;

/// Weight and bias of sk, conv.0, conv.1 and conv.2.
#[derive(Debug)]
pub(super) struct Ways([[Tensor; 2]; 4]);

const PARTS: [&str; 4] = ["sk", "conv.0", "conv.1", "conv.2"];

/// Takes the ways out of `tensors`, and leaves an `eval_conv` of the right shape for each, whose numbers
/// [`Ways::fold`] makes.
pub(super) fn take(tensors: &mut BTreeMap<String, Tensor>) -> BTreeMap<String, Ways> {
    let stem = |name: &String| Some(name.strip_suffix(".sk.weight")?.to_owned());
    let stems: Vec<String> = tensors.keys().filter_map(stem).collect();
    let mut all = BTreeMap::new();
    for stem in stems {
        let Some(ways) = Ways::of(tensors, &stem) else { continue };
        let [weight, bias] = ways.shapes();
        for part in PARTS {
            for end in ["weight", "bias"] {
                tensors.remove(&format!("{stem}.{part}.{end}"));
            }
        }
        for (end, shape) in [("weight", weight), ("bias", bias)] {
            tensors.insert(format!("{stem}.eval_conv.{end}"), Tensor::nowhere(shape));
        }
        all.insert(format!("{stem}.eval_conv"), ways);
    }
    all
}

impl Ways {
    /// Those of `stem`; none if there are not all, or their shapes do not fit.
    fn of(tensors: &BTreeMap<String, Tensor>, stem: &str) -> Option<Self> {
        let part = |name: &str| {
            let get = |end: &str| tensors.get(&format!("{stem}.{name}.{end}")).cloned();
            Some([get("weight")?, get("bias")?])
        };
        let [sk, first, second, third] = PARTS.map(part);
        let ways = [sk?, first?, second?, third?];
        let shape = |i: usize| &ways[i][0].shape[..];
        let (&[co, ci, 1, 1], &[m, i, 1, 1], &[l, m2, 3, 3], &[o, l2, 1, 1]) =
            (shape(0), shape(1), shape(2), shape(3))
        else {
            return None;
        };
        let biases = ways.iter().all(|[w, b]| b.shape == w.shape[..1]);
        (biases && (i, m2, l2, o) == (ci, m, l, co)).then_some(Self(ways))
    }

    /// The shapes of the folded weight and bias.
    fn shapes(&self) -> [Vec<usize>; 2] {
        let shape = &self.0[0][0].shape;
        [vec![shape[0], shape[1], 3, 3], vec![shape[0]]]
    }

    /// The folded weight `[o, i, 3, 3]` and bias `[o]`.
    pub(super) fn fold(
        &self,
        read: &mut dyn FnMut(&Tensor) -> Parsed<Vec<f32>>,
    ) -> Parsed<[Vec<f32>; 2]> {
        let mut values = Vec::new();
        for way in self.0.iter().flatten() {
            values.push(read(way)?.into_iter().map(f64::from).collect::<Vec<f64>>());
        }
        let [sk, sb, w0, b0, w1, b1, w2, b2] = &values[..] else { return Err("no ways".into()) };
        let (m, l) = (b0.len(), b1.len());
        let (co, ci) = (sb.len(), sk.len() / sb.len().max(1));
        // The first two: [l, 9, i], and their bias.
        let mut inner = vec![0.0; l * 9 * ci];
        let mut bias = b1.clone();
        for (at, &w) in w1.iter().enumerate() {
            let (row, channel, tap) = (at / 9 / m, at / 9 % m, at % 9);
            bias[row] += w * b0[channel];
            let to = &mut inner[(row * 9 + tap) * ci..][..ci];
            to.iter_mut().zip(&w0[channel * ci..]).for_each(|(to, w0)| *to += w * w0);
        }
        let mut weight = vec![0.0; co * ci * 9];
        for (o, weight) in weight.chunks_exact_mut((ci * 9).max(1)).enumerate() {
            for (k, weight) in weight.iter_mut().enumerate() {
                let (i, tap) = (k / 9, k % 9);
                let middle = if tap == 4 { sk[o * ci + i] } else { 0.0 };
                let sum = (0..l).map(|row| w2[o * l + row] * inner[(row * 9 + tap) * ci + i]);
                *weight = middle + sum.sum::<f64>();
            }
        }
        let folded = |o: usize| -> f64 {
            sb[o] + b2[o] + (0..l).map(|row| w2[o * l + row] * bias[row]).sum::<f64>()
        };
        let bias: Vec<f64> = (0..co).map(folded).collect();
        #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
        Ok([weight, bias].map(|v| v.into_iter().map(|v| v as f32).collect()))
    }
}
