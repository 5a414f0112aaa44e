//! Layers that inference runs as one: an activation in the pass of its convolution, maps that a convolution reads where
//! they lie, and attention without parameters (Wan et al. 2023) instead of its four layers.
use super::layer::{Activation, Kind, Layer};

/// What is done when it is a layer's turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Does {
    /// The layer itself.
    Layer,
    /// Nothing: a later one takes the layer in, and nothing else reads its value.
    Nothing,
    /// The convolution `layer` of one or several maps side by side, and the activation of this layer, where it is
    /// another one.
    Convolution {
        /// Its index.
        layer: usize,
    },
    /// `(x + o) (sigmoid(o) - 1/2)` of the values x and o.
    Attention,
}

/// A layer's turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) does: Does,
    /// The values that are read now.
    pub(super) reads: Vec<usize>,
}

/// The turns of `layers`; `same` says of two values whether they are maps of one shape.
pub(super) fn steps(layers: &[Layer], same: impl Fn(usize, usize) -> bool) -> Vec<Step> {
    let mut readers = vec![0; layers.len() + 1];
    layers.iter().flat_map(|l| &l.from).for_each(|&v| readers[v] += 1);
    let step = |layer: &Layer| Step { does: Does::Layer, reads: layer.from.clone() };
    let mut steps: Vec<Step> = layers.iter().map(step).collect();
    let known = Known { layers, readers };
    for i in 0..layers.len() {
        if let Some((x, o, parts)) = known.attention(i).filter(|&(x, o, _)| same(x, o)) {
            parts.into_iter().for_each(|part| steps[part] = nothing());
            steps[i] = Step { does: Does::Attention, reads: vec![x, o] };
        } else if let Some(layer) = known.convolution(i) {
            let mut reads = steps[layer].reads.clone();
            if layer != i {
                steps[layer] = nothing();
            }
            if let Some(concat) = known.joined(layer, reads[0]) {
                reads.clone_from(&layers[concat].from);
                steps[concat] = nothing();
            }
            steps[i] = Step { does: Does::Convolution { layer }, reads };
        }
    }
    steps
}

const fn nothing() -> Step {
    Step { does: Does::Nothing, reads: Vec::new() }
}

/// For each value the last step that reads it.
pub(super) fn last_reads(steps: &[Step]) -> Vec<Option<usize>> {
    let mut last = vec![None; steps.len() + 1];
    for (i, step) in steps.iter().enumerate() {
        step.reads.iter().for_each(|&v| last[v] = Some(i));
    }
    last
}

/// Layers, and how many read each value.
struct Known<'a> {
    layers: &'a [Layer],
    readers: Vec<usize>,
}

impl Known<'_> {
    /// The layer that makes `value`, if one layer reads it.
    fn alone(&self, value: usize) -> Option<usize> {
        value.checked_sub(1).filter(|_| self.readers[value] == 1)
    }

    /// The convolution that layer `i` is, or is the activation of.
    fn convolution(&self, i: usize) -> Option<usize> {
        match &self.layers[i].kind {
            Kind::Convolution(_) => Some(i),
            Kind::Prelu { .. }
            | Kind::Activation {
                activation: Activation::Relu | Activation::LeakyRelu(_) | Activation::Silu,
            } => {
                let layer = self.alone(self.layers[i].from[0])?;
                match &self.layers[layer].kind {
                    Kind::Convolution(w) if w.activation == Activation::None => Some(layer),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The concatenation that makes what the convolution `layer` reads, if it can read the parts.
    fn joined(&self, layer: usize, value: usize) -> Option<usize> {
        let concat = self.alone(value).filter(|&l| self.layers[l].kind == Kind::Concat)?;
        match &self.layers[layer].kind {
            Kind::Convolution(w) if w.kernel == 3 && w.stride == 1 && w.pad == 1 => Some(concat),
            _ => None,
        }
    }

    /// Of the last layer of `(x + o) (sigmoid(o) - 1/2)`: x, o, and the layers before it.
    fn attention(&self, i: usize) -> Option<(usize, usize, [usize; 3])> {
        let [a, b] = self.layers[i].from[..] else { return None };
        if self.layers[i].kind != Kind::Product {
            return None;
        }
        let of = |value: usize| self.alone(value).map(|layer| (layer, &self.layers[layer]));
        let ((sum, sum_layer), (shift, shift_layer)) = match (of(a)?, of(b)?) {
            (sum, shift) if matches!(sum.1.kind, Kind::Sum { .. }) => (sum, shift),
            (shift, sum) => (sum, shift),
        };
        if shift_layer.kind != (Kind::Affine { factor: 1.0, shift: -0.5 }) {
            return None;
        }
        let (sigmoid, sigmoid_layer) = of(shift_layer.from[0])?;
        if sigmoid_layer.kind != (Kind::Activation { activation: Activation::Sigmoid }) {
            return None;
        }
        let o = sigmoid_layer.from[0];
        let x = match (&sum_layer.kind, &sum_layer.from[..]) {
            (Kind::Sum { factors }, &[p, q]) if factors[..] == [1.0, 1.0] => match (p, q) {
                (x, p) | (p, x) if p == o && x != o => x,
                _ => return None,
            },
            _ => return None,
        };
        Some((x, o, [sum, shift, sigmoid]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::layer::Window;
    use super::*;

    fn layer(from: &[usize], kind: Kind) -> Layer {
        Layer { name: String::new(), from: from.to_vec(), kind }
    }

    fn convolution(from: usize) -> Layer {
        let window = Window {
            channels: [16, 16],
            kernel: 3,
            stride: 1,
            pad: 1,
            bias: false,
            activation: Activation::None,
        };
        layer(&[from], Kind::Convolution(window))
    }

    fn activation(from: usize, activation: Activation) -> Layer {
        layer(&[from], Kind::Activation { activation })
    }

    #[test]
    fn an_activation_goes_with_its_convolution_unless_another_layer_reads_between() {
        let mut layers = vec![convolution(0), activation(1, Activation::Silu)];
        let fused = steps(&layers, |_, _| true);
        assert_eq!(fused[0].does, Does::Nothing);
        assert_eq!(
            (&fused[1].does, &fused[1].reads[..]),
            (&Does::Convolution { layer: 0 }, &[0][..])
        );
        assert_eq!(last_reads(&fused), [Some(1), None, None]);
        layers.push(layer(&[1, 2], Kind::Sum { factors: vec![1.0, 1.0] }));
        let apart = steps(&layers, |_, _| true);
        assert_eq!(apart[0].does, Does::Convolution { layer: 0 });
        assert_eq!(apart[1].does, Does::Layer);
    }

    #[test]
    fn a_convolution_reads_the_parts_of_a_concatenation_that_is_its_own() {
        let mut layers = vec![convolution(0), layer(&[0, 1], Kind::Concat), convolution(2)];
        let fused = steps(&layers, |_, _| true);
        assert_eq!(fused[1].does, Does::Nothing);
        assert_eq!(fused[2].reads, [0, 1]);
        layers.push(layer(&[2, 3], Kind::Concat));
        assert_eq!(steps(&layers, |_, _| true)[2].reads, [2]);
    }

    #[test]
    fn attention_is_known_by_its_four_layers() {
        let layers = |half: f64| {
            vec![
                convolution(0),
                activation(1, Activation::Sigmoid),
                layer(&[2], Kind::Affine { factor: 1.0, shift: half }),
                layer(&[1, 0], Kind::Sum { factors: vec![1.0, 1.0] }),
                layer(&[4, 3], Kind::Product),
            ]
        };
        let fused = steps(&layers(-0.5), |_, _| true);
        assert_eq!((&fused[4].does, &fused[4].reads[..]), (&Does::Attention, &[0, 1][..]));
        assert!(fused[1..4].iter().all(|step| step.does == Does::Nothing));
        assert_eq!(steps(&layers(-0.25), |_, _| true)[4].does, Does::Layer);
        assert_eq!(steps(&layers(-0.5), |_, _| false)[4].does, Does::Layer);
    }
}
