#!/bin/sh
# Runs make_env.py with whatever Python 3 there is, whatever version that is; make_env.py then looks for the right ones.
script="$(cd "$(dirname "$0")" && pwd)/make_env.py"

# Away from the project, where a pyenv without a 3.10 would refuse to start any Python because of .python-version.
cd / || exit 1

for python in python3 python3.13 python3.12 python3.11 python3.10 python; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1; then
        exec "$python" "$script" "$@"
    fi
done

if command -v uv >/dev/null 2>&1; then
    exec uv run --quiet --no-project --python '>=3.10,<3.14' "$script" "$@"
fi

echo "make_env: no Python 3 found on PATH; install Python 3.10 (with Lava) or 3.11 to 3.13 (without), or uv" >&2
exit 1
