#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Does what kqx(4) tells an administrator to do, with the system's own programs, and says of
# each step whether it holds. Ends with 1 if a step does not hold. kqx is loaded at the start,
# and again at the end; every registration must be gone.
#
#	administrator.sh [OTHER.KO]
#
# OTHER.KO is a module for another release, which the kernel is to refuse.

other=$1
steps=0
failed=0

# step TEXT COMMAND...: the step TEXT holds if COMMAND succeeds.
step() {
	text=$1
	shift
	steps=$((steps + 1))
	if said=$("$@" 2>&1); then
		echo "ok $steps - $text"
	else
		failed=$((failed + 1))
		echo "not ok $steps - $text"
	fi
	[ -z "$said" ] || echo "$said" | while read -r line; do echo "# $line"; done
}

# refused WORDS COMMAND...: COMMAND fails and says WORDS.
refused() {
	words=$1
	shift
	if said=$("$@" 2>&1); then
		echo "$* succeeded"
		return 1
	fi
	echo "$said"
	case $said in *"$words"*) ;; *) return 1 ;; esac
}

# has NAME VALUE: the sysctl has this value.
has() {
	value=$(sysctl -n "$1") && echo "$1: $value" && [ "$value" = "$2" ]
}

absent() { ! sysctl -n "$1"; }

no_device() { ! [ -e /dev/kqx ]; }

step "kqx is loaded" kldstat -n kqx
step "kqx is a module of this file" kldstat -v -m kqx
step "the device is there" test -c /dev/kqx

# A tunable of loader.conf is in the kernel's environment.
for name in timer_max timer_max_user watcher_max pages_max pad_size; do
	if value=$(kenv -q "kern.kqx.$name"); then
		step "the tunable kern.kqx.$name is taken" has "kern.kqx.$name" "$value"
	fi
done

step "root changes a limit" sysctl kern.kqx.timer_max=1000
step "the limit is changed" has kern.kqx.timer_max 1000
step "the pad's size is read-only" refused "read only" sysctl kern.kqx.pad_size=4096
step "a second load is refused" refused "already loaded" kldload kqx
step "a second load with -n is no error" kldload -n kqx

step "kqx unloads" kldunload kqx
step "the sysctls are gone" absent kern.kqx.timer_max
step "the device is gone" no_device
step "a second unload is refused" refused "can't find file" kldunload kqx

step "kenv sets a tunable" kenv kern.kqx.timer_max=80000
step "kqx loads by its name" kldload kqx
step "the tunable is taken" has kern.kqx.timer_max 80000

step "kqx unloads again" kldunload kqx
step "kenv names the number of EVFILT_READ" kenv kern.kqx.filter=-1
step "a load with a number that is taken is refused" refused "dmesg(8)" kldload kqx
step "kenv forgets the number" kenv -u kern.kqx.filter
step "kqx loads after that" kldload kqx

if [ -n "$other" ]; then
	step "kqx unloads again" kldunload kqx
	step "a module for another release is refused" refused '' kldload "$other"
	step "the device is not there" no_device
	step "kqx loads after that" kldload kqx
fi

echo "1..$steps"
[ "$failed" -eq 0 ]
