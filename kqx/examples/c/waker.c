/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * A waker for an event loop.  Any thread posts tasks and wakes the loop.  While
 * the loop is awake, a wake is one atomic addition; the thread enters the
 * kernel only to wake a loop that sleeps.
 */
#include <err.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include "filter.h"
#include "pad.h"

#define	THREADS	4
#define	TASKS	1000
#define	WAKER	1		/* the id among what the loop waits for */
#define	LINE	0

static struct kqx_word *wakes;
static int pad;
static atomic_int posted;	/* stands in for a queue of tasks */

/* First the task, then the wake. */
static void
post(void)
{
	atomic_fetch_add(&posted, 1);
	if (kqx_count(wakes, 1) && kqx_kick(pad, LINE) != 0)
		err(1, "kick");
}

static void *
work(void *arg)
{
	int i;

	for (i = 0; i < TASKS; i++)
		post();
	return (arg);
}

int
main(void)
{
	struct kevent ev;
	pthread_t threads[THREADS];
	int done, error, i, kq, wakeups;

	wakes = pad_open(&pad) + LINE;
	if ((kq = kqueue()) == -1)
		err(1, "kqueue");
	EV_SET(&ev, KQX_IDENT(KQX_WORD, WAKER), kqx_filter(),
	    EV_ADD | EV_CLEAR, 0, KQX_WORD_AT(pad, LINE), NULL);
	if (kevent(kq, &ev, 1, NULL, 0, NULL) != 0)
		err(1, "kevent: add a word");
	for (i = 0; i < THREADS; i++)
		if ((error = pthread_create(&threads[i], NULL, work, NULL)) !=
		    0)
			errc(1, error, "pthread_create");

	for (done = wakeups = 0; done < THREADS * TASKS;) {
		if (kevent(kq, NULL, 0, &ev, 1, NULL) != 1)
			err(1, "kevent: wait");
		if (ev.ident != KQX_IDENT(KQX_WORD, WAKER))
			continue;	/* a loop has sockets and timers here */
		wakeups++;
		/* One wake for many: the queue says what there is to do. */
		done += atomic_exchange(&posted, 0);
	}
	for (i = 0; i < THREADS; i++)
		if ((error = pthread_join(threads[i], NULL)) != 0)
			errc(1, error, "pthread_join");
	printf("%d tasks done in %d wakeups\n", done, wakeups);
	return (0);
}
