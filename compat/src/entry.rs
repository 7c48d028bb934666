// SPDX-License-Identifier: BSD-2-Clause

//! `kevent`, in place of libc's.
//!
//! kevent(2) is a cancellation point, and libthr ends a cancelled thread by unwinding. So
//! [`kevent`] has nothing to drop: a list of usual length is on the stack, and a longer list is
//! leaked if its thread is cancelled.

#![expect(
    unsafe_code,
    reason = "this is where a program's call comes in, and where libc's is called"
)]

use std::ffi::{CStr, c_int};
use std::mem::transmute;
use std::ptr::null;
use std::slice;
use std::sync::{Once, OnceLock};

use kqx::abi::KQX_ABI_VERSION;
use kqx::event::{EVFILT_TIMER, EVFILT_USER, Kevent};
use libc::timespec;

use crate::Translation;

/// How many changes need no allocation.
const USUAL: usize = 32;

/// kevent(2).
type Call = unsafe extern "C-unwind" fn(
    c_int,
    *const Kevent,
    c_int,
    *mut Kevent,
    c_int,
    *const timespec,
) -> c_int;

/// What stands behind a call.
struct Behind {
    kevent: Call,
    /// None without a module that fits.
    translation: Option<Translation>,
}

impl Behind {
    fn get() -> &'static Behind {
        static BEHIND: OnceLock<Behind> = OnceLock::new();
        BEHIND.get_or_init(|| {
            // SAFETY: the name ends in NUL.
            let found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"kevent".as_ptr()) };
            assert!(!found.is_null(), "libc has kevent");
            let fits = sysctl(c"kern.kqx.abi_version") == Some(KQX_ABI_VERSION as c_int);
            let filter = sysctl(c"kern.kqx.filter").filter(|_| fits);
            Behind {
                // SAFETY: libc's kevent takes these arguments. Kevent has the layout of struct
                // kevent: tests of the crate kqx compare it with the header.
                kevent: unsafe { transmute::<*mut libc::c_void, Call>(found) },
                translation: filter.map(|filter| Translation::new(filter as i16)),
            }
        })
    }
}

/// The value of an int sysctl, if it can be read.
fn sysctl(name: &CStr) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of_val(&value);
    let to = (&raw mut value).cast();
    // SAFETY: `name` ends in NUL, and `to` has room for `length` bytes.
    let result = unsafe { libc::sysctlbyname(name.as_ptr(), to, &raw mut length, null(), 0) };
    (result == 0).then_some(value)
}

/// Looks behind the call at the start of the program, which may hide sysctls from itself
/// later.
#[used]
// SAFETY: rtld calls each function of this section once, before main, and any number of
// arguments may be ignored.
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = {
    extern "C" fn look() {
        Behind::get();
    }
    look
};

/// Says once that the program uses the kernel's filters, and why.
fn say_untranslated() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        eprintln!(
            "libkqx-compat: EVFILT_USER and EVFILT_TIMER stay the kernel's: no kqx of version \
             {KQX_ABI_VERSION} is loaded, or this process may not read kern.kqx; try kldload kqx"
        );
    });
}

/// Whether a translation looks at this change.
fn concerns(change: &Kevent) -> bool {
    matches!(change.filter, EVFILT_USER | EVFILT_TIMER)
}

/// kevent(2), with EVFILT_USER and EVFILT_TIMER of the program over kqx.
///
/// # Safety
/// As kevent(2): `changes` is null or `nchanges` changes, `events` is null or room for
/// `nevents` events, `timeout` is null or a time-out. Both lists may be in the same memory.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn kevent(
    kq: c_int,
    changes: *const Kevent,
    nchanges: c_int,
    events: *mut Kevent,
    nevents: c_int,
    timeout: *const timespec,
) -> c_int {
    let behind = Behind::get();
    let given = match usize::try_from(nchanges) {
        // SAFETY: the caller gives so many changes. Nobody writes them before the call below,
        // and nobody uses `given` after it.
        Ok(count) if !changes.is_null() => unsafe { slice::from_raw_parts(changes, count) },
        _ => &[],
    };
    let concerned = given.iter().any(concerns);
    let Some(translation) = behind.translation else {
        if concerned {
            say_untranslated();
        }
        // SAFETY: the arguments are the caller's.
        return unsafe { (behind.kevent)(kq, changes, nchanges, events, nevents, timeout) };
    };
    let translated = |change: &Kevent| translation.change(change).unwrap_or(*change);
    let mut usual = [Kevent::default(); USUAL];
    let mut many: *mut [Kevent] = &raw mut usual[..0];
    let list = match given.len() {
        _ if !concerned => changes,
        1..=USUAL => {
            for (to, change) in usual.iter_mut().zip(given) {
                *to = translated(change);
            }
            usual.as_ptr()
        }
        _ => {
            many = Box::into_raw(given.iter().map(translated).collect());
            many.cast_const().cast()
        }
    };
    // SAFETY: `list` has as many changes as the caller's, and lives until the drop below; the
    // other arguments are the caller's.
    let count = unsafe { (behind.kevent)(kq, list, nchanges, events, nevents, timeout) };
    if !many.is_empty() {
        // SAFETY: this is the box from above, which nobody else has.
        drop(unsafe { Box::from_raw(many) });
    }
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the kernel has written `count` events into the caller's list.
        unsafe {
            let event = events.add(index);
            *event = translation.event(*event);
        }
    }
    count
}
