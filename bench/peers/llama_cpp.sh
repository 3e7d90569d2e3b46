#!/usr/bin/env bash
# Measures MicroMix beside llama.cpp on this machine, in turn: whole models of one shape with random
# weights, and single products (compare.py says how).
#
#   bench/peers/llama_cpp.sh [--work DIR] [--build DIR] [--config FILE] [--split SPLIT]
#                            [--threads N] [--rounds N] [--release VERSION]
#
#   --work     scratch folder, kept for the next run (default: a temporary one, removed at the end)
#   --build    MicroMix's build folder (default: build-bench, which scripts/bench makes)
#   --config   config.json whose shape the models get (default: Qwen2.5-0.5B's)
#   --split    MicroMix's formats (default: e2m1=62.5,e2m3=37.5)
#   --threads  for both (default: all processors)
#   --rounds   default: 5
#   --release  of llama-cpp-python, whose source package holds llama.cpp
#
# Needs a compiler, cmake, ninja (scripts/setup) and python3 with venv. llama.cpp is built from the
# PyPI source package, for this CPU; a run that finds its parts in DIR skips making them.
set -euo pipefail
peers=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$peers/../.." && pwd)

work=
build=$root/build-bench
config=$root/bench/configs/qwen2.5-0.5b.json
split=e2m1=62.5,e2m3=37.5
threads=$(nproc)
rounds=5
release=0.3.36
while [ $# -gt 0 ]; do
  case "$1" in
    --work | --build | --config | --split | --threads | --rounds | --release)
      [ $# -ge 2 ] || { echo "$1: needs a value" >&2; exit 2; }
      declare "${1#--}=$2"
      shift 2
      ;;
    *)
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
      [ "$1" = --help ] && exit 0 || exit 2
      ;;
  esac
done
for program in synth bench_model; do
  [ -x "$build/bench/$program" ] || {
    echo "$build/bench/$program: not there; scripts/bench builds it" >&2
    exit 1
  }
done
if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
work=$(cd "$work" && pwd)
python=$work/venv/bin/python
package=$work/llama_cpp_python-$release
llama=$package/vendor/llama.cpp
objects=$work/build

if [ ! -x "$python" ] || ! "$python" -c "import gguf" 2>/dev/null; then
  echo "Installing gguf" >&2
  python3 -m venv "$work/venv"
  "$python" -m pip install -q gguf
fi
if [ ! -d "$llama" ]; then
  echo "Fetching llama-cpp-python $release" >&2
  "$python" -m pip download -q --no-deps --no-binary llama-cpp-python -d "$work" \
    "llama-cpp-python==$release"
  tar -xf "$package.tar.gz" -C "$work"
  # Left over from a checkout that is not here: its build would look for that and never settle.
  rm -rf "$llama/.git"
fi
if [ ! -x "$objects/bin/llama-bench" ]; then
  echo "Building llama.cpp (minutes)" >&2
  cmake -S "$llama" -B "$objects" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
    -DGGML_NATIVE=ON -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF >"$work/build.log"
  cmake --build "$objects" --target llama-bench >>"$work/build.log"
fi
if [ ! "$work/ggml_matmul" -nt "$peers/ggml_matmul.cpp" ]; then
  archives=("$objects"/ggml/src/{libggml,libggml-cpu,libggml-base}.a)
  "${CXX:-c++}" -std=c++20 -O2 -I"$llama/ggml/include" "$peers/ggml_matmul.cpp" "${archives[@]}" \
    -fopenmp -pthread -ldl -o "$work/ggml_matmul"
fi

# A model's name tells all that it is made of.
shape=$(basename "$config" .json)
models=$work/models
mkdir -p "$models"
for type in q4_0 mxfp4; do
  gguf=$models/$shape-$type.gguf
  [ -f "$gguf" ] && continue
  echo "Writing $gguf" >&2
  "$python" "$peers/write_gguf.py" "$config" $type "$gguf.partial"
  mv "$gguf.partial" "$gguf"
done
for head in bf16 e2m1; do
  folder=$models/$shape-$split-$head
  [ -d "$folder" ] && continue
  echo "Writing $folder" >&2
  option=()
  [ $head = bf16 ] || option=(--lm-head "$head")
  "$build/bench/synth" --force --like "$config" --split "$split" -o "$folder" "${option[@]}" >&2
done

echo "llama.cpp of llama-cpp-python $release; $shape, MicroMix at $split"
"$python" "$peers/compare.py" --threads "$threads" --rounds "$rounds" \
  --llama-bench "$objects/bin/llama-bench" --ggml-matmul "$work/ggml_matmul" \
  --bench "$build/bench" --q4_0 "$models/$shape-q4_0.gguf" --mxfp4 "$models/$shape-mxfp4.gguf" \
  --bf16-head "$models/$shape-$split-bf16" --e2m1-head "$models/$shape-$split-e2m1"
