//! malloc(9), and the memory behind it and behind [`uma`](crate::kpi::uma): every allocation
//! has an owner, freed memory is poisoned and kept aside for a while, so that leaks and
//! late writes show.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use parking_lot::Mutex;

use crate::abi::MallocType;
use crate::debug::fault::FaultKind;
use crate::debug::inject::Failure;
use crate::debug::witness::may_sleep;
use crate::machine::kernel::{kassert, kernel};

pub(crate) const M_NOWAIT: c_int = 0x0001;
pub(crate) const M_WAITOK: c_int = 0x0002;
pub(crate) const M_ZERO: c_int = 0x0100;

/// What freed memory is filled with.
const POISON: u8 = 0xde;
/// What memory holds that was not asked to be zero.
const GARBAGE: u8 = 0xa5;
/// How many freed blocks are kept aside.
const QUARANTINE: usize = 512;

/// The owner of an allocation: the address of its malloc type or zone.
pub(crate) type Owner = usize;

struct Block {
    owner: Owner,
    layout: Layout,
}

#[derive(Default)]
struct State {
    live: HashMap<usize, Block>,
    quarantine: VecDeque<(usize, Block)>,
    names: HashMap<Owner, String>,
}

/// The kernel's memory.
#[derive(Default)]
pub(crate) struct Heap(Mutex<State>);

impl State {
    fn name(&self, owner: Owner) -> &str {
        self.names
            .get(&owner)
            .map_or("an unknown type", String::as_str)
    }

    /// Gives the oldest freed block back to the host, if nobody wrote to it since.
    fn release_oldest(&mut self) {
        let Some((address, block)) = self.quarantine.pop_front() else {
            return;
        };
        let pointer = address as *mut u8;
        // SAFETY: the block is still allocated, and only we may know of it.
        let bytes = unsafe { std::slice::from_raw_parts(pointer, block.layout.size()) };
        if let Some(at) = bytes.iter().position(|&b| b != POISON) {
            let message = format!(
                "{} bytes of {} were written at offset {at} after they were freed",
                block.layout.size(),
                self.name(block.owner)
            );
            kernel().faults.report(FaultKind::UseAfterFree, message);
        }
        // SAFETY: allocated with this layout, and freed by its owner.
        unsafe { dealloc(pointer, block.layout) };
    }
}

impl Heap {
    /// Names an owner.
    pub(crate) fn name(&self, owner: Owner, name: String) {
        self.0.lock().names.insert(owner, name);
    }

    /// Allocates; null only where the flags allow it and the failure was asked for.
    pub(crate) fn allocate(&self, owner: Owner, size: usize, flags: c_int) -> *mut c_void {
        if !may_allocate(flags) {
            return ptr::null_mut();
        }
        let layout = Layout::from_size_align(size.max(1), 16).expect("a size below 2^63");
        // SAFETY: the layout's size is not 0.
        let pointer = unsafe { alloc(layout) };
        kassert!(!pointer.is_null(), "malloc: the host is out of memory");
        let fill = if flags & M_ZERO != 0 { 0 } else { GARBAGE };
        // SAFETY: just allocated with that size.
        unsafe { pointer.write_bytes(fill, layout.size()) };
        let block = Block { owner, layout };
        self.0.lock().live.insert(pointer as usize, block);
        pointer.cast()
    }

    /// Memory is being freed: a fault if a callout in it may still run.
    pub(crate) fn check_idle(&self, owner: Owner, pointer: *mut c_void, size: usize) {
        let start = pointer as usize;
        let busy = kernel().sched.lock().wheel.evict(start..start + size);
        if let Some(busy) = busy {
            let message = format!(
                "memory of {} freed with a callout in it that is {busy}",
                self.0.lock().name(owner)
            );
            kernel().faults.report(FaultKind::UseAfterFree, message);
        }
    }

    /// Frees; not at once, see the module.
    pub(crate) fn free(&self, owner: Owner, pointer: *mut c_void) {
        if pointer.is_null() {
            return;
        }
        let size = self
            .0
            .lock()
            .live
            .get(&(pointer as usize))
            .map(|b| b.layout.size());
        self.check_idle(owner, pointer, size.unwrap_or(0));
        let mut state = self.0.lock();
        let Some(block) = state.live.remove(&(pointer as usize)) else {
            let twice = state.quarantine.iter().any(|(a, _)| *a == pointer as usize);
            let what = if twice {
                "freed twice"
            } else {
                "freed but never allocated"
            };
            let message = format!("memory of {} {what}", state.name(owner));
            drop(state);
            panic!("panic: free: {message}");
        };
        kassert!(
            block.owner == owner,
            "free: memory of {} freed as {}",
            state.name(block.owner),
            state.name(owner)
        );
        // SAFETY: live until now, and given up by its owner.
        unsafe {
            pointer
                .cast::<u8>()
                .write_bytes(POISON, block.layout.size())
        };
        state.quarantine.push_back((pointer as usize, block));
        if state.quarantine.len() > QUARANTINE {
            state.release_oldest();
        }
    }

    /// Hands an allocation to another owner, if it is that owner's.
    pub(crate) fn hand_over(&self, pointer: *mut c_void, from: Owner, to: Owner) -> bool {
        let mut state = self.0.lock();
        let block = state.live.get_mut(&(pointer as usize));
        let block = block.filter(|block| block.owner == from);
        block.map(|block| block.owner = to).is_some()
    }

    /// How many allocations of an owner are live, and how many bytes.
    pub(crate) fn usage(&self, owner: Owner) -> (usize, usize) {
        let state = self.0.lock();
        let sizes = state.live.values().filter(|b| b.owner == owner);
        sizes.fold((0, 0), |(n, bytes), b| (n + 1, bytes + b.layout.size()))
    }

    /// The owner of that name.
    pub(crate) fn owner(&self, name: &str) -> Option<Owner> {
        let state = self.0.lock();
        let mut names = state.names.iter();
        names.find(|(_, n)| *n == name).map(|(owner, _)| *owner)
    }

    /// The owner goes: a fault for what it leaves, in the kernel's words.
    pub(crate) fn forget(&self, owner: Owner, warning: impl FnOnce(&str, usize, usize) -> String) {
        let (count, bytes) = self.usage(owner);
        let name = self.0.lock().names.remove(&owner).unwrap_or_default();
        if count != 0 {
            let message = warning(&name, count, bytes);
            kernel().console.print(&format!("{message}\n"));
            kernel().faults.report(FaultKind::Leak, message);
        }
    }

    /// The machine ends: looks at all freed memory, reports and frees what is left.
    pub(crate) fn finish(&self) {
        let mut state = self.0.lock();
        while !state.quarantine.is_empty() {
            state.release_oldest();
        }
        let mut left: HashMap<Owner, usize> = HashMap::new();
        let blocks = std::mem::take(&mut state.live);
        for (address, block) in blocks {
            *left.entry(block.owner).or_default() += 1;
            // SAFETY: allocated with this layout; the kernel ends and nobody uses it.
            unsafe { dealloc(address as *mut u8, block.layout) };
        }
        for (owner, count) in left {
            let message = format!("{count} allocations of {} left", state.name(owner));
            kernel().faults.report(FaultKind::Leak, message);
        }
    }
}

/// Whether an allocation goes on, by the failure asked for; one that may sleep always does.
pub(crate) fn may_allocate(flags: c_int) -> bool {
    kassert!(
        (flags & M_WAITOK != 0) != (flags & M_NOWAIT != 0),
        "malloc: flags must have either M_WAITOK or M_NOWAIT"
    );
    if flags & M_WAITOK != 0 {
        may_sleep("malloc(M_WAITOK)");
        return true;
    }
    !kernel().inject.strikes(Failure::Allocation)
}

/// The name in a malloc type.
///
/// # Safety
/// `kind` is a `struct malloc_type`.
unsafe fn type_name(kind: *const MallocType) -> String {
    // SAFETY: the caller's promise; the description is a C string.
    unsafe { CStr::from_ptr((*kind).ks_shortdesc) }
        .to_string_lossy()
        .into_owned()
}

/// malloc(9).
///
/// # Safety
/// `kind` is a `struct malloc_type` that malloc_init() has seen.
#[unsafe(export_name = "sim_malloc")]
pub unsafe extern "C-unwind" fn malloc(
    size: usize,
    kind: *const MallocType,
    flags: c_int,
) -> *mut c_void {
    kernel().heap.allocate(kind as Owner, size, flags)
}

/// free(9).
///
/// # Safety
/// `pointer` is null or came from malloc(9) with the same type; nobody uses it.
#[unsafe(export_name = "sim_free")]
pub unsafe extern "C-unwind" fn free(pointer: *mut c_void, kind: *const MallocType) {
    kernel().heap.free(kind as Owner, pointer);
}

/// MALLOC_DEFINE(9) at load.
///
/// # Safety
/// `kind` is a `struct malloc_type`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn malloc_init(kind: *const MallocType) {
    // SAFETY: the caller's promise.
    let name = unsafe { type_name(kind) };
    kernel().heap.name(kind as Owner, name);
}

/// MALLOC_DEFINE(9) at unload: warns of what was leaked.
///
/// # Safety
/// `kind` is a `struct malloc_type` that malloc_init() has seen.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn malloc_uninit(kind: *const MallocType) {
    kernel().heap.forget(kind as Owner, |name, count, bytes| {
        format!(
            "Warning: memory type {name} leaked memory on destroy ({count} allocations, \
             {bytes} bytes leaked)."
        )
    });
}
