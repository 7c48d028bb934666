/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * A metric that several processes count, and one collector that sleeps until
 * 10,000 or for a second after the first, whichever comes first.  A process
 * counts with one atomic addition.
 *
 * The processes inherit the pad.  A descriptor that came by SCM_RIGHTS of
 * unix(4) works the same.
 */
#include <sys/wait.h>
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "filter.h"
#include "pad.h"

#define	PROCESSES	3
#define	REQUESTS	50001
#define	SERVED		0	/* the line; other metrics have other lines */

static struct kqx_word *words;
static int pad;

/* What a process of the service does. */
static void
serve(void)
{
	int i;

	for (i = 0; i < REQUESTS; i++)
		if (kqx_count(&words[SERVED], 1) && kqx_kick(pad, SERVED) != 0)
			err(1, "kick");
}

int
main(void)
{
	struct kevent ev;
	int64_t total;
	int i, kq, status;

	words = pad_open(&pad);
	if ((kq = kqueue()) == -1)
		err(1, "kqueue");
	EV_SET(&ev, KQX_IDENT(KQX_WORD, 1), kqx_filter(), EV_ADD | EV_CLEAR, 0,
	    KQX_WORD_AT(pad, SERVED), NULL);
	ev.ext[0] = 10000;
	ev.ext[1] = 1000000000;		/* ns */
	if (kevent(kq, &ev, 1, NULL, 0, NULL) != 0)
		err(1, "kevent: add a word");
	for (i = 0; i < PROCESSES; i++)
		switch (fork()) {
		case -1:
			err(1, "fork");
		case 0:
			serve();
			_exit(0);
		}

	for (total = 0; total < (int64_t)PROCESSES * REQUESTS;
	    total += ev.data) {
		if (kevent(kq, NULL, 0, &ev, 1, NULL) != 1)
			err(1, "kevent: wait");
		printf("%jd more after %s\n", (intmax_t)ev.data,
		    ev.fflags & NOTE_KQX_DELAY ? "a second" : "10,000");
	}
	for (i = 0; i < PROCESSES; i++)
		if (wait(&status) == -1 || status != 0)
			errx(1, "a process failed");
	printf("%jd together\n", (intmax_t)total);
	return (total == (int64_t)PROCESSES * REQUESTS ? 0 : 1);
}
