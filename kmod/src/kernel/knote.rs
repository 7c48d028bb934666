// SPDX-License-Identifier: BSD-2-Clause

//! A registration, as a callback has it: one type for each callback.
//!
//! | type | callback | the knote's state | the timer | and |
//! |---|---|---|---|---|
//! | `Knote<Attaching>` | f_attach, at first | - | can be attached | becomes `Attached`, once, and `Answered` |
//! | `Knote<Attached>` | f_attach, then | read, written | used | becomes `Accepted`, once |
//! | `Knote<Active>` | f_event | read, written | used | |
//! | `Knote<Changing>` | f_touch, a change | read, written | attached, used | knote_dequeue |
//! | `Knote<Delivering>` | f_touch, a delivery | read, written | used | makes the event for a `Slot` |
//! | `Knote<Expiring>` | the callout's handler | read | used | |
//! | `Knote<Detaching>` | f_detach | read | goes | becomes `Detached`, once |
//!
//! INVARIANT: while a `Knote` exists, its thread alone uses the fields that its type allows.
//! The knote is in flux, or the thread has the mutex of the knote's list. The callout's handler
//! does not care for flux, so where there is a timer the thread has the mutex of the timer's shard
//! in every callback but f_detach, which only reads until it has had the mutex. kqueue does not
//! take the mutex for a timer that a callback has only just attached. So `attach_timer` takes
//! the mutex, lends the knote to the rest of the callback, and releases the mutex when that
//! rest is over. After f_touch, the thunk of f_event takes the mutex for the call that comes next.

use core::ffi::c_int;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::{NonNull, without_provenance_mut};
use core::sync::atomic::{AtomicI32, Ordering::Relaxed};

use freebsd_kernel_sys as sys;
use kqx::abi;
use kqx::errno::Errno;
use kqx::event::Kevent;
use kqx_filters::{Gauge, Report, Words};

use super::trace;

/// f_attach, while the knote has nothing of the filter's.
pub struct Attaching;

/// f_attach, when nothing can fail any more.
pub struct Attached;

/// f_attach has accepted the registration.
pub struct Accepted<'a>(PhantomData<&'a ()>);

/// f_attach has accepted or refused the registration: what f_attach returns.
pub struct Answered<'a>(c_int, PhantomData<&'a ()>);

/// f_event.
pub struct Active;

/// f_touch of a change.
pub struct Changing;

/// f_touch of a delivery.
pub struct Delivering;

/// The callout's handler.
pub struct Expiring;

/// f_detach, while the knote has its timer or its group.
pub struct Detaching;

/// f_detach has taken away what the knote had.
pub struct Detached<'a>(PhantomData<&'a ()>);

/// What a probe tells a knote by, while a callback runs.
#[derive(Clone, Copy)]
pub struct Name<'a>(pub(super) NonNull<sys::knote>, PhantomData<&'a ()>);

/// The callbacks in which the filter's state may change.
///
/// # Safety
/// Nobody else reads the state in such a callback, nor the knote's EV_ flags but kqueue, which
/// reads the flags afterwards.
pub unsafe trait Stores {}
// SAFETY: in flux, and the thread has the mutex of the timer if there is a timer.
unsafe impl Stores for Attached {}
// SAFETY: the thread has the list's mutex or the kqueue's lock, or the knote is in flux.
unsafe impl Stores for Active {}
// SAFETY: as for `Attached`.
unsafe impl Stores for Changing {}
// SAFETY: as for `Attached`.
unsafe impl Stores for Delivering {}

/// The callbacks in which the filter may use its timer.
///
/// # Safety
/// The thread has the timer's mutex in such a callback.
pub unsafe trait Times {}
// SAFETY: if there is a timer, `attach_timer` has lent the knote with the mutex held.
unsafe impl Times for Attached {}
// SAFETY: kqueue or the thunk has taken the mutex.
unsafe impl Times for Active {}
// SAFETY: kqueue has taken the mutex, or `attach_timer` has, which takes the callback's knote
// away for good and lends the knote with the mutex held.
unsafe impl Times for Changing {}
// SAFETY: kqueue has taken the mutex.
unsafe impl Times for Delivering {}
// SAFETY: callout(9) has taken the mutex.
unsafe impl Times for Expiring {}

/// The callbacks that kqueue makes with the mutex of the knote's list.
///
/// # Safety
/// kqueue has taken the mutex of a watcher's list in such a callback.
pub unsafe trait Listed {}
// SAFETY: kn_list_lock of kqueue_register and kqueue_scan, or the caller of knote(9).
unsafe impl Listed for Active {}
// SAFETY: kn_list_lock of kqueue_register.
unsafe impl Listed for Changing {}
// SAFETY: kn_list_lock of kqueue_scan.
unsafe impl Listed for Delivering {}

/// A knote that a callback has to itself. `P` says which callback.
pub struct Knote<'a, P> {
    pub(super) raw: NonNull<sys::knote>,
    callback: PhantomData<(&'a mut (), P)>,
}

/// Reads a field in place: other threads change the rest of the knote under the kqueue's
/// lock, so no reference to a knote is ever made.
macro_rules! get {
    ($kn:expr, $($field:tt)+) => {
        // SAFETY: the INVARIANT of this file.
        unsafe { (&raw const (*$kn.raw.as_ptr()).$($field)+).read() }
    };
}

/// Writes a field in place.
macro_rules! set {
    ($kn:expr, $value:expr, $($field:tt)+) => {{
        let value = $value;
        // SAFETY: the INVARIANT of this file.
        unsafe { (&raw mut (*$kn.raw.as_ptr()).$($field)+).write(value) }
    }};
}

impl<'a, P> Knote<'a, P> {
    /// The knote that a callback was handed.
    ///
    /// # Safety
    /// `raw` is a knote of this module's filter, `P` is the callback, and the callback lasts
    /// as long as `'a`.
    pub(super) unsafe fn new(raw: NonNull<sys::knote>) -> Self {
        Knote {
            raw,
            callback: PhantomData,
        }
    }

    /// What a probe tells the knote by.
    pub fn name(&self) -> Name<'a> {
        Name(self.raw, PhantomData)
    }

    /// Which registration of the filter the knote is.
    pub fn ident(&self) -> usize {
        get!(self, kn_kevent.ident) as usize
    }

    /// The number of the member that the ident names. The byte alone is read: an instruction less.
    #[inline(always)]
    pub fn number(&self) -> u8 {
        const { assert!(cfg!(target_endian = "little") && abi::KQX_ID_BITS == 56) };
        // SAFETY: the INVARIANT of this file: the ident does not change.
        unsafe {
            (&raw const (*self.raw.as_ptr()).kn_kevent.ident)
                .cast::<u8>()
                .add(7)
                .read()
        }
    }

    /// The word that the family keeps for itself.
    pub fn mode(&self) -> u32 {
        get!(self, kn_hookid) as u32
    }

    /// The filter's state.
    #[inline(always)]
    pub fn words(&self) -> Words {
        Words {
            a: get!(self, kn_hook).addr() as u64,
            b: get!(self, kn_sdata) as u64,
            ext0: get!(self, kn_kevent.ext[0]),
            flags: get!(self, kn_sfflags) as u32,
        }
    }

    /// The knote's own kevent, as the scan would copy it.
    #[inline(always)]
    fn kevent(&self) -> Kevent {
        // SAFETY: the INVARIANT of this file; the two are laid out alike (asserted where
        // `Kevent` meets C, in `filterops`).
        unsafe {
            (&raw const (*self.raw.as_ptr()).kn_kevent)
                .cast::<Kevent>()
                .read()
        }
    }

    /// Whether the registration is disabled, or in f_attach: is added disabled.
    pub fn disabled(&self) -> bool {
        self.status() & sys::KN_DISABLED != 0
    }

    pub(super) fn status(&self) -> u32 {
        // SAFETY: an aligned field of the knote. Other threads change the field under the
        // kqueue's lock, one word at a time.
        let status = unsafe { AtomicI32::from_ptr(&raw mut (*self.raw.as_ptr()).kn_status) };
        status.load(Relaxed) as u32
    }
}

impl<P: Stores> Knote<'_, P> {
    /// The EV_ flags that kqueue_scan goes by.
    pub fn flags(&self) -> u16 {
        get!(self, kn_kevent.flags)
    }

    /// Has kqueue_scan go by other EV_ flags. The scan looks for EV_ONESHOT before it calls
    /// f_event, and for EV_CLEAR and EV_DISPATCH after f_touch.
    pub fn set_flags(&mut self, flags: u16) {
        set!(self, flags, kn_kevent.flags);
    }

    /// Sets the word that the family keeps for itself.
    pub fn set_mode(&mut self, mode: u32) {
        set!(self, mode as i32, kn_hookid);
    }

    /// Sets the filter's state. `b` comes first: the compiler then sees a `b` that did not
    /// change, and leaves that alone.
    #[inline(always)]
    pub fn set_words(&mut self, words: Words) {
        set!(self, words.b as i64, kn_sdata);
        set!(self, without_provenance_mut(words.a as usize), kn_hook);
        set!(self, words.ext0, kn_kevent.ext[0]);
        set!(self, words.flags as i32, kn_sfflags);
    }

    /// Sets what EV_ONESHOT will deliver: kqueue_scan copies the knote's kevent as it stands.
    pub fn publish(&mut self, report: &Report) {
        set!(self, report.fflags, kn_kevent.fflags);
        set!(self, report.data, kn_kevent.data);
        set!(self, report.ext[0], kn_kevent.ext[0]);
        set!(self, report.ext[1], kn_kevent.ext[1]);
    }
}

impl<'a> Knote<'a, Attaching> {
    /// What EV_ADD asked for. kqueue_register has moved fflags and data out of the knote's
    /// kevent; here they are back.
    pub fn added(&self) -> Kevent {
        Kevent {
            fflags: get!(self, kn_sfflags) as u32,
            data: get!(self, kn_sdata),
            ..self.kevent()
        }
    }

    /// All of f_attach. `attach` accepts or refuses the registration: the errno is kevent(2)'s. A
    /// probe sees the answer, and `gauge` counts an accepted registration. `attach` works for any
    /// lifetime, so that no knote is left of a registration that `attach` has refused.
    #[inline(always)]
    pub fn answer(
        self,
        gauge: Option<Gauge>,
        attach: impl for<'b> FnOnce(Knote<'b, Attaching>) -> Result<Accepted<'b>, Errno>,
    ) -> Answered<'a> {
        let name = self.name();
        match attach(self) {
            Ok(_) => Answered(trace::attach(name, gauge), PhantomData),
            // SAFETY: f_attach, the knote is in flux, and `attach` has kept no knote.
            Err(errno) => unsafe { Knote::<Detaching>::new(name.0) }.refuse_attached(errno),
        }
    }

    /// All of f_attach, for a registration that no filter is to see.
    #[inline(always)]
    pub fn refuse(self, errno: Errno) -> Answered<'a> {
        Answered(errno.number().into(), PhantomData)
    }

    /// The registration is accepted, and needs no timer.
    #[inline(always)]
    pub fn attach(self) -> Knote<'a, Attached> {
        self.attached()
    }

    /// Has kqueue call f_detach in the end. kqueue_register has set the event's fflags and data
    /// to 0.
    #[inline(always)]
    pub(super) fn attached(self) -> Knote<'a, Attached> {
        set!(
            self,
            get!(self, kn_status) & !(sys::KN_DETACHED as c_int),
            kn_status
        );
        Knote {
            raw: self.raw,
            callback: PhantomData,
        }
    }
}

impl<'a> Knote<'a, Attached> {
    /// f_attach has done its work.
    #[inline(always)]
    pub fn accept(self) -> Accepted<'a> {
        Accepted::new()
    }
}

impl Answered<'_> {
    /// 0, or kevent(2)'s errno.
    #[inline(always)]
    pub(super) fn code(self) -> c_int {
        self.0
    }
}

impl Accepted<'_> {
    /// Of a knote that is attached.
    #[inline(always)]
    pub(super) fn new() -> Self {
        Accepted(PhantomData)
    }
}

impl Knote<'_, Changing> {
    /// Whether kqueue has the knote on its queue, or will put the knote there once it is enabled,
    /// although nothing is `due` or the knote is disabled. Other threads can make the knote active
    /// meanwhile, but not inactive.
    #[inline(always)]
    pub fn is_queued_in_vain(&self, due: bool) -> bool {
        let status = self.status();
        status & (sys::KN_QUEUED | sys::KN_ACTIVE) != 0 && (!due || status & sys::KN_DISABLED != 0)
    }

    /// Takes the knote off its kqueue's queue, as if it had never been due. EV_ENABLE will
    /// bring a disabled knote back. Takes the kqueue's lock.
    pub fn knote_dequeue(&mut self) {
        // SAFETY: in flux, so no scan has the knote; its kqueue outlives it; the kqueue's
        // lock comes after the list's mutex, and kqueue does not hold it in f_touch.
        unsafe { sys::kqx_knote_dequeue(self.raw.as_ptr()) };
    }

    /// Takes over `ext[2]` and `ext[3]`, which EV_ADD of a known registration leaves.
    pub fn set_pass_through(&mut self, kev: &Kevent) {
        set!(self, kev.ext[2], kn_kevent.ext[2]);
        set!(self, kev.ext[3], kn_kevent.ext[3]);
    }
}

impl Knote<'_, Delivering> {
    /// The whole event, with `flags` and `report`.
    #[inline(always)]
    pub fn event(&self, flags: u16, report: &Report) -> Kevent {
        let kept = self.kevent();
        let [_, _, two, three] = kept.ext;
        Kevent {
            flags,
            fflags: report.fflags,
            data: report.data,
            ext: [report.ext[0], report.ext[1], two, three],
            ..kept
        }
    }
}

/// Where kqueue_scan wants the event. The memory is not initialised.
pub struct Slot<'a>(pub(super) &'a mut MaybeUninit<Kevent>);

/// A [`Slot`] has its event: what a delivery returns.
pub struct Filled<'a>(PhantomData<&'a ()>);

impl<'a> Slot<'a> {
    /// Delivers `event`.
    #[inline(always)]
    pub fn fill(self, event: Kevent) -> Filled<'a> {
        self.0.write(event);
        Filled(PhantomData)
    }
}

impl<'a> Knote<'a, Detaching> {
    /// f_attach refuses the registration, which kqueue then frees: takes back what f_attach did
    /// before.
    #[cold]
    #[inline(never)]
    fn refuse_attached(self, errno: Errno) -> Answered<'a> {
        let code = trace::refuse(self.name(), errno);
        self.detach_if_attached();
        Answered(code, PhantomData)
    }

    /// The knote has nothing of the filter's any more.
    #[inline(always)]
    pub(super) fn detached(self) -> Detached<'a> {
        set!(
            self,
            get!(self, kn_status) | sys::KN_DETACHED as c_int,
            kn_status
        );
        Detached(PhantomData)
    }

    /// Whether kqueue_scan has just delivered this one-shot, and not EV_DELETE or close(2)
    /// removed it. Only the scan takes an active knote that shows EV_ONESHOT off the queue
    /// before it drops the knote.
    pub fn delivered_once(&self) -> bool {
        let queue = sys::KN_ACTIVE | sys::KN_QUEUED | sys::KN_DISABLED;
        self.shows_oneshot() && self.status() & queue == sys::KN_ACTIVE
    }

    /// Whether kqueue_scan would deliver a one-shot.
    #[inline(always)]
    pub fn shows_oneshot(&self) -> bool {
        get!(self, kn_kevent.flags) & sys::EV_ONESHOT as u16 != 0
    }
}

// Under Miri alone: natively the crate has no kernel to link with.
#[cfg(all(test, miri))]
mod tests {
    use super::*;

    /// Memory of a knote, as knote_alloc zeroes it.
    fn knote() -> MaybeUninit<sys::knote> {
        MaybeUninit::zeroed()
    }

    #[test]
    fn each_callback_finds_in_a_knote_what_the_callback_before_left() {
        let mut memory = knote();
        let raw = NonNull::new(memory.as_mut_ptr()).unwrap();
        let words = Words {
            a: u64::MAX,
            b: 1 << 63,
            ext0: 7,
            flags: u32::MAX,
        };
        let report = Report {
            fflags: 1,
            data: -1,
            ext: [2, 3],
        };
        // SAFETY: the memory is this test's; each knote is gone before the next is made.
        unsafe {
            let attaching = Knote::<Attaching>::new(raw);
            assert_eq!(attaching.added(), Kevent::default());
            let mut attached = attaching.attach();
            attached.set_words(words);
            attached.set_mode(5);
            let mut active = Knote::<Active>::new(raw);
            assert_eq!((active.words(), active.mode()), (words, 5));
            active.set_flags(9);
            let delivering = Knote::<Delivering>::new(raw);
            let event = delivering.event(delivering.flags(), &report);
            assert_eq!((event.flags, event.data, event.ext), (9, -1, [2, 3, 0, 0]));
            let mut changing = Knote::<Changing>::new(raw);
            changing.publish(&report);
            assert_eq!(changing.words().ext0, 2);
            let _ = Knote::<Detaching>::new(raw).detached();
        }
    }
}
