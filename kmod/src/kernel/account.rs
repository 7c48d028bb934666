// SPDX-License-Identifier: BSD-2-Clause

//! Who has how many timers and wired pages: each user, and each jail as a whole.
//!
//! `kern.kqx.timer_max_user` caps the timers of an account, and `kern.kqx.pages_max` its pages. A user outside of jails has an account; a jail
//! has an account for all its users and for the jails in it, or its root could multiply
//! itself by setuid(2).
//!
//! An account is told by the address of a uidinfo or a prison, which each charge on it holds. The
//! number of the user or jail says on which chain it is. A number alone tells no account, because
//! a jail that is going away can lose its number to another. An address says nothing of the
//! chain, because the simulated kernel has addresses of its host, and plays an order again only
//! if the same accounts share a chain. An account with nothing on it stays on its chain, for the
//! next user or jail that needs an account there.

use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use kqx::errno::Errno;

use super::mutex::Guarded;
use super::uidinfo::Resource;
use super::uma::{Item, Wait, Zone};

/// How many lists the accounts are spread over.
const CHAINS: usize = 64;

/// What a user or a jail has.
pub(super) struct Account {
    /// The address it is told by. Under the mutex.
    address: Cell<usize>,
    /// How many of each resource. Raised under the mutex.
    held: [AtomicU32; 2],
    /// The next of its chain. Under the mutex.
    next: Link,
}

/// Whose account it is.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    /// Of a uidinfo or a prison.
    pub(super) address: usize,
    /// Of the user or the jail.
    pub(super) number: u32,
}

/// An account stays where it is until MOD_UNLOAD.
type Link = Cell<Option<&'static Account>>;

/// All accounts.
struct Accounts([Link; CHAINS]);

// SAFETY: an account belongs to no thread.
unsafe impl Send for Accounts {}

static ACCOUNTS: Guarded<Accounts> = Guarded::new(Accounts([const { Cell::new(None) }; CHAINS]));

static ZONE: Zone<Account> = Zone::new();

/// At MOD_LOAD, before any registration. ENOMEM where the kernel has no memory.
pub(super) fn init() -> Result<(), Errno> {
    ACCOUNTS.mtx.mtx_init(c"kqx accounts");
    // SAFETY: an account needs no init and no fini.
    unsafe { ZONE.uma_zcreate(c"kqx account", None, None) }
}

/// At MOD_UNLOAD, when no charge is left.
pub(super) fn destroy() {
    if !ZONE.exists() {
        return;
    }
    ACCOUNTS.with(Accounts::free);
    ZONE.uma_zdestroy();
    ACCOUNTS.mtx.mtx_destroy();
}

/// One of a resource on an account, given back when dropped.
pub(super) struct Share(&'static AtomicU32);

impl Share {
    /// Puts one of a resource on the account of `owner`. ENOMEM where it has `max` of that. Sleeps
    /// if it may `wait`.
    pub(super) fn take<R: Resource>(owner: Owner, max: u32, wait: Wait) -> Result<Share, Errno> {
        let raise = |accounts: &Accounts| accounts.raise(owner, R::INDEX, max);
        if let Some(result) = ACCOUNTS.with(raise) {
            return result.map(Share);
        }
        let new = ZONE.item_if(
            Account {
                address: Cell::new(0),
                held: [const { AtomicU32::new(0) }; 2],
                next: Cell::new(None),
            },
            wait,
        )?;
        // An account with nothing on it is anybody's: there is room now.
        let result = ACCOUNTS.with(|accounts| {
            accounts.insert(owner, new.leak());
            raise(accounts)
        });
        result.unwrap_or(Err(Errno::ENOMEM)).map(Share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // After this the account may be another's.
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Accounts {
    fn chain(&self, owner: Owner) -> &Link {
        let mixed = owner.number.wrapping_mul(0x9e37_79b9);
        &self.0[(mixed >> (u32::BITS - CHAINS.ilog2())) as usize]
    }

    /// Puts one of a resource on the account of `owner`, or on an account of its chain that has
    /// nothing on it. None: there is neither.
    fn raise(
        &self,
        owner: Owner,
        resource: usize,
        max: u32,
    ) -> Option<Result<&'static AtomicU32, Errno>> {
        let mut unused = None;
        let mut next = self.chain(owner).get();
        while let Some(account) = next {
            if account.address.get() == owner.address {
                unused = Some(account);
                if account.held[resource].load(Relaxed) >= max {
                    return Some(Err(Errno::ENOMEM));
                }
                break;
            }
            if account.held.iter().all(|held| held.load(Relaxed) == 0) {
                unused = Some(account);
            }
            next = account.next.get();
        }
        let account = unused?;
        if max == 0 {
            return Some(Err(Errno::ENOMEM));
        }
        account.address.set(owner.address);
        let held = &account.held[resource];
        held.fetch_add(1, Relaxed);
        Some(Ok(held))
    }

    /// Frees every account: nothing is on any of them.
    fn free(&self) {
        for chain in &self.0 {
            while let Some(account) = chain.take() {
                chain.set(account.next.get());
                // SAFETY: from `Share::take`, off its chain, and with nothing on it: nobody knows it.
                drop(unsafe { Item::from_raw(&ZONE, NonNull::from(account)) });
            }
        }
    }

    fn insert(&self, owner: Owner, new: &'static Account) {
        new.next.set(self.chain(owner).replace(Some(new)));
    }
}
