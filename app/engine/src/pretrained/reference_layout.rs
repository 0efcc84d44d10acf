//! Conversion from and to the tensors of the paper's reference implementation.
//!
//! `embed_in [V, D]`, `embed_out [V, D]`, `qkv [L, 3, N, D, H]`, `out [L, N, H, D]`,
//! `up [L, D, F]`, `down [L, F, D]`; ours keeps linear layers as `[out, in]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Layout, ModelConfig, Params};

/// Why weights in the reference layout cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A tensor is missing.
    #[error("tensor `{0}` is missing")]
    Missing(&'static str),
    /// A tensor has another number of elements than the model's sizes require.
    #[error("tensor `{name}` holds {found} numbers, the model's sizes ask for {expected}")]
    Size {
        /// Name of the tensor.
        name: &'static str,
        /// Number of elements it has.
        found: usize,
        /// Number of elements it should have.
        expected: usize,
    },
}

/// Names of the tensors of the reference layout.
const NAMES: [&str; 6] = ["embed_in", "embed_out", "qkv", "out", "up", "down"];

/// Names and shapes of the tensors of the reference layout.
pub(super) fn reference_tensors(model: &ModelConfig) -> [(&'static str, Vec<usize>); 6] {
    let (v, d, l) = (model.vocab_size, model.d_model, model.n_layers);
    let (n, h, f) = (model.n_heads, model.head_dim, model.d_ff);
    let shapes = [
        vec![v, d],
        vec![v, d],
        vec![l, 3, n, d, h],
        vec![l, n, h, d],
        vec![l, d, f],
        vec![l, f, d],
    ];
    let mut shapes = shapes.into_iter();
    NAMES.map(|name| (name, shapes.next().unwrap_or_default()))
}

/// Calls `f(tensor, index in the tensor, index in our flat buffer)` for every element.
fn for_each(layout: &Layout, mut f: impl FnMut(usize, usize, usize)) {
    let c = layout.config;
    let (d, h, n, ff) = (c.d_model, c.head_dim, c.n_heads, c.d_ff);
    for i in 0..c.vocab_size * d {
        f(0, i, layout.embed_in().start + i);
        f(1, i, layout.embed_out().start + i);
    }
    for l in 0..c.n_layers {
        let [qkv, out, up, down] = layout.block(l).map(|r| r.start);
        for row in 0..3 * d {
            // Our row is (part, head, i); the reference's tensor is [part, head, D, i].
            let (head, i) = (row / h, row % h);
            for k in 0..d {
                f(2, ((l * 3 * n + head) * d + k) * h + i, qkv + row * d + k);
            }
        }
        for row in 0..d {
            for k in 0..d {
                f(3, (l * d + k) * d + row, out + row * d + k);
            }
        }
        for row in 0..ff {
            for k in 0..d {
                f(4, (l * d + k) * ff + row, up + row * d + k);
                f(5, (l * ff + row) * d + k, down + k * ff + row);
            }
        }
    }
}

/// Number of elements of each tensor of the reference layout.
fn sizes(layout: &Layout) -> [usize; 6] {
    let mut sizes = [0; 6];
    for_each(layout, |tensor, _, _| sizes[tensor] += 1);
    sizes
}

/// Reads weights in the reference layout.
///
/// # Errors
/// [`LayoutError`] if a tensor is missing or has another size.
pub fn from_reference_layout<'a>(
    layout: &Arc<Layout>,
    tensor: impl Fn(&str) -> Option<&'a [f32]>,
) -> Result<Params, LayoutError> {
    let mut tensors: [&[f32]; 6] = [&[]; 6];
    for ((name, elements), expected) in NAMES.iter().zip(&mut tensors).zip(sizes(layout)) {
        *elements = tensor(name).ok_or(LayoutError::Missing(name))?;
        if elements.len() != expected {
            return Err(LayoutError::Size {
                name,
                found: elements.len(),
                expected,
            });
        }
    }
    let mut params = Params::zeros(layout);
    for_each(layout, |tensor, from, to| {
        params.data[to] = tensors[tensor][from]
    });
    Ok(params)
}

/// Writes weights (or gradients) in the reference layout.
pub fn to_reference_layout(layout: &Layout, data: &[f32]) -> BTreeMap<&'static str, Vec<f32>> {
    let mut tensors = sizes(layout).map(|len| vec![0.0; len]);
    for_each(layout, |tensor, to, from| tensors[tensor][to] = data[from]);
    NAMES.into_iter().zip(tensors).collect()
}
