"""The work of a Llama in transformers on PyTorch: eager, f32, AdamW(fused=True), on the CPU or a GPU."""

if __name__ == "__main__":
    import work

    # Threads are bound before PyTorch is imported.
    parser = work.arguments(__doc__)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--micro-batch", type=int, help="rows at a time, their gradients added up")
    options = parser.parse_args()
    work.bound_threads(options.threads)

import contextlib

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import work


def model(config):
    """A model of these sizes with random weights, which is all that speed needs."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=config.d_model,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.d_ff,
            vocab_size=config.vocab_size,
            rope_theta=config.rope_base,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


class Peer:
    def __init__(self, item, dtype, device, micro_batch):
        self.micro_batch = micro_batch or item.batch
        torch.set_float32_matmul_precision("highest")
        self.item, self.device, self.bf16 = item, device, dtype == "bf16"
        self.model = model(item.config).to(device)
        if item.work == "generate":
            self.model.requires_grad_(False).eval()
            if self.bf16:
                # Rounded once; autocast would round the weights again at every token.
                self.model.to(torch.bfloat16)
                self.bf16 = False
            return
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=work.LEARNING_RATE,
            betas=(work.BETA1, work.BETA2),
            eps=work.ADAM_EPS,
            weight_decay=work.WEIGHT_DECAY,
            fused=True,
        )

    def autocast(self):
        return torch.autocast(self.device, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def finish(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def step(self, tokens, replay):
        assert replay is None, "items of this peer replay nothing"
        tokens = torch.from_numpy(tokens).to(self.device, torch.long)
        for rows in tokens.split(self.micro_batch):
            with self.autocast():
                loss = self.model(input_ids=rows, labels=rows, use_cache=False).loss
            (loss * (len(rows) / len(tokens))).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.finish()

    @torch.no_grad()
    def generate(self):
        """Rows of full length, sampled at temperature 1 after token 0."""
        new = self.item.config.seq_len - 1
        prompts = torch.zeros(self.item.generated_rows, 1, dtype=torch.long, device=self.device)
        with self.autocast():
            rows = self.model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                do_sample=True,
                top_k=0,
                min_new_tokens=new,
                max_new_tokens=new,
                pad_token_id=0,
            )
        self.finish()
        assert rows.shape == (self.item.generated_rows, new + 1)
        return rows


if __name__ == "__main__":
    item = work.ITEMS[options.item]
    torch.set_num_threads(options.threads)
    work.serve(item, Peer(item, options.dtype, options.device, options.micro_batch))
