//! Conversion from and to the layout of the paper's reference implementation.
//!
//! `embed_in [V, D]`, `embed_out [V, D]`, `qkv [L, 3, N, D, H]`, `out [L, N, H, D]`,
//! `up [L, D, F]`, `down [L, F, D]`; ours keeps linear layers as `[out, in]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Layout, Params};

/// A tensor of the reference layout that is missing or has another size.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Not there.
    #[error("tensor `{0}` is missing")]
    Missing(&'static str),
    /// Other number of elements than the model's sizes ask for.
    #[error("tensor `{name}` holds {found} numbers, the model's sizes ask for {expected}")]
    Size {
        /// Tensor.
        name: &'static str,
        /// Numbers found.
        found: usize,
        /// Numbers expected.
        expected: usize,
    },
}

/// Names of the tensors of the reference layout.
const NAMES: [&str; 6] = ["embed_in", "embed_out", "qkv", "out", "up", "down"];

/// Calls `f(tensor, index there, index in our flat buffer)` for every number.
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
            // Row `row` of ours is (part, head, i); theirs is [part, head, D, i].
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

fn sizes(layout: &Layout) -> [usize; 6] {
    let mut sizes = [0; 6];
    for_each(layout, |tensor, _, _| sizes[tensor] += 1);
    sizes
}

/// Reads weights in the reference layout.
///
/// # Errors
/// [`LayoutError`] where a tensor is missing or of another size.
pub fn from_reference_layout<'a>(
    layout: &Arc<Layout>,
    tensor: impl Fn(&str) -> Option<&'a [f32]>,
) -> Result<Params, LayoutError> {
    let mut theirs: [&[f32]; 6] = [&[]; 6];
    for ((name, slot), expected) in NAMES.iter().zip(&mut theirs).zip(sizes(layout)) {
        *slot = tensor(name).ok_or(LayoutError::Missing(name))?;
        if slot.len() != expected {
            return Err(LayoutError::Size {
                name,
                found: slot.len(),
                expected,
            });
        }
    }
    let mut params = Params::zeros(layout);
    for_each(layout, |tensor, there, here| {
        params.data[here] = theirs[tensor][there]
    });
    Ok(params)
}

/// Writes weights (or gradients) in the reference layout.
pub fn to_reference_layout(layout: &Layout, data: &[f32]) -> BTreeMap<&'static str, Vec<f32>> {
    let mut theirs = sizes(layout).map(|len| vec![0.0; len]);
    for_each(layout, |tensor, there, here| {
        theirs[tensor][there] = data[here]
    });
    NAMES.into_iter().zip(theirs).collect()
}
