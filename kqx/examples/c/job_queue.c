/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * A work queue whose submit is one atomic addition.  The producer writes the
 * job into a ring and counts.  The count publishes the job, and enters the
 * kernel only when the worker sleeps and 64 jobs have come together, or the
 * first of them since the worker fell asleep.
 *
 * The ring has one producer.  For more producers, give each a ring, and let all
 * count one word.
 */
#include <err.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include "filter.h"
#include "pad.h"

#define	JOBS	100000
#define	BATCH	64
#define	SLOTS	1024
#define	LINE	0

static struct kqx_word *waiting;
static int pad;
static uint64_t ring[SLOTS];	/* the jobs that wait, here a number each */
static _Atomic uint64_t done;	/* makes room in the ring */

static void
submit(uint64_t number, uint64_t job)
{
	while (number - atomic_load(&done) >= SLOTS)
		sched_yield();
	ring[number % SLOTS] = job;
	if (kqx_count(waiting, 1) && kqx_kick(pad, LINE) != 0)
		err(1, "kick");
}

static void *
produce(void *arg)
{
	uint64_t i;

	for (i = 0; i < JOBS; i++)
		submit(i, i);
	return (arg);
}

int
main(void)
{
	struct kevent ev;
	pthread_t producer;
	uint64_t batch, next, slept, sum;
	int error, kq;

	waiting = pad_open(&pad) + LINE;
	if ((kq = kqueue()) == -1)
		err(1, "kqueue");
	EV_SET(&ev, KQX_IDENT(KQX_WORD, 1), kqx_filter(), EV_ADD | EV_CLEAR, 0,
	    KQX_WORD_AT(pad, LINE), NULL);
	ev.ext[0] = BATCH;
	ev.ext[1] = 500 * 1000;		/* ns */
	if (kevent(kq, &ev, 1, NULL, 0, NULL) != 0)
		err(1, "kevent: add a word");
	if ((error = pthread_create(&producer, NULL, produce, NULL)) != 0)
		errc(1, error, "pthread_create");

	for (next = slept = sum = 0; next < JOBS; atomic_store(&done, next)) {
		/* Awake, the worker takes what there is without a system call. */
		if ((batch = kqx_take(waiting)) == 0) {
			if (kevent(kq, NULL, 0, &ev, 1, NULL) != 1)
				err(1, "kevent: wait");
			batch = (uint64_t)ev.data;
			slept++;
		}
		for (; batch > 0; batch--)
			sum += ring[next++ % SLOTS];
	}
	if ((error = pthread_join(producer, NULL)) != 0)
		errc(1, error, "pthread_join");
	printf("%ju jobs done, in kevent(2) %ju times\n", (uintmax_t)next,
	    (uintmax_t)slept);
	if (sum != (uint64_t)JOBS * (JOBS - 1) / 2)
		errx(1, "a job was lost or done twice");
	return (0);
}
