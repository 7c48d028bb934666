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
//! The watcher that has waited longest is the first in the line. knote(9) skips a knote in
//! flux, which it is while kern.proc.kq is read. A watcher that was missed so gets another
//! offer from taskqueue(9), at growing intervals: nobody else's work, and no work for watchers
//! that were not missed.
//!
//! A file table is told by its address, so a group holds the table's memory. Knotes can
//! outlive their table: two kqueues that watch each other are never closed at exit.
//!
//! Locks: the table of groups has a mutex that guards who refers to a group, and is never
//! held with another. A group's mutex comes before the kqueue's lock.

use core::any::TypeId;
use core::cell::{Cell, UnsafeCell};
use core::ffi::{c_int, c_void};
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use freebsd_kernel_sys as sys;

use kqx::errno::Errno;
use kqx_filters::Words;
use kqx_filters::time::nstosbt;

use super::knote::{Active, Attached, Changing, Delivering, Detaching};
use super::mutex::Guarded;
use super::stats::{Stat, counter_u64_add};
use super::timer::{FROM_KNOTE, RETRY_MAX, another_filters, backoff};
use super::uidinfo::Charge;
use super::uma::Zone;

/// How many lists the groups are spread over.
const CHAINS: usize = 4096;

/// The most that a filter may keep for all watchers, in bytes.
const SHARED_MAX: usize = 64;

/// What registrations have in common that share a group.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    /// The table of descriptors that the kqueue is in.
    fdp: *mut sys::filedesc,
    ident: usize,
}

impl Name {
    /// # Safety
    /// `kn` is attached to a kqueue.
    unsafe fn of(kn: NonNull<sys::knote>) -> Name {
        // SAFETY: a knote's kqueue and ident do not change.
        unsafe {
            Name {
                fdp: sys::kqx_kq_fdp(kn.as_ptr()),
                ident: (*kn.as_ptr()).kn_kevent.ident as usize,
            }
        }
    }

    /// Which chain it is on. Nobody can choose idents that share a chain: `SALT` is a secret.
    fn chain(self) -> usize {
        let salt = SALT.load(Relaxed);
        let mixed = (self.fdp as usize ^ self.ident ^ salt).wrapping_mul(salt | 1);
        (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - CHAINS.ilog2())
    }
}

/// The mutex and the task are set up by the zone and last as long as the memory.
#[repr(C)]
pub(super) struct Group {
    mtx: UnsafeCell<sys::mtx>,
    retry: UnsafeCell<sys::timeout_task>,
    name: Name,
    /// How many watchers have joined or are about to. Under the table's mutex.
    refs: Cell<u32>,
    /// The next of its chain. Under the table's mutex.
    next: Cell<*mut Group>,
    charge: Charge,
    /// How many watchers there are. Under the mutex, as all that follows.
    watchers: Cell<u32>,
    line: Line,
    missed: Line,
    /// How often in a row some watcher was missed.
    tries: Cell<u32>,
    /// The task was scheduled: it is to be drained.
    retried: Cell<bool>,
    offer: Offer,
    /// The type of what `shared` holds.
    kind: TypeId,
    shared: UnsafeCell<MaybeUninit<[u64; SHARED_MAX / 8]>>,
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

/// Watchers in order, linked through themselves.
struct Line {
    first: Cell<*mut Watcher>,
    last: Cell<*mut Watcher>,
}

/// In which line a watcher is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Away,
    Waiting,
    Missed,
}

/// A registration of a group.
pub(super) struct Watcher {
    /// Of one knote, with the group's mutex.
    knlist: UnsafeCell<sys::knlist>,
    knote: NonNull<sys::knote>,
    group: NonNull<Group>,
    /// The filter's state. Under the group's mutex, as all that follows.
    words: Cell<Words>,
    place: Cell<Place>,
    prev: Cell<*mut Watcher>,
    next: Cell<*mut Watcher>,
    /// f_event has been called since knote(9) last was.
    seen: Cell<bool>,
}

impl Line {
    const fn new() -> Line {
        Line {
            first: Cell::new(null_mut()),
            last: Cell::new(null_mut()),
        }
    }

    /// Puts a watcher that is in no line between two neighbours of this line, or its ends.
    ///
    /// # Safety
    /// The group's mutex is held; `prev` and `next` are neighbours here; `at` is valid.
    unsafe fn insert(&self, at: NonNull<Watcher>, prev: *mut Watcher, next: *mut Watcher) {
        // SAFETY: the caller's promise; what is in a line is valid.
        unsafe {
            at.as_ref().prev.set(prev);
            at.as_ref().next.set(next);
            match prev.as_ref() {
                Some(prev) => prev.next.set(at.as_ptr()),
                None => self.first.set(at.as_ptr()),
            }
            match next.as_ref() {
                Some(next) => next.prev.set(at.as_ptr()),
                None => self.last.set(at.as_ptr()),
            }
        }
    }

    /// Takes out a watcher.
    ///
    /// # Safety
    /// The group's mutex is held; `at` is in this line.
    unsafe fn remove(&self, at: NonNull<Watcher>) {
        // SAFETY: the caller's promise; what is in a line is valid.
        unsafe {
            let (prev, next) = (at.as_ref().prev.get(), at.as_ref().next.get());
            match prev.as_ref() {
                Some(prev) => prev.next.set(next),
                None => self.first.set(next),
            }
            match next.as_ref() {
                Some(next) => next.prev.set(prev),
                None => self.last.set(prev),
            }
        }
    }
}

/// Drawn at each load.
static SALT: AtomicUsize = AtomicUsize::new(0);

static GROUPS: Zone<Group> = Zone::new();
static WATCHERS: Zone<Watcher> = Zone::new();

/// The groups.
struct Table([Cell<*mut Group>; CHAINS]);

// SAFETY: a group belongs to no thread.
unsafe impl Send for Table {}

static TABLE: Guarded<Table> = Guarded::new(Table([const { Cell::new(null_mut()) }; CHAINS]));

/// `kern.kqx.watcher_max`.
fn watcher_max() -> u32 {
    // SAFETY: a C variable of the shim, written by the sysctl handler one word at a time.
    unsafe { AtomicU32::from_ptr(&raw mut sys::kqx_watcher_max) }.load(Relaxed)
}

/// At MOD_LOAD, before any registration. ENOMEM where the kernel has no memory.
pub(super) fn init() -> Result<(), Errno> {
    // SAFETY: takes no argument.
    let [low, high] = unsafe { [sys::arc4random(), sys::arc4random()] };
    SALT.store((high as usize) << 32 | low as usize, Relaxed);
    TABLE.mtx_init(c"kqx groups");
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
        TABLE.mtx_destroy();
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
        sys::kqx_mtx_init(
            UnsafeCell::raw_get(&raw const (*group).mtx),
            c"kqx group".as_ptr(),
        );
        sys::kqx_timeout_task_init(
            UnsafeCell::raw_get(&raw const (*group).retry),
            Some(retry),
            memory,
        );
    }
    0
}

/// Takes down what `group_init` set up.
///
/// # Safety
/// For uma(9) alone: `memory` is a group that was freed, if it was ever allocated.
unsafe extern "C" fn group_fini(memory: *mut c_void, _size: c_int) {
    let group = memory.cast::<Group>();
    // SAFETY: set up by `group_init`; free, so its task is drained and its mutex not held.
    unsafe { sys::kqx_mtx_destroy(UnsafeCell::raw_get(&raw const (*group).mtx)) };
}

impl Table {
    /// The group of that name, with one reference more.
    fn find(&self, name: Name) -> Option<NonNull<Group>> {
        let mut next = self.0[name.chain()].get();
        while let Some(at) = NonNull::new(next) {
            // SAFETY: a group is on its chain as long as a watcher refers to it.
            let group = unsafe { at.as_ref() };
            if group.name == name {
                group.refs.set(group.refs.get() + 1);
                return Some(at);
            }
            next = group.next.get();
        }
        None
    }

    /// Puts a new group on its chain, with one reference.
    fn insert(&self, at: NonNull<Group>) {
        // SAFETY: nobody else knows it yet.
        let group = unsafe { at.as_ref() };
        let chain = &self.0[group.name.chain()];
        group.refs.set(1);
        // SAFETY: the caller's knote is in a kqueue of that table, which is not closed.
        unsafe { sys::kqx_fdhold(group.name.fdp) };
        group.next.set(chain.replace(at.as_ptr()));
    }

    /// Takes back a reference. True for the last: nobody can find the group any more.
    fn drop_reference(&self, at: NonNull<Group>) -> bool {
        // SAFETY: the caller's reference keeps it.
        let group = unsafe { at.as_ref() };
        group.refs.set(group.refs.get() - 1);
        if group.refs.get() > 0 {
            return false;
        }
        let mut link = &self.0[group.name.chain()];
        while link.get() != at.as_ptr() {
            // SAFETY: a group that is referred to is on its chain, so it comes before the
            // chain's end.
            link = unsafe { &(*link.get()).next };
        }
        link.set(group.next.get());
        true
    }
}

impl Group {
    /// The group of that name with one reference more, found, or made with what the filter
    /// keeps for all watchers and charged. May sleep. ENOMEM over a limit.
    fn obtain<T: Copy + Send + 'static>(
        name: Name,
        offer: Offer,
        shared: T,
    ) -> Result<NonNull<Group>, Errno> {
        const { assert!(size_of::<T>() <= SHARED_MAX && align_of::<T>() <= 8) };
        if let Some(group) = TABLE.with(|table| table.find(name)) {
            return Ok(group);
        }
        let charge = match Charge::new() {
            Ok(charge) => charge,
            // Another thread's may be there by now, which costs nothing.
            Err(errno) => return TABLE.with(|table| table.find(name)).ok_or(errno),
        };
        let new = GROUPS.uma_zalloc()?;
        let raw = new.as_ptr();
        // SAFETY: memory of a group, this thread's alone, of which `group_init` has set up
        // the first two fields.
        unsafe {
            (&raw mut (*raw).name).write(name);
            (&raw mut (*raw).refs).write(Cell::new(0));
            (&raw mut (*raw).next).write(Cell::new(null_mut()));
            (&raw mut (*raw).charge).write(charge);
            (&raw mut (*raw).watchers).write(Cell::new(0));
            (&raw mut (*raw).line).write(Line::new());
            (&raw mut (*raw).missed).write(Line::new());
            (&raw mut (*raw).tries).write(Cell::new(0));
            (&raw mut (*raw).retried).write(Cell::new(false));
            (&raw mut (*raw).offer).write(offer);
            (&raw mut (*raw).kind).write(TypeId::of::<T>());
            UnsafeCell::raw_get(&raw const (*raw).shared)
                .cast::<T>()
                .write(shared);
        }
        let found = TABLE.with(|table| {
            let found = table.find(name);
            if found.is_none() {
                table.insert(new);
            }
            found
        });
        if found.is_some() {
            // SAFETY: another thread's was there first; nobody knows this group.
            unsafe { Group::free(new) };
        }
        Ok(found.unwrap_or(new))
    }

    /// # Safety
    /// `at` is from `obtain`, without watchers, its task idle, and nobody else knows it.
    unsafe fn free(at: NonNull<Group>) {
        // SAFETY: the caller's promise; the charge is taken out before the memory is given
        // back.
        unsafe {
            drop((&raw const (*at.as_ptr()).charge).read());
            GROUPS.uma_zfree(at);
        }
    }

    /// Takes back a reference; frees the group with the last. Sleeps.
    fn drop_reference(at: NonNull<Group>) {
        if TABLE.with(|table| table.drop_reference(at)) {
            // SAFETY: nobody can find it any more, and all who had have left, so nobody
            // schedules the task; `insert` has held the table of descriptors.
            unsafe {
                let fdp = at.as_ref().name.fdp;
                if at.as_ref().retried.get() {
                    sys::kqx_taskqueue_drain_timeout(at.as_ref().retry.get());
                }
                Group::free(at);
                sys::kqx_fddrop(fdp);
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

/// A group's mutex, held until this is dropped.
struct Held<'a>(&'a Group);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SAFETY: `Watcher::lock` took the mutex, in this thread: a `Held` is not Send.
        unsafe { sys::kqx_mtx_unlock(self.0.mtx.get()) };
    }
}

impl Watcher {
    /// Makes the knote's registration a watcher, of the group that is there or of a new one,
    /// which is charged and keeps `shared`. `join` is run with the group's mutex held; if it
    /// refuses, nothing has happened. May sleep. ENOMEM over a limit.
    ///
    /// # Safety
    /// This is f_attach of `kn`, which is on no list.
    pub(super) unsafe fn attach<T: Copy + Send + 'static>(
        kn: NonNull<sys::knote>,
        offer: Offer,
        shared: T,
        join: impl FnOnce(&Member<'_, Attached>) -> Result<(), Errno>,
    ) -> Result<NonNull<Watcher>, Errno> {
        // SAFETY: f_attach: the knote has its kqueue.
        let name = unsafe { Name::of(kn) };
        let new = WATCHERS.uma_zalloc()?;
        let group = Group::obtain(name, offer, shared).inspect_err(|_| {
            // SAFETY: just allocated.
            unsafe { Watcher::free(new) }
        })?;
        let raw = new.as_ptr();
        // SAFETY: memory of a watcher, this thread's alone; the reference keeps the group,
        // whose mutex outlives the list.
        unsafe {
            let knlist = UnsafeCell::raw_get(&raw const (*raw).knlist);
            sys::knlist_init_mtx(knlist, group.as_ref().mtx.get());
            (*knlist).kl_list.slh_first = kn.as_ptr();
            (&raw mut (*raw).knote).write(kn);
            (&raw mut (*raw).group).write(group);
            (&raw mut (*raw).words).write(Cell::new(Words::default()));
            (&raw mut (*raw).place).write(Cell::new(Place::Away));
            (&raw mut (*raw).prev).write(Cell::new(null_mut()));
            (&raw mut (*raw).next).write(Cell::new(null_mut()));
            (&raw mut (*raw).seen).write(Cell::new(false));
        }
        // SAFETY: set up above, and freed here alone before it is returned.
        let watcher = unsafe { new.as_ref() };
        let joined = {
            let _held = watcher.lock();
            // SAFETY: the mutex is held.
            unsafe { Member::new(new) }.enter(join)
        };
        match joined {
            Ok(()) => {
                // SAFETY: in flux without KN_SCAN, so knote(9) passes the knote by: it is this
                // thread's to change.
                unsafe {
                    (*kn.as_ptr()).kn_selnext.sle_next = null_mut();
                    (*kn.as_ptr()).kn_knlist = watcher.knlist.get();
                    (*kn.as_ptr()).kn_status &= !(sys::KN_DETACHED as c_int);
                }
                Ok(new)
            }
            Err(errno) => {
                // SAFETY: it has not joined, so nobody else knows it.
                unsafe { Watcher::free(new) };
                Group::drop_reference(group);
                Err(errno)
            }
        }
    }

    /// Takes the watcher out of its group, then runs `last` with the group's mutex held, and
    /// frees both, the group with its last watcher. Sleeps.
    ///
    /// # Safety
    /// `at` is from `attach`, and this is f_detach of its knote: nobody knows it after this.
    pub(super) unsafe fn detach(at: NonNull<Watcher>, last: impl FnOnce(&Member<'_, Detaching>)) {
        // SAFETY: the caller's promise.
        let watcher = unsafe { at.as_ref() };
        let group = watcher.group;
        {
            let _held = watcher.lock();
            // SAFETY: the mutex is held.
            let member = unsafe { Member::new(at) };
            member.leave_line();
            member.group.watchers.set(member.group.watchers.get() - 1);
            last(&member);
            // Whatever `last` has done: the watcher goes.
            member.leave_line();
        }
        // SAFETY: the knote is in flux for good, and no line leads to the watcher any more.
        unsafe {
            let kn = watcher.knote.as_ptr();
            (*kn).kn_knlist = null_mut();
            (*watcher.knlist.get()).kl_list.slh_first = null_mut();
            sys::knlist_destroy(watcher.knlist.get());
            Watcher::free(at);
        }
        Group::drop_reference(group);
    }

    /// # Safety
    /// `at` is from the zone, and nobody else knows it.
    unsafe fn free(at: NonNull<Watcher>) {
        // SAFETY: the caller's promise.
        unsafe { WATCHERS.uma_zfree(at) };
    }

    /// The group's mutex. In f_attach and f_detach, in which kqueue does not have the mutex.
    fn lock(&self) -> Held<'_> {
        // SAFETY: a watcher has a reference to its group.
        let group = unsafe { self.group.as_ref() };
        // SAFETY: the zone set the mutex up. f_attach and f_detach hold nothing that comes
        // after the mutex.
        unsafe { sys::kqx_mtx_lock(group.mtx.get()) };
        Held(group)
    }
}

impl<'k, P> Member<'k, P> {
    /// # Safety
    /// This thread has the mutex of the watcher's group as long as this lives, and `P` is
    /// the callback.
    pub(super) unsafe fn new(watcher: NonNull<Watcher>) -> Self {
        // SAFETY: the caller's promise; a watcher has a reference to its group.
        let watcher: &'k Watcher = unsafe { watcher.as_ref() };
        Member {
            watcher,
            // SAFETY: as above.
            group: unsafe { watcher.group.as_ref() },
            callback: PhantomData,
        }
    }

    fn at(&self) -> NonNull<Watcher> {
        NonNull::from(self.watcher)
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
        unsafe { &*self.group.shared.get().cast::<Cell<T>>() }
    }

    /// How many watchers the group has.
    pub fn watchers(&self) -> u32 {
        self.group.watchers.get()
    }

    /// A refused watcher is in no line.
    fn enter(&self, join: impl FnOnce(&Self) -> Result<(), Errno>) -> Result<(), Errno> {
        let group = self.group;
        if group.watchers.get() >= watcher_max() {
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

    /// Whether an offer missed this watcher.
    pub fn is_missed(&self) -> bool {
        self.watcher.place.get() == Place::Missed
    }

    /// Puts the watcher at the end of the line, unless it waits already: a watcher that was
    /// missed, back to the front, where it was.
    pub fn wait(&self) {
        let line = &self.group.line;
        let (prev, next) = match self.watcher.place.get() {
            Place::Waiting => return,
            Place::Away => (line.last.get(), null_mut()),
            Place::Missed => (null_mut(), line.first.get()),
        };
        self.leave_line();
        // SAFETY: the mutex is held; in no line.
        unsafe { line.insert(self.at(), prev, next) };
        self.watcher.place.set(Place::Waiting);
    }

    /// Takes the watcher out of the line that it is in.
    pub fn leave_line(&self) {
        let line = match self.watcher.place.replace(Place::Away) {
            Place::Away => return,
            Place::Waiting => &self.group.line,
            Place::Missed => &self.group.missed,
        };
        // SAFETY: the mutex is held; it is in that line.
        unsafe { line.remove(self.at()) };
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
                self.watcher.knlist.get(),
                FROM_KNOTE,
                sys::KNF_LISTLOCKED as c_int,
            );
        }
        self.watcher.seen.get()
    }

    /// The watcher gets another offer a little later.
    fn miss(&self) {
        let group = self.group;
        let missed = &group.missed;
        if missed.first.get().is_null() {
            let delay = nstosbt(backoff(&group.tries));
            group.retried.set(true);
            // SAFETY: `group_init` set it up; `Group::drop_reference` drains it, without the mutex,
            // before the group goes.
            unsafe { sys::kqx_taskqueue_enqueue_timeout_sbt(group.retry.get(), delay) };
        }
        // SAFETY: the mutex is held; in no line.
        unsafe { missed.insert(self.at(), missed.last.get(), null_mut()) };
        self.watcher.place.set(Place::Missed);
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

impl Group {
    /// See `Member::offer`. What an offer changes is kept if kqueue takes notice, and
    /// taken back if the knote is in flux. With the mutex held.
    fn offer(&self) {
        while let Some(first) = NonNull::new(self.line.first.get()) {
            // SAFETY: what is in the line is valid, and stays while the mutex is held.
            let member = unsafe { Member::new(first) };
            let before = (member.words(), self.save());
            if !(self.offer)(&member) {
                return;
            }
            member.leave_line();
            if !member.knote() {
                member.set_words(before.0);
                self.restore(before.1);
                member.miss();
            }
        }
    }

    fn save(&self) -> [MaybeUninit<u64>; SHARED_MAX / 8] {
        // SAFETY: any bytes, read with the mutex held.
        unsafe {
            self.shared
                .get()
                .cast::<[MaybeUninit<u64>; SHARED_MAX / 8]>()
                .read()
        }
    }

    fn restore(&self, shared: [MaybeUninit<u64>; SHARED_MAX / 8]) {
        // SAFETY: what `save` read, written with the mutex held.
        unsafe {
            self.shared
                .get()
                .cast::<[MaybeUninit<u64>; SHARED_MAX / 8]>()
                .write(shared)
        };
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
    // SAFETY: the zone set it up; a task holds no lock.
    if !unsafe { sys::kqx_mtx_trylock(group.mtx.get()) } {
        // The thread that has it may be waking thousands, and this one is the kernel's own:
        // others' tasks would wait too.
        // SAFETY: the group is there while its task runs; while it is drained, this does
        // nothing.
        unsafe {
            sys::kqx_taskqueue_enqueue_timeout_sbt(group.retry.get(), nstosbt(RETRY_MAX));
        }
        return;
    }
    while let Some(last) = NonNull::new(group.missed.last.get()) {
        // SAFETY: the mutex is held; what is in a line is valid.
        unsafe {
            group.missed.remove(last);
            group.line.insert(last, null_mut(), group.line.first.get());
            last.as_ref().place.set(Place::Waiting);
        }
    }
    group.offer();
    if group.missed.first.get().is_null() {
        group.tries.set(0);
    }
    // SAFETY: taken above.
    unsafe { sys::kqx_mtx_unlock(group.mtx.get()) };
}

// Under Miri alone: natively the crate has no kernel to link with.
#[cfg(all(test, miri))]
mod tests {
    use super::*;

    /// A watcher that is in no line, of no group that anybody looks at.
    fn watcher() -> Watcher {
        Watcher {
            // SAFETY: a knlist is integers and pointers, which may be null.
            knlist: UnsafeCell::new(unsafe { MaybeUninit::zeroed().assume_init() }),
            knote: NonNull::dangling(),
            group: NonNull::dangling(),
            words: Cell::new(Words::default()),
            place: Cell::new(Place::Away),
            prev: Cell::new(null_mut()),
            next: Cell::new(null_mut()),
            seen: Cell::new(false),
        }
    }

    #[test]
    fn a_line_keeps_its_order_whoever_leaves() {
        let watchers: [Watcher; 4] = core::array::from_fn(|_| watcher());
        let at = |n: usize| NonNull::from(&watchers[n]);
        let number = |at: *mut Watcher| (0..4).find(|n| core::ptr::eq(at, &watchers[*n]));
        let line = Line::new();
        let order = || {
            let mut found = [None; 4];
            let mut next = line.first.get();
            for place in &mut found {
                *place = number(next);
                // SAFETY: null, or a watcher of the array.
                next = unsafe { next.as_ref() }.map_or(null_mut(), |at| at.next.get());
            }
            found
        };
        // SAFETY: the line is this test's; its watchers are those of the array.
        unsafe {
            for n in 0..3 {
                line.insert(at(n), line.last.get(), null_mut());
            }
            line.insert(at(3), null_mut(), line.first.get());
            assert_eq!(order(), [Some(3), Some(0), Some(1), Some(2)]);
            line.remove(at(0));
            line.remove(at(2));
            assert_eq!(order(), [Some(3), Some(1), None, None]);
            assert_eq!(number(line.last.get()), Some(1));
            line.remove(at(3));
            line.remove(at(1));
        }
        assert_eq!(order(), [None; 4]);
        assert!(line.last.get().is_null());
    }
}
