// SPDX-License-Identifier: BSD-2-Clause

//! Groups: registrations that share one state, and wake each other.
//!
//! All registrations of one ident, in the kqueues of one file table, are the *watchers* of a
//! group. The group has a mutex, a charge, and what the filter keeps for all of them. A
//! watcher has a knlist of one, so that knote(9) asks it and no other: waking a watcher costs
//! the same however many there are.
//!
//! ```text
//!                    offered, and kqueue saw it
//!      ┌──────────────────────────────────────────────▶ away: due, disabled, or new
//!   waiting ◀───────────────────────────────────────────┘    ready for more
//!      │  ▲
//!      ▼  │ offered again, a little later, or asked by kqueue meanwhile
//!    missed: offered while its knote was in flux
//! ```
//!
//! The watcher that has waited longest is the first in the line ([`line`]). knote(9) skips a knote in
//! flux, which it is while kern.proc.kq is read. A watcher that was missed so gets another
//! offer from taskqueue(9), at growing intervals: nobody else's work, and no work for watchers
//! that were not missed.
//!
//! A file table is told by its address, so a group holds the table's memory. Knotes can
//! outlive their table: two kqueues that watch each other are never closed at exit.
//!
//! Locks: the [`table`] of groups has a mutex that guards who refers to a group, and is never
//! held with another. A group's mutex comes before the kqueue's lock.

mod line;
mod table;

use core::any::TypeId;
use core::cell::{Cell, UnsafeCell};
use core::ffi::{c_int, c_void};
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering::Relaxed;

use freebsd_kernel_sys as sys;

use kqx::errno::Errno;
use kqx_filters::Words;
use kqx_filters::time::nstosbt;

use super::knote::{Active, Attached, Attaching, Changing, Delivering, Detaching, Knote};
use super::mutex::Mtx;
use super::stats::{Stat, counter_u64_add};
use super::sysctl::watcher_max;
use super::timer::{FROM_KNOTE, RETRY_MAX, another_filters, backoff};
use super::uidinfo::Charge;
use super::uma::{Item, Zone};
use line::{Lines, Links};
use table::{GroupRef, Listed, Name};

/// The most that a filter may keep for all watchers, in bytes.
const SHARED_MAX: usize = 64;

/// The zone sets up the mutex and the task, which last as long as the memory.
#[repr(C)]
pub(super) struct Group {
    mtx: Mtx,
    retry: UnsafeCell<sys::timeout_task>,
    body: Body,
}

/// What a group has from `obtain` on, until its last reference is dropped.
pub(super) struct Body {
    listed: Listed,
    _fdp: Fdhold,
    _charge: Charge,
    /// How many watchers there are. Under the mutex, as all that follows.
    watchers: Cell<u32>,
    lines: Lines,
    /// How often in a row some watcher was missed.
    tries: Cell<u8>,
    /// The task was scheduled: it is to be drained.
    retried: Cell<bool>,
    offer: Offer,
    /// The type of what `shared` holds.
    kind: TypeId,
    shared: Cell<[MaybeUninit<u64>; SHARED_MAX / 8]>,
}

impl Deref for Group {
    type Target = Body;

    fn deref(&self) -> &Body {
        &self.body
    }
}

/// The memory of a table of descriptors, held until this is dropped.
struct Fdhold(*mut sys::filedesc);

impl Fdhold {
    /// Of the table that the knote's kqueue is in.
    fn of(kn: &Knote<'_, Attaching>) -> Fdhold {
        // SAFETY: the knote's kqueue is not closed in f_attach, so its table is there.
        unsafe {
            let fdp = sys::kqx_kq_fdp(kn.raw.as_ptr());
            sys::kqx_fdhold(fdp);
            Fdhold(fdp)
        }
    }
}

impl Drop for Fdhold {
    fn drop(&mut self) {
        // SAFETY: `of` has held the memory.
        unsafe { sys::kqx_fddrop(self.0) };
    }
}

/// Gives a watcher what is there for the watcher. False if the watcher has no use for that.
pub type Offer = fn(&Member<'_, Offered>) -> bool;

/// Of a [`Member`]: another watcher, or the group's task, makes an offer.
pub struct Offered;

/// Of a [`Member`]: the callback may make offers.
pub struct Offering;

/// The callbacks that may offer what is there to other watchers: knote(9) takes the kqueues'
/// locks, and in f_event kqueue may have such a lock already.
///
/// # Safety
/// The thread has no kqueue's lock in such a callback.
pub unsafe trait Offers {}
// SAFETY: f_attach has no lock but the group's mutex.
unsafe impl Offers for Attached {}
// SAFETY: f_touch has no lock but the list's mutex, which is the group's.
unsafe impl Offers for Changing {}
// SAFETY: as for `Changing`.
unsafe impl Offers for Delivering {}
// SAFETY: f_detach has no lock but the group's mutex.
unsafe impl Offers for Detaching {}

/// A registration of a group.
pub(super) struct Watcher {
    /// Of one knote, with the group's mutex.
    knlist: UnsafeCell<MaybeUninit<sys::knlist>>,
    knote: NonNull<sys::knote>,
    group: GroupRef,
    /// The filter's state. Under the group's mutex, as all that follows.
    words: Cell<Words>,
    links: Links,
    /// f_event has been called since knote(9) last was.
    seen: Cell<bool>,
}

static GROUPS: Zone<Group> = Zone::new();
static WATCHERS: Zone<Watcher> = Zone::new();

/// At MOD_LOAD, before any registration. ENOMEM where the kernel has no memory.
pub(super) fn init() -> Result<(), Errno> {
    table::init();
    // SAFETY: the functions do what uma(9) expects of an init and a fini; a watcher needs
    // none.
    unsafe {
        WATCHERS.uma_zcreate(c"kqx watcher", None, None)?;
        GROUPS.uma_zcreate(c"kqx group", Some(group_init), Some(group_fini))
    }
}

/// At MOD_UNLOAD, when no registration is left.
pub(super) fn destroy() {
    if WATCHERS.exists() {
        WATCHERS.uma_zdestroy();
        GROUPS.uma_zdestroy();
        table::destroy();
    }
}

/// Sets up what lasts as long as the memory.
///
/// # Safety
/// For uma(9) alone: `memory` is a group's, and nobody else's.
unsafe extern "C" fn group_init(memory: *mut c_void, _size: c_int, _flags: c_int) -> c_int {
    let group = memory.cast::<Group>();
    // SAFETY: fresh memory. The task's argument is the group, which outlives it.
    unsafe {
        (*group).mtx.mtx_init(c"kqx group");
        let task = UnsafeCell::raw_get(&raw const (*group).retry);
        sys::kqx_timeout_task_init(task, Some(retry), memory);
    }
    0
}

/// Takes down what `group_init` set up.
///
/// # Safety
/// For uma(9) alone: `memory` is a group that was freed, if it was ever allocated.
unsafe extern "C" fn group_fini(memory: *mut c_void, _size: c_int) {
    // SAFETY: set up by `group_init`; free, so its task is drained and its mutex not held.
    unsafe { (*memory.cast::<Group>()).mtx.mtx_destroy() };
}

impl Group {
    /// The group of the knote's name, found, or made with what the filter keeps for all watchers
    /// and charged. May sleep. ENOMEM over a limit.
    fn obtain<T: Copy + Send + 'static>(
        kn: &Knote<'_, Attaching>,
        offer: Offer,
        shared: T,
    ) -> Result<GroupRef, Errno> {
        const { assert!(size_of::<T>() <= SHARED_MAX && align_of::<T>() <= 8) };
        let name = Name::of(kn);
        if let Some(group) = GroupRef::find(name) {
            return Ok(group);
        }
        let charge = match Charge::new() {
            Ok(charge) => charge,
            // Another thread's may be there by now, which costs nothing.
            Err(errno) => return GroupRef::find(name).ok_or(errno),
        };
        let body = Body {
            listed: Listed::new(name),
            _fdp: Fdhold::of(kn),
            _charge: charge,
            watchers: Cell::new(0),
            lines: Lines::new(),
            tries: Cell::new(0),
            retried: Cell::new(false),
            offer,
            kind: TypeId::of::<T>(),
            shared: Cell::new([MaybeUninit::uninit(); SHARED_MAX / 8]),
        };
        let new = GROUPS.uma_zalloc()?;
        // SAFETY: memory of a group, this thread's alone, of which `group_init` has set up all
        // but the body. A T fits into `shared`.
        let new = unsafe {
            (&raw mut (*new.as_ptr()).body).write(body);
            new.as_ref().shared.as_ptr().cast::<T>().write(shared);
            Item::from_raw(&GROUPS, new)
        };
        Ok(GroupRef::find_or_insert(new))
    }

    /// Schedules the task, `after` ns from now.
    fn retry_after(&self, after: u64) {
        // SAFETY: `group_init` set the task up. `end_retries` waits for the task before the group
        // goes; meanwhile, this does nothing.
        unsafe { sys::kqx_taskqueue_enqueue_timeout_sbt(self.retry.get(), nstosbt(after)) };
    }

    /// Waits for the task. When no watcher is left, with no lock held.
    fn end_retries(&self) {
        if self.retried.get() {
            // SAFETY: `group_init` set the task up, and no watcher is left to schedule the task.
            unsafe { sys::kqx_taskqueue_drain_timeout(self.retry.get()) };
        }
    }

    /// Offers what is there to the watchers that wait; see `Member::offer`. What an offer changes
    /// is kept if kqueue takes notice, and taken back if the knote is in flux. With the mutex
    /// held.
    fn offer(&self) {
        while let Some(first) = self.lines.first() {
            // SAFETY: what is in the line is there, and stays while the mutex is held.
            let member = unsafe { Member::new(first) };
            let before = (member.words(), self.shared.get());
            if !(self.offer)(&member) {
                return;
            }
            member.leave_line();
            if !member.knote() {
                member.set_words(before.0);
                self.shared.set(before.1);
                member.miss();
            }
        }
    }
}

/// A watcher whose group's mutex this thread has. `P` says in which callback.
pub struct Member<'k, P> {
    watcher: &'k Watcher,
    group: &'k Group,
    callback: PhantomData<P>,
}

impl Watcher {
    /// Makes the knote's registration a watcher, of the group that is there or of a new one,
    /// which is charged and keeps `shared`. `join` is run with the group's mutex held; if it
    /// refuses, nothing has happened. May sleep. ENOMEM over a limit.
    ///
    /// # Safety
    /// The knote is attached to nothing else, and goes to `detach` in the end.
    pub(super) unsafe fn attach<T: Copy + Send + 'static>(
        kn: &Knote<'_, Attaching>,
        offer: Offer,
        shared: T,
        join: impl FnOnce(&Member<'_, Attached>) -> Result<(), Errno>,
    ) -> Result<NonNull<Watcher>, Errno> {
        let group = Group::obtain(kn, offer, shared)?;
        let watcher = WATCHERS.item(Watcher {
            knlist: UnsafeCell::new(MaybeUninit::uninit()),
            knote: kn.raw,
            group,
            words: Cell::new(Words::default()),
            links: Links::new(),
            seen: Cell::new(false),
        })?;
        let (kn, knlist) = (kn.raw.as_ptr(), watcher.knlist());
        // SAFETY: nobody else knows the list yet. The watcher's reference keeps the mutex.
        unsafe {
            sys::knlist_init_mtx(knlist, watcher.group.mtx.as_ptr());
            (*knlist).kl_list.slh_first = kn;
        }
        watcher.locked(|member| member.enter(join))?;
        // SAFETY: in flux without KN_SCAN, so knote(9) passes the knote by: it is this thread's
        // to change.
        unsafe {
            (*kn).kn_selnext.sle_next = null_mut();
            (*kn).kn_knlist = knlist;
            (*kn).kn_status &= !(sys::KN_DETACHED as c_int);
        }
        Ok(watcher.into_raw())
    }

    /// Takes the watcher out of its group, then runs `last` with the group's mutex held, and
    /// frees both, the group with its last watcher. Sleeps.
    ///
    /// # Safety
    /// `at` is from `attach`, and this is f_detach of its knote: nobody knows it after this.
    pub(super) unsafe fn detach(at: NonNull<Watcher>, last: impl FnOnce(&Member<'_, Detaching>)) {
        // SAFETY: the caller's promise; the watcher leaves its line first.
        let watcher = unsafe { Item::from_raw(&WATCHERS, at) };
        watcher.locked(|member| {
            member.leave_line();
            member.group.watchers.set(member.group.watchers.get() - 1);
            last(member);
            // Whatever `last` has done: the watcher goes.
            member.leave_line();
        });
        let (kn, knlist) = (watcher.knote.as_ptr(), watcher.knlist());
        // SAFETY: the knote is in flux for good, and no line leads to the watcher any more.
        unsafe {
            (*kn).kn_knlist = null_mut();
            (*knlist).kl_list.slh_first = null_mut();
            sys::knlist_destroy(knlist);
        }
    }

    fn knlist(&self) -> *mut sys::knlist {
        self.knlist.get().cast()
    }

    /// Runs `body` with the group's mutex. In f_attach and f_detach, in which kqueue does not
    /// have the mutex, and the thread has no lock that comes after it.
    fn locked<P, R>(&self, body: impl FnOnce(&Member<'_, P>) -> R) -> R {
        let _held = self.group.mtx.mtx_lock();
        body(&Member {
            watcher: self,
            group: &self.group,
            callback: PhantomData,
        })
    }
}

impl<'k, P> Member<'k, P> {
    /// # Safety
    /// This thread has the mutex of the watcher's group as long as this lives, and `P` is
    /// the callback.
    pub(super) unsafe fn new(watcher: NonNull<Watcher>) -> Self {
        // SAFETY: the caller's promise.
        let watcher: &'k Watcher = unsafe { watcher.as_ref() };
        Member {
            watcher,
            group: &watcher.group,
            callback: PhantomData,
        }
    }

    /// The filter's state of this watcher.
    pub fn words(&self) -> Words {
        self.watcher.words.get()
    }

    /// Sets the filter's state of this watcher.
    pub fn set_words(&self, words: Words) {
        self.watcher.words.set(words);
    }

    /// The state that the filter keeps for all watchers. Panics if the group was made with
    /// another type.
    pub fn shared<T: Copy + Send + 'static>(&self) -> &Cell<T> {
        if self.group.kind != TypeId::of::<T>() {
            another_filters();
        }
        // SAFETY: `Group::obtain` wrote a T there, and a Cell<T> is laid out like a T. This
        // thread has the mutex.
        unsafe { &*self.group.shared.as_ptr().cast::<Cell<T>>() }
    }

    /// How many watchers the group has.
    pub fn watchers(&self) -> u32 {
        self.group.watchers.get()
    }

    /// A refused watcher is in no line.
    fn enter(&self, join: impl FnOnce(&Self) -> Result<(), Errno>) -> Result<(), Errno> {
        let group = self.group;
        if group.watchers.get() >= watcher_max().load(Relaxed) {
            counter_u64_add(Stat::Refused, 1);
            return Err(Errno::ENOMEM);
        }
        // The watchers that it wakes count it too.
        group.watchers.set(group.watchers.get() + 1);
        join(self).inspect_err(|_| {
            self.leave_line();
            group.watchers.set(group.watchers.get() - 1);
        })
    }

    /// The same watcher, of which all callbacks that may make offers have the same type.
    pub fn offering(&self) -> Member<'k, Offering>
    where
        P: Offers,
    {
        Member {
            watcher: self.watcher,
            group: self.group,
            callback: PhantomData,
        }
    }

    /// knote(9): has kqueue ask whether the watcher is due. False if the knote is in flux.
    fn knote(&self) -> bool {
        self.watcher.seen.set(false);
        // SAFETY: the list's mutex is held, the kqueue's lock is not.
        unsafe {
            sys::knote(
                self.watcher.knlist(),
                FROM_KNOTE,
                sys::KNF_LISTLOCKED as c_int,
            )
        };
        self.watcher.seen.get()
    }

    /// The watcher gets another offer a little later.
    fn miss(&self) {
        let group = self.group;
        if !group.lines.has_missed() {
            group.retried.set(true);
            group.retry_after(backoff(&group.tries));
        }
        self.join_missed();
    }
}

impl Member<'_, Offering> {
    /// Offers what is there to the watchers that wait, the longest first, until a watcher has
    /// no use for it.
    pub fn offer(&self) {
        self.group.offer();
    }
}

impl Member<'_, Active> {
    /// kqueue calls f_event.
    pub(super) fn see(&self) {
        self.watcher.seen.set(true);
    }
}

/// The task: the watchers that were missed are the first in the line again, and get an
/// offer.
///
/// # Safety
/// For taskqueue(9) alone, not after taskqueue_drain_timeout: `argument` is the group.
unsafe extern "C" fn retry(argument: *mut c_void, _pending: c_int) {
    // SAFETY: the group outlives its task; it is shared, all that changes is in cells.
    let group = unsafe { &*argument.cast::<Group>() };
    // The timeout of a timeout task is a callout.
    counter_u64_add(Stat::Callouts, 1);
    let Some(_held) = group.mtx.mtx_trylock() else {
        // The thread that has it may be waking thousands, and this one is the kernel's own:
        // others' tasks would wait too.
        return group.retry_after(RETRY_MAX);
    };
    group.lines.wait_again();
    group.offer();
    if !group.lines.has_missed() {
        group.tries.set(0);
    }
}
