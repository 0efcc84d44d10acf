//! How fast this machine trains, generates and evaluates, in tokens a second and as a share of its
//! matrix-product peak.
//!
//! The shapes are fixed, so that figures compare across machines and with other programs of the
//! same work: a model of the paper's kind, batches of random tokens, AdamW, replay generated with a KV
//! cache.

mod peak;
mod speeds;

use std::time::{Duration, Instant};

use forgetlab_engine::model::{ModelConfig, Params};
use forgetlab_engine::{
    AdamW, AdamWConfig, Asked, Batching, Demand, Engine, EngineError, Hardware, LossBatch,
    Optimizer, PromptLen, Request, Sampling, Stream, Weights,
};

pub use peak::gemm_peak;
pub use speeds::Speeds;

/// Bytes of the program itself in a bench (measured).
const PROGRAM: f64 = 7.0 * 1024.0 * 1024.0;

/// A model and the batches it is measured with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Name on the command line.
    pub name: &'static str,
    /// Sizes of the model.
    pub model: ModelConfig,
    /// Tokens of a row, T.
    pub seq_len: usize,
    /// Rows of new data a step.
    pub batch_size: usize,
    /// Replayed rows a step, where there is replay.
    pub replay_rows: usize,
    /// Rows generated at a time, at least.
    pub generated: usize,
}

/// Shapes that `forgetlab bench` measures, by name.
pub const SHAPES: [Shape; 5] = [
    shape("toy", [256, 2, 16, 19], 14, 256, 256),
    shape("text", [128, 4, 32, 4096], 128, 32, 16),
    shape("text-256", [256, 6, 64, 4096], 256, 16, 8),
    Shape {
        name: "llama-135m",
        model: ModelConfig::SMOLLM2_135M,
        seq_len: 256,
        batch_size: 8,
        replay_rows: 4,
        generated: 32,
    },
    Shape {
        name: "llama-1b",
        model: ModelConfig::LLAMA_1B,
        seq_len: 512,
        batch_size: 128,
        replay_rows: 32,
        generated: 256,
    },
];

const fn shape(
    name: &'static str,
    [d_model, n_layers, head_dim, vocab_size]: [usize; 4],
    seq_len: usize,
    batch_size: usize,
    replay_rows: usize,
) -> Shape {
    Shape {
        name,
        model: ModelConfig::mini(d_model, n_layers, head_dim, vocab_size),
        seq_len,
        batch_size,
        replay_rows,
        generated: 256,
    }
}

/// Kind of work that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Training steps without replay.
    Train,
    /// Training steps with the next-token loss on as many replayed rows as the shape says.
    TrainNtp,
    /// The same with KL(reference || student).
    TrainKl,
    /// Generation from one-token prompts to full rows.
    Generate,
    /// Held-out losses without gradients.
    Evaluate,
}

/// Result of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Tokens counted: of new data in training, written ones in generation, scored ones in evaluation.
    pub tokens: u64,
    /// Seconds taken.
    pub seconds: f64,
    /// Steps (generations, evaluations) done.
    pub steps: u64,
    /// Model FLOPs done, by [`ModelConfig::forward_flops`] with every token scored; training costs three
    /// forwards, KL one more for the reference.
    pub flops: f64,
}

/// A model in training with its batches.
pub struct Bench {
    shape: Shape,
    work: Work,
    engine: Engine,
    student: Weights,
    /// Of work with a KL.
    reference: Option<Weights>,
    /// Of work that trains.
    optimizer: Option<Optimizer>,
    stream: Stream,
    /// New rows, then replayed ones not yet used.
    tokens: Vec<u32>,
    replay: Vec<u32>,
    prompts: Vec<Vec<u32>>,
    weights: [Vec<f32>; 2],
    steps: u64,
    rows: u64,
}

impl Bench {
    /// Sizes of the work, for a prediction of its memory.
    pub fn demand(shape: Shape, work: Work, hardware: &Hardware, batching: Batching) -> Demand {
        let (new, replayed) = (shape.batch_size, shape.replay_rows);
        let (batches, scored, generated) = match work {
            Work::Train => (vec![new], 0, 0),
            Work::TrainNtp | Work::TrainKl => {
                (vec![new, replayed], 0, shape.generated.max(replayed))
            }
            Work::Generate => (Vec::new(), 0, shape.generated),
            Work::Evaluate => (Vec::new(), new, 0),
        };
        Demand {
            model: shape.model,
            threads: hardware.threads,
            batching,
            gpu: (hardware.device != "cpu").then_some(hardware.precision),
            seq_len: shape.seq_len,
            learners: 1,
            shared_references: Some(usize::from(work == Work::TrainKl)),
            lora: None,
            batches,
            replaced: 0,
            kl: if work == Work::TrainKl {
                vec![1]
            } else {
                Vec::new()
            },
            scored,
            asked: Asked::default(),
            reference: work == Work::TrainKl,
            generated,
            prompt: PromptLen::Of(1),
            buffers: 0,
            held_out: 0,
            program: PROGRAM,
        }
    }

    /// A model and batches for the work, ready to run.
    ///
    /// # Errors
    /// When the device cannot be used or the system refuses the threads.
    pub fn new(
        shape: Shape,
        work: Work,
        hardware: &Hardware,
        batching: Batching,
    ) -> Result<Self, EngineError> {
        let mut engine = Engine::new(shape.model, hardware)?;
        engine.set_batching(batching);
        let params = Params::init(engine.layout(), &Stream::new(0, "weights"));
        let config = AdamWConfig {
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.01,
        };
        let rows = match work {
            Work::Generate => shape.generated,
            _ => shape.generated.max(shape.replay_rows),
        };
        // Position weights of a mean: over the new rows, over the replayed ones.
        let mean = |rows: usize| {
            let weight = 1.0 / (rows * (shape.seq_len - 1)) as f32;
            let mut weights = vec![weight; rows * shape.seq_len];
            for row in weights.chunks_exact_mut(shape.seq_len) {
                row[shape.seq_len - 1] = 0.0;
            }
            weights
        };
        let reference = if work == Work::TrainKl {
            Some(engine.weights(params.clone())?.frozen())
        } else {
            None
        };
        let optimizer = match work {
            Work::Train | Work::TrainNtp | Work::TrainKl => {
                Some(engine.optimizer(AdamW::new(config, params.data.len()))?)
            }
            Work::Generate | Work::Evaluate => None,
        };
        Ok(Self {
            shape,
            work,
            optimizer,
            reference,
            student: engine.weights(params)?,
            engine,
            stream: Stream::new(0, "bench"),
            tokens: Vec::new(),
            replay: Vec::new(),
            prompts: vec![vec![0]; rows],
            weights: [mean(shape.batch_size), mean(shape.replay_rows)],
            steps: 0,
            rows: 0,
        })
    }

    /// Ends it, and has its device give back what it keeps for later.
    pub fn end(self) {
        let Self {
            engine,
            student,
            reference,
            optimizer,
            ..
        } = self;
        drop((student, reference, optimizer));
        engine.trim();
    }

    /// Measures whole steps for at least `time`.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn run(&mut self, time: Duration) -> Result<Measured, EngineError> {
        let mut measured = Measured {
            tokens: 0,
            seconds: 0.0,
            steps: 0,
            flops: 0.0,
        };
        let start = Instant::now();
        while start.elapsed() < time {
            let (tokens, flops) = self.step()?;
            measured.tokens += tokens;
            measured.flops += flops;
            measured.steps += 1;
        }
        measured.seconds = start.elapsed().as_secs_f64();
        Ok(measured)
    }

    /// One step: tokens it counts for, and its FLOPs.
    fn step(&mut self) -> Result<(u64, f64), EngineError> {
        let t = self.shape.seq_len;
        // Of one token.
        let flops = self.shape.model.forward_flops(t, t) / t as f64;
        let new = self.shape.batch_size * t;
        let replayed = self.shape.replay_rows * t;
        self.steps += 1;
        Ok(match self.work {
            Work::Train => {
                self.train()?;
                (new as u64, 3.0 * flops * new as f64)
            }
            Work::TrainNtp | Work::TrainKl => {
                let mut done = 3.0 * flops * (new + replayed) as f64;
                if self.work == Work::TrainKl {
                    done += flops * replayed as f64;
                }
                if self.replay.len() < replayed {
                    self.replay = self.generate()?;
                    done += flops * self.replay.len() as f64;
                }
                self.train()?;
                (new as u64, done)
            }
            Work::Generate => {
                let written = self.generate()?.len() / t * (t - 1);
                (written as u64, flops * written as f64)
            }
            Work::Evaluate => {
                self.draw();
                self.engine.evaluate(&self.student, None, &self.tokens, t)?;
                (new as u64, flops * new as f64)
            }
        })
    }

    fn train(&mut self) -> Result<(), EngineError> {
        self.draw();
        let t = self.shape.seq_len;
        let zeros = vec![0.0; self.weights.iter().map(Vec::len).max().unwrap_or(0)];
        let new = LossBatch {
            tokens: &self.tokens,
            seq_len: t,
            ntp_weights: &self.weights[0],
            kl_weights: &zeros[..self.tokens.len()],
        };
        let at = self.replay.len().saturating_sub(self.shape.replay_rows * t);
        let replay = self.replay.split_off(at);
        let (weights, zeros) = (&self.weights[1][..], &zeros[..self.weights[1].len()]);
        let (ntp_weights, kl_weights) = match self.work {
            Work::TrainKl => (zeros, weights),
            _ => (weights, zeros),
        };
        let replay = LossBatch {
            tokens: &replay,
            seq_len: t,
            ntp_weights,
            kl_weights,
        };
        let both = [new, replay];
        let batches = if self.work == Work::Train {
            &both[..1]
        } else {
            &both[..]
        };
        let reference = self.reference.as_ref();
        self.engine
            .forward_backward(&self.student, reference, batches)?;
        if let Some(optimizer) = &mut self.optimizer {
            self.engine.update(&mut self.student, optimizer, 1e-3)?;
        }
        Ok(())
    }

    /// Random tokens for the new rows.
    fn draw(&mut self) {
        let vocab = self.shape.model.vocab_size as u64;
        let mut random = self.stream.at(self.steps);
        self.tokens.clear();
        let n = self.shape.batch_size * self.shape.seq_len;
        self.tokens
            .extend((0..n).map(|_| random.below(vocab) as u32));
    }

    fn generate(&mut self) -> Result<Vec<u32>, EngineError> {
        let request = Request {
            prompts: &self.prompts,
            length: self.shape.seq_len,
            sampling: &Sampling::default(),
            stream: &self.stream,
            first_row: self.rows,
        };
        self.rows += self.prompts.len() as u64;
        let source = self.reference.as_ref().unwrap_or(&self.student);
        Ok(self.engine.generate(source, request)?.tokens)
    }
}
