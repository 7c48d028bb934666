//! A registration, as a callback sees it.

use core::marker::PhantomData;
use core::ptr::NonNull;

use freebsd_kernel_sys as sys;
use kqx::event::Kevent;

use super::errno::Errno;
use super::group::{Member, Offer, Watcher};
use super::timer::{Expire, Timer};

/// What a delivery says: the part of `struct kevent` a filter fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// `NOTE_*`.
    pub fflags: u32,
    /// The filter's own.
    pub data: i64,
    /// `ext[0]` and `ext[1]`; the other two are the application's.
    pub ext: [u64; 2],
}

/// The room for a filter's state inside a knote, so that a plain registration allocates
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The filter's own.
    pub a: u64,
    /// The filter's own.
    pub b: u64,
    /// The filter's own, if it reports the same in `ext[0]` of a delivery.
    pub ext0: u64,
    /// The filter's own.
    pub flags: u32,
}

/// Tells the address of a watcher from that of a timer: both are even.
const WATCHER: usize = 1;

/// A knote that a callback has to itself: in flux, or with its timer's mutex held.
pub struct Knote<'a> {
    raw: NonNull<sys::knote>,
    callback: PhantomData<&'a mut sys::knote>,
}

/// The fields of the knote, read or written in place: the rest of it, which other
/// threads change under the kqueue's lock, is never borrowed.
macro_rules! field {
    ($kn:expr, $($field:tt)+) => {
        // SAFETY: `from_raw`'s caller vouches for the knote; the fields that this
        // module names are the filter's own, or stable while the knote is in flux.
        (*unsafe { &mut *(&raw mut (*$kn.raw.as_ptr()).$($field)+) })
    };
}

impl Knote<'_> {
    /// The knote a callback was handed.
    ///
    /// # Safety
    /// `raw` is a knote of this module's filter, valid while the value is, and for that long the
    /// caller is the only one to touch the filter's fields of it: it is in flux, or the
    /// mutex of its knlist is held.
    pub unsafe fn from_raw(raw: NonNull<sys::knote>) -> Self {
        Knote {
            raw,
            callback: PhantomData,
        }
    }

    /// Its address, for a probe or a knlist.
    pub fn as_ptr(&self) -> *mut sys::knote {
        self.raw.as_ptr()
    }

    /// Which registration it is.
    pub fn ident(&self) -> usize {
        field!(self, kn_kevent.ident) as usize
    }

    /// In f_attach: what EV_ADD asked for. kqueue_register has moved fflags and data out
    /// of the knote's kevent; here they are back, until [`Knote::attached`].
    pub fn added(&mut self) -> &Kevent {
        field!(self, kn_kevent.fflags) = field!(self, kn_sfflags) as u32;
        field!(self, kn_kevent.data) = field!(self, kn_sdata);
        // SAFETY: as for every field, and the two are laid out alike (asserted where
        // `Kevent` meets C, in `filterops`).
        unsafe { &*(&raw const (*self.raw.as_ptr()).kn_kevent).cast::<Kevent>() }
    }

    /// The EV_ flags that kqueue_scan goes by.
    pub fn flags(&self) -> u16 {
        field!(self, kn_kevent.flags)
    }

    /// Has kqueue_scan go by other EV_ flags. In f_event and f_touch: the scan reads
    /// them with the kqueue locked and the knote out of flux.
    pub fn set_flags(&mut self, flags: u16) {
        field!(self, kn_kevent.flags) = flags;
    }

    /// The word the family keeps for itself.
    pub fn mode(&self) -> u32 {
        field!(self, kn_hookid) as u32
    }

    /// Sets the word the family keeps for itself.
    pub fn set_mode(&mut self, mode: u32) {
        field!(self, kn_hookid) = mode as i32;
    }

    /// The filter's state.
    pub fn words(&self) -> Words {
        Words {
            a: field!(self, kn_hook) as usize as u64,
            b: field!(self, kn_sdata) as u64,
            ext0: field!(self, kn_kevent.ext)[0],
            flags: field!(self, kn_sfflags) as u32,
        }
    }

    /// Sets the filter's state.
    pub fn set_words(&mut self, words: Words) {
        field!(self, kn_hook) = words.a as usize as *mut _;
        field!(self, kn_sdata) = words.b as i64;
        field!(self, kn_kevent.ext)[0] = words.ext0;
        field!(self, kn_sfflags) = words.flags as i32;
    }

    /// What EV_ONESHOT will deliver: kqueue_scan copies the knote's kevent as it stands.
    pub fn publish(&mut self, report: &Report) {
        field!(self, kn_kevent.fflags) = report.fflags;
        field!(self, kn_kevent.data) = report.data;
        field!(self, kn_kevent.ext)[0] = report.ext[0];
        field!(self, kn_kevent.ext)[1] = report.ext[1];
    }

    /// Takes over `ext[2]` and `ext[3]`, which EV_ADD of a known registration leaves.
    pub fn set_pass_through(&mut self, kev: &Kevent) {
        field!(self, kn_kevent.ext)[2] = kev.ext[2];
        field!(self, kn_kevent.ext)[3] = kev.ext[3];
    }

    /// The whole event, to be delivered with `flags` and `report`.
    #[inline(always)]
    pub fn event(&self, flags: u16, report: &Report) -> Kevent {
        // SAFETY: as for every field, and the two are laid out alike.
        let kept = unsafe {
            (&raw const (*self.raw.as_ptr()).kn_kevent)
                .cast::<Kevent>()
                .read()
        };
        let [_, _, two, three] = kept.ext;
        Kevent {
            flags,
            fflags: report.fflags,
            data: report.data,
            ext: [report.ext[0], report.ext[1], two, three],
            ..kept
        }
    }

    /// In f_detach: whether kqueue_scan has just delivered this one-shot, and not
    /// EV_DELETE or close removed it. Only the scan takes an active knote, armed to be
    /// one-shot, off the queue before it drops it.
    pub fn delivered_once(&self) -> bool {
        let status = field!(self, kn_status) as u32;
        let queue = sys::KN_ACTIVE | sys::KN_QUEUED | sys::KN_DISABLED;
        self.flags() & sys::EV_ONESHOT as u16 != 0 && status & queue == sys::KN_ACTIVE
    }

    /// In f_attach, when all has gone well: has f_detach called in the end. Before its
    /// callout is armed.
    pub fn attached(&mut self) {
        field!(self, kn_kevent.fflags) = 0;
        field!(self, kn_kevent.data) = 0;
        field!(self, kn_status) &= !(sys::KN_DETACHED as i32);
    }

    /// Whether kqueue has it on its queue, or will put it there once it is enabled. In
    /// f_touch of a change: others can make it active meanwhile, not inactive.
    #[inline(always)]
    pub fn queued_or_active(&self) -> bool {
        field!(self, kn_status) as u32 & (sys::KN_QUEUED | sys::KN_ACTIVE) != 0
    }

    /// In f_touch of a change: takes it off its kqueue's queue, as if it had never been
    /// due; if it is disabled, EV_ENABLE will bring it back. Takes the kqueue's lock.
    pub fn knote_dequeue(&mut self) {
        // SAFETY: in flux, so no scan has it; its kqueue outlives it; the kqueue's lock
        // comes after the list's mutex and is not held in f_touch.
        unsafe { sys::kqx_knote_dequeue(self.raw.as_ptr()) };
    }

    /// What is in `kn_ptr`: the address of a timer, that of a watcher with [`WATCHER`] added,
    /// or 0.
    #[inline(always)]
    fn attachment(&self) -> usize {
        field!(self, kn_ptr.p_v) as usize
    }

    /// Its timer, if it has one.
    #[inline(always)]
    pub(super) fn timer(&self) -> Option<&Timer> {
        let address = self.attachment();
        if address & WATCHER != 0 {
            return None;
        }
        let timer = NonNull::new(address as *mut Timer)?;
        // SAFETY: what `attach_timer` put there, until `detach`.
        Some(unsafe { timer.as_ref() })
    }

    /// The watcher that it is, if it is one, with its group's mutex held: kqueue holds that
    /// in f_event and in f_touch.
    #[inline(always)]
    pub fn member(&self) -> Option<Member<'_>> {
        // SAFETY: what `attach_watcher` put there, until `detach_watcher`.
        self.watcher()
            .map(|watcher| unsafe { watcher.as_ref() }.lock())
    }

    fn watcher(&self) -> Option<NonNull<Watcher>> {
        let address = self.attachment();
        if address & WATCHER == 0 {
            return None;
        }
        NonNull::new((address & !WATCHER) as *mut Watcher)
    }

    /// Whether it has a timer.
    pub fn has_timer(&self) -> bool {
        self.timer().is_some()
    }

    /// What is kept with its timer, if it has a timer. Panics if that is of another
    /// type than was attached.
    pub fn timed<T: Copy + 'static>(&self) -> Option<T> {
        self.timer().map(|timer| timer.timed::<T>().get())
    }

    /// Sets what is kept with its timer; without a timer, nothing.
    pub fn set_timed<T: Copy + 'static>(&mut self, timed: T) {
        if let Some(timer) = self.timer() {
            timer.timed::<T>().set(timed);
        }
    }

    /// Has its callout run at `uptime` ns, or up to `leeway` ns later; at once if that
    /// has passed. Without a timer, nothing.
    #[inline(always)]
    pub fn callout_reset(&mut self, uptime: u64, leeway: u64) {
        if let Some(timer) = self.timer() {
            timer.lock().callout_reset(uptime, leeway);
        }
    }

    /// Keeps its callout from running.
    pub fn callout_stop(&mut self) {
        if let Some(timer) = self.timer() {
            timer.lock().callout_stop();
        }
    }

    /// Gives it a kernel timer, and charges the calling thread's user. In f_attach, or
    /// in f_touch of a knote on no list: sleeps. ENOMEM over a limit.
    pub fn attach_timer<E: Expire, T: Copy + 'static>(&mut self, timed: T) -> Result<(), Errno> {
        // SAFETY: the two callbacks above, the only ones in which the knote has no timer
        // yet and a filter is asked for more state.
        let timer = unsafe { Timer::attach::<E, T>(self.raw, timed)? };
        field!(self, kn_ptr.p_v) = timer.as_ptr().cast();
        Ok(())
    }

    /// In f_attach: makes it a watcher of the group of its ident, in the kqueues of the same
    /// file table. The first watcher makes the group, which keeps `shared`, and is charged.
    /// `join` is run with the group's mutex held; if it refuses, nothing has happened.
    /// Sleeps. ENOMEM over a limit.
    pub fn attach_watcher<T: Copy + 'static>(
        &mut self,
        offer: Offer,
        shared: T,
        join: impl FnOnce(&Member<'_>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        // SAFETY: f_attach, in which the knote is on no list.
        let watcher = unsafe { Watcher::attach(self.raw, offer, shared, join)? };
        field!(self, kn_ptr.p_v) = watcher.as_ptr().wrapping_byte_add(WATCHER).cast();
        Ok(())
    }

    /// In f_detach: takes it out of its group, then runs `last` with the group's mutex held.
    /// The group goes with its last watcher. Sleeps.
    pub fn detach_watcher(&mut self, last: impl FnOnce(&Member<'_>)) {
        if let Some(watcher) = self.watcher() {
            // SAFETY: from `attach_watcher`, and this is f_detach.
            unsafe { Watcher::detach(watcher, last) };
            field!(self, kn_ptr.p_v) = core::ptr::null_mut();
        }
    }

    /// Whether it is disabled. Stable in f_touch, and in f_event.
    pub fn disabled(&self) -> bool {
        field!(self, kn_status) as u32 & sys::KN_DISABLED != 0
    }

    /// In f_detach: takes its timer away, if it has one, once no callout can run any
    /// more, and gives the charge back. Sleeps. The knote is on no list then.
    pub fn detach(&mut self) {
        let Some(timer) = self.timer() else {
            field!(self, kn_status) |= sys::KN_DETACHED as i32;
            return;
        };
        let timer = NonNull::from(timer);
        // SAFETY: put there by `attach_timer`, and this is f_detach. A callout that is running
        // still finds the timer in the knote.
        unsafe { Timer::detach(timer) };
        field!(self, kn_ptr.p_v) = core::ptr::null_mut();
    }
}
