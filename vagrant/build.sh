#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Builds kqx inside the machine, with pkg's Rust, from the source.tar beside this script, and
# puts the module, the harness and kqx-init in the places of those that the runner brought.
set -eu

sudo pkg install -y rust
rm -rf "$HOME/kqx"
mkdir "$HOME/kqx"
tar -xf /kqx/source.tar -C "$HOME/kqx"
cd "$HOME/kqx"
make build
cargo xtask harness
release=$(uname -r)
built=target/kqx/freebsd-${release%%.*}
sudo cp "$built/kqx.ko" /boot/modules/
sudo cp "$built/cargo/release/kqx-test" "$built/cargo/release/kqx-init" /kqx/
