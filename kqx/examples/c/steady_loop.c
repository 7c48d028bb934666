/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * A 1 kHz loop that does not drift: expiry k is due at start + k ms, however
 * late the loop runs, and the timer counts a missed tick.
 */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "filter.h"

#define	PERIOD	1000000		/* ns */
#define	TICKS	2000

static uint64_t
uptime(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_UPTIME, &ts) != 0)
		err(1, "clock_gettime");
	return ((uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec);
}

int
main(void)
{
	struct kevent ev;
	uint64_t due, late, start, ticks, total, wakeups, worst;
	int kq;

	if ((kq = kqueue()) == -1)
		err(1, "kqueue");
	EV_SET(&ev, KQX_IDENT(KQX_TIMER, 1), kqx_filter(), EV_ADD,
	    NOTE_NSECONDS, PERIOD, NULL);
	if (kevent(kq, &ev, 1, NULL, 0, NULL) != 0)
		err(1, "kevent: add a timer (kldload kqx?)");

	due = start = total = wakeups = worst = 0;
	for (ticks = 0; ticks < TICKS; ticks += (uint64_t)ev.data) {
		if (kevent(kq, NULL, 0, &ev, 1, NULL) != 1)
			err(1, "kevent: wait");
		due = ev.ext[0];
		if (wakeups++ == 0)
			start = due - PERIOD * (uint64_t)ev.data;
		late = uptime() - due;
		total += late;
		if (late > worst)
			worst = late;
	}
	printf("%ju ticks in %ju wakeups\n", (uintmax_t)ticks,
	    (uintmax_t)wakeups);
	printf("late by %ju us on average, %ju us at most\n",
	    (uintmax_t)(total / wakeups / 1000), (uintmax_t)(worst / 1000));
	printf("drift after %ju ticks: %ju ns\n", (uintmax_t)ticks,
	    (uintmax_t)(due - start - ticks * PERIOD));
	return (0);
}
