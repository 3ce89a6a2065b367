#!/usr/bin/env bash
# Build a source distribution, a wheel from it, and use the wheel outside of the checkout.
# Usage: tools/try_wheel.sh PYTHON, an interpreter that has torch, `build` and everything that attnc needs.
set -euo pipefail
exec </dev/null

python=$(realpath --no-symlinks "${1:?usage: tools/try_wheel.sh PYTHON}")
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "-- build"
"$python" -m build --outdir "$work/dist" "$root" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }

echo "-- what they carry"
"$python" - "$root" "$work/dist" <<'PYTHON'
import sys, tarfile, zipfile
from pathlib import Path

root, dist = map(Path, sys.argv[1:])
[wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")
shipped = set(zipfile.ZipFile(wheel).namelist())
sources = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}


def below(folder, *suffixes):
    # The links attnc/codegen and attnc/grammar are the same files once more.
    paths = (path for suffix in suffixes for path in (root / folder).rglob(f"*{suffix}"))
    return [path for path in paths if not any(parent.is_symlink() for parent in path.parents)]


package = {f"attnc/{path.relative_to(root / 'attnc')}" for path in below("attnc", ".py", "py.typed")}
for room in ("codegen", "grammar"):
    package |= {f"attnc/{path.relative_to(root)}" for path in below(room, ".py", ".lark", ".json")}
house = {
    str(path.relative_to(root))
    for room in ("attnc", "codegen", "docs", "grammar", "examples", "tests", "tools")
    for path in below(room, ".py", ".lark", ".attn", ".md", ".sh", ".svg")
}
for what, wanted, there in ((wheel.name, package, shipped), (sdist.name, house, sources)):
    print(f"{what}: {len(there)} files")
    if missing := sorted(wanted - there):
        sys.exit(f"error: {what} lacks {', '.join(missing)}")
with zipfile.ZipFile(wheel) as archive:
    [metadata] = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
if "Requires-Dist: triton" not in metadata or 'extra == "gpu"' not in metadata:
    sys.exit(f"error: {wheel.name} offers no Triton as the extra `gpu`")
if needed := [line for line in metadata.splitlines() if line.startswith("Requires-Dist: triton") and "extra" not in line]:
    sys.exit(f"error: {wheel.name} needs Triton on a CPU, too: {needed[0]}")
if strangers := sorted(name for name in shipped if not name.startswith(("attnc/", "attnc-"))):
    sys.exit(f"error: {wheel.name} would install {', '.join(strangers)} beside the package")
PYTHON

echo "-- install into a fresh environment"
"$python" -m venv --without-pip "$work/venv"
new="$work/venv/bin"
# Dependencies are borrowed: downloading torch once more would prove nothing about attnc.
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    >"$("$new/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
pip=("$python" -m pip --disable-pip-version-check --python "$new/python")
"${pip[@]}" install -q --ignore-installed --no-deps "$work"/dist/*.whl
"${pip[@]}" check

echo "-- use it"
mkdir "$work/elsewhere"
cd "$work/elsewhere"
export ATTNC_CACHE_DIR="$work/cache"
cat >local.attn <<'ATTN'
# A window and a few tokens that everyone reads and that read everyone.
pattern local(window: int = 8) {
    input hub: bool[n]
    attend window(window, window) | to(hub) | from(hub)
    require nonempty
}
ATTN
"$new/attnc" --version
"$new/attnc" check local.attn
"$new/attnc" compile local.attn -o local.py -p window=4
"$new/python" - "$work/venv" <<'PYTHON'
import sys
from pathlib import Path

import attnc, attnc.cli, attnc.codegen, attnc.grammar

for module in (attnc, attnc.cli, attnc.codegen, attnc.grammar):
    place = Path(module.__file__ or "").resolve()
    if not place.is_relative_to(Path(sys.argv[1]).resolve()):
        sys.exit(f"error: {module.__name__} came from {place}, not from the wheel")
    print(f"{module.__name__}: from the wheel")
PYTHON
# Without Triton, as after `pip install .`: patterns are compiled and run on the CPU.
"$new/python" - <<'PYTHON'
import sys

sys.modules["triton"] = None
import attnc, torch

q = torch.randn(1, 2, 77, 32)
hub = torch.rand(77) < 0.1
local = attnc.load("local.attn")
mask = attnc.mask("local.attn", 77, inputs={"hub": hub})
want = torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)
if not torch.allclose(local(q, q, q, hub=hub), want, atol=1e-5):
    sys.exit("error: attention without Triton and dense attention disagree")
try:
    local(q, q, q, hub=hub, backend="triton")
except RuntimeError as error:
    print(f"without Triton: {error}")
else:
    sys.exit("error: the Triton path ran without Triton")
PYTHON
# The emitted module stands alone: in this process neither attnc nor Triton can be imported.
"$new/python" - <<'PYTHON'
import sys

sys.modules["attnc"] = sys.modules["triton"] = None
import torch
from local import local

torch.manual_seed(0)
q, k, v = (torch.randn(2, 3, 77, 32, dtype=torch.float64).float() for _ in range(3))
hub = torch.rand(77) < 0.1
i = torch.arange(77)
mask = ((i[:, None] - i[None]).abs() <= 4) | hub[:, None] | hub[None]
want = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=mask)
worst = (local(q, k, v, hub=hub) - want).abs().max().item()
print(f"emitted module against dense attention in fp64: largest difference {worst:.1e}")
if not worst < 1e-5:
    sys.exit("error: the emitted module and dense attention disagree")
PYTHON
echo "-- every command, in an empty folder"
mkdir "$work/empty"
cd "$work/empty"
"$new/python" "$root/tools/try_commands.py"
echo "-- the wheel is good"
