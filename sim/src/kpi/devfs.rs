// SPDX-License-Identifier: BSD-2-Clause

//! conf(9) and devfs(5): devices, their files, and the private data of each file.
//!
//! A file is here what a descriptor refers to: of a device, or of something else that a module can
//! look up by a descriptor and must not take for its own.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Relaxed},
};

use freebsd_kernel_sys as sys;
use parking_lot::Mutex;

use super::vm::{self, Reference};
use crate::abi::{CText, Cdevsw, File, Out, Passed, Ptr};
use crate::debug::fault::{self, FaultKind};
use crate::debug::kassert;
use crate::debug::witness::may_sleep;
use crate::errno::{
    EACCES, EBADF, EBUSY, EEXIST, EINVAL, ENOENT, ENOTTY, ENXIO, Errno, check, code,
};
use crate::schedule::clock::{self, nstosbt};
use crate::schedule::curthread::{curthread, replace_fpop};
use crate::schedule::sched::{self, Sleep, switch_point};

/// FREAD and FWRITE of a file.
pub(crate) const FREAD: u32 = 1;
pub(crate) const FWRITE: u32 = 2;

/// DTYPE_VNODE of sys/file.h.
const DTYPE_VNODE: i16 = 1;

/// `struct cdev`: what the module reads is where the headers have it.
#[repr(C)]
pub struct Cdev {
    unread: [u64; sys::KQX_SI_USECOUNT as usize / 8],
    si_usecount: AtomicU64,
    name: String,
    /// Null once the device is destroyed.
    devsw: Mutex<Option<Ptr<Cdevsw>>>,
    threads: AtomicUsize,
    /// The files that have private data.
    files: Mutex<Vec<Ptr<File>>>,
}

/// The devices by name.
static DEVICES: Mutex<Vec<Arc<Cdev>>> = Mutex::new(Vec::new());

/// The devices that were destroyed: the module may have a pointer.
static GONE: Mutex<Vec<Arc<Cdev>>> = Mutex::new(Vec::new());

/// Faults for devices that are left.
pub(crate) fn report_leaks() {
    for dev in DEVICES.lock().iter() {
        fault::report(FaultKind::Leak, format!("/dev/{} is left", dev.name));
    }
}

/// Takes all devices out of the kernel, at the end of a machine.
pub(crate) fn forget() {
    DEVICES.lock().clear();
    GONE.lock().clear();
}

/// The private data of a file, and who takes it back.
#[derive(Clone, Copy)]
struct Private {
    data: *mut c_void,
    dtor: unsafe extern "C-unwind" fn(*mut c_void),
}

/// What a file has beside what the module sees.
struct Behind {
    dev: Arc<Cdev>,
    private: Mutex<Option<Private>>,
}

// SAFETY: the module's data belongs to no thread.
unsafe impl Send for Behind {}
// SAFETY: the data is under a mutex.
unsafe impl Sync for Behind {}

/// A file that counts its references, as a table of descriptors has it.
pub(crate) struct Held(Ptr<File>);

impl Clone for Held {
    fn clone(&self) -> Held {
        self.0.f_count.fetch_add(1, Relaxed);
        Held(self.0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.f_count.fetch_sub(1, AcqRel) == 1 {
            free(self.0);
        }
    }
}

impl Held {
    /// A file of another type than devices have, for fget.
    pub(crate) fn other(kind: i16) -> Held {
        Held::new(0, kind, ptr::null(), None)
    }

    fn new(flag: u32, kind: i16, data: *const c_void, behind: Option<Behind>) -> Held {
        let file = Box::new(File {
            f_flag: AtomicU32::new(flag),
            f_count: AtomicU32::new(1),
            f_data: Cell::new(data),
            f_ops: Cell::new(ptr::null()),
            f_vnode: Cell::new(ptr::null()),
            f_cred: Cell::new(ptr::null()),
            f_type: Cell::new(kind),
            behind: behind
                .map(Box::new)
                .map_or(ptr::null_mut(), Box::into_raw)
                .cast(),
        });
        // SAFETY: a box that `free` takes back.
        let file = unsafe { Ptr::new(Box::into_raw(file), "file") };
        if kind == DTYPE_VNODE {
            // A vnode is told by its file here.
            file.f_vnode.set(file.as_ptr().cast());
        }
        Held(file)
    }

    /// FWRITE.
    pub(crate) fn is_writable(&self) -> bool {
        self.0.f_flag.load(Relaxed) & FWRITE != 0
    }

    /// The reference, for `_fdrop`.
    pub(crate) fn into_raw(self) -> Ptr<File> {
        let file = self.0;
        std::mem::forget(self);
        file
    }

    /// open(2) of `/dev/NAME`.
    pub(crate) fn open(name: &str, flag: u32) -> Result<Held, Errno> {
        let devices = DEVICES.lock();
        let dev = devices.iter().find(|dev| dev.name == name).cloned();
        drop(devices);
        let dev = dev.ok_or(ENOENT)?;
        let behind = Behind {
            dev: dev.clone(),
            private: Mutex::new(None),
        };
        let held = Held::new(flag, DTYPE_VNODE, Arc::as_ptr(&dev).cast(), Some(behind));
        dev.si_usecount.fetch_add(1, Relaxed);
        held.call(|devsw, dev| {
            let open = devsw.d_open.ok_or(ENXIO)?;
            // SAFETY: the function of a device that is there, in a thread of a process.
            check(unsafe { open(dev, flag as c_int, 0, curthread(|td| td.address())) })
        })?;
        Ok(held)
    }

    /// Calls a function of the device with td_fpop set, as devfs does. ENXIO: the device is gone.
    fn call<R>(
        &self,
        body: impl FnOnce(&Cdevsw, *const c_void) -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        let dev = &behind(self.0).ok_or(EBADF)?.dev;
        let devsw = dev.enter().ok_or(ENXIO)?;
        let before = replace_fpop(self.0.as_ptr().cast());
        let result = body(&devsw, Arc::as_ptr(dev).cast());
        replace_fpop(before);
        dev.leave();
        result
    }

    /// mmap(2) with MAP_SHARED: the object, and from where on it is mapped.
    pub(crate) fn mmap(
        &self,
        size: usize,
        offset: i64,
        write: bool,
    ) -> Result<(Reference, usize), Errno> {
        if behind(self.0).is_none() {
            return Err(EINVAL);
        }
        let flag = self.0.f_flag.load(Relaxed);
        if flag & FREAD == 0 || write && flag & FWRITE == 0 {
            return Err(EACCES);
        }
        if size == 0 || offset < 0 {
            return Err(EINVAL);
        }
        kassert!(
            (offset as usize).is_multiple_of(vm::PAGE_SIZE),
            "mmap: an offset inside of a page is not played"
        );
        let size = size.next_multiple_of(vm::PAGE_SIZE);
        self.call(|devsw, dev| {
            let mmap = devsw.d_mmap_single.ok_or(EINVAL)?;
            let (mut from, mut object) = (offset, ptr::null_mut());
            let protection = if write { 3 } else { 1 };
            // SAFETY: as in `open`; the variables are this call's.
            check(unsafe { mmap(dev, &raw mut from, size, &raw mut object, protection) })?;
            // SAFETY: the device has put an object there, with a reference.
            let object = unsafe { Reference::from_raw(object.cast()) };
            kassert!(
                from as usize + size <= object.memory().1,
                "d_mmap_single: {size} bytes from {from} are more than its object has"
            );
            Ok((object, from as usize))
        })
    }

    /// ioctl(2) with an argument of eight bytes, which has been copied in.
    pub(crate) fn ioctl(&self, command: u64, argument: u64) -> Result<(), Errno> {
        if behind(self.0).is_none() {
            return Err(ENOTTY);
        }
        let mut data = argument;
        let flag = self.0.f_flag.load(Relaxed) as c_int;
        self.call(|devsw, dev| {
            let ioctl = devsw.d_ioctl.ok_or(ENOTTY)?;
            let data = (&raw mut data).cast::<c_char>();
            // SAFETY: as in `open`; `data` is this call's.
            check(unsafe { ioctl(dev, command, data, flag, curthread(|td| td.address())) })
        })
    }
}

fn behind(file: Ptr<File>) -> Option<&'static Behind> {
    // SAFETY: a box of `Held::new`, which goes with the file, whose caller holds the file.
    unsafe { file.behind.cast::<Behind>().as_ref() }
}

/// The last reference to a file is gone.
fn free(file: Ptr<File>) {
    if sched::dead().is_some() {
        return;
    }
    if let Some(of) = behind(file) {
        of.dev.si_usecount.fetch_sub(1, Relaxed);
        drop_private(file);
        // SAFETY: the box of `Held::new`.
        drop(unsafe { Box::from_raw(file.behind.cast::<Behind>()) });
    }
    // SAFETY: the box of `Held::new`, whose last reference this was.
    drop(unsafe { Box::from_raw(file.as_ptr()) });
}

/// devfs_fpdrop.
fn drop_private(file: Ptr<File>) {
    let Some(of) = behind(file) else { return };
    of.dev.files.lock().retain(|known| *known != file);
    let private = of.private.lock().take();
    if let Some(private) = private {
        switch_point("devfs_fpdrop", String::new);
        // SAFETY: devfs_set_cdevpriv was given the two for each other.
        unsafe { (private.dtor)(private.data) };
    }
}

impl Cdev {
    /// dev_refthread: the functions, while a thread is in them.
    fn enter(&self) -> Option<Ptr<Cdevsw>> {
        let devsw = self.devsw.lock();
        if devsw.is_some() {
            self.threads.fetch_add(1, AcqRel);
        }
        *devsw
    }

    fn leave(&self) {
        let before = self.threads.fetch_sub(1, AcqRel);
        kassert!(
            before > 0,
            "dev_relthread: {} threadcount is wrong",
            self.name
        );
    }
}

/// `struct make_dev_args`, as far as the module fills it.
type Args = sys::make_dev_args;

/// make_dev_args_init.
///
/// # Safety
/// `args` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn make_dev_args_init_impl(args: *mut Args, size: usize) {
    kassert!(
        size == size_of::<Args>(),
        "make_dev_args_init: {size} bytes"
    );
    // SAFETY: the caller's promise; all zeros are numbers and null pointers.
    unsafe {
        args.write_bytes(0, 1);
        (*args).mda_size = size;
    }
}

/// make_dev_s(9), with a name that is no format.
///
/// # Safety
/// `args` is from make_dev_args_init, and its cdevsw stays until the device is destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn make_dev_s(
    args: &Args,
    dev: Out<*const Cdev>,
    name: CText,
) -> c_int {
    may_sleep("make_dev_s");
    let name = name.to_string();
    let mut devices = DEVICES.lock();
    if devices.iter().any(|dev| dev.name == name) {
        return code(Err(EEXIST));
    }
    // SAFETY: the caller's promise.
    let devsw = unsafe { Ptr::new(args.mda_devsw.cast::<Cdevsw>(), "make_dev_s") };
    kassert!(
        devsw.d_version == sys::D_VERSION as c_int,
        "make_dev_s: {name} has the wrong version"
    );
    let made = Arc::new(Cdev {
        unread: [0; sys::KQX_SI_USECOUNT as usize / 8],
        si_usecount: AtomicU64::new(0),
        name,
        devsw: Mutex::new(Some(devsw)),
        threads: AtomicUsize::new(0),
        files: Mutex::default(),
    });
    dev.put(Arc::as_ptr(&made));
    devices.push(made);
    0
}

/// destroy_dev(9).
///
/// # Safety
/// `dev` is from make_dev_s, and not destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn destroy_dev(dev: *const Cdev) {
    may_sleep("destroy_dev");
    let mut devices = DEVICES.lock();
    let at = devices.iter().position(|known| ptr::eq(&**known, dev));
    let Some(at) = at else {
        panic!("panic: destroy_dev of a device that is not there");
    };
    let dev = devices.remove(at);
    GONE.lock().push(dev.clone());
    drop(devices);
    *dev.devsw.lock() = None;
    while dev.threads.load(Relaxed) > 0 {
        let deadline = clock::uptime().saturating_add(nstosbt(1_000_000));
        let sleep = Sleep {
            deadline: Some(deadline),
            ..Sleep::until_woken("devdrn")
        };
        // The loop looks again, whatever ended the sleep.
        let _ = sched::sleep(ptr::from_ref(&*dev) as usize, sleep, || ());
    }
    loop {
        let Some(file) = dev.files.lock().first().copied() else {
            break;
        };
        drop_private(file);
    }
}

/// devfs_set_cdevpriv(9).
///
/// # Safety
/// `dtor` may be called with `data`, once, when the file or the device goes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn devfs_set_cdevpriv(
    data: *mut c_void,
    dtor: unsafe extern "C-unwind" fn(*mut c_void),
) -> c_int {
    may_sleep("devfs_set_cdevpriv");
    code(fpop().ok_or(ENOENT).and_then(|file| {
        let of = behind(file).ok_or(ENOENT)?;
        let mut private = of.private.lock();
        if private.is_some() {
            return Err(EBUSY);
        }
        *private = Some(Private { data, dtor });
        of.dev.files.lock().push(file);
        Ok(())
    }))
}

/// devfs_get_cdevpriv(9).
///
/// # Safety
/// `data` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn devfs_get_cdevpriv(data: Out<*mut c_void>) -> c_int {
    code(fpop().ok_or(EBADF).and_then(|file| {
        let of = behind(file).ok_or(ENOENT)?;
        let private = *of.private.lock();
        data.put(private.ok_or(ENOENT)?.data);
        Ok(())
    }))
}

/// td_fpop of curthread.
fn fpop() -> Option<Ptr<File>> {
    let file = curthread(|td| td.fpop()).cast::<File>();
    // SAFETY: this kernel or the module has put a file there, which the thread holds.
    (!file.is_null()).then(|| unsafe { Ptr::new(file, "td_fpop") })
}

/// devvn_refthread, of a vnode, which is told by its file here.
///
/// # Safety
/// `vnode` is the vnode of a file that the caller holds.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn devvn_refthread(
    vnode: Passed<File>,
    dev: Out<*const Cdev>,
    reference: Out<c_int>,
) -> *const Cdevsw {
    let Some(of) = behind(vnode.borrow("devvn_refthread")) else {
        return ptr::null();
    };
    let Some(devsw) = of.dev.enter() else {
        return ptr::null();
    };
    dev.put(Arc::as_ptr(&of.dev));
    reference.put(1);
    devsw.as_ptr()
}

/// dev_relthread.
///
/// # Safety
/// `dev` and `reference` are from devvn_refthread.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dev_relthread(dev: Passed<Cdev>, reference: c_int) {
    if reference != 0 {
        dev.borrow("dev_relthread").leave();
    }
}

/// _fdrop: the last reference to a file is gone.
///
/// # Safety
/// Nobody holds the file.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _fdrop(file: Passed<File>, _td: *const c_void) -> c_int {
    may_sleep("_fdrop");
    free(file.borrow("_fdrop"));
    0
}

/// cap_rights_t of cap_event_rights, of which the module has only the address.
#[unsafe(no_mangle)]
pub static cap_event_rights: [u64; 2] = [0; 2];

/// As cap_event_rights.
#[unsafe(no_mangle)]
pub static cap_write_rights: [u64; 2] = [0; 2];
