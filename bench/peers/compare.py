#!/usr/bin/env python3
"""Runs MicroMix and llama.cpp in turn, a process each, and prints medians and ratios; llama_cpp.sh
makes what it needs and calls it.

Whole models: prefill of 512 tokens with the logits of the last (llama-bench -p 512; bench_model)
and decode of 64 tokens after those 512 (llama-bench -n 64 -d 512; bench_model), each with one run
to warm up; llama-bench's other options at their defaults. Products: M = 512, N = K = 4096, the
quantization of the activation included, ggml's weights repacked where it can. A figure is the
median over the rounds, a ratio the median of each round's: where strangers share the machine, only
neighbours in time compare.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

PROMPT, TOKENS = 512, 64
M, N, K = 512, 4096, 4096


def run(command):
    """Standard output of a command, and the peak of its resident set in bytes."""
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE,
                              stderr=errors) as process:
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            sys.exit(f"{errors.read().decode()}{command[0]}: exit code {process.returncode}")
    return output, usage.ru_maxrss * 1024


def llama_bench(options, model):
    """Tokens a second of prefill and decode, and the larger peak."""
    rates, peaks = [], []
    for test in (["-p", PROMPT, "-n", 0], ["-p", 0, "-n", TOKENS, "-d", PROMPT]):
        output, peak = run([options.llama_bench, "-m", model, "-t", options.threads, "-r", 1,
                            "-o", "json", *test])
        rates.append(json.loads(output)[0]["avg_ts"])
        peaks.append(peak)
    return {"prefill": rates[0], "decode": rates[1], "peak": max(peaks)}


def bench_model(options, model):
    with tempfile.TemporaryDirectory() as folder:
        result = pathlib.Path(folder) / "result.json"
        _, peak = run([options.bench / "bench_model", model, "--threads", options.threads,
                       "--prompt", PROMPT, "--tokens", TOKENS, "--repeats", 1, "--json", result])
        figures = json.loads(result.read_text())
    return {"prefill": figures["prefill_tokens_per_second"],
            "decode": figures["decode_tokens_per_second"], "peak": peak}


def ggml_matmul(options, kind):
    output, _ = run([options.ggml_matmul, kind, M, N, K, options.threads])
    return float(output.split()[0])


def bench_linear(options):
    with tempfile.TemporaryDirectory() as folder:
        result = pathlib.Path(folder) / "result.json"
        run([options.bench / "bench_linear", "--plans", "e2m1", "--shapes", f"{N}x{K}", "--m", M,
             "--threads", options.threads, "--json", result])
        return json.loads(result.read_text())["results"][0]["macs_per_second"] * 1e-9


def in_turn(contenders, rounds, what):
    """What each contender returned, a round each."""
    results = {name: [] for name in contenders}
    for i in range(rounds):
        for name, measure in contenders.items():
            print(f"{what}: round {i + 1} of {rounds}, {name}", file=sys.stderr)
            results[name].append(measure())
    return results


def median_ratio(numerators, denominators):
    return statistics.median(a / b for a, b in zip(numerators, denominators))


def compare_models(options):
    peers = {"llama.cpp Q4_0": options.q4_0, "llama.cpp MXFP4": options.mxfp4}
    own = {"MicroMix, BF16 lm_head": options.bf16_head, "MicroMix, E2M1 lm_head": options.e2m1_head}
    contenders = {name: lambda model=model: llama_bench(options, model)
                  for name, model in peers.items()}
    contenders |= {name: lambda model=model: bench_model(options, model)
                   for name, model in own.items()}
    rounds = in_turn(contenders, options.rounds, "models")
    results = {name: {key: [each[key] for each in of_name] for key in of_name[0]}
               for name, of_name in rounds.items()}

    print(f"\n{'tokens/s':<28}{'prefill':>12}{'decode':>12}{'peak MB':>12}")
    for name, result in results.items():
        median = {key: statistics.median(values) for key, values in result.items()}
        print(f"{name:<28}{median['prefill']:>12.1f}{median['decode']:>12.1f}"
              f"{median['peak'] * 1e-6:>12.0f}")
    print(f"\n{'ratio':<50}{'prefill':>12}{'decode':>12}")
    for name in own:
        for peer in peers:
            prefill, decode = (median_ratio(results[name][key], results[peer][key])
                               for key in ("prefill", "decode"))
            print(f"{f'{name} / {peer}':<50}{prefill:>12.3f}{decode:>12.3f}")


def compare_products(options):
    contenders = {"ggml Q4_0": lambda: ggml_matmul(options, "q4_0"),
                  "ggml MXFP4": lambda: ggml_matmul(options, "mxfp4")}
    if (options.bench / "bench_linear").exists():
        contenders["MicroMix MXFP4"] = lambda: bench_linear(options)
    results = in_turn(contenders, options.rounds, "products")
    own = results.get("MicroMix MXFP4")
    print(f"\n{f'M={M}, N={N}, K={K}':<28}{'GMAC/s':>12}{'MicroMix / it':>16}")
    for name, values in results.items():
        ratio = f"{median_ratio(own, values):.3f}" if own else "-"
        print(f"{name:<28}{statistics.median(values):>12.1f}{ratio:>16}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("llama-bench", "ggml-matmul", "bench", "q4_0", "mxfp4", "bf16-head", "e2m1-head"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    print(f"{options.threads} threads, medians of {options.rounds} rounds in turn")
    compare_products(options)
    compare_models(options)


main()
