//! Who has how many timers: each user, and each jail as a whole.
//!
//! `kern.kqx.timer_max_user` caps an account. A user outside of jails has an account; a jail
//! has an account for all its users and for the jails in it, or its root could multiply
//! itself by setuid(2).
//!
//! An account is told by the address of the uidinfo or the prison, which whoever has a timer
//! on it holds. An account without timers stays for the next that comes to its chain, whose
//! address does not matter then.

use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

use freebsd_kernel_sys as sys;

use super::errno::Errno;

/// How many lists the accounts are spread over.
const CHAINS: usize = 64;

/// The timers of a user or a jail.
pub(super) struct Account {
    /// The address it is told by. Under the mutex.
    key: Cell<usize>,
    /// How many there are. Raised under the mutex.
    timers: AtomicU32,
    /// The next of its chain. Under the mutex.
    next: Cell<*mut Account>,
}

/// All accounts, under one mutex, which is never held with another.
struct Accounts {
    mtx: UnsafeCell<MaybeUninit<sys::mtx>>,
    chains: [Cell<*mut Account>; CHAINS],
}

// SAFETY: the chains are touched with the mutex held; the mutex is the kernel's.
unsafe impl Sync for Accounts {}

static ACCOUNTS: Accounts = Accounts {
    mtx: UnsafeCell::new(MaybeUninit::uninit()),
    chains: [const { Cell::new(null_mut()) }; CHAINS],
};

/// The zone of accounts: from MOD_LOAD to MOD_UNLOAD.
static ZONE: AtomicPtr<sys::uma_zone> = AtomicPtr::new(null_mut());

/// At MOD_LOAD, before any registration. ENOMEM where the kernel has no memory.
pub(super) fn init() -> Result<(), Errno> {
    // SAFETY: nobody knows the mutex yet; an account needs no init and no fini.
    let zone = unsafe {
        sys::kqx_mtx_init(ACCOUNTS.mtx.get().cast(), c"kqx accounts".as_ptr());
        sys::uma_zcreate(
            c"kqx account".as_ptr(),
            size_of::<Account>(),
            None,
            None,
            None,
            None,
            align_of::<Account>() as i32 - 1,
            0,
        )
    };
    ZONE.store(zone, Relaxed);
    if zone.is_null() {
        return Err(Errno::ENOMEM);
    }
    Ok(())
}

/// At MOD_UNLOAD, when no timer is left.
pub(super) fn destroy() {
    let zone = ZONE.swap(null_mut(), Relaxed);
    for chain in &ACCOUNTS.chains {
        while let Some(account) = NonNull::new(chain.get()) {
            // SAFETY: on its chain, from the zone, and without timers: nobody knows it.
            unsafe {
                chain.set(account.as_ref().next.get());
                sys::uma_zfree_arg(zone, account.as_ptr().cast(), null_mut());
            }
        }
    }
    if !zone.is_null() {
        // SAFETY: from `init`; no callback runs any more.
        unsafe {
            sys::uma_zdestroy(zone);
            sys::kqx_mtx_destroy(ACCOUNTS.mtx.get().cast());
        }
    }
}

/// One timer on an account, given back when dropped.
pub(super) struct Share(NonNull<Account>);

impl Share {
    /// Puts a timer on the account of `key`. ENOMEM where it has `max`. May sleep.
    pub(super) fn take(key: usize, max: u32) -> Result<Share, Errno> {
        if let Some(result) = with_accounts(|accounts| accounts.raise(key, max)) {
            return result.map(Share);
        }
        // SAFETY: the zone is there from MOD_LOAD to MOD_UNLOAD, and this is a callback.
        let memory =
            unsafe { sys::uma_zalloc_arg(ZONE.load(Relaxed), null_mut(), sys::M_WAITOK as i32) };
        let new = NonNull::new(memory.cast::<Account>()).ok_or(Errno::ENOMEM)?;
        // SAFETY: memory for an account, this thread's alone.
        unsafe {
            new.write(Account {
                key: Cell::new(0),
                timers: AtomicU32::new(0),
                next: Cell::new(null_mut()),
            });
        }
        // An account without timers is anybody's: there is room now.
        let result = with_accounts(|accounts| {
            accounts.insert(key, new);
            accounts.raise(key, max)
        });
        result.unwrap_or(Err(Errno::ENOMEM)).map(Share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // SAFETY: an account stays until MOD_UNLOAD. After this it may be another's.
        unsafe { self.0.as_ref() }.timers.fetch_sub(1, Relaxed);
    }
}

/// Runs `body` with the mutex held.
fn with_accounts<R>(body: impl FnOnce(&Accounts) -> R) -> R {
    // SAFETY: set up from MOD_LOAD to MOD_UNLOAD; no callback holds it, as `body` calls
    // nothing of the kernel's.
    unsafe { sys::kqx_mtx_lock(ACCOUNTS.mtx.get().cast()) };
    let result = body(&ACCOUNTS);
    // SAFETY: taken above, by this thread.
    unsafe { sys::kqx_mtx_unlock(ACCOUNTS.mtx.get().cast()) };
    result
}

impl Accounts {
    fn chain(&self, key: usize) -> &Cell<*mut Account> {
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.chains[mixed >> (usize::BITS - CHAINS.ilog2())]
    }

    /// Puts a timer on the account of `key`, or on an account of its chain that has none.
    /// None: there is neither.
    fn raise(&self, key: usize, max: u32) -> Option<Result<NonNull<Account>, Errno>> {
        let mut unused = None;
        let mut next = self.chain(key).get();
        while let Some(at) = NonNull::new(next) {
            // SAFETY: accounts on a chain stay until MOD_UNLOAD.
            let account = unsafe { at.as_ref() };
            let timers = account.timers.load(Relaxed);
            if account.key.get() == key {
                unused = Some(at);
                if timers >= max {
                    return Some(Err(Errno::ENOMEM));
                }
                break;
            }
            if timers == 0 {
                unused = Some(at);
            }
            next = account.next.get();
        }
        let at = unused?;
        if max == 0 {
            return Some(Err(Errno::ENOMEM));
        }
        // SAFETY: as above.
        let account = unsafe { at.as_ref() };
        account.key.set(key);
        account.timers.fetch_add(1, Relaxed);
        Some(Ok(at))
    }

    fn insert(&self, key: usize, new: NonNull<Account>) {
        let chain = self.chain(key);
        // SAFETY: nobody else knows it yet.
        unsafe { new.as_ref() }
            .next
            .set(chain.replace(new.as_ptr()));
    }
}
