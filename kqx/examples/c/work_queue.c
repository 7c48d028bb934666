/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * A work queue that wakes its worker every 64 jobs, or 500 us after the first
 * of them, whichever comes first.
 */
#include <err.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "filter.h"

#define	BURSTS	5
#define	BURST	100

static int kq;
static short filter;
static atomic_int queued;	/* stands in for the queue */

static void *
produce(void *arg)
{
	static const struct timespec pause = { 0, 5000000 };
	struct kevent trigger;
	int i;

	EV_SET(&trigger, KQX_IDENT(KQX_COUNTER, 1), filter, EV_KEEPUDATA,
	    NOTE_TRIGGER, 1, NULL);
	for (i = 0; i < BURSTS * BURST; i++) {
		if (i % BURST == 0)
			nanosleep(&pause, NULL);
		atomic_fetch_add(&queued, 1);
		if (kevent(kq, &trigger, 1, NULL, 0, NULL) != 0)
			err(1, "kevent: trigger");
	}
	return (arg);
}

int
main(void)
{
	struct kevent ev;
	pthread_t producer;
	int batch, done, error;

	filter = kqx_filter();
	if ((kq = kqueue()) == -1)
		err(1, "kqueue");
	EV_SET(&ev, KQX_IDENT(KQX_COUNTER, 1), filter, EV_ADD | EV_CLEAR, 0, 0,
	    NULL);
	ev.ext[0] = 64;			/* jobs */
	ev.ext[1] = 500 * 1000;		/* ns */
	if (kevent(kq, &ev, 1, NULL, 0, NULL) != 0)
		err(1, "kevent: add a counter (kldload kqx?)");
	if ((error = pthread_create(&producer, NULL, produce, NULL)) != 0)
		errc(1, error, "pthread_create");

	for (done = 0; done < BURSTS * BURST; done += batch) {
		if (kevent(kq, NULL, 0, &ev, 1, NULL) != 1)
			err(1, "kevent: wait");
		batch = atomic_exchange(&queued, 0);
		printf("woken by %s after %ju us; did %d jobs\n",
		    ev.fflags & NOTE_KQX_DELAY ? "the delay" : "the threshold",
		    (uintmax_t)ev.ext[1] / 1000, batch);
	}
	if ((error = pthread_join(producer, NULL)) != 0)
		errc(1, error, "pthread_join");
	printf("%d jobs done\n", done);
	return (0);
}
