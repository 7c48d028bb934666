#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Checks with dtrace(1) that each of kqx's probes fires, always with the arguments that kqx(4)
# documents, while kqx-test's cases run. Then plots how late timers run. kqx must be loaded.
# Looks beside itself for the scripts, for kqx-test, and for the kernel's modules for DTrace
# where the kernel does not find them by name.
#
#	probes.sh [CASES]

here=${0%/*}
if [ -f "$here/dtrace.ko" ]; then
	for module in opensolaris dtrace sdt systrace profile; do
		kldload -n "$here/$module.ko" || exit
	done
else
	kldload -n dtraceall || exit
fi

dtrace -l -P kqx || exit
said=$(dtrace -s "$here/probes.d" -c "$here/kqx-test run $1" 2>&1)
echo "$said"

failed=0
case $said in
*" drops"*)
	echo "not ok - DTrace dropped some of what was to be checked: see dynvarsize in probes.d"
	failed=1
	;;
esac
for probe in attach change single expiry deliver detach kick event; do
	# The line is "attach fired 12 right 12".
	case $said in
	*"$probe fired "*) ;;
	*)
		echo "not ok - $probe never fired"
		failed=1
		continue
		;;
	esac
	counts=${said##*"$probe fired "}
	fired=${counts%% *}
	right=${counts#* right }
	right=${right%%[!0-9]*}
	if [ "$fired" = "$right" ]; then
		echo "ok - $probe: $fired times"
	else
		echo "not ok - $probe: $right of $fired times with the documented arguments"
		failed=1
	fi
done
dtrace -s "$here/lateness.d" -c "$here/kqx-test demo" || failed=1
exit $failed
