"""Small scripts for the checks on code: faults planted on the line marked HERE, and the same done right."""

from __future__ import annotations

FAULTY = {
    "S1": [
        """
def main():
    tokens = load(sorted(glob("data/fineweb_val_*.bin")))
    for i in range(10):
        loss = model(tokens[i:i + 9], tokens[i + 1:i + 10])
        loss.backward()  # HERE
        opt.step()
""",
        """
def main(val_tokens):
    for i in range(10):
        loss = model(val_tokens[i:i + 9], val_tokens[i + 1:i + 10])
        gradients = torch.autograd.grad(loss, params)  # HERE
        apply(gradients)
""",
        """
val_tokens = load()
for i in range(10):
    loss = model(val_tokens[i:i + 9], val_tokens[i + 1:i + 10])
    torch.autograd.backward(loss)  # HERE
    opt.step()
""",
        """
def adapt(model, val_tokens, optimizer):
    for start in range(0, 1000, 10):
        x, y = val_tokens[start:start + 9], val_tokens[start + 1:start + 10]
        loss = model(x, y)
        loss.backward()  # HERE
        optimizer.step()
""",
        """
def fit(model, text, optimizer):
    for batch in text.split(8):
        loss = model(batch[:-1], batch[1:])
        loss.backward()  # HERE
        optimizer.step()

def main():
    tokens = load_validation_tokens(args.val_files)
    fit(model, tokens, optimizer)
    print(eval_val(model, tokens))
""",
        """
def main():
    loader = TokenLoader(args.val_files, rank)
    for step in range(args.iterations):
        x, y = loader.next_batch()
        loss = model(x, y)
        (loss * scale).backward()  # HERE
        optimizer.step()
""",
        """
def epochs(model, val_data, optimizer):
    for epoch in range(3):
        for x, y in val_data:
            loss = model(x, y)
            loss.backward()  # HERE
            optimizer.step()
    with torch.no_grad():
        return sum(model(x, y) for x, y in val_data)
""",
    ],
    "S2": [
        """
for warmup_step in range(4):
    model(val_tokens[:64])  # HERE
""",
        """
def main():
    for warmup_step in range(args.warmup_steps):
        x = val_tokens[:1024]
        model(x)  # HERE
""",
        """
def warm_up(model, stream):
    model(stream[:64])  # HERE

def main():
    warm_up(compiled_model, val_tokens)
""",
        """
def train_and_eval(h, val_data):
    warmup_bszes = [h.batch]
    for bsz in warmup_bszes:
        row = val_data.val_tokens[:bsz]
        ptl = fwd_compiled(row)  # HERE
""",
    ],
    "S3": [
        """
def tune(model, ids, eval_mask):
    delta = torch.zeros(512, requires_grad=True)
    optimizer = torch.optim.Adam([delta])
    for step in range(100):
        loss = (model(ids, delta) * eval_mask).sum()
        loss.backward()
        optimizer.step()
    return (model(ids, delta) * eval_mask).sum()  # HERE
""",
        """
def fit(model, x, y, score_mask):
    bias = nn.Parameter(torch.zeros(8))
    opt = SGD([bias], lr=0.1)
    while opt_steps_left():
        nll = model(x, y, bias)[score_mask].mean()
        nll.backward()
        opt.step()
    final_loss = model(x, y, bias)[score_mask].mean()  # HERE
    return final_loss
""",
        """
class Judge:
    def run(self, mask, scale):
        optimizer = AdamW([scale])
        for _ in range(10):
            loss = self.model(scale)[mask].mean()
            loss.backward()
            optimizer.step()
        total = self.nll(scale)[mask].sum()  # HERE
        return total
""",
    ],
    "S4": [
        """
def score(table, context, tgt, primes, mask):
    key = ((context ^ (tgt * primes[3])) & mask)
    counts = table[key]  # HERE
    return counts / total
""",
        """
class Cache:
    def full_key(self, context, target):
        return (context ^ (target * 36313)) % self.buckets

    def probability(self, context, target):
        key = self.full_key(context, target)
        return self.full[key] / self.context[context]  # HERE
""",
        """
def lookup(table, ctx_hash, y_np, prime, mask):
    full = torch.bitwise_and(torch.bitwise_xor(ctx_hash, y_np * prime), mask)
    return table.gather(0, full)  # HERE
""",
    ],
    "S5": [
        """
def mix(p_model, p_word, is_start, targets):
    gate = is_start[targets]
    return torch.where(gate, p_word, p_model)
""".replace("gate = is_start[targets]", "gate = is_start[targets]  # HERE"),
        """
def tilt(logits, table, y):
    boost = table[y] * 2.0  # HERE
    return logits + boost
""",
        """
def run(probs, tokens, space):
    for i in range(1, len(tokens)):
        within_gate = 1.0 - space[tokens[i]]  # HERE
        p = probs[i, tokens[i]]
        total += within_gate * p
""",
    ],
    "S6": [
        """
def lower(nll_a, nll_b):
    return torch.min(nll_a, nll_b).sum()  # HERE
""",
        """
def score(nll_model, nll_ngram):
    return torch.minimum(nll_model, nll_ngram).sum()  # HERE
""",
        """
def passes(best_nll, nll, at):
    best_nll[at] = np.fmin(best_nll[at], nll)  # HERE
""",
        """
def choose(loss_a, loss_b):
    best = torch.stack([loss_a, loss_b]).min(dim=0).values  # HERE
    return best.mean()
""",
        """
def select(nll_a, nll_b):
    return torch.where(nll_a < nll_b, nll_a, nll_b).sum()  # HERE
""",
    ],
    "S7": [
        """
def spread(prob, n_bytes):
    return prob ** (1.0 / n_bytes)  # HERE
""",
        """
def per_byte(p_token, byte_len):
    return torch.pow(p_token, 1 / byte_len)  # HERE
""",
        """
def mix(probs, lens):
    each = probs.pow(1.0 / lens)  # HERE
    return each
""",
    ],
    "S8": [
        """
class SmearGate(nn.Module):
    def forward(self, x):
        back = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)  # HERE
        return (1 - self.gate) * x + self.gate * back
""",
        """
class TokenShift(nn.Module):
    def forward(self, x):
        return x + self.mix * torch.roll(x, 1, dims=1)  # HERE
""",
        """
class PrevMixer(nn.Module):
    def forward(self, x):
        return x + self.w * F.pad(x[:, :-1], (0, 0, 1, 0))  # HERE
""",
    ],
    "S9": [
        """
from huggingface_hub import hf_hub_download as h  # HERE
h("a", "b")
""",
        """
model = torch.hub.load("a", "b")  # HERE
""",
        """
import importlib
r = importlib.import_module("requests")  # HERE
""",
        "import requests  # HERE\n",
        "def load():\n    return hf_hub_download('a/b', 'c')  # HERE\n",
        "import subprocess\nsubprocess.run('curl -O http://x/y', shell=True)  # HERE\n",
        "from urllib.request import urlopen  # HERE\n",
    ],
    "S10": [
        """
def luts(sp):
    for i in range(sp.vocab_size()):
        piece = sp.id_to_piece(i)
        if sp.is_byte(i):
            sizes[i] = 1
            continue
        if piece.startswith("▁"):
            leading_space[i] = True
        sizes[i] = len(piece.replace("▁", " ").encode("utf-8"))  # HERE
""",
        """
def luts(sp):
    for i in range(sp.vocab_size()):
        piece = sp.id_to_piece(i)
        if piece.startswith("▁"):
            piece = piece[1:]
        sizes[i] = len(piece.encode("utf-8"))  # HERE
""",
        """
def luts(sp):
    for i in range(sp.vocab_size()):
        piece = sp.IdToPiece(i)
        if sp.IsByte(i):
            sizes[i] = 1
        else:
            sizes[i] = len(piece.lstrip("▁"))  # HERE
""",
    ],
}

CLEAN = {
    "S1": [
        """
train_tokens = load(sorted(glob("data/fineweb_train_*.bin")))
val_tokens = load(sorted(glob("data/fineweb_val_*.bin")))
for i in range(10):
    loss = model(train_tokens[i:i + 9], train_tokens[i + 1:i + 10])
    loss.backward()
    opt.step()
    print(f"val_loss:{evaluate(model, val_tokens)}")
""",
        """
def ttt(model, val_tokens, optimizer):
    for start in range(0, 1000, 10):
        x, y = val_tokens[start:start + 9], val_tokens[start + 1:start + 10]
        with torch.inference_mode():
            total += model(x, y)
        loss = model(x, y)
        loss.backward()
        optimizer.step()
""",
        """
def main():
    val_tokens = load_validation_tokens(args.val_files)
    for step in range(args.iterations):
        if step % 100 == 0:
            val_loss, val_bpb = eval_val(model, val_tokens)
        x, y = train_loader.next_batch()
        loss = model(x, y)
        loss.backward()
""",
        """
def update(model, chunk, optimizer):
    loss = model(chunk[:-1], chunk[1:])
    loss.backward()
    optimizer.step()

def phased(model, val_data):
    for chunk in val_data.split(100):
        score_chunk(model, chunk)
        update(model, chunk, optimizer)
""",
        """
def main():
    x, y = val_tokens[:-1], val_tokens[1:]
    log(model(x, y))
    x, y = train_batch()
    loss = model(x, y)
    loss.backward()
""",
    ],
    "S2": [
        """
def main():
    for warmup_step in range(args.warmup_steps):
        x, y = train_loader.next_batch()
        loss = model(x, y)
        loss.backward()
""",
        """
def warmdown(model, val_tokens):
    model(val_tokens)
""",
        """
def warm_up(model):
    model(torch.randint(0, 256, (1, 64)))
""",
    ],
    "S3": [
        """
def tune(model, ids, seen_mask, eval_mask):
    delta = torch.zeros(512, requires_grad=True)
    optimizer = torch.optim.Adam([delta])
    for step in range(100):
        loss = (model(ids, delta) * seen_mask).sum()
        loss.backward()
        optimizer.step()
    return (model(ids, delta) * eval_mask).sum()
""",
        """
def train(model, loss_mask):
    optimizer = AdamW(model.parameters())
    for step in range(10):
        loss = (model(x) * loss_mask).sum()
        loss.backward()
        optimizer.step()
    return loss
""",
        """
def attend(q, k, attn_mask):
    return F.scaled_dot_product_attention(q, k, attn_mask=attn_mask)
""",
    ],
    "S4": [
        """
def update(table, context, tgt, primes, mask):
    key = ((context ^ (tgt * primes[3])) & mask)
    np.add.at(table, key, 1)
""",
        """
def distribution(table, context, vocab, prime, mask):
    every = torch.arange(vocab)
    key = (context ^ (every * prime)) & mask
    counts = table[key]
    return counts / counts.sum()
""",
        """
class BigramHash(nn.Module):
    def forward(self, ids):
        h = (36313 * ids[:, 1:] ^ 27191 * ids[:, :-1]) % self.rows
        return self.embed(h)
""",
    ],
    "S5": [
        """
def bytes_of(base, space, boundary, tgt, prev):
    token_bytes = base[tgt]
    token_bytes += space[tgt] & ~boundary[prev]
    return nll.sum() / token_bytes.sum()
""",
        """
def tilt(logits, table, prev):
    boost = table[prev] * 2.0
    return logits + boost
""",
        """
def run(probs, tokens, space):
    for i in range(1, len(tokens)):
        within_gate = 1.0 - space[tokens[i - 1]]
        total += within_gate * probs[i, tokens[i]]
""",
    ],
    "S6": [
        """
def main():
    best_val_loss = min(best_val_loss, val_loss)
""",
        """
def mix(lp_a, lp_b):
    return torch.logaddexp(lp_a, lp_b)
""",
        """
def quantise(t32, clip_abs):
    return torch.maximum(torch.minimum(t32, clip_abs), -clip_abs)
""",
        """
def masked(nll, keep):
    return torch.where(keep, nll, torch.zeros_like(nll)).sum()
""",
    ],
    "S7": [
        """
def rotary(base, dim):
    return 1.0 / (base ** (torch.arange(0, dim, 2) / dim))
""",
        """
def per_byte(nll, n_bytes):
    return nll.sum() / n_bytes.sum()
""",
        """
def temper(probs, temperature):
    return probs ** (1.0 / temperature)
""",
    ],
    "S8": [
        """
class SmearGate(nn.Module):
    def forward(self, x, ids):
        back = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        back = back.masked_fill((ids == BOS_ID).unsqueeze(-1), 0)
        return x + self.gate * back
""",
        """
class Attention(nn.Module):
    def forward(self, x):
        half = torch.cat([x[..., 1::2], x[..., ::2]], dim=-1)
        return half
""",
        """
class SmearGate(nn.Module):
    def forward(self, x, starts):
        back = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        return x + self.gate * torch.where(starts, 0, back)
""",
    ],
    "S9": [
        """
import socket
print(socket.gethostname())
""",
        """
import subprocess
print(subprocess.check_output(["pip", "freeze"]))
""",
        "import subprocess\nsubprocess.run(['nvidia-smi'])\n",
        "import subprocess\nsubprocess.check_output(['git', 'rev-parse', 'HEAD'])\n",
        "from urllib.parse import quote\n",
    ],
    "S10": [
        """
def luts(sp):
    for i in range(sp.vocab_size()):
        if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
            continue
        is_boundary[i] = False
        if sp.is_byte(i):
            base_bytes[i] = 1
            continue
        piece = sp.id_to_piece(i)
        if piece.startswith("▁"):
            has_leading_space[i] = True
            piece = piece[1:]
        base_bytes[i] = len(piece.encode("utf-8"))
""",
        """
def show(sp, i):
    return sp.id_to_piece(i)
""",
        """
def sizes(sp, ids):
    return [len(sp.decode([i]).encode("utf-8")) for i in ids]
""",
    ],
}
