// SPDX-License-Identifier: BSD-2-Clause

//! Groups: registrations that share one state, and wake each other.
//!
//! All registrations of one ident, in the kqueues of one file table, are the *watchers* of a
//! group. So are all registrations of one word of a pad, in any kqueues of any processes. The
//! group has a mutex, a charge, and what the filter keeps for all of them. A watcher has a knlist
//! of one, so that knote(9) asks it and no other: waking a watcher costs
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
//! The only watcher of a gate may wait on while it is due: nobody is behind it. If others come, an
//! offer gives that watcher nothing more and takes nothing back, and the watcher goes to the end
//! with its delivery.
//!
//! The watcher that has waited longest is the first in the line ([`line`]). knote(9) skips a knote in
//! flux, which it is while kern.proc.kq is read. A watcher that was missed so gets another
//! offer from taskqueue(9), at growing intervals: nobody else's work, and no work for watchers
//! that were not missed. The filter may have the same task make an offer at a time of its own.
//!
//! A file table is told by its address, so a group holds the table's memory. Knotes can
//! outlive their table: two kqueues that watch each other are never closed at exit.
//!
//! Locks: the table of groups has a mutex that guards who refers to a group, and is never held
//! with another. A group's mutex comes before the kqueue's lock, and before that of the accounts.

mod line;

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
use kqx::protocol::KqxWord;
use kqx_filters::time::{Clock, nstosbt};

use super::clock::KernelClock;
use super::knote::{Active, Attached, Attaching, Changing, Delivering, Detaching, Knote};
use super::mutex::{Guarded, Mtx};
use super::pad::{Pad, Word};
use super::stats::{Stat, counter_u64_add};
use super::sysctl::watcher_max;
use super::table::{self, Listed, Name, Named, Ref, Table};
use super::timer::{FROM_KNOTE, another_filters, backoff};
use super::uidinfo::Charge;
use super::uma::{Item, Zone};
use line::{Lines, Links};

/// The most that a filter may keep for all watchers, and for each, in bytes.
const STATE_MAX: usize = 104;

/// A state that the filter keeps.
type State = Cell<[MaybeUninit<u64>; STATE_MAX / 8]>;

/// The most watchers of a word: each kick looks at all that wait.
const WORD_WATCHER_MAX: u32 = 128;

/// How long, in ns, the task waits for the mutex: the thread that has the mutex may be waking
/// thousands, and the task's thread is the kernel's own, so that others' tasks would wait too.
const BUSY: u64 = 1_000_000;

/// The zone sets up the mutex and the task, which last as long as the memory.
#[repr(C)]
pub(super) struct Group {
    mtx: Mtx,
    retry: UnsafeCell<sys::timeout_task>,
    body: Body,
}

/// What a group has from `obtain` on, until its last reference is dropped.
pub(super) struct Body {
    listed: Listed<Group>,
    subject: Subject,
    /// How many watchers there are. Under the mutex, as all that follows.
    watchers: Cell<u32>,
    lines: Lines,
    /// How often in a row some watcher was missed.
    tries: Cell<u8>,
    /// When the task is to run, ns on CLOCK_UPTIME.
    scheduled: Cell<Option<u64>>,
    /// The task was scheduled: it is to be drained.
    retried: Cell<bool>,
    offer: Offer,
    /// The types of what each watcher's `own` and `shared` hold.
    kind: TypeId,
    shared: State,
    /// A callback uses `shared`, or a watcher's `own`.
    lent: Cell<bool>,
}

/// What the watchers of a group watch.
enum Subject {
    /// An ident, in the kqueues of a file table.
    Ident { _fdp: Fdhold, _charge: Charge },
    /// A word of a pad.
    Word(Word),
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

/// Gives the watchers that wait what is there for them.
pub type Offer = fn(&Waiting<'_>);

/// What becomes of a watcher that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The watcher has something now: kqueue is told.
    Wake,
    /// There is nothing for this watcher.
    Pass,
    /// There is nothing for any of them.
    End,
}

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
    group: Ref<Group>,
    /// The filter's state. Under the group's mutex, as all that follows.
    own: State,
    links: Links,
    /// f_event has been called since knote(9) last was.
    seen: Cell<bool>,
    /// f_event is called by knote(9), with the kqueue's lock held.
    from_knote: Cell<bool>,
    /// For a timer, if the filter has asked for that.
    charge: UnsafeCell<Option<Charge>>,
}

static TABLE: Guarded<Table<Group>> = Guarded::new(Table::new());
static GROUPS: Zone<Group> = Zone::new();
static WATCHERS: Zone<Watcher> = Zone::new();

/// At MOD_LOAD, before any registration. ENOMEM where the kernel has no memory.
pub(super) fn init() -> Result<(), Errno> {
    table::draw_secrets();
    TABLE.mtx.mtx_init(c"kqx groups");
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
        TABLE.mtx.mtx_destroy();
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

impl Named for Group {
    fn table() -> &'static Guarded<Table<Self>> {
        &TABLE
    }

    fn zone() -> &'static Zone<Self> {
        &GROUPS
    }

    fn listed(&self) -> &Listed<Self> {
        &self.listed
    }

    /// Waits for the task.
    fn end(&self) {
        if self.retried.get() {
            // SAFETY: `group_init` set the task up, and no watcher is left to schedule the task.
            unsafe { sys::kqx_taskqueue_drain_timeout(self.retry.get()) };
        }
    }
}

/// Stores a T in a state that nobody else uses.
fn store<T: Copy + Send + 'static>(state: &State, value: T) {
    const { assert!(size_of::<T>() <= STATE_MAX && align_of::<T>() <= 8) };
    // SAFETY: a T fits into the state, and no other thread uses the state.
    unsafe { state.as_ptr().cast::<T>().write(value) };
}

/// What a filter has of a watcher that is new, and of its group, if that is new.
pub struct Initial {
    offer: Offer,
    own: State,
    shared: State,
    kind: TypeId,
}

impl Initial {
    /// How the watchers that wait get what is there, the watcher's `own` state, and the state of
    /// all watchers.
    pub fn new<W: Copy + Send + 'static, S: Copy + Send + 'static>(
        offer: Offer,
        own: W,
        shared: S,
    ) -> Initial {
        let initial = Initial {
            offer,
            own: Cell::new([MaybeUninit::uninit(); STATE_MAX / 8]),
            shared: Cell::new([MaybeUninit::uninit(); STATE_MAX / 8]),
            kind: TypeId::of::<(W, S)>(),
        };
        store(&initial.own, own);
        store(&initial.shared, shared);
        initial
    }
}

/// What a new watcher does with the group's mutex held.
pub(super) type Join<'a> = &'a mut dyn FnMut(&Member<'_, Attached>) -> Result<(), Errno>;

impl Group {
    /// The group of that name, found, or made. May sleep. ENOMEM over a limit.
    fn obtain(
        name: Name,
        initial: &Initial,
        subject: impl FnOnce() -> Result<Subject, Errno>,
    ) -> Result<Ref<Group>, Errno> {
        Ref::find_or_make(name, || Group::make(name, initial, subject()?))
    }

    #[inline(never)]
    fn make(name: Name, initial: &Initial, subject: Subject) -> Result<Item<Group>, Errno> {
        let body = Body {
            listed: Listed::new(name),
            subject,
            watchers: Cell::new(0),
            lines: Lines::new(),
            tries: Cell::new(0),
            scheduled: Cell::new(None),
            retried: Cell::new(false),
            offer: initial.offer,
            kind: initial.kind,
            shared: initial.shared.clone(),
            lent: Cell::new(false),
        };
        let new = GROUPS.uma_zalloc()?;
        // SAFETY: memory of a group, this thread's alone, of which `group_init` has set up all
        // but the body.
        Ok(unsafe {
            (&raw mut (*new.as_ptr()).body).write(body);
            Item::from_raw(&GROUPS, new)
        })
    }

    /// Has the task run at `uptime`, ns, unless the task is to run before. With the mutex held.
    fn run_by(&self, uptime: u64, now: u64) {
        if self.scheduled.get().is_some_and(|before| before <= uptime) {
            return;
        }
        self.scheduled.set(Some(uptime));
        self.retried.set(true);
        self.run_after(uptime.saturating_sub(now).max(1));
    }

    /// Lends the states of the group, until the caller sets what this returns to false. Panics if
    /// they are lent already, or are not of that kind.
    #[inline(always)]
    fn lend(&self, kind: TypeId) -> &Cell<bool> {
        if self.kind != kind || self.lent.get() {
            another_filters();
        }
        self.lent.set(true);
        &self.lent
    }

    fn run_soon(&self) {
        let now = KernelClock.uptime();
        self.run_by(now + backoff(&self.tries), now);
    }

    fn word(&self) -> Option<&KqxWord> {
        match &self.subject {
            Subject::Word(word) => Some(word.get()),
            Subject::Ident { .. } => None,
        }
    }

    /// Schedules the task, `after` ns from now.
    fn run_after(&self, after: u64) {
        // SAFETY: `group_init` set the task up. `end` waits for the task before the group goes;
        // meanwhile, this does nothing.
        unsafe { sys::kqx_taskqueue_enqueue_timeout_sbt(self.retry.get(), nstosbt(after)) };
    }
}

/// Somebody counts in a word, and kicks the watchers that wait. In a thread that holds no lock.
pub(super) fn kick(pad: &Pad, line: u32) {
    if let Some(group) = Ref::<Group>::find(pad.name(line as usize)) {
        let _held = group.mtx.mtx_lock();
        (group.offer)(&Waiting(&group));
    }
}

/// The watchers of a group that wait, for a thread that has the group's mutex and no kqueue's
/// lock.
pub struct Waiting<'g>(&'g Group);

impl<'g> Waiting<'g> {
    /// Asks `offer` for each watcher that waits, the longest first, what becomes of it. `undo`
    /// takes back what `offer` has given a watcher whose knote is in flux.
    #[inline(always)]
    pub fn each(
        &self,
        mut offer: impl FnMut(&Member<'_, Offered>) -> Answer,
        undo: impl Fn(&Member<'_, Offered>),
    ) {
        let mut next = self.0.lines.first();
        // A watcher that waits again, behind the others, is not asked again.
        for _ in 0..self.0.watchers.get() {
            let Some(at) = next else { return };
            // SAFETY: what is in the line is there, and stays while the mutex is held.
            let member = unsafe { Member::new(at) };
            next = member.next();
            match offer(&member) {
                Answer::Pass => continue,
                Answer::End => return,
                Answer::Wake => {}
            }
            member.wake(&undo);
        }
    }

    /// The group's only watcher, if it waits.
    #[inline(always)]
    pub fn only(&self) -> Option<Member<'g, Offered>> {
        let first = self.0.lines.first().filter(|_| self.0.watchers.get() == 1);
        // SAFETY: what is in the line is there, and stays while the mutex is held.
        first.map(|at| unsafe { Member::new(at) })
    }

    /// Has the filter make another offer at `uptime`, ns, or before.
    pub fn run_by(&self, uptime: u64) {
        self.0.run_by(uptime, KernelClock.uptime());
    }

    /// Has the filter make another offer a little later, and later each time in a row.
    pub fn run_soon(&self) {
        self.0.run_soon();
    }

    /// Runs `body` with the state that the filter keeps for all watchers, whose own states are
    /// each a W. As for [`Member::with`].
    pub fn with_shared<W: Copy + Send + 'static, S: Copy + Send + 'static, R>(
        &self,
        body: impl FnOnce(&mut S) -> R,
    ) -> R {
        let lent = self.0.lend(TypeId::of::<(W, S)>());
        // SAFETY: `store` wrote an S there. This thread has the mutex, and the one loan.
        let result = body(unsafe { &mut *self.0.shared.as_ptr().cast() });
        lent.set(false);
        result
    }

    /// The word that they watch, if it is a word.
    pub fn word(&self) -> Option<&'g KqxWord> {
        self.0.word()
    }
}

/// A watcher whose group's mutex this thread has. `P` says in which callback.
pub struct Member<'k, P> {
    watcher: &'k Watcher,
    group: &'k Group,
    callback: PhantomData<P>,
}

impl Watcher {
    /// Makes the knote's registration a watcher of its ident, in the kqueues of its file table.
    /// As for [`Watcher::join`].
    ///
    /// # Safety
    /// As for [`Watcher::join`].
    pub(super) unsafe fn attach(
        kn: &Knote<'_, Attaching>,
        initial: &Initial,
        join: Join<'_>,
    ) -> Result<NonNull<Watcher>, Errno> {
        let name = Name {
            // SAFETY: a knote in f_attach has its kqueue.
            owner: unsafe { sys::kqx_kq_fdp(kn.raw.as_ptr()) } as usize,
            index: kn.ident(),
        };
        let group = Group::obtain(name, initial, || {
            Ok(Subject::Ident {
                _charge: Charge::new()?,
                _fdp: Fdhold::of(kn),
            })
        })?;
        // SAFETY: the caller's promise.
        unsafe { Watcher::join(kn, group, initial, None, join) }
    }

    /// Makes the knote's registration a watcher of the word on a line of the pad. As for
    /// [`Watcher::join`]. EINVAL: the pad has no such line.
    ///
    /// # Safety
    /// As for [`Watcher::join`].
    pub(super) unsafe fn attach_word(
        kn: &Knote<'_, Attaching>,
        pad: Pad,
        line: u32,
        initial: &Initial,
        timed: bool,
        join: Join<'_>,
    ) -> Result<NonNull<Watcher>, Errno> {
        let charge = if timed { Some(Charge::new()?) } else { None };
        let name = pad.name(line as usize);
        let group = Group::obtain(name, initial, || Word::obtain(pad, line).map(Subject::Word))?;
        // SAFETY: the caller's promise.
        unsafe { Watcher::join(kn, group, initial, charge, join) }
    }

    /// Makes the knote's registration a watcher of a group. `join` is run with the group's mutex
    /// held; if it refuses, nothing has happened. May sleep. ENOMEM over a limit.
    ///
    /// # Safety
    /// The knote is attached to nothing else, and goes to `detach` in the end.
    #[inline(never)]
    unsafe fn join(
        kn: &Knote<'_, Attaching>,
        group: Ref<Group>,
        initial: &Initial,
        charge: Option<Charge>,
        join: Join<'_>,
    ) -> Result<NonNull<Watcher>, Errno> {
        if group.kind != initial.kind {
            another_filters();
        }
        let watcher = WATCHERS.item(Watcher {
            knlist: UnsafeCell::new(MaybeUninit::uninit()),
            knote: kn.raw,
            group,
            own: initial.own.clone(),
            links: Links::new(),
            seen: Cell::new(false),
            from_knote: Cell::new(false),
            charge: UnsafeCell::new(charge),
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

    /// Runs `body` with the filter's state of this watcher, and the state of all watchers. Panics
    /// if the group was made with other types, or if `body` asks for a state.
    #[inline(always)]
    pub fn with<W: Copy + Send + 'static, S: Copy + Send + 'static, R>(
        &self,
        body: impl FnOnce(&mut W, &mut S) -> R,
    ) -> R {
        let lent = self.group.lend(TypeId::of::<(W, S)>());
        // SAFETY: `store` wrote a W and an S there, which are not the same memory. This thread has
        // the mutex, and the one loan.
        let result = unsafe {
            let (own, shared) = (self.watcher.own.as_ptr(), self.group.shared.as_ptr());
            body(&mut *own.cast(), &mut *shared.cast())
        };
        lent.set(false);
        result
    }

    /// The word that is watched, if it is a word.
    pub fn word(&self) -> Option<&'k KqxWord> {
        self.group.word()
    }

    /// Has the filter make an offer a little later, and later each time in a row.
    pub fn run_soon(&self) {
        self.group.run_soon();
    }

    /// How many watchers the group has.
    pub fn watchers(&self) -> u32 {
        self.group.watchers.get()
    }

    /// A refused watcher is in no line.
    fn enter(
        &self,
        join: &mut dyn FnMut(&Member<'_, P>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let group = self.group;
        let max = match group.subject {
            Subject::Ident { .. } => watcher_max().load(Relaxed),
            Subject::Word(_) => WORD_WATCHER_MAX,
        };
        if group.watchers.get() >= max {
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
        if !self.group.lines.has_missed() {
            self.run_soon();
        }
        self.join_missed();
    }
}

impl Member<'_, Offered> {
    /// The watcher, which waits, has something now: kqueue is told. `undo` takes that back from
    /// a watcher whose knote is in flux.
    #[inline(always)]
    pub fn wake(&self, undo: impl Fn(&Self)) {
        self.leave_line();
        if !self.knote() {
            undo(self);
            self.miss();
        }
    }
}

impl<'k> Member<'k, Offering> {
    /// Offers what is there to the watchers that wait.
    pub fn offer(&self) {
        (self.group.offer)(&Waiting(self.group));
    }

    /// Charges curthread's user for a timer, unless this watcher has been charged. ENOMEM over
    /// a limit. Does not sleep.
    pub fn charge(&self) -> Result<(), Errno> {
        // SAFETY: under the mutex, and nothing below comes back here.
        let charge = unsafe { &mut *self.watcher.charge.get() };
        if charge.is_none() {
            *charge = Some(Charge::new_nowait()?);
        }
        Ok(())
    }
}

impl<'k> Member<'k, Active> {
    /// kqueue calls f_event, through knote(9) or not.
    pub(super) fn see(&self, from_knote: bool) {
        self.watcher.seen.set(true);
        self.watcher.from_knote.set(from_knote);
    }

    /// The watcher, if kqueue asks by itself: the thread then has no kqueue's lock.
    pub fn asked(&self) -> Option<Member<'k, Offering>> {
        let asked = !self.watcher.from_knote.get();
        asked.then_some(Member {
            watcher: self.watcher,
            group: self.group,
            callback: PhantomData,
        })
    }
}

/// The task: the watchers that were missed are the first in the line again, and all that wait get
/// an offer.
///
/// # Safety
/// For taskqueue(9) alone, not after taskqueue_drain_timeout: `argument` is the group.
unsafe extern "C" fn retry(argument: *mut c_void, _pending: c_int) {
    // SAFETY: the group outlives its task; it is shared, all that changes is in cells.
    let group = unsafe { &*argument.cast::<Group>() };
    // The timeout of a timeout task is a callout.
    counter_u64_add(Stat::Callouts, 1);
    let Some(_held) = group.mtx.mtx_trylock() else {
        return group.run_after(BUSY);
    };
    group.scheduled.set(None);
    // The last watcher may have gone, and the table has let go of the group. Then the word, if
    // the group has one, is another group's, which has armed the word.
    if group.watchers.get() == 0 {
        return;
    }
    group.lines.wait_again();
    (group.offer)(&Waiting(group));
    if !group.lines.has_missed() && group.scheduled.get().is_none() {
        group.tries.set(0);
    }
}
