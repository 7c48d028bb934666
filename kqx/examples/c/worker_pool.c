/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * A pool of workers, each with a kqueue of its own: every job wakes one of
 * them, the one that has waited longest, and nobody else.  They are stopped in
 * the same way.
 */
#include <err.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "filter.h"

#define	WORKERS	4
#define	JOBS	1000
#define	STOP	-1

struct worker {
	pthread_t thread;
	int jobs;
};

/* What workers are woken for: jobs, and at the end STOP for each of them. */
static int queue[JOBS + WORKERS];
static atomic_int queued, taken;
static int done[JOBS];		/* how often; a job is its worker's */
static short filter;

/* Changes the gate by way of one kqueue; returns what waited there before. */
static uint64_t
change(int kq, u_short flags, u_int fflags, int64_t data)
{
	struct kevent ev;

	EV_SET(&ev, KQX_IDENT(KQX_GATE, 1), filter, flags | EV_RECEIPT, fflags,
	    data, NULL);
	if (kevent(kq, &ev, 1, &ev, 1, NULL) != 1)
		err(1, "kevent");
	if (ev.data != 0)
		errc(1, (int)ev.data, "no such gate (kldload kqx?)");
	if (ev.ext[1] != 0)
		errc(1, (int)ev.ext[1], "refused");
	return (ev.ext[0]);
}

static int
open_kqueue(void)
{
	int kq;

	if ((kq = kqueue()) == -1)
		err(1, "kqueue");
	return (kq);
}

static void *
work(void *arg)
{
	/* How long a job takes: it reads a file, say. */
	static const struct timespec job = { 0, 100000 };
	/* Nobody is without a job for so long, unless a trigger was lost. */
	static const struct timespec patience = { 10, 0 };
	struct worker *self = arg;
	struct kevent ev;
	int i, kq;

	kq = open_kqueue();
	/* Passed over while it is at work, so that no job waits for it then. */
	change(kq, EV_ADD | EV_DISPATCH, NOTE_KQX_ONE, 0);
	for (;;) {
		switch (kevent(kq, NULL, 0, &ev, 1, &patience)) {
		case -1:
			err(1, "kevent: wait");
		case 0:
			errx(1, "a worker was not woken");
		}
		i = atomic_fetch_add(&taken, 1);
		if (i >= atomic_load(&queued))
			errx(1, "a worker was woken for nothing");
		if (queue[i] == STOP)
			break;
		nanosleep(&job, NULL);
		done[queue[i]]++;
		self->jobs++;
		change(kq, EV_ENABLE | EV_KEEPUDATA, 0, 0);
	}
	close(kq);
	return (NULL);
}

int
main(void)
{
	struct worker workers[WORKERS] = { 0 };
	int error, i, kq;

	filter = kqx_filter();
	kq = open_kqueue();
	/*
	 * Only to trigger.  It holds the gate, where jobs wait until the
	 * workers are there.
	 */
	change(kq, EV_ADD | EV_DISABLE, NOTE_KQX_ONE, 0);
	for (i = 0; i < WORKERS; i++)
		if ((error = pthread_create(&workers[i].thread, NULL, work,
		    &workers[i])) != 0)
			errc(1, error, "pthread_create");

	for (i = 0; i < JOBS; i++) {
		/* First the job, then the word of it. */
		queue[i] = i;
		atomic_fetch_add(&queued, 1);
		change(kq, EV_KEEPUDATA, NOTE_TRIGGER, 1);
	}
	for (; i < JOBS + WORKERS; i++) {
		queue[i] = STOP;
		atomic_fetch_add(&queued, 1);
	}
	change(kq, EV_KEEPUDATA, NOTE_TRIGGER, WORKERS);

	printf("worker  jobs\n");
	for (i = 0; i < WORKERS; i++) {
		if ((error = pthread_join(workers[i].thread, NULL)) != 0)
			errc(1, error, "pthread_join");
		printf("%6d  %4d\n", i, workers[i].jobs);
	}
	for (i = 0; i < JOBS; i++)
		if (done[i] != 1)
			errx(1, "job %d was done %d times", i, done[i]);
	/* A trigger that nobody took would wait here. */
	if (change(kq, EV_KEEPUDATA, 0, 0) != 0)
		errx(1, "there were more wakeups than jobs");
	printf("%d jobs done, each once\n", JOBS);
	return (0);
}
