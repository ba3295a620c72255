#!/usr/bin/env bash
# All measurements on one accelerator, in less than eight minutes after set-up, into
# benchmarks/results/DEVICE.json and .md.
#
#   benchmarks/accelerator.sh --env=cuda12          # or tpu: makes .venv-accelerator
#   benchmarks/accelerator.sh --flickr=FOLDER       # with the Python that is there
#   benchmarks/accelerator.sh --tiny                # sizes for a CPU, to try it out
#
#   --env=KIND            a virtual environment of its own with jax[KIND]; cpu, too
#   --python=PYTHON       the Python to run (default: that environment's, else python3)
#   --torch-python=PYTHON a Python with PyTorch, to compare the training step with
#   --torch               also installs PyTorch into the environment of --env
#   --flickr=FOLDER       MIR-Flickr 25k's archives for the whole training, else shapes
#   --results=FOLDER      where the two files go
#   --sections=A,B        only these: device train_step copies evaluator search training
#
# Every section has a time of its own; one that fails or runs out of it is named in the
# report, and the others go on.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
env_kind="" python="" torch_python="" torch="" flickr="" tiny=""
results="$here/results" sections="device,train_step,copies,evaluator,search,training"
for argument in "$@"; do
  case "$argument" in
    --env=*) env_kind=${argument#*=} ;;
    --python=*) python=${argument#*=} ;;
    --torch-python=*) torch_python=${argument#*=} ;;
    --torch) torch=yes ;;
    --flickr=*) flickr=${argument#*=} ;;
    --results=*) results=${argument#*=} ;;
    --sections=*) sections=${argument#*=} ;;
    --tiny) tiny=--tiny ;;
    *) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 2 ;;
  esac
done

venv="$root/.venv-accelerator"
if [ -n "$env_kind" ]; then
  if [ ! -x "$venv/bin/python" ]; then
    "${python:-python3}" -m venv "$venv" || exit 1
  fi
  python="$venv/bin/python"
  packages=("jax[$env_kind]")
  [ "$env_kind" = cpu ] && packages=(jax)
  [ -n "$torch" ] && packages+=(torch)
  "$python" -m pip install -qq --disable-pip-version-check \
    --editable "$root[train]" "${packages[@]}" || exit 1
fi
[ -z "$python" ] && [ -x "$venv/bin/python" ] && python="$venv/bin/python"
python=${python:-python3}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# The parts are processes of their own, and PyTorch wants memory too.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# section NAME SECONDS COMMAND...: runs it unless it was left out; notes a failure.
section() {
  local name=$1 limit=$2 status started=$SECONDS
  shift 2
  case ",$sections," in *",$name,"*) ;; *) return ;; esac
  printf '== %s, at most %d s (%d s so far)\n' "$name" "$limit" "$SECONDS"
  timeout -k 10 "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  if [ $status -ne 0 ]; then
    local reason
    reason=$(grep -v '^[[:space:]]*$' "$out/$name.log" | tail -n 1 | cut -c1-200)
    [ $status -eq 124 ] && reason="its $limit s were over"
    echo "$name: $reason" | tee -a "$out/failed.txt"
  fi
  printf '   %d s\n' $((SECONDS - started))
}

torch_flags=()
[ -n "$torch_python" ] && torch_flags=("--torch-python=$torch_python")
step=(--sizes=224 --forms=recommended --dtypes=bfloat16 --batch=1000 --rounds=5
  --steps=5 --budget=25 --torch-modes=channels_last,compile --no-check)
input=(--size=224 --batch=256 --dtype=bfloat16 --pairs=256 --steps=8)
limits=(60 170 60 80 50 150)
if [ -n "$tiny" ]; then
  step=(--sizes=32 --forms=recommended --dtypes=float32 --batch=4 --rounds=2 --steps=1
    --width=4 --wide=32 --narrow=16 --words=50 --torch-modes=channels_last --no-check)
  input=(--size=32 --batch=8 --pairs=16 --steps=2 --rounds=1 --width=4 --wide=32)
  # A small machine may be slow; there the total does not matter.
  limits=(600 600 600 600 600 600)
fi
section device "${limits[0]}" \
  "$python" "$here/accelerator.py" device --out="$out" $tiny
section train_step "${limits[1]}" \
  "$python" "$here/train_step.py" "${step[@]}" "${torch_flags[@]}" --out="$out/train_step"
section copies "${limits[2]}" \
  "$python" "$here/input.py" --sections=copies "${input[@]}" --out="$out/copies"
section evaluator "${limits[3]}" \
  "$python" "$here/accelerator.py" evaluator --out="$out" --budget=60 $tiny
section search "${limits[4]}" \
  "$python" "$here/accelerator.py" search --out="$out" --budget=30 $tiny
section training "${limits[5]}" \
  "$python" "$here/accelerator.py" training --out="$out" --flickr="$flickr" $tiny
"$python" "$here/accelerator.py" report --out="$out" --results="$results" $tiny
