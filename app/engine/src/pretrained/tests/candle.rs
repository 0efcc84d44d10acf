//! Llama checkpoints against candle-transformers' own Llama, each side reading the files by itself.

use std::fs;
use std::path::Path;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};

use crate::device::Hardware;
use crate::engine::Engine;
use crate::pretrained::{self, Hub};
use crate::random::Stream;

const ROWS: usize = 3;
/// More than `original_max_position_embeddings` of the scaled RoPE.
const SEQ_LEN: usize = 96;

/// Logits `[B, T, V]`; candle's forward yields those of the last position only.
fn candle_logits(folder: &Path, tokens: &[u32]) -> candle_core::Result<Vec<f32>> {
    let cpu = Device::Cpu;
    let json = fs::read(folder.join("config.json"))?;
    let config: LlamaConfig = serde_json::from_slice(&json).map_err(candle_core::Error::wrap)?;
    let config = config.into_config(false);
    let safetensors = fs::read(folder.join("model.safetensors"))?;
    let weights = VarBuilder::from_buffered_safetensors(safetensors, DType::F32, &cpu)?;
    let model = Llama::load(weights, &config)?;
    let mut cache = Cache::new(true, DType::F32, &config, &cpu)?;
    let tokens = Tensor::new(tokens, &cpu)?.reshape((ROWS, SEQ_LEN))?;
    let positions = (0..SEQ_LEN).map(|t| model.forward(&tokens.narrow(1, t, 1)?, t, &mut cache));
    let logits = positions.collect::<candle_core::Result<Vec<_>>>()?;
    Tensor::stack(&logits, D::Minus2)?.flatten_all()?.to_vec1()
}

/// Else a checkpoint would be another model here than in candle: its heads grouped, its positions scaled
/// or its head untied in another way.
#[test]
fn llamas_agree_with_candle_transformers() {
    for name in ["llama-tiny-tied", "llama-tiny-untied"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures")
            .join(name);
        let path = folder.to_str().expect("UTF-8");
        let model = pretrained::open(path, &Hub::from_env(), &()).expect("a checkpoint");
        let mut engine = Engine::new(model.config, &Hardware::cpu(2)).expect("a CPU");
        let params = model.load(&()).expect("its weights");
        let weights = engine.weights(params).expect("in memory");
        let mut random = Stream::new(5, "tokens").at(0);
        let vocab = model.config.vocab_size as u64;
        let tokens: Vec<u32> = (0..ROWS * SEQ_LEN)
            .map(|_| random.below(vocab) as u32)
            .collect();

        let logits = engine.logits(&weights, &tokens, SEQ_LEN).expect("logits");
        let expected = candle_logits(&folder, &tokens).expect("candle's logits");
        assert_eq!(logits.len(), expected.len());
        let largest = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        let errors = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let error = errors.fold(0.0_f32, f32::max);
        assert!(largest > 1.0, "{name}: logits that say something");
        assert!(
            error <= 1e-4 * largest,
            "{name}: off by {error} of {largest}"
        );
    }
}
