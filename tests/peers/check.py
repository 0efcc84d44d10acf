"""Checks that both peers and forgetlab compute the same model.

On the weights, tokens and expected numbers of tests/fixtures/mini-parity.safetensors, which
`forgetlab verify` checks the engine against, both peers must reproduce logits (also token by token,
with their KV caches), losses and all gradients; what they sample must be distributed as the model says.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

import work

FIXTURE = Path(__file__).parents[1] / "fixtures" / "mini-parity.safetensors"
# Of the tensor's largest entry.
TOLERANCE = 1e-4
# Tensors in the layout of the paper's reference implementation.
NAMES = ("embed_in", "embed_out", "qkv", "out", "up", "down")
GENERATED_ROWS = 2048


def read_safetensors(path):
    """Tensors by name, and the JSON under `meta` in the header."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    meta = json.loads(header.pop("__metadata__")["meta"])
    dtypes = {"F32": "<f4", "I64": "<i8"}
    tensors = {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], dtypes[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }
    return tensors, meta


class Jax:
    name = "JAX"

    def __init__(self, config, student, reference):
        import jax

        import peer_jax

        self.jax, self.config, self.peer, self.model = jax, config, peer_jax, peer_jax.Model(config)
        self.student = peer_jax.from_reference_layout(config, student)
        self.reference = peer_jax.from_reference_layout(config, reference)

    def logits(self, tokens):
        return self.model.logits(self.reference, tokens)

    def cached_logits(self, tokens):
        caches, logits = self.model.caches(len(tokens)), []
        for t in range(tokens.shape[1]):
            step, caches = self.model.decode(self.reference, caches, tokens[:, t], t)
            logits.append(step)
        return np.stack(logits, 1)

    def loss_and_gradients(self, tokens, replay, kind, coeff):
        arguments = (self.student, self.reference, tokens, replay, kind, coeff)
        loss, gradients = self.jax.value_and_grad(self.model.loss)(*arguments)
        return loss, self.peer.to_reference_layout(self.config, gradients)

    def generate(self):
        return self.model.generate(self.reference, self.jax.random.key(0), GENERATED_ROWS)


class Torch:
    name = "PyTorch"

    def __init__(self, config, student, reference):
        import torch

        import peer_torch

        self.torch, self.config, self.peer = torch, config, peer_torch
        self.student = peer_torch.from_reference_layout(config, student)
        self.reference = peer_torch.from_reference_layout(config, reference).requires_grad_(False)
        torch.manual_seed(0)

    def logits(self, tokens):
        return self.reference(self.torch.from_numpy(tokens))

    def cached_logits(self, tokens):
        tokens, caches = self.torch.from_numpy(tokens), self.reference.caches(len(tokens))
        return np.stack([self.reference.decode(caches, tokens[:, t], t) for t in range(tokens.shape[1])], 1)

    def loss_and_gradients(self, tokens, replay, kind, coeff):
        tokens, replay = map(self.torch.from_numpy, (tokens, replay))
        self.student.zero_grad()
        loss = self.peer.loss(self.student, self.reference, tokens, replay, kind, coeff)
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in self.student.named_parameters()}
        return loss.detach(), self.peer.to_reference_layout(self.config, gradients)

    def generate(self):
        return self.reference.generate(GENERATED_ROWS)


def error(found, expected):
    """Largest error, as a share of the largest expected number."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return np.abs(found - expected).max() / np.abs(expected).max()


def surprise(logits, rows):
    """How far the rows' mean NTP lies from their mean entropy, in standard errors.

    Rows sampled from the model itself have the two equal in expectation.
    """
    logits = np.asarray(logits, np.float64)[:, :-1]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    ntp = -np.take_along_axis(log_probs, np.asarray(rows)[:, 1:, None], -1)[..., 0]
    difference = ntp + (np.exp(log_probs) * log_probs).sum(-1)
    return abs(difference.mean()) / (difference.std() / difference.size**0.5)


def main():
    fixture, meta = read_safetensors(FIXTURE)
    m = meta["model"]
    config = work.Config(m["d_model"], m["n_layers"], m["head_dim"], m["seq_len"], m["vocab"])
    student, reference = ({name: fixture[f"{p}.{name}"] for name in NAMES} for p in ("theta", "pi"))
    tokens, replay = fixture["tokens"].copy(), fixture["replay_tokens"].copy()
    # The fixture divides by all positions, the peers by those that have a target.
    scale = (config.seq_len - 1) / config.seq_len

    peers = [Jax(config, student, reference), Torch(config, student, reference)]
    results, failed = {}, []

    def report(name, value, limit):
        print(f"{'ok ' if value <= limit else 'BAD'}  {value:8.1e} (at most {limit:.0e})  {name}")
        if not value <= limit:
            failed.append(name)

    for peer in peers:
        found = {"logits": peer.logits(tokens), "logits with a KV cache": peer.cached_logits(tokens)}
        expected = dict.fromkeys(found, fixture["logits.pi"])
        for kind in ("ntp", "kl"):
            loss, gradients = peer.loss_and_gradients(tokens, replay, kind, meta["coeff"])
            found[f"loss with {kind} replay"] = scale * float(loss)
            expected[f"loss with {kind} replay"] = meta[f"{kind}_pre"]["total"]
            for name in NAMES:
                key = f"gradient of {name} with {kind} replay"
                found[key] = scale * np.asarray(gradients[name])
                expected[key] = fixture[f"grad.{kind}_pre.{name}"]
        for name in found:
            report(f"{peer.name} against the fixture: {name}", error(found[name], expected[name]), TOLERANCE)
        rows = np.asarray(peer.generate(), np.int64)
        report(f"{peer.name}: generated rows, standard errors off the model", surprise(peer.logits(rows), rows), 4)
        results[peer.name] = found
    for name in results["JAX"]:
        report(f"JAX against PyTorch: {name}", error(results["JAX"][name], results["PyTorch"][name]), TOLERANCE)
    print(f"{len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
