#!/usr/bin/env bash
# A network is one file, one line and a recipe: adds those of docs/adding-a-network.md to a copy of the tree and sees
# that it builds, that its recipe is found, and with --tests that the tests which go through the list of networks run
# on it. Nothing else in the copy is changed by hand. Takes half a minute, and some minutes with --tests.
set -euo pipefail
cd "$(dirname "$0")/.."
page=$PWD/docs/adding-a-network.md
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [ -e "$file" ]; then printf '%s\0' "$file"; fi
done | tar --null -T - -cf - | tar -xf - -C "$copy"
target=${CARGO_TARGET_DIR:-$PWD/target/toy}

# The first block of a language on the page.
block() { awk -v open="\`\`\`$1" '$0 == open {inside = 1; next} /^```/ {if (inside) exit} inside' "$page"; }

cd "$copy"
block rust >src/models/toy.rs
block toml >recipes/toy.toml
line=$(block text)
sed -i "s|^    edsr::EdsrConfig.*|&\n$line|" src/models/mod.rs
grep -q '^    toy::ToyConfig' src/models/mod.rs
rustfmt --check src/models/toy.rs

export CARGO_TARGET_DIR=$target
# Unoptimised: it is compiled for this alone.
fast=(--config profile.dev.package.srk.opt-level=0 --config profile.dev.package.srk.debug=false)
if [ "${1:-}" != --tests ]; then
    cargo check --locked "${fast[@]}"
    echo "a file, a line and a recipe build"
    exit
fi

sed -i 's/^| `laplacian` |/| `toy` | a toy | 2 188 |\n&/' README.md
SRK_WRITE=1 cargo test --locked "${fast[@]}" --test cli -- configuration::the_page
SRK_WRITE=1 cargo test --locked "${fast[@]}" --test suite -- launches::networks
cargo test --locked "${fast[@]}" --test cli -- configuration::
cargo test --locked "${fast[@]}" --test suite -- --nocapture every_network:: import::every_known import::published \
    layout:: circles:: dead:: | tee out.txt
SRK_NETWORK=toy cargo test --locked "${fast[@]}" --test memory_estimates -- --nocapture | tee -a out.txt
for seen in '^toy .*e-' '^toy .* of ' '^toy .*blended false, 0' '^toy .* took'; do
    grep -Eq "$seen" out.txt || { echo "error: no test says \"$seen\""; exit 1; }
done
grep -q '^toy ' kernels/launches.txt
grep -q '"const": "toy"' src/training/configuration.schema.json
echo "files that differ:"
diff -rq --exclude=target --exclude=.git --exclude=out.txt "$OLDPWD" "$copy" | grep -v '^Only in '"$OLDPWD" || true
