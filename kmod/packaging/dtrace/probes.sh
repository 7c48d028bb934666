#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Checks with dtrace(1) that each of kqx's probes fires, always with the arguments that kqx(4)
# documents, while kqx-test's cases run, and then plots how late timers run. kqx must be loaded.
# Looks for the scripts, for kqx-test and for a kernel's modules of DTrace beside itself.
#
#	probes.sh [CASES]

here=$(dirname "$0")
if [ -f "$here/dtrace.ko" ]; then
	for module in opensolaris dtrace sdt systrace profile; do
		kldload -n "$here/$module.ko" || exit
	done
else
	kldload -n dtraceall || exit
fi

echo "# kernel modules"
kldstat
dtrace -l -P kqx || exit
said=$(dtrace -s "$here/probes.d" -c "$here/kqx-test run $1" | tee /dev/stderr) || exit

failed=0
for probe in attach change expiry deliver detach kick event; do
	# "attach fired 12 right 12"
	counts=$(echo "$said" | grep "^$probe fired ")
	fired=${counts#* fired }
	if [ -n "$counts" ] && [ "${fired% right *}" = "${counts##* }" ]; then
		echo "ok - $counts"
	else
		echo "not ok - $probe: ${counts:-never fired}"
		failed=1
	fi
done
dtrace -s "$here/lateness.d" -c "$here/kqx-test run timer" | grep -v '^ *ok' || failed=1
exit $failed
