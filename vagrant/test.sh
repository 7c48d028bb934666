#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Runs the suite in the machine, as root, and reports in the words of kqx-init, the first
# process of the VM runner's guest: `kqx-vm NONCE start`, `exit N`, `done`.
# Usage: test.sh NONCE [FILTER]
set -eu

nonce=$1
shift

say() {
	echo "kqx-vm $nonce $1"
}

suite() {
	./kqx-test --module "$PWD/kqx.ko" run --tap --junit out/junit.xml "$@"
}

cd "$(dirname "$0")"
rm -rf out
mkdir out
# A panic must end the machine at once, and so the connection that the runner watches.
sysctl debug.debugger_on_panic=0 kern.panic_reboot_wait_time=0 >/dev/null
sysctl kern.msgbuf_clear=1 >/dev/null

say start
if kldload "$PWD/kqx.ko"; then
	# A pipe hides the status of its left side.
	{
		status=0
		suite "$@" || status=$?
		say "exit $status"
	} | tee out/stdout
	if kldstat -q -n kqx.ko; then
		kldunload kqx || say 'exit -1'
	fi
else
	say 'exit -1'
fi
# The kernel's messages since the start.
dmesg
chmod -R a+rX out
say 'done'
