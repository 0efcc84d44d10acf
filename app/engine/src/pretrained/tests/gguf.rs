//! GGUF files: small ones made here, and SmolLM2's where it is at hand.

use std::io::Cursor;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use crate::model::Blocks;
use crate::ops::rope::{Rope, RopeScaling};

use super::super::gguf::{Gguf, gguf_name};
use super::super::{Family, hugging_face_views};
use super::{
    ModelConfig, Path, Pretrained, PretrainedError, Source, TempDir, fixture, fs, open_path,
    refused,
};

/// A model as GGUF metadata and tensors.
pub(super) struct Parts {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, QTensor)>,
}

fn quantise(shape: &[usize], numbers: &[f32], dtype: GgmlDType) -> QTensor {
    let tensor = Tensor::from_slice(numbers, shape, &Device::Cpu).expect("tensor");
    QTensor::quantize(&tensor, dtype).expect("quantised")
}

impl Parts {
    /// What llama.cpp's converter makes of a Hugging Face folder.
    pub(super) fn of(kind: &str) -> Self {
        let model = open_path(&fixture(kind)).expect("opens");
        let params = model.load(&()).expect("loads");
        let c = model.config;
        let sizes = [
            ("block_count", c.n_layers),
            ("context_length", 4096),
            ("embedding_length", c.d_model),
            ("feed_forward_length", c.d_ff),
            ("attention.head_count", c.n_heads),
            ("attention.head_count_kv", c.n_kv_heads),
            ("rope.dimension_count", c.head_dim),
            ("vocab_size", c.vocab_size),
        ];
        let mut metadata: Vec<(String, Value)> = sizes
            .map(|(key, n)| (format!("llama.{key}"), Value::U32(n as u32)))
            .into();
        let epsilon = "llama.attention.layer_norm_rms_epsilon";
        let template = "{{ bos_token }}{{ messages[0].content }}";
        let tokens = ["<pad>", "<s>", "</s>"].map(|token| Value::String(token.into()));
        for (key, value) in [
            ("general.architecture", Value::String("llama".into())),
            (epsilon, Value::F32(c.norm_eps)),
            ("llama.rope.freq_base", Value::F32(c.rope.base as f32)),
            ("tokenizer.ggml.bos_token_id", Value::U32(1)),
            ("tokenizer.ggml.eos_token_id", Value::U32(2)),
            ("tokenizer.ggml.padding_token_id", Value::U32(0)),
            ("tokenizer.ggml.tokens", Value::Array(tokens.into())),
            ("tokenizer.chat_template", Value::String(template.into())),
        ] {
            metadata.push((key.into(), value));
        }
        let mut tensors = Vec::new();
        for (name, shape, numbers) in hugging_face_views(&params) {
            let heads = match name.split('.').nth_back(1) {
                Some("q_proj") => Some(c.n_heads),
                Some("k_proj") => Some(c.n_kv_heads),
                _ => None,
            };
            let permuted = heads.map_or(numbers.to_vec(), |n| permute(numbers, n, &shape));
            let tensor = quantise(&shape, &permuted, GgmlDType::F32);
            tensors.push((gguf_name(&name, Family::Llama), tensor));
        }
        if let Some(scaling) = c.rope.scaling {
            let factors = rope_factors(c.rope.base, c.head_dim, scaling);
            let tensor = quantise(&[factors.len()], &factors, GgmlDType::F32);
            tensors.push(("rope_freqs.weight".into(), tensor));
        }
        Self { metadata, tensors }
    }

    /// The same of a fixture of a family, of this architecture of llama.cpp's.
    fn of_family(name: &str, architecture: &str, family: Family) -> Self {
        let model = open_path(&super::family(name)).expect("opens");
        let params = model.load(&()).expect("loads");
        let (c, parts) = (model.config, model.config.parts);
        let number = |key: &str, n: usize| (key.to_owned(), Value::U32(n as u32));
        let factor = |key: &str, x: f32| (key.to_owned(), Value::F32(x));
        let mut metadata = vec![
            number("block_count", c.n_layers),
            number("context_length", 2048),
            number("embedding_length", c.d_model),
            number("feed_forward_length", c.d_ff),
            number("attention.head_count", c.n_heads),
            number("attention.head_count_kv", c.n_kv_heads),
            number("attention.key_length", c.head_dim),
            number("attention.value_length", c.head_dim),
            number("vocab_size", c.vocab_size),
            factor("attention.layer_norm_rms_epsilon", c.norm_eps),
            factor("rope.freq_base", c.rope.base as f32),
        ];
        match family {
            Family::Granite => metadata.extend([
                factor("attention.scale", c.attention_scale()),
                factor("embedding_scale", parts.embedding_scale),
                factor("residual_scale", parts.residual_scale),
                factor("logit_scale", 1.0 / parts.logits_scale),
            ]),
            Family::Gemma3 => metadata.push(number("attention.sliding_window", 7)),
            _ => {}
        }
        for (key, _) in &mut metadata {
            *key = format!("{architecture}.{key}");
        }
        let text = Value::String(architecture.into());
        metadata.push(("general.architecture".into(), text));
        let is_permuted = matches!(family, Family::Mistral | Family::SmolLm3 | Family::Granite);
        let mut tensors = Vec::new();
        for (name, shape, numbers) in hugging_face_views(&params) {
            let mut numbers = numbers.to_vec();
            if is_permuted && name.ends_with("q_proj.weight") {
                numbers = permute(&numbers, c.n_heads, &shape);
            }
            if is_permuted && name.ends_with("k_proj.weight") {
                numbers = permute(&numbers, c.n_kv_heads, &shape);
            }
            if family == Family::Gemma3 && name.ends_with("norm.weight") {
                numbers.iter_mut().for_each(|x| *x += 1.0);
            }
            let tensor = quantise(&shape, &numbers, GgmlDType::F32);
            tensors.push((gguf_name(&name, family), tensor));
        }
        Self { metadata, tensors }
    }

    fn set(&mut self, key: &str, value: Value) -> &mut Self {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.into(), value));
        self
    }

    fn replace(&mut self, name: &str, tensor: QTensor) {
        let place = self.tensors.iter_mut().find(|(n, _)| n == name);
        place.expect(name).1 = tensor;
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let metadata: Vec<_> = self.metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let tensors: Vec<_> = self.tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let mut bytes = Cursor::new(Vec::new());
        gguf_file::write(&mut bytes, &metadata, &tensors).expect("GGUF");
        bytes.into_inner()
    }

    fn open(&self) -> Result<(TempDir, Pretrained), PretrainedError> {
        opened(&self.bytes())
    }
}

fn opened(bytes: &[u8]) -> Result<(TempDir, Pretrained), PretrainedError> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).expect("write");
    Ok((folder, open_path(&path)?))
}

/// `LlamaModel.permute` of llama.cpp's `convert_hf_to_gguf.py`:
/// `weights.reshape(n_head, 2, rows // n_head // 2, cols).swapaxes(1, 2).reshape(weights.shape)`.
fn permute(numbers: &[f32], n_head: usize, shape: &[usize]) -> Vec<f32> {
    let (rows, columns) = (shape[0], shape[1]);
    let weights = Tensor::from_slice(
        numbers,
        (n_head, 2, rows / n_head / 2, columns),
        &Device::Cpu,
    );
    let swapped = weights.and_then(|w| w.transpose(1, 2)?.contiguous());
    let flat = swapped.and_then(|w| w.flatten_all()?.to_vec1());
    flat.expect("permuted")
}

/// `generate_extra_tensors` of the same script.
fn rope_factors(base: f64, head_dim: usize, s: RopeScaling) -> Vec<f32> {
    let low_wavelength = s.original_max_positions / s.low_freq_factor;
    let high_wavelength = s.original_max_positions / s.high_freq_factor;
    let factor = |i: usize| {
        let frequency = 1.0 / base.powf((2 * i) as f64 / head_dim as f64);
        let wavelength = std::f64::consts::TAU / frequency;
        if wavelength < high_wavelength {
            return 1.0;
        } else if wavelength > low_wavelength {
            return s.factor;
        }
        let smooth = (s.original_max_positions / wavelength - s.low_freq_factor)
            / (s.high_freq_factor - s.low_freq_factor);
        1.0 / ((1.0 - smooth) / s.factor + smooth)
    };
    (0..head_dim / 2).map(|i| factor(i) as f32).collect()
}

/// Else attention would turn the wrong pairs, and the model would talk nonsense.
#[test]
fn a_converted_model_is_the_model_it_was() {
    for kind in ["tied", "untied"] {
        let original = open_path(&fixture(kind)).expect("opens");
        let (_folder, model) = Parts::of(kind).open().expect("opens");
        let (mut converted, mut expected) = (model.config, original.config);
        let frequencies = [converted, expected].map(|c| c.rope.frequencies(c.head_dim));
        for (a, b) in frequencies[0].iter().zip(&frequencies[1]) {
            assert!((a / b - 1.0).abs() < 1e-6, "{frequencies:?}");
        }
        assert_eq!(converted.rope.scaling.is_some(), kind == "tied");
        (converted.rope.scaling, expected.rope.scaling) = (None, None);
        assert_eq!(converted, expected);
        assert_eq!(model.ids, original.ids);
        assert_eq!(model.max_positions, Some(4096));
        let load = |model: &Pretrained| model.load(&()).expect("loads").data;
        assert_eq!(load(&model), load(&original));
        let Source::Gguf(gguf) = &model.source else {
            panic!("no GGUF")
        };
        let config = gguf.tokenizer_config();
        assert_eq!(
            (&config["bos_token"], &config["pad_token"]),
            (&"<s>".into(), &"<pad>".into())
        );
        assert!(
            config["chat_template"]
                .as_str()
                .is_some_and(|t| t.contains("bos_token"))
        );
    }
}

/// Llama 3.1 and 3.2 as they are: heads of 64 and 128, 8192 positions.
#[test]
fn rope_factors_of_the_real_models_are_understood() {
    for (head_dim, factor) in [(64, 32.0), (128, 8.0)] {
        let scaling = RopeScaling {
            factor,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 8192.0,
        };
        let factors = rope_factors(500_000.0, head_dim, scaling);
        let mut parts = Parts::of("tied");
        parts.set("llama.attention.key_length", Value::U32(head_dim as u32));
        parts.set("llama.rope.dimension_count", Value::U32(head_dim as u32));
        let tensor = quantise(&[factors.len()], &factors, GgmlDType::F32);
        parts.replace("rope_freqs.weight", tensor);
        let (_folder, model) = parts.open().expect("opens");
        assert_eq!(model.config.rope.scaling, Some(scaling));
    }
}

/// Numbers that each kind of block holds exactly.
#[test]
fn blocks_are_dequantised_to_the_numbers_they_hold() {
    let shape = [160, 64];
    let at = |f: fn(usize) -> f32| (0..160 * 64).map(f).collect::<Vec<f32>>();
    for (dtype, numbers) in [
        (GgmlDType::F16, at(|i| (i % 1000) as f32 / 8.0)),
        (GgmlDType::BF16, at(|i| (i % 250) as f32 / 4.0)),
        // 127 steps to each side: the block's scale is ½.
        (GgmlDType::Q8_0, at(|i| [63.5, -3.5, 0.0, 17.0][i % 4])),
        // 15 steps of ¼ from the least number.
        (GgmlDType::Q4_1, at(|i| (i % 16) as f32 / 4.0 - 1.0)),
    ] {
        let mut parts = Parts::of("untied");
        parts.replace("blk.1.ffn_up.weight", quantise(&shape, &numbers, dtype));
        let (_folder, model) = parts.open().expect("opens");
        let params = model.load(&()).expect("loads");
        let [_, _, gate_up, _] = params.layout.block(1);
        let up = &params.data[gate_up][160 * 64..];
        assert!(up == numbers, "{dtype:?}");
        let storage = model.storage().expect("storage");
        assert_eq!(storage.dtypes[&format!("{dtype:?}")], 1);
    }
}

/// Else another model, or half of one, would be trained.
#[test]
fn what_is_no_whole_llama_is_refused_by_name() {
    let text = |text: &str| Value::String(text.into());
    for (key, value, says) in [
        (
            "general.architecture",
            text("phi3"),
            &["architecture `phi3`"][..],
        ),
        (
            "llama.rope.scaling.type",
            text("yarn"),
            &["llama.rope.scaling.type", "`yarn`"],
        ),
        ("llama.expert_count", Value::U32(8), &["experts"]),
        (
            "llama.block_count",
            Value::U32(0),
            &["llama.block_count", "is 0"],
        ),
        (
            "llama.block_count",
            text("three"),
            &["llama.block_count", "not one number"],
        ),
        (
            "llama.rope.dimension_count",
            Value::U32(8),
            &["dimension_count", "head size 16"],
        ),
    ] {
        refused(Parts::of("tied").set(key, value).open(), says);
    }
    let mut parts = Parts::of("tied");
    let odd = quantise(
        &[8],
        &[1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 4.0, 6.0],
        GgmlDType::F32,
    );
    parts.replace("rope_freqs.weight", odd);
    refused(parts.open(), &["rope_freqs.weight", "Llama 3's formula"]);

    let mut parts = Parts::of("untied");
    parts
        .tensors
        .retain(|(name, _)| name != "blk.2.attn_v.weight");
    parts.tensors.push((
        "blk.2.attn_v.bias".into(),
        quantise(&[8], &[0.0; 8], GgmlDType::F32),
    ));
    let (_folder, model) = parts.open().expect("opens");
    let says = [
        "1 missing (blk.2.attn_v.weight)",
        "1 unexpected (blk.2.attn_v.bias)",
    ];
    refused(model.load(&()), &says);

    let whole = Parts::of("untied").bytes();
    for len in [0, 3, 100, whole.len() / 2, whole.len() - 64] {
        refused(opened(&whole[..len]), &["is not a whole GGUF file"]);
    }
    refused(
        opened(b"GGML, long ago"),
        &["is not a whole GGUF file", "magic"],
    );
}

/// A model that cannot be, or another one than the file means, would train to nothing.
#[test]
fn metadata_that_cannot_be_are_refused_by_name() {
    let text = |text: &str| Value::String(text.into());
    for (key, value, says) in [
        (
            "llama.block_count",
            Value::U32(1 << 30),
            &["num_hidden_layers", "1073741824, more than"][..],
        ),
        (
            "llama.embedding_length",
            Value::F32(f32::NAN),
            &["embedding_length", "is NaN"],
        ),
        (
            "llama.attention.head_count_kv",
            Value::I32(-2),
            &["head_count_kv", "is -2"],
        ),
        (
            "llama.rope.freq_base",
            Value::F32(0.0),
            &["rope_theta", "is 0, not a positive number"],
        ),
        (
            "llama.attention.layer_norm_rms_epsilon",
            Value::F32(-1.0),
            &["rms_norm_eps", "is -1, not a positive number"],
        ),
        (
            "llama.attention.sliding_window",
            Value::U32(128),
            &["sliding_window", "within a window"],
        ),
        (
            "llama.rope.scale_linear",
            Value::F32(2.0),
            &["scale_linear", "is not 1"],
        ),
        (
            "general.type",
            text("adapter"),
            &["`adapter`", "no whole model"],
        ),
        ("split.count", Value::U16(3), &["is 3", "llama-gguf-split"]),
        (
            "general.alignment",
            Value::U32(0),
            &["general.alignment", "not a power of two"],
        ),
        (
            "llama.attention.head_count_kv",
            Value::U32(3),
            &["does not divide the 4"],
        ),
    ] {
        refused(Parts::of("tied").set(key, value).open(), says);
    }
}

/// The file is whole; to call it broken would have it fetched again and again.
#[test]
fn a_quantisation_that_is_not_read_is_named() {
    let bytes = Parts::of("untied").bytes();
    let name = b"blk.1.ffn_up.weight";
    let at = bytes.windows(name.len()).position(|part| part == name);
    // The name, the number of dimensions, two dimensions, the format.
    let at = at.expect("tensor") + name.len() + 4 + 2 * 8;
    for (code, says) in [
        (20, "IQ4_NL, a quantisation that is not read"),
        (23, "IQ4_XS, a quantisation"),
        (39, "MXFP4, a quantisation"),
        (9, "Q8_1, a quantisation"),
        (28, "F64, a quantisation"),
        (77, "the number format 77"),
    ] {
        let mut other = bytes.clone();
        other[at] = code;
        let says = ["blk.1.ffn_up.weight", says, "take the file", "can be read"];
        refused(opened(&other), &says);
    }
    for (version, says) in [
        ([0, 0, 0, 3], "big-endian"),
        ([9, 0, 0, 0], "version 9 of GGUF"),
    ] {
        let mut other = bytes.clone();
        other[4..8].copy_from_slice(&version);
        refused(opened(&other), &[says]);
    }
}

/// Else a text of a model from GGUF would go on after its end, or padding would be a token it is not.
#[test]
fn special_tokens_are_those_of_the_vocabulary() {
    let mut parts = Parts::of("tied");
    parts.set("tokenizer.ggml.eot_token_id", Value::U32(7));
    parts.set("tokenizer.ggml.eom_token_id", Value::U32(9));
    parts.set("tokenizer.ggml.padding_token_id", Value::I32(-1));
    parts.set("tokenizer.ggml.bos_token_id", Value::U32(u32::MAX));
    parts.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
    let (_folder, model) = parts.open().expect("opens");
    assert_eq!((&model.ids.eos[..], model.ids.pad), (&[2, 7, 9][..], None));
    assert_eq!(model.ids.bos, None);
    assert_eq!(model.warnings.len(), 2, "{:?}", model.warnings);
    assert!(
        model
            .warnings
            .iter()
            .any(|w| w.contains("padding_token_id` is -1"))
    );
    let Source::Gguf(gguf) = &model.source else {
        panic!("no GGUF")
    };
    let config = gguf.tokenizer_config();
    assert_eq!(config["add_bos_token"], true);
    assert!(config.get("bos_token").is_none());
}

/// The real model that the CPU experiment trains.
#[test]
fn smollm2_is_read_whole() {
    let Ok(path) = std::env::var("FORGETLAB_SMOLLM2") else {
        eprintln!("skipped: FORGETLAB_SMOLLM2 names no .gguf of SmolLM2-135M-Instruct");
        return;
    };
    let model = open_path(Path::new(&path)).expect("opens");
    let expected = ModelConfig {
        rope: Rope {
            base: 100_000.0,
            scaling: None,
        },
        ..ModelConfig::llama(576, 30, [9, 3, 64], 1536, 49_152)
    };
    assert_eq!(model.config, expected);
    assert_eq!((model.ids.bos, &model.ids.eos[..]), (Some(1), &[2][..]));
    let params = model.load(&()).expect("loads");
    assert_eq!(params.data.len(), 134_515_008);
    for (name, _, numbers) in params.tensors() {
        let size = numbers.iter().map(|x| x.abs()).fold(0.0, f32::max);
        assert!(size.is_finite() && size > 1e-3, "{name}: {size}");
    }
}

/// Else a family's file would be read with rows out of order, gains off by one, or factors left out: all would load, and
/// talk nonsense.
#[test]
fn families_are_read_as_the_converter_writes_them() {
    for (name, architecture, family) in [
        ("mistral", "llama", Family::Mistral),
        ("qwen2", "qwen2", Family::Qwen2),
        ("qwen3", "qwen3", Family::Qwen3),
        ("smollm3", "smollm3", Family::SmolLm3),
        ("granite", "granite", Family::Granite),
        ("olmo2", "olmo2", Family::Olmo2),
        ("gemma3", "gemma3", Family::Gemma3),
    ] {
        let expected = open_path(&super::family(name)).expect("opens");
        let (_folder, model) = Parts::of_family(name, architecture, family)
            .open()
            .expect(name);
        let mut config = expected.config;
        match family {
            // llama.cpp knows one pattern of blocks alone, and one scale of attention.
            Family::SmolLm3 => config.parts.unrotated = Blocks::NONE,
            Family::Gemma3 => {
                config.parts.attention_scale = Some(8f64.powf(-0.5) as f32);
                let window = config.parts.window.as_mut().expect("window");
                window.blocks = Blocks::from_bits(0b111);
            }
            _ => {}
        }
        assert_eq!(model.config, config, "{name}");
        let (found, expected) = (
            model.load(&()).expect(name),
            expected.load(&()).expect(name),
        );
        let pairs = found.data.iter().zip(&expected.data);
        let worst = pairs.fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        // Adding 1 to a gain, and taking it away, rounds.
        assert!(worst < 2e-7, "{name}: {worst:e}");
    }
}

/// The description in the metadata, whatever the tensors are.
fn described(parts: &Parts) -> Result<ModelConfig, PretrainedError> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.gguf");
    fs::write(&path, parts.bytes()).expect("write");
    Ok(Gguf::open(&path)?.describe()?.model)
}

/// llama.cpp knows patterns of blocks by the architecture and the number of blocks alone.
#[test]
fn patterns_of_blocks_are_those_of_llama_cpp() {
    let with_blocks = |name: &str, family, n: u32| {
        let mut parts = Parts::of_family(name, name, family);
        parts.set(&format!("{name}.block_count"), Value::U32(n));
        parts
    };
    let smol = described(&with_blocks("smollm3", Family::SmolLm3, 12)).expect("SmolLM3");
    assert_eq!(smol.parts.unrotated, Blocks::from_bits(0b1000_1000_1000));
    let mut gemma = with_blocks("gemma3", Family::Gemma3, 12);
    let window = described(&gemma)
        .expect("Gemma 3")
        .parts
        .window
        .expect("a window");
    assert_eq!(window.blocks, Blocks::from_bits(0b0111_1101_1111));
    assert_eq!(window.rope.map(|rope| rope.base), Some(10_000.0));
    gemma.set("gemma3.rope.freq_base_swa", Value::F32(500.0));
    let window = described(&gemma)
        .expect("Gemma 3")
        .parts
        .window
        .expect("a window");
    assert_eq!(window.rope.map(|rope| rope.base), Some(500.0));
    gemma.set("gemma3.attention.sliding_window_pattern", Value::U32(4));
    refused(described(&gemma), &["sliding_window_pattern", "is not 6"]);
    // The largest is told by its blocks.
    let largest = described(&with_blocks("gemma3", Family::Gemma3, 62)).expect("Gemma 3");
    let heads = largest.d_model / largest.n_heads;
    assert_eq!(
        largest.parts.attention_scale,
        Some((heads as f64).powf(-0.5) as f32)
    );
    assert_ne!(heads, largest.head_dim);

    let mut granite = with_blocks("granite", Family::Granite, 3);
    granite.set("granite.rope.scaling.finetuned", Value::Bool(true));
    described(&granite).expect("Granite");
    granite.set("granite.rope.scaling.finetuned", Value::Bool(false));
    refused(described(&granite), &["finetuned", "without RoPE"]);
    let mut mixture = Parts::of("tied");
    mixture.set("general.architecture", Value::String("qwen3moe".into()));
    refused(described(&mixture), &["qwen3moe", "take a dense model"]);
}

/// As in the tables of PyPI's `gguf` 0.19.
#[test]
fn tensors_have_the_names_that_llama_cpp_gives_them() {
    let name = |name: &str, family| gguf_name(&format!("model.layers.1.{name}"), family);
    for (hugging_face, family, llama_cpp) in [
        ("self_attn.q_proj.bias", Family::Qwen2, "attn_q.bias"),
        (
            "self_attn.k_norm.weight",
            Family::Qwen3,
            "attn_k_norm.weight",
        ),
        (
            "post_attention_layernorm.weight",
            Family::Granite,
            "ffn_norm.weight",
        ),
        (
            "post_attention_layernorm.weight",
            Family::Olmo2,
            "post_attention_norm.weight",
        ),
        (
            "post_feedforward_layernorm.weight",
            Family::Olmo2,
            "post_ffw_norm.weight",
        ),
        ("input_layernorm.weight", Family::Gemma3, "attn_norm.weight"),
        (
            "post_attention_layernorm.weight",
            Family::Gemma3,
            "post_attention_norm.weight",
        ),
        (
            "pre_feedforward_layernorm.weight",
            Family::Gemma3,
            "ffn_norm.weight",
        ),
        (
            "post_feedforward_layernorm.weight",
            Family::Gemma3,
            "post_ffw_norm.weight",
        ),
    ] {
        assert_eq!(name(hugging_face, family), format!("blk.1.{llama_cpp}"));
    }
    assert_eq!(
        gguf_name("model.norm.weight", Family::Gemma3),
        "output_norm.weight"
    );
}
