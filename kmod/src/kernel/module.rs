//! Load and unload: module(9).

use core::ffi::c_int;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use freebsd_kernel_sys as sys;

use super::counter::{Stat, counter_u64_fetch};
use super::errno::Errno;
use super::filterops::{self, Filterops};
use super::{shared, timer, uidinfo};

/// Makes `$filterops` what the module registers.
#[cfg(not(test))]
macro_rules! declare_module {
    ($filterops:ty) => {
        /// The module's event handler, called by the C shim's module data: an errno.
        #[expect(unsafe_code, reason = "the one name that C calls must be kept")]
        #[unsafe(no_mangle)]
        pub extern "C" fn kqx_modevent(what: core::ffi::c_int) -> core::ffi::c_int {
            $crate::kernel::module::event::<$filterops>(what)
        }
    };
}
#[cfg(not(test))]
pub(crate) use declare_module;

/// The most timers there may be where kern.kq_calloutmax cannot be read.
const TIMER_MAX: u32 = 4096;

/// The slot is ours. An error from MOD_LOAD runs MOD_UNLOAD too.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// `kern.kqx.timer_max`.
pub fn timer_max() -> &'static AtomicU32 {
    // SAFETY: a C variable of the shim, aligned, alive as long as the module, and
    // written elsewhere only by the sysctl handler, one word at a time.
    unsafe { AtomicU32::from_ptr(&raw mut sys::kqx_timer_max) }
}

/// The filter number to register: `kern.kqx.filter`, fixed once loaded.
fn filter() -> c_int {
    // SAFETY: written before MOD_LOAD only, when tunables are read.
    unsafe { sys::kqx_filter }
}

/// One line on the console, as printf(9).
pub fn printf(line: fmt::Arguments<'_>) {
    let mut text = [0; 160];
    let mut room = Room {
        text: &mut text,
        len: 0,
    };
    let _ = fmt::Write::write_fmt(&mut room, line);
    let len = room.len;
    // SAFETY: `len` bytes of text.
    unsafe { sys::kqx_printf(text.as_ptr().cast(), len as c_int) };
}

/// As much of a text as there is room for.
pub(super) struct Room<'a> {
    pub(super) text: &'a mut [u8],
    pub(super) len: usize,
}

impl fmt::Write for Room<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = &mut self.text[self.len..];
        let n = s.len().min(room.len());
        room[..n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// A module event. MOD_QUIESCE looks, MOD_UNLOAD gives the slot back or says EBUSY.
pub fn event<O: Filterops>(what: c_int) -> c_int {
    Errno::code(match what as sys::modeventtype {
        sys::MOD_LOAD => load::<O>(),
        sys::MOD_QUIESCE => quiesce(),
        sys::MOD_UNLOAD => unload(),
        sys::MOD_SHUTDOWN => Ok(()),
        _ => Err(Errno::EOPNOTSUPP),
    })
}

fn load<O: Filterops>() -> Result<(), Errno> {
    if timer_max().load(Relaxed) == 0 {
        timer_max().store(kq_calloutmax(), Relaxed);
    }
    let slot = filter();
    shared::init();
    timer::uma_zcreate()?;
    kqueue_add_filteropts::<O>(slot).inspect_err(|&error| match error {
        Errno::EEXIST => printf(format_args!(
            "filter {slot} is taken; set kern.kqx.filter to a free one in loader.conf"
        )),
        _ => printf(format_args!(
            "filter {slot} is not a system filter; set kern.kqx.filter to a free one"
        )),
    })?;
    REGISTERED.store(true, Relaxed);
    Ok(())
}

/// EBUSY while there is a registration.
fn quiesce() -> Result<(), Errno> {
    // The gauges are not added up: one that is counting meanwhile may be below 0. Those of
    // watchers are among the timers.
    let live = [Stat::Counters, Stat::Others];
    if uidinfo::timers().load(Relaxed) == 0 && live.map(counter_u64_fetch) == [0, 0] {
        Ok(())
    } else {
        Err(Errno::EBUSY)
    }
}

fn unload() -> Result<(), Errno> {
    if REGISTERED.load(Relaxed) {
        // Loading zeroes the slot's count of references, whoever was using the slot: it
        // can be too low for good, so it alone is not believed.
        quiesce()?;
        kqueue_del_filteropts(filter())?;
        REGISTERED.store(false, Relaxed);
    }
    timer::uma_zdestroy();
    shared::destroy();
    Ok(())
}

fn kqueue_add_filteropts<O: Filterops>(filter: c_int) -> Result<(), Errno> {
    // The kernel lets 0 pass and would write in front of its table.
    if filter >= 0 {
        return Err(Errno::EINVAL);
    }
    let table = (&raw const *filterops::table::<O>()).cast_mut();
    // SAFETY: the table is static and stays while the module does: `unload` takes it out
    // first. That it is const matters to 14 alone, which never writes it either.
    Errno::check(unsafe { sys::kqueue_add_filteropts(filter, table) })
}

/// EBUSY while any knote or any kevent(2) in progress refers to the filter: success
/// proves that no thread is inside a callback.
fn kqueue_del_filteropts(filter: c_int) -> Result<(), Errno> {
    // SAFETY: only called for the slot that `load` took.
    Errno::check(unsafe { sys::kqueue_del_filteropts(filter) })
}

/// What EVFILT_TIMER allows, or [`TIMER_MAX`].
fn kq_calloutmax() -> u32 {
    let mut max = 0;
    // SAFETY: a C string, and a u_int to write.
    let error = unsafe { sys::kqx_sysctl_uint(c"kern.kq_calloutmax".as_ptr(), &mut max) };
    if error == 0 && max > 0 {
        max
    } else {
        TIMER_MAX
    }
}
