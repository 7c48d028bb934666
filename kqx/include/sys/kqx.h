/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The kqx family of kqueue(2) filters, ABI version 1: see kqx(4) and kqx(3).
 */
#ifndef _SYS_KQX_H_
#define	_SYS_KQX_H_

#include <sys/types.h>
#include <sys/event.h>

#define	KQX_ABI_VERSION		1	/* kern.kqx.abi_version */

/* The filter number, unless the sysctl kern.kqx.filter names another. */
#define	EVFILT_KQX		(-12)

/* Members of the family: the top byte of ident.  By `cargo xtask header`. */
#define	KQX_COUNTER		1	/* EVFILT_USER that counts */
#define	KQX_TIMER		2	/* nanoseconds, charged to its owner */
#define	KQX_GATE		3	/* one event on many kqueues */

#define	KQX_ID_BITS		56	/* the application's bits of ident */
#define	KQX_ID_MASK		(((uintptr_t)1 << KQX_ID_BITS) - 1)
#define	KQX_IDENT(member, id)						\
	((uintptr_t)(member) << KQX_ID_BITS | ((uintptr_t)(id) & KQX_ID_MASK))
#define	KQX_MEMBER(ident)	((uintptr_t)(ident) >> KQX_ID_BITS)
#define	KQX_ID(ident)		((uintptr_t)(ident) & KQX_ID_MASK)

/*
 * KQX_COUNTER.  EV_ADD: data is the initial count, ext[0] the threshold,
 * ext[1] the maximum delay in ns.  Delivered: data is the count taken, ext[0]
 * the number of gathered triggers, ext[1] ns since the first of them.
 */
#define	NOTE_KQX_SET		0x02000000 /* count = data, then any trigger */
#define	NOTE_KQX_SEMAPHORE	0x08000000 /* EV_ADD: deliver one threshold */
#define	NOTE_KQX_OVERFLOW	0x10000000 /* delivered: count saturated */
#define	NOTE_KQX_DELAY		0x20000000 /* delivered: due by the delay */

/*
 * KQX_TIMER.  EV_ADD: data is the period or deadline, ext[0] the delay to the
 * first expiry in ns, ext[1] the leeway in ns.  Delivered: data is the number
 * of expirations, ext[0] the due time of the last (ns on CLOCK_UPTIME), ext[1]
 * the lateness in ns of the expiry that made the event due.
 */
#define	NOTE_KQX_UPTIME		0x00000020 /* NOTE_ABSTIME on CLOCK_UPTIME */
#define	NOTE_KQX_STEPPED	0x10000000 /* delivered: clock was stepped */

/*
 * KQX_GATE.  NOTE_TRIGGER: data is the number of triggers, and 0 means 1.
 * Delivered: data is the number of triggers taken, ext[0] of triggers that
 * still wait for a watcher, ext[1] of watchers.
 */
#define	NOTE_KQX_ONE		0x08000000 /* EV_ADD: wake one, not all */

#endif /* !_SYS_KQX_H_ */
