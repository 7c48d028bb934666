// SPDX-License-Identifier: BSD-2-Clause

//! Load and unload: module(9).

use core::ffi::c_int;
use core::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};

use freebsd_kernel_sys as sys;
use kqx::errno::Errno;

use super::entry::{self, Table};
use super::filterops::{self, Filterops};
use super::{account, device, errno, group, pad, sysctl, timer, uidinfo};

/// Makes `$filterops` what the module registers.
macro_rules! declare_module {
    ($filterops:ty) => {
        /// What kqueue is given, in a section where the module checker finds it.
        #[expect(unsafe_code, reason = "a section of its own")]
        #[unsafe(link_section = ".data.rel.ro.kqx_filterops")]
        #[used]
        static FILTEROPS: $crate::kernel::module::Registration =
            $crate::kernel::module::Registration::new::<$filterops>();

        /// The module's event handler, called by the C shim's module data: an errno.
        #[expect(unsafe_code, reason = "the one name that C calls must be kept")]
        #[unsafe(no_mangle)]
        pub extern "C" fn kqx_modevent(what: core::ffi::c_int) -> core::ffi::c_int {
            FILTEROPS.event(what)
        }
    };
}
pub(crate) use declare_module;

/// A module event is going on.
static EVENT: AtomicBool = AtomicBool::new(false);

/// MOD_LOAD has run since MOD_UNLOAD last did.
static LOADED: AtomicBool = AtomicBool::new(false);

/// A line on the console: printf(9).
#[cold]
fn printf(line: &str) {
    // SAFETY: `line` is a text of that length.
    unsafe { sys::kqx_printf(line.as_ptr().cast(), line.len() as c_int) };
}

/// A line on the console that says something of a filter number.
#[cold]
fn printf_filter(filter: c_int, line: &str) {
    // SAFETY: as for `printf`.
    unsafe { sys::kqx_printf_filter(filter, line.as_ptr().cast(), line.len() as c_int) };
}

/// The callbacks of the module, as kqueue is given them.
#[repr(transparent)]
pub struct Registration(Table);

impl Registration {
    /// The callbacks of `O`.
    pub const fn new<O: Filterops>() -> Self {
        Registration(filterops::table::<O>())
    }

    /// A module event. MOD_QUIESCE looks; MOD_UNLOAD keeps everybody out, or says EBUSY.
    /// EBUSY too where another event is going on: module(9) makes one at a time.
    pub fn event(&'static self, what: c_int) -> c_int {
        if EVENT.swap(true, Acquire) {
            return Errno::EBUSY.number().into();
        }
        let result = match what as sys::modeventtype {
            sys::MOD_LOAD => self.load(),
            sys::MOD_QUIESCE => quiesce(),
            sys::MOD_UNLOAD => unload(),
            sys::MOD_SHUTDOWN => Ok(()),
            _ => Err(Errno::EOPNOTSUPP),
        };
        EVENT.store(false, Release);
        errno::code(&result)
    }

    fn load(&'static self) -> Result<(), Errno> {
        if LOADED.swap(true, Relaxed) {
            return Err(Errno::EEXIST);
        }
        uidinfo::set_defaults();
        account::init()?;
        pad::init()?;
        group::init()?;
        timer::init()?;
        let entry = entry::find().inspect_err(|&error| {
            if error == Errno::EOPNOTSUPP {
                printf("another kqx was loaded before; reboot to load this one");
            }
        })?;
        device::make_dev().inspect_err(|_| printf("/dev/kqx cannot be made"))?;
        let slot = sysctl::filter().load(Relaxed);
        // SAFETY: the functions are those of a `Filterops`, and `unload` closes the entry
        // before they go.
        let opened = unsafe { entry.open(&self.0, slot) };
        let opened = opened.inspect_err(|&error| {
            let why = match error {
                Errno::EEXIST => "is taken; set kern.kqx.filter to a free one in loader.conf",
                _ => "is not a system filter; set kern.kqx.filter to a free one",
            };
            printf_filter(slot, why);
        })?;
        if opened != slot {
            let why = "is still kqx's since it was last loaded; kern.kqx.filter is ignored";
            printf_filter(opened, why);
            sysctl::filter().store(opened, Relaxed);
        }
        Ok(())
    }
}

/// EBUSY while there is a registration.
fn quiesce() -> Result<(), Errno> {
    match entry::opened() {
        Some(entry) if !entry.is_idle() => Err(Errno::EBUSY),
        _ => Ok(()),
    }
}

fn unload() -> Result<(), Errno> {
    // An error from MOD_LOAD runs MOD_UNLOAD too.
    if let Some(entry) = entry::opened() {
        entry.close()?;
    }
    device::destroy_dev();
    timer::destroy();
    group::destroy();
    pad::destroy();
    account::destroy();
    LOADED.store(false, Relaxed);
    Ok(())
}
