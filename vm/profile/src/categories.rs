// SPDX-License-Identifier: BSD-2-Clause

//! What a function's instructions are for.

use crate::Function;
use crate::functions::USER;

/// Names of functions or files. A name that ends in `*` stands for each name that begins so.
type Names = &'static [&'static str];

/// The categories of the kernel's functions. A function is in the first category that names it.
const KERNEL: &[(&str, Names)] = &[
    (
        "the counterpart's own filter",
        &["filt_timer*", "filt_user*"],
    ),
    (
        "callouts: callout(9), softclock",
        &[
            "callout_*",
            "_callout_*",
            "cpu_new_callout",
            "softclock*",
            "timercb",
            "handleevents",
            "getnextcpuevent",
        ],
    ),
    ("knote(9)", &["knote"]),
    // The compiler put the two functions that take the mutex into these.
    (
        "kqueue, with a global mutex for a module's filter",
        &[
            "kqueue_*",
            "knote_*",
            "kern_kevent*",
            "kevent_*",
            "sys_kevent",
        ],
    ),
    (
        "mutexes, spin locks, knlist",
        &[
            "knlist_*",
            "__mtx_*",
            "_mtx_*",
            "mtx_*",
            "thread_lock*",
            "_thread_lock*",
            "spinlock_*",
            "lock_mtx",
            "unlock_mtx",
        ],
    ),
    (
        "uidinfo: the charge",
        &["chg*", "ui*", "lim_cur*", "crhold", "crfree*"],
    ),
    (
        "memory: uma(9), malloc(9)",
        &[
            "uma_*",
            "malloc*",
            "free",
            "zfree",
            "item_*",
            "cache_*",
            "zone_*",
            "pmap_kextract",
            "PHYS_TO_VM_PAGE",
            "memset*",
            "bzero*",
        ],
    ),
    (
        "clock reads",
        &[
            "binuptime",
            "sbinuptime",
            "getbinuptime",
            "getboottimebin",
            "getsbinuptime",
            "bintime",
            "nanotime",
            "tc_*",
            "tsc_*",
            "cpu_tick*",
            "tsc_get*",
            "acpi_timer_*",
            "hpet_*",
        ],
    ),
    (
        "ioctl(2)",
        &[
            "sys_ioctl",
            "kern_ioctl",
            "vn_ioctl",
            "devfs_*",
            "devvn_*",
            "dev_rel*",
            "cap_ioctl_*",
            "_sx_*",
        ],
    ),
    (
        "threads: sleep, wakeup, change",
        &[
            "sched_*",
            "sleepq_*",
            "runq_*",
            "tdq_*",
            "mi_switch",
            "cpu_switch",
            "wakeup*",
            "_sleep",
            "setrunnable",
            "sleepinit",
            "choosethread",
            "ast*",
            "ithread_*",
            "swi_sched",
            "intr_event_*",
            "critical_*",
        ],
    ),
    (
        "any system call, any interrupt",
        &[
            "amd64_syscall",
            "Xfast_syscall*",
            "fast_syscall*",
            "cpu_fetch_*",
            "cpu_set_syscall*",
            "userret",
            "fget*",
            "copyin*",
            "copyout*",
            "handle_ibrs*",
            "mds_handler*",
            "lapic_*",
            "Xtimerint*",
            "fdrop",
            "_fdrop",
            "trap*",
            "doreti*",
            "ld_*",
            "Xapic*",
            "sys_sched_yield",
        ],
    ),
];

/// The categories of the sources of kqx.
const OURS: &[(&str, Names)] = &[
    ("ours: the filter itself", &["filters/*", "kqx/*"]),
    (
        "ours: the heap of timers",
        &["kmod/src/kernel/timer/heap.rs"],
    ),
    ("ours: timers", &["kmod/src/kernel/timer*"]),
    (
        "ours: groups of words and gates",
        &["kmod/src/kernel/group*", "kmod/src/kernel/table.rs"],
    ),
    (
        "ours: the charge",
        &["kmod/src/kernel/account.rs", "kmod/src/kernel/uidinfo.rs"],
    ),
    (
        "ours: the device and the pad",
        &["kmod/src/kernel/device.rs", "kmod/src/kernel/pad.rs"],
    ),
    (
        "ours: wrappers of kqueue and the kernel",
        &["kmod/src/kernel/*"],
    ),
    ("ours: attach, change, deliver, detach", &["kmod/src/*"]),
    ("ours: the shim of C", &["bindings/*"]),
];

const USER_SPACE: &str = "user space: the program, libc";
const OTHER_KERNEL: &str = "the rest of the kernel";
const OTHER_OURS: &str = "ours: the rest";

impl Function {
    /// The name of the function's category.
    pub(crate) fn category(&self) -> &'static str {
        let (table, name, other) = match &self.file {
            Some(file) => (OURS, file, OTHER_OURS),
            None if self.name == USER => return USER_SPACE,
            None => (KERNEL, &self.name, OTHER_KERNEL),
        };
        let names = |pattern: &&str| match pattern.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => name == pattern,
        };
        let of = table
            .iter()
            .find(|(_, patterns)| patterns.iter().any(&names));
        of.map_or(other, |(category, _)| category)
    }
}

/// The categories in the order of a table's lines.
pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    let names = |table: &'static [(&str, Names)]| table.iter().map(|(name, _)| *name);
    names(KERNEL)
        .chain([OTHER_KERNEL])
        .chain(names(OURS))
        .chain([OTHER_OURS, USER_SPACE])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn category(name: &str, file: Option<&str>) -> &'static str {
        let (name, file) = (name.to_owned(), file.map(str::to_owned));
        Function {
            name,
            file,
            kqx: 1.0,
            counterpart: 0.0,
        }
        .category()
    }

    #[test]
    fn a_function_is_in_the_category_that_names_it() {
        assert_eq!(category("knote", None), "knote(9)");
        assert_eq!(category("knotes", None), OTHER_KERNEL);
        assert_eq!(
            category("callout_reset_sbt_on", None),
            "callouts: callout(9), softclock"
        );
        assert_eq!(
            category("push", Some("kmod/src/kernel/timer/heap.rs")),
            "ours: the heap of timers"
        );
        assert_eq!(
            category("arm", Some("kmod/src/kernel/timer/shard.rs")),
            "ours: timers"
        );
        assert_eq!(category("new", Some("kqx.ko")), OTHER_OURS);
        assert_eq!(category(USER, None), USER_SPACE);
    }

    #[test]
    fn each_category_has_one_line_of_a_table() {
        let mut lines: Vec<_> = all().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), KERNEL.len() + OURS.len() + 3);
    }
}
