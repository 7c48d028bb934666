# SPDX-License-Identifier: BSD-2-Clause
# kqx: what to run. Every target is one call of `cargo xtask`, which says what it does
# and what is missing. Plain POSIX make: GNU make and BSD make alike.
#
#   make run           set up, build, check, show kqx at work
#   make test          set up, build, check, run every test there is
#
# KQX_TARGET=14 (the default) or 15 picks the FreeBSD release the module is for.

.POSIX:

all: build

# Install what is missing to build and test.
setup: ready
	cargo xtask setup

# The module, checked: target/kqx/freebsd-14/kqx.ko.
build: ready
	cargo xtask setup --build
	cargo xtask build

# The module in a process, counters and timers at work.
run: ready
	cargo xtask setup --build
	cargo xtask run

# Scripts, what compiles anywhere, formatting, lints, unit tests, the module in a process, and
# every kernel at hand.
test: setup
	cargo xtask test

# The suite on a FreeBSD kernel in a virtual machine.
vm-test: setup
	cargo xtask vm run

# The same in a Vagrant box.
vagrant-test: setup
	cargo xtask vm vagrant

# kqx beside EVFILT_USER, EVFILT_TIMER, eventfd and timerfd, on a real kernel.
bench: setup
	cargo xtask bench

# Rebuild and run the cases of one filter, in 1,000 orders too: make try F=counter.
try: ready
	cargo xtask try $(F)

# The module, the library to preload, the header, the manual and an example, under DESTDIR.
install: build
	cargo xtask install

clean:
	cargo clean

# What no program of kqx can say, because cargo must build the program first.
ready:
	@.ci/ready

.PHONY: all setup build run test vm-test vagrant-test bench try install clean ready
