//! The network: a function of one number with tanh layers, its values and its gradient over a batch of points.

use std::ops::Range;

use super::product::{Panels, View, product};
use super::tanh::tanh_in_place;

/// The layers of a network from one input to one output: `1 → hidden[0] → … → 1`, tanh between them.
///
/// Its weights are one vector: for each layer the matrix `[inputs, outputs]`, row by row, then the biases `[outputs]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mlp {
    widths: Vec<usize>,
}

/// Where a layer's weights lie in the vector.
struct Layer {
    inputs: usize,
    outputs: usize,
    matrix: Range<usize>,
    biases: Range<usize>,
}

/// What a forward pass leaves for the backward pass, and memory for both; made once, used for every step.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    /// Of each layer the values `[points, width]`; the first are the inputs, the last the outputs.
    values: Vec<Vec<f64>>,
    /// Derivatives with respect to a layer's values, and to those before.
    slopes: [Vec<f64>; 2],
    panels: Panels,
}

impl Trace {
    /// The network's outputs, one a point.
    pub(super) fn outputs(&self) -> &[f64] {
        self.values.last().map_or(&[], Vec::as_slice)
    }
}

impl Mlp {
    /// A network with these hidden widths.
    pub(super) fn new(hidden: &[usize]) -> Self {
        let mut widths = vec![1];
        widths.extend(hidden);
        widths.push(1);
        Self { widths }
    }

    /// Number of weights, biases among them.
    pub(super) fn len(&self) -> usize {
        self.widths.windows(2).map(|w| (w[0] + 1) * w[1]).sum()
    }

    /// The layers, and where their weights lie.
    fn layers(&self) -> impl DoubleEndedIterator<Item = Layer> + ExactSizeIterator {
        let mut layers = Vec::with_capacity(self.widths.len());
        let mut at = 0;
        for pair in self.widths.windows(2) {
            let (inputs, outputs) = (pair[0], pair[1]);
            let biases = at + inputs * outputs;
            layers.push(Layer {
                inputs,
                outputs,
                matrix: at..biases,
                biases: biases..biases + outputs,
            });
            at = biases + outputs;
        }
        layers.into_iter()
    }

    /// Whether each weight of the vector is a matrix's, rather than a bias.
    pub(super) fn in_matrix(&self) -> Vec<bool> {
        self.layers()
            .flat_map(|l| {
                let biases = std::iter::repeat_n(false, l.biases.len());
                std::iter::repeat_n(true, l.matrix.len()).chain(biases)
            })
            .collect()
    }

    /// The function of these weights at `xs`; the trace keeps what [`backward`](Self::backward) needs.
    pub(super) fn forward<'t>(
        &self,
        weights: &[f64],
        xs: &[f64],
        trace: &'t mut Trace,
    ) -> &'t [f64] {
        let points = xs.len();
        trace.values.resize(self.widths.len(), Vec::new());
        trace.values[0].clear();
        trace.values[0].extend_from_slice(xs);
        let last = self.widths.len() - 2;
        for (i, layer) in self.layers().enumerate() {
            let (before, after) = trace.values.split_at_mut(i + 1);
            let out = &mut after[0];
            out.resize(points * layer.outputs, 0.0);
            product(
                out,
                &weights[layer.biases],
                View::rows(&before[i], points, layer.inputs),
                View::rows(&weights[layer.matrix], layer.inputs, layer.outputs),
                &mut trace.panels,
            );
            if i < last {
                tanh_in_place(out);
            }
        }
        trace.outputs()
    }

    /// Writes the gradient of a loss from its derivative with respect to each output of the last forward pass.
    pub(super) fn backward(
        &self,
        weights: &[f64],
        slopes: &[f64],
        trace: &mut Trace,
        gradient: &mut [f64],
    ) {
        let points = slopes.len();
        let Trace {
            values,
            slopes: [now, before],
            panels,
        } = trace;
        now.clear();
        now.extend_from_slice(slopes);
        for (i, layer) in self.layers().enumerate().rev() {
            let inputs = View::rows(&values[i], points, layer.inputs);
            let outputs = View::rows(now, points, layer.outputs);
            product(
                &mut gradient[layer.matrix.clone()],
                &[],
                inputs.transposed(),
                outputs,
                panels,
            );
            let biases = &mut gradient[layer.biases];
            biases.fill(0.0);
            for row in now.chunks_exact(layer.outputs) {
                for (sum, slope) in biases.iter_mut().zip(row) {
                    *sum += slope;
                }
            }
            if i == 0 {
                break;
            }
            before.resize(points * layer.inputs, 0.0);
            let matrix = View::rows(&weights[layer.matrix], layer.inputs, layer.outputs);
            product(before, &[], outputs, matrix.transposed(), panels);
            for (slope, value) in before.iter_mut().zip(&values[i]) {
                *slope *= 1.0 - value * value;
            }
            std::mem::swap(now, before);
        }
    }
}
