"""Makes mx/elements.safetensors and mx/blocks.safetensors: what micromix/mx is held against.

    python3 make_mx_vectors.py OUT_DIR

Elements come from ml_dtypes. Blocks come from torchao's to_mx, and, for the cases where torchao does
something else than docs/numerics.md asks for, from exact arithmetic (Python's fractions) written here
apart from the C++ code. Prints every block in which the two differ. mx/README.md says which cases
those are and which versions made the files.
"""

import math
import os
import sys
from fractions import Fraction

import ml_dtypes
import numpy as np
import torch
import torchao
from safetensors.numpy import save_file
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.kernels import unpack_uint4
from torchao.prototype.mx_formats.mx_tensor import to_mx

# name: (ml_dtypes type, torchao type, bits, exponent bits, mantissa bits, bias, emax, largest)
FORMATS = {
    "e2m1": (ml_dtypes.float4_e2m1fn, torch.float4_e2m1fn_x2, 4, 2, 1, 1, 2, 6.0),
    "e2m3": (ml_dtypes.float6_e2m3fn, "fp6_e2m3", 6, 2, 3, 1, 2, 7.5),
    "e3m2": (ml_dtypes.float6_e3m2fn, "fp6_e3m2", 6, 3, 2, 3, 4, 28.0),
    "e4m3": (ml_dtypes.float8_e4m3fn, torch.float8_e4m3fn, 8, 4, 3, 7, 8, 448.0),
    "e5m2": (ml_dtypes.float8_e5m2, torch.float8_e5m2, 8, 5, 2, 15, 15, 57344.0),
}
RULES = {
    "floor": ScaleCalculationMode.FLOOR,
    "rceil": ScaleCalculationMode.RCEIL,
    "even": ScaleCalculationMode.EVEN,
}


def elements(tensors):
    random = np.random.default_rng(1)
    for name, (dtype, _, bits, _, _, _, _, largest) in FORMATS.items():
        codes = np.arange(1 << bits, dtype=np.uint8)
        decoded = codes.view(dtype).astype(np.float32)
        tensors[f"{name}.decode"] = decoded
        finite = np.unique(np.abs(decoded[np.isfinite(decoded)]))
        middles = ((finite[:-1] + finite[1:]) / 2).astype(np.float32)
        edges = np.concatenate([finite, middles])
        inputs = np.concatenate([
            edges,
            np.nextafter(edges, np.float32(np.inf)),
            np.nextafter(edges, np.float32(-np.inf)),
            np.float32([0, 1e-45, 1e-40, largest * 1.01, largest * 2, 3e38, np.inf]),
            random.normal(0, largest / 4, 300).astype(np.float32),
            random.integers(0, 0x7F800000, 300, dtype=np.uint32).view(np.float32),
            # FP32 subnormals, and every binade of the format alike, those beyond its ends too.
            random.integers(1, 0x00800000, 40, dtype=np.uint32).view(np.float32),
            np.exp2(random.uniform(math.log2(finite[1]) - 3, math.log2(largest) + 2, 300)),
        ]).astype(np.float32)
        if np.isnan(decoded).any():
            inputs = np.append(inputs, np.float32(np.nan))
        inputs = np.concatenate([inputs, -inputs])
        # Ours saturates, infinities too; ml_dtypes overflows, so it is given what is in range. NaN
        # passes np.clip.
        clamped = np.clip(inputs, -largest, largest).astype(np.float32)
        tensors[f"{name}.inputs"] = inputs
        tensors[f"{name}.codes"] = clamped.astype(dtype).view(np.uint8)


def exact_scale(rule, mantissa_bits, emax, largest, a):
    """The scale byte of a block whose largest magnitude is the Fraction a."""
    if a == 0:
        return 127
    e = math.floor(math.log2(float(a)))
    while Fraction(2) ** e > a:
        e -= 1
    while Fraction(2) ** (e + 1) <= a:
        e += 1
    if rule == "floor":
        s = e - emax
    elif rule == "rceil":
        s = e - emax
        while a / Fraction(2) ** s > Fraction(largest):
            s += 1
    else:
        ulp = Fraction(2) ** (e - mantissa_bits)
        count = a / ulp
        whole = count.numerator // count.denominator
        rest = count - whole
        if rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1):
            whole += 1
        s = (e + 1 if whole * ulp >= Fraction(2) ** (e + 1) else e) - emax
    return min(max(s, -127), 127) + 127


def exact_block(name, rule, block):
    """Scale byte and codes, by searching the nearest of all codes."""
    dtype, _, bits, _, mantissa_bits, _, emax, largest = FORMATS[name]
    values = [float(v) for v in np.arange(1 << (bits - 1), dtype=np.uint8).view(dtype).astype(np.float32)]
    table = [Fraction(v) for v in values if math.isfinite(v)]
    scale = exact_scale(rule, mantissa_bits, emax, largest,
                        max(abs(Fraction(float(x))) for x in block))
    codes = []
    for x in block:
        target = abs(Fraction(float(x))) / Fraction(2) ** (scale - 127)
        nearest = min(range(len(table)), key=lambda i: (abs(table[i] - target), i % 2))
        codes.append(nearest | (1 << (bits - 1) if np.signbit(x) else 0))
    return scale, codes


def random_blocks(name, count):
    """Ordinary, heavy-tailed and boundary blocks, all within FP32's normal range."""
    _, _, _, _, mantissa_bits, _, _, largest = FORMATS[name]
    random = np.random.default_rng(2)
    blocks = random.normal(size=(count, 32)) * np.exp2(random.integers(-40, 40, (count, 1)))
    blocks[1::4] *= np.exp2(random.integers(-8, 8, (count, 32)))[1::4]
    blocks = blocks.astype(np.float32)
    # The largest magnitude sits on a boundary of a rule, or an ulp beside it.
    edges = [1.0, largest, 2 - 2.0 ** -(mantissa_bits + 1)]
    for i in range(2, count, 4):
        edge = np.float32(edges[i // 4 % 3] * 2.0 ** random.integers(-10, 10))
        blocks[i] = random.uniform(-edge, edge, 32).astype(np.float32) / 2
        blocks[i, i % 32] = [edge, np.nextafter(edge, np.float32(np.inf)),
                             np.nextafter(edge, np.float32(0))][i // 12 % 3]
    return blocks


def edge_blocks(name):
    """What torchao does otherwise: zero, subnormal and clamped scales, the ends of FP32."""
    _, _, _, _, _, _, emax, largest = FORMATS[name]
    random = np.random.default_rng(3)
    rows = [np.zeros(32), np.where(np.arange(32) % 2, 0.0, -0.0)]
    for size in [2.0**-149, 3 * 2.0**-149, 2.0**-140, 2.0**-127, 2.0**-126, 2.0**-124, 2.0**-118,
                 2.0**-110, 2.0**120, 2.0**126]:
        row = random.uniform(-size, size, 32)
        row[random.integers(32)] = size
        rows.append(row)
    # About the smallest magnitudes whose exponent is not clamped: byte 0 to byte 1 or 2.
    for size in [2.0 ** (emax - 127), largest * 2.0**-127]:
        for a in [size, np.nextafter(np.float32(size), np.float32(0)),
                  np.nextafter(np.float32(size), np.float32(1)), 2 * size,
                  2 * np.nextafter(np.float32(size), np.float32(1))]:
            row = random.uniform(-size, size, 32) / 2
            row[random.integers(32)] = a
            rows.append(row)
    # FP32 subnormals beside an ordinary magnitude.
    row = random.uniform(-(2.0**-126), 2.0**-126, 32)
    row[5] = -1
    rows.append(row)
    rows.append(np.full(32, np.finfo(np.float32).max, dtype=np.float64))
    return np.array(rows).astype(np.float32)


def torchao_blocks(name, rule, inputs):
    _, torch_type, bits, _, _, _, _, _ = FORMATS[name]
    scales, data = to_mx(torch.from_numpy(inputs), torch_type, 32, RULES[rule])
    codes = data.view(torch.uint8).numpy().reshape(len(inputs), -1)
    if bits == 4:
        codes = unpack_uint4(torch.from_numpy(codes)).numpy()
    return scales.view(torch.uint8).numpy().reshape(-1), codes


def exact_blocks(name, rule, inputs):
    scales, codes = zip(*(exact_block(name, rule, block) for block in inputs))
    return np.array(scales, dtype=np.uint8), np.array(codes, dtype=np.uint8)


def different(title, inputs, theirs, exact):
    """Which blocks torchao quantizes otherwise; prints them."""
    scales, codes = (mine != other for mine, other in zip(exact, theirs))
    differ = scales | codes.any(1)
    print(f"{title}: {differ.sum()} of {len(inputs)} blocks differ")
    for i in np.flatnonzero(differ):
        print(f"    largest magnitude {float(np.abs(inputs[i]).max()).hex()}: scale byte "
              f"{theirs[0][i]} for {exact[0][i]}, {codes[i].sum()} codes")
    return differ


def blocks(tensors):
    def record(source, name, rule, inputs, scales, codes):
        prefix = f"{source}.{name}.{rule}"
        tensors[prefix + ".inputs"] = inputs
        tensors[prefix + ".scales"] = scales
        tensors[prefix + ".codes"] = codes

    for name in FORMATS:
        inputs, edges = random_blocks(name, 240), edge_blocks(name)
        for rule in RULES:
            theirs, exact = torchao_blocks(name, rule, inputs), exact_blocks(name, rule, inputs)
            differ = different(f"{name} {rule} random", inputs, theirs, exact)
            record("torchao", name, rule, inputs[~differ], *(part[~differ] for part in theirs))
            exact_edges = exact_blocks(name, rule, edges)
            different(f"{name} {rule} edges", edges, torchao_blocks(name, rule, edges), exact_edges)
            # What torchao quantizes otherwise is held against exact arithmetic instead.
            record("exact", name, rule, np.concatenate([edges, inputs[differ]]),
                   *(np.concatenate([edge, part[differ]]) for edge, part in zip(exact_edges, exact)))


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    for name, make in (("elements", elements), ("blocks", blocks)):
        tensors = {}
        make(tensors)
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()},
                  os.path.join(out, name + ".safetensors"))
    print("ml_dtypes", ml_dtypes.__version__, "torchao", torchao.__version__, "torch",
          torch.__version__, "numpy", np.__version__)


main()
