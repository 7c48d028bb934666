/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * A watchdog: kicked every 10 ms, the watchdog is silent.  Without a kick for a
 * second, the watchdog bites.  The kick does not know the period.
 */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "filter.h"

#define	KICKS	30

int
main(void)
{
	static const struct timespec work = { 0, 10000000 };
	static const struct timespec now = { 0, 0 };
	struct kevent ev, kick;
	short filter;
	int i, kq;

	filter = kqx_filter();
	if ((kq = kqueue()) == -1)
		err(1, "kqueue");
	EV_SET(&ev, KQX_IDENT(KQX_TIMER, 1), filter, EV_ADD | EV_ONESHOT,
	    NOTE_SECONDS, 1, NULL);
	if (kevent(kq, &ev, 1, NULL, 0, NULL) != 0)
		err(1, "kevent: add a timer (kldload kqx?)");

	EV_SET(&kick, KQX_IDENT(KQX_TIMER, 1), filter, EV_KEEPUDATA,
	    NOTE_TRIGGER, 0, NULL);
	for (i = 0; i < KICKS; i++) {
		nanosleep(&work, NULL);
		if (kevent(kq, &kick, 1, NULL, 0, NULL) != 0)
			err(1, "kevent: kick");
		if (kevent(kq, NULL, 0, &ev, 1, &now) != 0)
			errx(1, "the watchdog bit although it was kicked");
	}
	/* Here the work hangs: no more kicks. */
	if (kevent(kq, NULL, 0, &ev, 1, NULL) != 1)
		err(1, "kevent: wait");
	printf("bitten after %d kicks, %ju us late\n", KICKS,
	    (uintmax_t)ev.ext[1] / 1000);
	return (0);
}
