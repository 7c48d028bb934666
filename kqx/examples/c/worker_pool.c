/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * A pool of workers, each with a kqueue of its own.  Every job wakes only the
 * worker that has waited longest.  The pool stops its workers in the same way.
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

/* The work: jobs, and at the end STOP for each worker. */
static int queue[JOBS + WORKERS];
static atomic_int queued, taken;
static int done[JOBS];		/* how often; only a job's worker writes */
static short filter;

/* Changes the gate in a kqueue; returns the triggers that waited before. */
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
	/* How long a job takes, for example to read a file. */
	static const struct timespec job = { 0, 100000 };
	/* No worker waits so long, unless a trigger was lost. */
	static const struct timespec patience = { 10, 0 };
	struct worker *self = arg;
	struct kevent ev;
	int i, kq;

	kq = open_kqueue();
	/* Triggers pass over a worker at work, so no job waits for that worker. */
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
	 * This watcher only triggers.  It keeps the gate, where jobs wait
	 * until the workers are ready.
	 */
	change(kq, EV_ADD | EV_DISABLE, NOTE_KQX_ONE, 0);
	for (i = 0; i < WORKERS; i++)
		if ((error = pthread_create(&workers[i].thread, NULL, work,
		    &workers[i])) != 0)
			errc(1, error, "pthread_create");

	for (i = 0; i < JOBS; i++) {
		/* First the job, then the trigger. */
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
	/* A trigger that no worker took would wait here. */
	if (change(kq, EV_KEEPUDATA, 0, 0) != 0)
		errx(1, "there were more wakeups than jobs");
	printf("%d jobs done, each once\n", JOBS);
	return (0);
}
