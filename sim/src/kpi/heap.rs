// SPDX-License-Identifier: BSD-2-Clause

//! The memory behind malloc(9), uma(9) and knotes.
//!
//! Every allocation has an owner, so that a leak has a name. Freed memory is poisoned, and
//! kept aside for a while, so that a late write shows.

use std::collections::{HashMap, VecDeque};
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::LazyLock;

use parking_lot::Mutex;

use super::console;
use crate::debug::fault::{self, FaultKind};
use crate::debug::inject::{self, Failure};
use crate::debug::kassert;
use crate::debug::witness::may_sleep;
use crate::schedule::sched;

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

/// What an allocation is made of, aligned as malloc(9) aligns.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Line([u8; 16]);

/// While a block is live, its owner uses the memory, and the heap leaves `lines` alone.
struct Block {
    owner: Owner,
    size: usize,
    lines: Vec<Line>,
}

/// All memory, by address. Given back to the host when dropped.
#[derive(Default)]
pub(crate) struct Heap {
    live: HashMap<usize, Block>,
    quarantine: VecDeque<(usize, Block)>,
    names: HashMap<Owner, String>,
}

static HEAP: LazyLock<Mutex<Heap>> = LazyLock::new(Mutex::default);

impl Heap {
    fn name(&self, owner: Owner) -> &str {
        self.names
            .get(&owner)
            .map_or("an unknown type", String::as_str)
    }

    /// Gives the block that was freed first back to the host. A fault if it was written to
    /// since.
    fn free_oldest(&mut self) {
        let Some((_, block)) = self.quarantine.pop_front() else {
            return;
        };
        let mut bytes = block.lines.iter().flat_map(|line| line.0);
        if let Some(at) = bytes.position(|b| b != POISON) {
            let message = format!(
                "{} bytes of {} were written at offset {at} after they were freed",
                block.size,
                self.name(block.owner)
            );
            fault::report(FaultKind::UseAfterFree, message);
        }
    }

    /// How many allocations of an owner are live, and how many bytes.
    fn usage(&self, owner: Owner) -> (usize, usize) {
        let sizes = self.live.values().filter(|b| b.owner == owner);
        sizes.fold((0, 0), |(n, bytes), b| (n + 1, bytes + b.size))
    }
}

/// Whether an allocation with these flags goes on. With M_WAITOK it always does; else a test
/// may have it fail.
pub(crate) fn may_allocate(what: &str, flags: c_int) -> bool {
    kassert!(
        (flags & M_WAITOK != 0) != (flags & M_NOWAIT != 0),
        "{what}: flags must have either M_WAITOK or M_NOWAIT"
    );
    if flags & M_WAITOK != 0 {
        may_sleep(format_args!("{what}(M_WAITOK)"));
        return true;
    }
    !inject::strikes(Failure::Allocation)
}

/// Names an owner.
pub(crate) fn name(owner: Owner, name: String) {
    HEAP.lock().names.insert(owner, name);
}

/// The name of an owner.
pub(crate) fn name_of(owner: Owner) -> String {
    HEAP.lock().name(owner).to_string()
}

/// Allocates. Null only where the flags allow that and a test has it fail.
pub(crate) fn allocate(owner: Owner, size: usize, flags: c_int) -> *mut c_void {
    if !may_allocate("malloc", flags) {
        return ptr::null_mut();
    }
    let fill = if flags & M_ZERO != 0 { 0 } else { GARBAGE };
    let mut lines = vec![Line([fill; 16]); size.max(1).div_ceil(size_of::<Line>())];
    let pointer = lines.as_mut_ptr();
    let block = Block { owner, size, lines };
    HEAP.lock().live.insert(pointer as usize, block);
    pointer.cast()
}

/// Memory is being freed: a fault if a callout in it may still run.
pub(crate) fn check_idle(owner: Owner, pointer: *mut c_void, size: usize) {
    let start = pointer as usize;
    let busy = sched::lock().wheel.evict(start..start + size);
    if let Some(busy) = busy {
        let message = format!(
            "memory of {} freed with a callout in it that is {busy}",
            HEAP.lock().name(owner)
        );
        fault::report(FaultKind::UseAfterFree, message);
    }
}

/// Frees. The host gets the memory back later, see the top of this file.
pub(crate) fn free(owner: Owner, pointer: *mut c_void) {
    if pointer.is_null() {
        return;
    }
    let address = pointer as usize;
    let size = HEAP.lock().live.get(&address).map(|b| b.size);
    check_idle(owner, pointer, size.unwrap_or(0));
    let mut heap = HEAP.lock();
    let Some(mut block) = heap.live.remove(&address) else {
        let twice = heap.quarantine.iter().any(|(a, _)| *a == address);
        let what = if twice {
            "freed twice"
        } else {
            "freed but never allocated"
        };
        let message = format!("memory of {} {what}", heap.name(owner));
        drop(heap);
        panic!("panic: free: {message}");
    };
    kassert!(
        block.owner == owner,
        "free: memory of {} freed as {}",
        heap.name(block.owner),
        heap.name(owner)
    );
    block.lines.fill(Line([POISON; 16]));
    heap.quarantine.push_back((address, block));
    if heap.quarantine.len() > QUARANTINE {
        heap.free_oldest();
    }
}

/// Fills an allocation, which the caller alone uses, with zeros.
pub(crate) fn zero(pointer: *mut c_void) {
    if let Some(block) = HEAP.lock().live.get_mut(&(pointer as usize)) {
        block.lines.fill(Line([0; 16]));
    }
}

/// Gives an allocation to another owner. False: it is not `from`'s.
pub(crate) fn hand_over(pointer: *mut c_void, from: Owner, to: Owner) -> bool {
    let mut heap = HEAP.lock();
    let block = heap.live.get_mut(&(pointer as usize));
    let block = block.filter(|block| block.owner == from);
    block.map(|block| block.owner = to).is_some()
}

/// How many allocations of the owner of that name are live; None: no owner has that name.
pub(crate) fn allocations(name: &str) -> Option<usize> {
    let heap = HEAP.lock();
    let mut names = heap.names.iter();
    let (owner, _) = names.find(|(_, n)| *n == name)?;
    Some(heap.usage(*owner).0)
}

/// The owner goes: a fault for what it leaves, in the kernel's words, which `warning` makes
/// of the owner's name, of the number of allocations, and of their bytes.
pub(crate) fn forget(owner: Owner, warning: impl FnOnce(&str, usize, usize) -> String) {
    let mut heap = HEAP.lock();
    let (count, bytes) = heap.usage(owner);
    let name = heap.names.remove(&owner).unwrap_or_default();
    drop(heap);
    if count != 0 {
        let message = warning(&name, count, bytes);
        console::print(&format!("{message}\n"));
        fault::report(FaultKind::Leak, message);
    }
}

/// The machine ends: faults for freed memory that was written to, and for what is left.
pub(crate) fn report_leaks() {
    let mut heap = HEAP.lock();
    while !heap.quarantine.is_empty() {
        heap.free_oldest();
    }
    let mut left: HashMap<Owner, usize> = HashMap::new();
    for block in heap.live.values() {
        *left.entry(block.owner).or_default() += 1;
    }
    for (owner, count) in left {
        let message = format!("{count} allocations of {} left", heap.name(owner));
        fault::report(FaultKind::Leak, message);
    }
}

/// Takes all memory out of the kernel, at the end of a machine.
///
/// # Safety
/// When the memory is dropped, nobody follows a pointer to it any more.
pub(crate) unsafe fn take() -> Heap {
    std::mem::take(&mut HEAP.lock())
}
