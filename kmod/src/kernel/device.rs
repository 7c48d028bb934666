// SPDX-License-Identifier: BSD-2-Clause

//! `/dev/kqx`: conf(9). Each open(2) makes a pad, which the kernel keeps as the private data of
//! the descriptor's file.
//!
//! INVARIANT: the private data of a file of this device is the object of a [`Pad`], with a
//! reference. Only `open` sets the data. When the file or the device goes, the kernel gives the
//! reference back by a function of its own: no code of the module runs for that, so that close(2)
//! needs no module.

use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int};
use core::mem::{ManuallyDrop, zeroed};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering::Relaxed;

use freebsd_kernel_sys as sys;
use kqx::abi::KQXKICK;
use kqx::errno::Errno;

use super::errno;
use super::group;
use super::pad::{PAGE_SIZE, Pad};
use super::sysctl::pad_size;
use super::trace;

/// The most that `kern.kqx.pad_size` can say, so that every line has a number of 32 bits.
const PAD_SIZE_MAX: u32 = 1 << 30;

/// An ioctl that the device does not have.
const ENOTTY: c_int = sys::ENOTTY as c_int;

/// The table of functions, which the kernel writes to.
struct Cdevsw(UnsafeCell<sys::cdevsw>);

// SAFETY: the kernel alone uses it, with locks of its own.
unsafe impl Sync for Cdevsw {}

static CDEVSW: Cdevsw = Cdevsw(UnsafeCell::new({
    // SAFETY: numbers and pointers that may be null.
    let mut table: sys::cdevsw = unsafe { zeroed() };
    table.d_version = sys::D_VERSION as c_int;
    table.d_name = c"kqx".as_ptr();
    table.d_open = Some(open);
    table.d_ioctl = Some(ioctl);
    table.d_mmap_single = Some(mmap_single);
    table
}));

/// At MOD_LOAD, when everything else is there: programs can open the device at once. The errno
/// of make_dev_s(9).
pub(super) fn make_dev() -> Result<(), Errno> {
    let size = pad_size().load(Relaxed).clamp(1, PAD_SIZE_MAX);
    pad_size().store(size.next_multiple_of(PAGE_SIZE as u32), Relaxed);
    // SAFETY: the functions are those of conf(9), and stay until `destroy_dev`.
    errno::check(unsafe { sys::kqx_make_dev(CDEVSW.0.get()) })
}

/// At MOD_UNLOAD, when no registration is left: waits until no thread is in one of the functions,
/// and none comes in any more. Does nothing if there is no device.
pub(super) fn destroy_dev() {
    // SAFETY: this thread is in none of the functions, and holds no lock.
    unsafe { sys::kqx_destroy_dev() };
}

/// d_open.
///
/// # Safety
/// For devfs alone.
unsafe extern "C" fn open(
    _dev: *mut sys::cdev,
    _flags: c_int,
    _devtype: c_int,
    _td: *mut sys::thread,
) -> c_int {
    errno::code(&Pad::new(pad_size().load(Relaxed) as usize).and_then(set_cdevpriv))
}

/// Makes the pad that of the file that is being opened. ENOENT: something else than a program
/// opens the device.
fn set_cdevpriv(pad: Pad) -> Result<(), Errno> {
    let object = pad.into_raw();
    // SAFETY: in d_open. The object comes with a reference, which this gives to the file.
    let set = errno::check(unsafe { sys::kqx_devfs_set_object(object.as_ptr()) });
    set.inspect_err(|_| {
        // SAFETY: nobody has taken the reference.
        drop(unsafe { Pad::from_raw(object) });
    })
}

/// The pad of the file whose function runs, until that returns. ENOENT: the file has none.
///
/// # Safety
/// In a function of the table, or with td_fpop set to a file of this device that is held.
unsafe fn cdevpriv() -> Result<ManuallyDrop<Pad>, Errno> {
    let mut data = null_mut();
    // SAFETY: `data` is ours to write.
    errno::check(unsafe { sys::devfs_get_cdevpriv(&raw mut data) })?;
    let object = NonNull::new(data.cast()).ok_or(Errno::ENOENT)?;
    // SAFETY: the INVARIANT of this file. The file keeps its reference as long as the caller is in
    // the function: the pad is only lent.
    Ok(ManuallyDrop::new(unsafe { Pad::from_raw(object) }))
}

/// d_mmap_single: the object for `size` bytes from `offset`. devfs itself compares the protection
/// with the descriptor's.
///
/// # Safety
/// For devfs alone.
unsafe extern "C" fn mmap_single(
    _dev: *mut sys::cdev,
    offset: *mut sys::vm_ooffset_t,
    size: sys::vm_size_t,
    object: *mut *mut sys::vm_object,
    _protection: c_int,
) -> c_int {
    // SAFETY: in a function of the table.
    let result = unsafe { cdevpriv() }.and_then(|pad| {
        // SAFETY: devfs' own variable.
        let offset = usize::try_from(unsafe { *offset }).map_err(|_| Errno::EINVAL)?;
        let room = pad.size().checked_sub(offset).ok_or(Errno::EINVAL)?;
        if size == 0 || size as usize > room {
            return Err(Errno::EINVAL);
        }
        Ok(Pad::clone(&pad).into_raw())
    });
    if let Ok(mapped) = result {
        // SAFETY: devfs' own variable. The mapping takes over the reference.
        unsafe { *object = mapped.as_ptr() };
    }
    errno::code(&result)
}

/// d_ioctl: KQXKICK.
///
/// # Safety
/// For devfs alone: `data` is the kernel's copy of what `command` says.
unsafe extern "C" fn ioctl(
    _dev: *mut sys::cdev,
    command: sys::u_long,
    data: *mut c_char,
    flags: c_int,
    _td: *mut sys::thread,
) -> c_int {
    if command != KQXKICK {
        return ENOTTY;
    }
    // SAFETY: KQXKICK has a word of 64 bits.
    let line = unsafe { data.cast::<u64>().read_unaligned() };
    // SAFETY: in a function of the table.
    let result = unsafe { cdevpriv() }.and_then(|pad| {
        if flags & sys::FWRITE as c_int == 0 {
            return Err(Errno::EBADF);
        }
        let line = u32::try_from(line).map_err(|_| Errno::EINVAL)?;
        if !pad.has_line(line) {
            return Err(Errno::EINVAL);
        }
        trace::kick(&pad, line);
        group::kick(&pad, line);
        Ok(())
    });
    errno::code(&result)
}

/// A file that this thread holds.
struct File(NonNull<sys::file>);

impl File {
    /// The file of a descriptor of curthread's process. EBADF; or an errno of capsicum(4), if the
    /// descriptor may not be waited for. Sleeps.
    fn fget(fd: c_int) -> Result<File, Errno> {
        let mut file = null_mut();
        // SAFETY: `file` is ours to write. curthread is a process' thread, in kevent(2).
        errno::check(unsafe { sys::kqx_fget(fd, &raw mut file) })?;
        NonNull::new(file).map(File).ok_or(Errno::EBADF)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: held since `fget`.
        unsafe { sys::kqx_fdrop(self.0.as_ptr()) };
    }
}

/// What a descriptor is good for.
pub(super) struct Descriptor {
    pub(super) pad: Pad,
    /// Programs may write through it: it was opened for writing, and capsicum(4) has not taken
    /// that right from it.
    pub(super) writable: bool,
}

impl Descriptor {
    /// The pad of a descriptor of curthread's process. EBADF; EINVAL: the descriptor is no pad.
    /// Sleeps.
    #[inline(never)]
    pub(super) fn find(fd: c_int) -> Result<Descriptor, Errno> {
        let file = File::fget(fd)?;
        let raw = file.0.as_ptr();
        let mut data = null_mut();
        // SAFETY: the file is held. Its private data is looked at only if the file is of this
        // device, which stays until the caller, a thread in f_attach, has returned.
        let found =
            unsafe { sys::kqx_is_kqx(raw) && sys::kqx_devfs_get_cdevpriv(raw, &raw mut data) == 0 };
        let object = NonNull::new(data.cast()).filter(|_| found);
        let object = object.ok_or(Errno::EINVAL)?;
        // SAFETY: the INVARIANT of this file: the file holds the object.
        let lent = ManuallyDrop::new(unsafe { Pad::from_raw(object) });
        Ok(Descriptor {
            pad: Pad::clone(&lent),
            // SAFETY: curthread is a process' thread, in kevent(2).
            writable: unsafe { sys::kqx_is_writable(fd, raw) },
        })
    }
}
