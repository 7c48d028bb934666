/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The one C file of the module: what the kernel offers only as a macro or an
 * inline, and the linker sets that make a relocatable object a kernel module.
 */
#include "kernel.h"

/* Module data: module(9). */

static int
modevent(module_t mod __unused, int what, void *arg __unused)
{
	return (kqx_modevent(what));
}

static moduledata_t kqx_mod = {
	.name = "kqx",
	.evhand = modevent,
};
DECLARE_MODULE(kqx, kqx_mod, SI_SUB_DRIVERS, SI_ORDER_MIDDLE);
MODULE_VERSION(kqx, 1);

/*
 * Statistics: counter(9), one cache line per CPU, and one that nobody writes to
 * find them by.  Allocated and freed by SYSINIT and SYSUNINIT, so that they
 * outlive the sysctls that read them.
 */
static counter_u64_t stats[roundup2(KQX_STATS,
    CACHE_LINE_SIZE / sizeof(counter_u64_t))] __aligned(CACHE_LINE_SIZE);

static void
stats_alloc(void *arg __unused)
{
	int i;

	for (i = 0; i < KQX_STATS; i++)
		stats[i] = counter_u64_alloc(M_WAITOK);
}
SYSINIT(kqx_stats, SI_SUB_COUNTER, SI_ORDER_ANY, stats_alloc, NULL);

static void
stats_free(void *arg __unused)
{
	int i;

	for (i = 0; i < KQX_STATS; i++)
		counter_u64_free(stats[i]);
}
SYSUNINIT(kqx_stats, SI_SUB_COUNTER, SI_ORDER_ANY, stats_free, NULL);

void
kqx_counter_u64_add(enum kqx_stat stat, int64_t n)
{
	counter_u64_add(stats[stat], n);
}

/* kern.kqx: sysctl(9). */

int	kqx_filter = EVFILT_SENDFILE;
u_int	kqx_timer_max;		/* 0: not set, see kqx_modevent() */
u_int	kqx_timer_max_user;	/* the same */
u_int	kqx_timers;
u_int	kqx_watcher_max = 16384;
u_int	kqx_pad_size = 1024 * 1024;
u_int	kqx_words;
u_int	kqx_pages;
u_int	kqx_pages_max;		/* 0: not set, see kqx_modevent() */
static int abi_version = 2;

SYSCTL_NODE(_kern, OID_AUTO, kqx, CTLFLAG_RD | CTLFLAG_MPSAFE, NULL,
    "Experimental kqueue filters");
/* A program needs three of them in capability mode, too. */
SYSCTL_INT(_kern_kqx, OID_AUTO, filter, CTLFLAG_RDTUN | CTLFLAG_CAPRD,
    &kqx_filter, 0, "Filter number of the family");
SYSCTL_INT(_kern_kqx, OID_AUTO, abi_version, CTLFLAG_RD | CTLFLAG_CAPRD,
    &abi_version, 0, "Version of the ABI in sys/kqx.h");
SYSCTL_COUNTER_U64(_kern_kqx, OID_AUTO, counters, CTLFLAG_RD,
    &stats[KQX_STAT_COUNTERS], "Live counters");
SYSCTL_UINT(_kern_kqx, OID_AUTO, timers, CTLFLAG_RD, &kqx_timers, 0,
    "Live timers, those of maximum delays and gates too");
SYSCTL_COUNTER_U64(_kern_kqx, OID_AUTO, watchers, CTLFLAG_RD,
    &stats[KQX_STAT_WATCHERS], "Live watchers of gates");
SYSCTL_UINT(_kern_kqx, OID_AUTO, timer_max, CTLFLAG_RWTUN, &kqx_timer_max, 0,
    "Most timers of all users together");
SYSCTL_UINT(_kern_kqx, OID_AUTO, timer_max_user, CTLFLAG_RWTUN,
    &kqx_timer_max_user, 0, "Most timers of a user, and of a jail as a whole");

SYSCTL_UINT(_kern_kqx, OID_AUTO, watcher_max, CTLFLAG_RWTUN,
    &kqx_watcher_max, 0, "Most watchers of a gate");

SYSCTL_UINT(_kern_kqx, OID_AUTO, pad_size, CTLFLAG_RDTUN | CTLFLAG_CAPRD,
    &kqx_pad_size, 0, "Bytes of a pad");
SYSCTL_UINT(_kern_kqx, OID_AUTO, words, CTLFLAG_RD, &kqx_words, 0,
    "Words that are registered");
SYSCTL_UINT(_kern_kqx, OID_AUTO, pages, CTLFLAG_RD, &kqx_pages, 0,
    "Pages that are wired for words");
SYSCTL_UINT(_kern_kqx, OID_AUTO, pages_max, CTLFLAG_RWTUN, &kqx_pages_max, 0,
    "Most pages of all users together");

static SYSCTL_NODE(_kern_kqx, OID_AUTO, stats, CTLFLAG_RD | CTLFLAG_MPSAFE,
    NULL, "Totals since load");
SYSCTL_COUNTER_U64(_kern_kqx_stats, OID_AUTO, triggers, CTLFLAG_RD,
    &stats[KQX_STAT_TRIGGERS], "Triggers accepted");
SYSCTL_COUNTER_U64(_kern_kqx_stats, OID_AUTO, deliveries, CTLFLAG_RD,
    &stats[KQX_STAT_DELIVERIES], "Events delivered");
SYSCTL_COUNTER_U64(_kern_kqx_stats, OID_AUTO, expirations, CTLFLAG_RD,
    &stats[KQX_STAT_EXPIRATIONS], "Timer expirations counted");
SYSCTL_COUNTER_U64(_kern_kqx_stats, OID_AUTO, callouts, CTLFLAG_RD,
    &stats[KQX_STAT_CALLOUTS], "Callouts run");
SYSCTL_COUNTER_U64(_kern_kqx_stats, OID_AUTO, refused, CTLFLAG_RD,
    &stats[KQX_STAT_REFUSED], "Timers and pages refused for a limit");
SYSCTL_COUNTER_U64(_kern_kqx_stats, OID_AUTO, kicks, CTLFLAG_RD,
    &stats[KQX_STAT_KICKS], "Kicks of words by ioctl");

/* Probes, SDT(9), each with the statistic that goes with it. */

SDT_PROVIDER_DEFINE(kqx);
SDT_PROBE_DEFINE3(kqx, , , attach, "struct knote *", "uintptr_t", "int");
SDT_PROBE_DEFINE5(kqx, , , change, "struct knote *", "uintptr_t", "u_int",
    "int64_t", "int");
SDT_PROBE_DEFINE3(kqx, , , expiry, "struct knote *", "uintptr_t", "uint64_t");
SDT_PROBE_DEFINE3(kqx, , , deliver, "struct knote *", "uintptr_t", "int64_t");
SDT_PROBE_DEFINE2(kqx, , , detach, "struct knote *", "uintptr_t");
SDT_PROBE_DEFINE2(kqx, , , kick, "struct vm_object *", "uint64_t");

int
kqx_trace_attach(struct knote *kn, size_t gauge)
{
	if (gauge != KQX_STATS)
		counter_u64_add(stats[gauge], 1);
	SDT_PROBE3(kqx, , , attach, kn, kn->kn_id, 0);
	return (0);
}

int
kqx_trace_refuse(struct knote *kn, int error)
{
	SDT_PROBE3(kqx, , , attach, kn, kn->kn_id, error);
	return (error);
}

void
kqx_trace_change(struct knote *kn, const struct kevent *kev, int error)
{
	if (error == 0 && (kev->fflags & NOTE_TRIGGER) != 0)
		counter_u64_add(stats[KQX_STAT_TRIGGERS], 1);
	SDT_PROBE5(kqx, , , change, kn, kn->kn_id, kev->fflags, kev->data,
	    error);
}

void
kqx_trace_expiry(struct knote *kn, uint64_t late)
{
	SDT_PROBE3(kqx, , , expiry, kn, kn->kn_id, late);
}

void
kqx_trace_deliver(struct knote *kn, int64_t data)
{
	counter_u64_add(stats[KQX_STAT_DELIVERIES], 1);
	SDT_PROBE3(kqx, , , deliver, kn, kn->kn_id, data);
}

void
kqx_trace_detach(struct knote *kn, size_t gauge)
{
	if (gauge != KQX_STATS)
		counter_u64_add(stats[gauge], -1);
	SDT_PROBE2(kqx, , , detach, kn, kn->kn_id);
}

void
kqx_trace_kick(struct vm_object *object, uint64_t line)
{
	counter_u64_add(stats[KQX_STAT_KICKS], 1);
	SDT_PROBE2(kqx, , , kick, object, line);
}

/* Locks, time, limits: the sections of the manual named alike. */

void
kqx_mtx_init(struct mtx *m, const char *name)
{
	mtx_init(m, name, NULL, MTX_DEF | MTX_NEW);
}

void
kqx_mtx_destroy(struct mtx *m)
{
	mtx_destroy(m);
}

void
kqx_mtx_lock(struct mtx *m)
{
	mtx_lock(m);
}

bool
kqx_mtx_trylock(struct mtx *m)
{
	return (mtx_trylock(m) != 0);
}

void
kqx_mtx_unlock(struct mtx *m)
{
	mtx_unlock(m);
}

bool
kqx_mtx_owned(const struct mtx *m)
{
	return (mtx_owned(m));
}

void
kqx_callout_init_mtx(struct callout *c, struct mtx *m)
{
	callout_init_mtx(c, m, 0);
}

void
kqx_callout_drain(struct callout *c)
{
	callout_drain(c);
}

sbintime_t
kqx_sbinuptime(void)
{
	return (sbinuptime());
}

struct filedesc *
kqx_kq_fdp(const struct knote *kn)
{
	return (kn->kn_kq->kq_fdp);
}

/* The memory of a file table, not the table: kern_descrip.c has these static. */

void
kqx_fdhold(struct filedesc *fdp)
{
	refcount_acquire((volatile u_int *)&fdp->fd_holdcnt);
}

/*
 * Does not free the table with the last hold.  The process drops its own hold
 * when it has closed its kqueues; if it was first, another process had the
 * kqueue, and kqueue_close() is about to lock the table: the memory is lost.
 */
void
kqx_fddrop(struct filedesc *fdp)
{
	(void)refcount_release((volatile u_int *)&fdp->fd_holdcnt);
}

struct ucred *
kqx_curthread_ucred(void)
{
	return (curthread->td_ucred);
}

/*
 * Charges curthread's real user one of RLIMIT_KQUEUES, whose limit of 0 means
 * none: chgkqcnt(9).  Returns the credential, held, for kqx_unchgkqcnt(), or
 * NULL over the limit.
 */
struct ucred *
kqx_chgkqcnt(void)
{
	struct ucred *cred;

	cred = curthread->td_ucred;
	if (chgkqcnt(cred->cr_ruidinfo, 1,
	    lim_cur(curthread, RLIMIT_KQUEUES)) == 0)
		return (NULL);
	return (crhold(cred));
}

void
kqx_unchgkqcnt(struct ucred *cred)
{
	chgkqcnt(cred->cr_ruidinfo, -1, 0);
	crfree(cred);
}

/*
 * Whose account a timer of curthread is on, told by an address: the outermost
 * jail, or the real user outside of jails.  The number is the uid, or that of
 * the jail, which another jail can take over.  Only the host's own prison has
 * no parent: root there is host_root.
 */
void *
kqx_curthread_account(u_int *number, bool *host_root)
{
	const struct ucred *cred;
	struct prison *pr;

	cred = curthread->td_ucred;
	pr = cred->cr_prison;
	if (pr->pr_parent == NULL) {
		*host_root = cred->cr_uid == 0;
		*number = cred->cr_ruid;
		return (cred->cr_ruidinfo);
	}
	*host_root = false;
	while (pr->pr_parent->pr_parent != NULL)
		pr = pr->pr_parent;
	*number = pr->pr_id;
	return (pr);
}

uint64_t
kqx_physmem(void)
{
	return (ptoa((uint64_t)physmem));
}

/* malloc(9), for what there is one of for each CPU: CPUs have numbers up to this. */

u_int
kqx_mp_maxid(void)
{
	return (mp_maxid);
}

static MALLOC_DEFINE(M_KQX, "kqx", "kqx timers of each CPU");

void *
kqx_malloc(size_t size)
{
	return (malloc(size, M_KQX, M_WAITOK | M_ZERO));
}

void
kqx_free(void *memory)
{
	free(memory, M_KQX);
}

/*
 * What outlives the module is kept in a list of event handlers, which nobody
 * invokes: its one entry's argument.
 */
#define	ENTRY_LIST	"kqx_entry_1"

void *
kqx_entry_find(void)
{
	struct eventhandler_list *list;
	struct eventhandler_entry *entry;
	void *page;

	list = eventhandler_find_list(ENTRY_LIST);
	if (list == NULL)
		return (NULL);
	entry = TAILQ_FIRST(&list->el_entries);
	page = entry == NULL ? NULL : entry->ee_arg;
	EHL_UNLOCK(list);
	return (page);
}

void *
kqx_entry_alloc(size_t size)
{
	return (kmem_malloc(size, M_WAITOK | M_ZERO | M_EXEC));
}

void
kqx_entry_keep(void *page)
{
	eventhandler_register(NULL, ENTRY_LIST, page, page,
	    EVENTHANDLER_PRI_ANY);
}

/*
 * Takes a knote off its kqueue's queue, as knote_dequeue() of kern_event.c does,
 * which is static.  A disabled knote stays active, for EV_ENABLE.
 */
void
kqx_knote_dequeue(struct knote *kn)
{
	struct kqueue *kq;

	kq = kn->kn_kq;
	mtx_lock(&kq->kq_lock);
	if ((kn->kn_status & KN_QUEUED) != 0) {
		TAILQ_REMOVE(&kq->kq_head, kn, kn_tqe);
		kn->kn_status &= ~KN_QUEUED;
		kq->kq_count--;
	}
	if ((kn->kn_status & KN_DISABLED) == 0)
		kn->kn_status &= ~KN_ACTIVE;
	mtx_unlock(&kq->kq_lock);
}

int
kqx_curcpu(void)
{
	return (PCPU_GET(cpuid));
}

void
kqx_printf(const char *line, int len)
{
	printf("kqx: %.*s\n", len, line);
}

void
kqx_printf_filter(int filter, const char *line, int len)
{
	printf("kqx: filter %d %.*s\n", filter, len, line);
}

void
kqx_panic(const char *file, int file_len, int line, const char *message,
    int len)
{
	panic("kqx: %.*s:%d: %.*s", file_len, file, line, len, message);
}

/* taskqueue(9): in a thread that may sleep, on the kernel's own queue. */

void
kqx_timeout_task_init(struct timeout_task *t, task_fn_t *func, void *argument)
{
	TIMEOUT_TASK_INIT(taskqueue_thread, t, 0, func, argument);
}

void
kqx_taskqueue_enqueue_timeout_sbt(struct timeout_task *t, sbintime_t sbt)
{
	(void)taskqueue_enqueue_timeout_sbt(taskqueue_thread, t, sbt, 0, 0);
}

void
kqx_taskqueue_drain_timeout(struct timeout_task *t)
{
	taskqueue_drain_timeout(taskqueue_thread, t);
}

/* Pads: the device, conf(9), and its memory. */

static struct cdev *dev;
static struct mtx dev_mtx;	/* guards the pointer for the sysctl */

static void
dev_mtx_init(void *arg __unused)
{

	mtx_init(&dev_mtx, "kqx device", NULL, MTX_DEF | MTX_NEW);
}
SYSINIT(kqx_dev, SI_SUB_LOCK, SI_ORDER_MIDDLE, dev_mtx_init, NULL);

static void
dev_mtx_destroy(void *arg __unused)
{

	mtx_destroy(&dev_mtx);
}
SYSUNINIT(kqx_dev, SI_SUB_LOCK, SI_ORDER_MIDDLE, dev_mtx_destroy, NULL);

int
kqx_make_dev(struct cdevsw *devsw)
{
	struct make_dev_args args;
	struct cdev *made;
	int error;

	make_dev_args_init(&args);
	args.mda_flags = MAKEDEV_WAITOK | MAKEDEV_CHECKNAME;
	args.mda_devsw = devsw;
	args.mda_mode = 0666;
	error = make_dev_s(&args, &made, "kqx");
	if (error == 0) {
		mtx_lock(&dev_mtx);
		dev = made;
		mtx_unlock(&dev_mtx);
	}
	return (error);
}

/* Waits for the threads that are in a function of the devsw. */
void
kqx_destroy_dev(void)
{
	struct cdev *made;

	mtx_lock(&dev_mtx);
	made = dev;
	dev = NULL;
	mtx_unlock(&dev_mtx);
	if (made != NULL)
		destroy_dev(made);
}

static int
sysctl_pads(SYSCTL_HANDLER_ARGS)
{
	uint64_t pads;

	mtx_lock(&dev_mtx);
	pads = dev == NULL ? 0 : dev->si_usecount;
	mtx_unlock(&dev_mtx);
	return (sysctl_handle_64(oidp, &pads, 0, req));
}
SYSCTL_PROC(_kern_kqx, OID_AUTO, pads, CTLTYPE_U64 | CTLFLAG_RD | CTLFLAG_MPSAFE,
    NULL, 0, sysctl_pads, "QU", "Pads that a descriptor refers to");

/* A descriptor that an event may come from, as kqueue_register() looks it up. */
int
kqx_fget(int fd, struct file **fp)
{
	return (fget(curthread, fd, &cap_event_rights, fp));
}

void
kqx_fdrop(struct file *fp)
{
	(void)fdrop(fp, curthread);
}

/*
 * Whether programs may write through that descriptor, of which fp is the file: by
 * its mode, and by its rights.
 */
bool
kqx_is_writable(int fd, const struct file *fp)
{
	struct file *found;

	if (fget_write(curthread, fd, &cap_write_rights, &found) != 0)
		return (false);
	kqx_fdrop(found);
	/* Another thread can have put something else there. */
	return (found == fp);
}

/*
 * What devfs_fp_check() of devfs_vnops.c asks, which is static: a file of devfs
 * has its device as its data, and revoke(2) takes that from the vnode.
 */
bool
kqx_is_kqx(const struct file *fp)
{
	struct cdev *of;
	int ref;

	if (fp->f_type != DTYPE_VNODE || fp->f_vnode == NULL ||
	    fp->f_data != dev || dev == NULL ||
	    devvn_refthread(fp->f_vnode, &of, &ref) == NULL)
		return (false);
	dev_relthread(of, ref);
	return (of == dev);
}

/* In d_open: gives the file the reference, and the kernel's way to drop it. */
int
kqx_devfs_set_object(struct vm_object *object)
{
	return (devfs_set_cdevpriv(object,
	    (d_priv_dtor_t *)vm_object_deallocate));
}

int
kqx_devfs_get_cdevpriv(struct file *fp, void **data)
{
	struct file *fpop;
	int error;

	fpop = curthread->td_fpop;
	curthread->td_fpop = fp;
	error = devfs_get_cdevpriv(data);
	curthread->td_fpop = fpop;
	return (error);
}

vm_pindex_t
kqx_vm_object_size(const struct vm_object *object)
{
	return (object->size);
}

/*
 * Where the direct map has a page, or NULL: then the kernel would need a mapping
 * that is transient.  As a function of pmap(9), not the macro, which differs
 * between minor releases.
 */
void *
kqx_page_dmap(vm_page_t page)
{
	vm_offset_t va;

	if (pmap_map_io_transient(&page, &va, 1, false)) {
		pmap_unmap_io_transient(&page, &va, 1, false);
		return (NULL);
	}
	return ((void *)va);
}
