#!/bin/sh
# Puts the pinned CLI where it runs and cannot be read: claude.sh PYTHON TARGET
#
# PYTHON has the package that carries it. Mode 0711: what runs such a file has an environment
# in /proc that nobody of its own user can read, its tools neither. The service knows the file
# by the digest that is noted beside it.
set -eu
umask 022
here=$(dirname "$0")
python=$1
target=$2
machine=$(uname -m)

bundled=$("$python" -c 'if True:
    import importlib.util
    places = importlib.util.find_spec("claude_agent_sdk").submodule_search_locations
    print(f"{places[0]}/_bundled")')
digest=$(awk -v machine="$machine" '$2 == machine { print $1 }' "$here/claude.sha256")
if [ -z "$digest" ]; then
  echo "claude.sh: no digest of the CLI is known for $machine" >&2
  exit 1
fi
if ! echo "$digest  $bundled/claude" | sha256sum --check --status; then
  echo "claude.sh: the CLI is not the pinned one" >&2
  exit 1
fi
install -d -m 0755 "$target"
install -m 0711 "$bundled/claude" "$target/claude"
echo "$digest  claude" > "$target/claude.sha256"
chmod 0444 "$target/claude.sha256"
find "$target" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
