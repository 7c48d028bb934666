// SPDX-License-Identifier: BSD-2-Clause

//! What a knote has beside itself: a timer, a group of which it is a watcher, or nothing.

use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};

use freebsd_kernel_sys as sys;
use kqx::errno::Errno;

use super::device::Descriptor;
use super::group::{Initial, Member, Watcher};
use super::knote::{
    Accepted, Attached, Attaching, Changing, Detached, Detaching, Knote, Listed, Times,
};
use super::timer::{Armable, Expire, NewTimer, Timer};

/// The lowest bit of `kn_ptr`: set in the address of a timer, clear in that of a watcher.
const TIMER: usize = 1;
const _: () = assert!(align_of::<Timer>() > TIMER && align_of::<Watcher>() > TIMER);

/// What f_detach does with a watcher before the watcher leaves its group.
pub type Last = fn(&Member<'_, Detaching>);

impl<'a, P> Knote<'a, P> {
    #[inline(always)]
    fn ptr(&self) -> *mut c_void {
        // SAFETY: the INVARIANT of `knote`: the field is the filter's own.
        unsafe { (&raw const (*self.raw.as_ptr()).kn_ptr.p_v).read() }
    }

    fn set_attached(&self, attached: *mut c_void) {
        // SAFETY: as for `ptr`.
        unsafe { (&raw mut (*self.raw.as_ptr()).kn_ptr.p_v).write(attached) }
    }

    #[inline(always)]
    fn timer_ptr(&self) -> Option<NonNull<Timer>> {
        let attached = self.ptr();
        if attached.addr() & TIMER == 0 {
            return None;
        }
        // SAFETY: `set_timer` put the address of a timer there, and added the bit.
        Some(unsafe { NonNull::new_unchecked(attached.byte_sub(TIMER).cast()) })
    }

    fn set_timer(&self, timer: NonNull<Timer>) {
        self.set_attached(timer.as_ptr().wrapping_byte_add(TIMER).cast());
    }

    fn watcher_ptr(&self) -> Option<NonNull<Watcher>> {
        let attached = self.ptr();
        if attached.addr() & TIMER != 0 {
            return None;
        }
        NonNull::new(attached.cast())
    }

    /// Whether the knote has neither a timer nor a group.
    #[inline(always)]
    pub fn is_bare(&self) -> bool {
        self.ptr().is_null()
    }

    /// The timer, for the thunk of f_event.
    #[inline(always)]
    pub(super) fn timer_of_callback(&self) -> Option<&'a Timer> {
        // SAFETY: `attach_timer` put the address there. f_detach, which frees the timer, does
        // not run before this callback is over.
        self.timer_ptr().map(|timer| unsafe { timer.as_ref() })
    }
}

impl<P: Times> Knote<'_, P> {
    /// The timer, if the knote has a timer.
    #[inline(always)]
    pub fn timer(&mut self) -> Option<Armable<'_>> {
        // SAFETY: `attach_timer` put the address there, and f_detach takes it away. This
        // thread has the timer's mutex, as `P` is `Times`. The borrow of the knote makes the
        // timer this borrow's alone.
        self.timer_ptr().map(|timer| unsafe { Armable::new(timer) })
    }
}

impl<P: Listed> Knote<'_, P> {
    /// The watcher that the knote is, if it is a watcher. kqueue has the group's mutex.
    #[inline(always)]
    pub fn member(&self) -> Option<Member<'_, P>> {
        // SAFETY: `attach_watcher` put the address there, and f_detach takes it away. The
        // list's mutex is the group's.
        self.watcher_ptr()
            .map(|watcher| unsafe { Member::new(watcher) })
    }
}

impl<'a> Knote<'a, Attaching> {
    /// Memory for [`Knote::attach_timer`], which keeps `timed`. Sleeps. ENOMEM where the kernel has
    /// no memory even so.
    #[inline(always)]
    pub fn new_timer<T: Copy + Send + 'static>(&self, timed: T) -> Result<NewTimer<T>, Errno> {
        NewTimer::new(timed)
    }

    /// The registration is accepted with a kernel timer. `then` runs with the timer's mutex held,
    /// and is the last that f_attach does with the knote. Charges the calling thread's user.
    /// Sleeps. ENOMEM over a limit.
    #[inline(always)]
    pub fn attach_timer<E: Expire, T: Copy + Send + 'static>(
        self,
        timer: NewTimer<T>,
        then: impl FnOnce(Knote<'_, Attached>),
    ) -> Result<Accepted<'a>, Errno> {
        // SAFETY: f_attach, and the knote is on no list.
        let timer = unsafe { Timer::attach::<E, T>(self.raw, timer, false)? };
        self.set_timer(timer);
        then(self.attached());
        // SAFETY: `Timer::attach` took the mutex. `then` cannot have kept its knote, which any
        // `Armable` borrows. f_detach, which frees the timer, comes after f_attach.
        unsafe { timer.as_ref().unlock() };
        Ok(Accepted::new())
    }

    /// The registration is accepted as a watcher of the group of its ident, in the kqueues of
    /// the same file table. The first watcher makes the group, which is charged. `join` runs with
    /// the group's mutex held; if `join` refuses, nothing has happened. Sleeps. ENOMEM over a
    /// limit.
    pub fn attach_watcher(
        self,
        initial: &Initial,
        join: &mut dyn FnMut(&Member<'_, Attached>) -> Result<(), Errno>,
    ) -> Result<Knote<'a, Attached>, Errno> {
        // SAFETY: the knote has nothing else, as it becomes `Attached`; f_detach takes the watcher.
        let watcher = unsafe { Watcher::attach(&self, initial, join)? };
        self.set_attached(watcher.as_ptr().cast());
        Ok(self.attached())
    }

    /// As [`Knote::attach_watcher`], for the word on a line of the pad that `place` has the
    /// descriptor of; `timed`: with the charge for a timer. `initial` is told whether the
    /// descriptor is writable. EBADF; EINVAL: the descriptor is no pad, or there is no such line.
    pub fn attach_word(
        self,
        place: (i32, u32),
        timed: bool,
        initial: impl FnOnce(bool) -> Result<Initial, Errno>,
        join: &mut dyn FnMut(&Member<'_, Attached>) -> Result<(), Errno>,
    ) -> Result<Knote<'a, Attached>, Errno> {
        let Descriptor { pad, writable } = Descriptor::find(place.0)?;
        let initial = initial(writable)?;
        // SAFETY: as in `attach_watcher`.
        let watcher = unsafe { Watcher::attach_word(&self, pad, place.1, &initial, timed, join)? };
        self.set_attached(watcher.as_ptr().cast());
        Ok(self.attached())
    }
}

impl Knote<'_, Changing> {
    /// Gives the knote a kernel timer, which keeps `timed`, and charges the calling thread's
    /// user. A knote that has a timer or a group keeps that. `then` gets the knote back, and
    /// runs with the mutex of the knote's timer held, if the knote has a timer. `then` gets
    /// ENOMEM too if a limit is reached. Sleeps before `then`, but not for a knote on a list.
    pub fn attach_timer<E: Expire, T: Copy + Send + 'static>(
        self,
        timed: T,
        then: impl FnOnce(Knote<'_, Changing>, Result<(), Errno>),
    ) {
        if !self.is_bare() {
            return then(self, Ok(()));
        }
        let attach = |timer| {
            // SAFETY: f_touch; a knote with neither timer nor group is on no list.
            unsafe { Timer::attach::<E, T>(self.raw, timer, true) }
        };
        match NewTimer::new(timed).and_then(attach) {
            Err(errno) => then(self, Err(errno)),
            Ok(timer) => {
                self.set_timer(timer);
                then(self, Ok(()));
                // SAFETY: `Timer::attach` took the mutex. `then` cannot have kept its knote,
                // which any `Armable` borrows. f_detach, which frees the timer, comes after
                // f_touch.
                unsafe { timer.as_ref().unlock() };
            }
        }
    }
}

impl<'a> Knote<'a, Detaching> {
    /// f_attach has refused the registration: takes back what f_attach did before.
    pub(super) fn detach_if_attached(self) {
        if self.status() & sys::KN_DETACHED == 0 {
            self.detach(None);
        }
    }

    /// As [`Knote::detach`], for a knote that has neither a timer nor a group. Any other comes back.
    #[inline(always)]
    pub fn detach_bare(self) -> Result<Detached<'a>, Self> {
        if self.is_bare() {
            Ok(self.detached())
        } else {
            Err(self)
        }
    }

    /// Takes the timer away, if there is a timer, once no callout can run any more, and gives
    /// the charge back. Takes a watcher out of its group, and runs `last` for a watcher with
    /// the group's mutex held; the group goes with its last watcher. Sleeps.
    #[inline(always)]
    pub fn detach(self, last: Option<Last>) -> Detached<'a> {
        if !self.is_bare() {
            if let Some(timer) = self.timer_ptr() {
                // SAFETY: from `attach_timer`, and this is f_detach. A handler that is running
                // still finds the timer in the knote.
                unsafe { Timer::detach(timer) };
            } else {
                self.leave_group(last);
            }
            self.set_attached(null_mut());
        }
        self.detached()
    }

    #[inline(never)]
    fn leave_group(&self, last: Option<Last>) {
        let Some(watcher) = self.watcher_ptr() else {
            return;
        };
        // SAFETY: from `attach_watcher`, and this is f_detach.
        unsafe {
            Watcher::detach(watcher, |member| {
                if let Some(last) = last {
                    last(member);
                }
            });
        }
    }
}
