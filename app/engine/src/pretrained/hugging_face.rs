//! Conversion from and to the tensors of Hugging Face's checkpoints.
//!
//! Both layouts keep linear layers as `[out, in]` and pair a head's dimension `i` with `i + H/2` in RoPE.
//! Ours fuses tensors by stacking their rows, so that each of Hugging Face's tensors is one range of our
//! buffer.

use std::ops::Range;
use std::sync::Arc;

use crate::model::{Layout, ModelConfig, Norms, Params, Vector};

use super::family::Family;

/// The file of weights that are not sharded.
pub(super) const SINGLE: &str = "model.safetensors";
/// The file that lists the shard of each tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// Name and shape of every tensor of a checkpoint, in the order of our layout.
///
/// # Panics
/// If the model is of no [`Family`].
pub fn hugging_face_tensors(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    places(&Layout::new(*config))
        .into_iter()
        .map(|(name, shape, _)| (name, shape))
        .collect()
}

/// Reads weights tensor by tensor; `tensor` returns the elements for a name and a shape.
///
/// # Errors
/// The first error of `tensor`.
///
/// # Panics
/// If the model is of no [`Family`], or `tensor` returns another number of elements.
pub fn from_hugging_face<E>(
    layout: &Arc<Layout>,
    mut tensor: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
) -> Result<Params, E> {
    let mut params = Params::zeros(layout);
    for (name, shape, range) in places(layout) {
        params.data[range].copy_from_slice(&tensor(&name, &shape)?);
    }
    Ok(params)
}

/// Name, shape and elements of every tensor of a checkpoint.
///
/// # Panics
/// If the model is of no [`Family`].
pub fn hugging_face_views(params: &Params) -> impl Iterator<Item = (String, Vec<usize>, &[f32])> {
    places(&params.layout)
        .into_iter()
        .map(|(name, shape, range)| (name, shape, &params.data[range]))
}

/// [`hugging_face_views`] with copies of the elements.
///
/// # Panics
/// If the model is of no [`Family`].
pub fn to_hugging_face(params: &Params) -> impl Iterator<Item = (String, Vec<usize>, Vec<f32>)> {
    hugging_face_views(params).map(|(name, shape, elements)| (name, shape, elements.to_vec()))
}

/// Name, shape and range in our flat buffer of every tensor.
fn places(layout: &Layout) -> Vec<(String, Vec<usize>, Range<usize>)> {
    let c = &layout.config;
    assert!(Family::of(c).is_some(), "no family has such parts: {c:?}");
    let (d, f) = (c.d_model, c.d_ff);
    let mut places = Vec::new();
    // Adds tensors whose rows of `width` elements fill the range `whole`, one tensor after another.
    let mut add = |whole: Range<usize>, width: usize, parts: &[(String, usize)]| {
        let mut start = whole.start;
        for (name, rows) in parts {
            let end = start + rows * width;
            places.push((format!("{name}.weight"), vec![*rows, width], start..end));
            start = end;
        }
        debug_assert_eq!(start, whole.end);
    };
    add(
        layout.embed_in(),
        d,
        &[("model.embed_tokens".into(), c.vocab_size)],
    );
    if !c.tied_embeddings {
        add(layout.embed_out(), d, &[("lm_head".into(), c.vocab_size)]);
    }
    for l in 0..c.n_layers {
        let part = |name: &str, rows: usize| (format!("model.layers.{l}.{name}"), rows);
        let (q, kv) = (c.q_width(), c.n_kv_heads * c.head_dim);
        let [qkv, out, gate_up, down] = layout.block(l);
        let qkv_parts = [
            part("self_attn.q_proj", q),
            part("self_attn.k_proj", kv),
            part("self_attn.v_proj", kv),
        ];
        add(qkv, d, &qkv_parts);
        add(out, q, &[part("self_attn.o_proj", d)]);
        add(
            gate_up,
            d,
            &[part("mlp.gate_proj", f), part("mlp.up_proj", f)],
        );
        add(down, f, &[part("mlp.down_proj", d)]);
    }
    for l in 0..c.n_layers {
        for (vector, _) in c.vectors() {
            let Some(range) = layout.vector(l, vector) else {
                continue;
            };
            let mut start = range.start;
            for (name, len) in vector_parts(c, vector, range.len()) {
                let name = format!("model.layers.{l}.{name}");
                places.push((name, vec![len], start..start + len));
                start += len;
            }
            debug_assert_eq!(start, range.end);
        }
    }
    if let Some(range) = layout.final_gains() {
        places.push(("model.norm.weight".into(), vec![d], range));
    }
    places
}

/// Names and lengths of the tensors that a vector holds, one after another.
fn vector_parts(c: &ModelConfig, vector: Vector, len: usize) -> Vec<(&'static str, usize)> {
    let is_between = c.parts.norms == Norms::Before;
    let name = match vector {
        Vector::AttentionNorm => "input_layernorm.weight",
        Vector::MlpNorm if is_between => "post_attention_layernorm.weight",
        Vector::MlpNorm => "pre_feedforward_layernorm.weight",
        Vector::AttentionPostNorm => "post_attention_layernorm.weight",
        Vector::MlpPostNorm => "post_feedforward_layernorm.weight",
        Vector::QNorm => "self_attn.q_norm.weight",
        Vector::KNorm => "self_attn.k_norm.weight",
        Vector::QkvBias => {
            return vec![
                ("self_attn.q_proj.bias", c.q_width()),
                ("self_attn.k_proj.bias", c.kv_width()),
                ("self_attn.v_proj.bias", c.kv_width()),
            ];
        }
    };
    vec![(name, len)]
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn config(tied_embeddings: bool) -> ModelConfig {
        ModelConfig {
            tied_embeddings,
            ..ModelConfig::llama(12, 2, [4, 2, 6], 20, 9)
        }
    }

    /// Else a model would be trained, or given away, with some of its tensors mixed up.
    #[test]
    fn a_round_trip_keeps_every_number_and_every_number_is_somewhere() {
        for tied in [false, true] {
            let layout = Layout::new(config(tied));
            let mut params = Params::zeros(&layout);
            for (i, x) in params.data.iter_mut().enumerate() {
                *x = i as f32;
            }
            let tensors: Vec<_> = to_hugging_face(&params).collect();
            let names = tensors.iter().map(|(n, s, _)| (n.clone(), s.clone()));
            assert_eq!(
                names.collect::<Vec<_>>(),
                hugging_face_tensors(&layout.config)
            );
            let back = from_hugging_face(&layout, |name, shape| {
                let (_, s, elements) = tensors.iter().find(|(n, ..)| n == name).expect(name);
                assert_eq!(s, shape);
                Ok::<_, Infallible>(elements.clone())
            });
            assert_eq!(back, Ok(params));
            let mut elements: Vec<f32> = tensors.into_iter().flat_map(|(.., x)| x).collect();
            elements.sort_by(f32::total_cmp);
            assert!(elements.iter().enumerate().all(|(i, &x)| x == i as f32));
            assert_eq!(elements.len(), layout.len);
        }
    }

    /// Written out by hand: rows of q, k, v, and of gate and up, stand in this order.
    #[test]
    fn fused_tensors_are_cut_where_one_ends() {
        let layout = Layout::new(config(true));
        let places = places(&layout);
        let place = |name: &str| {
            let name = format!("model.layers.1.{name}.weight");
            let (_, shape, range) = places.iter().find(|(n, ..)| *n == name).expect("tensor");
            (shape.as_slice(), range.clone())
        };
        let [qkv, out, gate_up, _] = layout.block(1).map(|range| range.start);
        for (name, shape, start) in [
            ("self_attn.q_proj", &[24, 12][..], qkv),
            ("self_attn.k_proj", &[12, 12], qkv + 24 * 12),
            ("self_attn.v_proj", &[12, 12], qkv + 36 * 12),
            ("self_attn.o_proj", &[12, 24], out),
            ("mlp.gate_proj", &[20, 12], gate_up),
            ("mlp.up_proj", &[20, 12], gate_up + 20 * 12),
        ] {
            let len: usize = shape.iter().product();
            assert_eq!(place(name), (shape, start..start + len), "{name}");
        }
        let gains = |vector| layout.vector(1, vector).expect("gains");
        let (first, second) = (gains(Vector::AttentionNorm), gains(Vector::MlpNorm));
        assert_eq!(place("input_layernorm"), (&[12][..], first));
        assert_eq!(place("post_attention_layernorm"), (&[12][..], second));
    }
}
