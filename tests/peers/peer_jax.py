"""The work in JAX: jit over the whole step, optax.adamw, generation in one `lax.scan` with a KV cache."""

from functools import partial

import work

if __name__ == "__main__":
    # Threads are bound before JAX is imported.
    options = work.arguments(__doc__).parse_args()
    work.bound_threads(options.threads)

import jax
import jax.numpy as jnp
import optax
from jax import lax


def from_reference_layout(config, weights):
    """Matrices as `[in, out]`, a list of blocks."""
    d = config.d_model
    blocks = [
        {
            "qkv": weights["qkv"][l].transpose(2, 0, 1, 3).reshape(d, 3 * d),
            "out": weights["out"][l].reshape(d, d),
            "up": weights["up"][l],
            "down": weights["down"][l],
        }
        for l in range(config.n_layers)
    ]
    params = {"embed_in": weights["embed_in"], "embed_out": weights["embed_out"], "blocks": blocks}
    return jax.tree.map(jnp.array, params)


def to_reference_layout(config, params):
    n, d, h = config.n_heads, config.d_model, config.head_dim
    stacked = {name: jnp.stack([b[name] for b in params["blocks"]]) for name in params["blocks"][0]}
    stacked["qkv"] = stacked["qkv"].reshape(-1, d, 3, n, h).transpose(0, 2, 3, 1, 4)
    stacked["out"] = stacked["out"].reshape(-1, n, h, d)
    return stacked | {name: params[name] for name in ("embed_in", "embed_out")}


def rms_norm(x):
    return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + work.RMS_EPS)


def rotate(x, cos, sin):
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


class Model:
    """Forward passes; activations stand flat, `[B·T, D]`, between the attentions."""

    def __init__(self, config):
        self.config = config
        self.cos, self.sin = map(jnp.array, work.rope_tables(config))

    def heads(self, h, block, rows, cos, sin):
        """Normed and rotated queries and keys, and values: `[B, N, T, H]` each."""
        c = self.config
        qkv = (rms_norm(h) @ block["qkv"]).reshape(rows, -1, 3, c.n_heads, c.head_dim)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        return rotate(rms_norm(q), cos, sin), rotate(rms_norm(k), cos, sin), v

    def attend(self, q, k, v, mask):
        scores = jnp.einsum("bnqh,bnkh->bnqk", q, k) * self.config.head_dim**-0.5
        weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), -1)
        attended = jnp.einsum("bnqk,bnkh->bnqh", weights, v)
        return attended.swapaxes(1, 2).reshape(-1, self.config.d_model)

    def mlp(self, h, block):
        return jax.nn.gelu(rms_norm(h) @ block["up"], approximate=True) @ block["down"]

    def hidden(self, params, tokens):
        """Final hidden states `[B, T, D]`."""
        rows, seq_len = tokens.shape
        mask = jnp.tril(jnp.ones((seq_len, seq_len), bool))
        h = params["embed_in"][tokens.reshape(-1)]
        for block in params["blocks"]:
            q, k, v = self.heads(h, block, rows, self.cos[:seq_len], self.sin[:seq_len])
            h += self.attend(q, k, v, mask) @ block["out"]
            h += self.mlp(h, block)
        return rms_norm(h).reshape(rows, seq_len, -1)

    def logits(self, params, tokens):
        return self.hidden(params, tokens) @ params["embed_out"].T

    def ntp(self, params, hidden, tokens):
        """Mean cross entropy of the next token, over the positions that have one."""
        hidden = hidden[:, :-1].reshape(-1, self.config.d_model)
        logits = hidden @ params["embed_out"].T
        target_logits = jnp.sum(hidden * params["embed_out"][tokens[:, 1:].reshape(-1)], -1)
        return jnp.mean(jax.nn.logsumexp(logits, -1) - target_logits)

    def kl(self, params, hidden, reference, tokens):
        """Mean KL(reference || student), over the same positions."""
        hidden = hidden[:, :-1].reshape(-1, self.config.d_model)
        log_q = jax.nn.log_softmax(hidden @ params["embed_out"].T)
        hidden = self.hidden(reference, tokens)[:, :-1].reshape(-1, self.config.d_model)
        log_p = jax.nn.log_softmax(hidden @ reference["embed_out"].T)
        return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1))

    def loss(self, params, reference, tokens, replay, kind, coeff):
        """`NTP(tokens) + coeff · replay loss`; new and replayed rows run through the model together."""
        if replay is None:
            return self.ntp(params, self.hidden(params, tokens), tokens)
        new = len(tokens)
        hidden = self.hidden(params, jnp.concatenate([tokens, replay]))
        if kind == "kl":
            replay_loss = self.kl(params, hidden[new:], reference, replay)
        else:
            replay_loss = self.ntp(params, hidden[new:], replay)
        return self.ntp(params, hidden[:new], tokens) + coeff * replay_loss

    def caches(self, rows):
        """Empty `keys [B, N, H, T]` and `values [B, N, T, H]` of each block."""
        c = self.config
        keys = jnp.zeros((rows, c.n_heads, c.head_dim, c.seq_len))
        return [(keys, keys.swapaxes(2, 3)) for _ in range(c.n_layers)]

    def decode(self, params, caches, token, position):
        """Logits after `token [B]`, which stands at `position`, and the caches with it."""
        c, caches = self.config, list(caches)
        cos, sin = (lax.dynamic_slice_in_dim(t, position, 1) for t in (self.cos, self.sin))
        mask = jnp.arange(c.seq_len) <= position
        h = params["embed_in"][token]
        for l, block in enumerate(params["blocks"]):
            q, k, v = self.heads(h, block, len(token), cos, sin)
            q, k = q.swapaxes(2, 3), k.swapaxes(2, 3)
            keys = lax.dynamic_update_slice_in_dim(caches[l][0], k, position, 3)
            values = lax.dynamic_update_slice_in_dim(caches[l][1], v, position, 2)
            caches[l] = keys, values
            # XLA's dot is the faster of the two on short sequences, the sum on long ones.
            if c.seq_len < 64:
                scores = jnp.einsum("bnhq,bnht->bnt", q, keys)
            else:
                scores = jnp.sum(q * keys, 2)
            weights = jax.nn.softmax(jnp.where(mask, scores * c.head_dim**-0.5, -jnp.inf), -1)
            attended = jnp.einsum("bnt,bnth->bnh", weights, values)
            h += attended.reshape(len(token), -1) @ block["out"]
            h += self.mlp(h, block)
        return rms_norm(h) @ params["embed_out"].T, caches

    def generate(self, params, key, rows):
        """Rows of full length, sampled at temperature 1 after token 0."""
        c = self.config

        def next_token(carry, position):
            caches, token, key = carry
            logits, caches = self.decode(params, caches, token, position)
            # By the inverse of the distribution function: one random number a row, where
            # `jax.random.categorical` draws one for each token of the vocabulary.
            cumulative = jnp.cumsum(jax.nn.softmax(logits), -1)
            key, draw = jax.random.split(key)
            threshold = jax.random.uniform(draw, (rows, 1)) * cumulative[:, -1:]
            token = jnp.sum(cumulative <= threshold, -1, dtype=jnp.int32)
            token = jnp.minimum(token, c.vocab_size - 1)
            return (caches, token, key), token

        first = jnp.zeros(rows, jnp.int32)
        carry = self.caches(rows), first, key
        _, tokens = lax.scan(next_token, carry, jnp.arange(c.seq_len - 1))
        return jnp.concatenate([first[:, None], tokens.T], 1)


class Peer:
    def __init__(self, item):
        model = Model(item.config)
        weights = work.initial_weights(item.config)
        self.params = from_reference_layout(item.config, weights)
        self.reference = from_reference_layout(item.config, weights)
        optimizer = optax.adamw(
            work.LEARNING_RATE, work.BETA1, work.BETA2, work.ADAM_EPS, weight_decay=work.WEIGHT_DECAY
        )
        self.moments = optimizer.init(self.params)
        self.key = jax.random.key(0)

        @partial(jax.jit, donate_argnums=(0, 1))
        def step(params, moments, reference, tokens, replay):
            loss, gradients = jax.value_and_grad(model.loss)(
                params, reference, tokens, replay, item.replay, item.replay_coeff
            )
            updates, moments = optimizer.update(gradients, moments, params)
            return optax.apply_updates(params, updates), moments, loss

        self.jitted_step = step
        self.jitted_generate = jax.jit(lambda params, key: model.generate(params, key, item.generated_rows))

    def step(self, tokens, replay):
        self.params, self.moments, loss = self.jitted_step(
            self.params, self.moments, self.reference, tokens, replay
        )
        loss.block_until_ready()

    def generate(self):
        self.key, key = jax.random.split(self.key)
        return self.jitted_generate(self.reference, key).block_until_ready()


if __name__ == "__main__":
    item = work.ITEMS[options.item]
    work.serve(item, Peer(item))
