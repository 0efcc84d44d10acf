//! Texts a model writes, and how likely it finds them: what self-generated replay is made of.

use forgetlab_engine::{Engine, EngineError, Request, Sampling, Stream, Weights};
use forgetlab_study::run::Quality;

/// A row written by a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Prompt and what follows, up to and with a stop token.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_len: usize,
    /// Cross entropy of what was written, nats a token, under the model itself at temperature 1; `None` where
    /// nothing was.
    pub nll: Option<f64>,
}

impl Sample {
    /// What it was asked to go on with.
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt_len]
    }

    /// What was written after the prompt.
    pub fn written(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }
}

/// Writes one row a prompt, of `length` tokens with the prompt, and scores what was written.
///
/// Prompts must be non-empty, no longer than `length`, their ids below the vocabulary's size.
///
/// # Errors
/// When the device fails, most likely for want of memory.
pub fn sample(
    engine: &mut Engine,
    weights: &Weights,
    prompts: &[Vec<u32>],
    length: usize,
    sampling: &Sampling,
    stream: &Stream,
) -> Result<Vec<Sample>, EngineError> {
    let request = Request {
        prompts,
        length,
        sampling,
        stream,
        first_row: 0,
    };
    let generated = engine.generate(weights, request)?;
    let lens: Vec<usize> = generated.lengths.iter().map(|&len| len as usize).collect();
    // Position t predicts token t + 1.
    let is_written = |row: usize, t: usize| (prompts[row].len()..lens[row]).contains(&(t + 1));
    let wanted = (0..prompts.len() * length).map(|i| is_written(i / length, i % length));
    let wanted: Vec<bool> = wanted.collect();
    let tokens = &generated.tokens;
    let losses = engine.evaluate_where(weights, None, tokens, length, Some(&wanted))?;
    let rows = tokens.chunks_exact(length).zip(losses.chunks_exact(length));
    let rows = rows.zip(prompts.iter().zip(&lens));
    let samples = rows.map(|((tokens, losses), (prompt, &len))| {
        let written = len - prompt.len();
        let sum: f64 = losses.iter().map(|loss| f64::from(loss.ntp)).sum();
        Sample {
            tokens: tokens[..len].to_vec(),
            prompt_len: prompt.len(),
            nll: (written > 0).then(|| sum / written as f64),
        }
    });
    Ok(samples.collect())
}

/// Mean cross entropy of all written tokens, nats, and how varied they are.
pub fn summarise(samples: &[Sample]) -> (Option<f64>, Quality) {
    let rows: Vec<&[u32]> = samples.iter().map(Sample::written).collect();
    let quality = Quality::of(&rows);
    let sums = samples
        .iter()
        .filter_map(|s| Some(s.nll? * s.written().len() as f64));
    let nll = (quality.tokens > 0).then(|| sums.sum::<f64>() / quality.tokens as f64);
    (nll, quality)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forgetlab_engine::Hardware;
    use forgetlab_engine::model::{ModelConfig, Params};

    /// Else replay that the model finds unlikely would be taken for its own voice.
    #[test]
    fn what_was_written_is_scored_and_nothing_else() {
        let config = ModelConfig::mini(32, 2, 8, 23);
        let mut engine = Engine::new(config, &Hardware::cpu(2)).unwrap();
        let params = Params::init(engine.layout(), &Stream::new(7, "test"));
        let weights = engine.weights(params).unwrap();
        let prompts = vec![vec![1], vec![2, 3, 4], vec![5; 12]];
        let sampling = Sampling {
            stop_tokens: vec![6, 7, 8],
            ..Sampling::default()
        };
        let stream = Stream::new(3, "samples");
        let samples = sample(&mut engine, &weights, &prompts, 12, &sampling, &stream).unwrap();
        assert!(samples[2].written().is_empty() && samples[2].nll.is_none());
        let mut all = 0.0;
        for sample in &samples[..2] {
            let losses = engine.evaluate(&weights, None, &sample.tokens, sample.tokens.len());
            let losses = losses.unwrap();
            let written = &losses[sample.prompt_len - 1..losses.len() - 1];
            let sum: f64 = written.iter().map(|loss| f64::from(loss.ntp)).sum();
            assert_eq!(written.len(), sample.written().len());
            assert!((sample.nll.unwrap() - sum / written.len() as f64).abs() < 1e-5);
            all += sum;
        }
        let (nll, quality) = summarise(&samples);
        assert_eq!(quality.rows, 3);
        assert!((nll.unwrap() - all / quality.tokens as f64).abs() < 1e-5);
    }
}
