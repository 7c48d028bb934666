// SPDX-License-Identifier: BSD-2-Clause

//! A program that knows nothing of kqx, with the library preloaded: it sees EVFILT_USER and
//! EVFILT_TIMER, and the kernel counts registrations of kqx.
#![cfg(target_os = "freebsd")]
#![expect(unsafe_code, reason = "a program's own calls of kevent(2)")]

use std::ffi::{CStr, c_int, c_void};
use std::ptr::{null, null_mut};
use std::thread;

use kqx::event::*;

/// libc's functions as they are: a cancelled thread unwinds through them.
mod sys {
    use super::{Kevent, c_int, c_void};

    unsafe extern "C-unwind" {
        pub fn kevent(
            kq: c_int,
            changes: *const Kevent,
            nchanges: c_int,
            events: *mut Kevent,
            nevents: c_int,
            timeout: *const libc::timespec,
        ) -> c_int;
        pub fn pthread_create(
            thread: *mut libc::pthread_t,
            attributes: *const c_void,
            start: extern "C-unwind" fn(*mut c_void) -> *mut c_void,
            argument: *mut c_void,
        ) -> c_int;
        pub fn pthread_cancel(thread: libc::pthread_t) -> c_int;
    }
}

fn change(ident: usize, filter: i16, flags: u16, fflags: u32, data: i64) -> Kevent {
    Kevent {
        ident,
        filter,
        flags,
        fflags,
        data,
        ..Kevent::default()
    }
}

/// kevent(2) with room for so many events, at most one, and without a time-out.
fn kevent(kq: c_int, changes: &[Kevent], room: c_int) -> (c_int, Kevent) {
    let mut event = Kevent::default();
    let length = changes.len() as c_int;
    // SAFETY: the list is that long, and there is room for one event.
    let count = unsafe { sys::kevent(kq, changes.as_ptr(), length, &raw mut event, room, null()) };
    (count, event)
}

fn kqueue() -> c_int {
    // SAFETY: kqueue has no preconditions.
    unsafe { libc::kqueue() }
}

/// A gauge of the module.
fn gauge<T: Default>(name: &CStr) -> T {
    let mut value = T::default();
    let mut length = size_of::<T>();
    let to = (&raw mut value).cast();
    // SAFETY: `name` ends in NUL, and `to` has room for `length` bytes of an integer.
    let result = unsafe { libc::sysctlbyname(name.as_ptr(), to, &raw mut length, null(), 0) };
    assert_eq!(result, 0, "{name:?}");
    value
}

#[test]
#[ignore = "needs FreeBSD with kqx, and the library preloaded"]
fn a_program_s_user_events_are_counters_and_look_like_user_events() {
    let kq = kqueue();
    let many: Vec<_> = (0..100)
        .map(|ident| change(ident, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0))
        .collect();
    assert_eq!(kevent(kq, &many, 0).0, 0);
    assert!(gauge::<u64>(c"kern.kqx.counters") >= 100);
    let waits = thread::spawn(move || kevent(kq, &[], 1));
    let trigger = change(42, EVFILT_USER, 0, NOTE_TRIGGER, 7);
    assert_eq!(kevent(kq, &[trigger], 0).0, 0);
    let (count, event) = waits.join().unwrap();
    assert_eq!((count, event.ident, event.filter), (1, 42, EVFILT_USER));
    assert_eq!((event.flags, event.fflags, event.data), (EV_CLEAR, 0, 7));
}

#[test]
#[ignore = "needs FreeBSD with kqx, and the library preloaded"]
fn a_program_s_timer_is_a_timer_of_kqx_and_looks_like_evfilt_timer() {
    let kq = kqueue();
    let once = change(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, 1);
    let hour = change(2, EVFILT_TIMER, EV_ADD, 0, 3_600_000);
    assert_eq!(kevent(kq, &[once, hour], 0).0, 0);
    assert!(gauge::<u32>(c"kern.kqx.timers") >= 1);
    let (count, event) = kevent(kq, &[], 1);
    assert_eq!((count, event.ident, event.filter), (1, 1, EVFILT_TIMER));
    assert_eq!(
        (event.flags, event.fflags, event.data),
        (EV_ONESHOT | EV_CLEAR, 0, 1)
    );
    assert_eq!(event.ext, [0; 4]);
    assert_eq!(
        kevent(kq, &[change(2, EVFILT_TIMER, EV_DELETE, 0, 0)], 0).0,
        0
    );
}

#[test]
#[ignore = "needs FreeBSD with kqx, and the library preloaded"]
fn an_error_is_an_errno_or_an_event_of_the_program_s_filter() {
    let gone = change(9, EVFILT_USER, EV_DELETE, 0, 0);
    assert_eq!(kevent(kqueue(), &[gone], 0).0, -1);
    assert_eq!(
        std::io::Error::last_os_error().raw_os_error(),
        Some(libc::ENOENT)
    );
    let (count, event) = kevent(kqueue(), &[gone], 1);
    assert_eq!((count, event.ident, event.filter), (1, 9, EVFILT_USER));
    assert_eq!(event.data, libc::ENOENT.into());
}

/// Waits until somebody cancels the thread.
extern "C-unwind" fn wait(kq: *mut c_void) -> *mut c_void {
    let mut event = Kevent::default();
    let user = change(1, EVFILT_USER, EV_ADD, 0, 0);
    loop {
        // SAFETY: the list has one change, and there is room for one event.
        unsafe {
            sys::kevent(
                kq as usize as c_int,
                &raw const user,
                1,
                &raw mut event,
                1,
                null(),
            );
        }
    }
}

#[test]
#[ignore = "needs FreeBSD with kqx, and the library preloaded"]
fn a_thread_that_waits_can_be_cancelled() {
    let mut thread = 0;
    let kq = kqueue() as usize as *mut c_void;
    let mut value = null_mut();
    // SAFETY: `wait` has nothing to drop, the thread is joined once, and `value` is writable.
    let results = unsafe {
        [
            sys::pthread_create(&raw mut thread, null(), wait, kq),
            sys::pthread_cancel(thread),
            libc::pthread_join(thread, &raw mut value),
        ]
    };
    assert_eq!(results, [0; 3]);
    assert_eq!(value as usize, 1, "PTHREAD_CANCELED");
}
