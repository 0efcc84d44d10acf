"""The work in PyTorch: eager or compiled, f32 or bf16 autocast, AdamW(fused=True), on the CPU or a GPU."""

import contextlib

import work

if __name__ == "__main__":
    # Threads are bound before PyTorch is imported.
    parser = work.arguments(__doc__)
    parser.add_argument("--mode", choices=["eager", "compiled"], default="eager")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    work.bound_threads(options.threads)

import torch
import torch.nn.functional as F
from torch import nn


def rms_norm(x):
    return F.rms_norm(x, x.shape[-1:], eps=work.RMS_EPS)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        d, f = config.d_model, config.d_ff
        self.shape = (3, config.n_heads, config.head_dim)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        self.up = nn.Linear(d, f, bias=False)
        self.down = nn.Linear(f, d, bias=False)

    def forward(self, h, cos, sin, cache=None, position=0):
        """`h [B, T, D]`; with a cache `[2, B, N, T, H]`, T is 1 and `position` the token's place."""
        rows, seq_len, d = h.shape
        q, k, v = self.qkv(rms_norm(h)).view(rows, seq_len, *self.shape).permute(2, 0, 3, 1, 4)
        q, k = rotate(rms_norm(q), cos, sin).to(v.dtype), rotate(rms_norm(k), cos, sin).to(v.dtype)
        if cache is not None:
            cache[0, :, :, position : position + 1] = k
            cache[1, :, :, position : position + 1] = v
            k, v = cache[:, :, :, : position + 1]
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        h = h + self.out(attended.transpose(1, 2).reshape(rows, seq_len, d))
        return h + self.down(F.gelu(self.up(rms_norm(h)), approximate="tanh"))


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_in = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.embed_out = nn.Linear(config.d_model, config.vocab_size, bias=False)
        cos, sin = work.rope_tables(config)
        self.register_buffer("cos", torch.from_numpy(cos), persistent=False)
        self.register_buffer("sin", torch.from_numpy(sin), persistent=False)

    def hidden(self, tokens):
        """Final hidden states `[B, T, D]`."""
        h = self.embed_in(tokens)
        for block in self.blocks:
            h = block(h, self.cos, self.sin)
        return rms_norm(h)

    def forward(self, tokens):
        return self.embed_out(self.hidden(tokens))

    def ntp(self, hidden, tokens):
        """Mean cross entropy of the next token, over the positions that have one."""
        logits = self.embed_out(hidden[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    def kl(self, hidden, reference, tokens):
        """Mean KL(reference || student), over the same positions."""
        log_q = F.log_softmax(self.embed_out(hidden[:, :-1]).float(), -1).flatten(0, 1)
        with torch.no_grad():
            logits = reference.embed_out(reference.hidden(tokens)[:, :-1])
            log_p = F.log_softmax(logits.float(), -1).flatten(0, 1)
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)

    def caches(self, rows):
        """Empty keys and values of each block, in the type that the projections yield."""
        c, device = self.config, self.cos.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else self.embed_out.weight.dtype
        shape = (2, rows, c.n_heads, c.seq_len, c.head_dim)
        return [torch.zeros(shape, dtype=dtype, device=device) for _ in self.blocks]

    @torch.no_grad()
    def decode(self, caches, token, position):
        """Logits after `token [B]`, which stands at `position`; adds it to the caches."""
        at = slice(position, position + 1)
        h = self.embed_in(token[:, None])
        for block, cache in zip(self.blocks, caches):
            h = block(h, self.cos[at], self.sin[at], cache, position)
        return self.embed_out(rms_norm(h[:, 0]))

    @torch.no_grad()
    def generate(self, rows):
        """Rows of full length, sampled at temperature 1 after token 0."""
        tokens = torch.zeros(rows, self.config.seq_len, dtype=torch.long, device=self.cos.device)
        caches = self.caches(rows)
        for t in range(self.config.seq_len - 1):
            probabilities = F.softmax(self.decode(caches, tokens[:, t], t).float(), -1)
            tokens[:, t + 1] = torch.multinomial(probabilities, 1)[:, 0]
        return tokens


def loss(model, reference, tokens, replay, kind, coeff):
    """`NTP(tokens) + coeff · replay loss`; new and replayed rows run through the model together."""
    if replay is None:
        return model.ntp(model.hidden(tokens), tokens)
    new = len(tokens)
    hidden = model.hidden(torch.cat([tokens, replay]))
    if kind == "kl":
        replay_loss = model.kl(hidden[new:], reference, replay)
    else:
        replay_loss = model.ntp(hidden[new:], replay)
    return model.ntp(hidden[:new], tokens) + coeff * replay_loss


def from_reference_layout(config, weights, device="cpu"):
    """A model with these weights; Linear keeps its matrix as `[out, in]`."""
    model, d = Model(config), config.d_model
    state = {"embed_in.weight": weights["embed_in"], "embed_out.weight": weights["embed_out"]}
    for l in range(config.n_layers):
        state[f"blocks.{l}.qkv.weight"] = weights["qkv"][l].transpose(0, 1, 3, 2).reshape(3 * d, d)
        state[f"blocks.{l}.out.weight"] = weights["out"][l].reshape(d, d).T
        state[f"blocks.{l}.up.weight"] = weights["up"][l].T
        state[f"blocks.{l}.down.weight"] = weights["down"][l].T
    model.load_state_dict({name: torch.from_numpy(w.copy()) for name, w in state.items()})
    return model.to(device)


def to_reference_layout(config, tensors):
    """The same back, from tensors named as in the model's state."""
    n, d, h = config.n_heads, config.d_model, config.head_dim
    stacked = {
        name: torch.stack([tensors[f"blocks.{l}.{name}.weight"].T for l in range(config.n_layers)])
        for name in ("qkv", "out", "up", "down")
    }
    stacked["qkv"] = stacked["qkv"].view(-1, d, 3, n, h).permute(0, 2, 3, 1, 4)
    stacked["out"] = stacked["out"].reshape(-1, n, h, d)
    return stacked | {name: tensors[f"{name}.weight"] for name in ("embed_in", "embed_out")}


class Peer:
    def __init__(self, item, mode, dtype, device):
        torch.set_float32_matmul_precision("highest")
        self.item, self.device, self.bf16 = item, device, dtype == "bf16"
        weights = work.initial_weights(item.config)
        self.model = from_reference_layout(item.config, weights, device)
        self.reference = None
        if item.replay != "none" or item.work == "generate":
            self.reference = from_reference_layout(item.config, weights, device).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=work.LEARNING_RATE,
            betas=(work.BETA1, work.BETA2),
            eps=work.ADAM_EPS,
            weight_decay=work.WEIGHT_DECAY,
            fused=True,
        )
        if self.bf16 and item.work == "generate":
            # Frozen weights are rounded once; autocast would round them again at every token.
            self.reference.to(torch.bfloat16)
            self.bf16 = False
        self.loss = torch.compile(loss) if mode == "compiled" else loss

    def autocast(self):
        if self.bf16:
            return torch.autocast(self.device, torch.bfloat16)
        return contextlib.nullcontext()

    def finish(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def step(self, tokens, replay):
        tokens = torch.from_numpy(tokens).to(self.device, torch.long)
        with self.autocast():
            value = self.loss(
                self.model, self.reference, tokens, replay, self.item.replay, self.item.replay_coeff
            )
        value.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.finish()

    def generate(self):
        with self.autocast():
            tokens = self.reference.generate(self.item.generated_rows)
        self.finish()
        return tokens


if __name__ == "__main__":
    item = work.ITEMS[options.item]
    torch.set_num_threads(options.threads)
    work.serve(item, Peer(item, options.mode, options.dtype, options.device))
