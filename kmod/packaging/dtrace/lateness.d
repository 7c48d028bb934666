#!/usr/sbin/dtrace -s
/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Plots how late kqx's timers run: over the seconds, for up to a minute, and as a
 * distribution.  End it with ^C.
 *
 *	# dtrace -s lateness.d
 *
 * kqx:::expiry is (struct knote *, ident, ns late); the member is the top byte of ident.
 */

#pragma D option quiet

inline int KQX_TIMER = 2;

dtrace:::BEGIN
{
	start = timestamp;
	printf("kqx timers, until ^C or for a minute\n");
}

kqx:::expiry
/(arg1 >> 56) == KQX_TIMER/
{
	/* The bars: ns late, added up within each second. */
	@seconds = lquantize((timestamp - start) / 1000000000, 0, 60, 1, arg2);
	@distribution = quantize(arg2);
	@count = count();
	@mean = avg(arg2);
	@worst = max(arg2);
}

profile:::tick-60s
{
	exit(0);
}

dtrace:::END
{
	printa("\n%@d expiries", @count);
	printa(", late by %@d ns on average", @mean);
	printa(", %@d ns at most\n", @worst);
	printf("\nns late in each second since the start:\n");
	printa("%@d", @seconds);
	printf("\nhow many expiries were how many ns late:\n");
	printa("%@d", @distribution);
}
