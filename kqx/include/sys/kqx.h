/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The kqx family of kqueue(2) filters, ABI version 2: see kqx(4) and kqx(3).
 */
#ifndef _SYS_KQX_H_
#define	_SYS_KQX_H_

#include <sys/types.h>
#include <sys/event.h>
#include <sys/ioctl.h>

#define	KQX_ABI_VERSION		2	/* kern.kqx.abi_version */

/* The filter number, unless the sysctl kern.kqx.filter names another. */
#define	EVFILT_KQX		(-12)

/* Members of the family: the top byte of ident.  By `cargo xtask header`. */
#define	KQX_COUNTER		1	/* EVFILT_USER that counts */
#define	KQX_TIMER		2	/* nanoseconds, charged to its owner */
#define	KQX_GATE		3	/* one event on many kqueues */
#define	KQX_WORD		4	/* counting in shared memory */

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

/*
 * KQX_WORD.  EV_ADD: data is KQX_WORD_AT(), ext[0] the threshold, ext[1] the
 * maximum delay in ns, with NOTE_KQX_SEMAPHORE or not.  NOTE_TRIGGER: data is
 * added to the count, then the word is kicked.  Delivered: data is the count
 * taken, with NOTE_KQX_DELAY or not, ext[1] ns since the delay began.
 */
#define	KQX_DEVICE		"/dev/kqx" /* each open(2) makes a pad */
#define	KQX_WORD_AT(fd, line)						\
	((int64_t)((uint64_t)(uint32_t)(fd) << 32 | (uint32_t)(line)))
#define	KQXKICK			_IOW('K', 1, uint64_t) /* the line */

/* A cache line of a pad. */
struct kqx_word {
	uint64_t	count;		/* counted and not taken */
	uint64_t	armed;		/* kick at minus this; 0: never */
	uint64_t	user[6];	/* the application's own */
} __attribute__((__aligned__(64)));

/*
 * Producers call this: adds n to the count.  Nonzero: kick, for somebody sleeps
 * until then.  What is counted and not taken must stay below 2^64.
 */
__attribute__((__warn_unused_result__))
static inline int
kqx_count(struct kqx_word *word, uint64_t n)
{
	uint64_t count, sum;

	count = __atomic_fetch_add(&word->count, n, __ATOMIC_SEQ_CST) + n;
	return (__builtin_expect(__builtin_add_overflow(count,
	    __atomic_load_n(&word->armed, __ATOMIC_SEQ_CST), &sum), 0));
}

/* Wakes who waits for the word on this line of the pad.  0, or -1 and errno. */
static inline int
kqx_kick(int fd, uint32_t line)
{
	uint64_t arg;

	arg = line;
	return (ioctl(fd, KQXKICK, &arg));
}

/* Takes the whole count: a consumer that is awake needs no system call. */
static inline uint64_t
kqx_take(struct kqx_word *word)
{
	return (__atomic_exchange_n(&word->count, 0, __ATOMIC_SEQ_CST));
}

#endif /* !_SYS_KQX_H_ */
