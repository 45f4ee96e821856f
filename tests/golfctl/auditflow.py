"""Small scripts whose faults no name gives away: values have to be followed through functions, classes and loops."""

from __future__ import annotations

_START = """
tokens = torch.from_numpy(np.fromfile("data/fineweb_val_000.bin", dtype=np.uint16))
"""
_BATCHES = """
others = torch.from_numpy(np.fromfile("data/fineweb_train_000.bin", dtype=np.uint16))

def get_batch(split):
    data = others if split == "train" else tokens
    at = torch.randint(len(data) - 64, (8,))
    return torch.stack([data[i:i + 64] for i in at]), torch.stack([data[i + 1:i + 65] for i in at])

for step in range(100):
    for part in PARTS:
        x, y = get_batch(part)
        loss = net(x, y)
        loss.backward()
        opt.step()
"""

FAULTY = {
    "S1": [
        """
class Tuner:
    def __init__(self, net):
        self.net = net

    def fit(self, row):
        out = self.net(row[:, :-1], row[:, 1:])
        out.backward()  # HERE

    def run(self, held):
        for row in held.split(64):
            self.fit(row)

print(eval_val(net, held))
"""
        + _START
        + "Tuner(build_net()).run(tokens)\n",
        _START
        + """
def rescored(net, text):
    for epoch in range(4):
        total = 0.0
        for i in range(0, 1000, 10):
            piece = text[i:i + 11]
            loss = net(piece[:-1], piece[1:])
            total += loss.item()
            loss.backward()
    return total  # HERE

print(rescored(net, tokens))
""",
        _START + _BATCHES.replace("PARTS", '["train", "val"]').replace("loss.backward()", "loss.backward()  # HERE"),
    ],
    "S2": [
        _START
        + """
def start(net, sample):
    net(sample[:64])  # HERE

start(net, tokens)
"""
    ],
    "S3": [
        _START
        + """
for at in range(0, 1000, 64):
    w = tokens[at:at + 129]
    sel = torch.zeros(128, dtype=torch.bool)
    sel[-64:] = True
    h = net(w[:-1])
    d = torch.zeros_like(h[:1]).requires_grad_()
    for _ in range(4):
        cost = F.cross_entropy(net_head(h + d)[sel], w[1:][sel])
        d = d - torch.autograd.grad(cost, d)[0]
        d = d.detach().requires_grad_()
    done = F.cross_entropy(net_head(h + d)[sel], w[1:][sel])
    total += done.item()  # HERE
"""
    ],
    "S4": [
        _START
        + """
def fold(past, nxt):
    return (past * 92821 + nxt) % 65536

def cached(s, joint, single):
    past, nxt = s[:-1], s[1:]
    hit = joint[fold(past, nxt)]  # HERE
    p = hit / single[past]
    base = F.softmax(net(past), -1).gather(-1, nxt)
    return (0.5 * p + 0.5 * base).log().sum()

cached(tokens, joint, single)
"""
    ],
    "S5": [
        _START
        + """
class Blend:
    def weight(self, token):
        return self.table.index_select(0, token)

    def __call__(self, a, b, token):
        w = self.weight(token)
        return w * a + (1 - w) * b  # HERE

s = tokens
cost_a = F.softmax(net(s[:-1]), -1).gather(-1, s[1:])
cost_b = F.softmax(cache(s[:-1]), -1).gather(-1, s[1:])
Blend()(cost_a, cost_b, s[1:]).log().sum()
"""
    ],
    "S6": [
        _START
        + """
def cost(net, s):
    out = net(s[:-1])
    return torch.logsumexp(out, -1) - out.gather(-1, s[1:])

merged = np.fmin(cost(a_model, tokens), cost(b_model, tokens))  # HERE
""",
        _START
        + """
q = F.softmax(net(tokens[:-1]), -1).gather(-1, tokens[1:])
better = cached > q
final = torch.where(better, cached, q)  # HERE
""",
    ],
    "S7": [
        """
def mix(lp, nbytes, other):
    each = torch.repeat_interleave(lp / nbytes, nbytes)  # HERE
    return torch.logaddexp(each, other)

mix(a, b, c)
""",
        """
def geo(prob, nbytes):
    return np.power(prob, np.reciprocal(nbytes))  # HERE

geo(a, b)
""",
    ],
    "S8": [
        """
def later(t):
    return torch.cat((t.new_zeros(1), t[:, :-1]), 1)

class Tail(nn.Module):
    def forward(self, x):
        return x + torch.tanh(self.mu) * later(x)  # HERE
""",
        """
class Echo(nn.Module):
    def forward(self, z):
        return torch.lerp(z, F.pad(z, (0, 0, 1, -1)), self.s.sigmoid())  # HERE
""",
    ],
    "S10": [
        """
def add_up(space, base, y):
    count = base[y]
    count += space[y].to(torch.int16)  # HERE
    return count
""",
        """
def luts(sp, n):
    byte_table = np.zeros(n)
    for i in range(n):
        if sp.is_control(i):
            byte_table[i] = 3  # HERE
    return byte_table
""",
        """
def total(y):
    byte_count = y.numel() * 2.6  # HERE
    return byte_count
""",
    ],
}
"""Each right above, and wrong on the line marked HERE."""

CLEAN = {
    "S1": [
        _START
        + """
class Online:
    def score(self, a, b):
        with torch.no_grad():
            self.sum += self.net(a, b).item()

    def learn(self, a, b):
        self.net(a, b).backward()

    def run(self, held):
        for row in held.split(64):
            self.score(row[:-1], row[1:])
            self.learn(row[:-1], row[1:])

Online().run(tokens)
""",
        _START
        + """
def phase(net, text):
    for i in range(0, 1000, 10):
        net(text[i:i + 10], text[i + 1:i + 11]).backward()

def run(net, text):
    for doc in text.split(100):
        total += net(doc[:-1], doc[1:]).item()
        if ready():
            phase(net, scored(text))

run(net, tokens)
""",
        _START + _BATCHES.replace("PARTS", '["train"]'),
    ],
    "S2": [
        _START
        + """
def warm_up(net, text):
    net(torch.zeros(1, min(64, text.numel())))

warm_up(net, tokens)
"""
    ],
    "S3": [
        _START
        + """
for at in range(0, 1000, 64):
    w = tokens[at:at + 129]
    ctx = torch.zeros(128)
    ctx[:-64] = 1.0
    new = 1.0 - ctx
    d = torch.zeros(8, requires_grad=True)
    for _ in range(4):
        cost = F.cross_entropy(net(w[:-1]) + d, w[1:], reduction="none")
        (cost * ctx).sum().backward()
    cost = F.cross_entropy(net(w[:-1]) + d, w[1:], reduction="none")
    total += (cost * new).sum().item()
"""
    ],
    "S4": [
        _START
        + """
def rows(s, table):
    key = (s[:-2] * 1000003 + s[1:-1]) % 4096
    row = table[key] + 0.01
    return (row / row.sum(-1)).gather(-1, s[2:]).log().sum()

rows(tokens, table)
"""
    ],
    "S5": [
        _START
        + """
x, y = tokens[:-1], tokens[1:]
one = F.softmax(net(x), -1).gather(-1, y)
w = torch.sigmoid(boosts[x])
total = (w * one + (1 - w) * bigram[x, y]).log().sum()
"""
    ],
    "S6": [
        _START
        + """
cost = F.cross_entropy(net(tokens[:-1]), tokens[1:], reduction="none")
cost = torch.where(torch.arange(9) >= 4, cost, torch.zeros_like(cost))
keep = min(64, cost.numel())
"""
    ],
    "S7": [
        """
def told(nll, nbytes, p, n):
    rate = nll / nbytes / math.log(2)
    q = p ** (1.0 / n)
    return rate.mean(), q / q.sum(-1)

told(a, b, c, d)
"""
    ],
    "S8": [
        """
class Smear(nn.Module):
    def forward(self, x, ids):
        g = torch.sigmoid(self.gate) * (ids != 1)
        prev = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        return (1 - g) * x + g * prev
"""
    ],
    "S10": [
        """
MARK = "▁"

def luts(sp, n):
    byte_table = np.zeros(n)
    for i in range(n):
        if sp.is_byte(i):
            byte_table[i] = 1
            continue
        piece = sp.id_to_piece(i)
        if piece.startswith(MARK):
            piece = piece[1:]
        byte_table[i] = len(piece.encode())
    return byte_table
""",
        """
def lengths(sp, ids):
    return [len(sp.id_to_piece(i)) for i in ids]
""",
    ],
}
"""What looks alike and is right."""
