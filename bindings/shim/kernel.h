/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * What the module takes from the kernel's headers: read by bindgen for the
 * layouts and the exported functions, included by shim.c for the rest.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/kernel.h>
#include <sys/module.h>
#include <sys/malloc.h>
#include <sys/lock.h>
#include <sys/mutex.h>
#include <sys/callout.h>
#include <sys/caprights.h>
#include <sys/conf.h>
#include <sys/counter.h>
#include <sys/event.h>
#include <sys/eventhandler.h>
#include <sys/fcntl.h>
#include <sys/file.h>
#include <sys/filedesc.h>
#include <sys/jail.h>
#include <sys/mman.h>
#include <sys/proc.h>
#include <sys/refcount.h>
#include <sys/resourcevar.h>
#include <sys/rwlock.h>
#include <sys/sdt.h>
#include <sys/selinfo.h>
#include <sys/smp.h>
#include <sys/sysctl.h>
#include <sys/taskqueue.h>
#include <sys/ucred.h>
#include <sys/eventvar.h>

#include <vm/vm.h>
#include <vm/pmap.h>
#include <vm/vm_extern.h>
#include <vm/vm_object.h>
#include <vm/vm_page.h>
#include <vm/vm_pager.h>
#include <vm/uma.h>

/*
 * Where the module reads what is not in the types of bindgen: for the simulated
 * kernel, which puts it there.
 */
enum kqx_offset {
	KQX_TD_UCRED = offsetof(struct thread, td_ucred),
	KQX_TD_LIMIT = offsetof(struct thread, td_limit),
	KQX_PL_KQUEUES =
	    offsetof(struct plimit, pl_rlimit[RLIMIT_KQUEUES].rlim_cur),
	KQX_CR_UID = offsetof(struct ucred, cr_uid),
	KQX_CR_RUID = offsetof(struct ucred, cr_ruid),
	KQX_CR_RUIDINFO = offsetof(struct ucred, cr_ruidinfo),
	KQX_CR_PRISON = offsetof(struct ucred, cr_prison),
	KQX_PR_ID = offsetof(struct prison, pr_id),
	KQX_PR_PARENT = offsetof(struct prison, pr_parent),
	KQX_PC_CPUID = offsetof(struct pcpu, pc_cpuid),
	KQX_FD_HOLDCNT = offsetof(struct filedesc, fd_holdcnt),
	KQX_TD_FPOP = offsetof(struct thread, td_fpop),
	KQX_SI_USECOUNT = offsetof(struct cdev, si_usecount),
	KQX_VM_OBJECT_SIZE = offsetof(struct vm_object, size),
};

/* The statistics of kern.kqx.stats, in the order of the table in shim.c. */
enum kqx_stat {
	KQX_STAT_TRIGGERS,
	KQX_STAT_DELIVERIES,
	KQX_STAT_EXPIRATIONS,
	KQX_STAT_CALLOUTS,
	KQX_STAT_REFUSED,
	KQX_STAT_KICKS,
	KQX_STAT_COUNTERS,	/* live: kern.kqx.counters */
	KQX_STAT_WATCHERS,	/* live: kern.kqx.watchers */
	KQX_STATS		/* as a gauge: none */
};

/* What happened: a probe, and a statistic where there is one. */
int	kqx_trace_attach(struct knote *kn, size_t gauge);
int	kqx_trace_refuse(struct knote *kn, int error);
void	kqx_trace_change(struct knote *kn, const struct kevent *kev,
	    int error);
void	kqx_trace_expiry(struct knote *kn, uint64_t late);
void	kqx_trace_deliver(struct knote *kn, int64_t data);
void	kqx_trace_detach(struct knote *kn, size_t gauge);

void	kqx_trace_kick(struct vm_object *object, uint64_t line);

/* Macros and inlines as functions, under the names of the manual. */
void	kqx_mtx_init(struct mtx *m, const char *name);
void	kqx_mtx_destroy(struct mtx *m);
void	kqx_mtx_lock(struct mtx *m);
bool	kqx_mtx_trylock(struct mtx *m);
void	kqx_mtx_unlock(struct mtx *m);
bool	kqx_mtx_owned(const struct mtx *m);
void	kqx_callout_init_mtx(struct callout *c, struct mtx *m);
void	kqx_callout_drain(struct callout *c);
sbintime_t kqx_sbinuptime(void);
struct filedesc *kqx_kq_fdp(const struct knote *kn);
void	kqx_fdhold(struct filedesc *fdp);
void	kqx_fddrop(struct filedesc *fdp);
struct ucred *kqx_curthread_ucred(void);
struct ucred *kqx_chgkqcnt(void);
void	kqx_unchgkqcnt(struct ucred *cred);
void	*kqx_curthread_account(u_int *number, bool *host_root);
uint64_t kqx_physmem(void);
u_int	kqx_mp_maxid(void);
void	*kqx_malloc(size_t size);
void	kqx_free(void *memory);
void	*kqx_entry_find(void);
void	*kqx_entry_alloc(size_t size);
void	kqx_entry_keep(void *page);
void	kqx_knote_dequeue(struct knote *kn);
void	kqx_timeout_task_init(struct timeout_task *t, task_fn_t *func,
	    void *argument);
void	kqx_taskqueue_enqueue_timeout_sbt(struct timeout_task *t,
	    sbintime_t sbt);
void	kqx_taskqueue_drain_timeout(struct timeout_task *t);
void	kqx_counter_u64_add(enum kqx_stat stat, int64_t n);
int	kqx_make_dev(struct cdevsw *devsw);
void	kqx_destroy_dev(void);
int	kqx_fget(int fd, struct file **fp);
void	kqx_fdrop(struct file *fp);
bool	kqx_is_writable(int fd, const struct file *fp);
bool	kqx_is_kqx(const struct file *fp);
int	kqx_devfs_set_object(struct vm_object *object);
int	kqx_devfs_get_cdevpriv(struct file *fp, void **data);
vm_pindex_t kqx_vm_object_size(const struct vm_object *object);
void	*kqx_page_dmap(vm_page_t page);
int	kqx_curcpu(void);
void	kqx_printf(const char *line, int len);
void	kqx_printf_filter(int filter, const char *line, int len);
void	kqx_panic(const char *file, int file_len, int line,
	    const char *message, int len) __dead2;

/* Tunables and gauges of kern.kqx, read and written by the module. */
extern int	kqx_filter;
extern u_int	kqx_timer_max;
extern u_int	kqx_timer_max_user;
extern u_int	kqx_timers;
extern u_int	kqx_watcher_max;
extern u_int	kqx_pad_size;
extern u_int	kqx_words;
extern u_int	kqx_pages;
extern u_int	kqx_pages_max;

/* The module's own event handler, in Rust: 0 or an errno. */
int	kqx_modevent(int what);
