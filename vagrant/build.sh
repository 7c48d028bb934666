#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Builds kqx inside the machine, with pkg's Rust, from the source.tar beside this script,
# and puts the module and the harness where test.sh looks for them.
set -eu

cd "$(dirname "$0")"
sudo pkg install -y rust
mkdir -p source
tar -xf source.tar -C source
cd source
make build
cargo xtask harness
release=$(uname -r)
built=target/kqx/freebsd-${release%%.*}
cp "$built/kqx.ko" "$built/cargo/release/kqx-test" ..
