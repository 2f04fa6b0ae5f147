#!/bin/sh
# Installs samovard and samovar into a directory of their own: install.sh PYTHON TARGET [BASE]
#
# PYTHON has what requirements/run.txt locks, the build backend included; BASE is the Python
# that is to run it, by default the one that PYTHON is of. Twice with the same sources,
# SOURCE_DATE_EPOCH and TARGET gives the same tree to the byte. UV names a uv that installs
# the dependencies instead of pip, in a tenth of the time.
set -eu
umask 022
cd "$(dirname "$0")/../.."
python=$1
target=$2
base=${3:-$python}
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
"$python" -m pip wheel -q --no-deps --no-build-isolation --wheel-dir "$wheels" clients/python .

# No pip of its own, and nothing that had to be compiled.
"$base" -m venv --without-pip "$target"
if [ -n "${UV:-}" ]; then
  "$UV" pip install -q --python "$target/bin/python" --link-mode copy \
    --require-hashes --only-binary :all: -r requirements/serve.txt
else
  "$python" -m pip --python "$target/bin/python" install -q --no-compile \
    --require-hashes --only-binary :all: -r requirements/serve.txt
fi
"$python" -m pip --python "$target/bin/python" install -q --no-compile \
  --no-deps --no-index --find-links "$wheels" samovard samovar

# The root may be read-only: whoever starts must find the modules compiled. By hash, as the
# sources' times are no longer told; in one process, as the order must not differ.
PYTHONHASHSEED=0 "$target/bin/python" -m compileall -q -f -j 1 \
  --invalidation-mode unchecked-hash "$target/lib"
chmod -R u=rwX,go=rX "$target"
find "$target" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
