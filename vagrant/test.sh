#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Runs the runner's plan in the machine, as root. kqx-init prints what it prints as the first
# process of the VM runner's guest, and then the kernel's messages since the start.
set -eu

rm -rf /out
mkdir /out
# A panic must end the machine at once, and so the connection that the runner watches.
sysctl debug.debugger_on_panic=0 kern.panic_reboot_wait_time=0 >/dev/null
sysctl kern.msgbuf_clear=1 >/dev/null
exec /kqx/kqx-init session
