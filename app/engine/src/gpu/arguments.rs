//! The arguments of each kernel, field by field as in its struct in `kernels.cu`, which says what they are.

#[cfg(feature = "cuda")]
use candle_core::cuda::cudarc::driver::DeviceRepr as OnGpu;
use half::bf16;

use super::pointers::{In, Out, Rounded};

/// What a launch on a GPU can take.
#[cfg(not(feature = "cuda"))]
pub trait OnGpu {}

/// The arguments of a kernel.
///
/// # Safety
/// It is the struct that the kernel of this name takes.
pub unsafe trait Kernel: OnGpu {
    /// Its name in `kernels.cu`.
    const NAME: &'static str;
}

macro_rules! arguments {
    ($($kernel:ident($name:ident) { $($field:ident: $type:ty,)* })*) => {
        $(
            #[doc = concat!("Arguments of `", stringify!($kernel), "`.")]
            #[repr(C)]
            #[derive(Debug)]
            pub struct $name<'a> {
                $(
                    #[doc = concat!("`", stringify!($field), "` of the kernel.")]
                    pub $field: $type,
                )*
            }

            // SAFETY: a test compares the structs, field by field and in size.
            unsafe impl Kernel for $name<'_> {
                const NAME: &'static str = stringify!($kernel);
            }

            // SAFETY: any bits of it are valid.
            #[cfg(feature = "cuda")]
            unsafe impl OnGpu for $name<'_> {}
            #[cfg(not(feature = "cuda"))]
            impl OnGpu for $name<'_> {}
        )*

        /// All kernels.
        #[cfg(test)]
        pub const ALL: &[Declared] = &[$(
            Declared {
                kernel: stringify!($kernel),
                name: stringify!($name),
                bytes: size_of::<$name>(),
                fields: &[$((stringify!($field), stringify!($type)),)*],
            },
        )*];
    };
}

/// The struct of a kernel as it is here.
#[cfg(test)]
pub struct Declared {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The struct's name.
    pub name: &'static str,
    /// Its size.
    pub bytes: usize,
    /// Name and type of each field.
    pub fields: &'static [(&'static str, &'static str)],
}

arguments! {
    embed_forward(EmbedForward) {
        h: Out<'a, f32>,
        table: In<'a, Rounded>,
        tokens: In<'a, u32>,
        d: usize,
        bf16: usize,
        scale: f32,
    }
    norm_forward(NormForward) {
        y: Out<'a, Rounded>,
        gained: Out<'a, Rounded>,
        sum: Out<'a, f32>,
        inv_rms: Out<'a, f32>,
        x: In<'a, f32>,
        gain: In<'a, Rounded>,
        rows: In<'a, u32>,
        d: usize,
        bf16: usize,
        eps: f32,
        offset: f32,
        scale: f32,
    }
    norm_backward(NormBackward) {
        dh: Out<'a, f32>,
        dh_rounded: Out<'a, Rounded>,
        gained: Out<'a, Rounded>,
        gain_sums: Out<'a, f32>,
        dy: In<'a, f32>,
        y: In<'a, Rounded>,
        inv_rms: In<'a, f32>,
        gain: In<'a, Rounded>,
        rows: In<'a, u32>,
        d: usize,
        bf16: usize,
        adds: usize,
        len: usize,
        len_of_block: usize,
        normed: usize,
        offset: f32,
        scale: f32,
    }
    sum_rows(SumRows) {
        sum: Out<'a, f32>,
        rows: In<'a, Rounded>,
        d: usize,
        len: usize,
        together: usize,
        distance: usize,
        columns: usize,
        adds: usize,
        bf16: usize,
    }
    qkv_forward(QkvForward) {
        q: Out<'a, Rounded>,
        k: Out<'a, Rounded>,
        v: Out<'a, Rounded>,
        inv_rms: Out<'a, f32>,
        qkv: In<'a, Rounded>,
        bias: In<'a, Rounded>,
        q_gain: In<'a, Rounded>,
        k_gain: In<'a, Rounded>,
        cos: In<'a, f32>,
        sin: In<'a, f32>,
        n_heads: usize,
        kv_heads: usize,
        seq_len: usize,
        head_dim: usize,
        bf16: usize,
        first: usize,
        keys: usize,
        first_key: usize,
        qk_norm: usize,
        eps: f32,
        offset: f32,
    }
    qkv_backward(QkvBackward) {
        d_qkv: Out<'a, Rounded>,
        gain_sums: Out<'a, f32>,
        dq: In<'a, Rounded>,
        dk: In<'a, f32>,
        dv: In<'a, f32>,
        q: In<'a, Rounded>,
        k: In<'a, Rounded>,
        qkv: In<'a, Rounded>,
        bias: In<'a, Rounded>,
        q_gain: In<'a, Rounded>,
        k_gain: In<'a, Rounded>,
        inv_rms: In<'a, f32>,
        cos: In<'a, f32>,
        sin: In<'a, f32>,
        n_heads: usize,
        kv_heads: usize,
        seq_len: usize,
        head_dim: usize,
        bf16: usize,
        qk_norm: usize,
        len: usize,
        len_of_block: usize,
        offset: f32,
    }
    swap_rows(SwapRows) {
        y: Out<'a, Rounded>,
        x: In<'a, Rounded>,
        rows: usize,
        columns: usize,
        width: usize,
        bf16: usize,
    }
    softmax_forward(SoftmaxForward) {
        p: Out<'a, Rounded>,
        lse: Out<'a, f32>,
        scores: In<'a, f32>,
        bf16: usize,
        keys: usize,
        queries: usize,
        group: usize,
        first: usize,
        window: usize,
        all_queries: usize,
        first_query: usize,
        scale: f32,
    }
    softmax_backward(SoftmaxBackward) {
        p: Out<'a, Rounded>,
        d_scores: Out<'a, Rounded>,
        scores: In<'a, f32>,
        lse: In<'a, f32>,
        dp: In<'a, f32>,
        bf16: usize,
        keys: usize,
        queries: usize,
        group: usize,
        first: usize,
        window: usize,
        all_queries: usize,
        first_query: usize,
        scale: f32,
    }
    gelu_forward(GeluForward) {
        y: Out<'a, Rounded>,
        x: In<'a, Rounded>,
        bf16: usize,
        f: usize,
    }
    gelu_backward(GeluBackward) {
        dx: Out<'a, Rounded>,
        y: Out<'a, Rounded>,
        dy: In<'a, Rounded>,
        x: In<'a, Rounded>,
        bf16: usize,
        f: usize,
    }
    glu_forward(GluForward) {
        y: Out<'a, Rounded>,
        x: In<'a, Rounded>,
        bf16: usize,
        f: usize,
        gelu: usize,
    }
    glu_backward(GluBackward) {
        dx: Out<'a, Rounded>,
        y: Out<'a, Rounded>,
        dy: In<'a, Rounded>,
        x: In<'a, Rounded>,
        bf16: usize,
        f: usize,
        gelu: usize,
    }
    score(Score) {
        losses: Out<'a, f32>,
        logits: Out<'a, Rounded>,
        reference: In<'a, Rounded>,
        targets: In<'a, u32>,
        ntp_weights: In<'a, f32>,
        kl_weights: In<'a, f32>,
        bf16: usize,
        v: usize,
    }
    embed_backward(EmbedBackward) {
        grad: Out<'a, f32>,
        sums: Out<'a, f32>,
        to: In<'a, u32>,
        starts: In<'a, u32>,
        order: In<'a, u32>,
        dh: In<'a, f32>,
        d: usize,
        v: usize,
        scale: f32,
    }
    multiply(Multiply) {
        x: Out<'a, f32>,
        y: In<'a, f32>,
        len: usize,
        stretch: usize,
    }
    round_to(RoundTo) {
        y: Out<'a, Rounded>,
        x: In<'a, f32>,
        len: usize,
        stretch: usize,
        bf16: usize,
    }
    adamw(AdamW) {
        w: Out<'a, f32>,
        m: Out<'a, f32>,
        v: Out<'a, f32>,
        squares: Out<'a, f32>,
        rounded: Out<'a, bf16>,
        old_w: In<'a, f32>,
        old_m: In<'a, f32>,
        old_v: In<'a, f32>,
        grad: In<'a, f32>,
        len: usize,
        stretch: usize,
        beta1: f32,
        rest1: f32,
        beta2: f32,
        rest2: f32,
        correct1: f32,
        correct2: f32,
        eps: f32,
        lr: f32,
        weight_decay: f32,
    }
    choose(Choose) {
        tokens: Out<'a, u32>,
        logits: In<'a, f32>,
        uniforms: In<'a, f32>,
        v: usize,
        top_k: usize,
        top_p: f32,
        inv_temperature: f32,
    }
}
